package console

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"spate/services/embedded"
	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/format"
	"spate/shared/kafka"
	"spate/shared/ops"
)

// ruleFlags say what is looked for.
type ruleFlags struct {
	Window                 time.Duration `env:"SPATE_WINDOW" default:"10s" help:"Size of the tumbling windows of event time."`
	Threshold              int64         `env:"SPATE_THRESHOLD" default:"5" help:"A window with more events of one user than this is an alert."`
	Critical               int64         `env:"SPATE_CRITICAL" default:"10" help:"With more events than this, its severity is critical."`
	Lateness               time.Duration `env:"SPATE_LATENESS" default:"10s" help:"How far behind the newest event of its partition an event may come and still be counted."`
	IdleTimeout            time.Duration `name:"idle-timeout" env:"SPATE_IDLE_TIMEOUT" default:"5s" help:"A partition that is silent for this long does not hold windows open; 0 waits forever."`
	MaxAhead               time.Duration `name:"max-ahead" env:"SPATE_MAX_AHEAD" default:"1m" help:"An event whose time is further in the future than this is invalid; 0 accepts any."`
	OpenTransactionTimeout time.Duration `name:"open-transaction-timeout" env:"SPATE_OPEN_TRANSACTION_TIMEOUT" default:"75s" help:"How long an open transaction in the topic of events holds windows open; what it commits later can be late. 0 waits forever. Kafka ends transactions after 60s unless their producer asks for more."`
	UserField              []string      `name:"user-field" env:"SPATE_USER_FIELD" default:"user_id" help:"Members of the event, or columns of a file, that may hold the user; the first that is there counts. Dots lead into objects, as in actor.id; write \\. for a dot that belongs to a name."`
	TimeField              []string      `name:"time-field" env:"SPATE_TIME_FIELD" default:"txn_timestamp,event_time" help:"Members or columns that may hold the event's time, likewise."`
	TimeFormat             string        `name:"time-format" env:"SPATE_TIME_FORMAT" default:"auto" help:"How times are written: auto (texts as in RFC 3339 and numbers of milliseconds), rfc3339, s, ms, us or ns since 1970, or a layout of Go such as 02.01.2006 15:04:05, in UTC."`
	Transitions            []string      `env:"SPATE_TRANSITIONS" default:"opened,closed" help:"Alert records to write: opened,closed, or closed alone for consumers that expect one record a window."`
}

// defaultFields reports whether the fields are those of the data set.
func defaultFields(f ruleFlags) bool {
	d := activity.DefaultFields()
	return slices.Equal(f.UserField, d.User) && slices.Equal(f.TimeField, d.Time) && (f.TimeFormat == "" || f.TimeFormat == string(activity.TimeAuto))
}

func (f ruleFlags) rule() embedded.Rule {
	r := embedded.Rule{
		Events: format.Config{Fields: activity.Fields{User: f.UserField, Time: f.TimeField, TimeFormat: activity.TimeFormat(f.TimeFormat)}},
		Window: f.Window, Lateness: f.Lateness, IdleTimeout: f.IdleTimeout, MaxAhead: f.MaxAhead, OpenTransactionTimeout: f.OpenTransactionTimeout,
		Threshold: f.Threshold, Critical: f.Critical,
	}
	for _, t := range f.Transitions {
		r.Transitions = append(r.Transitions, alert.State(t))
	}
	return r
}

// kafkaFlags say where the broker is and how the topics are.
type kafkaFlags struct {
	brokerFlags
	Topic       string `env:"SPATE_TOPIC" default:"activity" help:"Topic that the events come in; the names of the others follow from it."`
	Partitions  int32  `env:"SPATE_PARTITIONS" default:"0" help:"Partitions of topics that are made; 0 is as they are, or 4. A topic with another count is an error."`
	Replication int16  `env:"SPATE_REPLICATION" default:"0" help:"Replication factor of topics that are made; 0 is the broker's default."`

	MaxBatchBytes int `name:"max-batch-bytes" env:"SPATE_MAX_BATCH_BYTES" default:"67108864" help:"Most bytes that a batch of records may take when it is decompressed; a larger one is left out and told as unreadable."`
}

