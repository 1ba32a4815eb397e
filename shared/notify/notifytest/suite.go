package notifytest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"spate/shared/notify"
)

// Suite tests what every adapter that makes HTTP calls must do.
type Suite struct {
	// Open returns the adapter for a URL.
	Open func(t *testing.T, o Options) notify.Notifier
	// Path is the part of the URL that is as secret as Secrets; empty if the adapter's URLs contain nothing secret.
	Path    string
	Secrets []string
	// Accept answers as the vendor does on success.
	Accept func(w http.ResponseWriter, r *http.Request)
	// Check checks a request against the vendor's documented schema. m is the message.
	Check func(t *testing.T, c Call, m notify.Message)
}

// Options of an adapter.
type Options struct {
	URL          string
	AllowPrivate bool
	Timeout      time.Duration
}

// Call is a request that arrived.
type Call struct {
	Method, URI string
	Header      http.Header
	Body        []byte
}

// Now is the clock of adapters.
func Now() time.Time { return At.Add(time.Minute) }

// Serve starts a server and returns its URL and the calls that it received.
func Serve(t *testing.T, answer http.HandlerFunc) (url string, calls func() []Call) {
	t.Helper()
	var (
		mu   sync.Mutex
		came []Call
	)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		mu.Lock()
		came = append(came, Call{r.Method, r.RequestURI, r.Header, body})
		mu.Unlock()
		answer(w, r)
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug) // connections are broken on purpose
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.URL, func() []Call {
		mu.Lock()
		defer mu.Unlock()
		out := came
		came = nil
		return out
	}
}

