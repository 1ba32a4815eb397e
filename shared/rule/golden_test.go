package rule_test

import (
	"testing"

	"spate/shared/rule"
	"spate/shared/rule/ruletest"
)

func compile(t testing.TB, name, sql string) *rule.Set {
	t.Helper()
	set, errs := rule.Compile(sql, rule.Options{Name: name, Tables: []*rule.Table{rule.Activity()}})
	for _, e := range errs {
		t.Error(e.Format(name+".sql", sql))
	}
	if len(errs) > 0 {
		t.FailNow()
	}
	return set
}

// TestGolden: the words of a rule mean what Flink means by them.
func TestGolden(t *testing.T) {
	logs := map[string]*ruletest.Log{}
	for _, c := range ruletest.Cases(t) {
		t.Run(c.Rule+"/"+c.Input, func(t *testing.T) {
			set := compile(t, c.Rule, c.SQL)
			if logs[c.Input] == nil {
				logs[c.Input] = ruletest.ReadLog(t, c.Input)
			}
			got := ruletest.Sort(ruletest.Naive(t, set.Plan(), 0, ruletest.LatenessMS, logs[c.Input].Events(t, set.Inputs)))
			ruletest.Diff(t, set.Rules[0], got, c.Want)
		})
	}
}
