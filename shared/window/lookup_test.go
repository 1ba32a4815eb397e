package window

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// Lookup returns the panes of a key that are in the table, by slice: those of open windows and of those whose close is not yet committed.
func (t *Table) Lookup(key string) (out []Pane) {
	k := []byte(key)
	tag := tag(k)
	for _, f := range t.feeds {
		for _, c := range f.slices {
			if i := c.find(tag, k); i >= 0 && c.at(i).count > 0 {
				out = append(out, c.pane(c.at(i)))
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Pane) int { return cmp.Compare(a.StartMS, b.StartMS) })
	return out
}

// TestWindows: what is said of a window before it ends is what its verdict says if it ends then.
func TestWindows(t *testing.T) {
	windows, holding := 0, 0
	for seed := range uint64(80) {
		tr := newRulesTrial(t, seed)
		c, table := NewCombiner(tr.stream), NewTable(tr.stream)
		sources := make([]Source, len(tr.sources))
		for p := range sources {
			sources[p] = NewSource()
			for i, e := range tr.sources[p] {
				c.Add(&Event{Partition: int32(p), Offset: int64(i), MS: e.ts, Identity: e.id, Values: e.values}, sources[p].Judge(tr.stream.LatenessMS, e.ts, Unbounded))
			}
		}
		offset := int64(0)
		flush := func(watermark int64) (out []Verdict) {
			h := Header{Sources: int32(len(sources))}
			for p, s := range sources {
				if ms := max(watermark, s.Watermark(tr.stream.LatenessMS)); ms != NoTime {
					h.Watermarks = append(h.Watermarks, Watermark{int32(p), ms})
				}
			}
			c.Flush(1, func([]byte) int32 { return 0 }, h, func(_ int32, batch []byte) {
				var err error
				if out, err = table.Apply(offset, batch, out); err != nil {
					t.Fatal(err)
				}
				offset++
			})
			return out
		}
		flush(NoTime)
		keys := map[string]bool{}
		table.Each(func(key string, _ Pane) { keys[key] = true })
		stats := table.Stats()
		now := map[windowKey]Verdict{}
		for key := range keys {
			list, more := table.Windows(key, math.MaxInt)
			if len(more) > 0 {
				t.Fatalf("seed %d: %v more", seed, more)
			}
			perRule := map[int]int{}
			for _, w := range list {
				windows++
				perRule[w.Rule]++
				if told := w.Opened || w.Holds && !table.rules[w.Rule].early; told {
					holding++
					now[windowKey{w.Rule, key, w.Pane.StartMS, w.Pane.EndMS()}] = Verdict{Rule: w.Rule, Key: key, State: Closed, Pane: w.Pane, Critical: w.Critical, Columns: w.Columns, AtLeast: w.AtLeast}
				}
				if w.Opened && !table.rules[w.Rule].early {
					t.Errorf("seed %d: opened early: %+v", seed, w)
				}
			}
			first, more := table.Windows(key, 1)
			for rule, n := range perRule {
				if n > 1 && more[rule] != n-1 || n == 1 && more[rule] != 0 {
					t.Errorf("seed %d: rule %d has %d windows, 1 and %d more", seed, rule, n, more[rule])
				}
			}
			if len(first) != len(perRule) {
				t.Errorf("seed %d: %d of %d windows of %d rules", seed, len(first), len(list), len(perRule))
			}
			for _, w := range first {
				i := slices.IndexFunc(list, func(o KeyWindow) bool { return o.Rule == w.Rule })
				if d := gocmp.Diff(list[i], w, gocmp.AllowUnexported(Pane{})); d != "" {
					t.Errorf("seed %d: %s", seed, d)
				}
			}
		}
		if d := gocmp.Diff(stats, table.Stats()); d != "" {
			t.Errorf("seed %d: to look changes something: %s", seed, d)
		}
		closed := map[windowKey]Verdict{}
		for _, v := range flush(EndOfTime) {
			closed[windowKey{v.Rule, v.Key, v.Pane.StartMS, v.Pane.EndMS()}] = v
		}
		if d := gocmp.Diff(closed, now, gocmp.AllowUnexported(Pane{})); d != "" {
			t.Errorf("seed %d: %s", seed, d)
		}
		for key := range maps.Keys(keys) {
			if list, more := table.Windows(key, 9); len(list)+len(more) > 0 {
				t.Errorf("seed %d: after the end: %+v", seed, list)
			}
		}
	}
	if holding < 100 || windows < 10*holding/9 {
		t.Errorf("%d windows, for %d of which the condition is TRUE: it proves little", windows, holding)
	}
}
