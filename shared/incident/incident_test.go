package incident

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
)

var midnight = time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)

// record is an alert of a user in the window that begins so many seconds after midnight.
func record(user string, second int, state alert.State, count int64) alert.Record {
	start := midnight.Add(time.Duration(second) * time.Second)
	r := alert.Record{
		ID: alert.ID(alert.Burst, user, start.UnixMilli(), 10_000), Rule: alert.Burst, State: state, Severity: alert.SeverityOf(count, 10),
		UserID: json.RawMessage(user), Count: count, Threshold: 5, WindowStart: start, WindowEnd: start.Add(10 * time.Second),
	}
	return r
}

// keeper is a store of incidents and alerts in memory.
type keeper struct {
	incidents map[string]Incident
	states    map[string]alert.State
	members   map[string]Member
	events    []string // those that are told
	silences  []Silence
	now       time.Time
}

func newKeeper() *keeper {
	return &keeper{incidents: map[string]Incident{}, states: map[string]alert.State{}, members: map[string]Member{}, now: midnight}
}

// apply applies records as a batch: those that move their alert forward.
func (k *keeper) apply(records ...alert.Record) {
	spans := Spans(records)
	var stored []Incident
	for _, i := range k.incidents {
		if slices.ContainsFunc(spans, func(s Span) bool {
			return s.Rule == i.Rule && s.Mode == i.Mode && string(s.Key) == string(i.Key) && !i.LastWindowEnd.Add(i.Quiet).Before(s.From) && !i.FirstWindowStart.Add(-i.Quiet).After(s.To)
		}) || slices.ContainsFunc(records, func(r alert.Record) bool { return k.members[r.ID].Incident == i.ID }) {
			stored = append(stored, i)
		}
	}
	f := NewFold(k.now, k.silences, stored, maps.Clone(k.members))
	for _, r := range records {
		if r.State.Rank() > k.states[r.ID].Rank() {
			f.Apply(&r)
			k.states[r.ID] = r.State
		}
	}
	for _, i := range f.Incidents() {
		k.incidents[i.ID] = i
	}
	maps.Copy(k.members, f.Members())
	for _, e := range f.Events() {
		k.tell(e)
	}
}

func (k *keeper) tell(e Event) {
	if !e.Silent {
		k.events = append(k.events, e.ID())
	}
}

// resolve ends what is due at an event time.
func (k *keeper) resolve(at time.Time) {
	for id, i := range k.incidents {
		if i.State == StateOpen && !i.Due().After(at) {
			k.tell(i.Resolve(at))
			k.incidents[id] = i
		}
	}
}

func (k *keeper) list() []string {
	var out []string
	for _, i := range k.incidents {
		out = append(out, fmt.Sprintf("%s %s %s %s to %s: %d windows, %d events, peak %d", i.Key, i.State, i.Severity,
			i.FirstWindowStart.Format(time.TimeOnly), i.LastWindowEnd.Format(time.TimeOnly), i.Windows, i.Events, i.Peak))
	}
	slices.Sort(out)
	return out
}

func TestQuiet(t *testing.T) {
	k := newKeeper()
	// The gaps are 0, 60 and 61 seconds.
	for _, second := range []int{0, 10, 80, 151} {
		k.apply(record("7", second, alert.Opened, 6), record("7", second, alert.Closed, 8))
	}
	want := []string{
		`{"user_id":7} open warning 00:00:00 to 00:01:30: 3 windows, 24 events, peak 8`,
		`{"user_id":7} open warning 00:02:31 to 00:02:41: 1 windows, 8 events, peak 8`,
	}
	if diff := cmp.Diff(want, k.list()); diff != "" {
		t.Error(diff)
	}
	first, second := ID(alert.Burst, json.RawMessage(`{"user_id":7}`), midnight, midnight.Add(10*time.Second)), record("7", 151, alert.Opened, 6)
	if diff := cmp.Diff([]string{first + "_opened", ID(alert.Burst, KeyOf(&second), second.WindowStart, second.WindowEnd) + "_opened"}, k.events); diff != "" {
		t.Error(diff)
	}
}

