package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"

	"spate/shared/alert"
)

// crash ends a worker at one of its writes, before it is carried out or after: nothing that it does later comes through, as when its process
// were gone.
type crash struct {
	at    int // 1 is the first write
	after bool
	stop  context.CancelFunc

	mu   sync.Mutex
	n    int
	dead bool
}

var errCrash = failure("AccessDeniedException") // nobody tries that again

func (c *crash) before(_ context.Context, what string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return errCrash
	}
	if what == "beat" || what == "release" { // when they come is a matter of the clock
		return nil
	}
	if c.n++; c.n == c.at && !c.after {
		return c.die()
	}
	return nil
}

func (c *crash) done(what string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead || c.after && c.n == c.at && what != "beat" && what != "release" {
		return c.die()
	}
	return nil
}

func (c *crash) die() error {
	c.dead = true
	c.stop()
	return errCrash
}

// crashed runs a worker that drains and crashes at a write, and reports whether it came to it.
func (r *rig) crashed(cfg Config, at int, after bool) bool {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	c := &crash{at: at, after: after, stop: cancel}
	f := r.faults(&cfg)
	f.limit, f.beforeWrite, f.afterWrite = 3, c.before, c.done // in small pieces: windows close on the way
	f.beforeRead = func(context.Context, string) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.dead {
			return errCrash
		}
		return nil
	}
	cfg.Drain = true
	if err := r.run(ctx, cfg); err != nil {
		r.t.Fatal(err)
	}
	return c.dead
}

// eventful writes a small input with everything in it: events in disorder and late ones, records that are none, some twice, several in one
// record, a split and a merge.
func (r *rig) eventful(seed uint64) {
	r.t.Helper()
	rng := rand.New(rand.NewPCG(seed, 2))
	at, id := int64(0), 0
	phase := func(n int) {
		var rows []row
		for i := range 8 { // what begins now begins with what is late for those it goes on from
			rows = append(rows, row{at: max(at-8000, 0), user: 1, hash: float64(i) / 8})
		}
		for range n {
			at += rng.Int64N(250)
			id++
			e := row{at: at - rng.Int64N(1500), user: rng.IntN(6), id: fmt.Sprint(id), hash: rng.Float64()}
			switch {
			case rng.IntN(12) == 0:
				e.at -= 5000 + rng.Int64N(10_000)
			case rng.IntN(15) == 0:
				e.raw = []byte(`{"user_id":1`)
			case rng.IntN(15) == 0:
				var packed [][]byte
				for i := range 3 {
					packed = append(packed, row{at: e.at, user: e.user, id: fmt.Sprint(id, "-", i)}.data())
				}
				e.raw = aggregate(packed...)
			}
			e.at = max(e.at, 0)
			rows = append(rows, e)
			if rng.IntN(8) == 0 {
				rows = append(rows, e)
			}
		}
		r.put(rows...)
	}
	phase(60)
	r.split(0.2)
	phase(60)
	r.merge(1)
	phase(60)
	r.split(0.7)
	phase(40)
}

// TestCrashAtEveryWrite crashes the worker at its first write, its second, and so on, before and after the write is carried out. The next
// worker goes on. What they tell together is what one would have told.
func TestCrashAtEveryWrite(t *testing.T) {
	t.Parallel()
	input := newRig(t, 3)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	input.eventful(seed)
	settings := func(r *rig) Config {
		cfg := r.config()
		cfg.Lease.Duration = 2 * time.Second
		cfg.Events.ID, cfg.AsideStream = "event_id", r.aside
		return cfg
	}
	want, all := input.expect(settings(input))
	if all.Late == 0 || all.Invalid == 0 || all.Repeated == 0 || len(want) < 10 {
		t.Fatalf("the input has too little in it: %+v, %d alerts", all, len(want))
	}
	check := func(r *rig, name string) {
		r.t.Helper()
		compare(r.t, r.closed(), want)
		if st, _ := r.state(); st.Tally != all {
			r.t.Errorf("accounted %+v, want %+v", st.Tally, all)
		}
		if r.t.Failed() {
			r.t.Fatal(name)
		}
	}
	// Each lane has its share of the writes, and alerts and a table of its own.
	const lanes = 6
	for lane := range lanes {
		t.Run(fmt.Sprintf("lane %d", lane), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			r.events = input.events
			cfg := settings(r)
			n := 1 + lane/2
			for after := lane%2 == 1; r.crashed(cfg, n, after); n += lanes / 2 {
				if n > 1 || after { // before the first, there was no lease
					r.expire()
				}
				r.drain(cfg)
				check(r, fmt.Sprintf("crash at write %d, done: %t", n, after))
				r.afresh()
			}
			check(r, "no crash")
			if n < 8 {
				t.Errorf("a worker has %d writes only: windows do not close on the way", n)
			}
			t.Logf("%d events, %d alerts, no write number %d", all.In, len(want), n)
		})
	}
	for _, begin := range []int{2, 5} {
		t.Run(fmt.Sprintf("again and again from %d", begin), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			r.events = input.events
			cfg := settings(r)
			n := begin
			for ; r.crashed(cfg, n, n%2 == 0); n++ { // a little further each time
				r.expire()
			}
			check(r, fmt.Sprintf("crashes at the writes %d to %d, one after another", begin, n-1))
		})
	}
}

// TestCut: windows are closed although a shard is silent, and the worker crashes in the middle of that. Then the shard has another event for
// them. It is late, as it would have been without the crash: what was told, or decided, stands.
func TestCut(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("told %t", after), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2)
			cfg := r.config()
			cfg.Lease.Duration = 2 * time.Second
			cfg.IdleTimeout, cfg.Transitions = 100*time.Millisecond, []alert.State{alert.Closed} // so that the first alert is of a close
			r.put(burst(3, 1, 1000, 0)...)
			r.put(row{at: 1500, user: 1, hash: 0.9})
			r.put(row{at: 12_000, user: 2, hash: 0})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			broken := cfg
			f := r.faults(&broken)
			dead := false
			var mu sync.Mutex
			crash := func(what string) error {
				mu.Lock()
				defer mu.Unlock()
				if what == r.alerts {
					dead = true
					cancel()
				}
				if dead {
					return errCrash
				}
				return nil
			}
			f.beforeWrite = func(_ context.Context, what string) error {
				if what == r.alerts && after {
					return nil
				}
				return crash(what)
			}
			f.afterWrite = crash
			if err := r.run(ctx, broken); err != nil {
				t.Fatal(err)
			}
			if told := len(r.told()); told > 0 != after {
				t.Fatalf("%d alerts are told", told)
			}
			r.put(row{at: 1700, user: 1, hash: 0.9})
			r.expire()
			r.drain(cfg)
			compare(t, r.closed(), counted{"1@0": 4})
			if st, _ := r.state(); st.Tally != (tally{In: 6, Counted: 5, Idle: 1}) {
				t.Errorf("accounted %+v", st.Tally)
			}
		})
	}
}

// afresh forgets the alerts and the state, but not the events.
func (r *rig) afresh() {
	r.t.Helper()
	_, err := r.kinesis.DeleteStream(r.t.Context(), &kinesis.DeleteStreamInput{StreamName: aws.String(r.alerts)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.eventually("the stream is gone", func() bool {
		_, err := r.kinesis.DescribeStreamSummary(r.t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String(r.alerts)})
		return err != nil
	})
	r.makeStream(r.alerts, 2)
	r.forget()
}
