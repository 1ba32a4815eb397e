package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
)

// patience is how long the tests wait for what has to happen.
const patience = 20 * time.Second

// endpoint is told of everything.
func endpoint(name string) notify.Endpoint { return notify.Endpoint{Name: name} }

// tell applies records and has endpoints told; it fails the test on an error or a rejection.
func tell(t *testing.T, s store.Store, now time.Time, to []notify.Endpoint, records ...alert.Record) {
	t.Helper()
	got, err := s.Apply(t.Context(), now, records, to...)
	if err != nil || len(got.Rejected) > 0 {
		t.Fatalf("Apply: %v, rejected: %v", err, got.Rejected)
	}
}

func deliveries(t *testing.T, s store.Store, f store.DeliveryFilter) []store.Delivery {
	t.Helper()
	var out []store.Delivery
	for d, err := range s.ListDeliveries(t.Context(), f) {
		if err != nil {
			t.Fatalf("ListDeliveries: %v", err)
		}
		out = append(out, d)
	}
	return out
}

func tries(t *testing.T, s store.Store, f store.TryFilter) []store.Try {
	t.Helper()
	var out []store.Try
	for v, err := range s.ListTries(t.Context(), f) {
		if err != nil {
			t.Fatalf("ListTries: %v", err)
		}
		out = append(out, v)
	}
	return out
}

func delivery(t *testing.T, s store.Store, id, endpoint string) store.Delivery {
	t.Helper()
	d, err := s.Delivery(t.Context(), id, endpoint)
	if err != nil {
		t.Fatalf("Delivery: %v", err)
	}
	return d
}

// record writes a try; its time does not matter.
func record(t *testing.T, s store.Store, id, endpoint string, o notify.Outcome, counts bool) store.DeliveryState {
	t.Helper()
	try := store.Try{WebhookID: id, Endpoint: endpoint, At: noon, Outcome: o}
	if o == notify.Failed || o == notify.Throttled {
		try.NextAt = noon.Add(time.Minute)
	}
	state, err := s.Record(t.Context(), try, counts)
	if err != nil {
		t.Fatalf("Record: %v", err)
	}
	return state
}

// key names a delivery.
func key(id, endpoint string) string { return endpoint + " " + id }

func keys(ds []store.Delivery) []string {
	var out []string
	for _, d := range ds {
		out = append(out, key(d.WebhookID, d.Endpoint))
	}
	return out
}

// work works off queues until the function that it returns is called, or the test ends.
func work(t *testing.T, s store.Store, do store.Do, queues ...store.Queue) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Work(ctx, queues, slog.New(slog.DiscardHandler), do) }()
	stop = sync.OnceFunc(func() {
		cancel()
		began := time.Now()
		if err := await(t, done, "the end of Work"); err != nil {
			t.Errorf("Work: %v", err)
		}
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("Work took %v to end", took)
		}
	})
	t.Cleanup(stop)
	return stop
}

func await[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-c:
		return v
	case <-timer.C:
		t.Fatalf("no %s within %v", what, patience)
		panic("unreachable")
	}
}

// due works off all that is due at an endpoint and returns it. What is due later than now is not there: a sentinel comes after what is
// due, for a queue with one worker goes by time. It leaves the sentinel's delivery behind.
func due(t *testing.T, s store.Store, name string) []string {
	t.Helper()
	sentinel := Record(fmt.Sprintf(`"sentinel %d"`, time.Now().UnixNano()), 0, alert.Opened)
	calls := make(chan string, 10_000)
	stop := work(t, s, func(_ context.Context, id, _ string) (time.Time, error) {
		calls <- id
		return time.Time{}, nil
	}, store.Queue{Endpoint: name, Workers: 1})
	defer stop()
	tell(t, s, time.Now(), []notify.Endpoint{endpoint(name)}, sentinel)
	var out []string
	for {
		id := await(t, calls, "delivery to "+name)
		if id == notify.IDOf(sentinel) {
			slices.Sort(out)
			return out
		}
		out = append(out, id)
	}
}

func testOutbox(t *testing.T, s store.Store) {
	to := []notify.Endpoint{endpoint("a"), endpoint("b")}
	opened, closed, other := Record("5", 0, alert.Opened), Record("5", 0, alert.Closed), Record("6", 0, alert.Opened)
	tell(t, s, noon, to, opened)
	heard := noon.Truncate(time.Millisecond)
	want := store.Delivery{
		WebhookID: opened.ID + "_opened", Endpoint: "a", AlertID: opened.ID, Type: notify.TypeOpened, State: store.Pending,
		CreatedAt: heard, BegunAt: heard, NextAt: heard, Data: encoded(t, opened),
	}
	equal(t, "delivery", delivery(t, s, notify.IDOf(opened), "a"), want)
	if got := delivery(t, s, notify.IDOf(opened), "a"); got.CreatedAt.Location() != time.UTC || got.NextAt.Location() != time.UTC {
		t.Error("times are not UTC")
	}
	// Both in one batch are two messages, and what changes nothing is none.
	both := []alert.Record{Record("7", 0, alert.Opened), Record("7", 0, alert.Closed)}
	tell(t, s, noon.Add(time.Second), to, opened, closed, other, both[0], both[1], other)
	tell(t, s, noon.Add(time.Minute), to, opened, closed, other, both[1], both[0])
	var all []string
	for _, r := range []alert.Record{opened, closed, other, both[0], both[1]} {
		all = append(all, notify.IDOf(r))
	}
	slices.Sort(all)
	for _, name := range []string{"a", "b"} {
		var got []string
		for _, d := range deliveries(t, s, store.DeliveryFilter{Endpoint: name}) {
			got = append(got, d.WebhookID)
		}
		slices.Sort(got)
		equal(t, "deliveries to "+name, got, all)
		equal(t, "jobs of "+name, due(t, s, name), all)
	}
	// A record that was rejected is not told.
	conflict := closed
	conflict.Count = 1234
	if got, err := s.Apply(t.Context(), noon, []alert.Record{conflict}, endpoint("c")); err != nil || len(got.Rejected) != 1 {
		t.Fatalf("Apply: %v, %v", got, err)
	}
	equal(t, "deliveries to c", keys(deliveries(t, s, store.DeliveryFilter{Endpoint: "c"})), []string(nil))
}

