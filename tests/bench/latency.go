package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// threshold is spate's default: one event more opens an alert.
const threshold = 5

// delay is one measured line of latency, all from append to append by the broker's clock: from the event that passes the threshold to the
// alert that says so.
type delay struct {
	Rate      float64 `json:"asked_events_per_s"`
	Sent      float64 `json:"sent_events_per_s"`
	Seconds   float64 `json:"seconds"`
	Alerts    int     `json:"alerts"`
	Missing   int     `json:"missing"`
	P50       float64 `json:"p50_ms"`
	P90       float64 `json:"p90_ms"`
	P99       float64 `json:"p99_ms"`
	Max       float64 `json:"max_ms"`
	LagEvents int64   `json:"lag_events_at_end"`
	RouterCPU float64 `json:"router_cpu_us_per_event"`
	DetectCPU float64 `json:"detector_cpu_us_per_event"`
	RouterMB  float64 `json:"router_peak_rss_mb"`
	DetectMB  float64 `json:"detector_peak_rss_mb"`
}

// latency measures at a crawl, at the reference's rate and close to what the machine can do.
func (b *bench) latency(ctx context.Context) error {
	highest, err := b.highest(ctx)
	if err != nil {
		return err
	}
	b.report.latencyHead(highest)
	var wrong error
	for _, rate := range []float64{1000, 20_000, math.Round(0.8 * highest)} {
		d, err := b.delayAt(ctx, rate)
		if err != nil {
			return err
		}
		if err := b.report.latencyRow(d); err != nil {
			return err
		}
		if d.Missing > 0 {
			wrong = errors.Join(wrong, fmt.Errorf("at %.0f events/s: %d windows above the threshold without an alert", rate, d.Missing))
		}
	}
	return wrong
}

// services are a router and a detector at work.
type services struct {
	pipeline
	router, detector *process
}

// live starts spate on a topic of its own. end stops it and forgets what it wrote.
func (b *bench) live(ctx context.Context, what string, env ...string) (s *services, end func(), err error) {
	s = &services{}
	if s.pipeline, err = b.pipeline(ctx, b.name(what), 4, env...); err != nil {
		return s, func() {}, err
	}
	end = func() { b.endOf(ctx, s) }
	if s.router, err = b.spate(ctx, s.pipeline, "route"); err == nil {
		s.detector, err = b.spate(ctx, s.pipeline, "detect")
	}
	if err == nil {
		err = ready(ctx, s.router, s.detector)
	}
	if err != nil {
		end()
		return s, func() {}, err
	}
	return s, end, nil
}

// endOf stops the services and forgets all that they read and wrote.
func (b *bench) endOf(ctx context.Context, s *services) {
	s.router.stop()
	s.detector.stop()
	if err := b.clear(context.WithoutCancel(ctx), s.pipeline); err != nil {
		b.say("%v", err)
	}
	b.tidy(ctx, s.names.Activity)
}

// caughtUp waits until everything that was sent has been told of.
func (b *bench) caughtUp(ctx context.Context, s *services, within time.Duration) error {
	err := poll(ctx, within, 100*time.Millisecond, "the router has read all", func() (bool, error) {
		if s.router.ended() {
			return false, s.router.failure()
		}
		n, err := b.behind(ctx, s.names.RouterGroup, s.names.Activity)
		return err == nil && n == 0, nil
	})
	if err != nil {
		return err
	}
	return s.detector.awaitMetric(ctx, within, "spate_detector_lag_batches", func(v float64) bool { return v == 0 })
}

// warmUp is how long traffic flows before anything counts.
const warmUp = 5 * time.Second

// highest is how many events a second the pipeline sustains while the load is made on the same machine: the router's progress under
// more than it can take, the detector keeping up. It is measured once.
func (b *bench) highest(ctx context.Context) (float64, error) {
	if b.maxRate > 0 {
		return b.maxRate, nil
	}
	if b.highestRate > 0 {
		return b.highestRate, nil
	}
	b.say("measuring the highest rate for %v", b.rehearse)
	s, end, err := b.live(ctx, "highest")
	defer end()
	if err != nil {
		return 0, err
	}
	sending, stop := context.WithCancel(ctx)
	defer stop()
	result := make(chan error, 1)
	go func() {
		_, err := b.send(sending, traffic{topic: s.names.Activity, pick: crowd(200_000, 2000)}, nil)
		result <- err
	}()
	wait(ctx, warmUp)
	from, err := b.routed(ctx, s)
	began := time.Now()
	if err == nil {
		wait(ctx, b.rehearse)
	}
	to, err2 := b.routed(ctx, s)
	took := time.Since(began)
	stop()
	if err := errors.Join(err, err2, <-result); err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	// The detector must not have been left behind: the rest of its work counts as time.
	drained := time.Now()
	if err := s.detector.awaitMetric(ctx, b.patience, "spate_detector_lag_batches", func(v float64) bool { return v <= 8 }); err != nil {
		return 0, err
	}
	took += max(0, time.Since(drained)-time.Second)
	b.highestRate = float64(to-from) / took.Seconds()
	b.say("highest rate: %.0f events/s", b.highestRate)
	return b.highestRate, nil
}

