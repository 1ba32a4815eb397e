package kinesis

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"spate/shared/alert"
	"spate/shared/aws/emf"
	"spate/shared/notify"
	"spate/shared/notify/sns"
	"spate/shared/store/dynamodb"
)

// Config of a handler.
type Config struct {
	Table *dynamodb.Table
	// Publisher sends messages about incidents; nil sends none.
	Publisher *sns.Publisher
	// MinSeverity is the lowest severity of incidents whose messages are published. An incident that reaches it later is published then.
	MinSeverity alert.Severity
	// Endpoints are notified, too: messages to them are stored with the alerts, as deliveries for [dynamodb.Table.Work].
	Endpoints []notify.Endpoint

	// DeadLetters gets the records of a Lambda function that no further try can process; nil leaves them to the function's event source mapping.
	DeadLetters *DeadLetters

	// Threshold and Critical grade rows from other writers, which contain only a count.
	Threshold int64
	Critical  int64
	// Window is the window size for rows from other writers that contain only one bound of their window.
	Window time.Duration

	// Print, if set, gets each alert that is new or has changed its state, when it is stored. It may be called concurrently.
	Print func(alert.Record)

	// Metrics gets a line of metrics for each batch; nil discards them.
	Metrics io.Writer
	// Namespace is the CloudWatch namespace for the metrics; AlertsMetric is the name of the metric that counts new alerts.
	Namespace    string
	AlertsMetric string

	Log *slog.Logger     // discards if nil
	Now func() time.Time // wall clock; time.Now if nil
}

// Validate reports every problem at once; it does no I/O.
func (c Config) Validate() error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Table == nil {
		problem("table: missing")
	}
	if s := c.MinSeverity; s != alert.Warning && s != alert.Critical {
		problem("min severity: %q is neither %s nor %s (SPATE_MIN_SEVERITY, --min-severity)", s, alert.Warning, alert.Critical)
	}
	if n := len(c.Endpoints); n > dynamodb.MaxEndpoints {
		problem("endpoints: %d are configured, but mode aws notifies at most %d, because an alert and its messages are written in one DynamoDB transaction; remove some, or let one endpoint forward to others (SPATE_ENDPOINTS, --endpoints)", n, dynamodb.MaxEndpoints)
	}
	for _, e := range c.Endpoints {
		if e.Name == dynamodb.Endpoint {
			problem("endpoint %q: name: is reserved for the SNS topic; choose another name (SPATE_ENDPOINTS, --endpoints)", e.Name)
		}
	}
	if c.Threshold < 1 {
		problem("threshold: %d is below 1", c.Threshold)
	}
	if c.Critical < c.Threshold {
		problem("critical: %d is below the threshold, %d", c.Critical, c.Threshold)
	}
	if c.Window < time.Millisecond || c.Window%time.Millisecond != 0 {
		problem("window: %v is below 1ms or not a whole number of milliseconds", c.Window)
	}
	if c.Metrics != nil {
		if err := emf.ValidName(c.Namespace); err != nil {
			problem("metrics namespace: %w (SPATE_METRICS_NAMESPACE, --metrics-namespace)", err)
		}
		if err := emf.ValidName(c.AlertsMetric); err != nil {
			problem("alerts metric: %w (SPATE_ALERTS_METRIC, --alerts-metric)", err)
		}
		for _, name := range otherMetrics {
			if c.AlertsMetric == name {
				problem("alerts metric: %q is already the name of another metric (SPATE_ALERTS_METRIC, --alerts-metric)", name)
			}
		}
	}
	return errors.Join(errs...)
}
