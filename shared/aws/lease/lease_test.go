package lease_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"spate/shared/aws/lease"
)

// TestContenders: eight processes, all of the same name as those of one task definition are, want the lease, and each counts on from what
// the one before has saved, some of them after they have frozen. Nothing is counted twice and nothing is lost.
func TestContenders(t *testing.T) {
	t.Parallel()
	l := table(t)
	l.Duration = lease.MinDuration
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const contenders, each, turns = 8, 5, 2
	var mu sync.Mutex
	saved := map[int]int{}    // how often a Save has taken a number, which is the successor of the one that was there
	unknown := map[int]bool{} // numbers whose Save has found the lease lost: it may have been written all the same
	epochs := map[int64]int{}
	var group sync.WaitGroup
	for c := range contenders {
		group.Go(func() {
			for turn := range turns {
				h, err := l.Acquire(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				epochs[h.Epoch()]++
				mu.Unlock()
				keeping, stop := context.WithCancel(ctx)
				ended := make(chan error, 1)
				go func() { ended <- h.Keep(keeping) }()
				n, _ := strconv.Atoi(string(h.State()))
				for range each {
					n++
					err := h.Save(ctx, fmt.Append(nil, n))
					mu.Lock()
					if err == nil {
						saved[n]++
					} else {
						unknown[n] = true
					}
					mu.Unlock()
					if err != nil && !errors.Is(err, lease.ErrLost) { // else a beat came too late: the machine is busy
						t.Error(err)
					}
					if err != nil {
						break
					}
				}
				stop()
				if err := <-ended; err != nil && !errors.Is(err, lease.ErrLost) {
					t.Error(err)
				}
				if (c+turn)%4 != 0 { // the others die
					h.Release(ctx)
				}
			}
		})
	}
	group.Wait()
	for e, n := range epochs {
		if n != 1 {
			t.Errorf("epoch %d had %d holders", e, n)
		}
	}
	if len(epochs) != contenders*turns {
		t.Errorf("%d epochs, want %d", len(epochs), contenders*turns)
	}
	last, err := strconv.Atoi(stored(t, l, "state"))
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= max(last, len(saved)); n++ {
		if times := saved[n]; times > 1 || times == 0 && !unknown[n] || n > last {
			t.Fatalf("saved %v, state %d: %d was saved %d times: two held the lease", saved, last, n, times)
		}
	}
}

// TestTakeIsNotMistaken: two processes of the same name see a free lease. The one that is refused does not take the other's for its own.
func TestTakeIsNotMistaken(t *testing.T) {
	t.Parallel()
	l := table(t)
	var first, second atomic.Bool
	arrived, goOn := make(chan struct{}), make(chan struct{})
	slow := l
	slow.API = &faults{API: l.API, before: func(ctx context.Context, what string, _ *dynamodb.UpdateItemInput) error {
		if what == "take" && first.CompareAndSwap(false, true) {
			close(arrived)
			<-goOn
		}
		return nil
	}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if h, err := slow.Acquire(ctx); err == nil && h.Epoch() == 1 {
			second.Store(true)
		}
	}()
	<-arrived
	h := acquire(t, l)
	stop := keep(t, h)
	close(goOn)
	eventually(t, "the other one waits", func() bool { return second.Load() || stored(t, l, "beat") > "2" })
	if second.Load() {
		t.Error("both hold epoch 1")
	}
	cancel()
	<-ended
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestTakeWithLostAnswer: the lease is ours although nobody said so.
func TestTakeWithLostAnswer(t *testing.T) {
	t.Parallel()
	l := table(t)
	var lost atomic.Bool
	next := l.API
	l.API = &faults{API: next, before: func(ctx context.Context, what string, in *dynamodb.UpdateItemInput) error {
		if what != "take" || lost.Swap(true) {
			return nil
		}
		_, err := next.UpdateItem(ctx, in) // done, and what the SDK tries again is refused
		return err
	}}
	if h := acquire(t, l); h.Epoch() != 1 {
		t.Errorf("epoch %d, want 1", h.Epoch())
	}
}

// TestTakeoverFromTheDead: a holder that does not renew is replaced, with its state, and can write nothing more.
func TestTakeoverFromTheDead(t *testing.T) {
	t.Parallel()
	l := table(t)
	l.Duration = lease.MinDuration
	dead := acquire(t, l)
	if err := dead.Save(t.Context(), []byte("of the dead")); err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 1)
	l.Owner, l.Waiting = "next", func(owner string) { seen <- owner }
	h := acquire(t, l)
	if owner := <-seen; owner != "test" {
		t.Errorf("waited for %q", owner)
	}
	if h.Epoch() != 2 || string(h.State()) != "of the dead" {
		t.Errorf("epoch %d, state %q", h.Epoch(), h.State())
	}
	if err := dead.Valid(); !errors.Is(err, lease.ErrLost) {
		t.Errorf("the dead holder is valid: %v", err)
	}
	if err := dead.Save(t.Context(), []byte("again")); !errors.Is(err, lease.ErrLost) {
		t.Errorf("the dead holder saves: %v", err)
	}
	dead.Release(t.Context()) // changes nothing
	if err := h.Save(t.Context(), []byte("of the next")); err != nil {
		t.Error(err)
	}
	if got := stored(t, l, "state"); got != "of the next" {
		t.Errorf("state %q", got)
	}
}

// TestRelease hands over at once: the lease is so long that nobody would wait for its end.
func TestRelease(t *testing.T) {
	t.Parallel()
	l := table(t)
	l.Duration = lease.MaxDuration
	h := acquire(t, l)
	if err := h.Save(t.Context(), []byte("state")); err != nil {
		t.Fatal(err)
	}
	h.Release(t.Context())
	if err := h.Valid(); !errors.Is(err, lease.ErrLost) {
		t.Errorf("valid after the release: %v", err)
	}
	if next := acquire(t, fast(l)); next.Epoch() != 2 || string(next.State()) != "state" {
		t.Errorf("epoch %d, state %q", next.Epoch(), next.State())
	}
}

// fast looks at the item more often than a long lease does.
func fast(l lease.Lease) lease.Lease { l.Duration = 10 * time.Second; return l }

// TestSaveWithLostAnswer: it is written once and succeeds.
func TestSaveWithLostAnswer(t *testing.T) {
	t.Parallel()
	l := table(t)
	l.Duration = 10 * time.Second
	var n atomic.Int32
	l.API = &faults{API: l.API, after: func(what string) error {
		if what == "save" && n.Add(1)%2 == 1 {
			return errAnswer
		}
		return nil
	}}
	h := acquire(t, l)
	stop := keep(t, h)
	for i := range 4 {
		if err := h.Save(t.Context(), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
		if got, want := stored(t, l, "saves")+" "+stored(t, l, "state"), fmt.Sprint(i+1, " ", i); got != want {
			t.Errorf("saves and state are %s, want %s", got, want)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestSaveTriesAgain: throttling and faults are passed over, each state is written once.
func TestSaveTriesAgain(t *testing.T) {
	t.Parallel()
	l := table(t)
	l.Duration = 10 * time.Second
	var n atomic.Int32
	l.API = &faults{API: l.API, before: func(_ context.Context, what string, _ *dynamodb.UpdateItemInput) error {
		if what == "save" && n.Add(1)%3 != 0 {
			return errors.New("down, for the test")
		}
		return nil
	}}
	h := acquire(t, l)
	keep(t, h)
	for i := range 3 {
		if err := h.Save(t.Context(), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := stored(t, l, "saves") + " " + stored(t, l, "state"); got != "3 2" {
		t.Errorf("saves and state are %s", got)
	}
}

// TestSaveThatComesLate: a write that was given up arrives after later ones. It is refused.
func TestSaveThatComesLate(t *testing.T) {
	t.Parallel()
	l := table(t)
	l.Duration = 10 * time.Second
	next := l.API
	var late *dynamodb.UpdateItemInput
	l.API = &faults{API: next, before: func(_ context.Context, what string, in *dynamodb.UpdateItemInput) error {
		if what == "save" && late == nil {
			late = in
			return errAnswer
		}
		return nil
	}}
	h := acquire(t, l)
	keep(t, h)
	for _, state := range []string{"first", "second"} {
		if err := h.Save(t.Context(), []byte(state)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := next.UpdateItem(t.Context(), late); err == nil {
		t.Error("the late write was taken")
	}
	if got := stored(t, l, "state"); got != "second" {
		t.Errorf("state %q", got)
	}
}

// TestSaveGivenUp: a Save that ended without an answer was carried out all the same. The next one is not taken for it.
func TestSaveGivenUp(t *testing.T) {
	t.Parallel()
	l := table(t)
	l.Duration = 10 * time.Second
	given, cancel := context.WithCancel(t.Context())
	var n atomic.Int32
	l.API = &faults{API: l.API, after: func(what string) error {
		if what == "save" && n.Add(1) == 1 {
			cancel()
			return errAnswer
		}
		return nil
	}}
	h := acquire(t, l)
	keep(t, h)
	if err := h.Save(given, []byte("given up")); !errors.Is(err, context.Canceled) {
		t.Fatalf("save: %v", err)
	}
	if err := h.Save(t.Context(), []byte("next")); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, l, "saves") + " " + stored(t, l, "state"); got != "2 next" {
		t.Errorf("saves and state are %s", got)
	}
	if err := h.Save(t.Context(), []byte("one more")); err != nil {
		t.Fatal(err)
	}
}

// TestFrozenHolder: beats that do not come through. The holder finds out before the lease can be anybody else's.
func TestFrozenHolder(t *testing.T) {
	t.Parallel()
	l := table(t)
	healthy := l
	var frozen atomic.Bool
	l.API = &faults{API: l.API, before: func(ctx context.Context, what string, _ *dynamodb.UpdateItemInput) error {
		if frozen.Load() {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}}
	h := acquire(t, l)
	stop := keep(t, h)
	eventually(t, "it has renewed", func() bool { return stored(t, healthy, "beat") != "0" })
	frozen.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	next, err := healthy.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// It was taken a moment ago, and must have been lost for the other by then.
	if err := h.Valid(); !errors.Is(err, lease.ErrLost) {
		t.Errorf("the frozen holder is valid while epoch %d holds the lease: %v", next.Epoch(), err)
	}
	if err := stop(); err != nil && !errors.Is(err, lease.ErrLost) {
		t.Error(err)
	}
}

// TestKeepIsRefused: who finds another epoch in the item has lost the lease.
func TestKeepIsRefused(t *testing.T) {
	t.Parallel()
	l := table(t)
	h := acquire(t, l)
	h.Release(t.Context())
	acquire(t, l)
	if err := h.Keep(t.Context()); !errors.Is(err, lease.ErrLost) {
		t.Errorf("keep: %v", err)
	}
}

// TestSilentConnection: a call that never ends does not keep a standby from taking over.
func TestSilentConnection(t *testing.T) {
	t.Parallel()
	l := table(t)
	l.Duration = lease.MinDuration
	var reads, takes atomic.Int32
	l.API = &faults{
		API: l.API,
		read: func(ctx context.Context) error {
			if reads.Add(1) == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		},
		before: func(ctx context.Context, what string, _ *dynamodb.UpdateItemInput) error {
			if what == "take" && takes.Add(1) == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		},
	}
	acquire(t, l)
}

func TestStateTooLarge(t *testing.T) {
	t.Parallel()
	l := table(t)
	l.Duration = 10 * time.Second
	h := acquire(t, l)
	if err := h.Save(t.Context(), bytes.Repeat([]byte{1}, lease.MaxState)); err != nil {
		t.Errorf("the largest state: %v", err)
	}
	err := h.Save(t.Context(), make([]byte, lease.MaxState+1))
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(lease.MaxState)) {
		t.Errorf("save: %v", err)
	}
	if got := stored(t, l, "saves"); got != "1" {
		t.Errorf("saves %s, want 1", got)
	}
}

func TestNoTable(t *testing.T) {
	t.Parallel()
	l := table(t)
	l.Table = "none"
	if _, err := l.Acquire(t.Context()); !errors.Is(err, lease.ErrNoTable) || !strings.Contains(err.Error(), "none") {
		t.Errorf("acquire: %v", err)
	}
}

func TestAcquireEnds(t *testing.T) {
	t.Parallel()
	l := table(t)
	keep(t, acquire(t, l))
	ctx, cancel := context.WithCancel(t.Context())
	l.Waiting = func(string) { cancel() }
	if _, err := l.Acquire(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("acquire: %v", err)
	}
}

// TestLook: who only looks sees who holds the lease, for how long it lasts, and that it is alive.
func TestLook(t *testing.T) {
	t.Parallel()
	l := table(t)
	if v, err := l.Look(t.Context()); err != nil || v.Epoch != 0 || v.State != nil {
		t.Errorf("before anybody: %+v, %v", v, err)
	}
	h := acquire(t, l)
	stop := keep(t, h)
	defer func() { _ = stop() }()
	if err := h.Save(t.Context(), []byte("state")); err != nil {
		t.Fatal(err)
	}
	looker := lease.Lease{API: l.API, Table: l.Table, Key: l.Key}
	first, err := looker.Look(t.Context())
	if err != nil || first.Epoch != 1 || first.Owner != l.Owner || first.Duration != l.Duration || first.Released || string(first.State) != "state" {
		t.Errorf("%+v, %v", first, err)
	}
	eventually(t, "it beats", func() bool {
		v, err := looker.Look(t.Context())
		return err == nil && v.Beat > first.Beat
	})
	h.Release(t.Context())
	if v, err := looker.Look(t.Context()); err != nil || !v.Released {
		t.Errorf("released: %+v, %v", v, err)
	}
}
