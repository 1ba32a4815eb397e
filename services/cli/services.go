package cli

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"

	"golang.org/x/sync/errgroup"

	"spate/services/alerter"
	"spate/services/detector"
	"spate/services/router"
	"spate/shared/kafka"
	"spate/shared/ops"
)

// gcPercent is half of Go's default. Most of what services hold are arrays without pointers, through which a collection need not look, so
// twice as many cost little, and a quarter of the memory is saved.
const gcPercent = 50

// collectAt sets the garbage collector's percentage, unless GOGC does.
func collectAt(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// serve runs a service together with its HTTP server.
func serve(e *env, server *ops.Server, log *slog.Logger, service func(context.Context) error) error {
	collectAt(gcPercent)
	log.Info("serving /metrics, /healthz, /readyz", "address", server.Addr(), "tls", server.TLS())
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Run(ctx) })
	g.Go(func() error {
		defer cancel()
		return service(ctx)
	})
	return g.Wait()
}

type routeCommand struct {
	ruleFlags
	formatFlags
	dedupeFlags
	kafkaFlags
	httpFlags
	Instance string `env:"SPATE_INSTANCE" placeholder:"NAME" help:"Unique name of this process. A router must keep its name across restarts. Default: the host name and a number."`
}

func (c *routeCommand) Run(e *env) error {
	log := e.logger(slog.LevelInfo).With("service", "router")
	r := c.rule()
	k, kerr := c.settings(e, log)
	r.Events.ID = c.DedupeField
	rerr := c.events(&r.Events, log)
	cfg := router.Config{
		Kafka: k, Layout: c.layout(kafka.Router, c.Instance), Events: r.Events, Window: r.Window, Lateness: r.Lateness, IdleTimeout: r.IdleTimeout, MaxAhead: r.MaxAhead, OpenTransactionTimeout: r.OpenTransactionTimeout,
		Instance: c.Instance, Log: log,
	}
	if err := usage(errors.Join(kerr, rerr, cfg.Validate())); err != nil {
		return err
	}
	server, err := c.listen(log)
	if err != nil {
		return err
	}
	cfg.Registry, cfg.Status = server.Registry, server.Service("router")
	return serve(e, server, log, func(ctx context.Context) error { return router.Run(ctx, cfg) })
}

type detectCommand struct {
	ruleFlags
	kafkaFlags
	httpFlags
	MaxOpenWindows int64  `name:"max-open-windows" env:"SPATE_MAX_OPEN_WINDOWS" default:"5000000" help:"Number of open windows at which this detector pauses reading until some close; a window with events by two users counts as two. A million open windows take about 100 MB."`
	Advertise      string `env:"SPATE_ADVERTISE" placeholder:"HOST:PORT" help:"Address at which spate user and spate key can reach this detector. Default: the address of --http."`
}

func (c *detectCommand) Run(e *env) error {
	log := e.logger(slog.LevelInfo).With("service", "detector")
	r := c.rule()
	k, kerr := c.settings(e, log)
	cfg := detector.Config{Kafka: k, Layout: c.layout(kafka.Detector, ""), Window: r.Window, Threshold: r.Threshold, Critical: r.Critical, Transitions: r.Transitions, MaxOpenWindows: c.MaxOpenWindows, Address: c.Advertise, Log: log}
	if err := usage(errors.Join(kerr, cfg.Validate())); err != nil {
		return err
	}
	server, err := c.listen(log)
	if err != nil {
		return err
	}
	cfg.Registry, cfg.Status = server.Registry, server.Service("detector")
	if cfg.TLS = server.TLS(); cfg.Address == "" {
		cfg.Address = server.Addr()
	}
	d, err := detector.New(cfg)
	if err != nil {
		return err
	}
	for pattern, page := range d.Handlers() {
		server.HandleHere(pattern, page, cfg.Address)
	}
	return serve(e, server, log, d.Run)
}

type alertCommand struct {
	kafkaFlags
	httpFlags
	databaseFlags
	webhookFlags
	AWS   awsConsumerFlags `embed:"" group:"aws"`
	State string           `env:"SPATE_STATE" placeholder:"DIR" help:"Directory of the default database. Default: $XDG_STATE_HOME/spate or ~/.local/state/spate."`
	JSON  bool             `name:"json" help:"Print alerts as JSON lines."`
}

func (c *alertCommand) Run(e *env) (err error) {
	log := e.logger(slog.LevelInfo).With("service", "alerter")
	if e.mode == "aws" {
		return c.AWS.run(e, c.httpFlags, c.webhookFlags, c.JSON, log)
	}
	k, err := c.settings(e, log)
	if err := usage(errors.Join(err, k.Validate())); err != nil {
		return err
	}
	if c.State == "" {
		if c.State, err = stateDir(); err != nil {
			return err
		}
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
	server, err := c.listen(log)
	if err != nil {
		return err
	}
	view := newView(e.stdout, c.JSON)
	defer func() { err = cmp.Or(err, view.close()) }()
	cfg := alerter.Config{
		Kafka: k, Layout: c.layout(kafka.Alerter, ""), Endpoints: endpoints, Print: view.alert,
		Log: log, Registry: server.Registry, Status: server.Service("alerter"),
	}
	return serve(e, server, log, func(ctx context.Context) error {
		st, err := db.openWhenReady(ctx, log, cfg.Status)
		if err != nil {
			return err
		}
		log.Info("alerts are stored in " + db.name + "; " + toldTo(endpoints))
		for _, line := range (alertsRulesFlags{brokerFlags: c.brokerFlags, Topic: c.Topic}).strangeRules(e, endpoints) {
			log.Warn(line)
		}
		cfg.Store = st
		return errors.Join(alerter.Run(ctx, cfg), st.Close())
	})
}