func TestQuietOfTheRule(t *testing.T) {
	k := newKeeper()
	for _, second := range []int{0, 11, 22} {
		r := record("7", second, alert.Closed, 8)
		r.QuietMS = 1000
		k.apply(r)
	}
	r := record("7", 35, alert.Closed, 8) // 3 s after the last
	r.QuietMS = 1000
	k.apply(r)
	if got := k.list(); len(got) != 2 {
		t.Errorf("%q", got)
	}
}

func TestEscalation(t *testing.T) {
	k := newKeeper()
	k.apply(record("7", 0, alert.Opened, 6))
	k.apply(record("7", 0, alert.Raised, 11), record("7", 0, alert.Closed, 30))
	k.apply(record("7", 10, alert.Opened, 6), record("7", 10, alert.Raised, 11)) // it is critical already
	k.apply(record("8", 0, alert.Closed, 11))                                    // critical from the beginning
	want := []string{`{"user_id":7} open critical 00:00:00 to 00:00:20: 2 windows, 41 events, peak 30`, `{"user_id":8} open critical 00:00:00 to 00:00:10: 1 windows, 11 events, peak 11`}
	if diff := cmp.Diff(want, k.list()); diff != "" {
		t.Error(diff)
	}
	id := func(user string) string {
		return ID(alert.Burst, json.RawMessage(`{"user_id":`+user+`}`), midnight, midnight.Add(10*time.Second))
	}
	if diff := cmp.Diff([]string{id("7") + "_opened", id("7") + "_escalated_1", id("8") + "_opened"}, k.events); diff != "" {
		t.Error(diff)
	}
}

// TestResolved: what follows after an incident is over opens another one, and what becomes known of its windows is added.
func TestResolved(t *testing.T) {
	k := newKeeper()
	k.apply(record("7", 0, alert.Opened, 6), record("7", 20, alert.Closed, 7))
	k.resolve(midnight.Add(99 * time.Second))
	if k.list()[0] != `{"user_id":7} open warning 00:00:00 to 00:00:30: 2 windows, 13 events, peak 7` {
		t.Errorf("%q", k.list())
	}
	k.resolve(midnight.Add(100 * time.Second)) // 30 s, a minute, and the window that could begin then
	k.apply(record("7", 0, alert.Closed, 9), record("7", 10, alert.Closed, 6), record("7", 40, alert.Closed, 6))
	want := []string{
		`{"user_id":7} open warning 00:00:40 to 00:00:50: 1 windows, 6 events, peak 6`,
		`{"user_id":7} resolved warning 00:00:00 to 00:00:30: 3 windows, 22 events, peak 9`,
	}
	if diff := cmp.Diff(want, k.list()); diff != "" {
		t.Error(diff)
	}
}

// naive is the incidents of windows that come in order: their list is cut where a gap is longer than a minute.
func naive(user string, seconds []int, counts map[int]int64) []string {
	var out []string
	for from := 0; from < len(seconds); {
		to := from + 1
		for to < len(seconds) && seconds[to]-seconds[to-1] <= 70 {
			to++
		}
		events, peak := int64(0), int64(0)
		for _, s := range seconds[from:to] {
			events, peak = events+counts[s], max(peak, counts[s])
		}
		out = append(out, fmt.Sprintf(`{"user_id":%s} open %s %s to %s: %d windows, %d events, peak %d`, user, alert.SeverityOf(peak, 10),
			midnight.Add(time.Duration(seconds[from])*time.Second).Format(time.TimeOnly), midnight.Add(time.Duration(seconds[to-1]+10)*time.Second).Format(time.TimeOnly), to-from, events, peak))
		from = to
	}
	return out
}

