package deliver

import (
	"context"
	"math"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"spate/shared/notify"
)

const (
	// patience is how long a delivery waits for its turn with its place in the queue taken.
	patience = 12 * time.Second

	// breakAfter is how many tries in a row must fail for the breaker to open.
	breakAfter = 5
	breakMin   = 5 * time.Second
	breakMax   = 30 * time.Second

	// maxWorkers is how many deliveries to one endpoint are under way at once.
	maxWorkers = 16
)

// gate lets tries through to one endpoint: at its rate, not while it has asked to be left alone, and one by one to find out whether it is
// back, after many have failed. So a dead endpoint does not use up the tries of every message that is due.
type gate struct {
	limiter *rate.Limiter // nil: any rate
	now     func() time.Time
	places  chan struct{} // has one for each delivery that waits for its turn

	mu       sync.Mutex
	failures int           // in a row
	wait     time.Duration // of the breaker, when it opened last; 0 is closed
	until    time.Time     // nobody goes through before it
	probing  bool          // the breaker is open, and one try is under way to find out
	changed  chan struct{} // closed when waiting may be over
}

func newGate(e notify.Endpoint, now func() time.Time) *gate {
	g := &gate{now: now, places: make(chan struct{}, places(e)), changed: make(chan struct{})}
	if e.Rate > 0 {
		g.limiter = rate.NewLimiter(rate.Limit(e.Rate), 1)
	}
	return g
}

// places is how many deliveries wait for their turn at once: those that a rate lets through in two seconds. If all did whose turn is far
// off, they would come again and again.
func places(e notify.Endpoint) int {
	if e.Rate == 0 {
		return maxWorkers
	}
	return max(1, min(maxWorkers, int(math.Ceil(2*e.Rate))))
}

// enter waits until a try may be made. If that takes too long it returns when to come again; whoever goes through gets the zero time and
// calls leave.
func (g *gate) enter(ctx context.Context) (again time.Time, err error) {
	began := g.now()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case g.places <- struct{}{}:
	case <-late.C: // room for others, for whom it may be another matter
		return g.now().Add(patience), nil
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
	defer func() { <-g.places }()
	for limited := g.limiter == nil; ; {
		at, changed := g.opens()
		now := g.now()
		if at.IsZero() && limited {
			return time.Time{}, nil
		}
		if at.IsZero() {
			r := g.limiter.ReserveN(now, 1)
			at = now.Add(r.DelayFrom(now))
			if at.Sub(began) > patience {
				r.CancelAt(now)
				g.unprobe()
				return at, nil
			}
			limited, changed = true, nil
			g.unprobe()
		} else if at.Sub(began) > patience {
			return at, nil
		}
		if err := sleep(ctx, at.Sub(now), changed); err != nil {
			return time.Time{}, err
		}
	}
}

// turn waits for the next turn at the rate, ahead of all who wait for a place, and for the gate to be open. It reports false if that takes too long; whoever goes through
// calls leave.
func (g *gate) turn(ctx context.Context) (ok bool, err error) {
	if g.limiter != nil {
		now := g.now()
		if err := sleep(ctx, g.limiter.ReserveN(now, 1).DelayFrom(now), nil); err != nil {
			return false, err
		}
	}
	for began := g.now(); ; {
		at, changed := g.opens()
		if at.IsZero() {
			return true, nil
		}
		if at.Sub(began) > patience {
			return false, nil
		}
		if err := sleep(ctx, at.Sub(g.now()), changed); err != nil {
			return false, err
		}
	}
}

// opens returns when the gate opens next, or the zero time if whoever asks may go through. The channel is closed if that may be earlier.
func (g *gate) opens() (time.Time, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	switch {
	case now.Before(g.until):
		return g.until, g.changed
	case g.wait == 0:
		return time.Time{}, nil
	case g.probing:
		return now.Add(time.Second), g.changed
	}
	g.probing = true
	return time.Time{}, nil
}

// unprobe gives the right to find out back.
func (g *gate) unprobe() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.probing {
		g.probing = false
		g.wake()
	}
}

// leave reports the outcome of a try.
func (g *gate) leave(r notify.Result) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probing = false
	defer g.wake()
	now := g.now()
	switch {
	case r.Outcome == notify.Unsendable:
		return // the endpoint was not asked: whoever is next finds out
	case r.Outcome == notify.Throttled:
		// It is alive, and says when.
		g.failures, g.wait = 0, 0
		if at := now.Add(r.After); at.After(g.until) {
			g.until = at
		}
		return
	case !down(r):
		g.failures, g.wait = 0, 0
		return
	}
	g.failures++
	switch {
	case g.wait > 0 && !now.Before(g.until): // it was found to be down still
		g.wait = min(2*g.wait, breakMax)
	case g.wait == 0 && g.failures >= breakAfter:
		g.wait = breakMin
	default:
		return
	}
	g.until = now.Add(g.wait)
}

// wake is called with the lock held.
func (g *gate) wake() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// open reports whether the breaker is open.
func (g *gate) open() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.wait > 0
}

// down reports whether a result is the endpoint's fault, not the message's.
func down(r notify.Result) bool {
	return r.Outcome == notify.Failed && (r.Status == 0 || r.Status >= http.StatusInternalServerError || r.Status == http.StatusTooManyRequests)
}

// sleep waits for d, or until changed is closed.
func sleep(ctx context.Context, d time.Duration, changed <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
	case <-changed:
	}
	return nil
}
