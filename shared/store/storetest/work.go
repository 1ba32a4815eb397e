package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
)

func testWork(t *testing.T, s store.Store) {
	const n = 12
	to := []notify.Endpoint{endpoint("a"), endpoint("b"), endpoint("c")}
	want := map[string]int{}
	for i := range n {
		r := Record("5", i, alert.Opened)
		tell(t, s, time.Now(), to, r)
		want[key(notify.IDOf(r), "a")], want[key(notify.IDOf(r), "b")] = 1, 1
	}
	calls := make(chan string, 100)
	stop := work(t, s, func(_ context.Context, id, endpoint string) (time.Time, error) {
		calls <- key(id, endpoint)
		return time.Time{}, nil
	}, store.Queue{Endpoint: "a", Workers: 4}, store.Queue{Endpoint: "b", Workers: 1})
	got := map[string]int{}
	for range 2 * n {
		got[await(t, calls, "delivery")]++
	}
	stop()
	equal(t, "deliveries", got, want)
	if len(calls) > 0 {
		t.Errorf("one more call: %s", <-calls)
	}
	equal(t, "of a later", due(t, s, "a"), []string(nil))
	equal(t, "what nobody worked on", len(due(t, s, "c")), n)
}

func testWorkLater(t *testing.T, s store.Store) {
	tell(t, s, time.Now(), []notify.Endpoint{endpoint("a")}, Record("5", 0, alert.Opened))
	type call struct{ at, again time.Time }
	calls := make(chan call, 100)
	first := true
	work(t, s, func(context.Context, string, string) (time.Time, error) {
		c := call{at: time.Now()}
		if first {
			c.again, first = c.at.Add(1200*time.Millisecond), false
		}
		calls <- c
		return c.again, nil
	}, store.Queue{Endpoint: "a", Workers: 1})
	again := await(t, calls, "delivery").again
	if at := await(t, calls, "second call").at; at.Before(again) {
		t.Errorf("called %v too early", again.Sub(at))
	}
}

func testWorkError(t *testing.T, s store.Store) {
	tell(t, s, time.Now(), []notify.Endpoint{endpoint("a")}, Record("5", 0, alert.Opened))
	calls := make(chan int, 100)
	n := 0
	work(t, s, func(context.Context, string, string) (time.Time, error) {
		n++
		calls <- n
		switch n {
		case 1:
			return time.Time{}, errors.New("out of order")
		case 2:
			panic("out of its mind")
		}
		return time.Time{}, nil
	}, store.Queue{Endpoint: "a", Workers: 1})
	for range 3 {
		await(t, calls, "call")
	}
}

func testWorkEnds(t *testing.T, s store.Store) {
	// Work ends at once if nothing is under way, even without a queue.
	work(t, s, nil)()
	r := Record("5", 0, alert.Opened)
	tell(t, s, time.Now(), []notify.Endpoint{endpoint("a")}, r)
	began, ended := make(chan struct{}), make(chan time.Time, 1)
	stop := work(t, s, func(ctx context.Context, _, _ string) (time.Time, error) {
		close(began)
		<-ctx.Done()
		ended <- time.Now()
		return time.Time{}, ctx.Err()
	}, store.Queue{Endpoint: "a", Workers: 1})
	await(t, began, "delivery")
	at := time.Now()
	stop()
	if grace := await(t, ended, "end").Sub(at); grace < time.Second {
		t.Errorf("the delivery under way had only %v", grace)
	}
	equal(t, "what was broken off", due(t, s, "a"), []string{notify.IDOf(r)})
}

func testWorkAgain(t *testing.T, open func() store.Store) {
	s := open()
	var want []string
	for n := range 5 {
		r := Record("5", n, alert.Opened)
		want = append(want, notify.IDOf(r))
		tell(t, s, time.Now(), []notify.Endpoint{endpoint("a")}, r)
	}
	slices.Sort(want)
	began := make(chan string, 10)
	stop := work(t, s, func(ctx context.Context, id, _ string) (time.Time, error) {
		began <- id
		<-ctx.Done()
		return time.Time{}, ctx.Err()
	}, store.Queue{Endpoint: "a", Workers: 2})
	await(t, began, "delivery")
	stop()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = start(t, open)
	equal(t, "after the restart", due(t, s, "a"), want)
}

func testWorkByTwo(t *testing.T, open func() store.Store) {
	const n = 120
	one, two := start(t, open), start(t, open)
	calls := make(chan string, 10*n)
	for i, s := range []store.Store{one, two} {
		work(t, s, func(_ context.Context, id, _ string) (time.Time, error) {
			calls <- fmt.Sprint(i, " ", id)
			return time.Time{}, nil
		}, store.Queue{Endpoint: "a", Workers: 2})
	}
	for i := range n / 10 {
		var records []alert.Record
		for j := range 10 {
			records = append(records, Record("5", 10*i+j, alert.Opened))
		}
		tell(t, []store.Store{one, two}[i%2], time.Now(), []notify.Endpoint{endpoint("a")}, records...)
	}
	got, by := map[string]int{}, map[byte]int{}
	for range n {
		c := await(t, calls, "delivery")
		got[c[2:]]++
		by[c[0]]++
	}
	if len(got) != n {
		t.Errorf("%d of %d were done: %v", len(got), n, got)
	}
	t.Logf("shared as %d and %d", by['0'], by['1'])
}

func testWorkNew(t *testing.T, s store.Store) {
	calls := make(chan string, 100)
	work(t, s, func(_ context.Context, id, _ string) (time.Time, error) {
		calls <- id
		return time.Time{}, nil
	}, store.Queue{Endpoint: "a", Workers: 2})
	var worst time.Duration
	for n := range 8 {
		r := Record("5", n, alert.Opened)
		began := time.Now()
		tell(t, s, began, []notify.Endpoint{endpoint("a")}, r)
		equal(t, "delivery", await(t, calls, "delivery"), notify.IDOf(r))
		worst = max(worst, time.Since(began))
	}
	if t.Logf("at most %v after Apply", worst); worst > 5*time.Second {
		t.Errorf("a delivery began %v after Apply", worst)
	}
}