// TestAnyBatches: the incidents are those of the list of windows, in whatever batches the records come, and if they come again.
func TestAnyBatches(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var records []alert.Record
		var want []string
		for user := range 3 {
			name := fmt.Sprint(user)
			var seconds []int
			counts := map[int]int64{}
			at := 0
			for range 1 + r.IntN(20) {
				at += 10 * (1 + r.IntN(10))
				seconds, counts[at] = append(seconds, at), 6+r.Int64N(10)
				if r.IntN(4) > 0 {
					records = append(records, record(name, at, alert.Opened, 6))
				}
				if counts[at] > 10 && r.IntN(2) == 0 {
					records = append(records, record(name, at, alert.Raised, 11))
				}
				records = append(records, record(name, at, alert.Closed, counts[at]))
			}
			want = append(want, naive(name, seconds, counts)...)
		}
		slices.Sort(want)
		// Users are independent of each other: any order that keeps theirs.
		slices.SortStableFunc(records, func(a, b alert.Record) int { return a.WindowStart.Compare(b.WindowStart) })
		var events []string
		for range 3 {
			k := newKeeper()
			for at := 0; at < len(records); {
				n := min(1+r.IntN(15), len(records)-at)
				k.apply(records[at : at+n]...)
				at += n
				if r.IntN(5) == 0 {
					at = r.IntN(at + 1) // a crash before the commit
				}
			}
			if diff := cmp.Diff(want, k.list()); diff != "" {
				t.Fatalf("seed %d: %s", seed, diff)
			}
			slices.Sort(k.events)
			if events != nil && !slices.Equal(events, k.events) {
				t.Fatalf("seed %d: %q, then %q", seed, events, k.events)
			}
			events = k.events
			if n := len(slices.Compact(slices.Clone(events))); n != len(events) {
				t.Fatalf("seed %d: a message is told twice: %q", seed, events)
			}
		}
	}
}

// TestResolvedAnyTime: whether incidents that are due are resolved at once or later makes no difference.
func TestResolvedAnyTime(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		var seconds []int
		counts := map[int]int64{}
		at := 0
		for range 1 + r.IntN(20) {
			at += 10 * (1 + r.IntN(12))
			seconds, counts[at] = append(seconds, at), 6+r.Int64N(10)
		}
		k := newKeeper()
		for _, s := range seconds {
			k.apply(record("7", s, alert.Closed, counts[s]))
			if r.IntN(2) == 0 {
				k.resolve(midnight.Add(time.Duration(s+10) * time.Second)) // up to there, everything is stored
			}
		}
		got := k.list()
		for i := range got {
			got[i] = replaceState(got[i])
		}
		slices.Sort(got)
		want := naive("7", seconds, counts)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
}

func replaceState(line string) string {
	for _, s := range []State{StateOpen, StateResolved} {
		if at := len(`{"user_id":7} `); line[at:at+len(s)] == string(s) {
			return line[:at] + "open" + line[at+len(s):]
		}
	}
	return line
}

func TestSilenceMatch(t *testing.T) {
	i := Incident{Rule: "cards", Key: json.RawMessage(`{"ip":"10.0.0.1","n":7,"x":null}`)}
	for _, c := range []struct {
		s    Silence
		want bool
	}{
		{Silence{Rule: "cards"}, true},
		{Silence{Rule: "other"}, false},
		{Silence{Key: map[string]string{"ip": "10.0.0.1"}}, true},
		{Silence{Key: map[string]string{"ip": "10.0.0.1", "n": "7", "x": "null"}}, true},
		{Silence{Key: map[string]string{"n": "8"}}, false},
		{Silence{Key: map[string]string{"none": ""}}, false},
		{Silence{Rule: "other", Key: map[string]string{"n": "7"}}, false},
	} {
		if got := c.s.Match(&i); got != c.want {
			t.Errorf("%+v: %v", c.s, got)
		}
	}
}

