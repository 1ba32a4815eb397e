package alerter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/alert"
	"spate/shared/decision"
	"spate/shared/decision/topic"
	"spate/shared/kafka"
	"spate/shared/ops"
)

const (
	// expireEvery is how often decisions that have expired are looked for. Who reads the topic heeds their time; the end in the topic is for its size.
	expireEvery = 5 * time.Second
	// expiredFor is how long a decision has expired when its end is written: a process that is about to prolong it has done so by then.
	expiredFor = 30 * time.Second
)

// decisions writes the decisions of alerts to their topic. It is made when an alert first has one.
type decisions struct {
	cfg    Config
	writer *topic.Writer
	view   *decision.View // in which none has expired: what expired while nobody was here has to end, too

	mu   sync.Mutex // around writes, so that none is ended that is being prolonged here
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// openDecisions makes the topic if it is missing, and begins to end what has expired.
func openDecisions(ctx context.Context, cfg Config, partitions int32) (*decisions, error) {
	cl, err := kgo.NewClient(cfg.Kafka.Options(kgo.WithLogger(kafka.Logger(cfg.Log)))...)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	adm, name := kadm.NewClient(cl), cfg.Layout.Names.Decisions
	ok, err := topic.Exists(ctx, adm, name)
	if err == nil && !ok {
		err = topic.Ensure(ctx, adm, name, partitions, cfg.Layout.Replication)
	}
	if err != nil {
		return nil, err
	}
	d := &decisions{cfg: cfg, view: decision.NewView()}
	if d.writer, err = topic.NewWriter(cfg.Kafka, name, cfg.Log); err != nil {
		return nil, err
	}
	ctx, d.stop = context.WithCancel(context.WithoutCancel(ctx))
	d.wg.Go(func() { d.expire(ctx) })
	return d, nil
}

func (d *decisions) close() {
	if d != nil {
		d.stop()
		d.wg.Wait()
		d.writer.Close()
	}
}

// put writes decisions.
func (d *decisions) put(ctx context.Context, ds []decision.Decision) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range ds {
		d.view.Take(x, false, time.Time{})
	}
	return d.writer.Put(ctx, ds...)
}

// expire writes the ends of decisions, until ctx ends. Several alerters may write the same ones.
func (d *decisions) expire(ctx context.Context) {
	f := &topic.Follower{Kafka: d.cfg.Kafka, Topic: d.cfg.Layout.Names.Decisions, View: d.view, Log: d.cfg.Log, Now: func() time.Time { return time.Time{} }}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() {
		_ = ops.Keep(ctx, d.cfg.Log, nil, func(error) bool { return false }, func(ctx context.Context) error { return f.Run(ctx, nil) }) // it ends with ctx
	})
	for ops.Pause(ctx, expireEvery) {
		if n, err := d.end(ctx); err != nil && ctx.Err() == nil {
			d.cfg.Log.Warn("cannot record that decisions have expired; the decisions are no longer in force", "decisions", n, "error", err)
		}
	}
}

// end writes the ends of what has expired, and returns how many there are.
func (d *decisions) end(ctx context.Context) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ended := d.view.Sweep(d.cfg.Now().Add(-expiredFor))
	if len(ended) == 0 {
		return 0, nil
	}
	err := d.writer.End(ctx, ended...)
	if err != nil {
		d.view.Restore(ended) // for the next time
	}
	return len(ended), err
}

// decide writes what alerts decide, as often as it takes. It gives up only when ctx ends, and then the alerts are read again.
func (s *session) decide(ctx context.Context, records []alert.Record, places []*kgo.Record) error {
	var ids []string
	for i := range records {
		if records[i].Decision != nil {
			ids = append(ids, records[i].ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := s.tryDecide(ctx, ids, records, places)
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		s.cfg.Status.NotReady("decisions: " + err.Error())
		s.cfg.Log.Error("cannot write decisions, retrying", "alerts", len(ids), "error", err, "wait", wait)
		if !ops.Pause(ctx, wait) {
			return ctx.Err()
		}
	}
}

func (s *session) tryDecide(ctx context.Context, ids []string, records []alert.Record, places []*kgo.Record) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if s.decisions == nil {
		d, err := openDecisions(ctx, s.cfg, s.topics.Keyed)
		if err != nil {
			return err
		}
		s.decisions = d
	}
	incidents, err := s.cfg.Store.IncidentsOf(ctx, ids)
	if err != nil {
		return err
	}
	now := s.cfg.Now()
	newest := make(map[string]int, len(ids)) // of several about one key, the last one counts
	var out []decision.Decision
	for i := range records {
		d, ok := decision.Of(&records[i], places[i].Timestamp, incidents[records[i].ID])
		if !ok || !d.Active(now) || d.Validate() != nil {
			continue
		}
		key := string(d.Key())
		if at, again := newest[key]; again {
			out[at] = d
			continue
		}
		newest[key] = len(out)
		out = append(out, d)
	}
	out = slices.Clip(out)
	if len(out) == 0 {
		return nil
	}
	if err := s.decisions.put(ctx, out); err != nil {
		return err
	}
	s.metrics.decisions.Add(float64(len(out)))
	s.ready()
	return nil
}
