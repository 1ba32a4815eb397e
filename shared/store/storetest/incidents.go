package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/store"
)

// people is an endpoint that is told of incidents.
func people(name string) notify.Endpoint { return notify.Endpoint{Name: name} }

// incidentOf is the id of the incident that an alert opens.
func incidentOf(r alert.Record) string {
	return incident.ID(r.Rule, incident.KeyOf(&r), r.WindowStart, r.WindowEnd)
}

func incidents(t *testing.T, s store.Store, f store.IncidentFilter) []incident.Incident {
	t.Helper()
	var out []incident.Incident
	for i, err := range s.Incidents(t.Context(), f) {
		if err != nil {
			t.Fatalf("Incidents: %v", err)
		}
		out = append(out, i)
	}
	return out
}

// theIncident returns the only one.
func theIncident(t *testing.T, s store.Store) incident.Incident {
	t.Helper()
	list := incidents(t, s, store.IncidentFilter{})
	if len(list) != 1 {
		t.Fatalf("%d incidents: %+v", len(list), list)
	}
	return list[0]
}

// resolve ends what is over at an event time, and returns the ids of the messages.
func resolve(t *testing.T, s store.Store, now, upTo time.Time, to ...notify.Endpoint) []string {
	t.Helper()
	events, err := s.Resolve(t.Context(), now, upTo, 1000, to...)
	if err != nil {
		t.Fatalf("Resolve: %v", err)
	}
	var out []string
	for _, e := range events {
		out = append(out, e.ID())
	}
	return out
}

func window(n int) time.Time { return midnight.Add(time.Duration(n) * size) }

func testIncidents(t *testing.T, s store.Store) {
	heard := noon.Truncate(time.Millisecond)
	r := Record("5", 0, alert.Opened)
	r.Summary, r.Runbook = "first <&>", "https://a.example"
	apply(t, s, noon, r)
	want := incident.Incident{
		ID: incidentOf(r), Rule: alert.Burst, State: incident.StateOpen, Severity: alert.Warning, Summary: "first <&>", Runbook: "https://a.example", Key: json.RawMessage(`{"user_id":5}`),
		OpenedAt: heard, FirstWindowStart: window(0), LastWindowEnd: window(1), Windows: 1, Events: 6, Peak: 6, AlertID: r.ID, Told: alert.Warning, Quiet: time.Minute, Longest: size,
	}
	equal(t, "opened", theIncident(t, s), want)

	// The next windows, of which one is closed only, an hour later; the same user as text is another one.
	next := Record("5", 3, alert.Closed)
	next.Summary = "then"
	apply(t, s, noon.Add(time.Hour), Record("5", 0, alert.Closed), next, next)
	want.Summary, want.Runbook, want.LastWindowEnd, want.Windows, want.Events, want.Peak = "then", "", window(4), 2, 18, 9
	equal(t, "two windows", theIncident(t, s), want)
	apply(t, s, noon, Record(`"5"`, 0, alert.Opened))
	if list := incidents(t, s, store.IncidentFilter{}); len(list) != 2 {
		t.Fatalf("%+v", list)
	}
	for _, a := range all(t, s, store.Filter{User: "5"}) {
		if a.Incident != want.ID {
			t.Errorf("alert of %v is part of %q", a.WindowStart, a.Incident)
		}
	}
	of, err := s.IncidentsOf(t.Context(), []string{r.ID, next.ID, "none"})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "IncidentsOf", of, map[string]string{r.ID: want.ID, next.ID: want.ID})
	equal(t, "alerts of the incident", len(all(t, s, store.Filter{Incident: want.ID})), 2)

	// It is over when nothing more can belong to it: the window that begins a minute after its last one has ended.
	over := window(4).Add(time.Minute + size)
	equal(t, "too early", resolve(t, s, noon, window(1).Add(time.Minute+size-time.Millisecond)), []string(nil))
	ended := noon.Add(2 * time.Hour)
	both := []string{incidentOf(Record(`"5"`, 0, alert.Opened)) + "_resolved", want.ID + "_resolved"}
	slices.Sort(both)
	equal(t, "resolved", slices.Sorted(slices.Values(resolve(t, s, ended, over))), both)
	equal(t, "again", resolve(t, s, ended.Add(time.Hour), over), []string(nil))
	want.State, want.ResolvedAt = incident.StateResolved, ended.Truncate(time.Millisecond)
	equal(t, "resolved", incidents(t, s, store.IncidentFilter{ID: want.ID})[0], want)

	// What is known later of one of its windows is added; a further window opens another incident.
	apply(t, s, noon, Record("5", 2, alert.Closed), Record("5", 4, alert.Opened))
	want.Windows, want.Events, want.Summary = 3, 27, ""
	equal(t, "late window", incidents(t, s, store.IncidentFilter{ID: want.ID})[0], want)
	equal(t, "open", incidents(t, s, store.IncidentFilter{State: incident.StateOpen, Key: `{"user_id":5}`})[0].FirstWindowStart, window(4))
}

