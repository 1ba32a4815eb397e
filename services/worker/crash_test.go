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

// crashed runs a worker that drains and crashes at a write, and tells whether it came to it.
func (r *rig) crashed(cfg Config, at int, after bool) bool {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	c := &crash{at: at, after: after, stop: cancel}
	f := r.faults(&cfg)
	f.limit, f.beforeWrite, f.afterWrite = 4, c.before, c.done // in small pieces: windows close on the way
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
	r := newRig(t, 3)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r.eventful(seed)
	cfg := r.config()
	cfg.DedupeField, cfg.AsideStream, cfg.Poll = "event_id", r.aside, time.Millisecond
	want, all := r.expect(cfg)
	if all.Late == 0 || all.Invalid == 0 || all.Repeated == 0 || len(want) < 10 {
		t.Fatalf("seed %d: the input has too little in it: %+v, %d alerts", seed, all, len(want))
	}
	check := func(name string) {
		t.Helper()
		compare(t, r.closed(), want)
		if st, _ := r.state(); st.Tally != all {
			t.Errorf("%s: accounted %+v, want %+v", name, st.Tally, all)
		}
		if t.Failed() {
			t.Fatalf("seed %d: %s", seed, name)
		}
	}
	writes := 0
	for n, done := 1, false; !done; n++ {
		for _, after := range []bool{false, true} {
			r.afresh()
			done = !r.crashed(cfg, n, after)
			if !done {
				writes++
				if n > 1 || after {
					r.expire()
				}
			}
			r.drain(cfg)
			check(fmt.Sprintf("crash at write %d, after it was done: %t", n, after))
		}
	}
	t.Logf("%d events, %d alerts, crashed at %d writes", all.In, len(want), writes)
	if writes < 20 {
		t.Errorf("crashed at %d writes only: the input has too few closes", writes)
	}
	// Again and again, and each time a little further than the time before.
	for _, begin := range []int{2, 5} {
		r.afresh()
		n := begin
		for r.crashed(cfg, n, n%2 == 0) {
			n++
			r.expire()
		}
		check(fmt.Sprintf("crashes at the writes %d to %d, one after another", begin, n-1))
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
	r.makeStream(r.alerts, 1)
	r.forget()
}
