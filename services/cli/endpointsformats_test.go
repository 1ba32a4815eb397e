package cli

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"spate/shared/notify/endpoints"
)

// relay is a mail server that takes everything.
func relay(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "220 hi\r\n")
			data := false
			for s := bufio.NewScanner(c); s.Scan(); {
				switch line := s.Text(); {
				case data && line != ".":
				case line == "DATA":
					data = true
					fmt.Fprint(c, "354 go\r\n")
				default:
					data = false
					fmt.Fprint(c, "250 ok\r\n")
				}
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}

// TestEndpointsTestOfEveryFormat: spate endpoints test works for each, ls shows it, and neither tells a secret.
func TestEndpointsTestOfEveryFormat(t *testing.T) {
	bare(t)
	refuse := false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		switch {
		case refuse:
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, "%s %v", r.RequestURI, r.Header)
		case r.URL.Path == "/v2/enqueue":
			w.WriteHeader(http.StatusAccepted)
		case strings.HasPrefix(r.URL.Path, "/t0kenOfTheHook/hook"):
			fmt.Fprint(w, "ok")
		case r.URL.Path == "/api/chat.postMessage":
			fmt.Fprint(w, `{"ok":true,"channel":"C1","ts":"1.2"}`)
		}
	}))
	defer srv.Close()
	secrets := []string{"0123456789abcdef0123456789abcdef", "xoxb-QUFB", "hunter2-QUFB"}
	t.Setenv("KEY", secrets[0])
	t.Setenv("TOKEN", secrets[1])
	t.Setenv("PASSWORD", secrets[2])
	path := file(t, strings.NewReplacer("URL", srv.URL, "RELAY", relay(t), "SECRET", secretA).Replace(`
endpoints:
- {name: standard-webhooks, url: URL/t0kenOfTheHook, secret: SECRET, allow_private: true}
- {name: pagerduty, format: pagerduty, url: URL, routing_key_env: KEY, allow_private: true}
- {name: slack, format: slack, api_url: URL/api, token_env: TOKEN, channel: C1, allow_private: true}
- {name: slack-webhook, format: slack, url: URL/t0kenOfTheHook/hook, allow_private: true}
- {name: alertmanager, format: alertmanager, url: URL/t0kenOfTheHook, username: spate, password_env: PASSWORD, allow_private: true}
- {name: email, format: email, smtp: RELAY, tls: none, from: spate@example.com, to: [a@example.com], allow_private: true}
- name: template
  format: template
  url: URL/t0kenOfTheHook
  secret_env: PASSWORD
  headers: {Authorization: "Bearer {{secret}}"}
  body: '{"text": {{json .title}}}'
  allow_private: true
`))
	tellsNothing := func(text string) {
		t.Helper()
		quiet(t, text)
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("it tells %s: %s", s, text)
			}
		}
	}
	names := []string{"slack-webhook"}
	for _, f := range endpoints.Formats() {
		names = append(names, f.Name)
	}
	for _, name := range names {
		refuse = false
		code, out, errs := spate("endpoints", "test", name, "--endpoints", path)
		if code != ExitOK {
			t.Errorf("%s: exit code %d: %s", name, code, errs)
		}
		says(t, out, "to "+name+" (", "delivered: status 2")
		tellsNothing(out + errs)
		if refuse = true; name == "email" {
			continue
		}
		code, out, errs = spate("endpoints", "test", name, "--endpoints", path, "--json")
		if code != ExitFailed || objects(t, out)[0]["outcome"] != "failed" {
			t.Errorf("%s: exit code %d: %s", name, code, out)
		}
		says(t, errs, "endpoint "+name+": failed: status 403")
		tellsNothing(out + errs)
	}
	code, out, errs := spate("endpoints", "ls", "--endpoints", path, "--database-url", t.TempDir()+"/none.db")
	if code != ExitOK {
		t.Errorf("exit code %d: %s", code, errs)
	}
	for _, name := range names {
		says(t, out, "\n"+name+" ")
	}
	says(t, out, "  pagerduty          http://127.0.0.1:", "  email              smtp://127.0.0.1:", "  slack              http://127.0.0.1:", "  template           http://127.0.0.1:")
	tellsNothing(out + errs)
	_, out, _ = spate("endpoints", "ls", "--json", "--endpoints", path, "--database-url", t.TempDir()+"/none.db")
	if list := objects(t, out); len(list) != len(names) || list[1]["format"] != "pagerduty" || list[0]["format"] != "standard-webhooks" {
		t.Errorf("%s", out)
	}
	tellsNothing(out)
	_, out, errs = spate("doctor", "--endpoints", path, "--brokers", "127.0.0.1:1")
	tellsNothing(out + errs)
}
