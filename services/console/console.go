package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/willabides/kongplete"

	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/terminal"
)

// Exit codes of the program.
const (
	ExitOK     = 0
	ExitFailed = 1 // something went wrong, or verify and demo found a difference
	ExitUsage  = 2 // the command line or the settings are wrong
)

// program is the command line.
type program struct {
	Demo     demoCommand     `cmd:"" help:"Show it: traffic with attackers for 20 seconds, alerts as they come, and how right they were."`
	Up       upCommand       `cmd:"" help:"Run everything in one process: broker, router, detector, alerter."`
	Simulate simulateCommand `cmd:"" help:"Send events: a file of clicks, or generated traffic with labelled attackers."`
	Replay   replayCommand   `cmd:"" help:"Run a file through the whole pipeline as fast as it goes, and list its alerts."`
	Verify   verifyCommand   `cmd:"" help:"Replay a file and compare every alert with an independent count of the file."`
	User     userCommand     `cmd:"" help:"Ask the running detector for the present windows of a user."`

	Route  routeCommand  `cmd:"" group:"services" help:"Service: judge events, add them up per user and window (exactly once)."`
	Detect detectCommand `cmd:"" group:"services" help:"Service: find the windows above the threshold."`
	Alert  alertCommand  `cmd:"" group:"services" help:"Service: store the alerts, print them, and call the webhooks."`
	Work   workCommand   `cmd:"" group:"aws" help:"Service: find the windows above the threshold in a Kinesis stream (router and detector in one)."`
	Lambda lambdaCommand `cmd:"" group:"aws" help:"Service: the alerter as an AWS Lambda function, for the records of a Kinesis stream."`

	Alerts     alertsCommand     `cmd:"" help:"Look at the alerts that were stored: list them, or tell the whole story of one."`
	Deliveries deliveriesCommand `cmd:"" help:"Look at who was notified of alerts and how that went; send messages again."`
	Endpoints  endpointsCommand  `cmd:"" help:"Look at who is notified of alerts; try them out, enable and disable them."`

	AWS   awsCommand   `cmd:"" name:"aws" group:"aws" help:"Make what mode aws needs."`
	Rules rulesCommand `cmd:"" help:"Write the rule for other engines: Flink SQL."`

	Receive receiveCommand `cmd:"" help:"Receive webhooks: verify their signatures and print them."`
	Migrate migrateCommand `cmd:"" help:"Look after the schema of the database of alerts."`
	Doctor  doctorCommand  `cmd:"" help:"Look at everything that the services stand on, and say what will not work and what to do."`
	Health  healthCommand  `cmd:"" help:"Ask a running service whether it is ready; for health checks."`

	Completion kongplete.InstallCompletions `cmd:"" help:"Print what makes your shell complete spate's commands."`
	Version    versionCommand               `cmd:"" help:"Print the version."`

	LogLevel string `name:"log-level" env:"SPATE_LOG_LEVEL" default:"" placeholder:"LEVEL" help:"debug, info, warn or error. Default: info for services, warn for the other commands."`
	Mode     string `name:"mode" env:"SPATE_MODE" default:"" placeholder:"MODE" help:"embedded, kafka or aws. Default: kafka if brokers are set, else embedded."`
}

// env is what a command needs of its surroundings.
type env struct {
	ctx    context.Context
	stdout io.Writer
	stderr io.Writer
	level  string
	mode   string
}

// errUsage marks what the person who types has to mend.
var errUsage = errors.New("settings")

// errDiffers is how a comparison that found differences ends; it has been printed already.
var errDiffers = errors.New("differences found")

// Main runs the command line and returns the exit code. The first interrupt ends the command in good order, the second at once.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	// docker compose passes what is not set as an empty text.
	for _, e := range os.Environ() {
		if name, value, _ := strings.Cut(e, "="); value == "" && strings.HasPrefix(name, "SPATE_") {
			_ = os.Unsetenv(name) // it is a valid name
		}
	}

	var p program
	exited := -1
	parser, err := kong.New(&p,
		kong.Name("spate"),
		kong.Description("Finds bursts in a stream of events while they happen: more than 5 events of one user in a window of 10 seconds. "+
			"Every flag can be set in the environment; a flag wins.\n\nStart with: spate demo"),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
		kong.ExplicitGroups([]kong.Group{
			{Key: "services", Title: "Services, one process each, on your Kafka:"},
			{Key: "aws", Title: "On AWS (SPATE_MODE=aws; spate alert works there, too):"},
			{Key: "security", Title: securityGroup},
		}),
		kong.Vars{"services": strings.Join(kafka.Services, ", ")},
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code; panic(exit{}) }),
	)
	if err != nil {
		terminal.Fprintln(stderr, "spate:", err)
		return ExitUsage
	}
	code := func() (code int) {
		defer func() {
			if r := recover(); r != nil {
				if _, ok := r.(exit); !ok {
					panic(r)
				}
				code = exited
			}
		}()
		kongplete.Complete(parser)
		if len(args) == 0 {
			args = []string{"--help"}
			if os.Getenv(runtimeAPI) != "" { // AWS Lambda starts programs without arguments
				args = []string{"lambda"}
			}
		}
		k, err := parser.Parse(args)
		if err != nil {
			var perr *kong.ParseError
			if errors.As(err, &perr) && perr.Context != nil {
				_ = perr.Context.PrintUsage(true) // to a writer that is the terminal's
			}
			terminal.Fprintln(stderr, "spate:", withoutSecrets(err.Error(), args))
			return ExitUsage
		}
		e := &env{ctx: ctx, stdout: stdout, stderr: stderr, level: p.LogLevel, mode: p.Mode}
		if err := e.validate(k.Command()); err != nil {
			return e.fail(err)
		}
		for _, line := range unknownVariables(parser.Model.Node, os.Environ()) {
			terminal.Fprintln(stderr, "spate: warning:", line)
		}
		return e.fail(k.Run(e))
	}()
	return code
}

