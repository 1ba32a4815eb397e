package cli

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	dynamodbsdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"spate/services/alerter/kinesis"
	"spate/services/doctor"
	"spate/services/web"
	"spate/services/worker"
	"spate/shared/aws/lease"
	"spate/shared/store/dynamodb"
)

// consoleAWSFlags say what a console looks at in mode aws, besides the stream of events and the tables.
type consoleAWSFlags struct {
	AlertsStream string `name:"alerts-stream" env:"SPATE_ALERTS_STREAM" default:"e-commerce-raw-user-activity-stream-2" help:"Mode aws: Kinesis stream for alerts."`
	TopicARN     string `name:"topic-arn" env:"SPATE_TOPIC_ARN,topic_arn" placeholder:"ARN" help:"Mode aws: SNS topic to which incidents are published, if any; the Health page checks it."`
}

// consoleAWS is a pipeline in mode aws, for a console.
type consoleAWS struct {
	figures web.Source
	checks  doctor.Cloud
}

func newConsoleAWS(cfg aws.Config, checks doctor.Cloud) (*consoleAWS, error) {
	api := dynamodbsdk.NewFromConfig(cfg)
	table, err := dynamodb.New(api, dynamodb.Config{Table: checks.Table})
	if err != nil {
		return nil, err
	}
	item := func(key string) lease.Lease { return lease.Lease{API: api, Table: checks.StateTable, Key: key} }
	return &consoleAWS{checks: checks, figures: &web.Kinesis{
		Worker: item(worker.LeaseKey(checks.Stream)), Alerter: item(kinesis.LeaseKey(checks.AlertsStream)),
		Stored: func(ctx context.Context, shard string) (string, error) {
			return table.Stored(ctx, checks.AlertsStream, shard)
		},
	}}, nil
}

// doctor checks the pipeline. Whether endpoints are notified is in the table.
func (c *consoleAWS) doctor(ctx context.Context, tables func(context.Context) (web.Store, error)) (found []doctor.Finding) {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	checks := c.checks
	if st, err := tables(ctx); err == nil && checks.TopicARN == "" {
		endpoints, err := st.Endpoints(ctx)
		checks.Endpoints = err == nil && len(endpoints) > 0
	}
	if err := doctor.AWS(ctx, checks, func(f doctor.Finding) { found = append(found, f) }); err != nil {
		found = append(found, doctor.Finding{Check: "settings", Level: doctor.Failed, Text: err.Error()})
	}
	return found
}
