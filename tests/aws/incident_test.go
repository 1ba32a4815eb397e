package aws

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	diffs "github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
	"spate/tests/harness"
)

// calmRule has incidents that end within seconds. The windows of one are near each other, however late an event of the traffic is.
const calmRule = `-- rule: burst
-- critical: COUNT(*) > 10
-- quiet: 4s
INSERT INTO alerts
SELECT user_id, COUNT(*) AS n
FROM TABLE(TUMBLE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '2' SECOND))
GROUP BY user_id, window_start, window_end
HAVING COUNT(*) > 5;
`

// applyRules applies a file of rules before any worker has started.
func applyRules(t *testing.T, a *harness.AWS, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.sql")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := harness.Spate(t, "rules apply", a.Env, "rules", "apply", path, "-m", "test", "--yes").Start()
	if err := p.Wait(patience); err != nil {
		t.Fatalf("rules apply: %v: %s", err, p.Output())
	}
}

// naive are the incidents of alerts: the windows of each key, cut where they are further apart than quiet.
func naive(alerts []alert.Record, quiet time.Duration) (out []string) {
	slices.SortFunc(alerts, func(a, b alert.Record) int {
		return cmp.Or(strings.Compare(a.KeyText(), b.KeyText()), a.WindowStart.Compare(b.WindowStart))
	})
	for from := 0; from < len(alerts); {
		to, events, peak, severity := from, int64(0), int64(0), alert.Warning
		for ; to < len(alerts) && alerts[to].KeyText() == alerts[from].KeyText() && (to == from || alerts[to].WindowStart.Sub(alerts[to-1].WindowEnd) <= quiet); to++ {
			events, peak = events+alerts[to].Count, max(peak, alerts[to].Count)
			if alerts[to].Severity == alert.Critical {
				severity = alert.Critical
			}
		}
		out = append(out, describe(alerts[from].KeyText(), severity, alerts[from].WindowStart, alerts[to-1].WindowEnd, to-from, events, peak))
		from = to
	}
	return out
}

func describe(key string, severity alert.Severity, from, to time.Time, windows int, events, peak int64) string {
	return fmt.Sprintf("%s %s %v to %v: %d windows, %d events, peak %d", key, severity, from.UTC(), to.UTC(), windows, events, peak)
}

