package deliver

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"spate/shared/notify"
)

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(notify.Endpoint{Name: "ops", Filter: notify.Alerts()}, time.Now)
		enter := func() (waited time.Duration, again time.Time) {
			t.Helper()
			began := time.Now()
			again, err := g.enter(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return time.Since(began), again
		}
		failed, ok := notify.Result{Outcome: notify.Failed, Status: 500}, notify.Result{Outcome: notify.Delivered, Status: 200}
		for i := range breakAfter {
			if waited, again := enter(); waited != 0 || !again.IsZero() || g.open() {
				t.Fatalf("failure %d: waited %v, %v", i, waited, again)
			}
			g.leave(failed)
		}
		if !g.open() {
			t.Fatal("it is not open")
		}
		for _, want := range []time.Duration{breakMin, 2 * breakMin} {
			if waited, again := enter(); waited != want || !again.IsZero() {
				t.Fatalf("waited %v, want %v; again %v", waited, want, again)
			}
			g.leave(failed)
		}
		// 20 s are too long to wait with a place in the queue taken.
		if waited, again := enter(); waited != 0 || time.Until(again) != 4*breakMin {
			t.Fatalf("waited %v, again in %v", waited, time.Until(again))
		}
		time.Sleep(4 * breakMin)
		if waited, again := enter(); waited != 0 || !again.IsZero() {
			t.Fatalf("the probe waited %v, %v", waited, again)
		}
		// Only one finds out; the others are let in when it has.
		done := make(chan time.Duration)
		go func() { w, _ := enter(); done <- w }()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("two probes at once")
		default:
		}
		// What is wrong with a message says that the endpoint is there.
		g.leave(notify.Result{Outcome: notify.Failed, Status: 400})
		<-done
		g.leave(ok)
		if g.open() {
			t.Error("it is open")
		}
		// An endpoint that asks for it is left alone.
		enter()
		g.leave(notify.Result{Outcome: notify.Throttled, Status: 429, After: 7 * time.Second})
		if waited, _ := enter(); waited != 7*time.Second {
			t.Errorf("waited %v after Retry-After", waited)
		}
		g.leave(ok)
	})
}

// TestProbeIsHandedOn: a message that cannot be sent says nothing about the endpoint. If it was to find out whether that is back, the next
// one does so at once, and the breaker neither closes nor waits longer.
func TestProbeIsHandedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(notify.Endpoint{Name: "ops", Filter: notify.Alerts()}, time.Now)
		enter := func() {
			t.Helper()
			if again, err := g.enter(t.Context()); err != nil || !again.IsZero() {
				t.Fatalf("%v, %v", again, err)
			}
		}
		failed, unsendable := notify.Result{Outcome: notify.Failed, Status: 500}, notify.Result{Outcome: notify.Unsendable}
		for range 2 * breakAfter {
			enter()
			g.leave(unsendable)
		}
		if g.open() {
			t.Fatal("messages have opened the breaker")
		}
		for range breakAfter {
			enter()
			g.leave(failed)
			g.leave(unsendable) // does not begin the count anew
		}
		if !g.open() {
			t.Fatal("it is not open")
		}
		began := time.Now()
		enter()
		const waiting = 20
		var through atomic.Int64
		var wg sync.WaitGroup
		for range waiting {
			wg.Go(func() {
				enter()
				through.Add(1)
				g.leave(unsendable)
			})
		}
		synctest.Wait()
		if through.Load() != 0 {
			t.Fatal("two probes at once")
		}
		g.leave(unsendable)
		wg.Wait()
		if took := time.Since(began); took != breakMin || !g.open() { // by the bubble's clock
			t.Errorf("%d messages went through in %v, open %v", waiting+1, took, g.open())
		}
		enter()
		g.leave(failed)
		if again, err := g.enter(t.Context()); err != nil || !again.IsZero() || time.Since(began) != 3*breakMin {
			t.Errorf("the second probe came after %v, %v, %v", time.Since(began), again, err)
		}
		g.leave(notify.Result{Outcome: notify.Delivered})
	})
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(notify.Endpoint{Name: "ops", Filter: notify.Alerts(), Rate: 4}, time.Now)
		began := time.Now()
		for range 41 {
			if again, err := g.enter(t.Context()); err != nil || !again.IsZero() {
				t.Fatalf("%v, %v", again, err)
			}
			g.leave(notify.Result{Outcome: notify.Delivered, Status: 200})
		}
		if took := time.Since(began); took < 10*time.Second-time.Millisecond || took > 10*time.Second+50*time.Millisecond {
			t.Errorf("41 at 4 a second took %v", took)
		}
		// A rate so low that a turn is far off.
		g = newGate(notify.Endpoint{Name: "ops", Filter: notify.Alerts(), Rate: 0.02}, time.Now)
		if again, err := g.enter(t.Context()); err != nil || !again.IsZero() {
			t.Fatalf("%v, %v", again, err)
		}
		if again, err := g.enter(t.Context()); err != nil || time.Until(again) < 49*time.Second {
			t.Errorf("%v, %v", time.Until(again), err)
		}
	})
}
