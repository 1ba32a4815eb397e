package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
