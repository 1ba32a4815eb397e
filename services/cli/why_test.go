package cli

import (
	"slices"
	"testing"

	"spate/services/explainer"
	"spate/shared/rule"
)

// TestReferenceUsers: users of the built-in table are what the events have, a number or a text, and counted as such.
func TestReferenceUsers(t *testing.T) {
	for _, c := range []struct {
		name, source string
		users        []string
		columns      string
	}{
		{"a text is a key", "SELECT user_id, COUNT(*) AS n FROM activity WHERE product_id > 0 GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id", []string{`"ann"`, `"ann"`}, `{"user_id":"ann","n":2}`},
		{"a number is a key", "SELECT user_id, COUNT(*) AS n FROM activity WHERE user_id <> 5 GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id", []string{`7`, `7`}, `{"user_id":7,"n":2}`},
		{"texts are counted", "SELECT brand, COUNT(DISTINCT user_id) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), brand", []string{`"ann"`, `"bob"`, `"bob"`, `7`, `"7"`}, `{"brand":"x","n":4}`},
		{"a number is counted and computed with", "SELECT brand, COUNT(DISTINCT user_id) AS n, MIN(user_id) AS first FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), brand", []string{`8`, `"ann"`, `7`}, `{"brand":"x","n":3,"first":7}`},
	} {
		source := "INSERT INTO alerts " + c.source + " HAVING COUNT(*) > 1;" // without a name: the rule has that of its file
		set, errs := rule.Compile(source, rule.Options{Name: "r", Tables: []*rule.Table{rule.Activity()}})
		if errs != nil {
			t.Fatal(c.name, errs)
		}
		var events []explainer.Input
		for i, user := range c.users {
			events = append(events, explainer.Input{MS: int64(i), Text: []byte(`{"user_id":` + user + `,"product_id":1,"brand":"x"}`), User: []byte(user)})
		}
		groups, err := reference(t.Context(), explainer.Rule{Rule: set.Rules[0], Revision: 1, Source: source}, slices.Values(events))
		if err != nil || len(groups) != 1 || !groups[0].Holds || string(groups[0].Columns) != c.columns {
			t.Errorf("%s: %v, %+v", c.name, err, groups)
		}
	}
}
