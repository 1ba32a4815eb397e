package web

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spate/shared/notify"
	"spate/shared/store"
	"spate/shared/store/sqlite"
)

// TestSendATest: the button leaves one test of an endpoint in the database, and says why it does not.
func TestSendATest(t *testing.T) {
	st, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "a.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	served := httptest.NewServer(New(Config{Store: func(context.Context) (Store, error) { return st, nil }, Log: slog.New(slog.DiscardHandler)}).Handler())
	defer served.Close()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ask := func(method, path, site string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, served.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if site != "" {
			r.Header.Set("Sec-Fetch-Site", site)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		client.CloseIdleConnections()
		return answer.StatusCode, string(b) + answer.Header.Get("Location")
	}
	press := func(name, site string, code int, says string) {
		t.Helper()
		if got, body := ask(http.MethodPost, "/endpoints/"+name+"/test", site); got != code || !strings.Contains(body, says) {
			t.Errorf("a test of %s: %d, not %d with %q: %s", name, got, code, says, body)
		}
	}
	tests := func() []store.Delivery {
		t.Helper()
		list, err := store.Collect(st.ListDeliveries(t.Context(), store.DeliveryFilter{}))
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	enable := func(name string, enabled bool) {
		t.Helper()
		if err := st.SetEnabled(t.Context(), noon, name, enabled, "by hand"); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Configure(t.Context(), noon, map[string]store.EndpointConfig{"pager": {Host: "https://pager.example"}, "chat": {}}); err != nil {
		t.Fatal(err)
	}
	enable("chat", false)
	enable("removed", false)
	enable("removed", true)

	_, body := ask(http.MethodGet, "/deliveries", "")
	for _, name := range []string{"pager", "chat", "removed"} {
		if !strings.Contains(body, `action="/endpoints/`+name+`/test"`) || !strings.Contains(body, `Send a test<span class="vh"> to `+name+"<") {
			t.Errorf("%s has no button: %s", name, body)
		}
	}
	press("nobody", "", http.StatusNotFound, "no endpoint is named")
	press("chat", "", http.StatusConflict, "endpoint chat is disabled; enable it first")
	press("removed", "", http.StatusConflict, "no spate alert process has an endpoint")
	press("pager", "cross-site", http.StatusForbidden, "a page on another site")
	if got := tests(); len(got) > 0 {
		t.Errorf("tests that were refused: %+v", got)
	}
	press("pager", "same-origin", http.StatusSeeOther, "/deliveries?done=tested")
	press("pager", "", http.StatusConflict, "a test of endpoint pager is already queued but has not been attempted yet; is spate alert running?")
	list := tests()
	if len(list) != 1 || list[0].Endpoint != "pager" || list[0].Type != notify.TypeTest || list[0].State != store.Pending {
		t.Fatalf("%+v", list)
	}
	id := list[0].WebhookID
	shows := func(wanted ...string) {
		t.Helper()
		_, body := ask(http.MethodGet, "/deliveries?done=tested", "")
		for _, s := range wanted {
			if !strings.Contains(body, s) {
				t.Errorf("the page is without %q: %s", s, body)
			}
		}
	}
	resend := `name="webhook_id" value="` + id + `"`
	shows("The test message has been stored,", `<span class="state pending">pending</span>`, `data-label="Message">endpoint.test<`)
	if _, body := ask(http.MethodGet, "/deliveries", ""); strings.Contains(body, resend) {
		t.Error("what is due can be resent")
	}
	// While it waits for its next try, it can be brought forward, but no other is added.
	try := store.Try{WebhookID: id, Endpoint: "pager", At: time.Now(), Status: 500, Outcome: notify.Failed, Reason: "status 500", NextAt: time.Now().Add(time.Hour)}
	if _, err := st.Record(t.Context(), try, true); err != nil {
		t.Fatal(err)
	}
	press("pager", "", http.StatusConflict, "to send it now, resend the message "+id)
	shows("status 500", resend)
	try.Outcome, try.Status, try.Reason, try.NextAt = notify.Delivered, 204, "", time.Time{}
	if _, err := st.Record(t.Context(), try, true); err != nil {
		t.Fatal(err)
	}
	shows(`<span class="state delivered">delivered</span>`, "status 204", resend)
	press("pager", "", http.StatusSeeOther, "/deliveries?done=tested")
	if n := len(tests()); n != 2 {
		t.Errorf("%d tests", n)
	}
}