// TestIncidents runs traffic with attackers through a worker and an alerter, both of which are killed with kill -9 all the time. The incidents are those of the alerts; each
// ends, though the input is silent by then; and each message about them is told.
func TestIncidents(t *testing.T) {
	if testing.Short() {
		t.Skip("-short is set, and it takes a minute")
	}
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	a := harness.OnAWS(t, 1, "SPATE_LATENESS=2s", "SPATE_LEASE=2s", "SPATE_IDLE_TIMEOUT=2s")
	applyRules(t, a, calmRule)
	q := subscribe(t, a.TopicARN)
	told := map[string]bool{}
	receive := func() {
		for _, body := range q.receive(t) {
			var m struct{ ID string }
			if err := json.Unmarshal([]byte(body), &m); err != nil || m.ID == "" {
				t.Fatalf("%v: %s", err, body)
			}
			told[m.ID] = true
		}
	}
	worker, alerter := harness.Spate(t, "worker", a.Env, "work").Start(), harness.Spate(t, "alerter", a.Env, "alert").Start()
	const load = 24 * time.Second
	traffic := harness.Spate(t, "traffic", a.Env, "simulate", "--time", "shift", "--disorder", "1s", "--event-rate", "200", "--users", "1500", "--window", "2s", "--duration", load.String(),
		"--seed", fmt.Sprint(rng.IntN(1000)), "--quiet").Start()
	kills := 0
	for running := true; running; {
		select {
		case <-traffic.Done():
			running = false
		case <-time.After(time.Second + time.Duration(rng.Int64N(int64(3*time.Second)))): // the moment is what is random here
			victim := alerter
			if kills++; kills%4 == 0 {
				victim = worker
			}
			victim.Kill()
			victim.Start()
			receive()
		}
	}
	if err := traffic.Err(); err != nil {
		t.Fatal(err)
	}
	table, err := dynamodb.New(a.DynamoDB, dynamodb.Config{Table: a.Table})
	if err != nil {
		t.Fatal(err)
	}
	st, _ := a.State()
	var found []alert.Record
	harness.Eventually(t, patience, "every alert is closed and stored, and every incident has ended", func() bool {
		receive()
		now, _ := a.State()
		list, incidents := collect(t, table)
		if now.Closed <= st.Closed || len(list) == 0 || slices.ContainsFunc(list, func(a store.Alert) bool { return a.State != alert.Closed }) ||
			slices.ContainsFunc(incidents, func(i incident.Incident) bool { return i.State != incident.StateResolved }) {
			return false
		}
		found, _ = alerts(t, a)
		return len(found) == len(list)
	})
	p := harness.Spate(t, "incidents ls", a.Env, "incidents", "ls", "--json").Start()
	if err := p.Wait(patience); err != nil {
		t.Fatal(err)
	}
	var got []string
	want := map[string]bool{}
	for line := range strings.Lines(string(p.Output())) {
		var i incident.Incident
		if err := json.Unmarshal([]byte(line), &i); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		got = append(got, describe(userOf(i), i.Severity, i.FirstWindowStart, i.LastWindowEnd, int(i.Windows), i.Events, i.Peak))
		want[i.ID+"_opened"], want[i.ID+"_resolved"] = true, true
		if i.Escalations > 0 {
			want[i.ID+"_escalated_1"] = true
		}
	}
	reference := naive(found, 4*time.Second)
	slices.Sort(got)
	slices.Sort(reference)
	if diff := diffs.Diff(reference, got); diff != "" {
		t.Errorf("incidents: %s", diff)
	}
	harness.Eventually(t, patience, "the topic was told of everything", func() bool {
		receive()
		return len(told) >= len(want)
	})
	if diff := diffs.Diff(want, told); diff != "" {
		t.Errorf("told: %s", diff)
	}
	if len(got) < 3 || len(found) == len(got) || kills < 5 {
		t.Errorf("%d incidents of %d alerts, %d kills: the test proves less than it should", len(got), len(found), kills)
	}
	t.Logf("%d alerts, %d incidents, %d messages, %d kills", len(found), len(got), len(told), kills)
	for _, p := range []*harness.Process{worker, alerter} {
		if err := p.Stop(20 * time.Second); err != nil {
			t.Errorf("%s does not end well on SIGTERM: %v", p.Name, err)
		}
	}
	why(t, a, found[:min(len(found), 20)])
}

// why has alerts explained: the events in the stream, counted by the reference, give what the alerts say.
func why(t *testing.T, a *harness.AWS, of []alert.Record) {
	t.Helper()
	args := []string{"why", "--json", "--events", "100000"}
	for _, r := range of {
		args = append(args, r.ID)
	}
	p := harness.Spate(t, "why", a.Env, args...).Start()
	if err := p.Wait(patience); err != nil {
		t.Fatalf("%v: %s", err, p.Output())
	}
	n := 0
	for line := range strings.Lines(string(p.Output())) {
		var w struct {
			Alert, Verdict string
			Numbers        struct {
				Counted int64
				Recount bool `json:"recount_agrees"`
			}
			Events []struct {
				Shard string `json:"shard_id"`
			}
		}
		if err := json.Unmarshal([]byte(line), &w); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if r := of[n]; w.Alert != r.ID || w.Verdict != "flagged" || !w.Numbers.Recount || w.Numbers.Counted != r.Count || int64(len(w.Events)) != r.Count || w.Events[0].Shard == "" {
			t.Errorf("alert %s of %d events: %s", r.ID, r.Count, line)
		}
		n++
	}
	if n != len(of) {
		t.Errorf("%d answers about %d alerts", n, len(of))
	}
	p = harness.Spate(t, "why not", a.Env, "why", "--key", "user_id=1", "--at", "2001-01-01").Start()
	if err := p.Wait(patience); err == nil || !strings.Contains(string(p.Output()), "mode aws does not record what became of each event") {
		t.Errorf("%v: %s", err, p.Output())
	}
}

func userOf(i incident.Incident) string {
	r := alert.Record{Rule: i.Rule, UserID: json.RawMessage(i.User())}
	return r.KeyText()
}

