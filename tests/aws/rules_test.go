package aws

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spate/services/simulator"
	"spate/services/verifier"
	"spate/shared/alert"
	"spate/shared/revision"
	"spate/shared/revision/table"
	burst "spate/shared/rule"
	"spate/shared/rule/ruletest"
	"spate/tests/harness"
)

// apply makes a rules file the next revision.
func apply(t *testing.T, a *harness.AWS, script string, args ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rules.sql")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	p := harness.Spate(t, "apply", a.Env, append([]string{"rules", "apply", file, "--yes"}, args...)...).Start()
	if err := p.Wait(patience); err != nil {
		t.Fatalf("spate rules apply: %v: %s", err, p.Output())
	}
}

// TestGoldenRules: the rules of the golden files, all that read an input at once, give Flink's rows through the worker.
func TestGoldenRules(t *testing.T) {
	if testing.Short() {
		t.Skip("-short is set, and it takes a minute")
	}
	harness.OnGolden(t, func(t *testing.T, g harness.Golden, shards int32) {
		a := harness.OnAWS(t, int(shards), "SPATE_IDLE_TIMEOUT=0", "SPATE_LATENESS="+(ruletest.LatenessMS*time.Millisecond).String())
		for _, kv := range a.Env { // for the simulator, which runs in this process
			name, value, _ := strings.Cut(kv, "=")
			t.Setenv(name, value)
		}
		sim := simulator.Default()
		sim.To, sim.Stream, sim.File, sim.Key, sim.Speed, sim.Exact, sim.Log = simulator.ToKinesis, a.Stream, g.File, simulator.KeyNone, 0, true, slog.New(slog.DiscardHandler)
		if _, err := simulator.Run(t.Context(), sim); err != nil {
			t.Fatal(err)
		}
		apply(t, a, g.Script)
		drain(t, a, a.Env)
		closed, _ := alerts(t, a)
		g.Compare(t, closed)
		if st, _ := a.State(); st.Tally.Late != 0 && shards > 1 || st.Tally.Lost != 0 {
			t.Errorf("tally %+v", st.Tally)
		}
	})
}

// The rules of two revisions, none of which takes [harness.Heir]: one stays, one changes its window, one goes, and one comes.
const (
	stays = `-- rule: burst
INSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '4' SECOND), user_id HAVING COUNT(*) > 5;
`
	before = `-- rule: products
INSERT INTO alerts SELECT user_id, COUNT(DISTINCT product_id) AS products FROM activity WHERE event_type <> 'none' GROUP BY HOP(txn_timestamp, INTERVAL '2' SECOND, INTERVAL '8' SECOND), user_id HAVING COUNT(DISTINCT product_id) > 7;
-- rule: brands
INSERT INTO alerts SELECT brand, COUNT(*) AS n, MAX(price) AS dearest FROM activity WHERE event_type = 'view' GROUP BY TUMBLE(txn_timestamp, INTERVAL '3' SECOND), brand HAVING COUNT(*) > 3;
`
	after = `-- rule: products
INSERT INTO alerts SELECT user_id, COUNT(DISTINCT product_id) AS products FROM activity WHERE event_type <> 'none' GROUP BY HOP(txn_timestamp, INTERVAL '3' SECOND, INTERVAL '6' SECOND), user_id HAVING COUNT(DISTINCT product_id) > 5;
-- rule: carts
INSERT INTO alerts SELECT brand, COUNT(*) AS n FROM TABLE(CUMULATE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '2' SECOND, INTERVAL '6' SECOND)) WHERE event_type = 'cart' GROUP BY brand, window_start, window_end HAVING COUNT(*) > 1;
`
)

// TestWorkerKilledWhileRulesChange kills the worker with kill -9, while shards are split and merged and the rules change under traffic of which some comes
// too late. The alerts are those that SQLite finds in the stream: in each window by the revision in force at its start.
func TestWorkerKilledWhileRulesChange(t *testing.T) {
	if testing.Short() {
		t.Skip("-short is set, and it takes a minute")
	}
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 2))
	t.Logf("seed %d", seed)
	const lateness, maxAhead = 2 * time.Second, 2 * time.Second
	a := harness.OnAWS(t, 4, "SPATE_LATENESS="+lateness.String(), "SPATE_MAX_AHEAD="+maxAhead.String(), "SPATE_LEASE=2s", "SPATE_IDLE_TIMEOUT=0")
	apply(t, a, stays+before)
	load := revision.Margin + 40*time.Second
	traffic := harness.Spate(t, "traffic", a.Env, "simulate", "--time", "shift", "--disorder", "3s", "--event-rate", "400", "--users", "3000", "--window", "4s",
		"--duration", load.String(), "--seed", fmt.Sprint(rng.IntN(1000)), "--quiet").Start()
	killAndReshard(t, a, rng, traffic, 8, func(kill int) {
		if kill == 1 {
			apply(t, a, stays+after)
		}
	})
	drain(t, a, a.Env)

	initial, err := burst.Burst(10*time.Second, 5, 10)
	if err != nil {
		t.Fatal(err)
	}
	log := table.NewReader(a.DynamoDB, a.StateTable, a.Stream, initial)
	if _, err := log.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	closed, written := alerts(t, a)
	events := a.Events(verifier.Rule{User: []string{"user_id"}, Time: []string{"txn_timestamp", "event_time"}})
	st, _ := a.State()
	t.Logf("%d events, %d alerts, %d records written; %d epochs, tally %+v", len(events), len(closed), written, st.Epoch, st.Tally)
	if st.Tally.Late == 0 {
		t.Error("nothing was late: the test proves less than it should")
	}
	entries, rows := log.Entries(), 0
	if len(entries) != 2 || entries[0].BoundaryMS != 0 {
		t.Fatalf("%d revisions: %+v", len(entries), entries)
	}
	for i, e := range entries {
		until := int64(1 << 62)
		if i+1 < len(entries) {
			until = entries[i+1].BoundaryMS
		}
		report, err := verifier.Rules(t.Context(), e.Text, verifier.RulesOptions{Lateness: lateness, MaxAhead: maxAhead}, func(yield func(verifier.Event, error) bool) {
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		for k := range report.Rules {
			r := &report.Rules[k]
			r.Rows = slices.DeleteFunc(r.Rows, func(row verifier.RuleRow) bool { return row.Start < e.BoundaryMS || row.Start >= until })
			t.Logf("revision %d: rule %s has %d alerts", e.Revision, r.Rule, len(r.Rows))
			if rows += len(r.Rows); len(r.Rows) == 0 {
				t.Error("there is nothing to find: the test proves less than it should")
			}
		}
		in := slices.DeleteFunc(slices.Clone(closed), func(r alert.Record) bool {
			return r.WindowStart.UnixMilli() < e.BoundaryMS || r.WindowStart.UnixMilli() >= until
		})
		for _, d := range verifier.CompareRules(report, in) {
			if !d.Exact() {
				t.Errorf("revision %d: %+v", e.Revision, d)
			}
		}
	}
	if len(closed) != rows {
		t.Errorf("%d alerts, want %d", len(closed), rows)
	}
}
