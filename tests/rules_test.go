package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/simulator"
	"spate/services/verifier"
	"spate/shared/rule/ruletest"
	"spate/shared/store"
	"spate/shared/store/sqlite"
	"spate/shared/testport"
	"spate/tests/harness"
)

// library is the rules library as one file.
func library(t *testing.T) []byte {
	t.Helper()
	files, err := filepath.Glob("../rules/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	var script bytes.Buffer
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		script.Write(b)
	}
	return script.Bytes()
}

// TestVerifyRules: the rules library over a log with late events, in four partitions, through the whole pipeline, is what SQLite makes of it.
func TestVerifyRules(t *testing.T) {
	dir := t.TempDir()
	file, rules := filepath.Join(dir, "late.csv"), filepath.Join(dir, "all.sql")
	if err := errors.Join(os.WriteFile(file, ruletest.Text(t, "shop-late"), 0o600), os.WriteFile(rules, library(t), 0o600)); err != nil {
		t.Fatal(err)
	}
	p := harness.Spate(t, "verify", nil, "verify", "-q", "--json", "--rules", rules, "--partitions", "4", file).Start()
	if err := p.Wait(2 * time.Minute); err != nil {
		t.Errorf("%v\n%s", err, p.Output())
	}
	alerts := 0
	for line := range bytes.Lines(p.Output()) {
		var d verifier.RuleDiff
		if err := json.Unmarshal(line, &d); err != nil || !d.Exact() {
			t.Errorf("%s", line)
		}
		alerts += d.Rows
	}
	if alerts == 0 {
		t.Error("no alert was compared")
	}
}

// TestDemoOfTheLibrary: the rules library finds the attackers that it is there for in the demo's traffic, flags no innocent, and gives the alerts that
// SQLite finds.
func TestDemoOfTheLibrary(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short is set")
	}
	t.Parallel()
	all := filepath.Join(t.TempDir(), "all.sql")
	if err := os.WriteFile(all, library(t), 0o600); err != nil {
		t.Fatal(err)
	}
	out := run(t, 0, "demo", "--json", "--rules", all)
	t.Logf("%s", out)
	var res struct {
		Alerts  int                 `json:"alerts"`
		Recall  map[string]float64  `json:"recall"`
		Flagged []string            `json:"flagged"`
		Rules   []verifier.RuleDiff `json:"rules"`
	}
	if err := json.Unmarshal(out, &res); err != nil {
		t.Fatal(err)
	}
	for _, d := range res.Rules {
		if !d.Exact() {
			t.Errorf("%+v", d)
		}
	}
	for _, kind := range simulator.LibraryKinds() {
		if res.Recall[string(kind)] != 1 {
			t.Errorf("recall of %s is %v", kind, res.Recall[string(kind)])
		}
	}
	if len(res.Rules) < 8 || len(res.Flagged) > 0 {
		t.Errorf("%d rules; innocents that are flagged: %v", len(res.Rules), res.Flagged)
	}
}