func testOutboxFilters(t *testing.T, s store.Store) {
	grave, other := Record("2", 0, alert.Opened), Record("3", 0, alert.Closed)
	grave.Severity, other.Rule = alert.Critical, "other"
	records := []alert.Record{Record("1", 0, alert.Opened), Record("1", 0, alert.Closed), grave, other}
	filters := map[string]notify.Filter{
		"all":      {},
		"rule":     {Rules: []string{"none", "other"}},
		"critical": {MinSeverity: alert.Critical},
		"warning":  {MinSeverity: alert.Warning},
		"closed":   {Transitions: []alert.State{alert.Closed}},
		"either":   {Transitions: []alert.State{alert.Closed, alert.Opened}},
		"nothing":  {Rules: []string{"other"}, Transitions: []alert.State{alert.Opened}},
	}
	var to []notify.Endpoint
	for name, f := range filters {
		to = append(to, notify.Endpoint{Name: name, Filter: f})
	}
	tell(t, s, noon, to, records...)
	for name, want := range map[string][]int{"all": {0, 1, 2, 3}, "rule": {3}, "critical": {2}, "warning": {0, 1, 2, 3}, "closed": {1, 3}, "either": {0, 1, 2, 3}, "nothing": nil} {
		var got, ids []string
		for _, d := range deliveries(t, s, store.DeliveryFilter{Endpoint: name}) {
			got = append(got, d.WebhookID)
		}
		for _, i := range want {
			ids = append(ids, notify.IDOf(records[i]))
		}
		slices.Sort(got)
		slices.Sort(ids)
		equal(t, name, got, ids)
	}
}