// routed is how many events the router has committed.
func (b *bench) routed(ctx context.Context, s *services) (n int64, err error) {
	at, err := b.committed(ctx, s.names.RouterGroup, s.names.Activity)
	for _, o := range at {
		n += max(o, 0)
	}
	return n, err
}

func (b *bench) delayAt(ctx context.Context, rate float64) (delay, error) {
	d := delay{Rate: rate}
	b.say("latency at %.0f events/s for %v", rate, b.latencyFor)
	s, end, err := b.live(ctx, "latency")
	defer end()
	if err != nil {
		return d, err
	}
	began := time.Now()
	sending, stop := context.WithTimeout(ctx, warmUp+b.latencyFor)
	defer stop()
	n, err := b.send(sending, traffic{topic: s.names.Activity, rate: rate, pick: crowd(rate, min(rate/10, 2000))}, nil)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return d, err
	}
	d.Seconds = time.Since(began).Seconds()
	d.Sent = float64(n) / d.Seconds
	if d.LagEvents, err = b.behind(ctx, s.names.RouterGroup, s.names.Activity); err != nil {
		return d, err
	}
	if err := b.caughtUp(ctx, s, b.patience); err != nil {
		return d, err
	}
	d.RouterCPU, d.DetectCPU = perEvent(s.router.cpu(), n), perEvent(s.detector.cpu(), n)
	d.RouterMB, d.DetectMB = float64(s.router.peak.Load())/(1<<20), float64(s.detector.peak.Load())/(1<<20)
	return d, b.delays(ctx, s, began.Add(warmUp), &d)
}

// appends are when the first events of a window were appended, the earliest first.
type appends struct {
	n    int
	atMS [threshold + 1]int64
}

func (a *appends) add(atMS int64) {
	if a.n < len(a.atMS) {
		a.atMS[a.n] = atMS
		a.n++
	} else if last := &a.atMS[len(a.atMS)-1]; atMS < *last {
		*last = atMS
	} else {
		return
	}
	slices.Sort(a.atMS[:a.n]) // partitions are read one beside the other
}

// delays reads the topics of events and alerts again. It looks at attackers only: others are not meant to pass the threshold.
func (b *bench) delays(ctx context.Context, s *services, from time.Time, d *delay) error {
	windows := make(map[pair]*appends)
	err := b.each(ctx, s.names.Activity, func(r *kgo.Record) error {
		user, ts, err := scanEvent(r.Value)
		if err != nil || user < firstAttacker {
			return err
		}
		w := pair{user, ts - ts%10_000}
		if windows[w] == nil {
			windows[w] = &appends{}
		}
		windows[w].add(r.Timestamp.UnixMilli())
		return nil
	})
	if err != nil {
		return err
	}
	told := make(map[pair]int64)
	if err := b.each(ctx, s.names.Alerts, func(r *kgo.Record) error {
		a, err := parseResult(r.Value)
		if err != nil {
			return err
		}
		if at, ok := told[a.pair]; a.opened && (!ok || r.Timestamp.UnixMilli() < at) {
			told[a.pair] = r.Timestamp.UnixMilli()
		}
		return nil
	}); err != nil {
		return err
	}
	var ms []float64
	for w, a := range windows {
		if a.n <= threshold {
			continue
		}
		passed := a.atMS[threshold]
		at, ok := told[w]
		switch {
		case !ok:
			d.Missing++
		case passed >= from.UnixMilli():
			ms = append(ms, float64(at-passed))
		}
	}
	slices.Sort(ms)
	d.Alerts = len(ms)
	d.P50, d.P90, d.P99, d.Max = quantile(ms, 0.5), quantile(ms, 0.9), quantile(ms, 0.99), quantile(ms, 1)
	return nil
}

// quantile of sorted values; 0 without any.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}
