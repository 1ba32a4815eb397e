package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/services/embedded"
	"spate/services/query"
	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/format"
	"spate/tests/harness"
)

// sqlOf runs the command over files, and returns what it prints and its exit code.
func sqlOf(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	t.Setenv("SPATE_BROKERS", "")
	var out, errs bytes.Buffer
	code = Main(append([]string{"sql"}, args...), &out, &errs)
	return out.String(), errs.String(), code
}

const clicks = `event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session
2026-11-30 12:00:00 UTC,view,1,2,,b,1.5,7,s
2026-11-30 12:00:01 UTC,cart,1,2,,"=b
",,7,s
2026-11-30 12:00:12 UTC,view,9007199254740993,3,,b,2,"x` + "\x1b[2J" + `",s
soon,view,1,2,,b,1.5,7,s
`

func clicksFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clicks.csv")
	if err := os.WriteFile(path, []byte(clicks), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSQL(t *testing.T) {
	path := clicksFile(t)
	for _, c := range []struct {
		args           []string
		stdout, stderr string
		code           int
	}{
		{[]string{"SELECT user_id, price FROM activity"}, "USER_ID   PRICE\n7           1.5\n7          NULL\nx\\x1b[2J    2.0\n", "3 rows; read 4 of 4 records; 1 invalid\n", 0},
		{[]string{"--json", "SELECT user_id, price, product_id, price FROM activity WHERE _offset >= 0 ORDER BY event_time DESC LIMIT 1"}, `{"user_id":"x\u001b[2J","price":2.0,"product_id":9007199254740993,"price_2":2.0}` + "\n",
			`{"rows":1,"records_read":4,"records":4,`, 0},
		{[]string{"--csv", "SELECT brand, price FROM activity WHERE event_type = 'cart'"}, "brand,price\n\"=b\n\",\n", "1 row; read 4 of 4 records", 0},
		{[]string{"SELECT 1 AS a WHERE 1 = 0"}, "A\n", "0 rows; read 0 records\n", 0},
		{[]string{"SELECT _reason, _value ->> 'event_time' AS t FROM dlq"}, "_REASON   T\nbad_time  soon\n", "1 row", 0},
		{[]string{"SELECT usr_id FROM activity"}, "", "sql:1:8: no such column: usr_id\n    SELECT usr_id FROM activity\n           ^ did you mean user_id?\n", 2},
		{[]string{"DROP TABLE activity"}, "", "DROP is not allowed: statements can only read", 2},
		{[]string{"SELECT * FROM alerts"}, "", "table alerts is not available: --file reads only events", 2},
		{[]string{"--max-rows", "1", "SELECT user_id FROM activity"}, "USER_ID\n      7\n", "partial (max-rows): there are more rows; --max-rows 0 prints all", 0},
		{[]string{"--max-bytes", "10", "SELECT COUNT(*) AS n FROM activity"}, "N\n0\n", "spate: the result is partial: reading stopped after 10 bytes (--max-bytes)", 1},
		{[]string{"--max-bytes=-1", "SELECT 1"}, "", "max-bytes: -1 is negative", 2},
		{[]string{"--json", "--csv", "SELECT 1"}, "", "json, csv: give only one of them", 2},
		{[]string{"--since", "10m", "SELECT 1"}, "", "the records in a file have no append time", 2},
		{[]string{"--since", "soon", "SELECT 1"}, "", `since: "soon" is not a time`, 2},
		{[]string{"--follow", "SELECT 1"}, "", "follow: --file and --to give the input an end", 2},
		{[]string{"SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 1"}, "USER_ID  N\n      7  2\n", "1 row; read 4 of 4 records; 1 invalid\n", 0},
	} {
		stdout, stderr, code := sqlOf(t, append([]string{"--file", path}, c.args...)...)
		if stdout != c.stdout || !strings.Contains(stderr, c.stderr) || code != c.code {
			t.Errorf("%q: exit %d, want %d\n%s\nwant\n%s\n%s\nwant\n%s", c.args, code, c.code, stdout, c.stdout, stderr, c.stderr)
		}
	}
	if _, stderr, code := sqlOf(t, "--mode", "aws", "SELECT 1"); code != ExitUsage || !strings.Contains(stderr, "mode: spate sql cannot read Kinesis or DynamoDB yet") {
		t.Errorf("%d %s", code, stderr)
	}
	if _, stderr, code := sqlOf(t, "--file", path+".none", "SELECT 1"); code != ExitUsage || !strings.Contains(stderr, "no such file") {
		t.Errorf("%d %s", code, stderr)
	}
}

// TestSQLIsReplay: the statement of the AWS walkthrough finds what Apache Flink and spate replay find in the same log.
func TestSQLIsReplay(t *testing.T) {
	script := read(t, "../../shared/rule/testdata/walkthrough.sql")
	const statement = "SELECT user_id, COUNT(*) AS num_actions_per_watermark, TUMBLE_START(txn_timestamp, INTERVAL '10' SECOND) AS started FROM activity " +
		"GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5"
	for _, c := range []struct {
		name       string
		partitions int32
	}{{"in-order", 4}, {"late", 1}, {"late", 4}} {
		t.Run(fmt.Sprintf("%s/%d", c.name, c.partitions), func(t *testing.T) {
			file := "../../testdata/golden/" + c.name + ".csv.gz"
			var want []string
			if c.name == "late" && c.partitions > 1 { // which events are late depends on the partitions
				want = replayed(t, file, c.partitions)
			} else {
				for line := range strings.Lines(read(t, "../../testdata/golden/"+c.name+".flink.jsonl")) {
					var row struct {
						User  int64  `json:"user_id"`
						Start string `json:"window_start"`
						Count int64  `json:"num_actions_per_watermark"`
					}
					if err := json.Unmarshal([]byte(line), &row); err != nil {
						t.Fatal(err)
					}
					want = append(want, fmt.Sprint(row.User, row.Count, strings.Replace(row.Start, "T", " ", 1)))
				}
			}
			slices.Sort(want)
			stdout, stderr, code := sqlOf(t, "--json", "--file", file, "--partitions", fmt.Sprint(c.partitions), statement)
			if code != 0 {
				t.Fatal(stderr)
			}
			var got []string
			for line := range strings.Lines(stdout) {
				var row struct {
					User  int64  `json:"user_id"`
					Start string `json:"started"`
					Count int64  `json:"num_actions_per_watermark"`
				}
				if err := json.Unmarshal([]byte(line), &row); err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprint(row.User, row.Count, row.Start))
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" || len(want) < 1700 {
				t.Errorf("%d rows: %s", len(want), diff)
			}
			// The walkthrough's script itself has the same rows.
			stdout, stderr, code = sqlOf(t, "--csv", "--file", file, "--partitions", fmt.Sprint(c.partitions), script)
			if code != 0 || strings.Count(stdout, "\n") != len(want)+1 {
				t.Errorf("exit %d, %d lines, want %d: %s", code, strings.Count(stdout, "\n"), len(want)+1, stderr)
			}
		})
	}
}

