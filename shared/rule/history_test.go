package rule

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestWindowsInForce compares the windows of a rule that is in force for some time with those of the same rule, of which the others are left out.
func TestWindowsInForce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	type window struct{ start, end int64 }
	for range 20_000 {
		w := Window{Kind: []WindowKind{Tumble, Hop, Cumulate}[rng.IntN(3)], Offset: rng.Int64N(40) - 20}
		w.Step = 1 + rng.Int64N(10)
		switch w.Kind {
		case Tumble:
			w.Size = w.Step
		case Hop:
			w.Size = 1 + rng.Int64N(40)
		case Cumulate:
			w.Size = w.Step * (1 + rng.Int64N(5))
		}
		bound := w
		if rng.IntN(3) > 0 {
			bound.From = 1 + rng.Int64N(60)
		}
		if rng.IntN(3) > 0 {
			bound.Until = bound.From + 1 + rng.Int64N(60)
		}
		slice := w.Slice()
		ms := floorTo(rng.Int64N(160)-20, slice, ((w.Offset%slice)+slice)%slice)
		after, until := ms-10+rng.Int64N(60), ms+rng.Int64N(80)
		var want, got []window
		w.Each(ms, after, until, func(start, end int64) {
			if (bound.From == 0 || start >= bound.From) && (bound.Until == 0 || start < bound.Until) {
				want = append(want, window{start, end})
			}
		})
		bound.Each(ms, after, until, func(start, end int64) { got = append(got, window{start, end}) })
		if !slices.Equal(got, want) {
			t.Fatalf("%+v, slice %d, after %d until %d: %v, want %v", bound, ms, after, until, got, want)
		}
		last := int64(-1 << 63)
		w.Each(ms, -1<<40, 1<<40, func(start, end int64) {
			if (bound.From == 0 || start >= bound.From) && (bound.Until == 0 || start < bound.Until) {
				last = max(last, end)
			}
		})
		if got := bound.lastEnd(ms); got != last {
			t.Fatalf("%+v, slice %d: the last window ends at %d, want %d", bound, ms, got, last)
		}
	}
}

func revise(t *testing.T, h *History, revision, from int64, source string) {
	t.Helper()
	set, errs := Compile(source, Options{Name: "only", Tables: []*Table{Activity()}, Inputs: h.Inputs()})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	h.Add(revision, set, from)
}

// counting is a rule over views.
func counting(name, having string) string {
	return fmt.Sprintf("-- rule: %s\nINSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity WHERE event_type = 'view' GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING %s;\n", name, having)
}

func described(p *Plan) string {
	var b strings.Builder
	for i, r := range p.Rules {
		fmt.Fprintf(&b, "%s since %d [%d, %d) in feed %d\n", r.Name, p.Since[i], r.Window.From, r.Window.Until, p.FeedOf[i])
	}
	return b.String()
}

func TestHistory(t *testing.T) {
	var h History
	a, b := counting("a", "COUNT(*) > 5"), counting("b", "COUNT(DISTINCT product_id) > 3")
	revise(t, &h, 1, 0, a)
	first := h.Plan()
	feed := first.Feeds[0].ID
	// Another rule that needs more of the same events has a feed of its own: that of a goes on.
	revise(t, &h, 2, 100, a+b)
	second := h.Plan()
	if got, want := described(second), "a since 1 [0, 0) in feed 0\nb since 2 [100, 0) in feed 1\n"; got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
	// A threshold that changes: the rule ends, its successor counts on.
	revise(t, &h, 3, 200, counting("a", "COUNT(*) > 6")+b)
	if got, want := described(h.Plan()), "a since 1 [0, 200) in feed 0\nb since 2 [100, 0) in feed 1\na since 3 [200, 0) in feed 0\n"; got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
	// Nothing is in force, then what was before.
	revise(t, &h, 4, 300, "-- mode: off\n"+a)
	if len(h.InForce()) != 0 {
		t.Errorf("%d rules are in force", len(h.InForce()))
	}
	revise(t, &h, 5, 300, a+b)
	if got, want := described(h.Plan()), "a since 1 [0, 200) in feed 0\nb since 2 [100, 300) in feed 1\na since 3 [200, 300) in feed 0\na since 5 [300, 0) in feed 0\nb since 5 [300, 0) in feed 1\n"; got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
	if first.Feeds[0].ID != feed || h.Plan().Feeds[0].ID != feed || described(first) != "a since 1 [0, 0) in feed 0\n" || len(second.Rules) != 2 || second.Rules[0].Window.Until != 0 {
		t.Error("a plan has changed")
	}
	// Whoever reads all revisions at once has the same plan.
	for i, f := range h.Plan().Feeds {
		if len(f.Aggregates) != i {
			t.Errorf("feed %d has %d aggregates", i, len(f.Aggregates))
		}
	}
}