func testIncidentTold(t *testing.T, s store.Store) {
	machine, all, pager := endpoint("machine"), people("all"), people("pager")
	pager.Filter.MinSeverity = alert.Critical
	opened, raised, closed := Record("5", 0, alert.Opened), Record("5", 0, alert.Raised), Record("5", 0, alert.Closed)
	closed.Severity, closed.Count = alert.Critical, 12
	tell(t, s, noon, []notify.Endpoint{machine, all, pager}, opened)
	tell(t, s, noon.Add(time.Second), []notify.Endpoint{machine, all, pager}, opened, raised)
	tell(t, s, noon.Add(2*time.Second), []notify.Endpoint{machine, all, pager}, closed, raised)
	tell(t, s, noon.Add(3*time.Second), []notify.Endpoint{machine, all, pager}, Record("5", 1, alert.Opened), Record("5", 1, alert.Closed))
	resolve(t, s, noon.Add(time.Hour), window(100), machine, all, pager)
	resolve(t, s, noon.Add(time.Hour), window(100), machine, all, pager)

	id := incidentOf(opened)
	got := map[string][]string{}
	for _, d := range deliveries(t, s, store.DeliveryFilter{Incident: id}) {
		got[d.Endpoint] = append(got[d.Endpoint], d.WebhookID+" "+d.Type)
		if d.AlertID != "" || d.State != store.Pending {
			t.Errorf("%+v", d)
		}
	}
	equal(t, "told of the incident", got, map[string][]string{
		"all":   {id + "_opened incident.opened", id + "_escalated_1 incident.escalated", id + "_resolved incident.resolved"},
		"pager": {id + "_escalated_1 incident.escalated", id + "_resolved incident.resolved"},
	})
	equal(t, "told of alerts", len(deliveries(t, s, store.DeliveryFilter{Endpoint: "machine"})), 5)

	// Each tells how it was then, and is about the alert, too.
	var data incident.Incident
	if err := json.Unmarshal(delivery(t, s, id+"_escalated_1", "pager").Data, &data); err != nil {
		t.Fatal(err)
	}
	if data.Events != 11 || data.Peak != 11 || data.Windows != 1 || data.Severity != alert.Critical || data.Escalations != 1 || data.State != incident.StateOpen {
		t.Errorf("escalated: %+v", data)
	}
	if err := json.Unmarshal(delivery(t, s, id+"_resolved", "all").Data, &data); err != nil {
		t.Fatal(err)
	}
	if data.Events != 21 || data.Windows != 2 || data.State != incident.StateResolved || !data.ResolvedAt.Equal(noon.Add(time.Hour).Truncate(time.Millisecond)) {
		t.Errorf("resolved: %+v", data)
	}
	record(t, s, id+"_opened", "all", notify.Exhausted, true)
	a := get(t, s, Record("5", 1, alert.Closed).ID)
	equal(t, "an alert's summary has the messages about its incident", a.Delivery, store.Summary{State: store.Pending, Attempts: 1})
}

