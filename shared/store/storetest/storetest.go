// Package storetest is the conformance suite of package store, which every adapter has to pass, whatever its database. An adapter runs
// it with
//
//	storetest.Run(t, func(t *testing.T) func() store.Store { ... })
package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/store"
)

const size = 10 * time.Second

var (
	// midnight is when the windows of the tests begin.
	midnight = time.Date(2019, 11, 1, 0, 0, 0, 0, time.UTC)
	// noon is when the stores of the tests hear of alerts; finer than a store keeps.
	noon = time.Date(2026, 9, 1, 12, 0, 0, 7_654_321, time.UTC)
)

// untold is the delivery of an alert that nobody is notified of.
var untold = store.Summary{State: store.None}

// Run runs the suite. empty makes an empty database and returns what opens it, as a process does that starts; the suite closes what it
// opens.
func Run(t *testing.T, empty func(t *testing.T) (open func() store.Store)) {
	run(t, empty, []test{
		{"Empty", testEmpty},
		{"MovesForward", testMovesForward},
		{"ClosedFirst", testClosedFirst},
		{"RepeatsChangeNothing", testRepeats},
		{"ConflictKeepsTheFirst", testConflict},
		{"InvalidDoesNotStopOthers", testInvalid},
		{"AllOrNothing", testAtomic},
		{"AnyOrderSameState", testOrders},
		{"AnyRule", testAnyRule},
		{"AnyRuleFlood", testAnyRuleFlood},
		{"AnyRuleInvalid", testAnyRuleInvalid},
		{"Concurrent", testConcurrent},
		{"Filter", testFilter},
		{"UsersKeepTheirType", testUsers},
		{"Milliseconds", testTimes},
		{"LargeEvidence", testEvidence},
		{"LoopMayUseTheStore", testLoop},
		{"CanceledLoop", testCanceled},
		{"OutboxAllOrNothing", testOutboxAtomic},
		{"ResendHeld", testResendHeld},
		{"Flood", testFlood},
		{"FloodConcurrent", testFloodConcurrent},
		{"Seal", testSeal},
		{"SealConcurrent", testSealConcurrent},
		{"SummaryHeld", testSummaryHeld},
		{"Incidents", testIncidents},
		{"IncidentTold", testIncidentTold},
		{"IncidentEscalatesAndEnds", testIncidentLife},
		{"IncidentsAnyBatches", testIncidentsAnyBatches},
		{"IncidentsConcurrent", testIncidentsConcurrent},
		{"IncidentFilter", testIncidentFilter},
		{"IncidentMark", testIncidentMark},
		{"IncidentDigest", testIncidentDigest},
		{"IncidentOfAnyRule", testIncidentOfAnyRule},
		{"Silences", testSilences},
	})
	RunDeliveries(t, empty)
}

// RunDeliveries runs the part of the suite that is about deliveries, without flood control: for an adapter that decides only when a message is due whether it is sent alone.
// It calls Apply, Resolve, Alert, Alerts, and the methods of store.Deliveries.
func RunDeliveries(t *testing.T, empty func(t *testing.T) (open func() store.Store)) {
	run(t, empty, []test{
		{"Outbox", testOutbox},
		{"OutboxFilters", testOutboxFilters},
		{"DataStays", testData},
		{"Work", testWork},
		{"WorkLater", testWorkLater},
		{"WorkAfterAnError", testWorkError},
		{"WorkEnds", testWorkEnds},
		{"WorkFindsNewAlerts", testWorkNew},
		{"Record", testRecord},
		{"RecordNeedsADelivery", testNoDelivery},
		{"ListDeliveries", testListDeliveries},
		{"ListTries", testListTries},
		{"ListMany", testListMany},
		{"Resend", testResend},
		{"ResendAtTheLastMoment", testResendRace},
		{"ResendSupersedes", testResendSupersedes},
		{"Endpoints", testEndpoints},
		{"AddTest", testAddTest},
		{"AddTestConcurrent", testAddTestConcurrent},
		{"Ref", testRef},
		{"Summary", testSummary},
	})
	for _, c := range []struct {
		name string
		test func(*testing.T, func() store.Store)
	}{
		{"WorkAfterACrash", testWorkAgain},
		{"WorkByTwo", testWorkByTwo},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, empty(t)) })
	}
}

type test struct {
	name string
	test func(*testing.T, store.Store)
}

