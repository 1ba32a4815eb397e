package window

import (
	"fmt"
	"slices"
	"testing"

	"spate/shared/rule"
)

// TestSplit: sums that are too many for one batch are as many batches, each of which can be read by itself.
func TestSplit(t *testing.T) {
	const keys, statement = 20_000, "INSERT INTO alerts SELECT user_id, %s AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '%d' SECOND), user_id;\n"
	set, errs := rule.Compile("-- rule: a\n"+fmt.Sprintf(statement, "COUNT(*)", 10)+"-- rule: b\n"+fmt.Sprintf(statement, "SUM(product_id)", 20), rule.Options{Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	s := Stream{Plan: set.Plan()}
	c, table, offset, largest := NewCombiner(s), NewTable(s), int64(0), 0
	for i := range int64(2 * keys) {
		e := Event{MS: i % 2 * 10_000, Offset: i, Values: make([]rule.Value, len(set.Inputs))}
		for k, in := range set.Inputs {
			if e.Values[k] = rule.IntValue(3); in.Name() == "user_id" {
				e.Values[k] = rule.TokenValue(fmt.Appendf(nil, "%d", 520_000_000+i/2))
			}
		}
		c.Add(&e, onTime)
	}
	var closed int
	c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 1, Watermarks: []Watermark{{0, EndOfTime}}}, func(_ int32, b []byte) {
		vs, err := table.Apply(offset, slices.Clone(b), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vs {
			if want := []string{`"n":1`, `"n":6`}[v.Rule]; string(v.Columns[len(v.Columns)-len(want):]) != want {
				t.Fatalf("%+v", v)
			}
		}
		closed, offset, largest = closed+len(vs), offset+1, max(largest, len(b))
	})
	if closed != 3*keys || offset < 3 || largest > MaxBatchBytes+1000 || table.Stats().Stray > 0 {
		t.Errorf("%d windows out of %d batches of up to %d bytes, %+v", closed, offset, largest, table.Stats())
	}
}
