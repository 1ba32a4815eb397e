package cli

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// twoCases are cases of twoRules of which the second fails.
const twoCases = `cases:
  - name: a burst
    events:
      - {repeat: 6, every: 1s, user_id: 7, txn_timestamp: "2024-01-01 00:00:00"}
    expect: {burst: [{user_id: 7, n: 6, opened: true}]}
  - name: a scraper <&>
    events:
      - {repeat: 31, every: 1s, user_id: 7, product_id: "#", txn_timestamp: "2024-01-01 00:00:00"}
    expect:
      scraper:
        - {user_id: 7, products: 32, window_start: "2024-01-01 00:00:00"}
    others: ignore
`

// rulesFolder writes rules, and cases beside them; their paths are returned.
func rulesFolder(t *testing.T, rules, cases string) (sql, yaml string) {
	t.Helper()
	sql = rulesFileOf(t, "shop.sql", rules)
	yaml = strings.TrimSuffix(sql, ".sql") + "_test.yaml"
	if err := os.WriteFile(yaml, []byte(cases), 0o600); err != nil {
		t.Fatal(err)
	}
	return sql, yaml
}

var seconds = regexp.MustCompile(`\d+\.\d+s`)

// TestRulesTest: the output is that of go test, and the exit code says whether a case failed.
func TestRulesTest(t *testing.T) {
	bare(t)
	sql, yaml := rulesFolder(t, twoRules, twoCases)
	failed := `--- FAIL: a scraper <&> (0s)
    shop_test.yaml:11: scraper: alert differs
        products: got 31, expected 32
        got      {user_id: 7, products: 31, window_start: "2024-01-01T00:00:00.000", window_end: "2024-01-01T00:01:00.000", opened: false, critical: false}
        expected {user_id: 7, products: 32, window_start: "2024-01-01T00:00:00.000"}
    shop_test.yaml:11: scraper: unexpected alert
`
	code, out, errs := spate("rules", "test", sql)
	if out = seconds.ReplaceAllString(out, "0s"); code != ExitFailed || errs != "" || !strings.HasPrefix(out, failed) || !strings.HasSuffix(out, "\nFAIL\t"+yaml+"\t0s\nFAIL\n") {
		t.Errorf("exit %d, %q\n%s\nwant\n%s", code, errs, out, failed)
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{yaml, sql, "--run", "a b"}, ExitOK, "ok  \t" + yaml + "\t0s\n"},
		{[]string{sql, "--run", "a b", "-v"}, ExitOK, "=== RUN   a burst\n--- PASS: a burst (0s)\nok  \t" + yaml + "\t0s\nPASS\n"},
		{[]string{sql, "--run", "nobody"}, ExitOK, "ok  \t" + yaml + "\t0s [no cases to run]\n"},
		{[]string{rulesFileOf(t, "alone.sql", twoRules)}, ExitOK, "alone.sql\t[no cases: there is no alone_test.yaml; spate rules test --help shows an example]\n"},
	} {
		code, out, errs := spate(append([]string{"rules", "test"}, test.args...)...)
		if out = seconds.ReplaceAllString(out, "0s"); code != test.code || errs != "" || !strings.HasSuffix(out, test.want) {
			t.Errorf("%q: exit %d, %q, %q; want %d, %q", test.args, code, out, errs, test.code, test.want)
		}
	}
}

// TestRulesTestJSON: programs read an object a case.
func TestRulesTestJSON(t *testing.T) {
	bare(t)
	sql, yaml := rulesFolder(t, twoRules, twoCases)
	code, out, errs := spate("rules", "test", sql, "--json")
	if code != ExitFailed || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	var got []string
	for line := range strings.Lines(out) {
		var c testedCase
		var raw struct {
			Failures []struct {
				Kind          string
				Got, Expected map[string]any
				Differs       []map[string]any
			}
		}
		if err := json.Unmarshal([]byte(line), &raw); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(line), &struct {
			*testedCase
			Failures any `json:"failures"`
		}{testedCase: &c}); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(c.File == yaml, c.Rules == sql, c.Line, c.Name, c.Result))
		if len(raw.Failures) > 0 {
			f := raw.Failures[0]
			got = append(got, fmt.Sprint(f.Kind, f.Got["products"], f.Expected["products"], f.Differs))
		}
	}
	want := "[truetrue2a burstpass truetrue6a scraper <&>fail different31 32 [map[expected:32 got:31 member:products]]]"
	if got := strings.ReplaceAll(fmt.Sprint(got), "true true ", "truetrue"); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestRulesTestJUnit: CI systems read the results of all files, and their errors.
