package verifier_test

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"spate/services/verifier"
	"spate/shared/rule/ruletest"
)

// TestRulesGolden: SQLite and Flink agree. It is one script for each input.
func TestRulesGolden(t *testing.T) {
	byInput := map[string][]ruletest.Case{}
	for _, c := range ruletest.Cases(t) {
		byInput[c.Input] = append(byInput[c.Input], c)
	}
	for input, cases := range byInput {
		if testing.Short() && input != "late" && input != "cosmetics-2019-10" {
			continue
		}
		t.Run(input, func(t *testing.T) {
			var script strings.Builder
			for i, c := range cases {
				at := strings.LastIndex(strings.ToUpper(c.SQL), "INSERT INTO")
				if i == 0 {
					script.WriteString(c.SQL[:at])
				}
				script.WriteString("\n\n-- rule: " + c.Rule + "\n" + c.SQL[at:])
			}
			report, err := verifier.RulesFile(context.Background(), script.String(), verifier.RulesOptions{}, inputFile(input), "none", 1)
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Rules) != len(cases) || report.In == 0 || report.Invalid != 0 {
				t.Fatalf("%d rules, %d events, %d invalid", len(report.Rules), report.In, report.Invalid)
			}
			for i, c := range cases {
				if r := report.Rules[i]; r.Refused != nil {
					t.Errorf("%s is refused: %v", c.Rule, r.Refused)
				} else {
					compareGolden(t, c, r)
				}
			}
		})
	}
}

func inputFile(name string) string {
	path := filepath.Join(ruletest.Dir(), "inputs", name+".csv.gz")
	if _, err := os.Stat(path); err != nil {
		path = filepath.Join(ruletest.Dir(), "..", name+".csv.gz")
	}
	return path
}

func compareGolden(t *testing.T, c ruletest.Case, got verifier.RuleResult) {
	t.Helper()
	want := c.Want
	if len(want) == 1 && want[0] == "" {
		want = nil
	}
	if len(got.Rows) != len(want) {
		t.Errorf("%s: %d rows, want %d", c.Rule, len(got.Rows), len(want))
	}
	for i := range min(len(got.Rows), len(want)) {
		if line := got.JSON(i); line != want[i] && !sameRow(t, c.Rule, got, i, want[i]) {
			t.Errorf("%s: row %d:\n got %s\nwant %s", c.Rule, i, line, want[i])
			return
		}
	}
}

// sameRow reports whether a row is Flink's but for the last digits of sums of DOUBLE, and the sum that Flink wraps in silence.
func sameRow(t *testing.T, rule string, got verifier.RuleResult, row int, want string) bool {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(want), &members); err != nil {
		t.Fatal(err)
	}
	for i, name := range got.Columns {
		x, y := string(got.Rows[row].Values[i]), string(members[name])
		wrapped := rule == "bigint-aggs" && name == "cat_sum" && x == "null"
		if x != y && !wrapped && !near(x, y) {
			return false
		}
	}
	return len(members) == len(got.Columns)
}

// near reports whether two DOUBLEs are equal but for their last digits: those of a sum that has had 1e8 in it.
func near(x, y string) bool {
	f, err1 := strconv.ParseFloat(x, 64)
	g, err2 := strconv.ParseFloat(y, 64)
	return err1 == nil && err2 == nil && strings.ContainsAny(x, ".e") && strings.ContainsAny(y, ".e") && math.Abs(f-g) <= 1e-12*math.Abs(g)+1e-8
}
