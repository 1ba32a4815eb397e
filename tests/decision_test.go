package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/testport"
	"spate/shared/testskip"
	"spate/tests/harness"
)

// TestDecisions: an alert of a rule with a decision flags its key at every replica within a moment, also at one that is killed and comes again, and for
// CrowdSec's own library.
func TestDecisions(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short is set")
	}
	t.Parallel()
	dir := t.TempDir()
	rules := filepath.Join(dir, "rules.sql")
	if err := os.WriteFile(rules, []byte(harness.DecidingRules), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := testport.Reserve(t)
	const token = "0123456789abcdef0123456789abcdef"
	up := harness.Spate(t, "up", []string{"SPATE_STATE=" + dir}, "up", "--rules", rules, "--listen", addr).Start()
	cl := harness.Connect(t, addr, kgo.DefaultProduceTopic("activity"))
	harness.Eventually(t, 30*time.Second, "topics are made", func() bool { return harness.TopicExists(t, cl, "alerts") })
	env := []string{"SPATE_BROKERS=" + addr, "SPATE_HTTP_TOKEN=" + token}
	one, two := harness.Spate(t, "decider 1", env, "decide").Start(), harness.Spate(t, "decider 2", env, "decide").Start()
	ask := func(p *harness.Process, scope, value string) (status int, body string) {
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
		harness.Eventually(t, 30*time.Second, p.Name+" answers "+what+" about "+value, func() bool {
			status, body := ask(p, scope, value)
			return status == http.StatusOK && strings.Contains(body, what)
		})
	}
	answers(one, "ip", "192.0.2.1", "null")
	answers(two, "username", "ann", "null")

	var records []*kgo.Record
	for i := range 12 {
		records = append(records, &kgo.Record{Value: fmt.Appendf(nil, `{"user_id":"ann","ip":"192.0.2.%d","event_time":%d}`, i%2, time.Now().UnixMilli())})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
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
		if err := p.Wait(40 * time.Second); err != nil {
			t.Fatal(err)
		}
		return string(p.Output())
	}
	if out := spate("decisions", "ls", "--json"); strings.Count(out, "\n") != 3 || !strings.Contains(out, `"reason":"192.0.2.1 did `) {
		t.Errorf("decisions ls: %s", out)
	}
	spate("decisions", "add", "--scope", "ip", "--value", "198.51.100.7", "--level", "ban", "--for", "5s", "--why", "by hand")
	answers(two, "ip", "198.51.100.7", `"origin":"manual"`)

	// CrowdSec's library, as bouncers use it.
	bouncer := filepath.Join(t.TempDir(), "bouncer")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bouncer, ".")
	build.Dir = "receivers/bouncer"
	if out, err := build.CombinedOutput(); err != nil {
		testskip.Missing(t, "CrowdSec's library for bouncers cannot be built: %v: %s", err, harness.Tail(out, 5))
	}
	out, err := exec.CommandContext(t.Context(), bouncer, "http://"+two.Address(), token, "192.0.2.1", "8s").Output()
	if err != nil {
		t.Fatalf("bouncer: %v", err)
	}
	for _, line := range []string{"live ip 192.0.2.1 challenge addresses\n", "new ip 192.0.2.0 challenge\n", "new username ann block\n"} {
		if !strings.Contains(string(out), line) {
			t.Errorf("CrowdSec's library does not say %q: %s", line, out)
		}
	}

	// Ended by a person.
	spate("decisions", "rm", "--scope", "username", "--value", "ann")
	answers(one, "username", "ann", "null")
	if err := up.Stop(20 * time.Second); err != nil {
		t.Errorf("up: %v", err)
	}
	answers(one, "ip", "192.0.2.1", `"type":"challenge"`) // without a broker
	for _, p := range []*harness.Process{one, two} {
		if err := p.Stop(20 * time.Second); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}
