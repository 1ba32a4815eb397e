package rules_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spate/services/simulator"
	"spate/shared/cases"
	"spate/shared/rule"
	"spate/shared/rule/ruletest"
	"spate/tests/harness"
)

// plain is the rule that spate has without a rules file.
const plain = `-- rule: plain
INSERT INTO alerts SELECT user_id, COUNT(*) AS num_actions_per_watermark FROM activity
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5;`

// finds says which rule is there for a kind of attacker. The default rule's own attackers are here, too: those that keep it are found by another
// question.
var finds = map[simulator.Kind]string{
	simulator.KindBurst: "burst", simulator.KindStraddler: "burst", simulator.KindBulkOrder: "burst", simulator.KindFlood: "burst", simulator.KindGiant: "burst",
	simulator.KindSlow: "scraper", simulator.KindScraper: "scraper", simulator.KindCardTester: "card-testing",
	simulator.KindCredentialStuffer: "credential-stuffing", simulator.KindPasswordGuesser: "password-guessing",
	simulator.KindCouponAbuser: "coupon-abuse", simulator.KindCartHoarder: "cart-hoarding",
}

func compile(t testing.TB, name, text string) *rule.Set {
	t.Helper()
	set, errs := rule.Compile(text, rule.Options{Tables: []*rule.Table{rule.Activity()}})
	for _, e := range errs {
		t.Error(e.Format(name, text))
	}
	if len(errs) > 0 {
		t.FailNow()
	}
	return set
}

// library is all files of the folder as one, as somebody has it who wants all rules.
func library(t testing.TB) string {
	t.Helper()
	files, err := filepath.Glob("*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("no rules: %v", err)
	}
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
		all.WriteByte('\n')
	}
	return all.String()
}

// TestFiles: each file can be used alone, and says what a rule should.
func TestFiles(t *testing.T) {
	files, _ := filepath.Glob("*.sql")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		set := compile(t, f, string(text))
		for _, r := range set.Rules {
			if r.Summary == "" || r.Mode == rule.Live && r.Runbook == "" {
				t.Errorf("%s: rule %s has no summary or no runbook", f, r.Name)
			}
			early, why := r.Early()
			t.Logf("%-20s %-14s %-7s opens early: %v, %s", r.Name, r.Window, r.Mode, early, why)
			if waits := r.Name == "scraper" || r.Name == "cart-hoarding"; early == waits {
				t.Errorf("rule %s opens early: %v, which its comment denies", r.Name, early)
			}
		}
	}
}

