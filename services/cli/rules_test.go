package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// twoRules are a rule that opens early and one that does not.
const twoRules = `-- rule: burst
-- summary: {user_id} did {n} things
-- critical: COUNT(*) > ${critical}
-- param: critical = 10
INSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5;

-- rule: scraper
-- param: products = 30
-- mode: shadow
INSERT INTO alerts SELECT user_id, COUNT(DISTINCT product_id) AS products FROM activity
GROUP BY HOP(txn_timestamp, INTERVAL '10' SECOND, INTERVAL '1' MINUTE), user_id
HAVING COUNT(DISTINCT product_id) > ${products} AND COUNT(*) FILTER (WHERE event_type = 'purchase') = 0;
`

// rulesFileOf writes a rules file, or another file of a name.
func rulesFileOf(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRulesCheck: people read what a rule does and why, programs one object a rule.
func TestRulesCheck(t *testing.T) {
	bare(t)
	path := rulesFileOf(t, "rules.sql", twoRules)
	code, out, errs := spate("rules", "check", path)
	if code != ExitOK || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, want := range []string{
		"burst  live\n", "TUMBLE 10 s, by user_id\n", "yes: once the condition is TRUE, it stays TRUE", "critical     COUNT(*) > 10\n", "1 pane per window; about 80 bytes per key\n",
		"scraper  shadow\n", "HOP 10 s, 1 min, by user_id\n", "no: COUNT(*) FILTER (WHERE event_type = 'purchase') = 0 can become FALSE again",
		"reads        event_type, product_id, txn_timestamp, user_id\n", "shared with 1 other rule\n", "2 rules, 1 feed, 4 fields; 0 warnings\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}

	acting := rulesFileOf(t, "acting.sql", strings.Replace(twoRules, "-- critical:", "-- quiet: 2m\n-- decision: challenge 10m\n-- critical:", 1))
	code, out, errs = spate("rules", "check", acting)
	if code != ExitOK || errs != "" || !strings.Contains(out, "quiet        2m between incidents\n") || !strings.Contains(out, "decision     challenge 10m\n") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	code, out, errs = spate("rules", "check", path, "--json", "--set", "scraper.products=40")
	if code != ExitOK || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	var names []string
	for line := range strings.Lines(out) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		for _, key := range strings.Fields("name mode window key feed opens_early reason cost warnings") {
			if r[key] == nil {
				t.Errorf("no %s in %s", key, line)
			}
		}
		names = append(names, fmt.Sprint(r["name"], r["opens_early"], r["key"]))
	}
	if want := []string{"bursttrue [user_id]", "scraperfalse [user_id]"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}

// TestRulesCheckErrors: all errors are shown, and the exit code is 2.
func TestRulesCheckErrors(t *testing.T) {
	bare(t)
	path := rulesFileOf(t, "rules.sql", strings.ReplaceAll(twoRules, "user_id HAVING COUNT(*)", "user_id HAVING COUNTS(*)")+strings.Repeat("SELECT 1;\n", 99))
	code, out, errs := spate("rules", "check", path)
	if code != ExitUsage || out != "" {
		t.Errorf("exit %d, %q", code, out)
	}
	for _, want := range []string{path + ":6:70: ", "\n    SELECT 1;\n    ^ write INSERT INTO alerts SELECT …\n" + path + ":112:1: ", ": 100 errors\n"} {
		if !strings.Contains(errs, want) {
			t.Errorf("no %q in\n%s", want, errs)
		}
	}
	code, out, errs = spate("rules", "check", path, "--json")
	if code != ExitUsage || errs != "" || strings.Count(out, "\n") != 100 {
		t.Errorf("exit %d, %q, %d lines", code, errs, strings.Count(out, "\n"))
	}
	var last map[string]any
	if err := json.Unmarshal([]byte(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:]), &last); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(last); got != fmt.Sprintf("map[column:1 file:%s fix:write INSERT INTO alerts SELECT … line:112 message:a rule must be an INSERT statement]", path) {
		t.Errorf("got %s", got)
	}

	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{filepath.Join(t.TempDir(), "none.sql")}, "none.sql: no such file or directory\n"},
		{[]string{t.TempDir()}, ": is a directory\n"},
		{[]string{rulesFileOf(t, "empty.sql", "")}, "empty.sql:1:1: the file has no rule\n"},
		{[]string{rulesFileOf(t, "big.sql", strings.Repeat("-", 1<<20+1))}, "the maximum is 1048576\n"},
		{[]string{rulesFileOf(t, "a.sql", twoRules), "--set", "scraper.product=1"}, "a.sql has no parameter scraper.product; its parameters are burst.critical, scraper.products\n"},
	} {
		if code, out, errs := spate(append([]string{"rules", "check"}, test.args...)...); code != ExitUsage || out != "" || !strings.Contains(errs, test.want) {
			t.Errorf("%q: exit %d, %q, %q", test.args, code, out, errs)
		}
	}
}

