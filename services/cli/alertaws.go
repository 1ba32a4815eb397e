package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	dynamodbsdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	kinesissdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"golang.org/x/sync/errgroup"

	"spate/services/alerter/deliver"
	"spate/services/alerter/kinesis"
	"spate/services/worker"
	"spate/shared/aws/cloud"
	"spate/shared/aws/lease"
	"spate/shared/aws/stream"
	"spate/shared/terminal"
)

// awsConsumerFlags are the flags of the alerter in mode aws that runs as a process, not as a Lambda function.
type awsConsumerFlags struct {
	awsAlertFlags
	streamFlags
	leaseFlags
}

// run stores the records of the stream of alerts, publishes messages to the topic, and notifies the endpoints.
func (c *awsConsumerFlags) run(e *env, web httpFlags, told webhookFlags, asJSON bool, log *slog.Logger) (err error) {
	err = c.check()
	aws, lerr := cloud.Load(e.ctx)
	endpoints, closeEndpoints, eerr := told.endpoints(log)
	defer closeEndpoints()
	if err := usage(errors.Join(err, lerr, eerr)); err != nil {
		return err
	}
	// Standard output is for people, or for CloudWatch.
	people := asJSON || terminal.Is(e.stdout)
	var metrics io.Writer
	if c.MetricsNamespace != "" || !people {
		metrics = e.stdout
	}
	cfg, err := c.config(aws, metrics, log)
	if err != nil {
		return usage(err)
	}
	cfg.Endpoints = deliver.Told(endpoints)
	if people {
		view := newView(e.stdout, asJSON)
		defer func() { err = cmp.Or(err, view.close()) }()
		cfg.Print = view.alert
	}
	handler, err := kinesis.New(cfg)
	if err != nil {
		return usage(err)
	}
	server, err := web.listen(log)
	if err != nil {
		return err
	}
	return serve(e, server, log, func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error {
			return kinesis.Consume(ctx, kinesis.ConsumerConfig{
				Handler: handler,
				Reader:  &stream.Reader{API: kinesissdk.NewFromConfig(aws), Stream: c.AlertsStream, Log: log, Interval: c.Poll},
				Lease:   c.lease(dynamodbsdk.NewFromConfig(aws), kinesis.LeaseKey(c.AlertsStream), log),
				State:   workerOf{c.StateTable, c.Stream}.state(dynamodbsdk.NewFromConfig(aws)),
				Log:     log, Status: server.Service("alerter"),
			})
		})
		if len(endpoints) > 0 { // one that stands by delivers, too
			log.Info(toldTo(endpoints))
			g.Go(func() error {
				return deliver.Run(ctx, deliver.Config{Store: cfg.Table, Endpoints: endpoints, Log: log, Registry: server.Registry, Now: time.Now})
			})
		}
		return g.Wait()
	})
}

// workerOf is where the worker of a stream keeps its state.
type workerOf struct{ table, stream string }

// state reads it.
func (w workerOf) state(api lease.API) func(context.Context) ([]byte, error) {
	l := lease.Lease{API: api, Table: w.table, Key: worker.LeaseKey(w.stream)}
	return l.State
}

// check reports every problem at once.
func (f leaseFlags) check() error {
	var errs []error
	if f.Lease < lease.MinDuration || f.Lease > lease.MaxDuration {
		errs = append(errs, fmt.Errorf("lease: %v is not between %v and %v", f.Lease, lease.MinDuration, lease.MaxDuration))
	}
	if f.Poll < stream.MinInterval || f.Poll > stream.MaxInterval {
		errs = append(errs, fmt.Errorf("poll: %v is not between %v and %v; a shard allows five reads per second", f.Poll, stream.MinInterval, stream.MaxInterval))
	}
	return errors.Join(errs...)
}

// lease is the one of a name.
func (f leaseFlags) lease(api lease.API, key string, log *slog.Logger) lease.Lease {
	owner := f.Owner
	if owner == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		owner = fmt.Sprintf("%s-%d-%d", host, os.Getpid(), time.Now().UnixMilli())
	}
	return lease.Lease{API: api, Table: f.StateTable, Key: key, Owner: owner, Duration: f.Lease, Log: log}
}
