package tests

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/testskip"
	"spate/tests/harness"
)

// exportSQL runs the program, in an environment without settings.
func exportSQL(t *testing.T, args ...string) string {
	t.Helper()
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, append([]string{"rules", "export", "--flink-sql"}, args...)...)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, stderr.String())
	}
	return string(out)
}

// severalRules are rules of several kinds, with a table of their own and one that is built in.
const severalRules = `
CREATE TABLE logons (actor ROW<id STRING, ip STRING>, ok BOOLEAN, amount DECIMAL(10, 2), happened TIMESTAMP(3), WATERMARK FOR happened AS happened - INTERVAL '5' SECOND);
-- rule: burst
INSERT INTO alerts SELECT user_id, COUNT(*) AS n, TUMBLE_START(txn_timestamp, INTERVAL '10' SECOND) AS window_start, MAX(txn_timestamp) AS newest, 'x' AS kind
FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5;
-- rule: guessing
INSERT INTO alerts SELECT actor.ip, COUNT(DISTINCT actor.id) AS accounts, SUM(amount) AS total
FROM TABLE(HOP(TABLE logons, DESCRIPTOR(happened), INTERVAL '10' SECOND, INTERVAL '1' MINUTE))
WHERE NOT ok GROUP BY window_start, window_end, actor.ip HAVING COUNT(DISTINCT actor.id) > 30;
`

// TestExportedSQLParses lets Flink read what is exported, and plan it.
func TestExportedSQLParses(t *testing.T) {
	if os.Getenv("SPATE_TEST_FLINK") != "1" {
		t.Skip("SPATE_TEST_FLINK is not 1; Flink is more than 200 MB, the first time from the network")
	}
	t.Parallel()
	runSQL := harness.SharedFile(t, "bench/flink/run-sql")
	if _, err := exec.LookPath("java"); err != nil {
		testskip.Missing(t, "Java is not installed")
	}
	rules := filepath.Join(t.TempDir(), "rules.sql")
	if err := os.WriteFile(rules, []byte(severalRules), 0o600); err != nil {
		t.Fatal(err)
	}
	insert := regexp.MustCompile(`(?mi)^insert into `)
	for name, args := range map[string][]string{
		"rules":       {rules},
		"rules, zone": {rules, "--time-type", "timestamp_ltz"},
		"default":     nil,
		"zone":        {"--time-type", "timestamp_ltz"},
		"odd names":   {"--user-field", "who`s 'it'", "--user-type", "string", "--time-field", "order", "--topic", "it's"},
		"long window": {"--window", "168h", "--lateness", "0s", "--threshold", "1000000"},
		"fractions":   {"--window", "150s500ms", "--lateness", "1ms"},
	} {
		t.Run(name, func(t *testing.T) {
			sql := exportSQL(t, args...)
			if !insert.MatchString(sql) {
				t.Fatalf("no insert in\n%s", sql)
			}
			// Planned, not run: there is no broker.
			file := filepath.Join(t.TempDir(), "explain.sql")
			if err := os.WriteFile(file, insert.ReplaceAll([]byte(sql), []byte("explain insert into ")), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, runSQL, file)
			cmd.Env = append(os.Environ(), "FLINK_HEAP=-Xmx1g")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s\n%s", err, sql, out)
			}
			for _, want := range []string{"== Optimized Execution Plan ==", "GroupWindowAggregate", "TumblingGroupWindow"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("no %s in the plan:\n%s", want, out)
				}
			}
		})
	}
}

// fakePyFlink writes down what it is told, in place of Flink.
const fakePyFlink = `
import json, os
told = {"settings": {}, "statements": []}
class EnvironmentSettings:
    @staticmethod
    def in_streaming_mode(): return "streaming"
class Config:
    def set(self, name, value): told["settings"][name] = value
class TableEnvironment:
    @staticmethod
    def create(settings): return TableEnvironment()
    def get_config(self): return Config()
    def execute_sql(self, sql):
        told["statements"].append(sql)
        with open(os.environ["TOLD"], "w") as f: json.dump(told, f)
`

// TestFlinkApplication runs the Python of Managed Flink's archive, packed as its README says, on a stand-in of PyFlink.
func TestFlinkApplication(t *testing.T) {
	t.Parallel()
	python := os.Getenv("SPATE_TEST_PYTHON")
	if python == "" {
		python = "python3"
	}
	if err := exec.Command(python, "-c", "").Run(); err != nil {
		testskip.Missing(t, "no Python: %v", err)
	}
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	main, err := os.ReadFile(filepath.Join("..", "deploy", "aws", "flink", "main.py"))
	if err != nil {
		t.Fatal(err)
	}
	pack := exec.Command(python, "-c", `import sys; print("SQL =", repr(sys.stdin.read()))`)
	pack.Stdin = strings.NewReader(exportSQL(t, "--connector", "kinesis", "--threshold", "7"))
	module, err := pack.Output()
	if err != nil {
		t.Fatal(err)
	}
	write("main.py", string(main))
	write("burst.py", string(module))
	write("pyflink/__init__.py", "")
	write("pyflink/table.py", fakePyFlink)

	run := func(properties string) ([]byte, error) {
		write("properties.json", properties)
		cmd := exec.Command(python, filepath.Join(dir, "main.py"))
		cmd.Env = []string{"TOLD=" + filepath.Join(dir, "told.json"), "SPATE_FLINK_PROPERTIES=" + filepath.Join(dir, "properties.json")}
		return cmd.CombinedOutput()
	}
	// The property groups as the template has them.
	tpl, _ := readTemplate(t)
	given, _ := tpl.property("Flink", "ApplicationConfiguration", "EnvironmentProperties", "PropertyGroups", 1, "PropertyMap").(map[string]any)
	values := map[string]string{}
	for k, v := range given {
		switch at(v, "Ref") {
		case "AWS::Region":
			values[k] = "eu-west-1"
		case "AWS::AccountId":
			values[k] = "123456789012"
		default:
			values[k] = text(v)
		}
	}
	properties, err := json.Marshal([]map[string]any{{"PropertyGroupId": "other", "PropertyMap": map[string]string{"a": "b"}}, {"PropertyGroupId": "spate", "PropertyMap": values}})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := run(string(properties)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var told struct {
		Settings   map[string]string
		Statements []string
	}
	b, err := os.ReadFile(filepath.Join(dir, "told.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &told); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"table.local-time-zone": "UTC", "table.exec.source.idle-timeout": "5 s"}, told.Settings); diff != "" {
		t.Errorf("settings (- want, + told):\n%s", diff)
	}
	if len(told.Statements) != 3 {
		t.Fatalf("%d statements: %q", len(told.Statements), told.Statements)
	}
	for i, want := range []string{
		"'stream.arn' = 'arn:aws:kinesis:eu-west-1:123456789012:stream/e-commerce-raw-user-activity-stream-1'",
		"'stream.arn' = 'arn:aws:kinesis:eu-west-1:123456789012:stream/e-commerce-raw-user-activity-stream-2'",
		"having count(1) > 7",
	} {
		if s := told.Statements[i]; !strings.Contains(s, want) || strings.Contains(s, "--") || strings.HasSuffix(s, ";") {
			t.Errorf("statement %d has no %s, or more:\n%s", i, want, s)
		}
	}
	if out, err := run(`[]`); err == nil || !strings.Contains(string(out), "property group spate") {
		t.Errorf("without properties: %v: %s", err, out)
	}
}
