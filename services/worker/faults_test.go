package worker

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"spate/shared/alert"
	"spate/shared/aws/lease"
)

// failing fails so many calls of each kind.
type failing struct {
	mu   sync.Mutex
	left map[string]int
	err  error
}

func (f *failing) next(what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left[what] == 0 {
		return nil
	}
	f.left[what]--
	return f.err
}

// steady writes events of all shards in order, so that windows close one after another.
func (r *rig) steady(from, to int64) {
	r.t.Helper()
	var rows []row
	for at := from; at < to; at += 250 {
		rows = append(rows, row{at: at, user: int(at/250) % 3, hash: float64(at/250%2) * 0.9})
	}
	r.put(rows...)
}

// closedFrom reports whether a window that begins there or later is closed.
func (r *rig) closedFrom(at int64) bool {
	r.t.Helper()
	return slices.ContainsFunc(r.told(), func(a alert.Record) bool { return a.State == alert.Closed && a.WindowStart.UnixMilli() >= base+at })
}

// TestAlertsAreThrottled: stream 2 refuses everything for a while, in every way. Nothing is lost, and reading goes on afterwards.
func TestAlertsAreThrottled(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"ProvisionedThroughputExceededException", "InternalFailure", "AccessDeniedException"} {
		for _, done := range []bool{false, true} {
			name := code + " before"
			if done {
				name = code + " after"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, 2)
				cfg := r.config()
				fail := &failing{left: map[string]int{r.alerts: 4}, err: failure(code)}
				f := r.faults(&cfg)
				if done {
					f.afterWrite = fail.next
				} else {
					f.beforeWrite = func(_ context.Context, what string) error { return fail.next(what) }
				}
				r.steady(0, 20_000)
				stop := r.start(cfg)
				r.eventually("windows close", func() bool { return r.closedFrom(12000) })
				r.steady(20_000, 40_000)
				r.eventually("more windows close", func() bool { return r.closedFrom(32000) })
				stop()
				r.drain(cfg)
				r.check(cfg)
			})
		}
	}
}

// TestTableFails: DynamoDB refuses the state for a while, or takes it and does not say so, in the middle of closes.
func TestTableFails(t *testing.T) {
	t.Parallel()
	for name, done := range map[string]bool{"before": false, "after": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2)
			cfg := r.config()
			cfg.Lease.Duration = 10 * time.Second // of which a Save waits a twentieth between two tries
			var mu sync.Mutex
			saves := 0
			fail := func(what string) error {
				mu.Lock()
				defer mu.Unlock()
				if what != "save" {
					return nil
				}
				if saves++; saves > 1 && saves%3 != 0 {
					return failure("InternalServerError")
				}
				return nil
			}
			f := r.faults(&cfg)
			f.limit = 2
			if done {
				f.afterWrite = fail
			} else {
				f.beforeWrite = func(_ context.Context, what string) error { return fail(what) }
			}
			r.steady(0, 30_000)
			r.drain(cfg)
			r.check(cfg)
			if saves < 5 {
				t.Errorf("%d saves: the test proves nothing", saves)
			}
		})
	}
}

// TestLeaseIsLost: the table cannot be reached for longer than the lease. The worker stops acting, comes back, and is exact.
func TestLeaseIsLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	cfg := r.config()
	cfg.Lease.Duration = lease.MinDuration
	var down toggle
	f := r.faults(&cfg)
	f.beforeWrite = func(_ context.Context, what string) error {
		if (what == "beat" || what == "save" || what == "take" || what == "release") && down.is() {
			return failure("InternalServerError")
		}
		return nil
	}
	r.steady(0, 12_000)
	stop := r.start(cfg)
	r.eventually("windows close", func() bool { return r.closedFrom(4000) })
	down.set(true)
	r.steady(12_000, 24_000)
	r.eventually("the lease is lost", func() bool { return r.log.has("lease lost") })
	down.set(false)
	r.eventually("windows close again", func() bool { return r.closedFrom(16000) })
	stop()
	r.drain(cfg)
	r.check(cfg)
}

// toggle is on or off.
type toggle struct {
	mu sync.Mutex
	on bool
}

func (s *toggle) set(on bool) { s.mu.Lock(); defer s.mu.Unlock(); s.on = on }
func (s *toggle) is() bool    { s.mu.Lock(); defer s.mu.Unlock(); return s.on }

