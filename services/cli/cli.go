package cli

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
	"spate/shared/notify/webhook"
	"spate/shared/ops"
	"spate/shared/terminal"
)

// Exit codes of the program.
const (
	ExitOK     = 0
	ExitFailed = 1 // something went wrong, verify or demo found a difference, or a case of rules test failed
	ExitUsage  = 2 // the command line or the settings are wrong
)

// program is the command line.
type program struct {
	Demo     demoCommand     `cmd:"" help:"Run a 20-second demo: generate traffic with attackers, print alerts as they open, and check them."`
	Up       upCommand       `cmd:"" help:"Run everything in one process: broker, router, detector, alerter."`
	Simulate simulateCommand `cmd:"" help:"Send events from a file, or generated traffic with labeled attackers."`
	Replay   replayCommand   `cmd:"" help:"Run a file through the whole pipeline as fast as possible, and list its alerts."`
	Verify   verifyCommand   `cmd:"" help:"Replay a file and compare every alert with an independent count of its events."`
	User     userCommand     `cmd:"" help:"Show a user's open windows, as counted by the running detector."`
	Key      keyCommand      `cmd:"" help:"Show the open windows for any rule's key, such as an address, as counted by the running detector."`
	Top      topCommand      `cmd:"" help:"Show live rates, lag, the users with the most events and the open incidents."`
	Why      whyCommand      `cmd:"" help:"Explain why an account was flagged, or why it was not."`
	SQL      sqlCommand      `cmd:"" name:"sql" help:"Query events, alerts and incidents with SQL, in a time range of the log or in files."`

	Route   routeCommand   `cmd:"" group:"services" help:"Service: validate events and count them per user and window (exactly once)."`
	Detect  detectCommand  `cmd:"" group:"services" help:"Service: find windows above the threshold."`
	Alert   alertCommand   `cmd:"" group:"services" help:"Service: store alerts, print them, and call webhooks."`
	Decide  decideCommand  `cmd:"" group:"services" help:"Service: tell your own code which decision, such as a challenge, applies to an account."`
	Console consoleCommand `cmd:"" group:"services" help:"Service: serve the console: web pages that show incidents and why accounts were flagged."`
	Work    workCommand    `cmd:"" group:"aws" help:"Service: find windows above the threshold in a Kinesis stream (router and detector in one)."`
	Lambda  lambdaCommand  `cmd:"" group:"aws" help:"Service: run the alerter as an AWS Lambda function that consumes a Kinesis stream."`

	Incidents  incidentsCommand  `cmd:"" help:"List incidents (series of alerts about one key), show one in detail, and record what it turned out to be."`
	Decisions  decisionsCommand  `cmd:"" help:"List, make and end decisions: what your own code should do about an account, and until when."`
	Silence    silenceCommand    `cmd:"" help:"Suppress notifications about a rule's or key's incidents for a limited time."`
	Alerts     alertsCommand     `cmd:"" help:"List stored alerts, or show one in detail."`
	Deliveries deliveriesCommand `cmd:"" help:"List and inspect webhook deliveries, and resend messages."`
	Endpoints  endpointsCommand  `cmd:"" help:"List, test, enable and disable the endpoints that are notified of incidents and alerts."`

	AWS   awsCommand   `cmd:"" name:"aws" group:"aws" help:"Create the AWS resources that mode aws needs."`
	Rules rulesCommand `cmd:"" help:"Check, test, apply, import and export rules written in Flink SQL."`

	Receive receiveCommand `cmd:"" help:"Receive webhook calls, verify their signatures, and print them."`
	Migrate migrateCommand `cmd:"" help:"Manage the schema of the alert database."`
	Doctor  doctorCommand  `cmd:"" help:"Check everything the services depend on, and report what will not work and how to fix it."`
	Health  healthCommand  `cmd:"" help:"Check whether a running service is ready; for use in health checks."`

	Completion completionCommand `cmd:"" help:"Print a completion script for bash, zsh or fish."`
	Version    versionCommand    `cmd:"" help:"Print the version."`

	ShowVersion kong.VersionFlag `name:"version" help:"Print the version."`

	LogLevel string `name:"log-level" env:"SPATE_LOG_LEVEL" default:"" placeholder:"LEVEL" help:"Log level: debug, info, warn or error. Default: info for services, warn for other commands."`
	Mode     string `name:"mode" env:"SPATE_MODE" default:"" placeholder:"MODE" help:"Mode: embedded, kafka or aws. Default: kafka if brokers are set, otherwise embedded."`
}