// Answer returns a handler that always gives the same answer.
func Answer(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// Listen accepts connections and hands them to answer, one after another, until the test ends.
func Listen(t *testing.T, answer func(*net.TCPConn)) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				stop := context.AfterFunc(t.Context(), func() { c.Close() })
				defer stop()
				answer(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	open := func(t *testing.T, o Options) notify.Notifier {
		t.Helper()
		o.URL += s.Path
		n := s.Open(t, o)
		if c, ok := n.(interface{ Close() }); ok {
			t.Cleanup(c.Close)
		}
		return n
	}
	first := Incident(notify.TypeIncidentOpened)

	t.Run("every message", func(t *testing.T) {
		url, calls := Serve(t, s.Accept)
		n := open(t, Options{URL: url, AllowPrivate: true})
		for _, m := range Messages() {
			if err := n.Check(m); err != nil {
				t.Errorf("%s: %v", m.Type, err)
			}
			if r := n.Notify(t.Context(), m); r.Outcome != notify.Delivered || r.Reason != "" || len(r.Ref) > 200 {
				t.Errorf("%s: %+v", m.Type, r)
			}
			came := calls()
			if len(came) == 0 {
				t.Errorf("%s: no call", m.Type)
			}
			for _, c := range came {
				s.Check(t, c, m)
			}
		}
	})
	t.Run("hostile text", func(t *testing.T) {
		url, calls := Serve(t, s.Accept)
		n := open(t, Options{URL: url, AllowPrivate: true})
		for _, m := range Hostile() {
			r := n.Notify(t.Context(), m)
			came := calls()
			switch err := n.Check(m); {
			case err != nil && (!errors.Is(err, notify.ErrUnsendable) || r != (notify.Result{Outcome: notify.Unsendable, Reason: err.Error()}) || len(came) > 0):
				t.Errorf("%s: %v, %+v, %d calls", m.Type, err, r, len(came))
			case err == nil && r.Outcome != notify.Delivered:
				t.Errorf("%s: %+v", m.Type, r)
			}
			for _, c := range came {
				s.Check(t, c, m)
			}
		}
	})
	t.Run("unsendable", func(t *testing.T) {
		url, calls := Serve(t, s.Accept)
		n := open(t, Options{URL: url, AllowPrivate: true})
		for _, m := range []notify.Message{
			{Type: notify.TypeOpened, Data: first.Data}, {ID: "a\r\nX: y", Type: notify.TypeTest, Data: json.RawMessage(`{}`)},
			{ID: "a", Type: notify.TypeIncidentOpened, Data: json.RawMessage(`{`)}, {ID: "a", Type: notify.TypeIncidentOpened, Data: json.RawMessage("\"\xff\"")},
		} {
			err := n.Check(m)
			if r := n.Notify(t.Context(), m); !errors.Is(err, notify.ErrUnsendable) || r != (notify.Result{Outcome: notify.Unsendable, Reason: err.Error()}) {
				t.Errorf("%+v: %v, %+v", m, err, r)
			}
		}
		if n := len(calls()); n != 0 {
			t.Errorf("%d calls", n)
		}
	})
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   notify.Result
		says   string
	}{
		{"429 with Retry-After", Answer(429, "", "Retry-After", "120"), notify.Result{Outcome: notify.Throttled, Status: 429, After: 2 * time.Minute}, "429"},
		{"503 with Retry-After", Answer(503, "", "Retry-After", "7"), notify.Result{Outcome: notify.Throttled, Status: 503, After: 7 * time.Second}, "503"},
		{"error", Answer(500, "out of order"), notify.Result{Outcome: notify.Failed, Status: 500}, "status 500: out of order"},
		{"forbidden", Answer(403, "not you"), notify.Result{Outcome: notify.Failed, Status: 403}, "not you"},
		{"redirect", Answer(302, "", "Location", "http://127.0.0.1:1/"), notify.Result{Outcome: notify.Failed, Status: 302}, "redirects are not followed"},
		{"quotes the request", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, "%s %v %s", r.RequestURI, r.Header, strings.Join(s.Secrets, " "))
		}, notify.Result{Outcome: notify.Failed, Status: 400}, "status 400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, _ := Serve(t, c.answer)
			r := open(t, Options{URL: url, AllowPrivate: true}).Notify(t.Context(), first)
			reason := r.Reason
			if r.Reason = ""; r != c.want || !strings.Contains(reason, c.says) {
				t.Errorf("%+v %q, want %+v and %q", r, reason, c.want, c.says)
			}
			s.tells(t, reason)
		})
	}
	for _, c := range []struct {
		name    string
		answer  func(*net.TCPConn)
		timeout time.Duration
		says    string
	}{
		{"accepts and resets", func(c *net.TCPConn) { await(c); _ = c.SetLinger(0) }, 0, "connection reset"},
		{"accepts and closes", await, 0, "connection closed without a response"},
		{"slow", func(c *net.TCPConn) { await(c); _, _ = c.Read(make([]byte, 1)) }, 100 * time.Millisecond, "no response within 100ms"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := open(t, Options{URL: "http://" + Listen(t, c.answer), AllowPrivate: true, Timeout: c.timeout}).Notify(t.Context(), first)
			if r != (notify.Result{Outcome: notify.Failed, Reason: c.says}) {
				t.Errorf("%+v, want %q", r, c.says)
			}
		})
	}
	t.Run("guard", func(t *testing.T) {
		url, calls := Serve(t, s.Accept)
		r := open(t, Options{URL: url}).Notify(t.Context(), first)
		if r.Outcome != notify.Failed || !strings.Contains(r.Reason, "127.0.0.1 is loopback") || len(calls()) > 0 {
			t.Errorf("%+v", r)
		}
		r = open(t, Options{URL: "http://169.254.169.254", AllowPrivate: true}).Notify(t.Context(), first)
		if r.Outcome != notify.Failed || !strings.Contains(r.Reason, "link-local") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := open(t, Options{URL: "http://" + Listen(t, func(c *net.TCPConn) { await(c); cancel(); _, _ = c.Read(make([]byte, 1)) }), AllowPrivate: true})
		if r := n.Notify(ctx, first); r != (notify.Result{Outcome: notify.Failed, Reason: "interrupted before there was a response"}) {
			t.Errorf("%+v", r)
		}
	})
	t.Run("concurrent", func(t *testing.T) {
		url, calls := Serve(t, s.Accept)
		n := open(t, Options{URL: url, AllowPrivate: true})
		var wg sync.WaitGroup
		for _, m := range Messages() {
			wg.Go(func() {
				for range 3 {
					if r := n.Notify(t.Context(), m); r.Outcome != notify.Delivered {
						t.Errorf("%s: %+v", m.Type, r)
					}
				}
			})
		}
		wg.Wait()
		if got := len(calls()); got < 3*len(Messages()) {
			t.Errorf("%d calls", got)
		}
	})
	t.Run("nothing prints secrets", func(t *testing.T) {
		n := open(t, Options{URL: "https://h.example"})
		s.Printed(t, n)
		if h, ok := n.(interface{ Host() string }); !ok || h.Host() != "https://h.example" {
			t.Error("no host")
		}
	})
}

// await reads a request to the end of its body, as far as that can be told.
func await(c *net.TCPConn) {
	r := make([]byte, 0, 64<<10)
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		r = append(r, buf[:n]...)
		head, body, ok := bytes.Cut(r, []byte("\r\n\r\n"))
		if err != nil {
			return
		}
		if !ok {
			continue
		}
		var length int
		for _, line := range bytes.Split(head, []byte("\r\n")) {
			_, _ = fmt.Sscanf(string(line), "Content-Length: %d", &length)
		}
		if len(body) >= length {
			return
		}
	}
}

// Printed fails the test if a value, in any format, prints a secret.
func (s Suite) Printed(t *testing.T, v any) {
	t.Helper()
	for _, v := range []any{v, &v, []any{v}, map[string]any{"x": v}, struct{ X any }{v}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			s.tells(t, fmt.Sprintf(verb, v))
		}
		b, _ := json.Marshal(v) // an error is fine
		var text, js bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&js, nil)).Info("m", "v", v)
		s.tells(t, string(b)+text.String()+js.String())
	}
}

func (s Suite) tells(t *testing.T, text string) {
	t.Helper()
	for _, secret := range append(strings.FieldsFunc(s.Path, func(r rune) bool { return r == '/' }), s.Secrets...) {
		if len(secret) >= 6 && (strings.Contains(text, secret) || strings.Contains(text, fmt.Sprintf("%x", secret))) {
			t.Errorf("it reveals %q: %s", secret, text)
		}
	}
}
