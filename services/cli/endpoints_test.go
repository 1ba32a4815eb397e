package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/notify/endpoints"
	"spate/shared/notify/webhook"
	"spate/shared/store"
	"spate/shared/terminal"
)

const secretA, secretB = "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB", "whsec_QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJC"

// quiet fails if a text has a secret, or the path of a URL whose paths are /t0ken.
func quiet(t *testing.T, text string) {
	t.Helper()
	for _, s := range []string{"QUFB", "QkJC", "t0ken"} {
		if strings.Contains(text, s) {
			t.Errorf("it tells %q:\n%s", s, text)
		}
	}
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "endpoints.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEndpointsTest(t *testing.T) {
	bare(t)
	secrets, err := webhook.ParseSecrets(secretB)
	if err != nil {
		t.Fatal(err)
	}
	status := http.StatusNoContent
	var got struct {
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Data      struct {
			Endpoint string `json:"endpoint"`
		} `json:"data"`
	}
	ids := make(map[string]bool)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if err := webhook.Verify(secrets, r.Header, body, time.Now()); err != nil {
			t.Error(err)
		}
		if err := json.Unmarshal(body, &got); err != nil {
			t.Error(err)
		}
		ids[r.Header.Get(webhook.HeaderID)] = true
		w.WriteHeader(status)
	}))
	defer server.Close()
	t.Setenv("SPATE_WEBHOOK_URL", server.URL+"/t0ken")
	t.Setenv("SPATE_WEBHOOK_SECRET", secretA+" "+secretB)

	code, out, errs := spate("endpoints", "test", "webhook")
	if code != ExitFailed || len(ids) > 0 {
		t.Errorf("a private address: exit code %d", code)
	}
	says(t, errs, "endpoint webhook: failed: address 127.0.0.1 is loopback; to allow it, set SPATE_WEBHOOK_ALLOW_PRIVATE=true")
	quiet(t, out+errs)

	t.Setenv("SPATE_WEBHOOK_ALLOW_PRIVATE", "true")
	code, out, errs = spate("endpoints", "test", "webhook")
	if code != ExitOK || errs != "" {
		t.Errorf("exit code %d: %s", code, errs)
	}
	says(t, out, "test_", "to webhook (http://127.0.0.1:", "delivered: status 204 in ")
	quiet(t, out)
	if got.Type != notify.TypeTest || got.Data.Endpoint != "webhook" || time.Since(got.Timestamp) > time.Minute {
		t.Errorf("%+v", got)
	}

	status = http.StatusInternalServerError
	code, out, errs = spate("endpoints", "test", "webhook", "--json")
	if m := objects(t, out)[0]; code != ExitFailed || keys(m) != "endpoint outcome reason status took_ms webhook_id" || m["status"] != 500.0 || m["outcome"] != "failed" || !ids[m["webhook_id"].(string)] {
		t.Errorf("exit code %d: %s", code, out)
	}
	says(t, errs, "endpoint webhook: failed: status 500")
	if len(ids) != 2 {
		t.Errorf("%d ids of 2 messages", len(ids))
	}

	path := file(t, "endpoints:\n- {name: local, url: '"+server.URL+"/t0ken', secret: "+secretA+"}\n")
	code, out, errs = spate("endpoints", "test", "local", "--endpoints", path)
	if code != ExitFailed {
		t.Errorf("exit code %d", code)
	}
	says(t, errs, "to allow it, set SPATE_WEBHOOK_ALLOW_PRIVATE=true or, for an endpoint in the endpoints file, allow_private: true")
	quiet(t, out+errs)
	code, _, errs = spate("endpoints", "test", "nobody", "--endpoints", path)
	if code != ExitFailed {
		t.Errorf("exit code %d", code)
	}
	says(t, errs, "endpoint nobody is not configured; configured endpoints: webhook, local")
}

