package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	dynamodbsdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamodbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	kinesissdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	snssdk "github.com/aws/aws-sdk-go-v2/service/sns"

	"spate/shared/aws/cloud"
	"spate/shared/aws/object"
	"spate/shared/store/dynamodb"
	"spate/shared/terminal"
)

type awsCommand struct {
	Setup setupCommand `cmd:"" help:"Create the streams, tables, topic and bucket that mode aws needs, for trials. For production, deploy deploy/aws/template.yaml."`
}

type setupCommand struct {
	streamFlags
	Shards     int32  `env:"SPATE_SHARDS" default:"4" help:"Number of shards in the events stream; the alerts stream has one."`
	Table      string `env:"SPATE_TABLE,dynamodb_control_table" default:"ddb-ecommerce-tab-1" help:"DynamoDB table that stores the alerts."`
	StateTable string `name:"state-table" env:"SPATE_STATE_TABLE" default:"spate-state" help:"DynamoDB table that stores the worker's lease and state, and the rules."`
	SNSTopic   string `name:"sns-topic" env:"SPATE_SNS_TOPIC" default:"ecomm-user-high-severity-incidents" help:"Name of the SNS topic to which incidents are published."`
	Bucket     string `env:"SPATE_BUCKET" placeholder:"NAME" help:"S3 bucket for event files. Default: none."`
	JSON       bool   `name:"json" help:"Print the names of the resources as JSON."`
}

// setupTimeout bounds how long things take to become active.
const setupTimeout = 5 * time.Minute

// made is what there is at the end.
type made struct {
	Stream       string `json:"stream"`
	AlertsStream string `json:"alerts_stream"`
	Table        string `json:"table"`
	StateTable   string `json:"state_table"`
	TopicARN     string `json:"topic_arn"`
	Bucket       string `json:"bucket,omitempty"`
}

func (c *setupCommand) Run(e *env) error {
	if err := usage(e.need("aws")); err != nil {
		return err
	}
	if c.Shards < 1 || c.Shards > 500 {
		return usage(fmt.Errorf("shards: %d is not between 1 and 500", c.Shards))
	}
	cfg, err := cloud.Load(e.ctx)
	if err != nil {
		return usage(err)
	}
	ctx, cancel := context.WithTimeout(e.ctx, setupTimeout)
	defer cancel()
	streams, db := kinesissdk.NewFromConfig(cfg), dynamodbsdk.NewFromConfig(cfg)
	if err := makeStream(ctx, streams, c.Stream, c.Shards); err != nil {
		return err
	}
	if err := makeStream(ctx, streams, c.AlertsStream, 1); err != nil {
		return err
	}
	table, err := dynamodb.New(db, dynamodb.Config{Table: c.Table})
	if err != nil {
		return usage(err)
	}
	if err := table.Create(ctx); err != nil {
		return err
	}
	if err := makeStateTable(ctx, db, c.StateTable); err != nil {
		return err
	}
	topic, err := snssdk.NewFromConfig(cfg).CreateTopic(ctx, &snssdk.CreateTopicInput{Name: aws.String(c.SNSTopic)})
	if err != nil {
		return fmt.Errorf("create topic %s: %w", c.SNSTopic, err)
	}
	if c.Bucket != "" {
		if err := object.MakeBucket(ctx, cfg, c.Bucket); err != nil {
			return err
		}
	}
	m := made{c.Stream, c.AlertsStream, c.Table, c.StateTable, aws.ToString(topic.TopicArn), c.Bucket}
	if c.JSON {
		return json.NewEncoder(terminal.JSONWriter(e.stdout)).Encode(m)
	}
	terminal.Fprintf(e.stdout, "events stream     %s\nalerts stream     %s\nalerts table      %s\nstate table       %s\ntopic             %s\n", m.Stream, m.AlertsStream, m.Table, m.StateTable, m.TopicARN)
	if m.Bucket != "" {
		terminal.Fprintf(e.stdout, "bucket            %s\n", m.Bucket)
	}
	terminal.Fprintf(e.stdout, "\nNext: export SPATE_MODE=aws SPATE_TOPIC_ARN=%s; then run spate work, spate alert and spate simulate\n", m.TopicARN)
	return nil
}

func makeStream(ctx context.Context, api *kinesissdk.Client, name string, shards int32) error {
	_, err := api.CreateStream(ctx, &kinesissdk.CreateStreamInput{StreamName: aws.String(name), ShardCount: aws.Int32(shards)})
	if err != nil && !cloud.IsCode(err, "ResourceInUseException") {
		return fmt.Errorf("create stream %s: %w", name, err)
	}
	err = kinesissdk.NewStreamExistsWaiter(api).Wait(ctx, &kinesissdk.DescribeStreamInput{StreamName: aws.String(name)}, setupTimeout,
		func(o *kinesissdk.StreamExistsWaiterOptions) { o.MinDelay = time.Second })
	if err != nil {
		return fmt.Errorf("wait for stream %s: %w", name, err)
	}
	return nil
}

func makeStateTable(ctx context.Context, api *dynamodbsdk.Client, name string) error {
	_, err := api.CreateTable(ctx, &dynamodbsdk.CreateTableInput{
		TableName: aws.String(name), BillingMode: dynamodbtypes.BillingModePayPerRequest,
		AttributeDefinitions: []dynamodbtypes.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: dynamodbtypes.ScalarAttributeTypeS}},
		KeySchema:            []dynamodbtypes.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: dynamodbtypes.KeyTypeHash}},
	})
	if err != nil && !cloud.IsCode(err, "ResourceInUseException") {
		return fmt.Errorf("create table %s: %w", name, err)
	}
	err = dynamodbsdk.NewTableExistsWaiter(api).Wait(ctx, &dynamodbsdk.DescribeTableInput{TableName: aws.String(name)}, setupTimeout,
		func(o *dynamodbsdk.TableExistsWaiterOptions) { o.MinDelay = time.Second })
	if err != nil {
		return fmt.Errorf("wait for table %s: %w", name, err)
	}
	return nil
}