// env is what a command needs of its surroundings.
type env struct {
	ctx    context.Context
	stdout io.Writer
	stderr io.Writer
	level  string
	mode   string
}

// errUsage is what an error is that the user has to fix.
var errUsage = errors.New("usage")

// errDiffers is how a comparison that found differences ends; it has been printed already.
var errDiffers = errors.New("differences found")

// Main runs the command line and returns the exit code. The first interrupt ends the command in good order, the second at once.
func Main(args []string, stdout, stderr io.Writer) int {
	stdout, stderr = screens(stdout, stderr)
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
		kong.Description("Detects bursts in a stream of events as they happen: by default, more than 5 events by one user within a 10-second window. "+
			"Settings can also be given as environment variables; flags take precedence.\n\nTo get started: spate demo"),
		kong.UsageOnError(),
		durations,
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
		kong.ExplicitGroups([]kong.Group{
			{Key: "services", Title: "Services, one process each, for your own Kafka:"},
			{Key: "aws", Title: "On AWS (SPATE_MODE=aws; spate alert also works there):"},
			{Key: "security", Title: securityGroup},
		}),
		kong.Vars{"services": strings.Join(kafka.Services, ", "), "version": version()},
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
			text := err.Error()
			switch {
			case !errors.As(err, &perr) || perr.Context == nil:
			case perr.Context.Selected() == nil && len(perr.Context.Path) <= 1: // no command: its help is that of all commands
				terminal.Fprintln(stdout, `Run "spate --help" for a list of commands.`)
			default:
				_ = perr.Context.PrintUsage(true) // to a writer that is the terminal's
				text = missing(text, perr.Context.Path)
			}
			terminal.Fprintln(stderr, "spate:", withoutSecrets(text, args))
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

// wanted is the parser's complaint about arguments that are missing, by name.
var wanted = regexp.MustCompile(`<([a-z-]+)>`)

// missing says of arguments that are missing what they are.
func missing(text string, path []*kong.Path) string {
	if !strings.HasPrefix(text, `expected "<`) && !strings.HasPrefix(text, "missing positional arguments") {
		return text
	}
	var node *kong.Node
	for _, p := range path {
		if n := p.Node(); n != nil && (p.Command != nil || p.App != nil) {
			node = n
		}
	}
	var out []string
	for _, m := range wanted.FindAllStringSubmatch(text, -1) {
		i := slices.IndexFunc(node.Positional, func(v *kong.Value) bool { return v.Name == m[1] })
		if i < 0 {
			return text
		}
		help, _, _ := strings.Cut(node.Positional[i].Help, ". ")
		out = append(out, fmt.Sprintf("%s: missing. %s", m[1], strings.TrimSuffix(help, ".")))
	}
	return strings.Join(out, "\nspate: ")
}

// screens returns the writers as one screen where they are terminals, so that logs and what changes in place do not get into each other's way.
func screens(stdout, stderr io.Writer) (io.Writer, io.Writer) {
	out, ok := stdout.(*os.File)
	if ok {
		if s := terminal.NewScreen(out); s != nil {
			stdout = s
		}
	}
	if err, ok := stderr.(*os.File); ok {
		if s, shared := stdout.(*terminal.Screen); shared && sameFile(out, err) {
			stderr = s
		} else if s := terminal.NewScreen(err); s != nil {
			stderr = s
		}
	}
	return stdout, stderr
}

func sameFile(a, b *os.File) bool {
	x, errX := a.Stat()
	y, errY := b.Stat()
	return errX == nil && errY == nil && os.SameFile(x, y)
}

var (
	// secretive is an argument that may be, or hold, a secret that went to the wrong place.
	secretive = regexp.MustCompile(`(?i)://|@|passw|pwd=|^(--database-url|--(webhook-)?secret)\b|` + webhook.SecretPrefix)
	// mistyped is a complaint about an argument that is a word.
	mistyped = regexp.MustCompile(`^unexpected argument [A-Za-z-]+(, did you mean .*)?$`)
)

// withoutSecrets takes what may be a secret out of a complaint about the command line, which quotes arguments.
func withoutSecrets(text string, args []string) string {
	holds := slices.ContainsFunc(args, secretive.MatchString)
	if strings.HasPrefix(text, "unexpected argument") && (holds || !mistyped.MatchString(text)) {
		return "unexpected argument (not shown, as it may be a secret); quote values that contain spaces"
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
	"migrate": "the DynamoDB table has no schema; create it with spate aws setup or deploy/aws/template.yaml",
	"key":     "the worker cannot be queried; to list alerts about a key, use spate alerts ls --key",
	"user":    "the worker cannot be queried; to list alerts about a user, use spate alerts ls --user",
}

func (e *env) validate(command string) error {
	name, _, _ := strings.Cut(command, " ")
	if why := notOnAWS[name]; why != "" && e.mode == "aws" {
		return usage(fmt.Errorf("mode: spate %s is not available in mode aws: %s", name, why))
	}
	switch e.mode {
	case "", "embedded", "kafka", "aws":
	default:
		return usage(fmt.Errorf("mode: %q is not one of embedded, kafka, aws (SPATE_MODE, --mode)", e.mode))
	}
	if e.level != "" {
		var l slog.Level
		if err := l.UnmarshalText([]byte(e.level)); err != nil {
			return usage(fmt.Errorf("log-level: %q is not one of debug, info, warn, error (SPATE_LOG_LEVEL, --log-level)", e.level))
		}
	}
	return nil
}

// need tells that a command is of one mode only.
func (e *env) need(mode string) error {
	if e.mode != "" && e.mode != mode {
		return fmt.Errorf("mode: this command does not work in mode %s; it requires mode %s (SPATE_MODE, --mode)", e.mode, mode)
	}
	return nil
}

// fail prints an error and returns the exit code that goes with it.
func (e *env) fail(err error) int {
	switch {
	case err == nil:
		return ExitOK
	case errors.Is(err, errDiffers), errors.Is(err, errCases), errors.Is(err, errUnread):
		return ExitFailed
	case errors.Is(err, errRules), errors.Is(err, errStatement):
		return ExitUsage
	case errors.Is(err, errUsage):
		for problem := range strings.Lines(err.Error()) {
			terminal.Fprintln(e.stderr, "spate:", strings.TrimSuffix(problem, "\n"))
		}
		return ExitUsage
	case errors.Is(err, context.Canceled) && e.ctx.Err() != nil:
		terminal.Fprintln(e.stderr, "spate: interrupted")
		return 130
	}
	terminal.Fprintln(e.stderr, "spate:", err)
	return ExitFailed
}

// usage marks the problems of a command line, of settings or of a file as the person's to mend.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

// usageError is errUsage, and says only what is wrong.
type usageError struct{ error }

func (usageError) Is(target error) bool { return target == errUsage }

// Unwrap returns the problems.
func (e usageError) Unwrap() error { return e.error }

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
	_, err := terminal.Fprintln(e.stdout, version())
	return err
}

// version is that of the module, and the commit that it was built of, if they are known.
func version() string {
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
	return "spate " + version + revision
}
