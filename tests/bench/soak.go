package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync/atomic"
	"time"
)

// sample is what one service is like at one time.
type sample struct {
	Service    string  `json:"service"`
	Second     float64 `json:"second"`
	RSSMB      float64 `json:"rss_mb"`
	HeapMB     float64 `json:"heap_mb"`
	Lag        float64 `json:"lag"` // events, batches or alerts that wait
	Goroutines float64 `json:"goroutines"`
	Rate       float64 `json:"sent_events_per_s"`
}

// soakRun holds a rate for long, with all three services, and prints what they were like. What is flat enough is for the reader to say.
func (b *bench) soakRun(ctx context.Context) error {
	rate := b.soakRate
	if rate == 0 {
		highest, err := b.highest(ctx)
		if err != nil {
			return err
		}
		rate = math.Round(highest / 2)
	}
	// Hours of events do not fit on a disk: the topics keep a few minutes.
	activity := b.name("soak")
	topics := map[string]string{"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime", "max.message.bytes": strconv.Itoa(4 << 20),
		"retention.bytes": strconv.Itoa(512 << 20), "segment.bytes": strconv.Itoa(64 << 20)}
	for _, t := range []string{activity, activity + ".keyed"} {
		if err := b.create(ctx, t, 4, topics); err != nil {
			return err
		}
	}
	pipe, err := b.pipeline(ctx, activity, 4, "SPATE_DATABASE_URL="+b.file("soak.db"))
	if err != nil {
		return err
	}
	var ps []*process
	defer func() {
		for _, p := range ps {
			p.stop()
		}
		if err := b.clear(context.WithoutCancel(ctx), pipe); err != nil {
			b.say("%v", err)
		}
		b.tidy(ctx, activity)
	}()
	for _, service := range []string{"route", "detect", "alert"} {
		p, err := b.spate(ctx, pipe, service)
		if err != nil {
			return err
		}
		ps = append(ps, p)
	}
	if err := ready(ctx, ps...); err != nil {
		return err
	}
	b.say("soak: %.0f events/s for %v", rate, b.soak)
	sending, stop := context.WithTimeout(ctx, b.soak)
	defer stop()
	var sent atomic.Int64
	result := make(chan error, 1)
	go func() {
		_, err := b.send(sending, traffic{topic: activity, rate: rate, pick: crowd(rate, min(rate/100, 500))}, &sent)
		result <- err
	}()
	samples, err := b.watch(sending, pipe, ps, &sent)
	stop()
	if sendErr := <-result; err == nil {
		err = sendErr
	}
	if err == nil && ctx.Err() != nil {
		b.say("interrupted; this is what there is")
	}
	return errors.Join(err, b.report.soak(fmt.Sprintf("Soak: %.0f events/s for %v, a sample every %v", rate, b.soak, b.soakEvery), ps, samples))
}

// watch samples services until ctx ends.
func (b *bench) watch(ctx context.Context, pipe pipeline, ps []*process, sent *atomic.Int64) ([]sample, error) {
	lags := map[string]string{"route": "spate_router_lag_events", "detect": "spate_detector_lag_batches"}
	var samples []sample
	began, before, at := time.Now(), int64(0), time.Now()
	tick := time.NewTicker(b.soakEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return samples, nil
		case <-tick.C:
		}
		now, n := time.Now(), sent.Load()
		rate := float64(n-before) / now.Sub(at).Seconds()
		before, at = n, now
		for _, p := range ps {
			if p.ended() {
				return samples, p.failure()
			}
			m, err := p.metrics(ctx)
			if err != nil {
				if ctx.Err() != nil {
					return samples, nil //nolint:nilerr // the time is over
				}
				return samples, err
			}
			s := sample{Service: p.name, Second: now.Sub(began).Seconds(), RSSMB: resident(p), HeapMB: m["go_memstats_heap_inuse_bytes"] / (1 << 20), Goroutines: m["go_goroutines"], Rate: rate}
			if s.Lag = m[lags[p.name]]; p.name == "alert" {
				left, err := b.behind(ctx, pipe.names.AlerterGroup, pipe.names.Alerts)
				if err != nil && ctx.Err() == nil {
					return samples, err
				}
				s.Lag = float64(left)
			}
			samples = append(samples, s)
			if err := b.report.json("soak", s); err != nil {
				return samples, err
			}
		}
	}
}

// slope is the least-squares line through points, per unit of x.
func slope(x, y []float64) float64 {
	n := float64(len(x))
	if n < 2 {
		return 0
	}
	var sx, sy, sxx, sxy float64
	for i := range x {
		sx, sy, sxx, sxy = sx+x[i], sy+y[i], sxx+x[i]*x[i], sxy+x[i]*y[i]
	}
	if d := n*sxx - sx*sx; d != 0 {
		return (n*sxy - sx*sy) / d
	}
	return 0
}
