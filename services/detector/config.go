package detector

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/rule"
)

// Config of a detector.
type Config struct {
	Kafka  kafka.Config
	Layout kafka.Layout

	// Those of the rule burst, which is in force until there are revisions of the rules: Window is the size of its windows, Threshold the count that a
	// window must exceed, Critical the count above which the severity is critical.
	Window              time.Duration
	Threshold, Critical int64
	// MaxOpenWindows is how many open windows of users this process holds before it stops reading; 0 is DefaultMaxOpenWindows.
	MaxOpenWindows int64
	// Transitions are the states that are written: opened and closed, or closed alone for consumers that expect one record a window.
	Transitions []alert.State
	// Drains: a router may have ended its input (router.Config.Drain), and windows at the end of time may be closed.
	Drains bool
	// Address is where other processes reach this one's user pages, "host:port". It is told to the group.
	Address string
	// TLS: it is to be asked with TLS.
	TLS bool

	Log      *slog.Logger
	Registry prometheus.Registerer
	Status   *ops.Status
	Counts   *Counts // optional
}

// Validate reports every problem at once; it does no I/O.
func (c Config) Validate() error {
	errs := []error{c.Kafka.Validate()}
	if c.Threshold < 1 {
		errs = append(errs, fmt.Errorf("threshold: %d is below 1", c.Threshold))
	}
	if c.Critical < c.Threshold {
		errs = append(errs, fmt.Errorf("critical: %d is below the threshold %d", c.Critical, c.Threshold))
	}
	if c.MaxOpenWindows < 0 {
		errs = append(errs, fmt.Errorf("max-open-windows: %d is negative", c.MaxOpenWindows))
	}
	if _, ok := addressOf(clientID(c.Address, c.TLS)); !ok && c.Address != "" {
		errs = append(errs, fmt.Errorf("advertise: %q is not host:port (SPATE_ADVERTISE, --advertise)", c.Address))
	}
	if len(errs) == 1 {
		_, err := c.initial()
		errs = append(errs, err)
	}
	errs = append(errs, alert.CheckTransitions(c.Transitions))
	return errors.Join(errs...)
}

// initial are the rules until the first revision.
func (c Config) initial() (*rule.Set, error) { return rule.Burst(c.Window, c.Threshold, c.Critical) }

// DefaultMaxOpenWindows are some 500 MB: five million users within size + lateness, or 200,000 new ones a second with 10 s of each.
const DefaultMaxOpenWindows = 5_000_000

const (
	commitEvery = 250 * time.Millisecond
	// checkpointEvery is how old the changelog may be. Nothing is recovered from it; most windows of a backlog come and go in between.
	checkpointEvery = 10 * time.Second
	// checkpointPanes bounds how long a checkpoint keeps a table from its batches.
	checkpointPanes = 4096
	// askTimeout is how long the broker may take to say how many partitions the topic of events has.
	askTimeout = 5 * time.Second
	// shutdownGrace is how long alerts may wait for the broker when the process is asked to stop.
	shutdownGrace = 4 * time.Second
)