// TestSettingsChange: what a close was decided with must be what it is done with. Without one under way, settings may change.
func TestSettingsChange(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	cfg := r.config()
	r.put(burst(3, 1, 1000, 0)...)
	r.put(burst(3, 1, 11_000, 0)...)
	// A worker that dies between its decision and what it decides.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	broken := cfg
	f := r.faults(&broken)
	f.beforeWrite = func(_ context.Context, what string) error {
		if st, _ := r.state(); ctx.Err() != nil || st.Pending > st.Closed {
			cancel()
			return errCrash
		}
		return nil
	}
	if err := r.run(ctx, broken); err != nil {
		t.Fatal(err)
	}
	if st, _ := r.state(); st.Pending <= st.Closed {
		t.Fatalf("no close is under way: %+v", st)
	}

	changed := cfg
	changed.Drain, changed.Threshold = true, 1
	r.expire()
	err := r.run(t.Context(), changed)
	if !errors.Is(err, errState) || !strings.Contains(err.Error(), "different settings") || !strings.Contains(err.Error(), "SIGTERM") {
		t.Errorf("changed while a close is under way: %v", err)
	}

	stop := r.start(cfg)
	r.eventually("the close is done", func() bool { return len(r.closed()) > 0 })
	stop() // in good order
	if st, _ := r.state(); st.Pending != st.Closed {
		t.Fatalf("a close is still under way: %+v", st)
	}
	r.put(burst(2, 2, 11_000, 0)...)
	r.drain(changed)
	compare(t, r.closed(), counted{"1@0": 3, "1@8000": 3, "2@8000": 2})
	if st, _ := r.state(); st.Rule != changed.settings(0) {
		t.Errorf("rule %+v, want %+v", st.Rule, changed.settings(0))
	}
}

// TestStateOfAnother: a state that cannot be read ends the worker, and is left as it is.
func TestStateOfAnother(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"version":2}`, `none`} {
		r := newRig(t, 1)
		cfg := r.config()
		h, err := cfg.Lease.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Save(t.Context(), []byte(text)); err != nil {
			t.Fatal(err)
		}
		h.Release(t.Context())
		if err := r.run(t.Context(), cfg); !errors.Is(err, errState) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestGoroutinesEnd: a worker leaves none behind, in good order and after its reader has failed.
func TestGoroutinesEnd(t *testing.T) {
	r := newRig(t, 3)
	r.steady(0, 10_000)
	cfg := r.config()
	cfg.Registry = prometheus.NewRegistry()
	// With connections of its own, whose goroutines end when it is asked for.
	transport := &http.Transport{}
	client := &http.Client{Transport: transport}
	cfg.Kinesis = kinesis.New(r.kinesis.Options(), func(o *kinesis.Options) { o.HTTPClient = client })
	cfg.Lease.API = dynamodb.New(r.dynamo.Options(), func(o *dynamodb.Options) { o.HTTPClient = client })
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	r.eventually("it works", func() bool { return r.log.has("worker started") })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	cfg.Drain, cfg.Registry = true, prometheus.NewRegistry()
	if err := Run(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	cfg.Stream, cfg.Registry, cfg.Lease.Key = "none", prometheus.NewRegistry(), "none"
	if err := Run(t.Context(), cfg); err == nil {
		t.Error("no error without a stream")
	}
	transport.CloseIdleConnections()
	goleak.VerifyNone(t, before)
}

// TestAllAtOnce: everything is read in pieces, while reads fail and writes are done without an answer.
func TestAllAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	r.eventful(uint64(time.Now().UnixNano()))
	cfg := r.config()
	cfg.Events.ID = "event_id"
	cfg.Lease.Duration = 10 * time.Second
	var mu sync.Mutex
	n := 0
	f := r.faults(&cfg)
	f.limit = 7
	f.beforeRead = func(context.Context, string) error {
		mu.Lock()
		defer mu.Unlock()
		switch n++; n % 23 {
		case 7:
			return failure("ExpiredIteratorException")
		case 15:
			return failure("ProvisionedThroughputExceededException")
		}
		return nil
	}
	f.afterWrite = func(what string) error {
		mu.Lock()
		defer mu.Unlock()
		if what == "beat" {
			return nil
		}
		if n++; n%4 == 0 {
			return failure("InternalServerError") // done, and nobody hears of it
		}
		return nil
	}
	r.drain(cfg)
	r.check(cfg)
}
