package rule

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestChanges: of a rule that is not the same any more, every part that somebody changed is named; how it is written does not matter.
func TestChanges(t *testing.T) {
	const text = `-- summary: {n} events
-- critical: COUNT(*) > 10
INSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity WHERE event_type = 'view'
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5;`
	compile := func(text string) *Rule {
		t.Helper()
		s, errs := Compile(text, Options{Name: "r", Tables: []*Table{Activity()}})
		if len(errs) > 0 {
			t.Fatalf("%s: %v", text, errs)
		}
		return s.Rules[0]
	}
	for _, test := range []struct{ old, new, want string }{
		{"\n", "  \n", ""},
		{"COUNT(*) > 5", "(COUNT(*)) > 5", ""},
		{"COUNT(*) > 5", "COUNT(*) > 6", "HAVING: COUNT(*) > 5 -> COUNT(*) > 6"},
		{"COUNT(*) > 10", "COUNT(*) > 11", "critical: COUNT(*) > 10 -> COUNT(*) > 11"},
		{"{n} events", "{n}", "summary: {n} events -> {n}"},
		{"INSERT", "-- mode: shadow\nINSERT", "mode: live -> shadow"},
		{"INSERT", "-- runbook: https://r.example\nINSERT", "runbook:  -> https://r.example"},
		{"'10' SECOND", "'20' SECOND", "window: TUMBLE 10 s -> TUMBLE 20 s"},
		{" WHERE event_type = 'view'", "", "WHERE: event_type = 'view' -> "},
		{"AS n ", "AS n, MAX(price) AS most ", "SELECT: user_id, COUNT(*) AS n -> user_id, COUNT(*) AS n, MAX(price) AS most"},
		{"SELECT user_id, COUNT(*) AS n", "SELECT COUNT(*) AS n, user_id", "SELECT: user_id, COUNT(*) AS n -> COUNT(*) AS n, user_id"},
		{"), user_id", "), user_id, event_type", "key: user_id -> user_id, event_type"},
	} {
		if !strings.Contains(text, test.old) {
			t.Fatalf("no %q", test.old)
		}
		a, b := compile(text), compile(strings.ReplaceAll(text, test.old, test.new))
		var got []string
		for _, c := range Changes(a, b) {
			got = append(got, fmt.Sprintf("%s: %s -> %s", c.Part, c.From, c.To))
		}
		if d := cmp.Diff(test.want, strings.Join(got, "; ")); d != "" {
			t.Errorf("%q for %q: %s", test.new, test.old, d)
		}
		if Same(a, b) != (test.want == "") {
			t.Errorf("%q for %q: same is %v", test.new, test.old, Same(a, b))
		}
	}
	// What is written stays, and what it means does not.
	const table = "CREATE TABLE e (t TIMESTAMP(3), v %s, WATERMARK FOR t AS t);\nINSERT INTO alerts SELECT MAX(v) AS m, COUNT(*) AS n FROM e GROUP BY TUMBLE(t, INTERVAL '10' SECOND) HAVING COUNT(*) > 1"
	if got := Changes(compile(fmt.Sprintf(table, "BIGINT")), compile(fmt.Sprintf(table, "DOUBLE"))); len(got) != 1 || got[0].Part != "statement" {
		t.Errorf("other types: %v", got)
	}
}