// TestRulesCheckHostile: what a rules file says does not steer the terminal of who checks it.
func TestRulesCheckHostile(t *testing.T) {
	bare(t)
	evil := strings.ReplaceAll(evil, "\n", "")
	for _, text := range []string{
		"-- rule: " + evil, "-- rule: r\n-- summary: {" + evil + "}\n" + twoRules, "INSERT INTO `" + evil + "`", "SELECT '" + evil + "' " + evil,
		strings.ReplaceAll(twoRules, "AS n ", "AS `"+strings.ToValidUTF8(evil, "")+"` "),
	} {
		for _, json := range []string{"--json", "--no-json"} {
			args := []string{"rules", "check", rulesFileOf(t, "r.sql", text), json}
			if json == "--no-json" {
				args = args[:3]
			}
			_, out, errs := spate(args...)
			harmless(t, "stdout", out)
			harmless(t, "stderr", errs)
		}
	}
}

// TestDefaultRule: a rule without a name is called as its file.
func TestDefaultRule(t *testing.T) {
	for file, want := range map[string]string{
		"notebook.sql": "notebook", "/tmp/SQL Flink ecomm_1.zpln": "sql-flink-ecomm_1", "-": "rule", "01-burst.sql": "burst", "日本.sql": "rule", ".sql": "rule",
		strings.Repeat("a", 99): strings.Repeat("a", 63),
	} {
		if got := defaultRule(file); got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}
}

