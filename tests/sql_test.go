package tests

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/testport"
	"spate/tests/harness"
)

// TestSQL asks a running pipeline about all that it has.
func TestSQL(t *testing.T) {
	t.Parallel()
	state, addr := t.TempDir(), testport.Reserve(t)
	up := harness.Spate(t, "up", []string{"SPATE_BROKERS="}, "up", "--state", state, "--listen", addr, "--max-ahead", "1m", "--idle-timeout", "1s").Start()
	harness.Eventually(t, 20*time.Second, "up is ready", func() bool { code, _ := up.Get("/readyz"); return code == http.StatusOK })
	cl := harness.Connect(t, addr)
	send := func(second int, user string) {
		r := &kgo.Record{Topic: "activity", Key: []byte("k"), Value: fmt.Appendf(nil, `{"user_id":%s,"event_time":"2026-01-01T00:%02d:%02dZ","event_type":"view"}`, user, second/60, second%60)}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 7 {
		send(i, `42`)
	}
	for i := range 12 {
		send(10+i%10, `"anna"`)
	}
	send(100, `1`)
	send(5, `42`) // late
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "activity", Value: []byte(`{"user_id":9}`)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("up runs: %v, %v", up.Running(), up.Err())
		}
	})
	ask := func(statement string, args ...string) [][]string {
		t.Helper()
		out := run(t, 0, append([]string{"sql", "--csv", "--brokers", addr, "--state", state, statement}, args...)...)
		rows, err := csv.NewReader(strings.NewReader(string(out))).ReadAll()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return rows[1:]
	}
	harness.Eventually(t, 30*time.Second, "both alerts are closed", func() bool {
		return len(ask("SELECT id FROM alerts WHERE state = 'closed'")) == 2
	})
	for _, c := range []struct {
		statement string
		want      [][]string
	}{
		{"SELECT user_id, COUNT(*) FROM activity GROUP BY 1 ORDER BY 2 DESC", [][]string{{"anna", "12"}, {"42", "8"}, {"1", "1"}}},
		{"SELECT user_id, event_time, _reason, _late_by_ms FROM late", [][]string{{"42", "2026-01-01 00:00:05", "watermark", "80001"}}},
		{"SELECT _reason, _value FROM dlq", [][]string{{"no_time", `{"user_id":9}`}}},
		{"SELECT user_id, event_count, severity, window_start FROM alerts WHERE rule = 'burst' ORDER BY window_start", [][]string{{"42", "7", "warning", "2026-01-01 00:00:00"}, {"anna", "12", "critical", "2026-01-01 00:00:10"}}},
		{"SELECT i.user_id, i.windows, a.event_count FROM incidents i JOIN alerts a ON a.incident = i.id ORDER BY 3", [][]string{{"42", "1", "7"}, {"anna", "1", "12"}}},
		{"SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5", [][]string{{"42", "7"}, {"anna", "12"}}},
		{"SELECT COUNT(*) FROM activity WHERE _timestamp < '2026-01-01'", [][]string{{"0"}}},
		{"SELECT COUNT(*) FROM activity WHERE event_time >= datetime('now', '+1 hour')", [][]string{{"0"}}},
	} {
		if diff := cmp.Diff(c.want, ask(c.statement)); diff != "" {
			t.Errorf("%s: %s", c.statement, diff)
		}
	}
	if got := ask("SELECT COUNT(*) FROM activity", "--since", "1h"); got[0][0] != "21" {
		t.Errorf("%v", got)
	}

	// A rule that is followed: its row comes when its window closes.
	p := harness.Spate(t, "sql", []string{"SPATE_BROKERS="}, "sql", "--json", "--follow", "--since", "0s", "--idle-timeout", "500ms", "--brokers", addr, "--state", state,
		"SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 2").Start()
	second := 200
	harness.Eventually(t, 30*time.Second, "a row is printed", func() bool {
		for range 3 { // it may not be reading yet
			send(second, `7`)
		}
		second += 50
		return strings.Contains(string(p.Output()), `{"user_id":7,"n":3}`)
	})
	p.Signal(syscall.SIGINT)
	if err := p.Wait(20 * time.Second); err != nil {
		t.Errorf("%v: %s", err, p.Output())
	}
	lines := strings.Split(strings.TrimSpace(string(p.Output())), "\n")
	var s struct {
		Rows int64  `json:"rows"`
		Rule bool   `json:"rule"`
		By   string `json:"by"`
	}
	if i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, `"records_read"`) }); i < 0 || json.Unmarshal([]byte(lines[i]), &s) != nil || s.Rows == 0 || !s.Rule || s.By != "interrupted" {
		t.Errorf("%s", p.Output())
	}
}