func testIncidentLife(t *testing.T, s store.Store) {
	to := people("a")
	got, err := s.Apply(t.Context(), noon, []alert.Record{Record("5", 0, alert.Opened), Record("6", 0, alert.Opened), Record("5", 0, alert.Raised)}, to)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, e := range got.Events {
		ids = append(ids, e.ID())
	}
	five, six := incidentOf(Record("5", 0, alert.Opened)), incidentOf(Record("6", 0, alert.Opened))
	equal(t, "Events", ids, []string{five + "_opened", six + "_opened", five + "_escalated_1"})
	// At most so many at once.
	for range 2 {
		if events, err := s.Resolve(t.Context(), noon, window(1000), 1, to); err != nil || len(events) != 1 {
			t.Errorf("Resolve: %v, %v", events, err)
		}
	}
	equal(t, "nothing is left", resolve(t, s, noon, window(1000), to), []string(nil))
}

// story is the records of some users, in order for each, and what their incidents come to.
func story(r *rand.Rand, users int) (records []alert.Record, want map[string]string) {
	want = map[string]string{}
	for user := range users {
		name := fmt.Sprint(user)
		at, last := 0, -1000
		var first string
		var windows, events, peak int64
		flush := func() {
			if first != "" {
				want[first] = fmt.Sprintf("%d windows, %d events, peak %d, to %v", windows, events, peak, window(last+1).Format(time.TimeOnly))
			}
		}
		for range 1 + r.IntN(12) {
			at += 1 + r.IntN(10)
			closed := Record(name, at, alert.Closed)
			closed.Count = 6 + r.Int64N(10)
			if r.IntN(3) > 0 {
				records = append(records, Record(name, at, alert.Opened))
			}
			records = append(records, closed)
			if at-last > 7 { // more than six windows, a minute, between them
				flush()
				first, windows, events, peak = incidentOf(closed), 0, 0, 0
			}
			last, windows, events, peak = at, windows+1, events+closed.Count, max(peak, closed.Count)
		}
		flush()
	}
	// Users do not depend on each other.
	slices.SortStableFunc(records, func(a, b alert.Record) int { return a.WindowStart.Compare(b.WindowStart) })
	return records, want
}

func told(list []incident.Incident) map[string]string {
	got := map[string]string{}
	for _, i := range list {
		got[i.ID] = fmt.Sprintf("%d windows, %d events, peak %d, to %v", i.Windows, i.Events, i.Peak, i.LastWindowEnd.Format(time.TimeOnly))
	}
	return got
}

// Keeper is what keeps incidents, and tells an endpoint that is told of all of them. A store is one; whoever keeps them in another way passes the same
// stories with [RunIncidents].
type Keeper interface {
	// Apply hands it records, in order.
	Apply(ctx context.Context, now time.Time, records []alert.Record) error
	// Resolve ends what is over at an event time.
	Resolve(ctx context.Context, now, upTo time.Time) error
	Incidents(ctx context.Context, f store.IncidentFilter) iter.Seq2[incident.Incident, error]
	// Messages are how often each message was told, or is to be told, by its id.
	Messages(ctx context.Context) (map[string]int, error)
}

// RunIncidents runs the stories of incidents. empty makes a keeper that keeps nothing yet.
func RunIncidents(t *testing.T, empty func(t *testing.T) Keeper) {
	t.Run("AnyBatches", func(t *testing.T) { incidentsAnyBatches(t, empty(t)) })
	t.Run("Concurrent", func(t *testing.T) { incidentsConcurrent(t, empty(t)) })
}

// storeKeeper is a store as a Keeper.
type storeKeeper struct{ store.Store }

// Apply implements Keeper.
func (k storeKeeper) Apply(ctx context.Context, now time.Time, records []alert.Record) error {
	got, err := k.Store.Apply(ctx, now, records, people("a"))
	if err == nil && len(got.Rejected) > 0 {
		err = fmt.Errorf("rejected: %v", got.Rejected)
	}
	return err
}

