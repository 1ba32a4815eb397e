package tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"spate/shared/notify"
	"spate/shared/notify/webhook"
	"spate/shared/testskip"
	"spate/tests/harness"
)

// webhookCall is what a receiver sees of a call, and the secret that it knows.
type webhookCall struct {
	Secret  string            `json:"secret"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

// captureCall returns the call that a sender makes at a time, signed with the secrets.
func captureCall(t *testing.T, at time.Time, m notify.Message, secrets ...string) webhookCall {
	t.Helper()
	keys, err := webhook.ParseSecrets(strings.Join(secrets, " "))
	if err != nil {
		t.Fatal(err)
	}
	var call webhookCall
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		call = webhookCall{Secret: secrets[0], Headers: map[string]string{}, Body: string(body)}
		for name := range r.Header {
			call.Headers[name] = r.Header.Get(name)
		}
	}))
	defer srv.Close()
	s, err := webhook.New(webhook.Config{URL: srv.URL, Secrets: keys, AllowPrivate: true, Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if r := s.Notify(t.Context(), m); r.Outcome != notify.Delivered {
		t.Fatalf("%+v", r)
	}
	return call
}

// verifyLines gives calls to one of the programs in tests/receivers, and returns its lines.
func verifyLines(cmd *exec.Cmd, calls []webhookCall) ([]string, error) {
	var in, out, errs bytes.Buffer
	enc := json.NewEncoder(&in)
	for _, c := range calls {
		if err := enc.Encode(c); err != nil {
			return nil, err
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, harness.Tail(errs.Bytes(), 10))
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"), nil
}

// TestStandardWebhooks asks the official libraries, which receivers use, whether they accept our calls, and nothing else.
func TestStandardWebhooks(t *testing.T) {
	t.Parallel()
	const (
		install   = "python3 -m venv DIR && DIR/bin/pip install -r tests/receivers/python/requirements.txt"
		installJS = "npm ci --prefix tests/receivers/javascript"
	)
	for _, tt := range []struct {
		name   string
		verify func(t *testing.T, calls []webhookCall) []string
	}{
		{"go", func(t *testing.T, calls []webhookCall) []string {
			var lines []string
			for _, c := range calls {
				wh, err := standardwebhooks.NewWebhook(c.Secret)
				if err != nil {
					t.Fatal(err)
				}
				h := http.Header{}
				for name, value := range c.Headers {
					h.Set(name, value)
				}
				line := "ok"
				if err := wh.Verify([]byte(c.Body), h); err != nil {
					line = "refused: " + err.Error()
				}
				lines = append(lines, line)
			}
			return lines
		}},
		{"python", func(t *testing.T, calls []webhookCall) []string {
			python := os.Getenv("SPATE_TEST_PYTHON")
			if python == "" {
				python = "python3"
			}
			if out, err := exec.Command(python, "-c", "import standardwebhooks").CombinedOutput(); err != nil {
				testskip.Missing(t, "%s has no standardwebhooks (%v: %s); install it with: %s; then set SPATE_TEST_PYTHON to DIR/bin/python",
					python, err, harness.Tail(out, 1), install)
			}
			lines, err := verifyLines(exec.Command(python, filepath.Join("receivers", "python", "verify.py")), calls)
			if err != nil {
				t.Fatal(err)
			}
			return lines
		}},
		{"javascript", func(t *testing.T, calls []webhookCall) []string {
			modules := os.Getenv("SPATE_TEST_NODE_MODULES")
			if modules == "" {
				modules = filepath.Join("receivers", "javascript", "node_modules")
			}
			modules, err := filepath.Abs(modules)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(modules, "standardwebhooks")); err != nil {
				testskip.Missing(t, "%s has no standardwebhooks; install it with: %s; or set SPATE_TEST_NODE_MODULES to a node_modules that has it", modules, installJS)
			}
			if _, err := exec.LookPath("node"); err != nil {
				testskip.Missing(t, "node is not installed")
			}
			cmd := exec.Command("node", filepath.Join("receivers", "javascript", "verify.js"))
			cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
			lines, err := verifyLines(cmd, calls)
			if err != nil {
				t.Fatal(err)
			}
			return lines
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls, want := standardCalls(t)
			lines := tt.verify(t, calls)
			if len(lines) != len(want) {
				t.Fatalf("%d answers to %d calls: %q", len(lines), len(want), lines)
			}
			for i, w := range want {
				if !strings.HasPrefix(lines[i], w.begins) || !strings.Contains(lines[i], w.has) {
					t.Errorf("%s: %q, want %s %s", w.name, lines[i], w.begins, w.has)
				}
			}
		})
	}
}

type wantLine struct{ name, begins, has string }

// standardCalls returns calls and how a library has to answer. They are made when they are used: they get old.
func standardCalls(t *testing.T) (calls []webhookCall, want []wantLine) {
	t.Helper()
	one, before, after := webhook.NewSecret(), webhook.NewSecret(), webhook.NewSecret()
	now := time.Now()
	opened := notify.Message{
		ID: "0123456789abcdef0123456789abcdef_opened", Type: notify.TypeOpened, At: now,
		Data: json.RawMessage(`{"id":"0123456789abcdef0123456789abcdef","user_id":"<é>&\u2028😀","num_actions_per_watermark":7}`),
	}
	digest := notify.Message{ID: "digest_1", Type: notify.TypeDigest, At: now, Data: json.RawMessage(`{"messages": 2, "top": []}`)}

	add := func(name, begins, has string, c webhookCall, change func(*webhookCall)) {
		if change != nil {
			change(&c)
		}
		calls, want = append(calls, c), append(want, wantLine{name, begins, has})
	}
	knows := func(secret string) func(*webhookCall) { return func(c *webhookCall) { c.Secret = secret } }

	fresh := captureCall(t, now, opened, one)
	add("one secret", "ok", "", fresh, nil)
	add("a digest", "ok", "", captureCall(t, now, digest, one), nil)
	rotation := captureCall(t, now, opened, before, after)
	add("two secrets, the receiver knows the old one", "ok", "", rotation, knows(before))
	add("two secrets, the receiver knows the new one", "ok", "", rotation, knows(after))
	add("two secrets, the receiver knows neither", "refused: ", "atching signature", rotation, knows(one))
	add("another byte in the body", "refused: ", "atching signature", fresh, func(c *webhookCall) {
		c.Body = strings.Replace(c.Body, `"num_actions_per_watermark":7`, `"num_actions_per_watermark":8`, 1)
		if c.Body == fresh.Body {
			t.Error("the body was not changed")
		}
	})
	add("six minutes old", "refused: ", "too old", captureCall(t, now.Add(-6*time.Minute), opened, one), nil)
	add("six minutes ahead", "refused: ", "too new", captureCall(t, now.Add(6*time.Minute), opened, one), nil)
	return calls, want
}
