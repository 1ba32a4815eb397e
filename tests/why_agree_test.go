package tests

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/testport"
	"spate/tests/harness"
)

// clickRules are of kinds that the library does not have.
const clickRules = `-- rule: cumulated
-- critical: SUM(price) > 1000
INSERT INTO alerts
SELECT user_id, COUNT(*) AS n, COUNT(DISTINCT product_id) AS products, SUM(price) AS total
FROM TABLE(CUMULATE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '10' SECOND, INTERVAL '1' MINUTE)) WHERE event_type <> 'purchase'
GROUP BY window_start, window_end, user_id HAVING COUNT(*) > 8;
-- rule: crowd
INSERT INTO alerts
SELECT brand, event_type, COUNT(*) AS n, COUNT(DISTINCT user_id) AS users, MIN(user_id) AS lowest, SUM(price) AS total, AVG(price) AS mean
FROM activity WHERE brand <> '' GROUP BY TUMBLE(txn_timestamp, INTERVAL '1' MINUTE), brand, event_type HAVING COUNT(DISTINCT user_id) > 5;
-- rule: session
INSERT INTO alerts
SELECT user_session, COUNT(*) AS n, MAX(price) AS top
FROM activity WHERE price > 1 GROUP BY HOP(txn_timestamp, INTERVAL '5' SECOND, INTERVAL '20' SECOND), user_session HAVING COUNT(*) > 4;
`

const requestRules = "CREATE TABLE requests (host STRING, `method` STRING, url STRING, response INT, `bytes` BIGINT, `time` TIMESTAMP(3), WATERMARK FOR `time` AS `time` - INTERVAL '10' SECOND)" + `
WITH ('connector' = 'kafka', 'topic' = 'activity', 'format' = 'json');
-- rule: pages
-- critical: COUNT(DISTINCT url) > 8
INSERT INTO alerts
SELECT host, COUNT(*) AS n, COUNT(DISTINCT url) AS urls, SUM(` + "`bytes`" + `) AS total
FROM requests WHERE response = 200 GROUP BY HOP(` + "`time`" + `, INTERVAL '10' SECOND, INTERVAL '1' MINUTE), host HAVING COUNT(DISTINCT url) > 5;
-- rule: errors
INSERT INTO alerts
SELECT url, response, COUNT(*) AS n, COUNT(DISTINCT host) AS hosts
FROM requests WHERE response >= 300 GROUP BY TUMBLE(` + "`time`" + `, INTERVAL '5' MINUTE), url, response HAVING COUNT(*) > 2;
-- rule: traffic
INSERT INTO alerts
SELECT ` + "window_start, window_end, `method`, COUNT(*) AS n, SUM(`bytes`)" + ` AS total
FROM TABLE(CUMULATE(TABLE requests, DESCRIPTOR(` + "`time`), INTERVAL '10' MINUTE, INTERVAL '1' HOUR)) GROUP BY window_start, window_end, `method`;\n"