func run(t *testing.T, empty func(t *testing.T) (open func() store.Store), tests []test) {
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			c.test(t, start(t, empty(t)))
		})
	}
}

// start returns a store that is closed when the test ends.
func start(t *testing.T, open func() store.Store) store.Store {
	s := open()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// Record returns an alert of a user, who is a JSON token, in the n-th window: opened at 6 events, raised at 11, or closed with 9.
func Record(user string, n int, state alert.State) alert.Record {
	start := midnight.Add(time.Duration(n) * size)
	r := alert.Record{
		ID: alert.ID(alert.Burst, user, start.UnixMilli(), size.Milliseconds()), Rule: alert.Burst, State: state, Severity: alert.Warning,
		UserID: json.RawMessage(user), Count: 6, Threshold: 5, WindowStart: start, WindowEnd: start.Add(size),
		FirstEventAt: start.Add(12 * time.Millisecond), LastEventAt: start.Add(1234 * time.Millisecond),
		Evidence: alert.Evidence{Topic: "activity", Partitions: map[string]alert.OffsetRange{"3": {First: 1200, Last: 1311}}},
	}
	if state == alert.Raised {
		r.Count, r.Severity = 11, alert.Critical
	}
	if state == alert.Closed {
		r.Count, r.LastEventAt = 9, start.Add(9999*time.Millisecond)
		r.Evidence.Partitions = map[string]alert.OffsetRange{"3": {First: 1200, Last: 1400}, "0": {First: 7, Last: 7}}
	}
	return r
}

// apply fails the test on an error or a rejection.
func apply(t *testing.T, s store.Store, now time.Time, records ...alert.Record) []bool {
	t.Helper()
	got, err := s.Apply(t.Context(), now, records)
	if err != nil {
		t.Fatalf("Apply: %v", err)
	}
	if len(got.Rejected) > 0 {
		t.Fatalf("Apply: rejected: %v", got.Rejected)
	}
	return got.Changed
}

func get(t *testing.T, s store.Store, id string) store.Alert {
	t.Helper()
	a, err := s.Alert(t.Context(), id)
	if err != nil {
		t.Fatalf("Alert: %v", err)
	}
	return a
}

func all(t *testing.T, s store.Store, f store.Filter) []store.Alert {
	t.Helper()
	var out []store.Alert
	for a, err := range s.Alerts(t.Context(), f) {
		if err != nil {
			t.Fatalf("Alerts: %v", err)
		}
		out = append(out, a)
	}
	return out
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

func counts(t *testing.T, s store.Store, opened, closed int64) {
	t.Helper()
	got, err := s.Count(t.Context())
	if err != nil {
		t.Fatalf("Count: %v", err)
	}
	equal(t, "Count", got, store.Counts{Opened: opened, Closed: closed})
}

func testEmpty(t *testing.T, s store.Store) {
	if _, err := s.Alert(t.Context(), "none"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Alert: %v, want ErrNotFound", err)
	}
	if got := all(t, s, store.Filter{}); len(got) != 0 {
		t.Errorf("Alerts: %v", got)
	}
	if got := apply(t, s, noon); len(got) != 0 {
		t.Errorf("Apply of nothing: %v", got)
	}
	counts(t, s, 0, 0)
}

func testMovesForward(t *testing.T, s store.Store) {
	opened, closed := Record("5", 0, alert.Opened), Record("5", 0, alert.Closed)
	equal(t, "Changed", apply(t, s, noon, opened), []bool{true})
	counts(t, s, 1, 0)
	heard := noon.Truncate(time.Millisecond)
	equal(t, "opened", get(t, s, opened.ID), store.Alert{Record: opened, OpenedAt: heard, Incident: incidentOf(opened), Delivery: untold})

	equal(t, "Changed", apply(t, s, noon.Add(time.Minute), closed), []bool{true})
	counts(t, s, 0, 1)
	equal(t, "closed", get(t, s, opened.ID), store.Alert{Record: closed, OpenedAt: heard, ClosedAt: heard.Add(time.Minute), Incident: incidentOf(opened), Delivery: untold})

	// Both in one batch are two changes.
	equal(t, "Changed", apply(t, s, noon, Record("6", 0, alert.Opened), Record("6", 0, alert.Closed)), []bool{true, true})
	counts(t, s, 0, 2)
}

func testClosedFirst(t *testing.T, s store.Store) {
	opened, closed := Record("5", 0, alert.Opened), Record("5", 0, alert.Closed)
	equal(t, "Changed", apply(t, s, noon, closed, opened), []bool{true, false})
	heard := noon.Truncate(time.Millisecond)
	want := store.Alert{Record: closed, OpenedAt: heard, ClosedAt: heard, Incident: incidentOf(closed), Delivery: untold}
	equal(t, "closed", get(t, s, closed.ID), want)
	equal(t, "Changed", apply(t, s, noon.Add(time.Hour), opened), []bool{false})
	equal(t, "after opened", get(t, s, closed.ID), want)
}

func testRepeats(t *testing.T, s store.Store) {
	opened, closed := Record("5", 0, alert.Opened), Record("5", 0, alert.Closed)
	apply(t, s, noon, opened)
	before := get(t, s, opened.ID)
	// A window may be known to have more events when its opening is told again; the first telling stays.
	again := opened
	again.Count, again.Severity = 8, alert.Critical
	equal(t, "Changed", apply(t, s, noon.Add(time.Hour), opened, again), []bool{false, false})
	equal(t, "opened", get(t, s, opened.ID), before)

	apply(t, s, noon.Add(time.Minute), closed)
	before = get(t, s, opened.ID)
	equal(t, "Changed", apply(t, s, noon.Add(time.Hour), closed, opened, closed), []bool{false, false, false})
	equal(t, "closed", get(t, s, opened.ID), before)
}

func testConflict(t *testing.T, s store.Store) {
	closed := Record("5", 0, alert.Closed)
	apply(t, s, noon, closed, Record("6", 0, alert.Opened))
	before := get(t, s, closed.ID)

	other := closed
	other.Count = 12345
	stranger := Record("7", 0, alert.Closed) // under the id of another's alert
	stranger.ID = Record("6", 0, alert.Opened).ID
	fresh := Record("8", 0, alert.Opened)
	got, err := s.Apply(t.Context(), noon.Add(time.Hour), []alert.Record{other, stranger, fresh})
	if err != nil {
		t.Fatalf("a conflict failed the batch: %v", err)
	}
	equal(t, "Changed", got.Changed, []bool{false, false, true})
	if len(got.Rejected) != 2 || got.Rejected[0].Index != 0 || got.Rejected[1].Index != 1 {
		t.Fatalf("Rejected: %v", got.Rejected)
	}
	for _, r := range got.Rejected {
		if !errors.Is(r.Err, store.ErrConflict) {
			t.Errorf("%v is not ErrConflict", r.Err)
		}
	}
	for _, part := range []string{closed.ID, "9", "12345"} {
		if msg := got.Rejected[0].Err.Error(); !strings.Contains(msg, part) {
			t.Errorf("%q does not name %q", msg, part)
		}
	}
	equal(t, "after a conflict", get(t, s, closed.ID), before)
	if a := get(t, s, stranger.ID); a.State != alert.Opened || string(a.UserID) != "6" {
		t.Errorf("another user's record moved the alert: %+v", a)
	}
}

func testInvalid(t *testing.T, s store.Store) {
	broken := map[string]func(*alert.Record){
		"no id":            func(r *alert.Record) { r.ID = "" },
		"long id":          func(r *alert.Record) { r.ID = strings.Repeat("x", 1001) },
		"zero byte in id":  func(r *alert.Record) { r.ID += "\x00" },
		"no rule":          func(r *alert.Record) { r.Rule = "" },
		"no UTF-8":         func(r *alert.Record) { r.Rule = "\xff" },
		"state":            func(r *alert.Record) { r.State = "half" },
		"severity":         func(r *alert.Record) { r.Severity = "" },
		"no user":          func(r *alert.Record) { r.UserID = nil },
		"user null":        func(r *alert.Record) { r.UserID = json.RawMessage("null") },
		"user object":      func(r *alert.Record) { r.UserID = json.RawMessage("{}") },
		"user no JSON":     func(r *alert.Record) { r.UserID = json.RawMessage("5x") },
		"count":            func(r *alert.Record) { r.Count = 0 },
		"threshold":        func(r *alert.Record) { r.Threshold = -1 },
		"window backwards": func(r *alert.Record) { r.WindowEnd = r.WindowStart },
		"topic":            func(r *alert.Record) { r.Evidence.Topic = "a\x00" },
	}
	var records []alert.Record
	var names []string
	for name, spoil := range broken {
		r := Record("5", 0, alert.Closed)
		spoil(&r)
		records, names = append(records, r), append(names, name)
	}
	good := Record("6", 0, alert.Opened)
	got, err := s.Apply(t.Context(), noon, append(records, good))
	if err != nil {
		t.Fatalf("an invalid record failed the batch: %v", err)
	}
	if !got.Changed[len(records)] {
		t.Error("the good record changed nothing")
	}
	rejected := map[int]error{}
	for _, r := range got.Rejected {
		rejected[r.Index] = r.Err
	}
	for i, name := range names {
		if !errors.Is(rejected[i], store.ErrInvalid) || got.Changed[i] {
			t.Errorf("%s: changed %v, error %v", name, got.Changed[i], rejected[i])
		}
	}
	counts(t, s, 1, 0)
}

func testAtomic(t *testing.T, s store.Store) {
	apply(t, s, noon, Record("1", 0, alert.Opened))
	batch := []alert.Record{Record("1", 0, alert.Closed)}
	for n := range 20_000 {
		batch = append(batch, Record("2", n, alert.Opened))
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Apply(canceled, noon, batch); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply after the end of its context: %v", err)
	}
	counts(t, s, 1, 0)

	// Ends in the midst of the batch, most probably; whenever it does, all or nothing is there.
	short, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	_, err := s.Apply(short, noon, batch)
	c, cerr := s.Count(t.Context())
	if cerr != nil {
		t.Fatalf("Count: %v", cerr)
	}
	whole := store.Counts{Opened: 20_000, Closed: 1}
	if none := (store.Counts{Opened: 1}); c != none && c != whole || err == nil && c != whole {
		t.Fatalf("a part of a batch is there: %+v; Apply: %v", c, err)
	}
	apply(t, s, noon, batch...)
	counts(t, s, 20_000, 1)
}

func testOrders(t *testing.T, s store.Store) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 60 {
		// Some alerts with some of their records, each some times, shuffled, cut into batches. The final state follows from the set.
		want := map[string]alert.Record{}
		var records []alert.Record
		for n := range 1 + rng.IntN(4) {
			user := fmt.Sprint(round)
			for _, state := range alert.States() {
				r := Record(user, n, state)
				for range rng.IntN(4) {
					records = append(records, r)
					if w, ok := want[r.ID]; !ok || w.State.Rank() < state.Rank() {
						want[r.ID] = r
					}
				}
			}
		}
		rng.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		moves := map[string]int{}
		for rest := records; len(rest) > 0; {
			n := 1 + rng.IntN(len(rest))
			rank := map[string]int{}
			for i, changed := range apply(t, s, noon.Add(time.Duration(round)*time.Second), rest[:n]...) {
				if r := rest[i]; changed {
					moves[r.ID]++
					if r.State.Rank() <= rank[r.ID] {
						t.Fatalf("round %d: %s changed by %s after a higher state", round, r.ID, r.State)
					}
					rank[r.ID] = r.State.Rank()
				}
			}
			rest = rest[n:]
		}
		for id, w := range want {
			equal(t, fmt.Sprintf("round %d: %s", round, id), get(t, s, id).Record, w)
			if moves[id] < 1 || moves[id] > w.State.Rank() {
				t.Fatalf("round %d: %s changed %d times", round, id, moves[id])
			}
		}
	}
}

func testConcurrent(t *testing.T, s store.Store) {
	const workers, windows = 8, 200
	var records []alert.Record
	for n := range windows {
		for _, state := range alert.States() {
			records = append(records, Record("5", n, state))
		}
	}
	var mu sync.Mutex
	changes := map[string]int{}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			mine := slices.Clone(records)
			rng.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
			for batch := range slices.Chunk(mine, 37) {
				got, err := s.Apply(t.Context(), noon, batch)
				if err != nil || len(got.Rejected) > 0 {
					t.Errorf("worker %d: %v %v", w, err, got.Rejected)
					return
				}
				mu.Lock()
				for i, changed := range got.Changed {
					if changed {
						changes[batch[i].ID+string(batch[i].State)]++
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	counts(t, s, 0, windows)
	for key, n := range changes {
		if n != 1 {
			t.Errorf("%s changed %d times", key, n)
		}
	}
	for n := range windows {
		if changes[Record("5", n, alert.Closed).ID+"closed"] != 1 {
			t.Errorf("window %d: nobody closed it", n)
		}
	}
}
