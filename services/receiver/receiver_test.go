package receiver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"spate/shared/notify"
	"spate/shared/notify/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

type running struct {
	url   string
	calls chan Call
	stop  func() error
}

func start(t *testing.T, secrets ...string) running {
	t.Helper()
	keys, err := webhook.ParseSecrets(strings.Join(secrets, " "))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := running{url: "http://" + ln.Addr().String(), calls: make(chan Call, 100)}
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{Listener: ln, Secrets: keys, On: func(c Call) { r.calls <- c }, Now: func() time.Time { return now }})
	}()
	r.stop = func() error { cancel(); return <-done }
	t.Cleanup(func() { cancel(); http.DefaultClient.CloseIdleConnections() })
	return r
}

// post calls with the headers of a signed call, and returns the status and the text of the answer.
func post(t *testing.T, url, secret, id, body string, at time.Time, change func(*http.Request)) (int, string) {
	t.Helper()
	wh, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := wh.Sign(id, at, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(webhook.HeaderID, id)
	req.Header.Set(webhook.HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	req.Header.Set(webhook.HeaderSignature, signature)
	if change != nil {
		change(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(b))
}

func TestReceiver(t *testing.T) {
	before, after := webhook.NewSecret(), webhook.NewSecret()
	r := start(t, before, after)
	const good = `{"type":"alert.opened","timestamp":"2026-09-01T11:59:59.123Z","data":{"user_id":"<a>"}}`
	for _, tt := range []struct {
		name   string
		secret string
		id     string
		body   string
		at     time.Time
		path   string
		change func(*http.Request)
		status int
		want   Call
	}{
		{name: "accepted", id: "1", status: 204, want: Call{Verified: true, WebhookID: "1", Type: "alert.opened"}},
		{name: "again", id: "1", at: now.Add(time.Minute), status: 204, want: Call{Verified: true, WebhookID: "1", Type: "alert.opened", Repeat: true}},
		{name: "the other secret", secret: after, id: "2", path: "//hooks/../x?y=z", status: 204, want: Call{Verified: true, WebhookID: "2", Type: "alert.opened"}},
		{name: "no known secret", secret: webhook.NewSecret(), id: "3", status: 401, want: Call{Reason: "no signature matches"}},
		{name: "refused ids are not remembered", id: "3", status: 204, want: Call{Verified: true, WebhookID: "3", Type: "alert.opened"}},
		{name: "old", id: "4", at: now.Add(-6 * time.Minute), status: 401, want: Call{Reason: "timestamp is too far from the current time: it is 360 s old"}},
		{name: "no headers", id: "5", change: func(r *http.Request) { r.Header.Del(webhook.HeaderSignature) }, status: 401,
			want: Call{Reason: "headers are missing or invalid: webhook-signature is missing"}},
		{name: "no JSON", id: "6", body: "hello", status: 400, want: Call{Verified: true, WebhookID: "6", Reason: "body is not a message: expected a JSON object with a type"}},
		{name: "no type", id: "7", body: "{}", status: 400, want: Call{Verified: true, WebhookID: "7", Reason: "body is not a message: expected a JSON object with a type"}},
		{name: "too long", id: "8", body: strings.Repeat("x", maxBody+1), status: 413, want: Call{Reason: "body is longer than 1048576 bytes"}},
		{name: "just not too long", id: "9", body: `{"type":"x"}` + strings.Repeat(" ", maxBody-12), status: 204, want: Call{Verified: true, WebhookID: "9", Type: "x"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.secret == "" {
				tt.secret = before
			}
			if tt.body == "" {
				tt.body = good
			}
			if tt.at.IsZero() {
				tt.at = now
			}
			status, text := post(t, r.url+tt.path, tt.secret, tt.id, tt.body, tt.at, tt.change)
			if status != tt.status || text != tt.want.Reason {
				t.Errorf("status %d, %q; want %d", status, text, tt.status)
			}
			got := <-r.calls
			if got.Remote == "" || !got.At.Equal(now) {
				t.Errorf("at %v from %q", got.At, got.Remote)
			}
			got.At, got.Remote = time.Time{}, ""
			if tt.body == good && got.Verified {
				tt.want.Data, tt.want.Timestamp = json.RawMessage(`{"user_id":"<a>"}`), "2026-09-01T11:59:59.123Z"
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, tt := range []struct {
		method, path string
		status       int
	}{{"GET", "/healthz", 200}, {"GET", "/", 405}, {"PUT", "/healthz", 405}, {"DELETE", "/x", 405}} {
		req, err := http.NewRequest(tt.method, r.url+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%s %s: %d", tt.method, tt.path, resp.StatusCode)
		}
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if len(r.calls) != 0 {
		t.Errorf("%d calls too many", len(r.calls))
	}
}

func TestReceivesFromTheSender(t *testing.T) {
	secret := webhook.NewSecret()
	r := start(t, secret)
	keys, err := webhook.ParseSecrets(secret)
	if err != nil {
		t.Fatal(err)
	}
	s, err := webhook.New(webhook.Config{URL: r.url, Secrets: keys, AllowPrivate: true, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := notify.Message{ID: "a_opened", Type: notify.TypeOpened, At: now, Data: json.RawMessage(`{"user_id":5}`)}
	for i := range 2 {
		if res := s.Notify(t.Context(), m); res.Outcome != notify.Delivered || res.Status != 204 {
			t.Fatalf("%+v", res)
		}
		if c := <-r.calls; c.Repeat != (i == 1) || c.WebhookID != m.ID || c.Type != m.Type || string(c.Data) != string(m.Data) {
			t.Errorf("%+v", c)
		}
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

// A caller that neither sends nor leaves does not hold the process.
func TestEndsWithOpenConnections(t *testing.T) {
	r := start(t, webhook.NewSecret())
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.stop() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still there")
	}
}

func TestSeenIsBounded(t *testing.T) {
	s := newSeen(3)
	for _, tt := range []struct {
		id   string
		want bool
	}{{"a", false}, {"a", true}, {"b", false}, {"c", false}, {"a", true}, {"d", false}, {"a", false}, {"c", true}, {"d", true}, {"b", false}} {
		if got := s.add(tt.id); got != tt.want {
			t.Errorf("%s: seen %t", tt.id, got)
		}
	}
	s = newSeen(maxSeen)
	for i := range 3 * maxSeen {
		s.add(fmt.Sprint(i))
	}
	if len(s.ids) != maxSeen || len(s.ring) != maxSeen {
		t.Errorf("%d ids, %d in the ring", len(s.ids), len(s.ring))
	}
}

func TestValidate(t *testing.T) {
	err := Run(t.Context(), Config{})
	if err == nil || !strings.Contains(err.Error(), "listener: ") || !strings.Contains(err.Error(), "secrets: ") {
		t.Errorf("%v", err)
	}
}
