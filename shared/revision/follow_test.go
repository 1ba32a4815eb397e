package revision

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/window"
)

// followed is a follower of a log, with what it has done.
type followed struct {
	*Follower
	written            []func() // what the next look finds
	looks, adopts      int
	late               []int64
	lookError, adopted error
	passed             time.Duration // on the clock
}

func follow(t *testing.T) *followed {
	f := &followed{Follower: &Follower{Log: newLog(t), Own: Settings{Time: []string{"txn_timestamp"}}, Service: "router", Report: slog.New(slog.DiscardHandler)}}
	f.Now = func() time.Time { return time.UnixMilli(1).Add(f.passed) }
	f.Look = func(context.Context) (bool, error) {
		f.looks++
		was := f.Revision()
		for _, take := range f.written {
			take()
		}
		f.written = nil
		return f.Revision() != was, f.lookError
	}
	f.Adopt = func(Settings) error { f.adopts++; return f.adopted }
	f.Late = func(e Entry) { f.late = append(f.late, e.Revision) }
	return f
}

func (f *followed) write(t *testing.T, atMS int64, r Record) {
	value := record(t, r)
	f.written = append(f.written, func() { f.Take(atMS, value) })
}

// TestConsult: it looks before events are judged that the last look does not cover, and only then.
func TestConsult(t *testing.T) {
	half, at := Margin.Milliseconds()/2, int64(1_000_000)
	f := follow(t)
	if err := f.Learn(t.Context()); err != nil || f.looks != 1 || f.adopts != 1 {
		t.Fatalf("%d looks, %d adopted, %v", f.looks, f.adopts, err)
	}
	for i, step := range []struct {
		newest int64
		looks  int
	}{{window.NoTime, 1}, {at, 2}, {at, 2}, {at + half - 1, 2}, {window.NoTime, 2}, {at + half, 3}, {at, 3}, {at + 2*half - 1, 3}} {
		if err := f.Consult(t.Context(), step.newest); err != nil || f.looks != step.looks {
			t.Errorf("step %d: %d looks, want %d; %v", i, f.looks, step.looks, err)
		}
	}
	// The clock of the broker is set back by an hour.
	f.passed = Margin / 2
	if err := f.Consult(t.Context(), at-3_600_000); err != nil || f.looks != 4 {
		t.Errorf("%d looks, want 4; %v", f.looks, err)
	}
	if err := f.Consult(t.Context(), at+half); err != nil || f.looks != 5 {
		t.Errorf("%d looks, want 5; %v", f.looks, err)
	}
	f.write(t, at+2*half, Record{Revision: 1, Source: Source{Text: text("a", 1)}})
	f.write(t, at-half, Record{Revision: 2, Source: Source{Text: text("a", 2)}}) // which is not before the first
	if err := f.Consult(t.Context(), at+2*half); err != nil || f.adopts != 2 || f.Revision() != 2 || len(f.late) > 0 {
		t.Errorf("%d adopted, revision %d, late %v, %v", f.adopts, f.Revision(), f.late, err)
	}
	f.lookError = errors.New("away")
	if err := f.Consult(t.Context(), at+3*half-1); err != nil {
		t.Errorf("covered, but %v", err)
	}
	if err := f.Consult(t.Context(), at+3*half); !errors.Is(err, f.lookError) {
		t.Error(err)
	}
}

// TestConsultLate: a revision that became readable after events were judged which it can be about is told.
func TestConsultLate(t *testing.T) {
	half, at := Margin.Milliseconds()/2, int64(1_000_000)
	f := follow(t)
	if err := f.Consult(t.Context(), at); err != nil { // everything before at+half may be judged
		t.Fatal(err)
	}
	f.write(t, at-half-1, Record{Revision: 1, Source: Source{Text: text("a", 1)}}) // about events from at+half-1 on
	f.write(t, at-half, Record{Revision: 2, Source: Source{Text: text("a", 2)}})
	if err := f.Consult(t.Context(), at+half); err != nil || cmp.Diff([]int64{1}, f.late) != "" {
		t.Errorf("late %v, %v", f.late, err)
	}
}

