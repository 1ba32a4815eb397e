package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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

// endpoint is notified of everything.
func endpoint(name string) notify.Endpoint {
	return notify.Endpoint{Name: name, Filter: notify.Alerts()}
}

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
		"all":      notify.Alerts(),
		"rule":     {Rules: []string{"none", "other"}, Transitions: alert.States()},
		"critical": {MinSeverity: alert.Critical, Transitions: alert.States()},
		"warning":  {MinSeverity: alert.Warning, Transitions: alert.States()},
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