// TestWhyAgrees: in a replay of each file, and of generated traffic that is late, out of order and sent twice, the alerts are those of spate replay, and the events that spate
// why lists for an alert, counted by the reference, give its numbers. It asks about some alerts of each rule; SPATE_TEST_WHY=1 asks about all.
func TestWhyAgrees(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute; -short is set")
	}
	t.Parallel()
	most := 8
	if os.Getenv("SPATE_TEST_WHY") == "1" {
		most = 1 << 30
	}
	shared := func(name string) func(*testing.T) string {
		return func(t *testing.T) string { return harness.SharedFile(t, "data/"+name) }
	}
	requests := []string{"SPATE_USER_FIELD=host", "SPATE_TIME_FIELD=time", "SPATE_TIME_FORMAT=s"}
	clicks := func(t *testing.T) string {
		var all strings.Builder
		files, err := filepath.Glob("../rules/*.sql")
		if err != nil || len(files) == 0 {
			t.Fatalf("no rules: %v", err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(append(text, '\n'))
		}
		return all.String() + clickRules
	}
	for _, c := range []struct {
		name  string
		file  func(*testing.T) string
		env   []string
		rules func(*testing.T) string
	}{
		{"cosmetics-2019-10", shared("cosmetics-2019-10-head-9col.csv"), []string{"SPATE_THRESHOLD=1"}, nil},
		{"cosmetics-2019-10, rules", shared("cosmetics-2019-10-head-9col.csv"), nil, clicks},
		{"cosmetics-2019-12", shared("cosmetics-2019-12-head-9col.csv"), []string{"SPATE_THRESHOLD=1"}, nil},
		{"cosmetics-2019-12, rules", shared("cosmetics-2019-12-head-9col.csv"), nil, clicks},
		{"rees46", shared("rees46-2019-oct-head.csv"), []string{"SPATE_THRESHOLD=2"}, nil}, // nobody in it does more than 5 things in 10 s
		{"rees46, rules", shared("rees46-2019-oct-head.csv"), nil, clicks},
		{"nasa", requestLog, requests, nil},
		{"nasa, rules", requestLog, requests, func(*testing.T) string { return requestRules }},
		{"late", func(*testing.T) string { return golden("late.csv.gz") }, nil, nil},
		{"generated", lateTraffic, nil, nil},
		{"generated, rules", lateTraffic, nil, clicks},
		{"sent twice", repeatedTraffic, []string{"SPATE_DEDUPE_FIELD=event_id"}, nil},
		{"sent twice, rules", repeatedTraffic, []string{"SPATE_DEDUPE_FIELD=event_id"}, clicks},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, file := t.TempDir(), c.file(t)
			flags := []string{"--partitions", "3"}
			if c.rules != nil {
				rules := filepath.Join(dir, "rules.sql")
				if err := os.WriteFile(rules, []byte(c.rules(t)), 0o600); err != nil {
					t.Fatal(err)
				}
				flags = append(flags, "--rules", rules)
			}
			spate(t, c.env, append([]string{"replay", file, "--quiet", "--alerts", filepath.Join(dir, "alerts.jsonl")}, flags...)...)
			replayed, end := alertsIn(t, filepath.Join(dir, "alerts.jsonl"))

			addr := testport.Reserve(t)
			env := append([]string{"SPATE_STATE=" + dir, "SPATE_BROKERS=" + addr}, c.env...)
			harness.Spate(t, "up", append([]string{"SPATE_STATE=" + dir}, c.env...), append([]string{"up", "--listen", addr, "--idle-timeout", "0"}, flags...)...).Start()
			cl := harness.Connect(t, addr, kgo.RecordPartitioner(kgo.ManualPartitioner()))
			harness.Eventually(t, time.Minute, "topics are made", func() bool { return harness.TopicExists(t, cl, "alerts") })
			spate(t, env, "simulate", file, "--speed", "0", "--quiet")
			for p := range int32(3) { // the windows of all others are closed then
				value := fmt.Appendf(nil, `{"user_id":1,"host":"last","event_time":%q,"time":"%d"}`, end.Add(time.Hour).Format(time.RFC3339), end.Add(time.Hour).Unix())
				if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "activity", Partition: p, Value: value}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			harness.Eventually(t, time.Minute, "alerts are closed", func() bool {
				return strings.Count(spate(t, env, "alerts", "ls", "--json", "--only", "closed"), "\n") >= len(replayed)
			})
			alerts, wrong := harness.AlertsOf(t, addr, kafka.NamesFor("activity"))
			if d := cmp.Diff(replayed, alerts); d != "" || len(alerts) == 0 || wrong != nil {
				t.Errorf("%d alerts; (-replay +up): %s %v", len(alerts), d, wrong)
			}

			ids, of := []string(nil), map[string]int{}
			for _, id := range slices.Sorted(maps.Keys(alerts)) {
				if r := alerts[id].Rule; of[r] < most {
					of[r]++
					ids = append(ids, id)
				}
			}
			for some := range slices.Chunk(ids, 100) {
				list := askWhy(t, env, append(some, "--events", "100000")...)
				if len(list) != len(some) {
					t.Fatalf("%d answers about %d alerts", len(list), len(some))
				}
				for i, w := range list {
					n, a := 0, alerts[some[i]]
					for _, e := range w.Answer.Events {
						if e.Fate == "counted" {
							n++
						}
					}
					agrees := w.Numbers.Recount != nil && *w.Numbers.Recount && w.Numbers.Critical == (a.Severity == alert.Critical)
					if w.Alert != a.ID || !agrees || n != w.Numbers.Counted || int64(n) != a.Count || w.Notes != nil {
						t.Errorf("alert %s: %d events listed, %+v", a.ID, n, w)
					}
				}
			}
			t.Logf("%d alerts, asked about %v", len(alerts), of)
		})
	}
}

// alertsIn are the alerts in a file that spate replay wrote, by their ids, and when the last of their windows ends.
func alertsIn(t *testing.T, path string) (list map[string]alert.Record, end time.Time) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list = map[string]alert.Record{}
	for line := range bytes.Lines(text) {
		a, err := alert.Parse(bytes.TrimSpace(line))
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		list[a.ID] = a
		if a.WindowEnd.After(end) {
			end = a.WindowEnd
		}
	}
	return list, end
}

// requestLog is the log of a web server, without the two empty fields at the end of each line, for which its header has no names.
func requestLog(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(harness.SharedFile(t, "data/nasa-1995-07-01-head.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "requests.tsv")
	if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte("\t\t\n"), []byte("\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// lateTraffic is generated traffic with attackers of all kinds, a good part of which comes too late. It is written as JSON, so that replay and simulate send the same bytes.
func lateTraffic(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "traffic.jsonl")
	run(t, 0, "simulate", "--quiet", "--speed", "0", "--attackers", "all,library", "--innocents", "all", "--duration", "2m", "--event-rate", "50", "--disorder", "25s", "--seed", "3", "--out", path)
	return path
}

// repeatedTraffic is lateTraffic in which every event has an id, and one in five is sent again later, not always as it was.
func repeatedTraffic(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(lateTraffic(t))
	if err != nil {
		t.Fatal(err)
	}
	var events [][]byte
	for line := range bytes.Lines(text) {
		events = append(events, fmt.Appendf(nil, `%s,"event_id":"%d"}`, bytes.TrimSuffix(bytes.TrimSpace(line), []byte("}")), len(events)))
	}
	var out bytes.Buffer
	for i, e := range events {
		fmt.Fprintf(&out, "%s\n", e)
		if again := i - 7*(i%40); i%5 == 0 && again >= 0 {
			fmt.Fprintf(&out, "%s\n", bytes.Replace(events[again], []byte(`"purchase"`), []byte(`"view"`), 1))
		}
	}
	path := filepath.Join(t.TempDir(), "repeated.jsonl")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