var (
	// secretive is an argument that may be, or hold, a secret that went to the wrong place.
	secretive = regexp.MustCompile(`(?i)://|@|passw|pwd=|^(--database-url|--(webhook-)?secret)\b|` + secretPrefix)
	// mistyped is a complaint about an argument that is a word.
	mistyped = regexp.MustCompile(`^unexpected argument [A-Za-z-]+(, did you mean .*)?$`)
)

// withoutSecrets takes what may be a secret out of a complaint about the command line, which quotes arguments.
func withoutSecrets(text string, args []string) string {
	holds := slices.ContainsFunc(args, secretive.MatchString)
	if strings.HasPrefix(text, "unexpected argument") && (holds || !mistyped.MatchString(text)) {
		return "unexpected argument, not shown as it may be a secret; values with spaces need quotes"
	}
	for _, a := range args {
		if strings.HasPrefix(a, "-") {
			_, a, _ = strings.Cut(a, "=")
		}
		if secretive.MatchString(a) {
			text = strings.ReplaceAll(text, a, "[...]")
		}
	}
	return text
}

// exit unwinds kong, which ends the process where it prints help.
type exit struct{}

// notOnAWS are the commands that look at what mode aws does not have.
var notOnAWS = map[string]string{
	"deliveries": "SNS delivers the messages; spate alerts ls shows which alerts were sent to it",
	"endpoints":  "they are the subscriptions of the SNS topic",
	"migrate":    "the table has no schema; spate aws setup and deploy/aws/template.yaml make it",
	"user":       "the worker cannot be asked; spate alerts ls --user lists the alerts of a user",
}

func (e *env) validate(command string) error {
	name, _, _ := strings.Cut(command, " ")
	if why := notOnAWS[name]; why != "" && e.mode == "aws" {
		return fmt.Errorf("%w: mode: spate %s is not for mode aws: %s", errUsage, name, why)
	}
	switch e.mode {
	case "", "embedded", "kafka", "aws":
	default:
		return fmt.Errorf("%w: mode: %q is none of embedded, kafka, aws (SPATE_MODE, --mode)", errUsage, e.mode)
	}
	if e.level != "" {
		var l slog.Level
		if err := l.UnmarshalText([]byte(e.level)); err != nil {
			return fmt.Errorf("%w: log-level: %q is none of debug, info, warn, error", errUsage, e.level)
		}
	}
	return nil
}

// need tells that a command is of one mode only.
func (e *env) need(mode string) error {
	if e.mode != "" && e.mode != mode {
		return fmt.Errorf("mode: %s; this command is of mode %s only (SPATE_MODE, --mode)", e.mode, mode)
	}
	return nil
}

// fail prints an error and returns the exit code that goes with it.
func (e *env) fail(err error) int {
	switch {
	case err == nil:
		return ExitOK
	case errors.Is(err, errDiffers):
		return ExitFailed
	case errors.Is(err, errUsage):
		terminal.Fprintln(e.stderr, "spate:", err)
		return ExitUsage
	case errors.Is(err, context.Canceled) && e.ctx.Err() != nil:
		terminal.Fprintln(e.stderr, "spate: interrupted")
		return 130
	}
	terminal.Fprintln(e.stderr, "spate:", err)
	return ExitFailed
}

// usage marks the problems of a configuration as the person's to mend.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w:\n%w", errUsage, err)
}

// logger writes to standard error. quiet is the level unless one was asked for.
func (e *env) logger(quiet slog.Level) *slog.Logger {
	level := quiet
	if e.level != "" {
		_ = level.UnmarshalText([]byte(e.level)) // checked by validate
	}
	return ops.Logger(e.stderr, level)
}

type versionCommand struct{}

func (versionCommand) Run(e *env) error {
	version, revision := "devel", ""
	if b, ok := debug.ReadBuildInfo(); ok {
		if b.Main.Version != "" && b.Main.Version != "(devel)" {
			version = b.Main.Version
		}
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				revision = " " + s.Value
			}
		}
	}
	_, err := terminal.Fprintf(e.stdout, "spate %s%s\n", version, revision)
	return err
}
