package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/incident"
	"spate/shared/notify/webhook"
	"spate/shared/testport"
	"spate/tests/harness"
)

const quickRule = `-- rule: burst
-- critical: COUNT(*) > 10
-- quiet: 1s
INSERT INTO alerts
SELECT user_id, COUNT(*) AS n
FROM TABLE(TUMBLE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '1' SECOND))
GROUP BY user_id, window_start, window_end
HAVING COUNT(*) > 5;
`

// TestIncidentLives: an incident opens and escalates while its window is open, and ends by event time: that of the traffic of others, or, when all is
// silent, the wall clock. A kill -9 in between changes nothing.
func TestIncidentLives(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short is set")
	}
	t.Parallel()
	dir := t.TempDir()
	rules := filepath.Join(dir, "rules.sql")
	if err := os.WriteFile(rules, []byte(quickRule), 0o600); err != nil {
		t.Fatal(err)
	}
	secret := webhook.NewSecret()
	hook := newReceiver(t, secret)
	addr := testport.Reserve(t)
	env := []string{"SPATE_STATE=" + dir, "SPATE_ENDPOINTS=" + endpoints(t, "http://"+hook.addr+"/", secret, "people"), "SPATE_LATENESS=3s", "SPATE_IDLE_TIMEOUT=2s"}
	up := harness.Spate(t, "up", env, "up", "--rules", rules, "--listen", addr)
	up.Start()
	cl := harness.Connect(t, addr, kgo.DefaultProduceTopic("activity"))
	send := func(n int, user string, at time.Time) {
		t.Helper()
		var records []*kgo.Record
		for range n {
			records = append(records, &kgo.Record{Key: []byte(user), Value: fmt.Appendf(nil, `{"user_id":%q,"event_time":%d}`, user, at.UnixMilli())})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	idOf := func(user string, window time.Time) string {
		return incident.ID("burst", json.RawMessage(fmt.Sprintf(`{"user_id":%q}`, user)), window, window.Add(time.Second))
	}
	told := func(message string) {
		t.Helper()
		harness.Eventually(t, 40*time.Second, message, func() bool { return hook.got()[message] > 0 })
	}
	quiet := func(message string) {
		t.Helper()
		if n := hook.got()[message]; n > 0 {
			t.Errorf("%s was told already", message)
		}
	}

	// With the traffic of others, whose event time closes the window and then ends the incident.
	window := time.Now().Truncate(time.Second)
	first := idOf("ann", window)
	send(6, "ann", window)
	told(first + "_opened")
	send(6, "ann", window)
	told(first + "_escalated_1")
	quiet(first + "_resolved")
	for end := time.Now().Add(40 * time.Second); hook.got()[first+"_resolved"] == 0; {
		if time.Now().After(end) {
			t.Fatal("the incident does not end")
		}
		if hook.got()[first+"_resolved"] > 0 && time.Since(window) < 3*time.Second {
			t.Error("the incident ended before the window of others that could belong to it was closed")
		}
		for p := range 8 { // all partitions
			send(1, fmt.Sprintf("other %d", p), time.Now())
		}
		<-time.After(200 * time.Millisecond)
	}

	// In silence, and after kill -9.
	window = time.Now().Truncate(time.Second)
	second := idOf("ann", window)
	send(11, "ann", window) // critical at once
	told(second + "_opened")
	up.Kill()
	up.Start()
	told(second + "_resolved")
	quiet(second + "_escalated_1")
	if err := up.Stop(20 * time.Second); err != nil {
		t.Errorf("up: %v", err)
	}

	out := harness.Spate(t, "incidents", env, "incidents", "ls", "--user", "ann", "--json").Start()
	if err := out.Wait(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(strings.TrimSpace(string(out.Output())), "\n") {
		var got incident.Incident
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		want := []incident.Incident{{ID: first, Events: 12}, {ID: second, Events: 11}}[i]
		if got.ID != want.ID || got.Events != want.Events || got.Peak != want.Events || got.Windows != 1 || got.State != incident.StateResolved || got.Severity != "critical" {
			t.Errorf("incident %d: %s", i+1, line)
		}
	}
}
