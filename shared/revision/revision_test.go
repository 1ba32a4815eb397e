package revision

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spate/shared/rule"
)

func text(name string, more int) string {
	return fmt.Sprintf("-- rule: %s\nINSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > %d;\n", name, more)
}

func record(t *testing.T, r Record) []byte {
	t.Helper()
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newLog(t *testing.T) *Log {
	t.Helper()
	initial, err := rule.Burst(10_000_000_000, 5, 10)
	if err != nil {
		t.Fatal(err)
	}
	return NewLog(initial)
}

func described(l *Log) (out []string) {
	p := l.Plan()
	for i, r := range p.Rules {
		out = append(out, fmt.Sprintf("%s since %d [%d, %d)", r.Name, p.Since[i], r.Window.From, r.Window.Until))
	}
	return out
}

const ahead = 60_000

func TestBoundary(t *testing.T) {
	margin := Margin.Milliseconds()
	l := newLog(t)
	if got := described(l); l.Revision() != 0 || cmp.Diff([]string{"burst since 0 [0, 0)"}, got) != "" {
		t.Errorf("without a record: %d, %v", l.Revision(), got)
	}
	l.Take(1000, record(t, Record{Revision: 1, Source: Source{Text: text("a", 1)}, MaxAheadMS: ahead}))
	l.Take(500, record(t, Record{Revision: 2, Source: Source{Text: text("a", 1) + text("b", 2)}, MaxAheadMS: ahead})) // of a broker whose clock is behind
	l.Take(2000, record(t, Record{Revision: 3, Source: Source{Text: text("b", 2)}, MaxAheadMS: ahead, FromMS: 10_000_000}))
	l.Take(3000, record(t, Record{Revision: 4, Source: Source{Text: text("b", 3)}, MaxAheadMS: ahead}))
	first := 1000 + margin + ahead
	want := []string{
		fmt.Sprintf("burst since 0 [0, %d)", first), fmt.Sprintf("a since 1 [%d, %d)", first, first+2000), fmt.Sprintf("b since 2 [%d, %d)", first, first+2000), fmt.Sprintf("b since 4 [%d, 0)", first+2000),
	}
	if d := cmp.Diff(want, described(l)); d != "" || l.Revision() != 4 || l.Names() != "b" {
		t.Errorf("%d, %s: %s", l.Revision(), l.Names(), d)
	}
	// Revision 3 was to be in force later than 4 is. It is no hindrance, and never in force. Revision 1 has the boundary of 2, so there is no window that it is in force for.
	if e := l.Entries(); e[2].BoundaryMS != 10_000_000 || e[2].ReplacedBy != 4 || e[0].ReplacedBy != 2 || e[1].ReplacedBy != 0 || e[3].ReplacedBy != 0 {
		t.Errorf("%+v", e)
	}
	if e := l.Entries()[1]; e.AtMS != 1000 || e.SinceMS() != 1000+margin || e.BoundaryMS != first {
		t.Errorf("%+v", e)
	}
}

// TestBeginning: before anything was counted, rules are in force for all windows, and nothing is before them.
func TestBeginning(t *testing.T) {
	l := newLog(t)
	l.Take(1000, record(t, Record{Revision: 1, Source: Source{Text: text("a", 1)}, Beginning: true}))
	if d := cmp.Diff([]string{"a since 1 [0, 0)"}, described(l)); d != "" {
		t.Error(d)
	}
	if e, ok := l.Newest(); !ok || e.SinceMS() != 0 || e.Boundary() != "the beginning" {
		t.Errorf("%+v", e)
	}
	// Still nothing was counted: the rules are replaced, with their settings, and whoever knew those before must begin anew.
	origin := l.Plan().Origin
	l.Take(2000, record(t, Record{Revision: 2, Source: Source{Text: text("a", 2) + text("b", 1)}, Beginning: true, LatenessMS: 7000}))
	l.Take(3000, record(t, Record{Revision: 3, Source: Source{Text: text("b", 1)}, LatenessMS: 7000}))
	boundary := 3000 + Margin.Milliseconds()
	if d := cmp.Diff([]string{fmt.Sprintf("a since 2 [0, %d)", boundary), "b since 2 [0, 0)"}, described(l)); d != "" || origin != 1 || l.Plan().Origin != 2 || l.Revision() != 3 {
		t.Errorf("origin %d, then %d: %s", origin, l.Plan().Origin, d)
	}
	if first, ok := l.First(); !ok || first.Revision != 2 || len(l.Entries()) != 3 {
		t.Errorf("%+v", first)
	}
}

// TestIgnored: what has no effect has none for everybody, and is told.
func TestIgnored(t *testing.T) {
	l := newLog(t)
	l.Take(1, record(t, Record{Revision: 1, Source: Source{Text: text("a", 1)}, LatenessMS: 5000, MaxAheadMS: ahead}))
	was := described(l)
	for value, why := range map[string]string{
		"": "not a revision", "7": "not a revision", "{}": "not a revision", "\x00\xff": "not a revision", `{"version":1,"revision":"2"}`: "not a revision",
		string(record(t, Record{Revision: 1, Source: Source{Text: text("b", 1)}})):                                                         "written as revision 1, but the next revision was 2",
		string(record(t, Record{Revision: 2, Source: Source{Text: text("b", 1)}, LatenessMS: -1, MaxAheadMS: ahead})):                      "lateness of -1 ms is not between",
		string(record(t, Record{Revision: 2, Source: Source{Text: text("b", 1)}, LatenessMS: 5000, MaxAheadMS: 1 << 60, Beginning: true})): "max-ahead of 1152921504606846976 ms is not between",
		string(record(t, Record{Revision: 2, Source: Source{Text: text("b", 1)}, LatenessMS: 5000, MaxAheadMS: ahead, FromMS: 1 << 62})):   "after the year 9999",
		string(record(t, Record{Revision: 3, Source: Source{Text: text("b", 1)}})):                                                         "written as revision 3",
		string(record(t, Record{Revision: 2, Source: Source{Text: text("b", 1)}, LatenessMS: 6000, MaxAheadMS: ahead})):                    "lateness is 6s",
		string(record(t, Record{Revision: 2, Source: Source{Text: text("b", 1)}, LatenessMS: 5000, MaxAheadMS: 1})):                        "max-ahead is 1ms",
	} {
		n := len(l.Ignored())
		l.Take(2, []byte(value))
		if got := l.Ignored(); len(got) != n+1 || !strings.Contains(got[n].Why, why) {
			t.Errorf("%.80q: %+v, want %q", value, got[n:], why)
		}
	}
	if d := cmp.Diff(was, described(l)); d != "" || l.Revision() != 1 || l.Unreadable() != nil {
		t.Errorf("%d, %v: %s", l.Revision(), l.Unreadable(), d)
	}
}

// TestClock: all revisions have their time in one column. That of the built-in table stands for the field that the pipeline reads.
func TestClock(t *testing.T) {
	table := func(clock string) Source {
		return Source{Name: "t", Text: strings.ReplaceAll("CREATE TABLE t (who STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts);\nINSERT INTO alerts SELECT who, COUNT(*) AS n FROM t GROUP BY TUMBLE(ts, INTERVAL '1' SECOND), who", "ts", clock)}
	}
	builtIn := Source{Text: text("a", 1)}
	for _, c := range []struct {
		first, next Source
		err         string
	}{
		{builtIn, builtIn, ""},
		{builtIn, table("txn_timestamp"), ""},
		{builtIn, table("at_ms"), "it expects the event time in at_ms, but the rules in force read the built-in table; name the time column txn_timestamp, which"},
		{table("txn_timestamp"), builtIn, ""},
		{table("at_ms"), builtIn, "it expects the event time in txn_timestamp, but the rules in force expect it in at_ms"},
		{table("at_ms"), table("happened"), "it expects the event time in happened, but the rules in force expect it in at_ms"},
		{table("at_ms"), table("at_ms"), ""},
	} {
		l := newLog(t)
		l.Take(1, record(t, Record{Revision: 1, Source: c.first, LatenessMS: 5000, MaxAheadMS: ahead}))
		r := Record{Revision: 2, Source: c.next, LatenessMS: 5000, MaxAheadMS: ahead}
		said := l.Check(r)
		l.Take(2, record(t, r))
		if ignored := l.Ignored(); (said == nil) != (c.err == "") || len(ignored) > 0 != (c.err != "") || said != nil && (!strings.Contains(said.Error(), c.err) || !strings.Contains(ignored[0].Why, c.err)) {
			t.Errorf("%v, %+v, want %q", said, ignored, c.err)
		}
	}
}

// TestUnreadable: rules that this program cannot evaluate are in force nevertheless. What they are about is not judged.
func TestUnreadable(t *testing.T) {
	newer := []byte(`{"version":2,"revision":2,"rules":[]}`)
	for why, value := range map[string][]byte{
		"has version 2":             newer,
		"SESSION":                   record(t, Record{Revision: 2, Source: Source{Text: "INSERT INTO alerts SELECT user_id FROM activity GROUP BY SESSION(txn_timestamp, INTERVAL '1' MINUTE), user_id", Name: "s"}}),
		"FUTURE":                    record(t, Record{Revision: 2, Source: Source{Text: "INSERT INTO alerts SELECT FUTURE(user_id) FROM activity", Name: "s"}}),
		"have different watermarks": record(t, Record{Revision: 2, Source: Source{Text: twoClocks}}),
	} {
		l := newLog(t)
		l.Take(1, record(t, Record{Revision: 1, Source: Source{Text: text("a", 1)}}))
		was := described(l)
		l.Take(5000, value)
		u := l.Unreadable()
		if u == nil || u.Revision != 2 || u.SinceMS != 5000+Margin.Milliseconds() || !strings.Contains(u.Error(), why) || !strings.Contains(u.Error(), "revision 2 of the rules cannot be evaluated by this version of spate; upgrade spate, or replace the revision") {
			t.Errorf("%s: %+v", why, u)
			continue
		}
		l.Take(6000, record(t, Record{Revision: 3, Source: Source{Text: text("a", 1)}})) // nobody knows what its windows follow
		if u := l.Unreadable(); u == nil || u.SinceMS != 5000+Margin.Milliseconds() || l.Revision() != 3 {
			t.Errorf("%s: after another revision: %+v, %d", why, u, l.Revision())
		}
		if d := cmp.Diff(was, described(l)); d != "" {
			t.Errorf("%s: %s", why, d)
		}
		if err := l.Check(Record{Revision: 4, Source: Source{Text: text("a", 1)}}); err == nil {
			t.Errorf("%s: another revision would be written", why)
		}
	}
}

// TestInsteadOf: whatever a program makes of a revision, the one that is written instead of it is in force for the events that it was about, and it
// never is. A program that could evaluate it comes to the same.
func TestInsteadOf(t *testing.T) {
	good := func(r int64, name string, more int64) Record {
		return Record{Revision: r, Source: Source{Text: text(name, int(more))}, LatenessMS: 5000, MaxAheadMS: ahead}
	}
	const first, second, third = int64(1_000_000), int64(2_000_000), int64(3_000_000)
	instead := good(4, "c", 3)
	instead.InsteadOf = 2
	beginning := good(2, "b", 2)
	beginning.Beginning = true
	var want string
	for name, value := range map[string][]byte{
		"none can evaluate it":   record(t, Record{Revision: 2, Source: Source{Text: "SELECT"}, LatenessMS: 5000, MaxAheadMS: ahead}),
		"a newer one can":        []byte(`{"version":2,"revision":2}`),
		"this one can":           record(t, good(2, "b", 2)),
		"it was from the start":  record(t, beginning),
		"it moved, and had none": record(t, Record{Revision: 2, Source: Source{Text: text("b", 2)}, LatenessMS: 5000, MaxAheadMS: ahead, FromMS: 9_000_000}),
	} {
		l := newLog(t)
		l.Take(first, record(t, good(1, "a", 1)))
		l.Take(second, value)
		l.Take(second+1, record(t, good(3, "b", 4)))
		if err := l.Check(instead); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		next, err := l.With(third, Record{Source: instead.Source, InsteadOf: 2, LatenessMS: 5000, MaxAheadMS: ahead})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		l.Take(third, record(t, instead))
		e, _ := l.Newest()
		since, boundary := second+Margin.Milliseconds(), second+Margin.Milliseconds()+ahead
		if strings.HasPrefix(name, "it moved") {
			boundary = 9_000_000
		}
		if l.Unreadable() != nil || l.Revision() != 4 || e.Revision != 4 || e.AtMS != third || e.SinceMS() != since || e.BoundaryMS != boundary {
			t.Errorf("%s: %+v, %v", name, e, l.Unreadable())
		}
		var ignored []string
		for _, i := range l.Ignored() {
			ignored = append(ignored, fmt.Sprint(i))
		}
		if len(ignored) != 2 || !strings.Contains(ignored[0], "it was revision 2, which is never in force: revision 4 was applied instead") {
			t.Errorf("%s: %q", name, ignored)
		}
		// Who has judged events by it starts over.
		if started := l.Plan().Origin == 4; started != strings.Contains("this one can, it was from the start, it moved, and had none", name) {
			t.Errorf("%s: starts over: %v", name, started)
		}
		if strings.HasPrefix(name, "it moved") {
			continue // its boundary is another
		}
		got := fmt.Sprint(described(l), ignored)
		if want == "" {
			want = got
		}
		if got != want || fmt.Sprint(described(next), ignored) != want {
			t.Errorf("%s: %s, not %s; foreseen %s", name, got, want, described(next))
		}
		if l.Take(third, record(t, good(5, "d", 5))); l.Revision() != 5 {
			t.Errorf("%s: %v", name, l.Ignored())
		}
	}
}

// TestAllCountTheSame: a record whose settings cannot be is no revision for anybody, also for programs that cannot evaluate it or one before it.
func TestAllCountTheSame(t *testing.T) {
	good := Source{Text: text("b", 2)}
	logs := map[string]*Log{}
	for name, second := range map[string]Source{"can evaluate it": good, "cannot": {Text: "SELECT"}} {
		l := newLog(t)
		l.Take(1000, record(t, Record{Revision: 1, Source: Source{Text: text("a", 1)}, LatenessMS: 5000, MaxAheadMS: ahead}))
		l.Take(2000, record(t, Record{Revision: 2, Source: second, LatenessMS: 6000, MaxAheadMS: ahead}))
		l.Take(3000, record(t, Record{Revision: 2, Source: second, LatenessMS: 5000, MaxAheadMS: ahead}))
		l.Take(4000, record(t, Record{Revision: 3, Source: good, LatenessMS: 5000, MaxAheadMS: 1}))
		l.Take(5000, record(t, Record{Revision: 3, Source: good, LatenessMS: 5000, MaxAheadMS: ahead}))
		l.Take(6000, record(t, Record{Revision: 4, InsteadOf: 2, Source: good, LatenessMS: 5000, MaxAheadMS: ahead}))
		l.Take(7000, record(t, Record{Revision: 5, InsteadOf: 2, Source: good, LatenessMS: 5000, MaxAheadMS: ahead}))
		logs[name] = l
	}
	x, y := logs["can evaluate it"], logs["cannot"]
	if x.Revision() != 5 || y.Revision() != 5 || y.Unreadable() != nil || cmp.Diff(x.Ignored(), y.Ignored()) != "" || cmp.Diff(described(x), described(y)) != "" {
		t.Errorf("%d and %d: %+v, %+v; %v, %v", x.Revision(), y.Revision(), x.Ignored(), y.Ignored(), described(x), described(y))
	}
	if n := len(x.Ignored()); n != 5 { // two with other settings; 2, 3 and 4, each once
		t.Errorf("%d: %+v", n, x.Ignored())
	}
}

// TestInsteadOfEarlierOrLater: it is in force only if it is instead of the first one that cannot be evaluated, and only if it comes after it.
func TestInsteadOfEarlierOrLater(t *testing.T) {
	l := newLog(t)
	l.Take(1000, record(t, Record{Revision: 1, Source: Source{Text: text("a", 1)}}))
	l.Take(2000, record(t, Record{Revision: 2, Source: Source{Text: "SELECT"}}))
	for _, n := range []int64{-1, 3, 4, 1 << 62} {
		if l.Take(3000, record(t, Record{Revision: 3, InsteadOf: n, Source: Source{Text: text("b", 1)}})); l.Revision() != 2 {
			t.Errorf("instead of revision %d: %+v", n, l.Ignored())
		}
	}
	l.Take(3000, record(t, Record{Revision: 3, Source: Source{Text: text("b", 1)}}))
	l.Take(4000, record(t, Record{Revision: 4, InsteadOf: 3, Source: Source{Text: text("b", 1)}}))
	if u := l.Unreadable(); u == nil || u.Revision != 2 || l.Revision() != 4 {
		t.Errorf("%+v", u)
	}
	l.Take(5000, record(t, Record{Revision: 5, InsteadOf: 2, Source: Source{Text: "SELECT"}, Program: "v9"})) // no better
	if u := l.Unreadable(); u == nil || u.Revision != 5 || u.SinceMS != 2000+Margin.Milliseconds() || !strings.Contains(u.Error(), "written by spate v9") {
		t.Errorf("%+v", u)
	}
	l.Take(6000, record(t, Record{Revision: 6, InsteadOf: 1, Source: Source{Text: text("b", 1)}}))
	if e, ok := l.First(); !ok || e.Revision != 6 || l.Unreadable() != nil || len(l.Entries()) != 1 || e.SinceMS() != 1000+Margin.Milliseconds() {
		t.Errorf("%+v, %v", e, l.Unreadable())
	}
}

const twoClocks = `CREATE TABLE t (who STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts);
CREATE TABLE u (who STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND);
-- rule: a
INSERT INTO alerts SELECT who, COUNT(*) AS n FROM t GROUP BY TUMBLE(ts, INTERVAL '1' SECOND), who;
-- rule: b
INSERT INTO alerts SELECT who, COUNT(*) AS n FROM u GROUP BY TUMBLE(ts, INTERVAL '1' SECOND), who;
`

func TestTooLarge(t *testing.T) {
	if _, err := (Record{Source: Source{Text: strings.Repeat("\x01", 1<<20)}}).Encode(); err == nil || !strings.Contains(err.Error(), "bytes as JSON") {
		t.Error(err)
	}
}

func FuzzTake(f *testing.F) {
	f.Add([]byte(`{"version":1,"revision":1,"text":"INSERT INTO alerts SELECT user_id FROM activity","beginning":true}`))
	f.Add([]byte(`{"version":2,"revision":1}`))
	f.Add([]byte(`{"version":1,"revision":1,"text":"INSERT INTO alerts SELECT user_id FROM activity","instead_of":1}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		l := newLog(t)
		l.Take(1000, value)
		if n := len(l.Entries()) + len(l.Ignored()); (l.Unreadable() != nil) == (n == 1) {
			t.Errorf("%d entries and ignored ones, unreadable: %v", n, l.Unreadable())
		}
		if l.Plan() == nil || len(l.Plan().Rules) != len(l.Plan().Since) {
			t.Error("no plan")
		}
	})
}

// TestWith: what a revision would do can be seen before it is written.
func TestWith(t *testing.T) {
	l := newLog(t)
	l.Take(1000, record(t, Record{Revision: 1, Source: Source{Text: text("a", 1)}}))
	before := described(l)
	next, err := l.With(2000, Record{Source: Source{Text: text("a", 1) + text("b", 2)}})
	if err != nil || next.Revision() != 2 || next.Names() != "a, b" {
		t.Fatalf("%v, %v", next, err)
	}
	if _, err := l.With(2000, Record{Source: Source{Text: "SELECT 1"}}); err == nil {
		t.Error("rules that nobody can evaluate")
	}
	if d := cmp.Diff(before, described(l)); d != "" || l.Revision() != 1 || len(l.Entries()) != 1 {
		t.Errorf("it changed: %s", d)
	}
	l.Take(3000, record(t, Record{Revision: 2, Source: Source{Text: text("c", 1)}}))
	if next.Names() != "a, b" || l.Names() != "c" {
		t.Errorf("%s, %s", next.Names(), l.Names())
	}
}
