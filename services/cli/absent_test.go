package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestAbsentColumns: replay and verify say that no event has a column of the rules, name what to change if the time is one of them, and leave nothing on
// somebody's Kafka.
func TestAbsentColumns(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	rules := func(time, column string) string {
		return file(time+column+".sql", `CREATE TABLE shop (`+time+` TIMESTAMP(3), `+column+` STRING, seldom STRING, user_id STRING, WATERMARK FOR `+time+` AS `+time+` - INTERVAL '1' SECOND);
-- rule: urls
INSERT INTO alerts SELECT user_id, COUNT(DISTINCT `+column+`) AS urls FROM shop WHERE seldom IS NULL
GROUP BY TUMBLE(`+time+`, INTERVAL '10' SECOND), user_id HAVING COUNT(DISTINCT `+column+`) > 1`)
	}
	events := file("e.jsonl", `{"user_id":"a","created_at":"2024-01-01T00:00:00Z","url":"/1"}
{"user_id":"a","created_at":"2024-01-01T00:00:01Z","url":"/2","seldom":"x"}
{"user_id":"a","created_at":"2024-01-01T00:00:02Z","url":"/3"}
`)
	nested := file("nested.csv", "user_id,created_at,actr.id,the.code\na,2024-01-01T00:00:00Z,/1,1\na,2024-01-01T00:00:00Z,/2,1\n")
	flat := file("flat.sql", "CREATE TABLE shop (actr ROW<id STRING>, `the.code` STRING, user_id STRING, created_at TIMESTAMP(3), WATERMARK FOR created_at AS created_at - INTERVAL '1' SECOND);\n"+
		"-- rule: ids\nINSERT INTO alerts SELECT user_id, COUNT(DISTINCT actr.id) AS ids FROM shop WHERE `the.code` = '1' GROUP BY TUMBLE(created_at, INTERVAL '10' SECOND), user_id HAVING COUNT(DISTINCT actr.id) > 1")
	// The built-in table has the user and the time under its own names, whatever they are in the events.
	renamed := file("renamed.jsonl", `{"customer":{"id":"ann"},"created_at":"2024-01-01T00:00:00Z","product_id":1}
{"customer":{"id":7},"created_at":"2024-01-01T00:00:01Z","product_id":1}
{"customer":{"id":"ann"},"created_at":"2024-01-01T00:00:02Z","product_id":2}
`)
	builtIn := file("built-in.sql", "-- rule: products\nINSERT INTO alerts SELECT user_id, COUNT(DISTINCT product_id) AS products FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(DISTINCT product_id) > 1")
	csv := file("e.csv", "user_id,created_at,url\na,2024-01-01T00:00:00Z,/1\n")
	for _, c := range []struct {
		command, file, rules string
		code                 int
		want                 string
	}{
		{"replay", events, rules("created_at", "url"), ExitOK, ""},
		{"replay", events, rules("created_at", "link"), ExitOK, "the rules read fields that no event has, so their values were always NULL: link; the first event has created_at, "},
		{"verify", events, rules("created_at", "link"), ExitOK, "no event has, so their values were always NULL: link"},
		{"replay", nested, flat, ExitOK, ""},
		{"verify", nested, flat, ExitOK, ""},
		{"replay", renamed, builtIn, ExitOK, ""},
		{"verify", renamed, builtIn, ExitOK, ""},
		{"replay", csv, rules("happened", "url"), ExitFailed, "set the column with --time-field; a WATERMARK in " + filepath.Join(dir, "happenedurl.sql") + " takes precedence over this setting"},
	} {
		var out, errs bytes.Buffer
		args := []string{c.command, c.file, "--rules", c.rules, "--brokers", cluster.ListenAddrs()[0], "--quiet"}
		if c.file == renamed {
			args = append(args, "--user-field", "customer.id", "--time-field", "created_at")
		}
		code := Main(args, &out, &errs)
		if code != c.code || !strings.Contains(errs.String(), c.want) || c.want == "" && strings.Contains(errs.String(), "no event has") {
			t.Errorf("%s %s: exit code %d: %s%s", c.command, c.file, code, &out, &errs)
		}
		if (c.file == nested || c.file == renamed) && !strings.Contains(out.String(), "1 alert") {
			t.Errorf("%s %s: %s", c.command, c.file, &out)
		}
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	topics, err := kadm.NewClient(cl).ListTopics(t.Context())
	if names := topics.Names(); err != nil || len(names) > 0 {
		t.Errorf("%v: these topics are left: %v", err, names)
	}
}
