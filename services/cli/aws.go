package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	dynamodbsdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	snssdk "github.com/aws/aws-sdk-go-v2/service/sns"

	"spate/services/alerter/kinesis"
	"spate/shared/alert"
	"spate/shared/notify/sns"
	"spate/shared/store/dynamodb"
)

// awsAlertFlags say where mode aws keeps alerts and who is notified of incidents. The original's names of these settings are understood as well.
type awsAlertFlags struct {
	Table            string        `env:"SPATE_TABLE,dynamodb_control_table" default:"ddb-ecommerce-tab-1" help:"DynamoDB table that stores alerts, incidents, decisions and deliveries."`
	Retain           time.Duration `env:"SPATE_RETAIN" default:"0" help:"How long the table keeps an alert and its incident (sets their time to live); 0 keeps them forever."`
	TopicARN         string        `name:"topic-arn" env:"SPATE_TOPIC_ARN,topic_arn" placeholder:"ARN" help:"SNS topic to which incidents are published. Default: none."`
	MinSeverity      string        `name:"min-severity" env:"SPATE_MIN_SEVERITY" default:"critical" help:"Minimum severity of incidents that are published to the topic: warning or critical. An incident that reaches this severity later is published at that time."`
	MetricsNamespace string        `name:"metrics-namespace" env:"SPATE_METRICS_NAMESPACE,cloudwatch_namespace" placeholder:"NAMESPACE" help:"CloudWatch namespace for the metrics, which are written to standard output in Embedded Metric Format. Default: spate, except that spate alert writes no metrics in a terminal or with --json."`
	AlertsMetric     string        `name:"alerts-metric" env:"SPATE_ALERTS_METRIC,cloudwatch_metric" default:"alerts" help:"Name of the metric that counts new alerts."`
	Window           time.Duration `env:"SPATE_WINDOW" default:"10s" help:"Window size, used for rows from other writers (such as Flink) that contain only one bound of the window."`
	Threshold        int64         `env:"SPATE_THRESHOLD" default:"5" help:"Threshold to record for rows from other writers; such rows do not contain a threshold."`
	Critical         int64         `env:"SPATE_CRITICAL" default:"10" help:"Rows from other writers with a count above this are critical."`
}

// defaultNamespace is that of the metrics.
const defaultNamespace = "spate"

// config makes the clients. It makes no calls yet; an error is one of settings. metrics may be nil.
func (f awsAlertFlags) config(cfg aws.Config, metrics io.Writer, log *slog.Logger) (kinesis.Config, error) {
	out := kinesis.Config{
		MinSeverity: alert.Severity(f.MinSeverity), Threshold: f.Threshold, Critical: f.Critical, Window: f.Window,
		Metrics: metrics, Namespace: cmp.Or(f.MetricsNamespace, defaultNamespace), AlertsMetric: f.AlertsMetric, Log: log,
	}
	var errs []error
	var err error
	if out.Table, err = f.table(cfg); err != nil {
		errs = append(errs, err)
	}
	if f.TopicARN != "" {
		if err := sns.ValidTopic(f.TopicARN); err != nil {
			errs = append(errs, fmt.Errorf("topic arn: %w (SPATE_TOPIC_ARN, --topic-arn)", err))
		} else if out.Publisher, err = sns.New(snssdk.NewFromConfig(cfg), f.TopicARN); err != nil {
			errs = append(errs, err)
		}
	}
	if out.Table != nil { // or it would be said twice that there is none
		errs = append(errs, out.Validate())
	}
	return out, errors.Join(errs...)
}

// table is the one that keeps the alerts.
func (f awsAlertFlags) table(cfg aws.Config) (*dynamodb.Table, error) {
	return dynamodb.New(dynamodbsdk.NewFromConfig(cfg), dynamodb.Config{Table: f.Table, Retain: f.Retain})
}
