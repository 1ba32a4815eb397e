package cli

import (
	"context"
	"iter"
	"log/slog"

	"github.com/aws/aws-sdk-go-v2/aws"
	dynamodbsdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	kinesissdk "github.com/aws/aws-sdk-go-v2/service/kinesis"

	"spate/shared/aws/cloud"
	"spate/shared/aws/stream"
	"spate/shared/evidence"
	"spate/shared/format"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
)

// alertReader reads alerts.
type alertReader interface {
	Alert(ctx context.Context, id string) (store.Alert, error)
	Alerts(context.Context, store.Filter) iter.Seq2[store.Alert, error]
}

// tableFlags say where alerts are kept in mode aws.
type tableFlags struct {
	Table string `env:"SPATE_TABLE,dynamodb_control_table" default:"ddb-ecommerce-tab-1" help:"DynamoDB table that stores alerts, incidents, decisions and deliveries (mode aws)."`
}

func (f tableFlags) table(ctx context.Context) (*dynamodb.Table, aws.Config, error) {
	cfg, err := cloud.Load(ctx)
	if err != nil {
		return nil, cfg, err
	}
	table, err := dynamodb.New(dynamodbsdk.NewFromConfig(cfg), dynamodb.Config{Table: f.Table})
	return table, cfg, err
}

// fromTable reads an alert from the table and returns a function that reads its events, at most most of them.
func (f tableFlags) fromTable(ctx context.Context, s *story, id string, events format.Config, most int) (read func() *evidence.Found, err error) {
	table, cfg, err := f.table(ctx)
	if err != nil {
		return nil, usage(err)
	}
	if err = s.find(ctx, table, id); err != nil {
		return nil, err
	}
	filters := []store.DeliveryFilter{{AlertID: s.ID}}
	if s.Incident != "" {
		filters = append(filters, store.DeliveryFilter{Incident: s.Incident}) // those of the topic are all about incidents
	}
	for _, f := range filters {
		list, err := deliveryStories(ctx, awsIncidents{table}, f)
		if err != nil {
			return nil, err
		}
		s.Deliveries = append(s.Deliveries, list...)
	}
	reader := &stream.Reader{API: kinesissdk.NewFromConfig(cfg), Stream: s.Evidence.Stream, Log: slog.New(slog.DiscardHandler)}
	return func() *evidence.Found { return evidence.Kinesis(ctx, s.Record, events, most, reader) }, nil
}

// awsIncidents is a table as an incidentReader and a ledger.
type awsIncidents struct{ *dynamodb.Table }

// Close has nothing to close.
func (awsIncidents) Close() error { return nil }