// TestRulesExport: a file is exported with its parameters in place; without one it is the rule from the settings.
func TestRulesExport(t *testing.T) {
	bare(t)
	path := rulesFileOf(t, "rules.sql", strings.Replace(twoRules, "${products} AND", "${products} OR", 1))
	code, out, errs := spate("rules", "export", path, "--set", "scraper.products=41", "--brokers", "k:9092", "--topic", "orders")
	if code != ExitOK || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, want := range []string{"'topic' = 'orders'", "'topic' = 'orders.alerts.flink'", "'k:9092'", "-- critical: COUNT(*) > 10\n", "-- mode: shadow\n", "COUNT(DISTINCT product_id) > 41 OR"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if code, out, errs := spate("rules", "check", rulesFileOf(t, "again.sql", out)); code != ExitOK || !strings.Contains(out, "0 warnings") {
		t.Errorf("what is exported cannot be read: exit %d\n%s%s", code, out, errs)
	}

	offset := rulesFileOf(t, "offset.sql", `INSERT INTO alerts SELECT COUNT(*) AS n
FROM TABLE(TUMBLE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '10' SECOND, INTERVAL '3' SECOND)) GROUP BY window_start, window_end`)
	if code, _, errs := spate("rules", "export", offset, "--flink-sql", "--connector", "kinesis", "--region", "eu-west-1", "--account", "1"); code != ExitOK || !strings.Contains(errs, "FLINK-36664") {
		t.Errorf("exit %d: %q", code, errs)
	}
	if code, out, errs := spate("rules", "export", rulesFileOf(t, "bad.sql", "SELECT 1"), "--flink-sql"); code != ExitUsage || out != "" || !strings.Contains(errs, "bad.sql:1:1: a rule must be an INSERT statement") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	if code, out, _ := spate("rules", "export"); code != ExitOK || !strings.Contains(out, "having count(1) > 5;") {
		t.Errorf("exit %d, %q", code, out)
	}
}

// TestRulesImport: the walkthrough's notebook becomes a rules file.
func TestRulesImport(t *testing.T) {
	bare(t)
	const note = "../../shared/rule/notebook/testdata/walkthrough.zpln"
	code, out, errs := spate("rules", "import", note)
	if code != ExitOK || !strings.Contains(errs, note+": left out: paragraph 1: %md is not streaming SQL\n") || !strings.Contains(errs, "left out: select * from") {
		t.Errorf("exit %d: %s", code, errs)
	}
	code, checked, errs := spate("rules", "check", rulesFileOf(t, "rules.sql", out))
	if code != ExitOK || !strings.HasPrefix(checked, "walkthrough  live\n") || !strings.Contains(checked, " 0 warnings") {
		t.Errorf("exit %d: %s%s", code, checked, errs)
	}
	code, again, errs := spate("rules", "import", rulesFileOf(t, "again.sql", out))
	if code != ExitOK || again != out || errs != "" {
		t.Errorf("exit %d, %q:\n%s", code, errs, again)
	}

	for _, test := range []struct{ name, text, out, errs string }{
		{"a.sql", "INSERT INTO a SELECT COUNT(*) FROM nowhere", "-- rule: a\nINSERT INTO a SELECT COUNT(*) FROM nowhere;\n", "<stdout>:2:36: unknown table nowhere"},
		{"a.sql", "SHOW TABLES", "", "<stdout>:1:1: the file has no rule"},
		{"a.zpln", "{", "", "a.zpln: line 1: invalid JSON"},
		{"big.sql", strings.Repeat(" ", maxImport+1), "", "larger than 67108864 bytes"},
	} {
		if code, out, errs := spate("rules", "import", rulesFileOf(t, test.name, test.text)); code != ExitUsage || out != test.out || !strings.Contains(errs, test.errs) {
			t.Errorf("%s: exit %d, %q, %q", test.text[:min(len(test.text), 99)], code, out, errs)
		}
	}
}

// TestRulesImportSigma: correlations become rules that can be checked; what SQL cannot express is an error at its place.
func TestRulesImportSigma(t *testing.T) {
	bare(t)
	const correlation = `title: Failed logon
name: failed_logon
detection:
  selection: {action: logon, outcome: failure}
  condition: selection
---
title: Password guessing
correlation:
  type: value_count
  rules: [failed_logon]
  group-by: [source.ip]
  timespan: 5m
  condition: {field: account, gte: 10}
`
	code, out, errs := spate("rules", "import", rulesFileOf(t, "guess.yml", correlation), "--time-column", "at_time")
	if code != ExitOK || errs != "" || !strings.Contains(out, "WATERMARK FOR at_time") || !strings.Contains(out, "HOP(at_time, INTERVAL '50' SECOND, INTERVAL '5' MINUTE), source.ip\n") {
		t.Errorf("exit %d, %q\n%s", code, errs, out)
	}
	if code, out, errs := spate("rules", "check", rulesFileOf(t, "guess.sql", out)); code != ExitOK || !strings.Contains(out, "1 rule, 1 feed, 5 fields; 0 warnings") {
		t.Errorf("exit %d, %q\n%s", code, errs, out)
	}
	path := rulesFileOf(t, "order.yaml", strings.Replace(correlation, "value_count", "temporal_ordered", 1))
	if code, out, errs := spate("rules", "import", path); code != ExitUsage || out != "" || !strings.Contains(errs, path+":9:9: a correlation of type temporal_ordered cannot be expressed in SQL") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}

// TestRulesPage: the examples of docs/rules.md are rules without warnings.
func TestRulesPage(t *testing.T) {
	bare(t)
	page, err := os.ReadFile("../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for _, part := range strings.Split(string(page), "```sql\n")[1:] {
		text, _, _ := strings.Cut(part, "```")
		examples++
		if code, out, errs := spate("rules", "check", rulesFileOf(t, "rules.sql", text)); code != ExitOK || !strings.Contains(out, " 0 warnings\n") {
			t.Errorf("%s%s", out, errs)
		}
	}
	if examples < 2 {
		t.Errorf("%d examples", examples)
	}
}
