package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"spate/services/alerter/deliver"
	"spate/services/embedded"
	"spate/shared/activity"
	"spate/shared/kafka"
	"spate/shared/revision"
	"spate/shared/store"
	"spate/shared/terminal"
)

type upCommand struct {
	ruleFlags
	rulesFlags
	formatFlags
	dedupeFlags
	kafkaFlags
	httpFlags
	databaseFlags
	webhookFlags
	consoleFlags
	State  string `env:"SPATE_STATE" placeholder:"DIR" help:"Directory for the topics and the database. Default: $XDG_STATE_HOME/spate or ~/.local/state/spate."`
	Listen string `env:"SPATE_LISTEN" default:"127.0.0.1:9092" placeholder:"HOST:PORT" help:"Address of the embedded broker; any Kafka client can write to it."`
	Reset  bool   `name:"reset" help:"Start over: first delete all topics, alerts and deliveries in the state directory."`
	Yes    bool   `name:"yes" short:"y" help:"With --reset: do not ask for confirmation."`
	JSON   bool   `name:"json" help:"Print alerts as JSON lines."`
}

func (c *upCommand) Run(e *env) error {
	level := slog.LevelInfo
	if terminal.Is(e.stderr) {
		level = slog.LevelWarn // the banner says the rest
	}
	log := e.logger(level)
	var err error
	if c.State == "" {
		if c.State, err = stateDir(); err != nil {
			return err
		}
	}
	cfg := embedded.Config{Rule: c.rule(), Author: author(), State: c.State, Listen: c.Listen, HTTP: c.HTTP, Profile: c.PProf, Access: c.access(), Partitions: c.Partitions, Topic: c.Topic, Log: log}
	if e.mode != "embedded" {
		cfg.Kafka, err = c.secured(log)
	}
	cfg.Kafka.MaxBatchBytes = c.MaxBatchBytes
	cfg.Events.ID = c.DedupeField
	if err := c.load(&cfg.Rule, e.stderr); err != nil {
		return err
	}
	rerr := c.events(&cfg.Events, log)
	if err := usage(errors.Join(err, rerr, c.check(e.mode), c.checkReset(len(cfg.Kafka.Brokers) > 0), listenable("http (SPATE_HTTP, --http)", c.HTTP), c.consoleFlags.validate(), cfg.Validate())); err != nil {
		return err
	}
	db, err := c.database(c.State)
	if err != nil {
		return usage(err)
	}
	endpoints, closeEndpoints, err := c.endpoints(log)
	if err != nil {
		return usage(err)
	}
	defer closeEndpoints()
	if c.Reset {
		if err := c.reset(e, db); err != nil {
			return err
		}
	}
	cfg.Endpoints = endpoints
	cfg.Database = db.name
	cfg.Open = func(ctx context.Context) (store.Store, error) { return db.openWhenReady(ctx, log, nil) }
	if len(cfg.Kafka.Brokers) > 0 {
		terminal.Fprintf(e.stderr, "spate up: using the brokers at %s (SPATE_BROKERS, --brokers); without this setting, spate up starts its own broker\n", brokers(cfg.Kafka))
	}
	view := newView(e.stdout, c.JSON)
	cfg.Print = view.alert
	console, err := c.beside(&cfg, log)
	if err != nil {
		return usage(err)
	}
	done, err := embedded.Up(e.ctx, cfg, func(i embedded.Info) {
		for _, line := range strangeRules(endpoints, i.Rules.InForce()) {
			log.Warn(line)
		}
		terminal.Fprintf(e.stderr, `
spate is up: broker, router, detector and alerter are running in this process.

  events    topic %s at %s; use any Kafka client, or send generated traffic or a file:
            spate simulate --time now --brokers %s%s
            spate simulate --speed 0 FILE --brokers %s%s
%s  %s
  fields    user: %s; time: %s
  alerts    printed here, and stored in %s
            %s
  console   %s
  health    %s/readyz and /metrics

Press Ctrl-C to stop; nothing is lost.

`, c.Topic, i.Brokers, i.Brokers, c.topicFlag(), i.Brokers, c.topicFlag(), c.forOthers(i.Brokers), c.described(i.Rules), alternatives(c.UserField), alternatives(cfg.Events.Fields.Time), i.Database, toldTo(endpoints), console, i.HTTP)
	})
	if err = cmp.Or(err, view.close()); err == nil {
		terminal.Fprintf(e.stderr, "\nspate up has stopped; it resumes from here when started again.\n%s in = %s counted + %s late + %s invalid; %s opened, %s closed\n",
			counted(done.EventsIn, "event", "events"), terminal.Grouped(done.Counted), terminal.Grouped(done.Late), terminal.Grouped(done.Invalid), counted(done.Opened, "alert", "alerts"), terminal.Grouped(done.Closed))
	}
	return err
}

