package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/alert"
	"spate/shared/aws/emf"
	"spate/shared/aws/lease"
	"spate/shared/aws/stream"
	"spate/shared/format"
	"spate/shared/ops"
)

// StreamAPI is what a worker needs of *kinesis.Client.
type StreamAPI interface {
	stream.GetAPI
	stream.PutAPI
}

// Config of a worker.
type Config struct {
	Kinesis StreamAPI
	// Lease decides which worker of several is the active one, and keeps its state.
	Lease lease.Lease

	Stream       string // of events
	AlertsStream string
	AsideStream  string // of events that are late or none; empty: they are counted only

	// Events says how events are written. Its ID names what is the same for an event that was written twice, as a retried call does; without it all are
	// counted.
	Events format.Config
	// Until there are revisions of the rules, in the table of the lease, the rule burst is in force: Window is the size of its windows, Threshold the count
	// that a window must exceed, Critical the count above which the severity is critical. Lateness and MaxAhead are then those that were applied with them.
	Window              time.Duration
	Threshold, Critical int64
	// Lateness is how far behind the highest time of its shard an event may come.
	Lateness time.Duration
	// IdleTimeout is how long a shard may be silent before it stops holding windows open; 0 is for ever.
	IdleTimeout time.Duration
	// MaxAhead is how far an event's time may lie past its arrival in the stream; 0 is any.
	MaxAhead time.Duration
	// Transitions are the states that are written: opened and closed, or closed alone.
	Transitions []alert.State
	// MaxOpenWindows is how many open windows of users are held before only the slowest shard is read; 0 is DefaultMaxOpenWindows.
	MaxOpenWindows int64

	// From is where the first worker of all begins: the arrival time of events, or zero for the oldest that the stream has.
	From time.Time
	// Poll is the time between two reads of a shard.
	Poll time.Duration
	// Drain makes the worker end when all shards are read to their ends: it closes every window that has an event.
	Drain bool

	Log      *slog.Logger
	Registry prometheus.Registerer
	Status   *ops.Status
	EMF      *emf.Sink        // metrics for the log; optional
	Counts   *Counts          // optional
	Now      func() time.Time // the clock that silence is measured by; time.Now if nil
}

// DefaultMaxOpenWindows are some 500 MB: five million users within size + lateness.
const DefaultMaxOpenWindows = 5_000_000

var streamName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)

// Validate reports every problem at once; it does no I/O.
func (c Config) Validate() error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, s := range []struct{ field, name string }{{"stream", c.Stream}, {"alerts-stream", c.AlertsStream}} {
		if !streamName.MatchString(s.name) {
			problem("%s: %q is not a valid name: use up to 128 letters, digits, _, . and -", s.field, s.name)
		}
	}
	if c.AsideStream != "" && !streamName.MatchString(c.AsideStream) {
		problem("aside-stream: %q is not a valid name: use up to 128 letters, digits, _, . and -", c.AsideStream)
	}
	if c.Stream == c.AlertsStream || c.Stream == c.AsideStream {
		problem("alerts-stream, aside-stream: must differ from the events stream %s", c.Stream)
	}
	if c.AlertsStream == c.AsideStream {
		problem("alerts-stream, aside-stream: both are %s; use different streams, so that readers of alerts do not receive other records", c.AlertsStream)
	}
	_, err := c.initial()
	errs = append(errs, err, c.Events.Validate())
	if c.IdleTimeout < 0 || c.IdleTimeout > 0 && c.IdleTimeout < 100*time.Millisecond {
		problem("idle-timeout: %v is neither 0 (never) nor at least 100ms", c.IdleTimeout)
	}
	if c.MaxAhead < 0 {
		problem("max-ahead: %v is negative; use 0 to accept any time", c.MaxAhead)
	}
	if c.Threshold < 1 {
		problem("threshold: %d is below 1", c.Threshold)
	}
	if c.Critical < c.Threshold {
		problem("critical: %d is below the threshold %d", c.Critical, c.Threshold)
	}
	errs = append(errs, alert.CheckTransitions(c.Transitions))
	if c.MaxOpenWindows < 0 {
		problem("max-open-windows: %d is negative", c.MaxOpenWindows)
	}
	return errors.Join(errs...)
}

// Run works until ctx ends, or until everything is drained. A session that breaks is begun anew for ever, a lease that is lost waited for
// again; only what no further try can mend is an error.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MaxOpenWindows == 0 {
		cfg.MaxOpenWindows = DefaultMaxOpenWindows
	}
	m := newMetrics(cfg.Registry)
	reports := newReports(cfg.EMF)
	fatal := func(err error) bool {
		return errors.Is(err, lease.ErrNoTable) || errors.Is(err, stream.ErrNotFound) || errors.Is(err, errState)
	}
	err := ops.Keep(ctx, cfg.Log, cfg.Status, fatal, func(ctx context.Context) error { return runSession(ctx, cfg, m, reports) })
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	return nil
}
