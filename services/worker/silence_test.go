package worker

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
)

// in waits until the worker has saved that it judged so many events.
func (r *rig) in(n int64) {
	r.t.Helper()
	r.eventually("the events are accounted", func() bool {
		st, ok := r.state()
		if ok && st.Tally.In > n {
			r.t.Fatalf("accounted %+v, more than %d", st.Tally, n)
		}
		return ok && st.Tally.In == n
	})
}

// burst is so many events of a user, a tenth of a second apart.
func burst(n, user int, at int64, hash float64) (out []row) {
	for i := range n {
		out = append(out, row{at: at + int64(i)*100, user: user, hash: hash})
	}
	return out
}

// TestQuietInput: all windows close though nothing comes any more, and one shard never had an event.
func TestQuietInput(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	cfg := r.config()
	cfg.IdleTimeout = 200 * time.Millisecond
	r.put(burst(5, 1, 1000, 0)...)
	r.put(burst(4, 2, 9000, 0.4)...)
	stop := r.start(cfg)
	r.eventually("all windows are closed", func() bool { return r.closed()["2@8000"] > 0 })
	stop()
	r.check(cfg)
}

// TestEventTimeWalksOn: while everything is silent and closed, event time walks on with the wall clock, and a successor goes on from where it was. What comes
// then is counted all the same.
func TestEventTimeWalksOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	cfg := r.config()
	var now clock
	cfg.Now, cfg.IdleTimeout = now.now, 200*time.Millisecond
	r.put(burst(5, 1, 1000, 0)...)
	stop := r.start(cfg)
	walked := func(more time.Duration) func() bool {
		return func() bool {
			now.advance(500 * time.Millisecond) // a worker that has not looked for longer does not know of any silence
			st, ok := r.state()
			return ok && st.Over >= st.Closed+more.Milliseconds() && st.UpTo().UnixMilli() == st.Over+1
		}
	}
	r.eventually("a minute is over", walked(time.Minute))
	stop()
	before, _ := r.state()
	now.advance(time.Hour) // nobody worked: that is no silence
	stop = r.start(cfg)
	r.eventually("the successor goes on", func() bool { st, _ := r.state(); return st.Over > before.Over })
	if st, _ := r.state(); st.Over > before.Over+30*60_000 {
		t.Errorf("walked on by %d ms while nobody worked", st.Over-before.Over)
	}
	r.eventually("another minute is over", walked(2*time.Minute))
	r.put(burst(4, 2, 60_000, 0.9)...) // before the time that has walked on
	r.eventually("they are counted", func() bool { return r.opened()["2@60000"] > 0 })
	// Their incident is not over: whoever reads the alert reads that no time has walked past it.
	if st, _ := r.state(); st.UpTo().UnixMilli() != st.Closed+1 {
		t.Errorf("everything up to %v is said to be over; closed is %d", st.UpTo(), st.Closed)
	}
	stop()
	r.drain(cfg)
	r.check(cfg)
}

// TestSilenceOfTheWorker: for a minute the stream of alerts takes nothing, and the worker reads nothing. Shards that it has not looked at
// for that long are not silent: what they got meanwhile is not late.
func TestSilenceOfTheWorker(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	cfg := r.config()
	var now clock
	cfg.Now, cfg.IdleTimeout = now.now, 30*time.Second
	blocked, goOn := newGate(), newGate()
	f := r.faults(&cfg)
	f.beforeWrite = func(ctx context.Context, what string) error {
		if what != r.alerts {
			return nil
		}
		blocked.open()
		return goOn.wait(ctx)
	}
	r.put(burst(3, 1, 1000, 0)...)
	r.put(burst(3, 2, 1000, 0.9)...)
	stop := r.start(cfg)
	if err := blocked.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.put(burst(3, 3, 20_000, 0)...)
	r.put(burst(3, 4, 2000, 0.9)...)
	now.advance(time.Minute) // so it looks at silence as soon as it goes on
	goOn.open()
	r.put(burst(3, 5, 40_000, 0)...)
	r.put(burst(3, 6, 30_000, 0.9)...)
	r.eventually("the windows before the last ones are closed", func() bool { return r.closed()["3@20000"] > 0 })
	stop()
	r.drain(cfg)
	r.check(cfg)
}

// TestUnreadableShardIsNotSilent: a shard that cannot be read for longer than the idle timeout holds windows open.
func TestUnreadableShardIsNotSilent(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	cfg := r.config()
	var now clock
	cfg.Now, cfg.IdleTimeout = now.now, 30*time.Second
	id := *r.open()[1].ShardId
	blocked, goOn := newGate(), newGate()
	f := r.faults(&cfg)
	f.beforeRead = func(ctx context.Context, shard string) error {
		if shard != id {
			return nil
		}
		select {
		case <-blocked.c:
			return goOn.wait(ctx)
		default:
			return nil
		}
	}
	empty := newGate()
	f.afterRead = func(shard string, out *kinesis.GetRecordsOutput) {
		if shard == id && len(out.Records) == 0 {
			empty.open()
		}
	}
	r.put(burst(3, 1, 1000, 0)...)
	r.put(burst(3, 2, 1000, 0.9)...)
	stop := r.start(cfg)
	if err := empty.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	blocked.open()
	now.advance(time.Minute)
	r.put(burst(3, 3, 20_000, 0)...)
	r.put(burst(3, 4, 5000, 0.9)...)
	r.eventually("the other shard is read", func() bool { return r.opened()["3@20000"] > 0 })
	// The worker has looked at what is silent more than once until this is saved.
	r.eventually("the state is saved", func() bool { st, ok := r.state(); return ok && st.Tally.In >= 9 })
	goOn.open()
	r.eventually("the shard is read again", func() bool { return r.opened()["4@4000"] > 0 })
	stop()
	r.drain(cfg)
	r.check(cfg)
}

// TestPausedShardIsNotSilent: a shard that is ahead of the others is not read while there are too many open windows. That nothing is heard
// of it then is not silence: what it got meanwhile is not late.
func TestPausedShardIsNotSilent(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	cfg := r.config()
	var now clock
	cfg.Now, cfg.IdleTimeout, cfg.MaxOpenWindows = now.now, 30*time.Second, 2
	slow := *r.open()[0].ShardId
	goOn := newGate()
	reads := 0
	f := r.faults(&cfg)
	f.beforeRead = func(ctx context.Context, shard string) error {
		if shard == slow {
			if reads++; reads > 1 {
				return goOn.wait(ctx)
			}
		}
		return nil
	}
	r.put(row{at: 0, user: 1, hash: 0})
	r.put(burst(3, 2, 9000, 0.9)...)
	stop := r.start(cfg)
	r.eventually("too many windows are open", func() bool {
		ready, _ := cfg.Status.Get()
		return !ready && r.opened()["2@8000"] > 0
	})
	r.put(burst(4, 3, 12_500, 0.9)...)
	r.put(row{at: 60_000, user: 1, hash: 0})
	now.advance(time.Minute)
	goOn.open()
	r.eventually("all are open", func() bool { return r.opened()["3@12000"] > 0 || r.log.has("idle") })
	stop()
	cfg.MaxOpenWindows = 0
	r.drain(cfg)
	r.check(cfg)
}