// described says what the pipeline looks for.
func (c *upCommand) described(rules *revision.Log) terminal.Safe {
	e, ok := rules.Newest()
	if !ok {
		return terminal.Safe(fmt.Sprintf("rule      more than %d events by one user in %s of event time", c.Threshold, short(c.Window)))
	}
	since := ""
	if e.BoundaryMS > 0 {
		since = ", for windows from " + e.Boundary() + " on"
	}
	return terminal.Safe("rules     " + terminal.Text(rules.Names()) + fmt.Sprintf(" (revision %d%s)", e.Revision, since))
}

// checkReset checks --reset and --yes. theirs: the broker is not the embedded one.
func (c *upCommand) checkReset(theirs bool) error {
	switch {
	case c.Reset && theirs:
		return errors.New("reset: deletes only the topics of the embedded broker, but other brokers are set (SPATE_BROKERS, --brokers); docs/operations.md explains how to start over on your own Kafka")
	case c.Reset && !c.Yes && !terminal.Is(os.Stdin):
		return errors.New("reset: deletes all topics, alerts and deliveries in the state directory; to confirm without a terminal, add --yes")
	case c.Yes && !c.Reset:
		return errors.New("yes: applies only to --reset")
	}
	return nil
}

// reset deletes the contents of the state directory after confirmation.
func (c *upCommand) reset(e *env, db database) error {
	var deleted []string
	err := embedded.Reset(e.ctx, c.State, func(paths []string) error {
		deleted = paths
		if c.Yes {
			return nil
		}
		terminal.Fprintf(e.stderr, "Delete all topics, alerts and deliveries in %s? [y/N] ", strings.Join(paths, " and "))
		yes, err := agreed(e.ctx, os.Stdin)
		if err == nil && !yes {
			err = errors.New("reset: nothing was deleted")
		}
		return err
	})
	if err != nil {
		return err
	}
	if deleted == nil {
		terminal.Fprintf(e.stderr, "spate: nothing to delete in %s\n", c.State)
	}
	kept := c.DatabaseURL != ""
	for _, path := range deleted {
		terminal.Fprintf(e.stderr, "spate: deleted %s\n", path)
		if abs, err := filepath.Abs(path); err == nil && abs == db.name {
			kept = false // it is the default, by its name
		}
	}
	if kept {
		terminal.Fprintf(e.stderr, "spate: kept the alerts in %s\n", db.name)
	}
	return nil
}

// agreed reads the answer to a question; no answer is no. It does not wait for one longer than ctx lasts.
func agreed(ctx context.Context, from io.Reader) (bool, error) {
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(from).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case a := <-answer:
		return a == "y" || a == "yes", nil
	}
}

// alternatives names members for a person.
func alternatives(names []string) string { return strings.Join(names, " or ") }

// toldTo says who is notified of alerts.
func toldTo(endpoints []deliver.Endpoint) string {
	if len(endpoints) == 0 {
		return "no endpoint is notified of them; see spate endpoints --help"
	}
	told := make([]string, len(endpoints))
	for i, e := range endpoints {
		told[i] = e.Name + " at " + e.Config().Host
	}
	return "notified: " + strings.Join(told, ", ")
}

// topicFlag is the flag for another topic than the default.
func (c *upCommand) topicFlag() terminal.Safe {
	if c.Topic == kafka.DefaultTopic {
		return ""
	}
	return terminal.Sprintf(" --topic %s", c.Topic)
}

// forOthers are lines of the banner for commands in other terminals: where they find the broker, the events and the alerts, and how they read the events, if they would
// look elsewhere or read them otherwise. What may hold a password is named only.
func (c *upCommand) forOthers(brokers string) terminal.Safe {
	state, _ := stateDir()
	fields, list := activity.DefaultFields(), func(names []string) string { return kong.JoinEscaped(names, ',') }
	var exports, same []string
	for _, s := range []struct{ name, value, other string }{
		{"SPATE_BROKERS", brokers, localBroker},
		{"SPATE_STATE", absolute(c.State), absolute(state)},
		{"SPATE_TOPIC", c.Topic, kafka.DefaultTopic},
		{"SPATE_USER_FIELD", list(c.UserField), list(fields.User)},
		{"SPATE_TIME_FIELD", list(c.TimeField), list(fields.Time)},
		{"SPATE_TIME_FORMAT", c.TimeFormat, "auto"},
		{"SPATE_FORMAT", c.Format, "auto"},
		{"SPATE_DEDUPE_FIELD", c.DedupeField, ""},
		{"SPATE_MAX_AHEAD", c.MaxAhead.String(), time.Minute.String()},
	} {
		if s.value != s.other {
			exports = append(exports, s.name+"="+shellWord(s.value))
		}
	}
	for _, s := range []struct{ name, value string }{{"SPATE_DATABASE_URL", string(c.DatabaseURL)}, {"SPATE_SCHEMA_REGISTRY_URL", c.SchemaRegistryURL}} {
		if s.value != "" {
			same = append(same, s.name)
		}
	}
	var lines terminal.Safe
	if exports != nil {
		lines = terminal.Sprintf("            for other commands: export %s\n", strings.Join(exports, " "))
	}
	if same != nil {
		lines += terminal.Sprintf("            other commands need the same %s as this one\n", strings.Join(same, " and "))
	}
	return lines
}

// absolute is a path that means the same in every directory.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