// TestRevoked: a revision whose boundary is before that of others takes their place, and follows what is in force at its boundary.
func TestRevoked(t *testing.T) {
	var h History
	a, b, c := counting("a", "COUNT(*) > 5"), counting("b", "COUNT(*) > 3"), counting("c", "COUNT(*) > 1")
	revise(t, &h, 1, 0, a+b)
	revise(t, &h, 2, 9000, a+c)                    // b ends
	revise(t, &h, 3, 1<<50, c)                     // in the wrong year
	revise(t, &h, 4, 1<<51, a+b)                   // rolled back there
	revise(t, &h, 5, 10_000, a)                    // after 2, before 3
	revise(t, &h, 6, 500, "-- mode: shadow\n"+a+b) // before all but 1
	want := fmt.Sprintf("a since 1 [0, 500) in feed 0\nb since 1 [0, 0) in feed 0\nc since 2 [9000, 9000) in feed 0\na since 4 [%d, %[1]d) in feed 0\nb since 4 [%[1]d, %[1]d) in feed 0\na since 6 [500, 0) in feed 0\n", int64(1)<<51)
	if got := described(h.Plan()); got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
	if got := h.InForce(); len(got) != 2 || got[0].Mode != Shadow || got[1].Name != "b" {
		t.Errorf("in force: %+v", got)
	}
	for _, r := range h.Plan().Rules {
		if w := r.Window; w.From == w.Until && w.From > 0 {
			if end := w.lastEnd(w.From); end != math.MinInt64 {
				t.Errorf("%s has a window that ends at %d", r.Name, end)
			}
		}
	}
}

// TestInputsKeepTheirNumbers: an event's values are read once for the rules of all revisions.
func TestInputsKeepTheirNumbers(t *testing.T) {
	var h History
	revise(t, &h, 1, 0, counting("a", "COUNT(DISTINCT product_id) > 5"))
	was := slices.Clone(h.Inputs())
	revise(t, &h, 2, 100, "INSERT INTO alerts SELECT brand, SUM(price) AS total FROM activity WHERE event_type = 'purchase' GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), brand HAVING SUM(price) > 5")
	now := h.Inputs()
	if len(now) <= len(was) || fmt.Sprint(now[:len(was)]) != fmt.Sprint(was) {
		t.Errorf("%v, then %v", was, now)
	}
}

// TestManyRevisions: rules that are changed again and again are all kept, because their last windows may still be open. What begins and ends with each is
// known without a look at all others, and events after their last windows are no concern of their feeds.
func TestManyRevisions(t *testing.T) {
	const revisions, rules, boundary = 60, 64, 60_000
	var h History
	var before History
	for n := int64(1); n <= revisions; n++ {
		var text strings.Builder
		for i := range rules {
			fmt.Fprintf(&text, "-- rule: r%d\nINSERT INTO alerts SELECT user_id FROM activity WHERE product_id <> %d GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id;\n", i, n)
		}
		before = h
		revise(t, &h, n, (n-1)*boundary, text.String())
	}
	p := h.Plan()
	if len(p.Rules) != revisions*rules || len(p.Feeds) != revisions || len(h.InForce()) != rules {
		t.Fatalf("%d rules, %d feeds, %d in force", len(p.Rules), len(p.Feeds), len(h.InForce()))
	}
	for i, f := range p.Feeds {
		want := int64(i+1)*boundary - 1 + 10_000
		if i == revisions-1 {
			want = math.MaxInt64
		}
		if f.Ended() != want {
			t.Errorf("the windows of feed %d have ended at %d, want %d", i, f.Ended(), want)
		}
	}
	// A copy sees nothing of what follows.
	other := before
	revise(t, &other, revisions, boundary*revisions, counting("a", "COUNT(*) > 1"))
	revise(t, &before, revisions, boundary*revisions, counting("b", "COUNT(*) > 1"))
	revise(t, &other, revisions+1, boundary*revisions, counting("a", "COUNT(*) > 1"))
	if got := other.Plan(); len(got.Rules) != (revisions-1)*rules+1 || got.Rules[len(got.Rules)-1].Window.Until != 0 {
		t.Errorf("a rule that did not change ends: %v", described(got)[(revisions-1)*rules:])
	}
}