func testOutboxAtomic(t *testing.T, s store.Store) {
	var batch []alert.Record
	for n := range 3000 {
		batch = append(batch, Record("2", n, alert.Opened))
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Apply(canceled, noon, batch, endpoint("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply after the end of its context: %v", err)
	}
	want := 0
	for _, after := range []time.Duration{2 * time.Millisecond, 20 * time.Millisecond, 80 * time.Millisecond, 160 * time.Millisecond} {
		// Ends anywhere; alerts, deliveries and jobs are all there or none is.
		short, cancel := context.WithTimeout(t.Context(), after)
		_, err := s.Apply(short, noon, batch, endpoint("a"))
		cancel()
		c, cerr := s.Count(t.Context())
		if cerr != nil {
			t.Fatal(cerr)
		}
		if want = int(c.Opened); want != 0 && want != len(batch) || err == nil && want == 0 {
			t.Fatalf("%v: %d alerts; Apply: %v", after, want, err)
		}
		if got := len(deliveries(t, s, store.DeliveryFilter{})); got != want {
			t.Fatalf("%v: %d deliveries of %d alerts", after, got, want)
		}
	}
	if got := len(due(t, s, "a")); want == 0 && got != 0 {
		t.Fatalf("%d jobs without deliveries", got)
	}
}

func encoded(t *testing.T, r alert.Record) json.RawMessage {
	t.Helper()
	data, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func testData(t *testing.T, s store.Store) {
	for _, user := range []string{"5", "9007199254740993", `"<a&b>"`, `"\u2028"`, `"ü\u0000"`, `"a\"b\\"`} {
		opened, closed := Record(user, 0, alert.Opened), Record(user, 0, alert.Closed)
		want := encoded(t, opened)
		tell(t, s, noon, []notify.Endpoint{endpoint("a")}, opened)
		equal(t, user, string(delivery(t, s, notify.IDOf(opened), "a").Data), string(want))
		tell(t, s, noon, []notify.Endpoint{endpoint("a")}, closed)
		equal(t, user+" after it closed", string(delivery(t, s, notify.IDOf(opened), "a").Data), string(want))
		equal(t, user+" closed", string(delivery(t, s, notify.IDOf(closed), "a").Data), string(encoded(t, closed)))
	}

	// The longest id there is, of which nothing can be compressed.
	long := Record("8", 0, alert.Opened)
	long.ID = ""
	for rng := rand.New(rand.NewPCG(1, 1)); len(long.ID) < 1000; {
		long.ID += string(rune(0x20 + rng.IntN(0x5f)))
	}
	tell(t, s, noon, []notify.Endpoint{endpoint(strings.Repeat("a", 60))}, long)
	equal(t, "long id", string(delivery(t, s, notify.IDOf(long), strings.Repeat("a", 60)).Data), string(encoded(t, long)))
}

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
	// At once, if nothing is under way; even if there is no queue.
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

func testRecord(t *testing.T, s store.Store) {
	next := noon.Add(5 * time.Second)
	cut := func(at time.Time) time.Time { return at.Truncate(time.Millisecond) }
	for _, c := range []struct {
		name    string
		outcome notify.Outcome
		counts  bool
		next    time.Time
		state   store.DeliveryState
		counted int
	}{
		{"delivered", notify.Delivered, true, time.Time{}, store.Delivered, 1},
		{"failed", notify.Failed, true, next, store.Pending, 1},
		{"throttled", notify.Throttled, false, next, store.Pending, 0},
		{"gone", notify.Gone, true, time.Time{}, store.Disabled, 1},
		{"exhausted", notify.Exhausted, true, time.Time{}, store.Exhausted, 1},
	} {
		r := Record("5", 0, alert.Opened)
		r.ID = c.name
		id := notify.IDOf(r)
		tell(t, s, noon, []notify.Endpoint{endpoint(c.name), endpoint("other")}, r)
		try := store.Try{WebhookID: id, Endpoint: c.name, At: noon, Took: 1234567 * time.Microsecond, Status: 418, Outcome: c.outcome, Reason: "because ü\n", NextAt: c.next}
		state, err := s.Record(t.Context(), try, c.counts)
		if err != nil || state != c.state {
			t.Fatalf("%s: state %q, %v", c.name, state, err)
		}
		d := delivery(t, s, id, c.name)
		if d.State != c.state || d.Tries != 1 || d.Counted != c.counted || !d.NextAt.Equal(cut(c.next)) || !d.BegunAt.Equal(cut(noon)) {
			t.Errorf("%s: %+v", c.name, d)
		}
		try.N, try.At, try.Took, try.NextAt = 1, cut(noon), 1234*time.Millisecond, cut(c.next)
		equal(t, c.name, tries(t, s, store.TryFilter{WebhookID: id}), []store.Try{try})
		if o := delivery(t, s, id, "other"); o.State != store.Pending || o.Tries != 0 {
			t.Errorf("%s: the other endpoint's: %+v", c.name, o)
		}
		disabled, err := s.DisabledAt(t.Context(), c.name)
		if want := c.outcome == notify.Gone; err != nil || disabled.IsZero() == want || want && !disabled.Equal(cut(noon)) {
			t.Errorf("%s: endpoint disabled at %v, %v", c.name, disabled, err)
		}

		// One more: that of a settled delivery is only written down.
		state, err = s.Record(t.Context(), store.Try{WebhookID: id, Endpoint: c.name, At: next, Outcome: notify.Failed, NextAt: next}, true)
		if err != nil || state != c.state {
			t.Errorf("%s: state %q after another try, %v", c.name, state, err)
		}
		if d := delivery(t, s, id, c.name); d.State != c.state || d.Tries != 2 || d.Counted != c.counted+1 || d.NextAt.IsZero() != (c.state != store.Pending) {
			t.Errorf("%s after another try: %+v", c.name, d)
		}
		if got := tries(t, s, store.TryFilter{WebhookID: id}); len(got) != 2 || got[1].N != 2 {
			t.Errorf("%s after another try: %+v", c.name, got)
		}
	}
	for _, e := range endpoints(t, s) {
		if want := map[bool]string{true: "because ü\n"}[e.Name == "gone"]; e.Reason != want || e.DisabledAt.IsZero() != (want == "") {
			t.Errorf("endpoint %+v", e)
		}
	}
	// Disable settles what is pending, and nothing else.
	for name, want := range map[string]store.DeliveryState{"failed": store.Disabled, "delivered": store.Delivered, "exhausted": store.Exhausted} {
		if err := s.Disable(t.Context(), name+"_opened", name); err != nil {
			t.Fatal(err)
		}
		if d := delivery(t, s, name+"_opened", name); d.State != want || !d.NextAt.IsZero() {
			t.Errorf("%s after Disable: %+v", name, d)
		}
	}
}

func testNoDelivery(t *testing.T, s store.Store) {
	tell(t, s, noon, []notify.Endpoint{endpoint("a")}, Record("5", 0, alert.Opened))
	id := notify.IDOf(Record("5", 0, alert.Opened))
	for _, at := range [][2]string{{"none", "a"}, {id, "b"}, {"\x00", "a"}, {id, "a\x00"}} {
		if _, err := s.Delivery(t.Context(), at[0], at[1]); !errors.Is(err, store.ErrNoDelivery) {
			t.Errorf("Delivery(%q): %v", at, err)
		}
		if _, err := s.Record(t.Context(), store.Try{WebhookID: at[0], Endpoint: at[1], At: noon, Outcome: notify.Delivered}, true); !errors.Is(err, store.ErrNoDelivery) {
			t.Errorf("Record(%q): %v", at, err)
		}
		if err := s.Disable(t.Context(), at[0], at[1]); err != nil {
			t.Errorf("Disable(%q): %v", at, err)
		}
		if _, err := s.Seal(t.Context(), at[0], at[1], nil); !errors.Is(err, store.ErrNoDelivery) {
			t.Errorf("Seal(%q): %v", at, err)
		}
		if n, err := s.Resend(t.Context(), noon, store.DeliveryFilter{WebhookID: at[0], Endpoint: at[1]}); n != 0 || err != nil {
			t.Errorf("Resend(%q): %d, %v", at, n, err)
		}
	}
	equal(t, "tries", tries(t, s, store.TryFilter{}), []store.Try(nil))
}

func testListDeliveries(t *testing.T, s store.Store) {
	to := []notify.Endpoint{endpoint("a"), endpoint("b")}
	one, two, three := Record("1", 0, alert.Opened), Record("2", 0, alert.Opened), Record("3", 0, alert.Opened)
	one.ID, two.ID, three.ID = "1", "2", "3"
	closed := one
	closed.State = alert.Closed
	tell(t, s, noon.Add(time.Second), to, two, one)
	tell(t, s, noon.Add(2*time.Second), to, closed)
	tell(t, s, noon, to, three)
	record(t, s, "1_opened", "a", notify.Delivered, true)
	record(t, s, "1_opened", "b", notify.Exhausted, true)
	since := noon.Add(time.Second).Truncate(time.Millisecond)
	for _, c := range []struct {
		name string
		f    store.DeliveryFilter
		want []string
	}{
		{"all, by time, id and endpoint", store.DeliveryFilter{}, []string{"a 3_opened", "b 3_opened", "a 1_opened", "b 1_opened", "a 2_opened", "b 2_opened", "a 1_closed", "b 1_closed"}},
		{"newest", store.DeliveryFilter{Newest: true, Limit: 3}, []string{"b 1_closed", "a 1_closed", "b 2_opened"}},
		{"limit", store.DeliveryFilter{Limit: 2}, []string{"a 3_opened", "b 3_opened"}},
		{"id", store.DeliveryFilter{WebhookID: "1_opened"}, []string{"a 1_opened", "b 1_opened"}},
		{"endpoint", store.DeliveryFilter{Endpoint: "b"}, []string{"b 3_opened", "b 1_opened", "b 2_opened", "b 1_closed"}},
		{"alert", store.DeliveryFilter{AlertID: "1"}, []string{"a 1_opened", "b 1_opened", "a 1_closed", "b 1_closed"}},
		{"state", store.DeliveryFilter{States: []store.DeliveryState{store.Delivered}}, []string{"a 1_opened"}},
		{"states", store.DeliveryFilter{States: []store.DeliveryState{store.Delivered, store.Exhausted, store.Disabled, store.Held}}, []string{"a 1_opened", "b 1_opened"}},
		{"since", store.DeliveryFilter{Since: since, Endpoint: "a"}, []string{"a 1_opened", "a 2_opened", "a 1_closed"}},
		{"since, between", store.DeliveryFilter{Since: since.Add(time.Nanosecond), Endpoint: "a"}, []string{"a 1_closed"}},
		{"everything", store.DeliveryFilter{WebhookID: "2_opened", Endpoint: "a", AlertID: "2", States: []store.DeliveryState{store.Pending}, Since: since, Limit: 1, Newest: true}, []string{"a 2_opened"}},
		{"nothing", store.DeliveryFilter{WebhookID: "\x00", AlertID: "\x00"}, nil},
	} {
		equal(t, c.name, keys(deliveries(t, s, c.f)), c.want)
	}
	for _, f := range []store.DeliveryFilter{{States: []store.DeliveryState{"half"}}, {States: []store.DeliveryState{store.None}}, {Limit: -1}} {
		fails(t, fmt.Sprintf("%+v", f), s.ListDeliveries(t.Context(), f))
		if _, err := s.Resend(t.Context(), noon, f); err == nil {
			t.Errorf("Resend of %+v: no error", f)
		}
	}
}

// fails checks that a list yields an error, once.
func fails[T any](t *testing.T, what string, list iter.Seq2[T, error]) {
	t.Helper()
	n := 0
	for _, err := range list {
		if n++; err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if n != 1 {
		t.Errorf("%s: yields %d times", what, n)
	}
}

func testListTries(t *testing.T, s store.Store) {
	r, q := Record("1", 0, alert.Opened), Record("2", 0, alert.Opened)
	r.ID, q.ID = "1", "2"
	tell(t, s, noon, []notify.Endpoint{endpoint("a"), endpoint("b")}, r, q)
	at := noon.Truncate(time.Second)
	for _, v := range []store.Try{
		{WebhookID: "2_opened", Endpoint: "a", At: at, Outcome: notify.Failed, NextAt: at},
		{WebhookID: "1_opened", Endpoint: "b", At: at.Add(time.Second), Outcome: notify.Throttled, NextAt: at},
		{WebhookID: "1_opened", Endpoint: "a", At: at.Add(time.Second), Outcome: notify.Failed, NextAt: at},
		{WebhookID: "1_opened", Endpoint: "a", At: at.Add(time.Second), Outcome: notify.Delivered},
		{WebhookID: "2_opened", Endpoint: "a", At: at.Add(-time.Hour), Outcome: notify.Gone},
	} {
		if _, err := s.Record(t.Context(), v, true); err != nil {
			t.Fatal(err)
		}
	}
	all := []string{"a 2_opened 2", "a 2_opened 1", "a 1_opened 1", "a 1_opened 2", "b 1_opened 1"}
	backwards := slices.Clone(all)
	slices.Reverse(backwards)
	for _, c := range []struct {
		name string
		f    store.TryFilter
		want []string
	}{
		{"all", store.TryFilter{}, all},
		{"newest", store.TryFilter{Newest: true}, backwards},
		{"newest, limit", store.TryFilter{Newest: true, Limit: 2}, backwards[:2]},
		{"limit", store.TryFilter{Limit: 2}, all[:2]},
		{"id", store.TryFilter{WebhookID: "2_opened"}, all[:2]},
		{"endpoint", store.TryFilter{Endpoint: "b"}, all[4:]},
		{"outcome", store.TryFilter{Outcome: notify.Failed}, all[1:3]},
		{"since", store.TryFilter{Since: at.Add(time.Second)}, all[2:]},
		{"since, between", store.TryFilter{Since: at.Add(time.Nanosecond)}, all[2:]},
		{"everything", store.TryFilter{WebhookID: "1_opened", Endpoint: "a", Outcome: notify.Failed, Since: at, Limit: 5, Newest: true}, all[2:3]},
		{"nothing", store.TryFilter{WebhookID: "\x00"}, nil},
	} {
		var got []string
		for _, v := range tries(t, s, c.f) {
			got = append(got, fmt.Sprint(key(v.WebhookID, v.Endpoint), " ", v.N))
		}
		equal(t, c.name, got, c.want)
	}
	for _, f := range []store.TryFilter{{Outcome: "half"}, {Limit: -1}} {
		fails(t, fmt.Sprintf("%+v", f), s.ListTries(t.Context(), f))
	}
}

// More than a page has, many at the same time.
func testListMany(t *testing.T, s store.Store) {
	if testing.Short() {
		t.Skip("writes two thousand rows, one by one")
	}
	const n = 1203
	var records []alert.Record
	for i := range n {
		records = append(records, Record("5", i, alert.Opened))
	}
	tell(t, s, noon, []notify.Endpoint{endpoint("a"), endpoint("b")}, records...)
	id := notify.IDOf(records[0])
	for range n {
		record(t, s, id, "a", notify.Failed, true)
	}
	for _, newest := range []bool{false, true} {
		for limit, want := range map[int]int{0: 2 * n, 1000: 1000, 1001: 1001, 2 * n: 2 * n, 2*n + 5: 2 * n} {
			got := keys(deliveries(t, s, store.DeliveryFilter{Limit: limit, Newest: newest}))
			distinct := map[string]bool{}
			for _, k := range got {
				distinct[k] = true
			}
			if len(got) != want || len(distinct) != want {
				t.Errorf("limit %d, newest %v: %d deliveries, %d different, want %d", limit, newest, len(got), len(distinct), want)
			}
		}
		for i, v := range tries(t, s, store.TryFilter{Newest: newest}) {
			if want := map[bool]int{false: i + 1, true: n - i}[newest]; v.N != want {
				t.Fatalf("newest %v: try %d in place of %d", newest, v.N, want)
			}
		}
	}
	// A loop may end early, and use the store.
	for d, err := range s.ListDeliveries(t.Context(), store.DeliveryFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		record(t, s, d.WebhookID, d.Endpoint, notify.Delivered, true)
		break
	}
	for _, err := range s.ListTries(t.Context(), store.TryFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	equal(t, "after the loops", len(deliveries(t, s, store.DeliveryFilter{States: []store.DeliveryState{store.Delivered}})), 1)
}

func testResend(t *testing.T, s store.Store) {
	outcomes := map[string]notify.Outcome{"1": notify.Delivered, "2": notify.Exhausted, "3": notify.Gone}
	var records []alert.Record
	for _, id := range []string{"1", "2", "3", "4"} {
		r := Record(id, 0, alert.Opened)
		r.ID = id
		records = append(records, r)
	}
	tell(t, s, time.Now(), []notify.Endpoint{{Name: "a"}, {Name: "few", DigestAbove: 1}}, records...)
	equal(t, "jobs", len(due(t, s, "a")), 4)
	for id, o := range outcomes {
		record(t, s, id+"_opened", "a", notify.Throttled, false)
		record(t, s, id+"_opened", "a", o, true)
	}
	before := deliveries(t, s, store.DeliveryFilter{Endpoint: "few"})
	again := time.Now()
	if n, err := s.Resend(t.Context(), again, store.DeliveryFilter{States: []store.DeliveryState{store.Exhausted}}); n != 1 || err != nil {
		t.Fatalf("Resend of what is exhausted: %d, %v", n, err)
	}
	if n, err := s.Resend(t.Context(), again, store.DeliveryFilter{}); n != 2 || err != nil {
		t.Fatalf("Resend: %d, %v", n, err)
	}
	if n, err := s.Resend(t.Context(), again, store.DeliveryFilter{}); n != 0 || err != nil {
		t.Fatalf("Resend of what is pending: %d, %v", n, err)
	}
	at := time.UnixMilli(again.UnixMilli())
	for id := range outcomes {
		d := delivery(t, s, id+"_opened", "a")
		if d.State != store.Pending || d.Tries != 2 || d.Counted != 0 || !d.BegunAt.Equal(at) || !d.NextAt.Equal(at) || d.CreatedAt.After(at) || d.Data == nil {
			t.Errorf("%s: %+v", id, d)
		}
		equal(t, "tries", len(tries(t, s, store.TryFilter{WebhookID: id + "_opened"})), 2)
	}
	equal(t, "those of the other endpoint, pending and held", deliveries(t, s, store.DeliveryFilter{Endpoint: "few"}), before)
	// One that waits for its next try is brought forward.
	wait := store.Try{WebhookID: "4_opened", Endpoint: "a", At: again, Outcome: notify.Failed, NextAt: again.Add(time.Hour)}
	if _, err := s.Record(t.Context(), wait, true); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Resend(t.Context(), again, store.DeliveryFilter{Endpoint: "a"}); n != 1 || err != nil {
		t.Fatalf("Resend of what waits: %d, %v", n, err)
	}
	if d := delivery(t, s, "4_opened", "a"); d.State != store.Pending || d.Tries != 1 || d.Counted != 0 || !d.NextAt.Equal(at) || !d.BegunAt.Equal(at) {
		t.Errorf("brought forward: %+v", d)
	}
	equal(t, "jobs", due(t, s, "a"), []string{"1_opened", "2_opened", "3_opened", "4_opened"})
	equal(t, "jobs of the other endpoint", due(t, s, "few"), []string{"1_opened"})
}

// What is sent again while its job is about to end is not lost with it.
func testResendRace(t *testing.T, s store.Store) {
	r := Record("5", 0, alert.Opened)
	tell(t, s, time.Now(), []notify.Endpoint{endpoint("a")}, r)
	calls := make(chan error, 10)
	work(t, s, func(ctx context.Context, id, endpoint string) (time.Time, error) {
		d, err := s.Delivery(ctx, id, endpoint)
		if err == nil {
			_, err = s.Record(ctx, store.Try{WebhookID: id, Endpoint: endpoint, At: time.Now(), Outcome: notify.Delivered}, true)
		}
		if err == nil && d.Tries == 0 {
			_, err = s.Resend(ctx, time.Now(), store.DeliveryFilter{WebhookID: id})
		}
		calls <- err
		return time.Time{}, err
	}, store.Queue{Endpoint: "a", Workers: 1})
	for range 2 {
		if err := await(t, calls, "delivery"); err != nil {
			t.Fatal(err)
		}
	}
}

// What is brought forward is not told by the job that waited as well: two jobs would from then on tell everything twice.
func testResendSupersedes(t *testing.T, s store.Store) {
	tell(t, s, time.Now(), []notify.Endpoint{endpoint("a")}, Record("5", 0, alert.Opened))
	waits := []time.Duration{time.Second, 2 * time.Second, 0}
	type call struct{ at, again time.Time }
	calls := make(chan call, 10)
	var mu sync.Mutex
	work(t, s, func(ctx context.Context, id, endpoint string) (time.Time, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(waits) == 0 {
			return time.Time{}, errors.New("a call too many")
		}
		c := call{at: time.Now()}
		try := store.Try{WebhookID: id, Endpoint: endpoint, At: c.at, Outcome: notify.Delivered}
		if waits[0] > 0 {
			c.again = c.at.Add(waits[0])
			try.Outcome, try.NextAt = notify.Failed, c.again
		}
		waits = waits[1:]
		_, err := s.Record(ctx, try, true)
		calls <- c
		return c.again, err
	}, store.Queue{Endpoint: "a", Workers: 2})
	await(t, calls, "delivery")
	if n, err := s.Resend(t.Context(), time.Now(), store.DeliveryFilter{}); n != 1 || err != nil {
		t.Fatalf("Resend: %d, %v", n, err)
	}
	again := await(t, calls, "delivery that was brought forward").again
	if at := await(t, calls, "last delivery").at; at.Before(again) {
		t.Errorf("called %v too early, by the job that was there before", again.Sub(at))
	}
}

func endpoints(t *testing.T, s store.Store) []store.EndpointState {
	t.Helper()
	got, err := s.Endpoints(t.Context())
	if err != nil {
		t.Fatalf("Endpoints: %v", err)
	}
	return got
}

func testEndpoints(t *testing.T, s store.Store) {
	equal(t, "none", len(endpoints(t, s)), 0)
	set := func(now time.Time, name string, enabled bool, reason string) {
		t.Helper()
		if err := s.SetEnabled(t.Context(), now, name, enabled, reason); err != nil {
			t.Fatalf("SetEnabled: %v", err)
		}
	}
	disabledAt := func(name string) time.Time {
		t.Helper()
		at, err := s.DisabledAt(t.Context(), name)
		if err != nil {
			t.Fatalf("DisabledAt: %v", err)
		}
		return at
	}
	first := noon.Truncate(time.Millisecond)
	equal(t, "unknown", disabledAt("a"), time.Time{})
	set(noon, "a", true, "")
	equal(t, "enabled, and never disabled", len(endpoints(t, s)), 0)
	set(noon, "a", false, "first")
	set(noon.Add(time.Hour), "a", false, "second")
	equal(t, "disabled", disabledAt("a"), first)
	equal(t, "disabled", endpoints(t, s), []store.EndpointState{{Name: "a", DisabledAt: first, Reason: "first"}})
	set(noon, "a", true, "")
	equal(t, "enabled", disabledAt("a"), time.Time{})
	equal(t, "enabled", endpoints(t, s), []store.EndpointState{{Name: "a"}})
	set(noon.Add(time.Hour), "a", false, "third")
	equal(t, "disabled again", endpoints(t, s), []store.EndpointState{{Name: "a", DisabledAt: first.Add(time.Hour), Reason: "third"}})

	var records []alert.Record
	for n := range 7 {
		records = append(records, Record("5", n, alert.Opened))
	}
	tell(t, s, noon, []notify.Endpoint{endpoint("a"), endpoint("b")}, records...)
	for i, o := range []notify.Outcome{notify.Delivered, notify.Exhausted, notify.Exhausted, notify.Failed} {
		record(t, s, notify.IDOf(records[i]), "b", o, true)
	}
	if err := s.Disable(t.Context(), notify.IDOf(records[4]), "b"); err != nil {
		t.Fatal(err)
	}
	equal(t, "counts", endpoints(t, s), []store.EndpointState{
		{Name: "a", DisabledAt: first.Add(time.Hour), Reason: "third", Pending: 7}, {Name: "b", Pending: 3, Exhausted: 2, Dropped: 1},
	})
}

// states counts deliveries of an endpoint by type and state.
func states(t *testing.T, s store.Store, name string) map[string]int {
	t.Helper()
	got := map[string]int{}
	for _, d := range deliveries(t, s, store.DeliveryFilter{Endpoint: name}) {
		kind := "alert"
		if d.Type == notify.TypeDigest {
			kind = "digest"
		}
		got[kind+" "+string(d.State)]++
		if (d.State == store.Held) != (d.Digest != "") || (d.Data == nil) != (d.State == store.Held || kind == "digest") || (kind == "digest") != (d.AlertID == "") {
			t.Errorf("delivery %+v", d)
		}
	}
	return got
}

func testFlood(t *testing.T, s store.Store) {
	to := []notify.Endpoint{{Name: "few", DigestAbove: 3}, {Name: "all"}}
	minute := time.Now().Truncate(time.Minute).Add(-10 * time.Minute) // so that its digest is due already
	n := 0
	some := func(count int, severity alert.Severity) (out []alert.Record) {
		for range count {
			r := Record("5", n, alert.Opened)
			r.Severity = severity
			out = append(out, r)
			n++
		}
		return out
	}
	tell(t, s, minute, to, some(2, alert.Warning)...)
	equal(t, "two", states(t, s, "few"), map[string]int{"alert pending": 2})
	tell(t, s, minute.Add(time.Second), to, append(some(5, alert.Critical), some(3, alert.Warning)...)...)
	equal(t, "five, and five critical", states(t, s, "few"), map[string]int{"alert pending": 8, "alert held": 2, "digest pending": 1})
	tell(t, s, minute.Add(59999*time.Millisecond), to, append(some(2, alert.Warning), some(1, alert.Critical)...)...)
	equal(t, "the minute's last", states(t, s, "few"), map[string]int{"alert pending": 9, "alert held": 4, "digest pending": 1})
	tell(t, s, minute.Add(time.Minute), to, some(4, alert.Warning)...)
	equal(t, "the next minute", states(t, s, "few"), map[string]int{"alert pending": 12, "alert held": 5, "digest pending": 2})
	equal(t, "without flood control", states(t, s, "all"), map[string]int{"alert pending": n})

	id := fmt.Sprintf("digest_few_%d", minute.Unix())
	equal(t, "digest", delivery(t, s, id, "few"), store.Delivery{
		WebhookID: id, Endpoint: "few", Type: notify.TypeDigest, State: store.Pending,
		CreatedAt: minute.UTC(), BegunAt: minute.Add(time.Minute).UTC(), NextAt: minute.Add(time.Minute).UTC(),
	})
	jobs := map[string]int{}
	for _, id := range due(t, s, "few") {
		jobs[id]++
	}
	if len(jobs) != 14 || jobs[id] != 1 || jobs[fmt.Sprintf("digest_few_%d", minute.Unix()+60)] != 1 {
		t.Errorf("jobs: %v", jobs)
	}
	// A digest of the present minute has to wait.
	now := time.Now().Add(30 * time.Second)
	tell(t, s, now, []notify.Endpoint{{Name: "later", DigestAbove: 1}}, some(3, alert.Warning)...)
	if got := due(t, s, "later"); len(got) > 1 || slices.Contains(got, fmt.Sprintf("digest_later_%d", now.Truncate(time.Minute).Unix())) {
		t.Errorf("due already: %v", got)
	}
}

func testFloodConcurrent(t *testing.T, s store.Store) {
	const workers, batches, size, limit = 4, 10, 7, 25
	to := notify.Endpoint{Name: "few", DigestAbove: limit}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for b := range batches {
				var records []alert.Record
				for i := range size {
					records = append(records, Record(fmt.Sprint(w), b*size+i, alert.Opened))
				}
				if _, err := s.Apply(t.Context(), noon, records, to); err != nil {
					t.Errorf("Apply: %v", err)
				}
			}
		})
	}
	wg.Wait()
	equal(t, "states", states(t, s, "few"), map[string]int{"alert pending": limit, "alert held": workers*batches*size - limit, "digest pending": 1})
	jobs := map[string]int{}
	for _, id := range due(t, s, "few") {
		jobs[id]++
	}
	if len(jobs) != limit+1 {
		t.Errorf("%d jobs, want %d", len(jobs), limit+1)
	}
	for id, n := range jobs {
		if n != 1 {
			t.Errorf("%s has %d jobs", id, n)
		}
	}
}

// names is a digest's data that has the ids of its messages.
func names(held iter.Seq2[alert.Record, error]) (json.RawMessage, error) {
	ids := []string{}
	for r, err := range held {
		if err != nil {
			return nil, err
		}
		ids = append(ids, notify.IDOf(r))
	}
	return json.Marshal(ids)
}

func testSeal(t *testing.T, s store.Store) {
	to := []notify.Endpoint{{Name: "few", DigestAbove: 1}, {Name: "fewer", DigestAbove: 1}}
	both := []alert.Record{Record(`"<b>"`, 0, alert.Opened), Record(`"<b>"`, 0, alert.Closed)}
	last := Record("6", 0, alert.Opened)
	tell(t, s, noon, to, Record("1", 0, alert.Opened), both[0], both[1])
	tell(t, s, noon, to, last)
	tell(t, s, noon, to, Record("6", 0, alert.Closed))
	id := delivery(t, s, notify.IDOf(last), "few").Digest

	broken := errors.New("broken")
	if _, err := s.Seal(t.Context(), id, "few", func(iter.Seq2[alert.Record, error]) (json.RawMessage, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Fatalf("Seal that fails: %v", err)
	}
	if d := delivery(t, s, id, "few"); d.Data != nil {
		t.Fatalf("after it failed: %+v", d)
	}
	// It may look at a part only.
	for range 2 {
		if _, err := s.Seal(t.Context(), id, "few", func(held iter.Seq2[alert.Record, error]) (json.RawMessage, error) {
			for _, err := range held {
				return nil, errors.Join(broken, err)
			}
			return nil, errors.New("nothing is held")
		}); !errors.Is(err, broken) {
			t.Fatalf("Seal that fails: %v", err)
		}
	}
	var got []alert.Record
	d, err := s.Seal(t.Context(), id, "few", func(held iter.Seq2[alert.Record, error]) (json.RawMessage, error) {
		for r, err := range held {
			if err != nil {
				return nil, err
			}
			got = append(got, r)
		}
		return json.RawMessage(`{"n": 1, "x": "<&>"}`), nil
	})
	if err != nil || string(d.Data) != `{"n": 1, "x": "<&>"}` {
		t.Fatalf("Seal: %s, %v", d.Data, err)
	}
	// Each record is what its alert is now, in the state that its message is about.
	byID := map[string]alert.Record{}
	for _, r := range got {
		byID[notify.IDOf(r)] = r
	}
	want := map[string]alert.Record{}
	for _, closed := range []alert.Record{both[1], Record("6", 0, alert.Closed)} {
		opened := closed
		opened.State = alert.Opened
		want[notify.IDOf(closed)], want[notify.IDOf(opened)] = closed, opened
	}
	equal(t, "held", byID, want)
	equal(t, "number", len(got), len(want))
	equal(t, "stored", delivery(t, s, id, "few"), d)

	again, err := s.Seal(t.Context(), id, "few", nil)
	if err != nil {
		t.Fatalf("second Seal: %v", err)
	}
	equal(t, "second Seal", again, d)

	// What is heard of late is held for the next minute; the other endpoint's digest is not made yet.
	late := []alert.Record{Record("7", 0, alert.Opened), Record("8", 0, alert.Opened)}
	tell(t, s, noon, to, late...)
	next := delivery(t, s, notify.IDOf(late[1]), "few")
	if next.State != store.Held || next.Digest != fmt.Sprintf("digest_few_%d", noon.Truncate(time.Minute).Unix()+60) {
		t.Errorf("late: %+v", next)
	}
	if o := delivery(t, s, notify.IDOf(late[1]), "fewer"); o.Digest != fmt.Sprintf("digest_fewer_%d", noon.Truncate(time.Minute).Unix()) {
		t.Errorf("late, at the other endpoint: %+v", o)
	}
	if d, err = s.Seal(t.Context(), next.Digest, "few", names); err != nil || string(d.Data) != fmt.Sprintf("[%q]", notify.IDOf(late[1])) {
		t.Errorf("next Seal: %s, %v", d.Data, err)
	}
}

func testSealConcurrent(t *testing.T, s store.Store) {
	const workers, batches, size = 3, 30, 4
	to := notify.Endpoint{Name: "few", DigestAbove: 1}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for b := range batches {
				var records []alert.Record
				for i := range size {
					records = append(records, Record(fmt.Sprint(w), b*size+i, alert.Opened))
				}
				if _, err := s.Apply(t.Context(), noon, records, to); err != nil {
					t.Errorf("Apply: %v", err)
					return
				}
			}
		})
	}
	sealed := map[string]string{} // data by digest
	seal := func() {
		for d, err := range s.ListDeliveries(t.Context(), store.DeliveryFilter{States: []store.DeliveryState{store.Pending}}) {
			if err != nil {
				t.Errorf("ListDeliveries: %v", err)
				return
			}
			if d.Type != notify.TypeDigest {
				continue
			}
			got, err := s.Seal(t.Context(), d.WebhookID, d.Endpoint, names)
			if err != nil {
				t.Errorf("Seal: %v", err)
				return
			}
			if data, ok := sealed[d.WebhookID]; ok && data != string(got.Data) {
				t.Errorf("digest %s changed", d.WebhookID)
			}
			sealed[d.WebhookID] = string(got.Data)
		}
	}
	var sealing sync.WaitGroup
	done := make(chan struct{})
	sealing.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				seal()
			}
		}
	})
	wg.Wait()
	close(done)
	sealing.Wait()
	seal()
	in := map[string]string{} // digest by message
	for id, data := range sealed {
		var ids []string
		if err := json.Unmarshal([]byte(data), &ids); err != nil {
			t.Fatal(err)
		}
		for _, m := range ids {
			if other, ok := in[m]; ok {
				t.Errorf("%s is in %s and in %s", m, other, id)
			}
			in[m] = id
		}
	}
	want := map[string]string{}
	total := 0
	for _, d := range deliveries(t, s, store.DeliveryFilter{}) {
		if d.State == store.Held {
			want[d.WebhookID] = d.Digest
		}
		if d.Type != notify.TypeDigest {
			total++
		}
	}
	if !maps.Equal(in, want) {
		equal(t, "digests by message", in, want)
	}
	equal(t, "messages", total, workers*batches*size)
	t.Logf("%d messages in %d digests", len(in), len(sealed))
}