func TestEndpointsLs(t *testing.T) {
	b, _ := tried(t)
	b.try(store.Try{WebhookID: record(`8`, 0, alert.Opened).ID + "_opened", Endpoint: "pager", At: heard.Add(6 * time.Second), Status: 503, Outcome: notify.Failed, Reason: "status 503", NextAt: heard.Add(11 * time.Second)})
	if err := b.st.SetEnabled(t.Context(), heard, "old", false, "status 410"); err != nil {
		t.Fatal(err)
	}
	path := file(t, `
endpoints:
- {name: pager, url: https://pager.example/t0ken, secret: `+secretA+`, min_severity: critical, transitions: [opened], rate: 10}
- {name: chat, url: "https://chat.example:8443/t0ken", secret: `+secretA+`, digest_above: 1}
`)
	out, errs := b.run(ExitOK, "endpoints", "ls", "--endpoints", path)
	quiet(t, out+errs)
	want := [][]string{
		{"NAME", "FORMAT", "HOST", "PENDING", "EXHAUSTED", "DROPPED", "RECEIVES", "STATE"},
		{"pager", "standard-webhooks", "https://pager.example", "1", "1", "0", "critical;", "opened;", "10", "per", "second", "failing:", "status", "503,", "next", "attempt", "2020-11-24", "09:30:11"},
		{"chat", "standard-webhooks", "https://chat.example:8443", "1", "0", "0", "all;", "digest", "above", "1", "per", "minute", "enabled"},
		{"old", "-", "not", "configured", "0", "0", "0", "-", "disabled", "since", "2020-11-24", "09:30:00:", "status", "410"},
	}
	var got [][]string
	for line := range strings.Lines(out) {
		got = append(got, strings.Fields(line))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	out, _ = b.run(ExitOK, "endpoints", "ls", "--endpoints", path, "--json")
	list := objects(t, out)
	if len(list) != 3 || keys(list[0]) != "configured dropped enabled exhausted failing format host min_severity name pending rate transitions" ||
		keys(list[2]) != "configured disabled_at dropped enabled exhausted name pending reason" {
		t.Errorf("%s", out)
	}
	// What the process has that delivers is shown without its settings, in a second terminal for example.
	config := store.EndpointConfig{Host: "https://running.example", MinSeverity: alert.Critical}
	if err := b.st.Configure(t.Context(), heard, map[string]store.EndpointConfig{"old": config, "ops": config}); err != nil {
		t.Fatal(err)
	}
	out, _ = b.run(ExitOK, "endpoints", "ls")
	says(t, out, "ops    -       https://running.example        0          0        0  critical  enabled, in the process started at 2020-11-24 09:30:00\n",
		"old    -       https://running.example        0          0        0  critical  disabled since", "pager  -       not configured")
	out, _ = b.run(ExitOK, "endpoints", "ls", "--json")
	if list := objects(t, out); list[2]["name"] != "ops" || list[2]["configured"] != false || list[2]["host"] != config.Host || list[2]["running_at"] != "2020-11-24T09:30:00Z" {
		t.Errorf("%s", out)
	}
	// Before anything has run.
	code, out, errs := spate("endpoints", "ls", "--endpoints", path, "--database-url", filepath.Join(t.TempDir(), "none.db"))
	if code != ExitOK {
		t.Errorf("exit code %d", code)
	}
	says(t, out, "https://pager.example")
	says(t, errs, "the database has not been created yet")
	_, errs = b.run(ExitUsage, "endpoints", "ls", "--endpoints", path, "--webhook-secret", secretA, secretB)
	says(t, errs, "webhook-url: missing")
	quiet(t, errs)
}

// TestEndpointsLsIsNarrow: what is 0 in every row goes before the names are cut.
func TestEndpointsLsIsNarrow(t *testing.T) {
	table := func(dropped string) terminal.Table {
		t := terminal.Table{Columns: []terminal.Column{{Head: "NAME", Floor: 20}, {Head: "EXHAUSTED", Right: true}, {Head: "DROPPED", Right: true}, {Head: "STATE", Floor: 8}}}
		t.Row("payments-on-call", "0", dropped, "enabled")
		return t
	}
	for _, c := range []struct {
		dropped string
		width   int
		want    string
	}{
		{"0", 0, "NAME              EXHAUSTED  DROPPED  STATE"}, {"0", 50, "NAME              EXHAUSTED  DROPPED  STATE"}, {"0", 40, "NAME              EXHAUSTED  STATE"},
		{"0", 30, "NAME              STATE"}, {"2", 30, "NAME              DROPPED  STAT"},
	} {
		got := table(c.dropped)
		leaveOut(&got, c.width, "DROPPED", "EXHAUSTED")
		if lines := got.Lines(c.width); !strings.HasPrefix(string(lines[0]), c.want) && c.width != 30 || len(got.Columns) != len(strings.Fields(c.want)) {
			t.Errorf("%d: %q", c.width, lines)
		}
	}
}

func TestEndpointsFormats(t *testing.T) {
	bare(t)
	code, out, errs := spate("endpoints", "formats")
	if code != ExitOK || errs != "" {
		t.Errorf("exit code %d: %s", code, errs)
	}
	says(t, out, "standard-webhooks: JSON, signed", "url, _env, _file", "pagerduty: PagerDuty", "routing_key, _env, _file", "    - name: on-call\n      format: pagerduty\n", "Every endpoint:", "min_severity")
	code, out, _ = spate("endpoints", "formats", "--json")
	list := objects(t, out)
	if code != ExitOK || len(list) != len(endpoints.Formats()) || keys(list[0]) != "example fields help name" || list[0]["name"] != "standard-webhooks" {
		t.Errorf("exit code %d: %s", code, out)
	}
	code, out, _ = spate("endpoints", "formats", "pagerduty", "--json")
	if list := objects(t, out); code != ExitOK || len(list) != 1 || list[0]["name"] != "pagerduty" {
		t.Errorf("exit code %d: %s", code, out)
	}
	code, _, errs = spate("endpoints", "formats", "pigeon")
	if code != ExitUsage {
		t.Errorf("exit code %d", code)
	}
	says(t, errs, "format pigeon does not exist; the formats are standard-webhooks, pagerduty")
}

func TestEndpointsDisableAndEnable(t *testing.T) {
	b, _ := tried(t)
	out, _ := b.run(ExitOK, "endpoints", "disable", "pager", "--reason", "on holiday")
	says(t, out, "pager is disabled, and its messages are dropped")
	out, _ = b.run(ExitOK, "endpoints", "disable", "pager", "--reason", "ill")
	says(t, out, "is already disabled, since 2", "on holiday")
	second := record(`8`, 0, alert.Opened).ID + "_opened"
	if err := b.st.Disable(t.Context(), second, "pager"); err != nil {
		t.Fatal(err)
	}
	out, _ = b.run(ExitOK, "endpoints", "enable", "pager")
	says(t, out, "pager is enabled; it had been disabled since 2", "on holiday", "1 message was dropped in the meantime; to send it, run:\n    spate deliveries recover --endpoint pager --since 2020-11-24T09:30:00.000Z")
	out, _ = b.run(ExitOK, "deliveries", "recover", "--endpoint", "pager", "--since", "2020-11-24T09:30:00.000Z")
	says(t, out, "2 deliveries are due now") // with the one whose tries all failed
	out, _ = b.run(ExitOK, "endpoints", "enable", "pager", "--json")
	if m := objects(t, out)[0]; keys(m) != "dropped enabled exhausted name pending" || m["enabled"] != true || m["pending"] != 2.0 {
		t.Errorf("%s", out)
	}

	// Who was notified of everything is known, too, and who is only configured.
	done := record(`9`, 0, alert.Opened)
	b.apply(heard, []alert.Record{done}, notify.Endpoint{Name: "done", Filter: notify.Alerts()})
	b.try(store.Try{WebhookID: done.ID + "_opened", Endpoint: "done", At: heard, Status: 200, Outcome: notify.Delivered})
	b.run(ExitOK, "endpoints", "disable", "done")
	path := file(t, "endpoints:\n- {name: new, url: https://new.example/t0ken, secret: "+secretA+"}\n")
	b.run(ExitOK, "endpoints", "disable", "new", "--endpoints", path)
	_, errs := b.run(ExitFailed, "endpoints", "disable", "nobody", "--endpoints", path)
	says(t, errs, "endpoint nobody is neither configured nor in the database; configured endpoints: new")
	_, errs = b.run(ExitFailed, "endpoints", "enable", "nobody")
	says(t, errs, "no endpoints are configured: set SPATE_WEBHOOK_URL")
	// A mistake in the configuration keeps nobody from disabling what runs.
	b.run(ExitOK, "endpoints", "disable", "chat", "--endpoints", file(t, "nonsense"))
	_, errs = b.run(ExitUsage, "endpoints", "disable", "nobody", "--endpoints", file(t, "nonsense"))
	says(t, errs, "endpoints.yaml")
}
