package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"spate/services/embedded"
	"spate/services/web"
	"spate/shared/notify"
	"spate/shared/notify/endpoints"
	"spate/shared/notify/webhook"
	"spate/shared/store"
	"spate/shared/store/sqlite"
	"spate/tests/harness"
)

// TestConsoleSendsATest: a console that has only the database tests an endpoint of every format by the alerter of another process, which signs, sends and records the message
// like any other.
func TestConsoleSendsATest(t *testing.T) {
	bare(t)
	secrets, err := webhook.ParseSecrets(secretA)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	down := true
	calls := make(map[string][]string) // bodies by path
	signed := make(map[string]int)     // calls to the webhook by id
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		calls[r.URL.Path] = append(calls[r.URL.Path], string(body))
		switch r.URL.Path {
		case "/webhook":
			if err := webhook.Verify(secrets, r.Header, body, time.Now()); err != nil {
				t.Error(err)
			}
			var m struct {
				Type      string
				Timestamp time.Time
				Data      struct{ Endpoint, Text string }
			}
			if err := json.Unmarshal(body, &m); err != nil || m.Type != notify.TypeTest || time.Since(m.Timestamp) > time.Minute || m.Data.Endpoint != "standard-webhooks" || !strings.Contains(m.Data.Text, "this is not an alert") {
				t.Errorf("%v: %s", err, body)
			}
			signed[r.Header.Get(webhook.HeaderID)]++
			if down {
				w.WriteHeader(http.StatusInternalServerError)
			}
		case "/v2/enqueue":
			w.WriteHeader(http.StatusAccepted)
		case "/slack":
			fmt.Fprint(w, "ok")
		}
	}))
	defer srv.Close()
	got := func(path string) []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(calls[path])
	}
	t.Setenv("KEY", "0123456789abcdef0123456789abcdef")
	f := webhookFlags{Endpoints: file(t, strings.NewReplacer("URL", srv.URL, "RELAY", relay(t), "SECRET", secretA).Replace(`
endpoints:
- {name: standard-webhooks, url: URL/webhook, secret: SECRET, allow_private: true, min_severity: critical, digest_above: 1}
- {name: pagerduty, format: pagerduty, url: URL, routing_key_env: KEY, allow_private: true}
- {name: slack, format: slack, url: URL/slack, allow_private: true}
- {name: alertmanager, format: alertmanager, url: URL, allow_private: true}
- {name: email, format: email, smtp: RELAY, tls: none, from: spate@example.com, to: [a@example.com], allow_private: true}
- {name: template, format: template, url: URL/template, body: '{"text": {{json .title}}}', allow_private: true}
- {name: guarded, url: URL/guarded, secret: SECRET}
`))}
	told, stop, err := f.endpoints(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	_, _, info := pipelineOf(t, func(c *embedded.Config) { c.Endpoints = told })

	// The console has its own connection to the database, as spate console has in another process.
	st, err := sqlite.Open(t.Context(), info.Database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	served := httptest.NewServer(web.New(web.Config{Store: func(context.Context) (web.Store, error) { return st, nil }, Log: slog.New(slog.DiscardHandler)}).Handler())
	defer served.Close()
	press := func(path string, form url.Values, says string) {
		t.Helper()
		if code, body := visit(t, http.MethodPost, served.URL+path, form); code != http.StatusSeeOther || !strings.Contains(body, says) {
			t.Fatalf("%s: %d %s", path, code, body)
		}
	}
	test := func(name string) store.Delivery {
		t.Helper()
		list, err := store.Collect(st.ListDeliveries(t.Context(), store.DeliveryFilter{Endpoint: name}))
		if err != nil || len(list) != 1 || list[0].Type != notify.TypeTest {
			t.Fatalf("%s: %v, %+v", name, err, list)
		}
		return list[0]
	}
	harness.Eventually(t, 30*time.Second, "the alerter has said how it has its endpoints", func() bool {
		known, err := st.Endpoints(t.Context())
		return err == nil && len(known) == len(told)
	})
	for _, e := range told {
		press("/endpoints/"+e.Name+"/test", url.Values{}, "/deliveries?done=tested")
	}
	var names []string
	for _, e := range endpoints.Formats() {
		names = append(names, e.Name)
	}
	for _, name := range names {
		if name != "standard-webhooks" {
			harness.Eventually(t, 30*time.Second, name+" has the test", func() bool { return test(name).State == store.Delivered })
		}
	}
	// What the endpoint answered is on the page, and what the guard refuses is not called.
	harness.Eventually(t, 30*time.Second, "the page shows the answers", func() bool {
		_, body := visit(t, http.MethodGet, served.URL+"/deliveries", nil)
		return strings.Contains(body, "status 500") && strings.Contains(body, "address 127.0.0.1 is loopback")
	})
	mu.Lock()
	down = false
	mu.Unlock()
	d := test("standard-webhooks")
	if d.State != store.Pending || d.Tries == 0 {
		t.Errorf("after status 500: %+v", d)
	}
	// On the schedule, or sooner on request, it is sent again under the same id.
	harness.Eventually(t, 30*time.Second, "the webhook has the test", func() bool {
		if test("standard-webhooks").State == store.Delivered { // looked at before the resend, which would make it pending again
			return true
		}
		_, _ = visit(t, http.MethodPost, served.URL+"/deliveries/resend", url.Values{"webhook_id": {d.WebhookID}, "endpoint": {d.Endpoint}}) // refused while it is due
		return false
	})
	mu.Lock()
	if n := signed[d.WebhookID]; n < 2 || len(signed) != 1 {
		t.Errorf("calls: %v", signed)
	}
	mu.Unlock()
	// Nothing is left open behind a test.
	if events := got("/v2/enqueue"); len(events) != 2 || !strings.Contains(events[0], `"trigger"`) || !strings.Contains(events[1], `"resolve"`) || !strings.Contains(events[1], test("pagerduty").WebhookID) {
		t.Errorf("pagerduty: %q", events)
	}
	if alerts := got("/api/v2/alerts"); len(alerts) != 1 || !strings.Contains(alerts[0], `"endsAt"`) {
		t.Errorf("alertmanager: %q", alerts)
	}
	if len(got("/guarded")) > 0 || len(got("/slack")) != 1 || len(got("/template")) != 1 {
		t.Errorf("calls: %v", calls)
	}
	// The list of tries has them, too.
	code, out, errs := spate("deliveries", "ls", "--json", "--endpoint", "standard-webhooks", "--database-url", info.Database)
	if list := objects(t, out); code != ExitOK || len(list) < 2 || list[0]["webhook_id"] != d.WebhookID || list[0]["status"] != 500.0 {
		t.Errorf("%d %s%s", code, out, errs)
	}
}
