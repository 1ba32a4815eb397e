package verifier_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"spate/services/verifier"
	"spate/shared/alert"
	"spate/shared/rule"
	"spate/shared/rule/ruletest"
)

// TestMoreDistinctValuesThanAreCounted: the reference has the lower bounds that spate has, and does not miss alerts for which a condition is unknown.
func TestMoreDistinctValuesThanAreCounted(t *testing.T) {
	var script strings.Builder
	script.WriteString(randomTable)
	for i, having := range []string{"COUNT(DISTINCT product) > 5", "COUNT(DISTINCT product) < 100000", "COUNT(*) > 5"} {
		fmt.Fprintf(&script, "\n-- rule: r%d\nINSERT INTO alerts SELECT user_id, COUNT(DISTINCT product) AS n, COUNT(DISTINCT product) FILTER (WHERE product < 9) AS few, SUM(DISTINCT product) AS total, AVG(DISTINCT product) AS mean FROM shop GROUP BY TUMBLE(t, INTERVAL '1' HOUR), user_id HAVING %s;\n", i, having)
	}
	var log []logEvent
	for n := range rule.MaxDistinct + 1 { // user 1 has all that are counted, 2 one more
		for user := range 2 {
			if n < rule.MaxDistinct+user {
				log = append(log, logEvent{ms: 1_709_164_200_000, columns: map[string]string{"t": isoTime(1_709_164_200_000), "user_id": strconv.Itoa(user + 1), "product": strconv.Itoa(n)}})
			}
		}
	}
	set, errs := rule.Compile(script.String(), rule.Options{})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	report, err := verifier.Rules(context.Background(), script.String(), verifier.RulesOptions{}, verifierEvents(log))
	if err != nil {
		t.Fatal(err)
	}
	events, plan := ruleEvents(log, set.Inputs), set.Plan()
	for i, want := range []verifier.RuleDiff{{Rule: "r0", Rows: 2}, {Rule: "r1", Rows: 2, Uncompared: 1}, {Rule: "r2", Rows: 2}} {
		var got []alert.Record
		for _, line := range ruletest.Sort(ruletest.Naive(t, plan, i, ruletest.LatenessMS, events)) {
			got = append(got, alert.Record{Rule: want.Rule, State: alert.Closed, Key: json.RawMessage(`{"user_id":1}`), Columns: json.RawMessage(line), WindowStart: time.UnixMilli(0), WindowEnd: time.UnixMilli(0)})
		}
		d := verifier.CompareRules(report, got)[i]
		if d.Rows != want.Rows || d.Missing != 0 || d.Extra != 0 || d.Uncompared != want.Uncompared {
			t.Errorf("%+v, want %+v", d, want)
		}
	}
}
