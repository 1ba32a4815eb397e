package rule_test

import (
	"testing"

	"spate/shared/rule"
)

// TestCountsOfDistinctValuesStop: up to the bound they are exact; beyond it they are lower bounds, and conditions that a greater number could make FALSE are not TRUE.
func TestCountsOfDistinctValuesStop(t *testing.T) {
	exact, beyond := rule.MaxDistinct, rule.MaxDistinct+1
	for _, c := range []struct {
		having string
		values int
		want   bool
	}{
		{"COUNT(DISTINCT product_id) = 65536", exact, true},
		{"COUNT(DISTINCT product_id) <= 65536", exact, true},
		{"SUM(DISTINCT product_id) > 5", exact, true},
		{"COUNT(DISTINCT product_id) < 100000", exact, true},

		{"COUNT(DISTINCT product_id) >= 65536", beyond, true},
		{"NOT COUNT(DISTINCT product_id) < 5", beyond, true},
		{"COUNT(DISTINCT product_id) = 65536", beyond, false},
		{"COUNT(DISTINCT product_id) <= 65536", beyond, false},
		{"COUNT(DISTINCT product_id) BETWEEN 5 AND 100000", beyond, false},
		{"COUNT(DISTINCT product_id) < 100000", beyond, false},
		{"NOT COUNT(DISTINCT product_id) >= 100000", beyond, false},
		{"(COUNT(DISTINCT product_id) < 100000) IS TRUE", beyond, false},
		{"(COUNT(DISTINCT product_id) >= 100000) IS NOT TRUE", beyond, false},
		{"COUNT(DISTINCT product_id) * 2 < COUNT(*) + 100000", beyond, false},
		{"COUNT(DISTINCT product_id) * 2 > COUNT(*) + 7", beyond, true},
		{"COUNT(DISTINCT product_id) IN (65536, 7)", beyond, false},
		{"CASE WHEN COUNT(DISTINCT product_id) < 100000 THEN 1 ELSE 2 END = 1", beyond, false},
		{"COUNT(DISTINCT product_id) < 100000 OR COUNT(*) > 5", beyond, true},
		{"COUNT(DISTINCT product_id) < 100000 AND COUNT(*) > 5", beyond, false},
		{"SUM(DISTINCT product_id) > 5", beyond, false},
		{"COUNT(DISTINCT brand) < 5", beyond, true},
	} {
		set := compile(t, "r", "INSERT INTO alerts SELECT COUNT(DISTINCT product_id) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND) HAVING "+c.having)
		plan := set.Plan()
		feed, program := plan.Feeds[0].Program(), plan.Program(0)
		cells := rule.NewCells(len(plan.Feeds[0].Aggregates))
		row := make([]rule.Value, len(set.Inputs))
		for n := range c.values {
			for i, in := range set.Inputs {
				if in.Name() == "product_id" {
					row[i] = rule.IntValue(int64(n))
				}
			}
			feed.Add(cells, row)
		}
		if !program.Row([]byte("[]"), int64(c.values), cells, 0, 10_000) {
			t.Fatal("the key is none")
		}
		if got := program.Holds(); got != c.want || program.AtLeast() != (c.values == beyond) || program.Column(0).Int() != rule.MaxDistinct {
			t.Errorf("%s with %d values: %v, want %v; a lower bound: %v; %d", c.having, c.values, got, c.want, program.AtLeast(), program.Column(0).Int())
		}
	}
}