// settings is what a service of mode kafka connects with.
func (f kafkaFlags) settings(e *env, log *slog.Logger) (kafka.Config, error) {
	cfg, err := f.config(log)
	cfg.MaxBatchBytes = f.MaxBatchBytes
	return cfg, errors.Join(err, f.check(e.mode))
}

// layout is how the topics are for a service; instance is the name of a router, if it has one.
func (f kafkaFlags) layout(service, instance string) kafka.Layout {
	return kafka.Layout{Names: kafka.NamesFor(f.Topic), Partitions: f.Partitions, Replication: f.Replication, Service: service, Instance: instance}
}

// check holds the mode against the brokers.
func (f kafkaFlags) check(mode string) error {
	if mode == "aws" {
		return errors.New("mode: this command is for Kafka; in mode aws, spate work finds the alerts, and spate alert or spate lambda sends them")
	}
	if mode == "kafka" && len(f.Brokers) == 0 && f.KafkaConfig == "" {
		return errors.New("brokers: mode kafka needs them; set SPATE_BROKERS or --brokers to host:port[,host:port...]")
	}
	if f.Topic == "" || strings.ContainsAny(f.Topic, "/ ,") || len(f.Topic) > 200 {
		return fmt.Errorf("topic: %q is not a valid name of a topic", f.Topic)
	}
	if f.Partitions < 0 || f.Replication < 0 {
		return errors.New("partitions, replication: below 0")
	}
	return nil
}

// httpFlags say where a service reports its health and metrics.
type httpFlags struct {
	HTTP  string `name:"http" env:"SPATE_HTTP" default:"127.0.0.1:0" placeholder:"HOST:PORT" help:"Address of /metrics, /healthz and /readyz; port 0 takes a free one and says which."`
	PProf bool   `name:"pprof" env:"SPATE_PPROF" help:"Serve /debug/pprof/ there, too: profiles hold names and ids, so only where no stranger reaches it."`

	HTTPTLSCertFile string `name:"http-tls-cert-file" env:"SPATE_HTTP_TLS_CERT_FILE" placeholder:"FILE" help:"Speak TLS there, with this certificate (PEM), which is read again when it changes."`
	HTTPTLSKeyFile  string `name:"http-tls-key-file" env:"SPATE_HTTP_TLS_KEY_FILE" placeholder:"FILE" help:"Key of that certificate (PEM)."`
	tokenFlags
}

// tokenFlags say what those who ask a service have to send. The token itself has no flag: everyone on a machine can read command lines.
type tokenFlags struct {
	HTTPTokenFile string `name:"http-token-file" env:"SPATE_HTTP_TOKEN_FILE" placeholder:"FILE" help:"File with the token that those who ask need, for all pages but /healthz; or set SPATE_HTTP_TOKEN. Default: none."`
}

func (f tokenFlags) access() ops.Access {
	return ops.Access{Token: os.Getenv("SPATE_HTTP_TOKEN"), TokenFile: f.HTTPTokenFile}
}

func (f httpFlags) access() ops.Access {
	a := f.tokenFlags.access()
	a.CertFile, a.KeyFile = f.HTTPTLSCertFile, f.HTTPTLSKeyFile
	return a
}

func (f httpFlags) listen(log *slog.Logger) (*ops.Server, error) {
	if err := usage(f.access().Validate()); err != nil {
		return nil, err
	}
	server, err := ops.Listen(f.HTTP)
	if err != nil {
		return nil, err
	}
	if f.PProf {
		server.Profile()
	}
	return server, usage(server.Secure(f.access(), log))
}

// stateDir is where a person's programs keep state, after the XDG base directory specification.
func stateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "spate"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("state directory: %w; give one with --state", err)
	}
	return filepath.Join(home, ".local", "state", "spate"), nil
}
