package router

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/format"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/rule"
	"spate/shared/window"
)

// Config of a router.
type Config struct {
	Kafka  kafka.Config
	Layout kafka.Layout
	// Events says how events are written. Those with the same ID count once in the windows of a user: the detector sees to it.
	Events format.Config

	// Window is the size of the windows of the rule burst, which is in force until there are revisions of the rules. Lateness and MaxAhead are then those that
	// were applied with them.
	Window time.Duration
	// Lateness is how far behind the highest time of its partition an event may come.
	Lateness time.Duration
	// IdleTimeout is how long a partition may be silent before it stops holding windows open; 0 is for ever.
	IdleTimeout time.Duration
	// MaxAhead is how far an event's time may lie past the broker's clock; 0 is any.
	MaxAhead time.Duration
	// OpenTransactionTimeout is how long an open transaction in a partition of the topic of events holds windows open; 0 is for ever. What it
	// commits later for windows that closed is late.
	OpenTransactionTimeout time.Duration
	// Instance names this router among all; empty derives it from the host. It must survive a restart.
	Instance string

	// Drain, when closed, tells that the topic of events will get nothing more: the router reads it to its end, promises the end of
	// time for all partitions and returns. It must be the only router then. Nil is never.
	Drain <-chan struct{}

	Log      *slog.Logger
	Registry prometheus.Registerer
	Status   *ops.Status
	Counts   *Counts          // optional
	Now      func() time.Time // the clock that silence is measured by; time.Now if nil
}

// Validate reports every problem at once; it does no I/O.
func (c Config) Validate() error {
	_, rerr := c.initial()
	errs := []error{c.Kafka.Validate(), c.Events.Validate(), rerr}
	if c.IdleTimeout < 0 || c.IdleTimeout > 0 && c.IdleTimeout < 100*time.Millisecond {
		errs = append(errs, fmt.Errorf("idle-timeout: %v is neither 0 (never) nor at least 100ms", c.IdleTimeout))
	}
	if c.OpenTransactionTimeout < 0 {
		errs = append(errs, fmt.Errorf("open-transaction-timeout: %v is negative; use 0 to wait forever", c.OpenTransactionTimeout))
	}
	if c.MaxAhead < 0 {
		errs = append(errs, fmt.Errorf("max-ahead: %v is negative; use 0 to accept any time", c.MaxAhead))
	}
	return errors.Join(errs...)
}

// initial are the rules until the first revision; thresholds are the detector's business.
func (c Config) initial() (*rule.Set, error) {
	rules, err := rule.Burst(c.Window, 1, 1)
	return rules, errors.Join(err, window.CheckLateness(c.Lateness))
}
