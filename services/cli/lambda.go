package cli

import (
	"errors"
	"log/slog"
	"os"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"spate/services/alerter/kinesis"
	"spate/shared/aws/cloud"
)

// runtimeAPI is where AWS Lambda tells the programs that it starts whom to ask for work.
const runtimeAPI = "AWS_LAMBDA_RUNTIME_API"

type lambdaCommand struct {
	awsAlertFlags
	DeadLetters string `name:"dead-letters" env:"SPATE_DEAD_LETTERS" placeholder:"URL" help:"SQS queue for records that can never be processed: malformed, or in conflict with the stored alert. Default: none; the event source mapping discards them after its last retry."`
}

func (c *lambdaCommand) Run(e *env) error {
	if os.Getenv(runtimeAPI) == "" {
		return usage(errors.New("lambda: this command runs only in AWS Lambda, and " + runtimeAPI + ", which Lambda sets, is not set"))
	}
	log := e.logger(slog.LevelInfo).With("service", "alerter")
	aws, err := cloud.Load(e.ctx)
	if err != nil {
		return usage(err)
	}
	cfg, err := c.config(aws, e.stdout, log)
	if err != nil {
		return usage(err)
	}
	if c.DeadLetters != "" {
		cfg.DeadLetters = &kinesis.DeadLetters{API: sqs.NewFromConfig(aws), URL: c.DeadLetters}
	}
	handler, err := kinesis.New(cfg)
	if err != nil {
		return usage(err)
	}
	log.Info("alerter started", "table", c.Table, "topic", c.TopicARN, "min_severity", c.MinSeverity)
	// The library asks for work until the process ends, and ends it itself when nobody answers. When the process is told to end, it is not
	// waited for: between two events it hears of nothing, and an event that it does not answer is delivered again.
	go lambda.StartWithOptions(kinesis.Lambda(handler), lambda.WithContext(e.ctx))
	<-e.ctx.Done()
	return e.ctx.Err()
}