// TestDecisions: an alert of a rule with a decision flags its key at every replica, also at one that is killed and comes again. What a person ends stays ended, though the
// alerter reads the last records again.
func TestDecisions(t *testing.T) {
	if testing.Short() {
		t.Skip("-short is set, and it takes half a minute")
	}
	t.Parallel()
	a := harness.OnAWS(t, 1, "SPATE_LEASE=2s", "SPATE_IDLE_TIMEOUT=2s")
	applyRules(t, a, harness.DecidingRules)
	const token = "0123456789abcdef0123456789abcdef"
	env := append(slices.Clone(a.Env), "SPATE_HTTP_TOKEN="+token)
	harness.Spate(t, "worker", a.Env, "work").Start()
	alerter := harness.Spate(t, "alerter", a.Env, "alert").Start()
	one, two := harness.Spate(t, "decider 1", env, "decide").Start(), harness.Spate(t, "decider 2", env, "decide").Start()
	ask := func(p *harness.Process, scope, value string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s/v1/decisions?scope=%s&value=%s", p.Address(), scope, value), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Api-Key", token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, ""
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			return 0, ""
		}
		return res.StatusCode, string(text)
	}
	answers := func(p *harness.Process, scope, value, what string) {
		t.Helper()
		harness.Eventually(t, patience, p.Name+" answers "+what+" about "+value, func() bool {
			status, body := ask(p, scope, value)
			return status == http.StatusOK && strings.Contains(body, what)
		})
	}
	answers(one, "ip", "192.0.2.1", "null")
	answers(two, "username", "ann", "null")
	in := &kinesis.PutRecordsInput{StreamName: &a.Stream}
	at := time.Now().Truncate(10 * time.Second) // one window
	for i := range 12 {
		in.Records = append(in.Records, types.PutRecordsRequestEntry{PartitionKey: aws.String("k"), Data: fmt.Appendf(nil, `{"user_id":"ann","ip":"192.0.2.%d","event_time":%d}`, i%2, at.UnixMilli())})
	}
	if out, err := a.Kinesis.PutRecords(t.Context(), in); err != nil || *out.FailedRecordCount > 0 {
		t.Fatal(err)
	}
	for _, p := range []*harness.Process{one, two} {
		answers(p, "ip", "192.0.2.1", `"type":"challenge"`)
		answers(p, "username", "ann", `"type":"block"`)
		answers(p, "username", "bob", "null")
	}
	_, body := ask(one, "username", "ann")
	var list []struct{ UUID, Scenario string }
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list) != 1 || len(list[0].UUID) != 32 || list[0].Scenario != "burst" {
		t.Errorf("%v: %s", err, body)
	}
	one.Kill()
	one.Start()
	answers(one, "username", "ann", `"type":"block"`)

	spate := func(args ...string) string {
		t.Helper()
		p := harness.Spate(t, strings.Join(args, " "), env, args...).Start()
		if err := p.Wait(patience); err != nil {
			t.Fatal(err)
		}
		return string(p.Output())
	}
	table, err := dynamodb.New(a.DynamoDB, dynamodb.Config{Table: a.Table})
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, patience, "the windows are closed", func() bool {
		stored, _ := collect(t, table)
		return len(stored) == 3 && !slices.ContainsFunc(stored, func(a store.Alert) bool { return a.State != alert.Closed })
	})
	if out := spate("decisions", "ls", "--json"); strings.Count(out, "\n") != 3 || !strings.Contains(out, `"reason":"192.0.2.1 did `) {
		t.Errorf("decisions ls: %s", out)
	}
	spate("decisions", "add", "--scope", "ip", "--value", "198.51.100.7", "--level", "ban", "--for", "5m", "--why", "by hand")
	answers(two, "ip", "198.51.100.7", `"origin":"manual"`)

	spate("decisions", "rm", "--scope", "username", "--value", "ann")
	answers(one, "username", "ann", "null")
	alerter.Kill()
	alerter.Start()
	spate("decisions", "add", "--scope", "ip", "--value", "198.51.100.8", "--level", "ban", "--for", "5m", "--why", "what was written before is read, too")
	harness.Eventually(t, patience, "the alerter works again", func() bool { return strings.Count(string(alerter.Output()), `"alerter started"`) > 0 })
	answers(two, "ip", "198.51.100.8", `"origin":"manual"`)
	answers(two, "username", "ann", "null")
	if out := spate("decisions", "ls", "--json", "--scope", "username"); out != "" {
		t.Errorf("what was ended has come back: %s", out)
	}
	for _, p := range []*harness.Process{one, two} {
		if err := p.Stop(20 * time.Second); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}
