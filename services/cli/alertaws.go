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

	"spate/services/alerter/kinesis"
	"spate/shared/aws/cloud"
	"spate/shared/aws/lease"
	"spate/shared/aws/stream"
	"spate/shared/terminal"
)

// awsConsumerFlags are of the alerter in mode aws, where it runs for long instead of as a Lambda.
type awsConsumerFlags struct {
	awsAlertFlags
	AlertsStream string `name:"alerts-stream" env:"SPATE_ALERTS_STREAM" default:"e-commerce-raw-user-activity-stream-2" help:"Kinesis stream of alerts."`
	leaseFlags
}

// run stores what comes in the stream of alerts, and tells the topic.
func (c *awsConsumerFlags) run(e *env, web httpFlags, asJSON bool, log *slog.Logger) (err error) {
	err = c.check()
	aws, lerr := cloud.Load(e.ctx)
	if err := usage(errors.Join(err, lerr)); err != nil {
		return err
	}
	// Standard output is for whoever looks, or for CloudWatch.
	people := asJSON || terminal.Is(e.stdout)
	var metrics io.Writer
	if c.MetricsNamespace != "" || !people {
		metrics = e.stdout
	}
	cfg, err := c.config(aws, metrics, log)
	if err != nil {
		return usage(err)
	}
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
		return kinesis.Consume(ctx, kinesis.ConsumerConfig{
			Handler: handler,
			Reader:  &stream.Reader{API: kinesissdk.NewFromConfig(aws), Stream: c.AlertsStream, Log: log, Interval: c.Poll},
			Lease:   c.lease(dynamodbsdk.NewFromConfig(aws), "alerter#"+c.AlertsStream, log),
			Log:     log, Status: server.Service("alerter"),
		})
	})
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
