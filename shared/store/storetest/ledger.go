package storetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
)

func testRecord(t *testing.T, s store.Store) {
	next := noon.Add(5 * time.Second)
	cut := func(at time.Time) time.Time { return at.Truncate(time.Millisecond) }
	for i, c := range []struct {
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
		r := Record("5", i, alert.Opened)
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
	tell(t, s, time.Now(), []notify.Endpoint{endpoint("a")}, records...)
	equal(t, "jobs", len(due(t, s, "a")), 4)
	for id, o := range outcomes {
		record(t, s, id+"_opened", "a", notify.Throttled, false)
		record(t, s, id+"_opened", "a", o, true)
	}
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
}

// What is held, or goes with a digest whose minute has not ended, is not sent again.
func testResendHeld(t *testing.T, s store.Store) {
	var records []alert.Record
	for _, id := range []string{"1", "2", "3", "4"} {
		r := Record(id, 0, alert.Opened)
		r.ID = id
		records = append(records, r)
	}
	tell(t, s, time.Now(), []notify.Endpoint{{Name: "few", Filter: notify.Alerts(), DigestAbove: 1}}, records...)
	before := deliveries(t, s, store.DeliveryFilter{Endpoint: "few"})
	if n, err := s.Resend(t.Context(), time.Now(), store.DeliveryFilter{}); n != 0 || err != nil {
		t.Fatalf("Resend: %d, %v", n, err)
	}
	equal(t, "pending and held", deliveries(t, s, store.DeliveryFilter{Endpoint: "few"}), before)
	equal(t, "jobs", due(t, s, "few"), []string{"1_opened"})
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

	one := store.EndpointConfig{Host: "https://h.example", Rules: []string{alert.Burst}, MinSeverity: alert.Critical, Transitions: []alert.State{alert.Opened}, Rate: 0.5, DigestAbove: 9}
	for i, c := range []store.EndpointConfig{{Host: "https://before.example"}, one} {
		if err := s.Configure(t.Context(), noon.Add(time.Duration(i)*time.Hour), map[string]store.EndpointConfig{"a": c, "c": {}}); err != nil {
			t.Fatalf("Configure: %v", err)
		}
	}
	later := first.Add(time.Hour)
	equal(t, "configured", endpoints(t, s), []store.EndpointState{
		{Name: "a", DisabledAt: later, Reason: "third", Pending: 7, Config: &one, ConfiguredAt: later},
		{Name: "b", Pending: 3, Exhausted: 2, Dropped: 1},
		{Name: "c", Config: &store.EndpointConfig{}, ConfiguredAt: later},
	})
	set(noon.Add(3*time.Hour), "c", false, "fourth")
	equal(t, "disabled, and configured", endpoints(t, s)[2], store.EndpointState{Name: "c", DisabledAt: first.Add(3 * time.Hour), Reason: "fourth", Config: &store.EndpointConfig{}, ConfiguredAt: later})
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
