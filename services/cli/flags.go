package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	Window                 time.Duration `env:"SPATE_WINDOW" default:"10s" help:"Size of the tumbling event-time windows."`
	Threshold              int64         `env:"SPATE_THRESHOLD" default:"5" help:"A window with more than this many events by one user raises an alert."`
	Critical               int64         `env:"SPATE_CRITICAL" placeholder:"N" help:"An alert with more than this many events is critical. Default: twice the threshold."`
	Lateness               time.Duration `env:"SPATE_LATENESS" default:"10s" help:"How far an event can lag behind the newest event in its partition and still be counted."`
	IdleTimeout            time.Duration `name:"idle-timeout" env:"SPATE_IDLE_TIMEOUT" default:"5s" help:"A partition that has had no events for this long no longer holds windows open; 0 disables this timeout."`
	MaxAhead               time.Duration `name:"max-ahead" env:"SPATE_MAX_AHEAD" default:"1m" help:"An event whose time is further in the future than this is invalid; 0 accepts any time."`
	OpenTransactionTimeout time.Duration `name:"open-transaction-timeout" env:"SPATE_OPEN_TRANSACTION_TIMEOUT" default:"75s" help:"How long an open transaction in the events topic can hold windows open; events committed after that may be late. 0 means no limit. Kafka aborts transactions after 60s unless the producer sets a longer timeout."`
	UserField              []string      `name:"user-field" env:"SPATE_USER_FIELD" default:"user_id" help:"Event fields, or file columns, that may hold the user; the first one present is used. Dots access nested fields, as in actor.id; write \\. for a dot in a name."`
	TimeField              []string      `name:"time-field" env:"SPATE_TIME_FIELD" default:"txn_timestamp,event_time" help:"Event fields, or file columns, that may hold the event time; the first one present is used."`
	TimeFormat             string        `name:"time-format" env:"SPATE_TIME_FORMAT" default:"auto" help:"Time format: auto (RFC 3339-like text, or milliseconds since 1970); rfc3339; s, ms, us or ns (a number in this unit since 1970); or a Go layout such as 02.01.2006 15:04:05, in UTC."`
	Transitions            []string      `env:"SPATE_TRANSITIONS" default:"opened,raised,closed" help:"Alert records to write: opened,raised,closed; opened,closed (incidents then escalate only when the window closes); or closed, for consumers that expect one record per window."`
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
	if f.Critical == 0 {
		r.Critical = 2 * f.Threshold
	}
	for _, t := range f.Transitions {
		r.Transitions = append(r.Transitions, alert.State(t))
	}
	return r
}

// kafkaFlags say where the broker is and how the topics are.
type kafkaFlags struct {
	brokerFlags
	Topic       string `env:"SPATE_TOPIC" default:"activity" help:"Events topic; the names of the other topics are derived from it."`
	Partitions  int32  `env:"SPATE_PARTITIONS" default:"0" help:"Number of partitions in each topic that spate creates. 0 means 4 for new topics and accepts any number for existing ones; with any other value, an existing topic with a different number is an error."`
	Replication int16  `env:"SPATE_REPLICATION" default:"0" help:"Replication factor of topics that spate creates; 0 uses the broker's default."`

	MaxBatchBytes int `name:"max-batch-bytes" env:"SPATE_MAX_BATCH_BYTES" default:"67108864" help:"Maximum size in bytes of a decompressed record batch; a larger batch is skipped and reported as unreadable."`
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
		return errors.New("mode: this command needs Kafka and does not work in mode aws; use spate work, and spate alert or spate lambda")
	}
	if mode == "kafka" && len(f.Brokers) == 0 && f.KafkaConfig == "" {
		return errors.New("brokers: missing, but mode kafka requires them; set SPATE_BROKERS or --brokers to host:port[,host:port...]")
	}
	if f.Topic == "" || strings.ContainsAny(f.Topic, "/ ,") || len(f.Topic) > 200 {
		return fmt.Errorf("topic: %q is not a valid topic name", f.Topic)
	}
	if f.Partitions < 0 || f.Replication < 0 {
		return errors.New("partitions, replication: must not be negative")
	}
	return nil
}

// httpFlags say where a service reports its health and metrics.
type httpFlags struct {
	HTTP  string `name:"http" env:"SPATE_HTTP" default:"127.0.0.1:0" placeholder:"HOST:PORT" help:"Address to serve ${pages=/metrics, /healthz and /readyz} on; with port 0, spate picks a free port and logs it."`
	PProf bool   `name:"pprof" env:"SPATE_PPROF" help:"Also serve /debug/pprof/. Profiles contain names and IDs, so do not expose the address to untrusted networks."`

	HTTPTLSCertFile string `name:"http-tls-cert-file" env:"SPATE_HTTP_TLS_CERT_FILE" placeholder:"FILE" help:"Certificate (PEM) for serving these pages over TLS; reloaded when it changes."`
	HTTPTLSKeyFile  string `name:"http-tls-key-file" env:"SPATE_HTTP_TLS_KEY_FILE" placeholder:"FILE" help:"Private key of the certificate (PEM)."`
	tokenFlags
}

// tokenFlags say what those who ask a service have to send. The token itself has no flag: everyone on a machine can read command lines.
type tokenFlags struct {
	HTTPTokenFile string `name:"http-token-file" env:"SPATE_HTTP_TOKEN_FILE" placeholder:"FILE" help:"File that contains the bearer token required for all pages except /healthz. Alternatively, set SPATE_HTTP_TOKEN. Default: none."`
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
	if err := usage(errors.Join(listenable("http (SPATE_HTTP, --http)", f.HTTP), f.access().Validate())); err != nil {
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

// listenable returns what is wrong with an address to listen on.
func listenable(setting, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%s: %q is not host:port; use, for example, 127.0.0.1:8080", setting, address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%s: %q is not a port, 0 to 65535", setting, port)
	}
	return nil
}

// stateDir is where a person's programs keep state, after the XDG base directory specification.
func stateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "spate"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("state directory: %w; set it with SPATE_STATE or --state", err)
	}
	return filepath.Join(home, ".local", "state", "spate"), nil
}
