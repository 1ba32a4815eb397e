package rule

import (
	"fmt"
	"testing"

	"spate/shared/rule/syntax"
)

func TestSweep(t *testing.T) {
	for having, want := range map[string]string{
		"COUNT(*) > 5":  "COUNT(*) > 5 true half 2",
		"COUNT(*) >= 1": "COUNT(*) >= 1 true half 0",
		"COUNT(DISTINCT product_id) > 30 AND COUNT(*) > 5":                          "COUNT(DISTINCT product_id) > 30 true half 15",
		"MAX(price) < 3 AND (COUNT(*) > 1 OR MAX(price) > 1) AND SUM(price) > 10.5": "SUM(price) > 10.5 false half 5.25",
		"AVG(price) >= 3e0":              "AVG(price) >= 3 false half 1.5",
		"COUNT(*) * 0.1 > 0.1":           "COUNT(*) * 0.1 > 0.1 false half \"0.0\"",
		"5 < COUNT(*)":                   "COUNT(*) > 5 true half 2",
		"COUNT(*) BETWEEN 6 AND 20":      "COUNT(*) >= 6 true half 3",
		"5 > COUNT(*)":                   "",
		"COUNT(*) > 5 OR MAX(price) > 1": "",
		"COUNT(*) > -1":                  "",
		"COUNT(*) < 5":                   "",
		"COUNT(*) > 9223372036854775807": "",
		"MAX(event_type) > 'x'":          "",
	} {
		set, errs := Compile("INSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity GROUP BY user_id, TUMBLE(txn_timestamp, INTERVAL '10' SECOND) HAVING "+having, Options{Tables: []*Table{Activity()}, Name: "r"})
		if len(errs) > 0 {
			t.Errorf("%s: %v", having, errs)
			continue
		}
		s, ok := set.Rules[0].Sweep()
		got := ""
		if ok {
			var half *node
			for _, n := range s.Rule.having.conjuncts() {
				if n.op == opCompare && n.name == s.Op && madeOf(n.args[0]) != nil && s.What == syntax.Print(madeOf(n.args[0])) {
					half = n.args[1]
				}
			}
			got = fmt.Sprintf("%s %s %v %v half %s", s.What, s.Op, s.Limit, s.Whole, AppendJSON(nil, half.typ, half.value))
			if len(s.Rule.Columns) != 4 || len(set.Rules[0].Columns) != 2 || s.Rule.Columns[3].Type.Kind != Boolean {
				t.Errorf("%s: %+v", having, s.Rule.Columns)
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", having, got, want)
		}
	}
	set, errs := Compile("INSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity GROUP BY user_id, TUMBLE(txn_timestamp, INTERVAL '10' SECOND)", Options{Tables: []*Table{Activity()}, Name: "r"})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if _, ok := set.Rules[0].Sweep(); ok {
		t.Error("a rule without HAVING has a sweep")
	}
}