// TestKey: spate key shows the windows of a key as they are now, for the rules that have it.
func TestKey(t *testing.T) {
	t.Parallel()
	state, addr := t.TempDir(), testport.Reserve(t)
	rules := filepath.Join(state, "rules.sql")
	err := os.WriteFile(rules, []byte(`-- rule: scraped
INSERT INTO alerts SELECT product_id, COUNT(DISTINCT user_id) AS users FROM activity
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), product_id HAVING COUNT(DISTINCT user_id) > 2;
-- rule: pair
INSERT INTO alerts SELECT user_id, product_id AS item, COUNT(*) AS n, MIN(price) AS low FROM activity
GROUP BY HOP(txn_timestamp, INTERVAL '5' SECOND, INTERVAL '10' SECOND), user_id, product_id HAVING MIN(price) > 1;
-- rule: all
-- mode: shadow
INSERT INTO alerts SELECT COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND) HAVING COUNT(*) > 100;
-- rule: ratio
INSERT INTO alerts SELECT category_code, COUNT(*) AS n FROM activity
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), category_code HAVING COUNT(*) / COUNT(brand) > 3;
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	up := harness.Spate(t, "up", []string{"SPATE_BROKERS="}, "up", "--state", state, "--listen", addr, "--max-ahead", "0", "--rules", rules).Start()
	harness.Eventually(t, 20*time.Second, "up is ready", func() bool { code, _ := up.Get("/readyz"); return code == http.StatusOK })
	cl := harness.Connect(t, addr)
	faults := func() (n float64) {
		for line := range bytes.Lines(run(t, 0, "rules", "ls", "--json", "--brokers", addr)) {
			var r struct {
				Name   string
				Faults *float64
			}
			if err := json.Unmarshal(line, &r); err != nil || r.Faults == nil || *r.Faults > 0 && r.Name != "ratio" {
				t.Fatalf("%v: %s", err, line)
			}
			n += *r.Faults
		}
		return n
	}
	if n := faults(); n > 0 {
		t.Errorf("%v faults of no events", n)
	}
	// What cannot be computed when a window ends is counted: the event has no brand. It is long ago, so its window ends when nothing else comes.
	r := &kgo.Record{Topic: "activity", Value: []byte(`{"user_id":3,"event_time":"2020-01-01T00:01:00Z"}`)}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, time.Minute, "the fault of ratio is shown", func() bool { return faults() == 1 })
	if out := string(run(t, 0, "rules", "ls", "--brokers", addr)); !strings.Contains(out, "FAULTS") {
		t.Error(out)
	}
	for _, user := range []string{`1`, `"1"`, `2`, `2`} {
		r := &kgo.Record{Topic: "activity", Value: []byte(`{"user_id":` + user + `,"product_id":"7","price":2.5,"event_time":"2030-01-01T00:00:07Z"}`)}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(args ...string) string {
		var out []string
		d := json.NewDecoder(bytes.NewReader(run(t, 0, append([]string{"key", "--json", "--brokers", addr}, args...)...)))
		for d.More() {
			var k struct {
				Token   json.RawMessage
				Windows []struct {
					Rule, Mode, AlertID string
					Key, Columns        json.RawMessage
					Alert               string    `json:"alert_id"`
					Start               time.Time `json:"window_start"`
					Count               int64
					Holds               bool
				}
			}
			if err := d.Decode(&k); err != nil {
				t.Fatal(err)
			}
			for _, w := range k.Windows {
				out = append(out, fmt.Sprintf("%s %s%s %s %d %s alert=%t holds=%t", k.Token, w.Rule, w.Mode, w.Start.Format("05"), w.Count, w.Columns, w.Alert != "", w.Holds))
			}
		}
		return strings.Join(out, "\n")
	}
	const product = `7 scraped 00 4 {"product_id":7,"users":3} alert=true holds=true`
	pair := func(user, start string, n int) string {
		return fmt.Sprintf(`[%s,7] pair %s %d {"user_id":%[1]s,"item":7,"n":%[3]d,"low":2.5} alert=false holds=true`, user, start, n)
	}
	got := ""
	harness.Eventually(t, 10*time.Second, "all events are counted", func() bool { got = ask("product_id=7"); return strings.Contains(got, " 4 ") })
	if got != product {
		t.Errorf("%s, want %s", got, product)
	}
	for args, want := range map[string]string{
		"product_id=8":                 "",
		"product_id=7 --rule scraped":  product,
		"user_id=2 item=7 --rule pair": pair("2", "00", 2) + "\n" + pair("2", "05", 2),
		"item=7 user_id=1":             strings.Join([]string{pair("1", "00", 1), pair("1", "05", 1), pair(`"1"`, "00", 1), pair(`"1"`, "05", 1)}, "\n"),
		"":                             `[] allshadow 00 4 {"n":4} alert=false holds=false`,
	} {
		if got := ask(strings.Fields(args)...); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", args, got, want)
		}
	}
	for args, want := range map[string]string{
		"product_id=7 --rule pair": "no rule has the key product_id; the keys are: user_id, item (pair)",
		"user_id=7":                "no rule has the key user_id; the keys are: category_code (ratio); no column (all); product_id (scraped); user_id, item (pair)",
		"7":                        "7 is not COLUMN=VALUE; use, for example, user_id=alice",
		"product_id=x":             "scraped: column product_id: \"x\" is not a value of type BIGINT",
		"--rule nobody":            "no rule nobody is in force",
	} {
		p := harness.Spate(t, "key", nil, append([]string{"key", "--brokers", addr}, strings.Fields(args)...)...).Start()
		if err := p.Wait(time.Minute); err == nil || !strings.Contains(string(p.Output()), want) {
			t.Errorf("%s: %v: %s", args, err, p.Output())
		}
	}
	if out := string(run(t, 0, "key", "--brokers", addr, "product_id=7")); !strings.Contains(out, "RULE     WINDOW (UTC)") || !strings.Contains(out, `"product_id":7,"users":3`) {
		t.Error(out)
	}
}

// TestUpRunsTheWalkthrough: the script of the AWS walkthrough, with its two tables and its INSERT, runs as it is, and so does what its notebook is imported
// as. A change of the file is a revision when spate starts again.
func TestUpRunsTheWalkthrough(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the pipeline; -short is set")
	}
	t.Parallel()
	script, err := os.ReadFile("../shared/rule/testdata/walkthrough.sql")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, notebook := filepath.Join(dir, "burst.sql"), filepath.Join(dir, "burst.zpln")
	type paragraph struct {
		Text string `json:"text"`
	}
	var note struct {
		Paragraphs []paragraph `json:"paragraphs"`
	}
	for text := range strings.SplitSeq(string(script), ";") {
		if strings.TrimSpace(text) != "" {
			note.Paragraphs = append(note.Paragraphs, paragraph{"%flink.ssql(type=update)\n" + text + ";"})
		}
	}
	zpln, err := json.Marshal(note)
	if err = errors.Join(err, os.WriteFile(file, script, 0o600), os.WriteFile(notebook, zpln, 0o600)); err != nil {
		t.Fatal(err)
	}
	imported := filepath.Join(t.TempDir(), "burst.sql")
	if err := os.WriteFile(imported, run(t, 0, "rules", "import", notebook), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, rules := range map[string]string{"script": file, "notebook": imported} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state, addr := t.TempDir(), testport.Reserve(t)
			env := []string{"SPATE_BROKERS=", "SPATE_IDLE_TIMEOUT=1s"}
			up := harness.Spate(t, "up", env, "up", "--state", state, "--listen", addr, "--rules", rules, "--json").Start()
			cl := harness.Connect(t, addr)
			harness.Eventually(t, 20*time.Second, "topics are made", func() bool { return harness.TopicExists(t, cl, "activity") })
			traffic := harness.Spate(t, "traffic", []string{"SPATE_BROKERS=" + addr}, "simulate", "--time", "now", "--event-rate", "500", "--users", "10000", "--duration", "15s", "--quiet").Start()
			if err := traffic.Wait(time.Minute); err != nil {
				t.Fatal(err)
			}
			ref := harness.Reference(t, addr, "activity", upDefault)
			want := ref.Result()
			st, err := sqlite.Open(t.Context(), filepath.Join(state, "spate.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			harness.Eventually(t, time.Minute, "all alerts are closed", func() bool {
				n, err := st.Count(t.Context())
				return err == nil && n.Opened == 0 && n.Closed >= int64(len(want))
			})
			counts := map[string]int64{}
			for a, err := range st.Alerts(t.Context(), store.Filter{}) {
				if err != nil {
					t.Fatal(err)
				}
				counts[string(a.UserID)+a.WindowStart.String()] = a.Count
			}
			for _, row := range want {
				if got := counts[row.User+time.UnixMilli(row.WindowStart).UTC().String()]; got != row.Count || len(counts) != len(want) {
					t.Errorf("%+v: %d events; %d alerts", row, got, len(counts))
				}
			}
			restart := func() {
				harness.Eventually(t, time.Minute, "spate is ready", func() bool { code, _ := up.Get("/readyz"); return code == http.StatusOK })
				if err := up.Stop(20 * time.Second); err != nil {
					t.Error(err)
				}
				up.Start()
			}
			history := func() string {
				p := harness.Spate(t, "history", nil, "rules", "history", "--brokers", addr, "--json").Start()
				if err := p.Wait(time.Minute); err != nil {
					return ""
				}
				return string(p.Output())
			}
			restart() // with the same rules
			restart()
			if err := os.WriteFile(rules, bytes.ReplaceAll(script, []byte("> 5"), []byte("> 7")), 0o600); err != nil {
				t.Fatal(err)
			}
			restart()
			harness.Eventually(t, time.Minute, "there is a second revision", func() bool { return strings.Contains(history(), `"revision":2`) })
			if got := history(); strings.Count(got, `"revision":`) != 2 {
				t.Errorf("the history: %s", got)
			}
		})
	}
}

// upDefault is the rule of the walkthrough.
var upDefault = verifier.Rule{Window: 10 * time.Second, Lateness: 10 * time.Second, Threshold: 5}