// TestCases: what the cases beside a file say is true of it, and they have an alert of each rule and somebody who gives none.
func TestCases(t *testing.T) {
	files, _ := filepath.Glob("*.sql")
	for _, f := range files {
		name, ok := cases.Beside(f)
		if !ok {
			t.Errorf("%s has no cases", f)
			continue
		}
		file, broken, err := cases.Load(name, func(string) string { return "" })
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range broken {
			for _, e := range s.Errors {
				t.Error(e.Format(s.Name, s.Text))
			}
		}
		if len(broken) > 0 {
			continue
		}
		innocent, found := false, map[string]bool{}
		for _, c := range file.Cases {
			result, err := c.Run()
			if err != nil {
				t.Fatal(err)
			}
			for _, fail := range result.Failures {
				t.Errorf("%s:%d: %s: rule %s: %s\n     got %s\nexpected %s", name, fail.Line, c.Name, fail.Rule, fail.Kind, fail.Got, fail.Expected)
			}
			innocent = innocent || len(c.Expects()) == 0
			for _, r := range c.Expects() {
				found[r] = true
			}
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range compile(t, f, string(text)).Rules {
			if !found[r.Name] || !innocent {
				t.Errorf("%s: no case finds something by rule %s, or none is innocent", name, r.Name)
			}
		}
	}
}

// found is a window that a rule flags.
type found struct {
	rule     string
	live     bool
	from, to int64 // to is not part of it
	row      map[string]any
}

// has reports whether the window is about a key.
func (f found) has(key map[string]string) bool {
	for name, value := range key {
		if fmt.Sprint(f.row[name]) != value {
			return false
		}
	}
	return true
}

func evaluate(t testing.TB, set *rule.Set, events []ruletest.Event) (out []found) {
	t.Helper()
	plan := set.Plan()
	for i, r := range plan.Rules {
		for _, l := range ruletest.Naive(t, plan, i, ruletest.LatenessMS, events) {
			f := found{rule: r.Name, live: r.Mode == rule.Live, from: l.Start, to: l.End}
			d := json.NewDecoder(strings.NewReader(l.Line))
			d.UseNumber()
			if err := d.Decode(&f.row); err != nil {
				t.Fatal(err)
			}
			out = append(out, f)
		}
	}
	return out
}

// traffic returns simulated events as a set reads them, and the attacks and innocents among them, each once.
func traffic(t testing.TB, set *rule.Set, change func(*simulator.Config)) (events []ruletest.Event, attacks []simulator.Truth) {
	t.Helper()
	cfg := simulator.Default()
	cfg.Speed, cfg.EventRate, cfg.Out, cfg.Stdout = 0, 100, "-", discard{}
	cfg.Attackers, cfg.Innocents = []string{"all", "library"}, []string{"all"}
	change(&cfg)
	cfg.OnSent = func(r simulator.Row, _ int32, _ int64) {
		var members map[string]any
		d := json.NewDecoder(strings.NewReader(string(r.AppendJSON(nil))))
		d.UseNumber()
		if err := d.Decode(&members); err != nil {
			t.Fatal(err)
		}
		e := ruletest.Event{MS: r.TimeMS, Values: make([]rule.Value, len(set.Inputs))}
		for i, in := range set.Inputs {
			if v := members[in.Name()]; v != nil {
				text := strings.TrimSuffix(fmt.Sprint(v), "Z") // a TIMESTAMP has no zone
				e.Values[i], _ = rule.Parse(in.Type, []byte(text))
			}
		}
		events = append(events, e)
	}
	res, err := simulator.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, a := range res.Truth {
		if id := fmt.Sprint(a.Kind, a.Key, a.FromMS, a.ToMS); !seen[id] {
			seen[id] = true
			attacks = append(attacks, a)
		}
	}
	return events, attacks
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// TestSimulated: each attacker is found by the rule that is there for its kind, and whoever is no attacker is flagged by none.
func TestSimulated(t *testing.T) {
	set, counts := compile(t, "rules/*.sql", library(t)), compile(t, "plain", plain)
	total := make(map[simulator.Kind][3]int) // attacks; of these, flagged by the library; by the plain rule
	windows := make(map[string]int)          // by rule
	for _, c := range []struct {
		seed     uint64
		duration time.Duration
		start    time.Time
		disorder time.Duration
	}{
		{seed: 1, duration: 5 * time.Minute},
		{seed: 2, duration: 3 * time.Minute, start: time.Date(2024, 2, 29, 12, 3, 17, 412e6, time.UTC)},
		{seed: 3, duration: 4 * time.Minute, start: time.Date(2019, 11, 1, 23, 57, 31, 0, time.UTC), disorder: 5 * time.Second},
		{seed: 4, duration: 2 * time.Minute},
	} {
		change := func(cfg *simulator.Config) {
			cfg.Seed, cfg.Duration, cfg.Start, cfg.Disorder = c.seed, c.duration, c.start, c.disorder
		}
		events, attacks := traffic(t, set, change)
		flagged := evaluate(t, set, events)
		for _, a := range attacks {
			right, alarm := false, false
			for _, f := range flagged {
				if f.live && f.about(a) {
					right, alarm = right || f.rule == finds[a.Kind], true
				}
			}
			switch {
			case a.Innocent && alarm:
				t.Errorf("seed %d: %s %v is flagged", c.seed, a.Kind, a.Key)
			case !a.Innocent && !right:
				t.Errorf("seed %d: %s %v, %s to %s, is not found by %s", c.seed, a.Kind, a.Key, ruletest.ISO(a.FromMS), ruletest.ISO(a.ToMS), finds[a.Kind])
			}
			n := total[a.Kind]
			n[0]++
			if alarm {
				n[1]++
			}
			total[a.Kind] = n
		}
		for _, f := range flagged {
			windows[f.rule]++
			if f.live && !slices.ContainsFunc(attacks, func(a simulator.Truth) bool { return !a.Innocent && f.about(a) }) {
				t.Errorf("seed %d: rule %s flags %v, who did nothing", c.seed, f.rule, f.row)
			}
		}

		events, attacks = traffic(t, counts, change)
		flagged = evaluate(t, counts, events)
		windows["plain"] += len(flagged)
		for _, a := range attacks {
			if slices.ContainsFunc(flagged, func(f found) bool { return f.about(a) }) {
				n := total[a.Kind]
				n[2]++
				total[a.Kind] = n
			}
		}
	}
	for _, k := range slices.Concat(simulator.Kinds(), simulator.LibraryKinds(), simulator.Innocents()) {
		n := total[k]
		if n[0] == 0 {
			t.Errorf("no %s in the traffic", k)
		}
		t.Logf("%-20s %3d, flagged by the library %3d, by the plain rule %3d", k, n[0], n[1], n[2])
	}
	t.Logf("windows flagged: %v", windows)
}

// about reports whether the window is about an attack: its time and its key, or an account that only this attack has.
func (f found) about(a simulator.Truth) bool {
	return f.from <= a.ToMS && a.FromMS < f.to && (f.has(a.Key) || f.has(map[string]string{"user_id": a.UserID}))
}

// TestShops: in the logs of real shops, no order and no emptied cart is flagged.
func TestShops(t *testing.T) {
	t.Run("cosmetics 2019-10", func(t *testing.T) { shop(t, ruletest.ReadLog(t, "cosmetics-2019-10"), 6, 5, 3, 0) })
	t.Run("cosmetics 2019-12", func(t *testing.T) { shop(t, ruletest.ReadLog(t, "cosmetics-2019-12"), 4, 2, 1, 1) })
	t.Run("rees46", func(t *testing.T) {
		text, err := os.ReadFile(harness.SharedFile(t, "data/rees46-2019-oct-head.csv"))
		if err != nil {
			t.Fatal(err)
		}
		shop(t, ruletest.ParseLog(t, text[:bytes.LastIndexByte(text, '\n')]), 0, 0, 0, 0) // the last line is cut
	})
}

// shop sorts what the plain rule flags, and checks that the library leaves the orders and the emptied carts alone. left is how many (user, window)
// pairs of the plain rule the library still flags.
func shop(t *testing.T, log *ruletest.Log, orders, removals, others, left int) {
	const explain = `-- rule: explain
INSERT INTO alerts SELECT user_id, COUNT(*) AS n, COUNT(*) FILTER (WHERE event_type = 'purchase') AS purchases, COUNT(DISTINCT txn_timestamp) AS moments,
  COUNT(*) FILTER (WHERE event_type = 'remove_from_cart') AS removals, COUNT(DISTINCT user_session) AS sessions FROM activity
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5;`
	set, why := compile(t, "rules/*.sql", library(t)), compile(t, "explain", explain)
	flagged := evaluate(t, set, log.Events(t, set.Inputs))
	shadow := 0
	for _, f := range flagged {
		if !f.live {
			shadow++
			continue
		}
		t.Logf("%s flags %v", f.rule, f.row)
	}
	var got [4]int
	for _, pair := range evaluate(t, why, log.Events(t, why.Inputs)) {
		user := map[string]string{"user_id": fmt.Sprint(pair.row["user_id"])}
		alert := slices.IndexFunc(flagged, func(f found) bool { return f.live && f.from < pair.to && pair.from < f.to && f.has(user) })
		innocent := true
		switch n := pair.row["n"]; {
		case pair.row["purchases"] == n && pair.row["moments"] == json.Number("1"):
			got[0]++
		case pair.row["removals"] == n:
			got[1]++
		default:
			got[2]++
			innocent = false
			t.Logf("the plain rule flags %v", pair.row)
		}
		if alert >= 0 {
			got[3]++
		}
		if innocent && alert >= 0 {
			t.Errorf("rule %s flags %v, who only placed an order or emptied a cart: %v", flagged[alert].rule, flagged[alert].row, pair.row)
		}
	}
	t.Logf("the plain rule flags %d pairs: %d orders, %d emptied carts, %d others; the library %d of them, and %d orders in shadow", got[0]+got[1]+got[2], got[0], got[1], got[2], got[3], shadow)
	if want := [4]int{orders, removals, others, left}; got != want || shadow < orders {
		t.Errorf("got %v, want %v; %d orders in shadow", got, want, shadow)
	}
}