// Resolve implements Keeper.
func (k storeKeeper) Resolve(ctx context.Context, now, upTo time.Time) error {
	_, err := k.Store.Resolve(ctx, now, upTo, 1000, people("a"))
	return err
}

// Messages implements Keeper.
func (k storeKeeper) Messages(ctx context.Context) (map[string]int, error) {
	out := map[string]int{}
	for d, err := range k.ListDeliveries(ctx, store.DeliveryFilter{}) {
		if err != nil {
			return nil, err
		}
		out[d.WebhookID]++
	}
	return out, nil
}

func testIncidentsAnyBatches(t *testing.T, s store.Store) { incidentsAnyBatches(t, storeKeeper{s}) }

func testIncidentsConcurrent(t *testing.T, s store.Store) { incidentsConcurrent(t, storeKeeper{s}) }

// incidentsAnyBatches: batches of any size, applied again after a crash, with incidents resolved as event time goes on.
func incidentsAnyBatches(t *testing.T, k Keeper) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	records, want := story(r, 20)
	over := func(at time.Time) {
		t.Helper()
		if err := k.Resolve(t.Context(), noon, at); err != nil {
			t.Fatalf("Resolve: %v", err)
		}
	}
	for at := 0; at < len(records); {
		n := min(1+r.IntN(40), len(records)-at)
		if err := k.Apply(t.Context(), noon, records[at:at+n]); err != nil {
			t.Fatalf("Apply: %v", err)
		}
		if r.IntN(3) == 0 {
			continue // a crash before the commit
		}
		at += n
		if at < len(records) && r.IntN(2) == 0 {
			over(records[at].WindowStart) // windows that end by then are stored
		}
	}
	over(window(1000))
	list := kept(t, k)
	equal(t, "incidents", told(list), want)
	messages, err := k.Messages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if i.State != incident.StateResolved || messages[i.ID+"_opened"] != 1 || messages[i.ID+"_resolved"] != 1 {
			t.Errorf("%s: %s, told %d and %d times", i.ID, i.State, messages[i.ID+"_opened"], messages[i.ID+"_resolved"])
		}
	}
}

func kept(t *testing.T, k Keeper) (out []incident.Incident) {
	t.Helper()
	for i, err := range k.Incidents(t.Context(), store.IncidentFilter{}) {
		if err != nil {
			t.Fatalf("Incidents: %v", err)
		}
		out = append(out, i)
	}
	return out
}

// incidentsConcurrent: several that read the same partition, all but one of which the group has taken it from.
func incidentsConcurrent(t *testing.T, k Keeper) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	records, want := story(rand.New(rand.NewPCG(seed, 2)), 15)
	var wg sync.WaitGroup
	for worker := range uint64(3) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, worker+3))
			for at := 0; at < len(records); {
				n := min(1+r.IntN(20), len(records)-at)
				if err := k.Apply(t.Context(), noon, records[at:at+n]); err != nil {
					t.Errorf("Apply: %v", err)
					return
				}
				at += n
			}
		})
	}
	wg.Wait()
	list := kept(t, k)
	equal(t, "incidents", told(list), want)
	messages, err := k.Messages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range messages {
		total += n
	}
	equal(t, "told", total, len(want)+escalations(list))
}

func escalations(list []incident.Incident) (n int) {
	for _, i := range list {
		n += i.Escalations
	}
	return n
}

