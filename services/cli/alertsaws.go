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

// alertReader is what keeps alerts, for those who look at them.
type alertReader interface {
	Alert(ctx context.Context, id string) (store.Alert, error)
	Alerts(context.Context, store.Filter) iter.Seq2[store.Alert, error]
}

// tableFlags say where alerts are kept in mode aws.
type tableFlags struct {
	Table string `env:"SPATE_TABLE,dynamodb_control_table" default:"ddb-ecommerce-tab-1" help:"DynamoDB table that stores the alerts (mode aws)."`
}

func (f tableFlags) table(ctx context.Context) (*dynamodb.Table, aws.Config, error) {
	cfg, err := cloud.Load(ctx)
	if err != nil {
		return nil, cfg, err
	}
	table, err := dynamodb.New(dynamodbsdk.NewFromConfig(cfg), dynamodb.Config{Table: f.Table})
	return table, cfg, err
}

// fromTable reads what the table has of an alert, and returns what reads its events, the first most of them.
func (f tableFlags) fromTable(ctx context.Context, s *story, id string, events format.Config, most int) (read func() *evidence.Found, err error) {
	table, cfg, err := f.table(ctx)
	if err != nil {
		return nil, usage(err)
	}
	if err = s.find(ctx, table, id); err != nil {
		return nil, err
	}
	reader := &stream.Reader{API: kinesissdk.NewFromConfig(cfg), Stream: s.Evidence.Stream, Log: slog.New(slog.DiscardHandler)}
	return func() *evidence.Found { return evidence.Kinesis(ctx, s.Record, events, most, reader) }, nil
}
