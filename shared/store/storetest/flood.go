package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
)

func testFlood(t *testing.T, s store.Store) {
	to := []notify.Endpoint{{Name: "few", Filter: notify.Alerts(), DigestAbove: 3}, {Name: "all", Filter: notify.Alerts()}}
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
	tell(t, s, now, []notify.Endpoint{{Name: "later", Filter: notify.Alerts(), DigestAbove: 1}}, some(3, alert.Warning)...)
	if got := due(t, s, "later"); len(got) > 1 || slices.Contains(got, fmt.Sprintf("digest_later_%d", now.Truncate(time.Minute).Unix())) {
		t.Errorf("due already: %v", got)
	}
}

func testFloodConcurrent(t *testing.T, s store.Store) {
	const workers, batches, size, limit = 4, 10, 7, 25
	to := notify.Endpoint{Name: "few", Filter: notify.Alerts(), DigestAbove: limit}
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
func names(held iter.Seq2[notify.Held, error]) (json.RawMessage, error) {
	ids := []string{}
	for r, err := range held {
		if err != nil {
			return nil, err
		}
		ids = append(ids, notify.IDOf(*r.Alert))
	}
	return json.Marshal(ids)
}

func testSeal(t *testing.T, s store.Store) {
	to := []notify.Endpoint{{Name: "few", Filter: notify.Alerts(), DigestAbove: 1}, {Name: "fewer", Filter: notify.Alerts(), DigestAbove: 1}}
	both := []alert.Record{Record(`"<b>"`, 0, alert.Opened), Record(`"<b>"`, 0, alert.Closed)}
	last := Record("6", 0, alert.Opened)
	tell(t, s, noon, to, Record("1", 0, alert.Opened), both[0], both[1])
	tell(t, s, noon, to, last)
	tell(t, s, noon, to, Record("6", 0, alert.Closed))
	id := delivery(t, s, notify.IDOf(last), "few").Digest

	broken := errors.New("broken")
	if _, err := s.Seal(t.Context(), id, "few", func(iter.Seq2[notify.Held, error]) (json.RawMessage, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Fatalf("Seal that fails: %v", err)
	}
	if d := delivery(t, s, id, "few"); d.Data != nil {
		t.Fatalf("after it failed: %+v", d)
	}
	// It may look at a part only.
	for range 2 {
		if _, err := s.Seal(t.Context(), id, "few", func(held iter.Seq2[notify.Held, error]) (json.RawMessage, error) {
			for _, err := range held {
				return nil, errors.Join(broken, err)
			}
			return nil, errors.New("nothing is held")
		}); !errors.Is(err, broken) {
			t.Fatalf("Seal that fails: %v", err)
		}
	}
	var got []alert.Record
	d, err := s.Seal(t.Context(), id, "few", func(held iter.Seq2[notify.Held, error]) (json.RawMessage, error) {
		for r, err := range held {
			if err != nil {
				return nil, err
			}
			got = append(got, *r.Alert)
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
	to := notify.Endpoint{Name: "few", Filter: notify.Alerts(), DigestAbove: 1}
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
}

// Both messages of an alert in one digest: it is what there is to tell, and its tries are those there were.
func testSummaryHeld(t *testing.T, s store.Store) {
	few := notify.Endpoint{Name: "few", Filter: notify.Alerts(), DigestAbove: 1}
	held := []alert.Record{Record("8", 0, alert.Opened), Record("8", 0, alert.Closed)}
	tell(t, s, noon, []notify.Endpoint{few}, Record("7", 0, alert.Opened), held[0], held[1])
	equal(t, "held", get(t, s, held[0].ID).Delivery, store.Summary{State: store.Pending})
	digest := delivery(t, s, notify.IDOf(held[0]), "few").Digest
	record(t, s, digest, "few", notify.Failed, true)
	equal(t, "held, tried once", get(t, s, held[0].ID).Delivery, store.Summary{State: store.Pending, Attempts: 1})
	record(t, s, digest, "few", notify.Exhausted, true)
	equal(t, "held, exhausted", get(t, s, held[0].ID).Delivery, store.Summary{State: store.Exhausted, Attempts: 2})
}
