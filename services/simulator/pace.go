package simulator

import (
	"context"
	"time"
)

// paceTick is how finely the pace is kept: rows that are due within one tick go together, so that a high rate costs no timer per
// row.
const paceTick = 5 * time.Millisecond

// pacer holds rows back until they are due: by event time at a speed, or one after the other at a rate. A run that has fallen
// behind, because the broker was away, catches up as fast as it can.
type pacer struct {
	now   func() time.Time
	speed float64
	rate  float64

	started   bool
	begin     time.Time
	firstMS   int64 // arrival of the first row that has a time
	hasFirst  bool
	sent      int64
	elapsed   time.Duration // wall clock since begin, when last looked at
	untilLook int           // rows that may pass before the wall clock is looked at again
}

func newPacer(cfg *Config) *pacer {
	p := &pacer{now: cfg.Now, speed: cfg.Speed, rate: cfg.Rate}
	if p.rate > 0 {
		p.speed = 0
	}
	return p
}

// wait returns when r is due, or with the error of ctx. It calls idle before it blocks: nothing will come for a while.
func (p *pacer) wait(ctx context.Context, r *Row, idle func() error) error {
	if p.untilLook--; p.untilLook <= 0 {
		p.untilLook = 64
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	var due time.Duration
	switch {
	case p.rate > 0:
		due = time.Duration(float64(p.sent) / p.rate * float64(time.Second))
		p.sent++
	case p.speed > 0 && r.HasTime:
		at := r.TimeMS + r.DelayMS
		if !p.hasFirst {
			p.hasFirst, p.firstMS = true, at
		}
		due = time.Duration(float64(at-p.firstMS) / p.speed * float64(time.Millisecond))
	default:
		return nil
	}
	if !p.started {
		p.started, p.begin = true, p.now()
	}
	if due <= p.elapsed {
		return nil
	}
	p.elapsed = p.now().Sub(p.begin)
	if due <= p.elapsed {
		return nil
	}
	if err := idle(); err != nil {
		return err
	}
	p.untilLook = 0
	timer := time.NewTimer(max(due-p.elapsed, paceTick))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		// An injected clock may stand still; the timer counts too.
		p.elapsed = max(p.now().Sub(p.begin), due)
		return nil
	}
}
