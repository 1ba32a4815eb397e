package rule_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spate/shared/rule/ruletest"
)

// TestStatement: a rule that is written again, for another table, is the same rule.
func TestStatement(t *testing.T) {
	for _, c := range ruletest.Cases(t) {
		first := compile(t, c.Rule, c.SQL)
		tables := c.SQL[:strings.Index(strings.ToUpper(c.SQL), "INSERT INTO")]
		second := compile(t, c.Rule, tables+first.Rules[0].Statement("other"))
		a, b := first.Rules[0], second.Rules[0]
		if b.Target != "other" || a.FeedKey() != b.FeedKey() {
			t.Errorf("%s: target %s, feed %s, want %s", c.Rule, b.Target, b.Feed(), a.Feed())
		}
		if again := b.Statement(""); again != a.Statement("other") {
			t.Errorf("%s: %s", c.Rule, cmp.Diff(a.Statement("other"), again))
		}
	}
	set := compile(t, "", `CREATE TABLE s (`+"`a;b`"+` BIGINT, n BIGINT);
-- rule: burst
-- param: least = 5
-- summary: {a;b} did it
-- mode: shadow
-- critical: ( COUNT(*) ) > ${least}
-- runbook: https://example.com/x
insert into s (n, `+"`a;b`) -- here\nselect count(*), user_id from activity group by tumble(txn_timestamp, interval '10' second), user_id having count(*) > ${least}")
	const want = "-- rule: burst\n-- summary: {a;b} did it\n-- critical: COUNT(*) > 5\n-- mode: shadow\n-- runbook: https://example.com/x\n" +
		"INSERT INTO `two words` (n, `a;b`)\nselect count(*), user_id from activity group by tumble(txn_timestamp, interval '10' second), user_id having count(*) > 5;\n"
	if diff := cmp.Diff(want, set.Rules[0].Statement("two words")); diff != "" {
		t.Error(diff)
	}
}
