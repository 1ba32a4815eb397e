package verifier_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spate/services/verifier"
	"spate/shared/rule/ruletest"
)

// probeDifferences are the probes to which SQLite's answer is not Flink's, or is none.
var probeDifferences = map[string]string{
	"num-div-zero-double-lit": "0 / 0 is refused, and NaN in Flink",
	"div-double":              "0 / 0 is refused, and NaN in Flink",
	"num-int":                 "an overflow is NULL, and wraps in Flink",
	"int-expr-wrap":           "an overflow is NULL, and wraps in Flink",
	"sum-int-wrap":            "SUM has 64 bits, and wraps at 32 in Flink if its argument is an INT",
	"avg-int":                 "an overflow is NULL, and wraps in Flink",
	"regexp-bad":              "an invalid regular expression is refused, and matches nothing in Flink",
	"regexp-java":             "regular expressions are RE2's: without backreferences",
	"avg-neg":                 "STDDEV_POP is not known",
	"limit":                   "LIMIT is not known",
	"subquery":                "queries within FROM are not supported",
	"subquery-having":         "queries within FROM are not supported",
	"double-minus-zero":       "WHERE price = 0 changes no value; Flink's planner puts 0.0 in place of -0.0",
}

// TestRulesProbes: each expression has Flink's value. An expression that is evaluated for every event is put into windows of a millisecond, which
// have one event each.
func TestRulesProbes(t *testing.T) {
	f, err := os.Open(filepath.Join(ruletest.Dir(), "probes", "probes.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	source, err := os.ReadFile(filepath.Join(ruletest.Dir(), "source.sql"))
	if err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	var script strings.Builder
	script.WriteString(strings.ReplaceAll(string(source), "${with}", "'connector' = 'kafka'"))
	wants := map[string][]string{}
	for s.Scan() {
		var p struct {
			Name, Input, SQL, Outcome string
			Rows                      []json.RawMessage
		}
		if err := json.Unmarshal(s.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		if p.Outcome != "rows" || p.Input != "probe" || p.Name == "tvf-no-group" {
			continue
		}
		for _, table := range []string{"activity_decimal", "activity"} {
			if from := " FROM " + table; !strings.Contains(p.SQL, "GROUP BY") && strings.Contains(p.SQL, from) {
				p.SQL = strings.TrimSuffix(strings.Replace(p.SQL, from, " FROM TABLE(TUMBLE(TABLE "+table+", DESCRIPTOR(txn_timestamp), INTERVAL '0.001' SECOND))", 1), ";") + "\nGROUP BY window_start, window_end"
				break
			}
		}
		script.WriteString("\n\n-- rule: " + p.Name + "\nINSERT INTO probe " + p.SQL + ";")
		for _, row := range p.Rows {
			wants[p.Name] = append(wants[p.Name], string(row))
		}
		slices.Sort(wants[p.Name])
	}
	report, err := verifier.RulesFile(context.Background(), script.String(), verifier.RulesOptions{}, filepath.Join(ruletest.Dir(), "probes", "probe.csv"), "none", 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Rules) < 80 {
		t.Fatalf("only %d probes", len(report.Rules))
	}
	for _, r := range report.Rules {
		var got []string
		for i := range r.Rows {
			got = append(got, r.JSON(i))
		}
		slices.Sort(got)
		problem := cmp.Diff(wants[r.Rule], got)
		if r.Refused != nil {
			problem = r.Refused.Error()
		}
		switch reason := probeDifferences[r.Rule]; {
		case problem != "" && reason == "":
			t.Errorf("%s: (-Flink +SQLite)\n%s", r.Rule, problem)
		case problem == "" && reason != "":
			t.Errorf("%s: it is Flink's answer, but is listed as a difference: %s", r.Rule, reason)
		}
	}
}