func testSummary(t *testing.T, s store.Store) {
	r := Record("5", 0, alert.Opened)
	id := notify.IDOf(r)
	var to []notify.Endpoint
	for _, name := range []string{"a", "b", "c", "d"} {
		to = append(to, endpoint(name))
	}
	tell(t, s, noon, to, r, Record("6", 0, alert.Opened))
	summary := func(what string, want store.Summary) {
		t.Helper()
		equal(t, what, get(t, s, r.ID).Delivery, want)
		for _, a := range all(t, s, store.Filter{User: "5"}) {
			equal(t, what+", in the list", a.Delivery, want)
		}
	}
	summary("nothing tried", store.Summary{State: store.Pending})
	record(t, s, id, "a", notify.Delivered, true)
	record(t, s, id, "b", notify.Exhausted, true)
	record(t, s, id, "c", notify.Gone, true)
	summary("one pending", store.Summary{State: store.Pending, Attempts: 3})
	record(t, s, id, "d", notify.Throttled, false)
	record(t, s, id, "d", notify.Delivered, true)
	summary("one exhausted", store.Summary{State: store.Exhausted, Attempts: 5})
	if _, err := s.Resend(t.Context(), noon, store.DeliveryFilter{WebhookID: id, Endpoint: "b"}); err != nil {
		t.Fatal(err)
	}
	summary("sent again", store.Summary{State: store.Pending, Attempts: 5})
	record(t, s, id, "b", notify.Delivered, true)
	summary("one disabled", store.Summary{State: store.Disabled, Attempts: 6})
	if _, err := s.Resend(t.Context(), noon, store.DeliveryFilter{WebhookID: id, Endpoint: "c"}); err != nil {
		t.Fatal(err)
	}
	record(t, s, id, "c", notify.Delivered, true)
	summary("all delivered", store.Summary{State: store.Delivered, Attempts: 7})
	equal(t, "the other alert", get(t, s, Record("6", 0, alert.Opened).ID).Delivery, store.Summary{State: store.Pending})

	// Both messages of an alert in one digest: it is what there is to tell, and its tries are those there were.
	few := notify.Endpoint{Name: "few", DigestAbove: 1}
	held := []alert.Record{Record("8", 0, alert.Opened), Record("8", 0, alert.Closed)}
	tell(t, s, noon, []notify.Endpoint{few}, Record("7", 0, alert.Opened), held[0], held[1])
	equal(t, "held", get(t, s, held[0].ID).Delivery, store.Summary{State: store.Pending})
	digest := delivery(t, s, notify.IDOf(held[0]), "few").Digest
	record(t, s, digest, "few", notify.Failed, true)
	equal(t, "held, tried once", get(t, s, held[0].ID).Delivery, store.Summary{State: store.Pending, Attempts: 1})
	record(t, s, digest, "few", notify.Exhausted, true)
	equal(t, "held, exhausted", get(t, s, held[0].ID).Delivery, store.Summary{State: store.Exhausted, Attempts: 2})
}
