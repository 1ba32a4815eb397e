package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/incident"
	"spate/shared/testport"
	"spate/shared/testskip"
	"spate/tests/harness"
)

// alertmanagerPrograms are the names of the program: its own, and the one in Debian.
var alertmanagerPrograms = []string{"alertmanager", "prometheus-alertmanager"}

// findAlertmanager returns the path of the program.
func findAlertmanager(t *testing.T) string {
	t.Helper()
	for _, name := range alertmanagerPrograms {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	testskip.Missing(t, "none of %v is in PATH", alertmanagerPrograms)
	return ""
}

// alertmanager is a real one, which forgets everything when it is started again.
type alertmanager struct {
	t             *testing.T
	program, addr string
	config        string
	cmd           *exec.Cmd
}

func (a *alertmanager) start() {
	a.t.Helper()
	a.cmd = exec.Command(a.program, "--config.file="+a.config, "--storage.path="+a.t.TempDir(), "--web.listen-address="+a.addr, "--cluster.listen-address=", "--log.level=warn")
	a.cmd.Stdout, a.cmd.Stderr = a.t.Output(), a.t.Output()
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
}

func (a *alertmanager) kill() {
	_ = a.cmd.Process.Kill()
	_ = a.cmd.Wait() // killed
}

// shown is an alert as Alertmanager shows it.
type shown struct {
	Labels, Annotations map[string]string
	EndsAt              time.Time
}

// active returns the alerts of an incident that it holds for firing.
func (a *alertmanager) active(id string) (out []shown) {
	res, err := http.Get("http://" + a.addr + "/api/v2/alerts?active=true")
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	var all []shown
	if json.NewDecoder(res.Body).Decode(&all) != nil {
		return nil
	}
	for _, s := range all {
		if s.Labels["incident"] == id {
			out = append(out, s)
		}
	}
	return out
}

// TestAlertmanager has a real Alertmanager hear of incidents: one alert each, which fires, becomes critical and is resolved; one that starts anew hears of what
// is open again.
func TestAlertmanager(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute; -short is set")
	}
	t.Parallel()
	var mu sync.Mutex
	status := map[string][]string{} // by incident
	people := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var group struct {
			Alerts []struct {
				Status string
				Labels map[string]string
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&group); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, a := range group.Alerts {
			status[a.Labels["incident"]] = append(status[a.Labels["incident"]], a.Status)
		}
	}))
	defer people.Close()
	told := func(id, last string) bool {
		mu.Lock()
		defer mu.Unlock()
		n := len(status[id])
		return n > 0 && status[id][n-1] == last
	}

	dir := t.TempDir()
	am := &alertmanager{t: t, program: findAlertmanager(t), addr: testport.Reserve(t), config: filepath.Join(dir, "alertmanager.yml")}
	for path, text := range map[string]string{
		am.config:                            fmt.Sprintf("route: {receiver: people, group_by: ['...'], group_wait: 1s, group_interval: 1s, repeat_interval: 1h}\nreceivers: [{name: people, webhook_configs: [{url: %q}]}]\n", people.URL),
		filepath.Join(dir, "endpoints.yaml"): fmt.Sprintf("endpoints: [{name: am, format: alertmanager, url: \"http://%s\", allow_private: true}]\n", am.addr),
		filepath.Join(dir, "rules.sql"):      quickRule + "\n" + longRule,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	am.start()
	defer func() { am.kill() }()

	addr := testport.Reserve(t)
	env := []string{"SPATE_STATE=" + dir, "SPATE_ENDPOINTS=" + filepath.Join(dir, "endpoints.yaml"), "SPATE_LATENESS=3s", "SPATE_IDLE_TIMEOUT=2s"}
	up := harness.Spate(t, "up", env, "up", "--rules", filepath.Join(dir, "rules.sql"), "--listen", addr).Start()
	cl := harness.Connect(t, addr, kgo.DefaultProduceTopic("activity"))
	window := time.Now().Truncate(time.Second)
	send := func(n int) {
		t.Helper()
		for range n {
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Key: []byte("ann"), Value: fmt.Appendf(nil, `{"user_id":"ann","event_time":%d}`, window.UnixMilli())}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	id := func(rule string) string {
		return incident.ID(rule, json.RawMessage(`{"user_id":"ann"}`), window, window.Add(time.Second))
	}
	fires := func(rule, severity string) {
		t.Helper()
		harness.Eventually(t, 2*time.Minute, rule+" is "+severity+" there", func() bool {
			got := am.active(id(rule))
			return len(got) == 1 && got[0].Annotations["severity"] == severity && got[0].Labels["alertname"] == rule
		})
	}
	send(6)
	fires("burst", "warning")
	harness.Eventually(t, time.Minute, "it notifies people", func() bool { return told(id("burst"), "firing") && told(id("long"), "firing") })
	send(6)
	fires("burst", "critical")
	harness.Eventually(t, time.Minute, "it resolves", func() bool { return told(id("burst"), "resolved") })

	am.kill()
	am.start()
	fires("long", "critical")
	if got := am.active(id("long")); len(got) == 1 && time.Until(got[0].EndsAt) > 5*time.Minute {
		t.Errorf("it lasts until %v, which is more than five minutes", got[0].EndsAt)
	}
	if got := am.active(id("burst")); len(got) > 0 {
		t.Errorf("what is over fires again: %+v", got)
	}
	if err := up.Stop(20 * time.Second); err != nil {
		t.Errorf("up: %v", err)
	}
}

// longRule is quickRule with incidents that stay open.
const longRule = `-- rule: long
-- critical: COUNT(*) > 10
-- quiet: 10m
INSERT INTO alerts
SELECT user_id, COUNT(*) AS n
FROM TABLE(TUMBLE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '1' SECOND))
GROUP BY user_id, window_start, window_end
HAVING COUNT(*) > 5;
`