// TestConsultUnreadable: events before a revision that cannot be evaluated are judged, later ones are not.
func TestConsultUnreadable(t *testing.T) {
	at := int64(1_000_000)
	f := follow(t)
	f.write(t, at, Record{Revision: 1, Source: Source{Text: "SELECT"}})
	if err := f.Learn(t.Context()); err != nil {
		t.Fatal(err)
	}
	since := at + Margin.Milliseconds()
	if err := f.Consult(t.Context(), since-1); err != nil {
		t.Error(err)
	}
	unreadable := (*Unreadable)(nil)
	if err := f.Consult(t.Context(), since); !errors.As(err, &unreadable) || unreadable.Revision != 1 {
		t.Error(err)
	}
	// Once there are others in its place, it goes on. Nothing was judged that they are about.
	f.write(t, at+100_000, Record{Revision: 2, InsteadOf: 1, Source: Source{Text: text("a", 1)}})
	if err := f.Consult(t.Context(), since); err != nil || len(f.late) > 0 || f.Revision() != 2 {
		t.Errorf("revision %d, late %v: %v", f.Revision(), f.late, err)
	}
}

// TestConsultBeginning: who judges by rules that were never in force has to start over.
func TestConsultBeginning(t *testing.T) {
	f := follow(t)
	if err := f.Learn(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.write(t, 1000, Record{Revision: 1, Source: Source{Text: text("a", 1)}, Beginning: true})
	if err := f.Consult(t.Context(), 1000); err == nil || !strings.Contains(err.Error(), "revision 1 of the rules is in force from the beginning; starting over") || f.adopts != 1 {
		t.Errorf("%d adopted, %v", f.adopts, err)
	}
}

func TestSettle(t *testing.T) {
	own := Settings{Lateness: 10 * time.Second, MaxAhead: time.Minute, Time: []string{"txn_timestamp", "event_time"}}
	table := "CREATE TABLE e (u STRING, happened TIMESTAMP(3), WATERMARK FOR happened AS happened - INTERVAL '3' SECOND) WITH ('connector' = 'kafka');\n" +
		"-- rule: a\nINSERT INTO alerts SELECT u, COUNT(*) AS n FROM e GROUP BY TUMBLE(happened, INTERVAL '10' SECOND), u HAVING COUNT(*) > 1;\n"
	renamed := own
	renamed.Time = []string{"created_at"}
	for name, c := range map[string]struct {
		first *Record
		want  Settings // the service's own ones, if err is not empty
		err   string
	}{
		"no revision":            {nil, own, ""},
		"the service's time":     {&Record{Source: Source{Text: text("a", 1)}, LatenessMS: 10_000, MaxAheadMS: 60_000}, renamed, ""},
		"and from the beginning": {&Record{Source: Source{Text: text("a", 1)}, Beginning: true, LatenessMS: 10_000, MaxAheadMS: 60_000}, renamed, ""},
		"from the beginning":     {&Record{Source: Source{Text: text("a", 1)}, Beginning: true, LatenessMS: 3000, MaxAheadMS: 2000}, Settings{3 * time.Second, 2 * time.Second, own.Time}, ""},
		"another time":           {&Record{Source: Source{Text: table}, Beginning: true, LatenessMS: 3000}, Settings{3 * time.Second, 0, []string{"happened"}}, ""},
		"the same":               {&Record{Source: Source{Text: text("a", 1)}, LatenessMS: 10_000, MaxAheadMS: 60_000}, own, ""},
		"another lateness":       {&Record{Source: Source{Text: text("a", 1)}, LatenessMS: 3000, MaxAheadMS: 60_000}, own, "this worker has 10s and 1m0s"},
		"time while running":     {&Record{Source: Source{Text: table}, LatenessMS: 10_000, MaxAheadMS: 60_000}, own, "set SPATE_TIME_FIELD to happened"},
	} {
		l := newLog(t)
		if c.first != nil {
			c.first.Revision = 1
			l.Take(1000, record(t, *c.first))
			if l.Revision() != 1 || l.Unreadable() != nil {
				t.Fatalf("%s: %v, %v", name, l.Ignored(), l.Unreadable())
			}
		}
		own := own
		if slices.Equal(c.want.Time, renamed.Time) {
			own = renamed
		}
		got, err := l.Settle(own, "worker")
		if d := cmp.Diff(c.want, got); d != "" || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, %s", name, err, d)
		}
	}
}
