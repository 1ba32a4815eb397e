package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/explainer"
	"spate/shared/kafka"
	"spate/shared/testport"
	"spate/tests/harness"
)

const whyRules = `-- rule: burst
-- quiet: 1s
INSERT INTO alerts
SELECT user_id, COUNT(*) AS n FROM activity WHERE user_id <> 777
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5;
-- rule: viewer
INSERT INTO alerts
SELECT user_id, COUNT(*) AS n FROM activity WHERE event_type = 'view' AND product_id > 0
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5;
-- rule: shadowed
-- mode: shadow
INSERT INTO alerts
SELECT user_id, COUNT(*) AS n FROM activity
GROUP BY HOP(txn_timestamp, INTERVAL '5' SECOND, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5;
-- rule: asleep
-- mode: off
INSERT INTO alerts
SELECT user_id, COUNT(*) AS n FROM activity
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5;
`

// why is an answer of spate why --json.
type why struct {
	explainer.Answer
	Deliveries []json.RawMessage `json:"deliveries"`
}

// spate runs a command that must succeed, and returns what it prints.
func spate(t *testing.T, env []string, args ...string) string {
	t.Helper()
	p := harness.Spate(t, args[0], env, args...).Start()
	if err := p.Wait(time.Minute); err != nil {
		t.Fatalf("spate %v: %v\n%s", args, err, p.Output())
	}
	return string(p.Output())
}

func askWhy(t *testing.T, env []string, args ...string) (list []why) {
	t.Helper()
	for line := range strings.Lines(spate(t, env, append([]string{"why", "--json"}, args...)...)) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var w why
		if err := json.Unmarshal([]byte(line), &w); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		list = append(list, w)
	}
	if len(list) == 0 {
		t.Fatalf("spate why %v answers nothing", args)
	}
	return list
}

