package console

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"spate/services/alerter"
	"spate/services/embedded"
	"spate/shared/alert"
	"spate/shared/store"
	"spate/shared/terminal"
)

type upCommand struct {
	ruleFlags
	formatFlags
	dedupeFlags
	kafkaFlags
	httpFlags
	databaseFlags
	webhookFlags
	State  string `env:"SPATE_STATE" placeholder:"DIR" help:"Directory of the topics and the database. Default: spate in your state directory ($XDG_STATE_HOME)."`
	Listen string `env:"SPATE_LISTEN" default:"127.0.0.1:9092" placeholder:"HOST:PORT" help:"Where the embedded broker listens; any Kafka client can write to it."`
	JSON   bool   `name:"json" help:"Print alerts as JSON lines."`
}

func (c *upCommand) Run(e *env) error {
	log := e.logger(slog.LevelInfo)
	var err error
	if c.State == "" {
		if c.State, err = stateDir(); err != nil {
			return err
		}
	}
	cfg := embedded.Config{Rule: c.rule(), State: c.State, Listen: c.Listen, HTTP: c.HTTP, Profile: c.PProf, Access: c.access(), Partitions: c.Partitions, Topic: c.Topic, Log: log}
	if e.mode != "embedded" {
		cfg.Kafka, err = c.secured(log)
	}
	cfg.Kafka.MaxBatchBytes = c.MaxBatchBytes
	cfg.Events.ID = c.DedupeField
	rerr := c.events(&cfg.Events, log)
	if err := usage(errors.Join(err, rerr, c.check(e.mode), cfg.Validate())); err != nil {
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
	cfg.Endpoints = endpoints
	cfg.Database = db.name
	cfg.Open = func(ctx context.Context) (store.Store, error) { return db.openWhenReady(ctx, log, nil) }
	view := newView(e.stdout, c.JSON)
	cfg.Print = func(r alert.Record) { view.alert(r) }
	return embedded.Up(e.ctx, cfg, func(i embedded.Info) {
		terminal.Fprintf(e.stderr, `
spate is up. Write events with any Kafka client to topic %q at %s, for example:
    spate simulate --time now --brokers %s
More than %d events of one user (%s) in %v of event time (%s) are an alert.
Alerts are printed here and kept in %s
%s
%s has /metrics, /healthz, /readyz. Ctrl-C ends it; nothing is lost.

`, c.Topic, i.Brokers, i.Brokers, c.Threshold, alternatives(c.UserField), c.Window, alternatives(c.TimeField), i.Database, toldTo(endpoints), i.HTTP)
	})
}

// alternatives names members for a person.
func alternatives(names []string) string { return strings.Join(names, " or ") }

// toldTo says who is notified of alerts.
func toldTo(endpoints []alerter.Endpoint) string {
	if len(endpoints) == 0 {
		return "Alerts go to nobody: set SPATE_WEBHOOK_URL and SPATE_WEBHOOK_SECRET, or SPATE_ENDPOINTS (spate endpoints --help)."
	}
	told := make([]string, len(endpoints))
	for i, e := range endpoints {
		told[i] = e.Name + " at " + hostOf(e)
	}
	return "Alerts go to: " + strings.Join(told, ", ") + "."
}
