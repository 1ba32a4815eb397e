package verifier

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
)

// TestCompareRules: an alert that is missing, one that is too many and one with another value are found; sums of DOUBLE may differ in their last digits.
func TestCompareRules(t *testing.T) {
	row := func(values ...string) RuleRow {
		r := RuleRow{Start: 0, End: 10_000}
		for _, v := range values {
			r.Values = append(r.Values, json.RawMessage(v))
		}
		return r
	}
	record := func(rule, columns string) alert.Record {
		return alert.Record{Rule: rule, State: alert.Closed, Key: json.RawMessage(`{"user_id":7}`), UserID: json.RawMessage(`7`), Columns: json.RawMessage(columns),
			WindowStart: time.UnixMilli(0).UTC(), WindowEnd: time.UnixMilli(10_000).UTC()}
	}
	columns := []string{"window_start", "user_id", "n", "total"}
	const start = `"1970-01-01T00:00:00.000"`
	report := RulesReport{Rules: []RuleResult{
		{Rule: "same", Columns: columns, Rows: []RuleRow{row(start, "7", "3", "0.30000000000000004")}},
		{Rule: "missing", Columns: columns, Rows: []RuleRow{row(start, "7", "3", "1.5"), row(start, "7", "3", "1.5")}},
		{Rule: "extra", Columns: columns},
		{Rule: "other", Columns: columns, Rows: []RuleRow{row(start, "7", "4", "1.5")}},
		{Rule: "refused", Refused: errors.New("no")},
	}}
	opened := record("extra", `{"n":3,"total":1.5}`)
	opened.State = alert.Opened
	got := CompareRules(report, []alert.Record{
		record("same", `{"n":3,"total":0.3}`), record("missing", `{"n":3,"total":1.5}`), record("extra", `{"n":3,"total":1.5}`), opened, record("other", `{"n":3,"total":1.5}`),
	})
	const seven = `{"window_start":"1970-01-01T00:00:00.000","user_id":7,"n":3,"total":1.5}`
	want := []RuleDiff{
		{Rule: "same", Rows: 1},
		{Rule: "missing", Rows: 2, Missing: 1, Examples: []string{"missing: " + seven}},
		{Rule: "extra", Extra: 1, Examples: []string{"extra: " + seven}},
		{Rule: "other", Rows: 1, Missing: 1, Extra: 1, Examples: []string{"extra: " + seven, `missing: {"window_start":"1970-01-01T00:00:00.000","user_id":7,"n":4,"total":1.5}`}},
		{Rule: "refused", Refused: "no"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
