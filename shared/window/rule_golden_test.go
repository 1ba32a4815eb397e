package window

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"testing"

	"spate/shared/rule"
	"spate/shared/rule/ruletest"
)

// TestGoldenRules holds both halves of the engine against what Apache Flink answered to rules of every kind: on one source partition, and on
// four where no row is late.
func TestGoldenRules(t *testing.T) {
	logs := map[string]*ruletest.Log{}
	for _, c := range ruletest.Cases(t) {
		for _, partitions := range []int{1, 4} {
			if partitions > 1 && c.Late {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s/%d", c.Rule, c.Input, partitions), func(t *testing.T) {
				set, errs := rule.Compile(c.SQL, rule.Options{Name: c.Rule})
				if len(errs) > 0 {
					t.Fatal(errs)
				}
				stream, err := NewStream(set.Plan(), 0)
				if refused := err != nil; refused != (set.Rules[0].Window.Kind == rule.Session) {
					t.Fatalf("%s: %v", set.Rules[0].Window, err)
				} else if refused {
					return // the engine does not evaluate sessions yet, and says so
				}
				if logs[c.Input] == nil {
					logs[c.Input] = ruletest.ReadLog(t, c.Input)
				}
				stream.LatenessMS = ruletest.LatenessMS
				ruletest.Diff(t, set.Rules[0], replay(t, stream, logs[c.Input].Events(t, set.Inputs), partitions), c.Want)
			})
		}
	}
}

// replay runs events through both halves, with transactions of random length and two keyed partitions.
func replay(t *testing.T, s Stream, events []ruletest.Event, partitions int) []string {
	t.Helper()
	r := rand.New(rand.NewPCG(1, uint64(len(events))))
	sources := make([]Source, partitions)
	for p := range sources {
		sources[p] = NewSource()
	}
	c := NewCombiner(s)
	tables := []*Table{NewTable(s), NewTable(s)}
	var lines []ruletest.Timed
	offset := int64(0)
	flush := func() {
		h := Header{Sources: int32(partitions)}
		for p, src := range sources {
			if w := src.Watermark(s.LatenessMS); w != NoTime {
				h.Watermarks = append(h.Watermarks, Watermark{int32(p), w})
			}
		}
		home := func(key []byte) int32 {
			h := fnv.New32a()
			h.Write(key)
			return int32(h.Sum32() % 2)
		}
		c.Flush(2, home, h, func(p int32, batch []byte) {
			vs, err := tables[p].Apply(offset, slices.Clone(batch), nil)
			if err != nil {
				t.Fatal(err)
			}
			offset++
			for _, v := range vs {
				if v.State == Closed {
					lines = append(lines, ruletest.Timed{Start: v.Pane.StartMS, End: v.Pane.EndMS(), Line: "{" + string(v.Columns) + "}"})
				}
			}
			tables[p].Committed(tables[p].Position(offset))
		})
	}
	next := r.IntN(500)
	for i, e := range events {
		p := i % partitions
		j := sources[p].Judge(s.LatenessMS, e.MS, Unbounded)
		c.Add(&Event{MS: e.MS, Partition: int32(p), Offset: int64(i), Values: e.Values}, j)
		if i == next {
			flush()
			next += 1 + r.IntN(500)
		}
	}
	for p := range sources {
		sources[p].Floor = EndOfTime
	}
	flush()
	for _, table := range tables {
		if st := table.Stats(); st.Stray > 0 || st.Panes > 0 || len(table.windows) > 0 {
			t.Errorf("at the end: %+v, %d windows", st, len(table.windows))
		}
	}
	return ruletest.Sort(lines)
}
