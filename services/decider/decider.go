package decider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"spate/shared/decision"
	"spate/shared/decision/table"
	"spate/shared/decision/topic"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/store/dynamodb"
)

// sweepEvery is how often what has expired is taken out.
const sweepEvery = time.Second

// missingEvery is how often a topic that does not exist is looked for.
const missingEvery = time.Second

// Config configures a Decider.
type Config struct {
	Kafka kafka.Config
	Topic string
	// Table holds the decisions in mode aws; if it is nil, the topic holds them.
	Table *dynamodb.Table
	// MaxAge is how old the view may be; 0 means any age.
	MaxAge time.Duration

	Log      *slog.Logger          // discards if nil
	Registry prometheus.Registerer // required
	Status   *ops.Status           // optional
	Now      func() time.Time      // wall clock; time.Now if nil
}

// Validate reports every problem at once; it does no I/O.
func (c Config) Validate() error {
	var errs []error
	if c.Table == nil {
		errs = append(errs, c.Kafka.Validate())
	}
	if c.MaxAge < 0 || c.MaxAge > 0 && c.MaxAge < 2*time.Second {
		errs = append(errs, fmt.Errorf("max-age: %v is neither 0 (any age) nor at least 2s", c.MaxAge))
	}
	return errors.Join(errs...)
}

// source names where decisions are kept.
func (c Config) source() string {
	if c.Table != nil {
		return "table " + c.Table.Config().Table
	}
	return "topic " + c.Topic
}

// Decider answers from memory.
type Decider struct {
	cfg     Config
	view    *decision.View
	follow  follower
	clients clients

	flagged, clear, stale prometheus.Counter // queries about a value, by answer
	malformed             prometheus.Counter
}

// follower keeps the view up to date with the topic or the table.
type follower interface {
	Fresh() time.Time
	Run(ctx context.Context, caught func() error) error
}

// New returns a decider with an empty view; Run fills it.
func New(cfg Config) (*Decider, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("decider: %w", err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Decider{cfg: cfg, view: decision.NewView()}
	lookups := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_decider_lookups_total",
		Help: "Queries about a value, by answer: flagged, clear, or stale (refused because the view is older than allowed)."}, []string{"answer"})
	d.malformed = prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_decider_malformed_total", Help: "Records in the decisions topic or table that are not decisions; they are skipped."})
	cfg.Registry.MustRegister(lookups, d.malformed,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "spate_decider_decisions", Help: "Decisions in force."}, func() float64 { return float64(d.view.Len()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "spate_decider_view_age_seconds", Help: "Time since the view last contained all records in the topic or table; -1 if it never has."}, func() float64 {
			if age, known := d.age(); known {
				return age.Seconds()
			}
			return -1
		}))
	d.flagged, d.clear, d.stale = lookups.WithLabelValues("flagged"), lookups.WithLabelValues("clear"), lookups.WithLabelValues("stale")
	malformed := func(err error) {
		d.malformed.Inc()
		cfg.Log.Error("skipping a record that is not a decision", "error", err)
	}
	if cfg.Table != nil {
		d.follow = &table.Follower{Table: cfg.Table, View: d.view, Log: cfg.Log, Now: cfg.Now, Malformed: malformed}
	} else {
		d.follow = &topic.Follower{Kafka: cfg.Kafka, Topic: cfg.Topic, View: d.view, Log: cfg.Log, Now: cfg.Now, Malformed: malformed}
	}
	return d, nil
}

// age is how old the view is; known is false if it never had everything.
func (d *Decider) age() (age time.Duration, known bool) {
	at := d.follow.Fresh()
	if at.IsZero() {
		return 0, false
	}
	return max(0, d.cfg.Now().Sub(at)), true
}

// Run follows the topic or the table until ctx ends. It waits for a topic that does not exist yet, and for a broker or a table that is unavailable.
func (d *Decider) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		never := func(error) bool { return false } // no error is one that no further try can mend
		return ops.Keep(ctx, d.cfg.Log, d.cfg.Status, never, func(ctx context.Context) error {
			for {
				err := d.follow.Run(ctx, func() error {
					d.cfg.Status.Ready()
					d.cfg.Log.Info("decisions read", "from", d.cfg.source(), "decisions", d.view.Len())
					return nil
				})
				t, ok := d.follow.(*topic.Follower)
				if !errors.Is(err, topic.ErrMissing) || !ok || !t.Nothing() {
					return err
				}
				d.cfg.Status.Ready() // nothing was ever decided
				timer := time.NewTimer(missingEvery)
				select {
				case <-ctx.Done():
					timer.Stop()
					return ctx.Err()
				case <-timer.C:
				}
			}
		})
	})
	g.Go(func() error {
		tick := time.NewTicker(sweepEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				d.view.Sweep(d.cfg.Now())
			}
		}
	})
	return g.Wait()
}
