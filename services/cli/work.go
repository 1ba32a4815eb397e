package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"

	"spate/services/worker"
	"spate/shared/aws/cloud"
	"spate/shared/aws/emf"
)

// streamFlags name the two streams.
type streamFlags struct {
	Stream       string `name:"stream" env:"SPATE_STREAM" default:"e-commerce-raw-user-activity-stream-1" help:"Kinesis stream that contains the events."`
	AlertsStream string `name:"alerts-stream" env:"SPATE_ALERTS_STREAM" default:"e-commerce-raw-user-activity-stream-2" help:"Kinesis stream for alerts."`
}

// leaseFlags say how processes agree on which one works.
type leaseFlags struct {
	StateTable string        `name:"state-table" env:"SPATE_STATE_TABLE" default:"spate-state" help:"DynamoDB table that stores the lease, the state of its holder and, for the worker, the rules."`
	Lease      time.Duration `name:"lease" env:"SPATE_LEASE" default:"10s" help:"Lease duration: a standby takes over from a process that has not renewed its lease for this long. Must be the same for all processes."`
	Poll       time.Duration `name:"poll" env:"SPATE_POLL" default:"250ms" help:"Interval between reads of a shard. A shard allows five reads per second in total, across all readers."`
	Owner      string        `name:"owner" env:"SPATE_INSTANCE" placeholder:"NAME" help:"Name of this process, for information only. Default: the host name and the process ID."`
}

type workCommand struct {
	ruleFlags
	formatFlags
	dedupeFlags
	streamFlags
	leaseFlags
	httpFlags
	From             string `name:"from" env:"SPATE_FROM" default:"oldest" placeholder:"oldest|now|TIME" help:"Where to start if no state is stored yet: oldest, now, or an arrival time (RFC 3339). After that, workers resume from the stored state."`
	AsideStream      string `name:"aside-stream" env:"SPATE_ASIDE_STREAM" placeholder:"STREAM" help:"Kinesis stream for late and invalid events, with the reason. Default: none; such events are only counted."`
	MaxOpenWindows   int64  `name:"max-open-windows" env:"SPATE_MAX_OPEN_WINDOWS" default:"5000000" help:"Number of open windows above which only the slowest shard is read; a window with events by two users counts as two. A million open windows take about 100 MB."`
	MetricsNamespace string `name:"metrics-namespace" env:"SPATE_METRICS_NAMESPACE,cloudwatch_namespace" placeholder:"NAMESPACE" help:"CloudWatch namespace for metrics to write to standard output in Embedded Metric Format. Default: none; no metrics are written."`
	Drain            bool   `name:"drain" help:"Read everything in the stream, close all windows, and exit."`
}

func (c *workCommand) Run(e *env) error {
	log := e.logger(slog.LevelInfo).With("service", "worker")
	r := c.rule()
	r.Events.ID = c.DedupeField
	rerr := c.events(&r.Events, log)
	from, err := c.from()
	cfg := worker.Config{
		Stream: c.Stream, AlertsStream: c.AlertsStream, AsideStream: c.AsideStream,
		Events: r.Events, Window: r.Window, Lateness: r.Lateness, IdleTimeout: r.IdleTimeout, MaxAhead: r.MaxAhead,
		Threshold: r.Threshold, Critical: r.Critical, Transitions: r.Transitions,
		MaxOpenWindows: c.MaxOpenWindows,
		From:           from, Poll: c.Poll, Drain: c.Drain, Log: log,
	}
	if err := usage(errors.Join(e.need("aws"), err, rerr, c.check(), cfg.Validate())); err != nil {
		return err
	}
	aws, err := cloud.Load(e.ctx)
	if err != nil {
		return usage(err)
	}
	cfg.Kinesis = kinesis.NewFromConfig(aws)
	cfg.Lease = c.lease(dynamodb.NewFromConfig(aws), worker.LeaseKey(c.Stream), log)
	if c.MetricsNamespace != "" {
		if err := emf.ValidName(c.MetricsNamespace); err != nil {
			return usage(fmt.Errorf("metrics-namespace: %w", err))
		}
		cfg.EMF = emf.New(e.stdout, c.MetricsNamespace, "worker")
	}
	server, err := c.listen(log)
	if err != nil {
		return err
	}
	cfg.Registry, cfg.Status = server.Registry, server.Service("worker")
	return serve(e, server, log, func(ctx context.Context) error { return worker.Run(ctx, cfg) })
}

// from returns the time that the setting names; zero is the oldest.
func (c *workCommand) from() (time.Time, error) {
	switch c.From {
	case "oldest":
		return time.Time{}, nil
	case "now":
		return time.Now(), nil
	}
	t, err := time.Parse(time.RFC3339, c.From)
	if err != nil {
		return time.Time{}, fmt.Errorf("from: %q is not oldest, now, or a time such as 2026-01-31T23:59:00Z", c.From)
	}
	return t, nil
}