func testIncidentFilter(t *testing.T, s store.Store) {
	raised := Record("6", 20, alert.Raised)
	apply(t, s, noon, Record("5", 0, alert.Closed), raised, Record("5", 30, alert.Closed))
	resolve(t, s, noon, window(20))
	if err := s.Mark(t.Context(), incidentOf(raised), incident.Marked{Mark: incident.Benign, At: noon.Truncate(time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	five, six, again := incidentOf(Record("5", 0, alert.Closed)), incidentOf(raised), incidentOf(Record("5", 30, alert.Closed))
	for _, c := range []struct {
		f    store.IncidentFilter
		want []string
	}{
		{store.IncidentFilter{}, []string{five, six, again}},
		{store.IncidentFilter{Newest: true}, []string{again, six, five}},
		{store.IncidentFilter{Limit: 2}, []string{five, six}},
		{store.IncidentFilter{ID: six[:9]}, []string{six}},
		{store.IncidentFilter{Key: `{"user_id":5}`}, []string{five, again}},
		{store.IncidentFilter{Key: `{"user_id":"5"}`}, nil},
		{store.IncidentFilter{Rule: "other"}, nil},
		{store.IncidentFilter{Rule: alert.Burst}, []string{five, six, again}},
		{store.IncidentFilter{State: incident.StateOpen}, []string{six, again}},
		{store.IncidentFilter{State: incident.StateResolved}, []string{five}},
		{store.IncidentFilter{MinSeverity: alert.Critical}, []string{six}},
		{store.IncidentFilter{MinSeverity: alert.Warning}, []string{five, six, again}},
		{store.IncidentFilter{Mark: incident.Benign}, []string{six}},
		{store.IncidentFilter{Mark: incident.Attack}, nil},
		{store.IncidentFilter{Since: window(1)}, []string{six, again}},
		{store.IncidentFilter{Since: window(1).Add(-time.Millisecond)}, []string{five, six, again}},
		{store.IncidentFilter{Until: window(30)}, []string{five, six}},
		{store.IncidentFilter{OpenedSince: noon.Truncate(time.Millisecond)}, []string{five, six, again}},
		{store.IncidentFilter{OpenedSince: noon.Add(time.Millisecond)}, nil},
		{store.IncidentFilter{Until: window(30).Add(time.Nanosecond)}, []string{five, six, again}},
	} {
		var got []string
		for _, i := range incidents(t, s, c.f) {
			got = append(got, i.ID)
		}
		equal(t, fmt.Sprintf("%+v", c.f), got, c.want)
	}
	for _, bad := range []store.IncidentFilter{{State: "closed"}, {MinSeverity: "bad"}, {Mark: "bad"}, {ID: "x"}, {Limit: -1}} {
		for _, err := range s.Incidents(t.Context(), bad) {
			if err == nil {
				t.Errorf("%+v is valid", bad)
			}
		}
	}
}

func testIncidentMark(t *testing.T, s store.Store) {
	r := Record("5", 0, alert.Opened)
	apply(t, s, noon, r)
	m := incident.Marked{Mark: incident.Attack, Note: "a bot\x00 <&>\n", By: "ana", At: noon.Truncate(time.Millisecond)}
	for _, mark := range []incident.Marked{{Mark: incident.Unsure, At: m.At}, m} {
		if err := s.Mark(t.Context(), incidentOf(r), mark); err != nil {
			t.Fatalf("Mark: %v", err)
		}
		equal(t, "mark", *theIncident(t, s).Marked, mark)
	}
	apply(t, s, noon, Record("5", 0, alert.Closed)) // it keeps the mark
	equal(t, "mark", theIncident(t, s).Marked, &m)
	if err := s.Mark(t.Context(), incidentOf(r), incident.Marked{}); err != nil || theIncident(t, s).Marked != nil {
		t.Errorf("no mark: %v, %+v", err, theIncident(t, s).Marked)
	}
	if err := s.Mark(t.Context(), "none", m); !errors.Is(err, store.ErrNoIncident) {
		t.Errorf("Mark of none: %v", err)
	}
}

func testIncidentDigest(t *testing.T, s store.Store) {
	few := people("few")
	few.DigestAbove = 1
	for _, user := range []string{"5", "6", "7"} {
		tell(t, s, noon, []notify.Endpoint{few}, Record(user, 0, alert.Opened))
	}
	critical := Record("8", 0, alert.Raised)
	tell(t, s, noon, []notify.Endpoint{few}, critical, Record("6", 0, alert.Closed))
	resolve(t, s, noon, window(100), few)
	id := incidentOf(Record("6", 0, alert.Opened))
	held := delivery(t, s, id+"_opened", "few")
	if held.State != store.Held || delivery(t, s, incidentOf(critical)+"_opened", "few").State != store.Pending {
		t.Fatalf("%+v", held)
	}
	var got []string
	d, err := s.Seal(t.Context(), held.Digest, "few", func(list iter.Seq2[notify.Held, error]) (json.RawMessage, error) {
		b := notify.NewDigester(noon, noon)
		for h, err := range list {
			if err != nil {
				return nil, err
			}
			got = append(got, h.Incident.ID+" "+h.Type)
			b.Add(h)
		}
		return b.Data(nil)
	})
	if err != nil || d.Type != notify.TypeIncidentDigest {
		t.Fatalf("Seal: %+v, %v", d, err)
	}
	want := []string{incidentOf(Record("5", 0, alert.Opened)) + " incident.resolved"} // its opening was told
	for _, user := range []string{"6", "7"} {
		id := incidentOf(Record(user, 0, alert.Opened))
		want = append(want, id+" incident.opened", id+" incident.resolved")
	}
	slices.Sort(want)
	equal(t, "held", got, want)
	var digest notify.Digest
	if err := json.Unmarshal(d.Data, &digest); err != nil {
		t.Fatal(err)
	}
	if digest.Messages != 5 || digest.Opened != 2 || digest.Resolved != 3 || digest.Users != 3 || digest.Events != 21 || len(digest.Incidents) != 3 || digest.Incidents[0].ID != id {
		t.Errorf("%s", d.Data)
	}
}

// testIncidentOfAnyRule: rules and keys have incidents of their own, and so has what is in shadow, of which nobody is notified.
func testIncidentOfAnyRule(t *testing.T, s store.Store) {
	long, alike := fmt.Sprintf("\"%0300d\"", 1), fmt.Sprintf("\"%0300d\"", 2)
	rows := []alert.Record{
		Row("a", []string{"ip"}, `"x"`, 0, alert.Opened), Row("a", []string{"ip"}, `"y"`, 0, alert.Opened), Row("b", []string{"ip"}, `"x"`, 0, alert.Opened),
		Row("a", []string{"ip"}, long, 0, alert.Opened), Row("a", []string{"ip"}, alike, 0, alert.Opened), Row("a", nil, "[]", 0, alert.Opened), Row("a", []string{"ip", "agent"}, `["x",null]`, 0, alert.Opened),
	}
	shadow := Row("a", []string{"ip"}, `"x"`, 1, alert.Opened)
	shadow.Mode = alert.Shadow
	tell(t, s, noon, []notify.Endpoint{people("a")}, append(rows, shadow)...)
	list := incidents(t, s, store.IncidentFilter{})
	if len(list) != len(rows)+1 {
		t.Fatalf("%d incidents", len(list))
	}
	equal(t, "told", len(deliveries(t, s, store.DeliveryFilter{})), len(rows))
	// With the quiet of the rule.
	next := Row("a", []string{"ip"}, long, 8, alert.Opened) // 70 s later
	next.QuietMS = 120_000
	apply(t, s, noon, next)
	if got := incidents(t, s, store.IncidentFilter{Key: `{"ip":` + long + `}`}); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	later := Row("a", []string{"ip"}, long, 20, alert.Opened) // 110 s later
	apply(t, s, noon, later)
	if got := incidents(t, s, store.IncidentFilter{Key: `{"ip":` + long + `}`}); len(got) != 2 || got[1].Windows != 2 {
		t.Errorf("%+v", got)
	}
}

func testRef(t *testing.T, s store.Store) {
	to := []notify.Endpoint{people("a"), people("b")}
	tell(t, s, noon, to, Record("5", 0, alert.Opened), Record("5", 0, alert.Raised))
	id := incidentOf(Record("5", 0, alert.Opened))
	if _, err := s.Record(t.Context(), store.Try{WebhookID: id + "_opened", Endpoint: "a", At: noon, Outcome: notify.Delivered, Ref: "C1:17"}, true); err != nil {
		t.Fatal(err)
	}
	resolve(t, s, noon, window(100), to...)
	for _, m := range []string{"_opened", "_escalated_1", "_resolved"} {
		equal(t, m, delivery(t, s, id+m, "a").Ref, "C1:17")
		equal(t, m+" at the other endpoint", delivery(t, s, id+m, "b").Ref, "")
	}
}

func testSilences(t *testing.T, s store.Store) {
	at := noon.Truncate(time.Millisecond)
	five := incident.Silence{ID: "s5", Rule: alert.Burst, Key: map[string]string{"user_id": "5"}, From: at, Until: at.Add(time.Hour), Author: "ana", Reason: "load test <&>", CreatedAt: at}
	past := incident.Silence{ID: "s0", Rule: alert.Burst, From: at.Add(-time.Hour), Until: at, CreatedAt: at.Add(-time.Hour)}
	for _, si := range []incident.Silence{five, past} {
		if err := s.AddSilence(t.Context(), si); err != nil {
			t.Fatal(err)
		}
	}
	list := func(endAfter time.Time) []incident.Silence {
		t.Helper()
		out, err := s.Silences(t.Context(), endAfter)
		if err != nil {
			t.Fatal(err)
		}
		for i := range out {
			if len(out[i].Key) == 0 {
				out[i].Key = nil
			}
		}
		return out
	}
	equal(t, "all", list(time.Time{}), []incident.Silence{past, five})
	equal(t, "those that hold", list(at), []incident.Silence{five})

	to := []notify.Endpoint{people("a"), endpoint("machine")}
	tell(t, s, noon, to, Record("5", 0, alert.Opened), Record("6", 0, alert.Opened), Record("5", 0, alert.Raised))
	id, other := incidentOf(Record("5", 0, alert.Opened)), incidentOf(Record("6", 0, alert.Opened))
	told := func() (out []string) {
		for _, d := range deliveries(t, s, store.DeliveryFilter{Endpoint: "a"}) {
			out = append(out, d.WebhookID)
		}
		slices.Sort(out)
		return out
	}
	equal(t, "told", told(), []string{other + "_opened"})
	equal(t, "machines are told of alerts", len(deliveries(t, s, store.DeliveryFilter{Endpoint: "machine"})), 3)
	equal(t, "silenced", incidents(t, s, store.IncidentFilter{Silenced: "s5"})[0].ID, id)
	equal(t, "one of them", len(incidents(t, s, store.IncidentFilter{Silenced: "s5"})), 1)

	// Its end comes early; the incident goes on, and is told now.
	if err := s.EndSilence(t.Context(), "s5", at.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	five.Until = at.Add(time.Minute)
	equal(t, "ended", list(at), []incident.Silence{five})
	tell(t, s, noon.Add(time.Minute), to, Record("5", 1, alert.Opened))
	resolve(t, s, noon, window(100), to...)
	want := []string{other + "_opened", other + "_resolved", id + "_opened", id + "_resolved"}
	slices.Sort(want)
	equal(t, "told after its end", told(), want)
	equal(t, "still said", incidents(t, s, store.IncidentFilter{ID: id})[0].Silenced, "s5")
	if err := s.EndSilence(t.Context(), "s5", at.Add(time.Hour)); err != nil || !list(at)[0].Until.Equal(five.Until) {
		t.Errorf("a silence that has ended: %v, %v", err, list(at))
	}
	future := incident.Silence{ID: "s9", Rule: alert.Burst, From: at.Add(time.Hour), Until: at.Add(2 * time.Hour), CreatedAt: at}
	if err := errors.Join(s.AddSilence(t.Context(), future), s.EndSilence(t.Context(), "s9", at)); err != nil || len(list(at)) != 1 {
		t.Errorf("one that was ended before it began: %v, %v", err, list(at))
	}
	if err := s.EndSilence(t.Context(), "none", at); !errors.Is(err, store.ErrNoSilence) {
		t.Errorf("EndSilence of none: %v", err)
	}
}
