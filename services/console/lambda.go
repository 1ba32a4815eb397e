package console

import (
	"errors"
	"log/slog"
	"os"

	"github.com/aws/aws-lambda-go/lambda"

	"spate/services/alerter/kinesis"
	"spate/shared/aws/cloud"
)

// runtimeAPI is where AWS Lambda tells the programs that it starts whom to ask for work.
const runtimeAPI = "AWS_LAMBDA_RUNTIME_API"

type lambdaCommand struct {
	awsAlertFlags
}

func (c *lambdaCommand) Run(e *env) error {
	if os.Getenv(runtimeAPI) == "" {
		return usage(errors.New("lambda: this command runs within AWS Lambda, which sets " + runtimeAPI + "; it is not set"))
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
