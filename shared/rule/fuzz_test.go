package rule_test

import (
	"testing"

	"spate/shared/rule"
	"spate/shared/rule/ruletest"
)

// FuzzCompile: no file makes the compiler fail otherwise than by errors, and a rule that is written again is the same rule.
func FuzzCompile(f *testing.F) {
	for _, c := range ruletest.Cases(f) {
		f.Add(c.SQL)
	}
	f.Add("-- rule: r\n-- param: a = 5\n-- critical: COUNT(*) > ${a}\nINSERT INTO a SELECT user_id, CASE WHEN COUNT(*) > 1 THEN 'x' END AS c FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '1' SECOND), user_id HAVING NOT COUNT(*) = 0")
	options := rule.Options{Name: "r", Tables: []*rule.Table{rule.Activity()}}
	f.Fuzz(func(t *testing.T, source string) {
		set, errs := rule.Compile(source, options)
		for _, e := range errs {
			if e.Pos < 0 || int(e.Pos) > len(source) {
				t.Errorf("an error is at %d of %d", e.Pos, len(source))
			}
		}
		if len(errs) > 0 {
			return
		}
		plan := set.Plan()
		for i := range plan.Rules {
			plan.Program(i)
			plan.Feeds[plan.FeedOf[i]].Program()
		}
		for _, r := range set.Rules {
			r.Warnings()
			r.Early()
			r.EarlyCritical()
			r.LeastEvents()
			if c := set.Cost(r); c.Panes < 1 || c.BytesPerKey < 48 || c.MaxBytesPerKey < c.BytesPerKey {
				t.Errorf("%+v", c)
			}
			again, errs := rule.Compile(r.Statement(""), rule.Options{Tables: append(set.Tables, options.Tables...)})
			if len(errs) > 0 {
				t.Fatal(errs[0].Format("again.sql", r.Statement("")))
			}
			if a, b := r.FeedKey(), again.Rules[0].FeedKey(); a != b {
				t.Errorf("%q is another feed than %q:\n%s", a, b, r.Statement(""))
			}
		}
	})
}
