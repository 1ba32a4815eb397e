package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	dynamodbsdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	kinesissdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"spate/services/alerter/kinesis"
	"spate/shared/aws/cloud"
	"spate/shared/aws/stream"
	"spate/shared/store/dynamodb"
)

// runtimeAPI is the variable in which AWS Lambda gives programs the address to ask for work.
const runtimeAPI = "AWS_LAMBDA_RUNTIME_API"

type lambdaCommand struct {
	awsAlertFlags
	streamFlags
	StateTable  string `name:"state-table" env:"SPATE_STATE_TABLE" default:"spate-state" help:"DynamoDB table that stores the worker's state, which determines when incidents end."`
	DeadLetters string `name:"dead-letters" env:"SPATE_DEAD_LETTERS" placeholder:"URL" help:"SQS queue for records that can never be processed because they are malformed or conflict with the stored alert. Default: none; the event source mapping discards such records after its last retry."`
}

func (c *lambdaCommand) Run(e *env) error {
	if os.Getenv(runtimeAPI) == "" {
		return usage(errors.New("lambda: this command runs only in AWS Lambda, which sets " + runtimeAPI + "; that variable is not set"))
	}
	for _, name := range []string{"SPATE_ENDPOINTS", "SPATE_WEBHOOK_URL"} {
		if os.Getenv(name) != "" {
			return usage(fmt.Errorf("endpoints: %s is set, but a Lambda function notifies only the SNS topic: retries and digests need a long-running process; run spate alert instead of the function, or unset %s", name, name))
		}
	}
	log := e.logger(slog.LevelInfo).With("service", "alerter")
	cloudCfg, err := cloud.Load(e.ctx)
	if err != nil {
		return usage(err)
	}
	cfg, err := c.config(cloudCfg, e.stdout, log)
	if err != nil {
		return usage(err)
	}
	if c.DeadLetters != "" {
		cfg.DeadLetters = &kinesis.DeadLetters{API: sqs.NewFromConfig(cloudCfg), URL: c.DeadLetters}
	}
	handler, err := kinesis.New(cfg)
	if err != nil {
		return usage(err)
	}
	log.Info("alerter started", "table", c.Table, "topic", c.TopicARN, "min_severity", c.MinSeverity)
	// The library asks for work until the process ends, and ends the process itself if it gets no answer. When the process is to end, the
	// library is not waited for: between two events it notices no signal, and an event without an answer is delivered again.
	go lambda.StartWithOptions(c.function(cloudCfg, handler, cfg.Table, log).Handle, lambda.WithContext(e.ctx))
	<-e.ctx.Done()
	return e.ctx.Err()
}

// function is what Lambda calls.
func (c *lambdaCommand) function(cfg aws.Config, handler *kinesis.Handler, table *dynamodb.Table, log *slog.Logger) kinesis.Function {
	notes := &kinesis.Notes{Table: table, Reader: &stream.Reader{API: kinesissdk.NewFromConfig(cfg), Stream: c.AlertsStream, Log: log}}
	return kinesis.Function{Handler: handler, Notes: notes, Resolver: &kinesis.Resolver{
		Handler: handler, State: workerOf{c.StateTable, c.Stream}.state(dynamodbsdk.NewFromConfig(cfg)), Stored: notes.Stored,
	}}
}
