package main

import (
	"context"
	"time"
)

// openWindows is the detector's figure of what it holds: one for each user and window.
const openWindows = "spate_detector_open_windows"

// floodRate is 1 M new accounts a minute.
const floodRate = 1_000_000.0 / 60

// moment is one sample of the memory.
type moment struct {
	Flood      string  `json:"flood"` // live or backlog
	Second     float64 `json:"second"`
	Events     int64   `json:"events"` // that the router has committed
	RouterMB   float64 `json:"router_rss_mb"`
	DetectorMB float64 `json:"detector_rss_mb"`
	Windows    float64 `json:"open_windows"` // of the detector, one for each user and window
}

// memory floods spate with users who come once: first at 1 M a minute, then the same as a backlog, as fast as it goes.
func (b *bench) memory(ctx context.Context) error {
	if err := b.liveFlood(ctx); err != nil {
		return err
	}
	return b.backlogFlood(ctx)
}

func (b *bench) liveFlood(ctx context.Context) error {
	b.say("flood of 1 M users a minute for %v", b.memoryFor)
	s, end, err := b.live(ctx, "flood")
	defer end()
	if err != nil {
		return err
	}
	sending, stop := context.WithTimeout(ctx, b.memoryFor)
	defer stop()
	result := make(chan error, 1)
	go func() {
		_, err := b.send(sending, traffic{topic: s.names.Activity, rate: floodRate, pick: flood(floodRate, time.Now().UnixMilli())}, nil)
		result <- err
	}()
	// Afterwards the windows close by the idle promise, and what they took is free again.
	const after = 40 * time.Second
	over := time.Now().Add(b.memoryFor + after)
	moments, err := b.sample(ctx, s, "live", func() bool { return time.Now().After(over) })
	stop()
	if sendErr := <-result; err == nil {
		err = sendErr
	}
	if err != nil {
		return err
	}
	return b.report.memory("Memory: 1 M new users a minute, one event each, "+b.memoryFor.String()+", then "+after.String()+" of silence", moments)
}

func (b *bench) backlogFlood(ctx context.Context) error {
	n := int64(b.floodEvents)
	pipe, err := b.pipeline(ctx, b.name("flood"), 4)
	if err != nil {
		return err
	}
	s := &services{pipeline: pipe}
	defer b.endOf(ctx, s)
	b.say("writing a backlog of %d users", n)
	took := time.Duration(float64(n) / floodRate * float64(time.Second))
	from := time.Now().Add(-took - time.Hour).UnixMilli()
	if _, err := b.send(ctx, traffic{topic: pipe.names.Activity, pick: flood(floodRate, from), until: n}, nil); err != nil {
		return err
	}
	if err := b.end(ctx, pipe.names.Activity, 4, from+took.Milliseconds()+120_000); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.router, err = b.spate(ctx, pipe, "route"); err != nil {
		return err
	}
	if s.detector, err = b.spate(ctx, pipe, "detect"); err != nil {
		return err
	}
	// 20 s after the last event was read.
	var last time.Time
	moments, err := b.sample(ctx, s, "backlog", func() bool {
		if !last.IsZero() {
			return time.Since(last) > 20*time.Second
		}
		if left, err := b.behind(ctx, pipe.names.RouterGroup, pipe.names.Activity); err == nil && left == 0 {
			last = time.Now()
		}
		return false
	})
	if err != nil {
		return err
	}
	return b.report.memory("Memory: the same flood as a backlog, as fast as it goes, then 20 s of silence", moments)
}

// sample looks at the services once a second.
func (b *bench) sample(ctx context.Context, s *services, name string, over func() bool) ([]moment, error) {
	var moments []moment
	began := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for !over() {
		for _, p := range []*process{s.router, s.detector} {
			if p.ended() {
				return moments, p.failure()
			}
		}
		m := moment{Flood: name, Second: time.Since(began).Seconds()}
		m.RouterMB, m.DetectorMB = resident(s.router), resident(s.detector)
		if figures, err := s.detector.metrics(ctx); err == nil { // it may be starting
			m.Windows = figures[openWindows]
		}
		m.Events, _ = b.routed(ctx, s) // as above
		moments = append(moments, m)
		select {
		case <-ctx.Done():
			return moments, context.Cause(ctx)
		case <-tick.C:
		}
	}
	return moments, nil
}

// resident is the memory of a process now, MB; 0 if it has just ended.
func resident(p *process) float64 {
	now, _, err := p.memory()
	if err != nil {
		return 0
	}
	return float64(now) / (1 << 20)
}