// TestWhy: every reason of the list, with its numbers, of a pipeline that met each of them.
func TestWhy(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short is set")
	}
	t.Parallel()
	dir := t.TempDir()
	rules := filepath.Join(dir, "rules.sql")
	if err := os.WriteFile(rules, []byte(whyRules), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := testport.Reserve(t)
	env := []string{"SPATE_STATE=" + dir, "SPATE_BROKERS=" + addr}
	harness.Spate(t, "up", []string{"SPATE_STATE=" + dir}, "up", "--rules", rules, "--listen", addr, "--partitions", "2", "--idle-timeout", "2s").Start()
	cl := harness.Connect(t, addr, kgo.DefaultProduceTopic("activity"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	harness.Eventually(t, 30*time.Second, "topics are made", func() bool { return harness.TopicExists(t, cl, "alerts") })
	spate(t, env, "silence", "add", "--key", "user_id=5", "--for", "1h", "--why", "load test")

	start := time.Now().Add(-40 * time.Second).Truncate(10 * time.Second).UTC()
	send := func(partition int32, user, n int, at time.Duration, kind string) {
		t.Helper()
		var records []*kgo.Record
		for i := range n {
			records = append(records, &kgo.Record{Partition: partition, Value: fmt.Appendf(nil, `{"user_id":%d,"event_type":%q,"product_id":1,"txn_timestamp":%d}`, user, kind, start.Add(at).UnixMilli()+int64(i))})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	send(1, 9, 3, time.Second, "view")
	send(0, 1, 6, time.Second, "view")
	send(0, 2, 5, time.Second, "view")
	send(0, 4, 5, time.Second, "cart")
	send(0, 4, 2, 2*time.Second, "view")
	send(0, 5, 6, time.Second, "view")
	send(0, 777, 8, time.Second, "view")
	send(0, 8, 3, time.Second, "view")
	send(0, 3, 3, 8*time.Second, "view")
	send(0, 3, 4, 11*time.Second, "view")
	send(0, 99, 1, 35*time.Second, "view")
	send(0, 8, 4, 2*time.Second, "view") // late
	send(0, 12, 2, 10*time.Minute, "view")
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Value: []byte(`{"user_id":10101,"txn_timestamp":"yesterday"}`)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, time.Minute, "the window is closed, although a partition is silent", func() bool {
		return strings.Contains(spate(t, env, "alerts", "ls", "--json", "--only", "closed", "--rule", "burst"), `"user_id":1,`)
	})
	send(1, 9, 4, 2*time.Second, "view") // late only because the partition was silent
	harness.Eventually(t, time.Minute, "all events are routed", func() bool {
		return harness.ReadAll(t, addr, "activity.late", func(*kgo.Record) {}) >= 8
	})
	spate(t, env, "migrate", "up", "--state", filepath.Join(dir, "other"))
	later := filepath.Join(dir, "later.sql")
	if err := os.WriteFile(later, []byte(whyRules+strings.ReplaceAll(strings.Split(whyRules, "-- rule: viewer")[0], "rule: burst", "rule: later")), 0o600); err != nil {
		t.Fatal(err)
	}
	spate(t, env, "rules", "apply", later)

	at := start.Add(time.Second).Format(time.RFC3339)
	seen := map[explainer.Reason]bool{}
	for _, c := range []struct {
		user    int
		rule    string
		reason  explainer.Reason
		flagged bool
		text    string
		fates   string // of the events
	}{
		{1, "burst", explainer.Holds, true, "COUNT(*) > 5 (it is 6)", "counted 6"},
		{2, "burst", explainer.Below, false, "COUNT(*) > 5 (it is 5)", "counted 5"},
		{3, "burst", explainer.Split, false, "From ", "counted 7"},
		{4, "viewer", explainer.IsFiltered, false, "excludes 5 of 7 events (5 do not satisfy event_type = 'view')", "counted 2 filtered 5"},
		{777, "burst", explainer.Exempt, false, "excludes all its events (8 do not satisfy user_id <> 777)", "filtered 8"},
		{5, "burst", explainer.Silenced, true, "load test", "counted 6"},
		{1, "shadowed", explainer.Shadow, true, "no one is notified", "counted 6"},
		{1, "asleep", explainer.Off, false, "The rule is off", ""},
		{8, "burst", explainer.IsLate, false, "4 events that were late by up to 15001 ms. Without these events: COUNT(*) > 5 (it is 3)", "counted 3 late 4"},
		{9, "burst", explainer.IsIdle, false, "4 events that arrived after the window had closed because their partition was silent", "counted 3 idle 4"},
		{10101, "burst", explainer.IsInvalid, false, "1 invalid record that mentions it (", "invalid 1"},
		{12, "burst", explainer.IsInvalid, false, "2 invalid records that mention it (time_ahead)", "invalid 2"},
		{11, "burst", explainer.NeverSeen, false, "no event for this key", ""},
		{1, "later", explainer.NotInForce, false, "It applies to windows that begin at", "counted 6"},
		{1, "viewer", explainer.Holds, true, "COUNT(*) > 5 (it is 6)", "counted 6"},
	} {
		list := askWhy(t, env, "--key", fmt.Sprintf("user_id=%d", c.user), "--rule", c.rule, "--at", at)
		w := list[0]
		seen[w.Reason] = true
		fates := map[string]int{}
		for _, e := range w.Events {
			fates[string(e.Fate)]++
		}
		var have []string
		for f, n := range fates {
			have = append(have, fmt.Sprintf("%s %d", f, n))
		}
		slices.Sort(have)
		if len(list) != 1 || w.Reason != c.reason || (w.Verdict == "flagged") != c.flagged || !strings.Contains(w.Text, c.text) || strings.Join(have, " ") != c.fates || w.Rule.Name != c.rule {
			t.Errorf("user %d, rule %s: %d answers; %s, %s, %q, events %v; want %s, %q, %s", c.user, c.rule, len(list), w.Verdict, w.Reason, w.Text, have, c.reason, c.text, c.fates)
		}
		if c.flagged {
			if w.Alert == "" {
				continue
			}
			if w.Incident == "" && c.reason != explainer.Shadow || w.Numbers.Recount == nil || !*w.Numbers.Recount || len(w.Transitions) != 2 {
				t.Errorf("user %d, rule %s: %+v", c.user, c.rule, w)
			}
			one := askWhy(t, env, w.Alert)
			if len(one) != 1 || one[0].Reason != w.Reason || one[0].Text != w.Text || one[0].Numbers.Recount == nil || !*one[0].Numbers.Recount {
				t.Errorf("the alert alone: %+v, want as %+v", one, w)
			}
			if w.Incident != "" {
				if in := askWhy(t, env, w.Incident); len(in) != 1 || in[0].Alert != w.Alert {
					t.Errorf("its incident: %+v", in)
				}
			}
		}
	}
	if w := askWhy(t, []string{"SPATE_STATE=" + filepath.Join(dir, "other"), "SPATE_BROKERS=" + addr}, "--key", "user_id=1", "--rule", "burst", "--at", at)[0]; w.Reason != explainer.NotStored {
		t.Errorf("with an empty database: %s, %s", w.Reason, w.Text)
	}
	seen[explainer.NotStored] = true
	// Without --rule, there is an answer for each rule with the key; without --at, one about the last hour of event time.
	names := map[string]bool{}
	answers := askWhy(t, env, "--key", "user_id=1")
	for _, w := range answers {
		names[w.Rule.Name] = true
	}
	if last := answers[len(answers)-1]; last.Rule.Name != "shadowed" {
		t.Errorf("the last answer is about %s, not about the rule in shadow mode", last.Rule.Name)
	}
	delete(names, "later") // has windows that may be asked about only once it has been applied for half a minute
	if len(names) != 3 || !names["burst"] || !names["viewer"] || !names["shadowed"] {
		t.Errorf("answers for %v, want burst, viewer, shadowed", names)
	}
	for _, r := range explainer.Reasons {
		if !seen[r] && r != explainer.IsWaiting && r != explainer.StillOpen {
			t.Errorf("no case has the reason %s", r)
		}
	}
}

// TestWhyNow: of events that nobody has counted yet, and of a window that is open.
func TestWhyNow(t *testing.T) {
	t.Parallel()
	harness.OnBrokers(t, func(t *testing.T, brokers string) {
		topic := harness.UniqueTopic(t)
		cl := harness.Connect(t, brokers, kgo.DefaultProduceTopic(topic))
		layout := kafka.Layout{Names: kafka.NamesFor(topic), Partitions: 2, Replication: 1}
		harness.MakeTopics(t, cl, layout)
		dir := t.TempDir()
		env := []string{"SPATE_STATE=" + dir, "SPATE_BROKERS=" + brokers, "SPATE_TOPIC=" + topic, "SPATE_IDLE_TIMEOUT=0", "SPATE_HTTP=127.0.0.1:0"}
		start := time.Now().Truncate(10 * time.Second)
		send := func(user string, n int) {
			t.Helper()
			for i := range n {
				r := &kgo.Record{Value: fmt.Appendf(nil, `{"user_id":%q,"txn_timestamp":%d}`, user, start.UnixMilli()+int64(i))}
				if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		}
		send("ann", 7)
		send("bob", 4)
		at := start.Format(time.RFC3339)
		if w := askWhy(t, env, "--key", "user_id=ann", "--at", at)[0]; w.Reason != explainer.IsWaiting || w.Numbers.Waiting != 7 || len(w.Events) != 7 || w.Events[0].Fate != explainer.Waiting {
			t.Errorf("before a router: %+v", w)
		}
		harness.Spate(t, "router", env, "route").Start()
		harness.Spate(t, "detector", env, "detect").Start()
		harness.Eventually(t, time.Minute, "bob's events are counted, and his window is open", func() bool {
			w := askWhy(t, env, "--key", "user_id=bob", "--at", at)[0]
			return w.Reason == explainer.StillOpen && w.Numbers.Counted == 4 && w.Numbers.Waiting == 0 && strings.Contains(w.Text, "COUNT(*) > 5 (it is 4)")
		})
	})
}

// TestWhyOpen: the numbers of an alert whose window is open are those so far, and not those at the time when it opened.
func TestWhyOpen(t *testing.T) {
	t.Parallel()
	dir, addr := t.TempDir(), testport.Reserve(t)
	env := []string{"SPATE_STATE=" + dir, "SPATE_BROKERS=" + addr}
	harness.Spate(t, "up", []string{"SPATE_STATE=" + dir}, "up", "--listen", addr, "--partitions", "1", "--idle-timeout", "1h").Start()
	cl := harness.Connect(t, addr, kgo.DefaultProduceTopic("activity"))
	harness.Eventually(t, 30*time.Second, "topics are made", func() bool { return harness.TopicExists(t, cl, "alerts") })
	start := time.Now().Truncate(10 * time.Second)
	send := func(n int) {
		t.Helper()
		for range n {
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Value: fmt.Appendf(nil, `{"user_id":1,"txn_timestamp":%d}`, start.UnixMilli())}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(7)
	ask := func() why { return askWhy(t, env, "--key", "user_id=1", "--at", start.Format(time.RFC3339))[0] }
	harness.Eventually(t, 30*time.Second, "the alert is stored", func() bool { return ask().Alert != "" })
	send(30)
	harness.Eventually(t, 30*time.Second, "the events are counted", func() bool { return ask().Numbers.Waiting == 0 })
	w := ask()
	if w.Verdict != "flagged" || !w.Provisional || w.Numbers.Counted != 37 || len(w.Events)+w.More != 37 || w.Numbers.Recount != nil ||
		!strings.Contains(w.Text, "which is still open, the condition holds so far: COUNT(*) > 5 (it is 37)") {
		t.Errorf("%+v", w)
	}
}