func TestSilenceValidate(t *testing.T) {
	good := Silence{Rule: "cards", From: midnight, Until: midnight.Add(time.Hour), Author: "ana", Reason: "load test"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for field, spoil := range map[string]func(*Silence){
		"rule, key:":         func(s *Silence) { s.Rule = "" },
		"rule:":              func(s *Silence) { s.Rule = "No" },
		"for: 0s is shorter": func(s *Silence) { s.Until = s.From },
		"for: 745h":          func(s *Silence) { s.Until = s.From.Add(MaxSilence + time.Hour) },
		"why: missing":       func(s *Silence) { s.Reason = " " },
		"not UTF-8":          func(s *Silence) { s.Author = "\x00" },
	} {
		s := good
		spoil(&s)
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestSilence: what a silence keeps is stored; an incident that goes on after its end is told then, and one that was told before has its end told.
func TestSilence(t *testing.T) {
	id := func(second int) string {
		r := record("7", second, alert.Opened, 6)
		return ID(r.Rule, KeyOf(&r), r.WindowStart, r.WindowEnd)
	}
	k := newKeeper()
	k.silences = []Silence{{ID: "s1", Key: map[string]string{"user_id": "7"}, From: midnight, Until: midnight.Add(time.Hour)}}
	// All of it under the silence.
	k.apply(record("7", 0, alert.Opened, 6), record("7", 0, alert.Raised, 11))
	k.resolve(midnight.Add(100 * time.Second))
	// One that goes on.
	k.apply(record("7", 1000, alert.Opened, 6), record("7", 1000, alert.Closed, 12))
	if len(k.events) > 0 || k.incidents[id(0)].Silenced != "s1" || k.incidents[id(0)].Events != 11 {
		t.Errorf("%v, %+v", k.events, k.incidents[id(0)])
	}
	k.now = midnight.Add(time.Hour)
	k.apply(record("7", 1010, alert.Opened, 6), record("7", 1010, alert.Closed, 9))
	k.resolve(midnight.Add(1100 * time.Second))
	// One that was told before the silence.
	k.apply(record("7", 2000, alert.Opened, 6))
	k.silences[0].Until = midnight.Add(2 * time.Hour)
	k.apply(record("7", 2000, alert.Raised, 11), record("8", 2000, alert.Opened, 6))
	k.resolve(midnight.Add(2100 * time.Second))
	eight := record("8", 2000, alert.Opened, 6)
	other := ID(eight.Rule, KeyOf(&eight), eight.WindowStart, eight.WindowEnd)
	got := slices.Clone(k.events)
	slices.Sort(got)
	want := []string{id(1000) + "_opened", id(1000) + "_resolved", id(2000) + "_opened", id(2000) + "_resolved", other + "_opened", other + "_resolved"}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestEscalationDuringSilence: an incident that becomes critical while a silence holds, and goes on after it, escalates for people then; if it does not go on, those who
// were told that it opened as a warning are told of its end, as of a warning.
func TestEscalationDuringSilence(t *testing.T) {
	for _, goesOn := range []bool{true, false} {
		k := newKeeper()
		k.apply(record("7", 0, alert.Opened, 6))
		k.silences = []Silence{{ID: "s1", Rule: alert.Burst, From: midnight, Until: midnight.Add(time.Hour)}}
		k.apply(record("7", 0, alert.Raised, 11))
		k.now = midnight.Add(time.Hour)
		if goesOn {
			k.apply(record("7", 10, alert.Opened, 6), record("7", 10, alert.Closed, 7))
		}
		k.resolve(midnight.Add(time.Hour))
		var id string
		for i := range k.incidents {
			id = i
		}
		want, told := []string{id + "_opened", id + "_resolved"}, alert.Warning
		if goesOn {
			want, told = []string{id + "_opened", id + "_escalated_1", id + "_resolved"}, alert.Critical
		}
		if diff := cmp.Diff(want, k.events); diff != "" {
			t.Errorf("goes on %v: %s", goesOn, diff)
		}
		if i := k.incidents[id]; i.Told != told || i.Severity != alert.Critical || i.Silenced != "s1" {
			t.Errorf("goes on %v: %+v", goesOn, i)
		}
	}
}
