package storetest

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
)

// addTest adds a test that is not refused.
func addTest(t *testing.T, s store.Store, now time.Time, name string) store.Delivery {
	t.Helper()
	d, err := s.AddTest(t.Context(), now, name)
	if err != nil {
		t.Fatalf("AddTest: %v", err)
	}
	return d
}

// noTest checks that a test is refused, and that the error says why.
func noTest(t *testing.T, s store.Store, name, says string) {
	t.Helper()
	if d, err := s.AddTest(t.Context(), noon, name); !errors.Is(err, store.ErrNoTest) || !strings.Contains(err.Error(), says) {
		t.Errorf("AddTest(%q): %+v, %v", name, d, err)
	}
}

// configured has a process that delivers say that it has endpoints.
func configured(t *testing.T, s store.Store, names ...string) {
	t.Helper()
	all := make(map[string]store.EndpointConfig)
	for _, name := range names {
		all[name] = store.EndpointConfig{Host: "https://h.example"}
	}
	if err := s.Configure(t.Context(), noon, all); err != nil {
		t.Fatal(err)
	}
}

func testAddTest(t *testing.T, s store.Store) {
	noTest(t, s, "a", `no spate alert process has an endpoint "a"`)
	noTest(t, s, "a\x00", "no spate alert process has an endpoint")
	if err := s.SetEnabled(t.Context(), noon, "a", false, ""); err != nil {
		t.Fatal(err)
	}
	noTest(t, s, "a", "no spate alert process has an endpoint")
	configured(t, s, "a", "b")
	noTest(t, s, "a", "endpoint a is disabled; enable it first")
	if err := s.SetEnabled(t.Context(), noon, "a", true, ""); err != nil {
		t.Fatal(err)
	}
	if got := deliveries(t, s, store.DeliveryFilter{}); len(got) > 0 {
		t.Errorf("tests that were refused: %+v", got)
	}

	now := time.Now()
	d := addTest(t, s, now, "a")
	at := time.UnixMilli(now.UnixMilli()).UTC()
	want := store.Delivery{WebhookID: d.WebhookID, Endpoint: "a", Type: notify.TypeTest, State: store.Pending, CreatedAt: at, BegunAt: at, NextAt: at, Data: d.Data}
	equal(t, "returned", d, want)
	equal(t, "stored", delivery(t, s, d.WebhookID, "a"), want)
	equal(t, "listed", deliveries(t, s, store.DeliveryFilter{States: []store.DeliveryState{store.Pending}}), []store.Delivery{want})
	if !strings.HasPrefix(d.WebhookID, "test_") || !strings.Contains(string(d.Data), `"endpoint":"a"`) {
		t.Errorf("%+v", d)
	}
	noTest(t, s, "a", "is already queued but has not been attempted yet")
	other := addTest(t, s, now, "b") // each endpoint has its own
	if other.WebhookID == d.WebhookID {
		t.Errorf("two tests have the id %s", d.WebhookID)
	}
	if got := due(t, s, "a"); !slices.Equal(got, []string{d.WebhookID}) {
		t.Errorf("due: %v", got)
	}

	// One that failed waits for its next try. It is resent like any other, and settled like any other.
	next := time.Now().Add(time.Hour).Truncate(time.Second)
	if _, err := s.Record(t.Context(), store.Try{WebhookID: d.WebhookID, Endpoint: "a", At: now, Status: 500, Outcome: notify.Failed, Reason: "status 500", NextAt: next}, true); err != nil {
		t.Fatal(err)
	}
	noTest(t, s, "a", "its next attempt is due at "+next.UTC().Format(time.RFC3339)+"; to send it now, resend the message "+d.WebhookID)
	if n, err := s.Resend(t.Context(), time.Now(), store.DeliveryFilter{WebhookID: d.WebhookID, Endpoint: "a"}); n != 1 || err != nil {
		t.Errorf("Resend: %d, %v", n, err)
	}
	if got := due(t, s, "a"); !slices.Equal(got, []string{d.WebhookID}) {
		t.Errorf("due after Resend: %v", got)
	}
	if state := record(t, s, d.WebhookID, "a", notify.Delivered, true); state != store.Delivered {
		t.Errorf("state %s", state)
	}
	equal(t, "tries", len(tries(t, s, store.TryFilter{WebhookID: d.WebhookID})), 2)
	second := addTest(t, s, now, "a")
	if second.WebhookID == d.WebhookID {
		t.Errorf("two tests have the id %s", d.WebhookID)
	}
	if state := record(t, s, second.WebhookID, "a", notify.Exhausted, true); state != store.Exhausted {
		t.Errorf("state %s", state)
	}
	equal(t, "first test", delivery(t, s, d.WebhookID, "a").State, store.Delivered)
	for _, e := range endpoints(t, s) {
		if e.Name == "a" && e.Exhausted != 1 || e.Name == "b" && e.Pending != 1 {
			t.Errorf("%+v", e)
		}
	}
	// That a test was disabled with its endpoint does not stand in the way of the next one.
	third := addTest(t, s, now, "a")
	if err := s.Disable(t.Context(), third.WebhookID, "a"); err != nil {
		t.Fatal(err)
	}
	addTest(t, s, now, "a")
	// A test is not a message about an alert.
	r := Record("5", 0, alert.Opened)
	tell(t, s, noon, []notify.Endpoint{endpoint("c")}, r)
	equal(t, "delivery of the alert", get(t, s, r.ID).Delivery, store.Summary{State: store.Pending})
}

func testAddTestConcurrent(t *testing.T, s store.Store) {
	configured(t, s, "a", "b")
	var mu sync.Mutex
	var wg sync.WaitGroup
	added := map[string]int{}
	for range 8 {
		for _, name := range []string{"a", "b"} {
			wg.Go(func() {
				_, err := s.AddTest(t.Context(), time.Now(), name)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					added[name]++
				} else if !errors.Is(err, store.ErrNoTest) {
					t.Errorf("AddTest: %v", err)
				}
			})
		}
	}
	wg.Wait()
	equal(t, "added", added, map[string]int{"a": 1, "b": 1})
	equal(t, "stored", len(deliveries(t, s, store.DeliveryFilter{})), 2)
}