func TestRulesTestJUnit(t *testing.T) {
	bare(t)
	sql, yaml := rulesFolder(t, twoRules, twoCases)
	broken := rulesFileOf(t, "broken.sql", "SELECT 1;")
	junit := filepath.Join(t.TempDir(), "junit.xml")
	if code, _, _ := spate("rules", "test", sql, broken, "--junit", junit); code != ExitUsage {
		t.Errorf("exit %d", code)
	}
	b, err := os.ReadFile(junit)
	if err != nil {
		t.Fatal(err)
	}
	var got junitSuites
	if err := xml.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.Tests != 3 || got.Failures != 1 || got.Errors != 1 || len(got.Suites) != 2 || len(got.Suites[0].Cases) != 2 {
		t.Fatalf("%s", b)
	}
	pass, fail, bad := got.Suites[0].Cases[0], got.Suites[0].Cases[1], got.Suites[1].Cases[0]
	if pass.Class != "shop" || pass.Name != "a burst" || pass.File != yaml || pass.Line != 2 || pass.Failure != nil || pass.Error != nil {
		t.Errorf("%+v", pass)
	}
	if fail.Name != "a scraper <&>" || fail.Failure == nil || !strings.Contains(fail.Failure.Text, "\n    products: got 31, expected 32\n") {
		t.Errorf("%+v", fail)
	}
	if bad.Error == nil || bad.Line != 1 || !strings.Contains(bad.Error.Text, "broken.sql:1:1: ") {
		t.Errorf("%+v", bad)
	}
	if code, _, errs := spate("rules", "test", sql, "--run", "a b", "--junit", t.TempDir()); code != ExitFailed || !strings.Contains(errs, "write the JUnit file") {
		t.Errorf("exit %d, %q", code, errs)
	}
}

// TestRulesTestErrors: errors in a file end with exit code 2, and do not keep other files from running.
func TestRulesTestErrors(t *testing.T) {
	bare(t)
	sql, yaml := rulesFolder(t, twoRules, strings.ReplaceAll(twoCases, "n: 6", "m: 6"))
	fine, _ := rulesFolder(t, twoRules, twoCases)
	code, out, errs := spate("rules", "test", sql, fine, "--run", "burst")
	if code != ExitUsage || !strings.Contains(errs, yaml+":5:35: an alert from rule burst has no member m\n") || !strings.Contains(errs, yaml+": 1 error\n") ||
		!strings.Contains(out, "FAIL\t"+yaml+" [errors]\nok  \t") || !strings.HasSuffix(out, "\nFAIL\n") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	code, out, errs = spate("rules", "test", sql, "--json")
	var e ruleError
	if err := json.Unmarshal([]byte(out), &e); err != nil || code != ExitUsage || errs != "" || e.File != yaml || e.Line != 5 || e.Column != 35 || e.Fix == "" {
		t.Errorf("exit %d, %q, %q, %v", code, out, errs, err)
	}
	broken, _ := rulesFolder(t, "SELECT 1;", twoCases)
	if code, _, errs := spate("rules", "test", broken); code != ExitUsage || !strings.Contains(errs, broken+":1:1: ") {
		t.Errorf("exit %d, %q", code, errs)
	}
	for _, args := range [][]string{{filepath.Join(t.TempDir(), "none.sql")}, {filepath.Join(t.TempDir(), "none.yaml")}, {t.TempDir()}, {sql, "--run", "("}, {}} {
		if code, _, errs := spate(append([]string{"rules", "test"}, args...)...); code != ExitUsage || errs == "" {
			t.Errorf("%q: exit %d, %q", args, code, errs)
		}
	}
}

// TestRulesTestExamples: the cases of the help and of the documentation pass with the rules of the documentation.
func TestRulesTestExamples(t *testing.T) {
	bare(t)
	page, err := os.ReadFile("../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(language string) string {
		_, text, _ := strings.Cut(string(page), "```"+language+"\n")
		text, _, _ = strings.Cut(text, "```")
		return text
	}
	_, help, _ := strings.Cut(rulesTestCommand{}.Help(), "  cases:\n")
	help, _, _ = strings.Cut(help, "\n\n")
	for _, cases := range []string{block("yaml"), "  cases:\n" + help + "\n"} {
		sql, _ := rulesFolder(t, block("sql"), cases)
		if code, out, errs := spate("rules", "test", sql, "-v"); code != ExitOK || strings.Count(out, "PASS:") < 2 {
			t.Errorf("exit %d, %s%s", code, out, errs)
		}
	}
}

// TestRulesTestHostile: what a file of cases says does not steer the terminal.
func TestRulesTestHostile(t *testing.T) {
	bare(t)
	name, err := json.Marshal(strings.ToValidUTF8(strings.ReplaceAll(evil, "\n", ""), ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, cases := range []string{
		strings.ReplaceAll(twoCases, "a scraper <&>", `"`+strings.Trim(string(name), `"`)+`"`),
		strings.ReplaceAll(twoCases, "user_id: 7", "user_id: "+string(name)),
		strings.ReplaceAll(twoCases, "products:", string(name)+":"), evil,
	} {
		sql, _ := rulesFolder(t, twoRules, cases)
		for _, args := range [][]string{{sql, "-v"}, {sql, "--json"}} {
			_, out, errs := spate(append([]string{"rules", "test"}, args...)...)
			harmless(t, "stdout", out)
			harmless(t, "stderr", errs)
		}
	}
}

// TestRulesTestWindows: of the windows that an entry stands for, how many there are is said.
func TestRulesTestWindows(t *testing.T) {
	bare(t)
	sql, _ := rulesFolder(t, strings.ReplaceAll(twoRules, "${products}", "1"), `cases:
- name: windows
  events:
    - {repeat: 2, user_id: 7, product_id: "#", txn_timestamp: "2024-01-01 00:00:00"}
  expect:
    scraper:
      - {user_id: 7, windows: 7}
`)
	code, out, _ := spate("rules", "test", sql)
	if code != ExitFailed {
		t.Errorf("exit %d", code)
	}
	says(t, out, "7: scraper: missing alert\n", "windows: got 6, expected 7\n", "expected {user_id: 7, windows: 7}\n")
}