// replayed are the rows that spate replay finds.
func replayed(t *testing.T, file string, partitions int32) (rows []string) {
	t.Helper()
	res, err := embedded.Replay(t.Context(), embedded.ReplayConfig{
		Rule: embedded.Rule{Events: format.Config{Fields: activity.DefaultFields()}, Window: 10 * time.Second, Lateness: 10 * time.Second, MaxAhead: time.Minute, Threshold: 5, Critical: 10, Transitions: alert.States()},
		File: file, Key: "category_id", Partitions: partitions, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range res.Alerts {
		rows = append(rows, fmt.Sprint(string(a.UserID), " ", a.Count, a.WindowStart.Format("2006-01-02 15:04:05")))
	}
	return rows
}

// screenOf is a terminal: what is typed, and what is shown.
type screenOf struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screenOf) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screenOf) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screenOf) wait(t *testing.T, text string) {
	t.Helper()
	harness.Eventually(t, 20*time.Second, fmt.Sprintf("%q is shown", text), func() bool { return strings.Contains(s.String(), text) })
}

func TestSQLPrompt(t *testing.T) {
	c := &sqlCommand{File: []string{clicksFile(t)}, RecordKey: "category_id"}
	f := newFileLog(c, activity.DefaultFields(), nil)
	db, err := query.Open(t.Context(), query.Config{Log: f, Events: format.Config{Fields: activity.DefaultFields()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	in, typed := io.Pipe()
	screen := &screenOf{}
	p := newPrompt(c, db, in, screen)
	done := make(chan error, 1)
	go func() { done <- p.run(t.Context()) }()
	say := func(keys string) {
		t.Helper()
		if _, err := io.WriteString(typed, keys); err != nil {
			t.Fatal(err)
		}
	}
	say("\\d\r")
	screen.wait(t, "activity\r\ndlq\r\n")
	say("\\d dlq\r")
	screen.wait(t, "_reason")
	say("\\d nothing\r")
	screen.wait(t, "table nothing does not exist")
	say("help\r")
	screen.wait(t, "A statement ends with a semicolon")
	say("SELECT product\t\rFROM act\t\rWHERE price = 1.5;\r") // over three lines, with two completions
	screen.wait(t, "1 row; read 4 of 4 records")
	screen.wait(t, "PRODUCT_ID")
	say("SELECT nowhere FROM activity;\r")
	screen.wait(t, "no such column: nowhere")
	say("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT COUNT(*) FROM c;\r")
	harness.Eventually(t, 20*time.Second, "the statement is interrupted", func() bool { // the first key may come while the line is still read
		say("\x03")
		return harness.Within(200*time.Millisecond, func() bool { return strings.Contains(screen.String(), "interrupted") })
	})
	say("SELECT 40 + 2 AS answer;\r")
	screen.wait(t, "ANSWER\r\n    42")
	say("\\q\r")
	if err := <-done; err != nil {
		t.Error(err)
	}
}
