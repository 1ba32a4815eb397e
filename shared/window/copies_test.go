package window

import (
	"slices"
	"testing"

	"spate/shared/rule"
)

// TestCopies: an event of which copies come counts once in every window that one of the copies is in time for, whichever comes first.
func TestCopies(t *testing.T) {
	for _, aggregates := range []string{"COUNT(*) AS n", "SUM(product_id) AS n"} {
		set, errs := rule.Compile("INSERT INTO alerts SELECT "+aggregates+" FROM activity GROUP BY HOP(txn_timestamp, INTERVAL '5' SECOND, INTERVAL '10' SECOND)", rule.Options{Name: "r", Tables: []*rule.Table{rule.Activity()}})
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		s := Stream{Plan: set.Plan()}
		inTime, late := onTime, Judgement{own: 10_000, floor: NoTime} // the latter for [0, 10 s), but not for [5 s, 15 s)
		for _, judged := range [][]Judgement{{inTime, late}, {late, inTime}, {late, late, inTime, inTime, late}, {inTime}} {
			c, table, offset := NewCombiner(s), NewTable(s), int64(0)
			var closed []string
			flush := func(h Header) {
				c.Flush(1, func([]byte) int32 { return 0 }, h, func(_ int32, b []byte) {
					vs, err := table.Apply(offset, slices.Clone(b), nil)
					if err != nil {
						t.Fatal(err)
					}
					for _, v := range vs {
						closed = append(closed, string(v.Columns))
					}
					offset++
				})
			}
			for i, j := range judged {
				e := Event{MS: 7_000, Offset: int64(i), Identity: 9, Values: []rule.Value{rule.IntValue(1)}[:len(set.Inputs)]}
				c.Add(&e, j)
				flush(Header{Sources: 1})
			}
			flush(Header{Sources: 1, Watermarks: []Watermark{{0, EndOfTime}}})
			if !slices.Equal(closed, []string{`"n":1`, `"n":1`}) {
				t.Errorf("%s, %v: closed %q", aggregates, judged, closed)
			}
			if st := table.Stats(); int(st.Repeated) > len(judged)-1 {
				t.Errorf("%v: %+v", judged, st)
			}
		}
	}
}
