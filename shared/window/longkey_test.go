package window

import (
	"slices"
	"strings"
	"testing"
	"time"

	"spate/shared/rule"
)

// TestLongKey: an event whose key a table would not take is left out, and takes nothing else with it.
func TestLongKey(t *testing.T) {
	set, errs := rule.Compile("-- rule: a\nINSERT INTO alerts SELECT brand, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), brand HAVING COUNT(*) > 0", rule.Options{Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	s, err := NewStream(set.Plan(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(s.Plan.Inputs, func(in rule.Input) bool { return slices.Equal(in.Path, []string{"brand"}) })
	c, table := NewCombiner(s), NewTable(s)
	var batches [][]byte
	flush := func() {
		c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 1, Watermarks: []Watermark{{0, 100_000}}}, func(_ int32, b []byte) { batches = append(batches, slices.Clone(b)) })
	}
	for _, n := range []int{MaxKey - 2, MaxKey - 1, 5_000_000} { // with two quotes
		values := make([]rule.Value, len(s.Plan.Inputs))
		values[at] = rule.StringValue([]byte(strings.Repeat("x", n)))
		c.Add(&Event{MS: 1000, Values: values}, Judgement{})
		if n == MaxKey-1 && c.Panes() != 1 {
			t.Errorf("%d panes", c.Panes())
		}
	}
	flush()
	var found []Verdict
	for i, b := range batches {
		if found, err = table.Apply(int64(i), b, found); err != nil {
			t.Fatal(err)
		}
	}
	if len(found) != 2 || len(found[0].Key) != MaxKey || c.Faults() != 2 { // opened and closed
		t.Errorf("%d verdicts, %d faults", len(found), c.Faults())
	}
}
