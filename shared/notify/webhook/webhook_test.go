package webhook

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"spate/shared/notify"
	"spate/shared/notify/post"
	"spate/shared/testport"
)

const withheld = "(the response quotes the URL or a secret, so it is not kept)"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var message = notify.Message{
	ID: "0123456789abcdef_opened", Type: notify.TypeOpened,
	At:   time.Date(2026, 9, 1, 12, 30, 15, 123_987_654, time.FixedZone("", 2*60*60)),
	Data: json.RawMessage(`{"user_id":"<a>&\u00e9é", "num_actions_per_watermark":7}`),
}

const messageBody = `{"type":"alert.opened","timestamp":"2026-09-01T10:30:15.123Z","data":{"user_id":"<a>&\u00e9é", "num_actions_per_watermark":7}}`

func sender(t *testing.T, url string, change ...func(*Config)) *Sender {
	t.Helper()
	c := Config{URL: url, Secrets: secretsOf(t, exampleSecret), AllowPrivate: true}
	for _, f := range change {
		f(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// within calls Notify and fails the test if it takes longer than any bound of the sender allows.
func within(t *testing.T, limit time.Duration, s *Sender) notify.Result {
	t.Helper()
	began := time.Now()
	r := s.Notify(t.Context(), message)
	if took := time.Since(began); took > limit {
		t.Errorf("Notify took %v, more than %v", took, limit)
	}
	return r
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug) // connections are broken on purpose
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

func TestStatus(t *testing.T) {
	now := time.Date(2026, 9, 1, 12, 0, 0, 500_000_000, time.UTC)
	for _, tt := range []struct {
		name   string
		status int
		after  string
		want   notify.Result
	}{
		{name: "ok", status: 200, want: notify.Result{Outcome: notify.Delivered, Status: 200}},
		{name: "created", status: 201, want: notify.Result{Outcome: notify.Delivered, Status: 201}},
		{name: "no content", status: 204, want: notify.Result{Outcome: notify.Delivered, Status: 204}},
		{name: "ok whatever it asks for", status: 200, after: "60", want: notify.Result{Outcome: notify.Delivered, Status: 200}},
		{name: "moved", status: 301, want: notify.Result{Outcome: notify.Failed, Status: 301, Reason: "status 301: redirects are not followed"}},
		{name: "not modified", status: 304, want: notify.Result{Outcome: notify.Failed, Status: 304, Reason: "status 304: redirects are not followed"}},
		{name: "bad request", status: 400, want: notify.Result{Outcome: notify.Failed, Status: 400, Reason: "status 400"}},
		{name: "not found", status: 404, want: notify.Result{Outcome: notify.Failed, Status: 404, Reason: "status 404"}},
		{name: "gone", status: 410, want: notify.Result{Outcome: notify.Gone, Status: 410, Reason: "status 410"}},
		{name: "limit, seconds", status: 429, after: "120", want: notify.Result{Outcome: notify.Throttled, Status: 429, After: 2 * time.Minute, Reason: "status 429"}},
		{name: "limit, date", status: 429, after: "Tue, 01 Sep 2026 12:01:00 GMT",
			want: notify.Result{Outcome: notify.Throttled, Status: 429, After: 59500 * time.Millisecond, Reason: "status 429"}},
		{name: "limit, date of the past", status: 429, after: "Tue, 01 Sep 2026 11:00:00 GMT",
			want: notify.Result{Outcome: notify.Failed, Status: 429, Reason: "status 429"}},
		{name: "limit, 0 s", status: 429, after: "0", want: notify.Result{Outcome: notify.Failed, Status: 429, Reason: "status 429"}},
		{name: "limit, date in a moment", status: 429, after: "Tue, 01 Sep 2026 12:00:01 GMT", want: notify.Result{Outcome: notify.Throttled, Status: 429, After: time.Second, Reason: "status 429"}},
		{name: "limit, for ages", status: 429, after: "99999999999999999999", want: notify.Result{Outcome: notify.Throttled, Status: 429, After: post.MaxAfter, Reason: "status 429"}},
		{name: "limit, date in ages", status: 429, after: "Fri, 31 Dec 9999 23:59:59 GMT", want: notify.Result{Outcome: notify.Throttled, Status: 429, After: post.MaxAfter, Reason: "status 429"}},
		{name: "limit, without", status: 429, want: notify.Result{Outcome: notify.Failed, Status: 429, Reason: "status 429"}},
		{name: "limit, negative", status: 429, after: "-5", want: notify.Result{Outcome: notify.Failed, Status: 429, Reason: "status 429"}},
		{name: "limit, signed", status: 429, after: "+5", want: notify.Result{Outcome: notify.Failed, Status: 429, Reason: "status 429"}},
		{name: "limit, fraction", status: 429, after: "1.5", want: notify.Result{Outcome: notify.Failed, Status: 429, Reason: "status 429"}},
		{name: "limit, a word", status: 429, after: "soon", want: notify.Result{Outcome: notify.Failed, Status: 429, Reason: "status 429"}},
		{name: "error", status: 500, want: notify.Result{Outcome: notify.Failed, Status: 500, Reason: "status 500"}},
		{name: "error that asks", status: 500, after: "60", want: notify.Result{Outcome: notify.Failed, Status: 500, Reason: "status 500"}},
		{name: "bad gateway", status: 502, want: notify.Result{Outcome: notify.Failed, Status: 502, Reason: "status 502"}},
		{name: "unavailable", status: 503, want: notify.Result{Outcome: notify.Failed, Status: 503, Reason: "status 503"}},
		{name: "unavailable, seconds", status: 503, after: "7", want: notify.Result{Outcome: notify.Throttled, Status: 503, After: 7 * time.Second, Reason: "status 503"}},
		{name: "gateway timeout", status: 504, want: notify.Result{Outcome: notify.Failed, Status: 504, Reason: "status 504"}},
		{name: "no known status", status: 999, want: notify.Result{Outcome: notify.Failed, Status: 999, Reason: "status 999"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if tt.after != "" {
					w.Header().Set("Retry-After", tt.after)
				}
				w.WriteHeader(tt.status)
				if tt.status >= 400 {
					_, _ = io.WriteString(w, " no\ntext ")
				}
			})
			if tt.status >= 400 {
				tt.want.Reason += ": no text"
			}
			s := sender(t, srv.URL, func(c *Config) { c.Now = func() time.Time { return now } })
			if diff := cmp.Diff(tt.want, s.Notify(t.Context(), message)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestWhatTheEndpointSays: the beginning of a response says why a message was refused, and is kept only if it quotes nothing of what may be secret.
func TestWhatTheEndpointSays(t *testing.T) {
	const path = "/services/T0LONGTOKEN/xyz%2Fabcdef9/token1234/token1234SUPERSECRET?token=ab%2Bcd%2FefSECRET&k=val"
	secret := strings.TrimPrefix(exampleSecret, "whsec_")
	for body, want := range map[string]string{
		"no_text":                              "no_text",
		"":                                     "",
		"\x1b[31m\xffa":                        "\x1b[31m\ufffda", // escaped where it is shown
		"no such service, services or webhook": "no such service, services or webhook",
		strings.Repeat("x", 10_000):            strings.Repeat("x", 200) + "…",
		"no hook at " + path:                   withheld,
		"token t0longtoken is unknown":         withheld, // other letters
		"{'token': 'ab+cd/efSECRET'}":          withheld, // decoded
		"unknown hook token1234SUPERSECRET":    withheld,
		"xyz/abcdef9":                          withheld,
		strings.Repeat(" ", 4*200-9) + "T0LONGTOKEN":    withheld, // cut
		"key=&quot;T0LONG&quot;":                        withheld,
		"wrong secret " + exampleSecret:                 withheld,
		"wrong secret " + strings.ToUpper(secret)[4:12]: withheld,
	} {
		srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, body)
		})
		if want != "" {
			want = ": " + want
		}
		if got := sender(t, srv.URL+path).Notify(t.Context(), message); got.Reason != "status 400"+want {
			t.Errorf("%.100q: %q, want %q", body, got.Reason, want)
		}
	}
}

// connection answers on the bare connection, after the request has come.
func connection(t *testing.T, answer func(*net.TCPConn)) string {
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
				stop := context.AfterFunc(t.Context(), func() { c.Close() }) // the test has ended
				defer stop()
				b, buf := make([]byte, 0, 4096), make([]byte, 4096)
				for !strings.HasSuffix(string(b), "}") { // the end of the body
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					b = append(b, buf[:n]...)
				}
				answer(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return "http://" + ln.Addr().String() + "/p4th?qu3ry"
}

func TestNoAnswer(t *testing.T) {
	refused := "http://" + testport.Reserve(t) + "/p4th?qu3ry"
	hang := func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1)) } // until the sender gives up
	write := func(text string) func(*net.TCPConn) {
		return func(c *net.TCPConn) { _, _ = io.WriteString(c, text) }
	}
	tls := httptest.NewUnstartedServer(http.NotFoundHandler())
	tls.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	tls.StartTLS()
	t.Cleanup(tls.Close)
	short := func(c *Config) { c.Timeout = 100 * time.Millisecond }
	trust := func(c *Config) {
		c.RootCAs = x509.NewCertPool()
		c.RootCAs.AddCert(tls.Certificate())
	}
	port := func(raw string) string {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		return u.Port()
	}
	for _, tt := range []struct {
		name   string
		url    string
		change func(*Config)
		want   string // how the reason begins
	}{
		{name: "hangs", url: connection(t, hang), change: short, want: "no response within 100ms"},
		{name: "hangs in the header", url: connection(t, func(c *net.TCPConn) { write("HTTP/1.1 200 OK\r\nX: ")(c); hang(c) }), change: short, want: "no response within 100ms"},
		{name: "reset", url: connection(t, func(c *net.TCPConn) { _ = c.SetLinger(0) }), want: "connection reset"},
		{name: "closed", url: connection(t, func(*net.TCPConn) {}), want: "connection closed without a response"},
		{name: "refused", url: refused, want: "connection refused"},
		{name: "no HTTP", url: connection(t, write("s3cret nonsense\r\n\r\n")), want: "invalid HTTP response"},
		{name: "half a status", url: connection(t, write("HTTP/1.1 20")), want: "invalid HTTP response"},
		{name: "endless header", url: connection(t, func(c *net.TCPConn) {
			write("HTTP/1.1 200 OK\r\n")(c)
			for err := error(nil); err == nil; {
				_, err = io.WriteString(c, "X-S3cret: "+strings.Repeat("x", 1000)+"\r\n")
			}
		}), want: "invalid HTTP response"},
		{name: "endless early hints", url: connection(t, func(c *net.TCPConn) {
			for err := error(nil); err == nil; {
				_, err = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: <s3cret>\r\n\r\n")
			}
		}), want: "invalid HTTP response"},
		{name: "unknown host", url: "http://h.invalid/p4th?qu3ry", change: func(c *Config) { c.Timeout = 10 * time.Second }, want: "host not found"},
		{name: "certificate nobody trusts", url: tls.URL + "/p4th?qu3ry", want: "TLS: certificate is not trusted"},
		{name: "certificate of another host", url: "https://localhost:" + port(tls.URL) + "/p4th?qu3ry", change: trust, want: "TLS: certificate is for another host"},
		{name: "no TLS", url: "https" + strings.TrimPrefix(connection(t, write("HTTP/1.1 400 Bad Request\r\n\r\n")), "http"), change: short, want: ""},
		{name: "loopback", url: refused, change: func(c *Config) { c.AllowPrivate = false },
			want: "address 127.0.0.1 is loopback; to allow it, set SPATE_WEBHOOK_ALLOW_PRIVATE=true or, for an endpoint in the endpoints file, allow_private: true"},
		{name: "a name that is loopback", url: "http://localhost:" + port(refused) + "/p4th?qu3ry", change: func(c *Config) { c.AllowPrivate = false }, want: "address "},
		{name: "metadata", url: "http://169.254.169.254/p4th?qu3ry", want: "address 169.254.169.254 is link-local, which is never allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.change == nil {
				tt.change = func(*Config) {}
			}
			r := within(t, 14*time.Second, sender(t, tt.url, tt.change))
			if r.Outcome != notify.Failed || r.Status != 0 || !strings.HasPrefix(r.Reason, tt.want) || r.Reason == "" {
				t.Errorf("%+v, want the reason %q", r, tt.want)
			}
			for _, never := range []string{"p4th", "qu3ry", "s3cret", "S3cret", "MfKQ9r8"} {
				if strings.Contains(r.Reason, never) {
					t.Errorf("%q is in %q", never, r.Reason)
				}
			}
		})
	}
}

func TestNotTLS(t *testing.T) {
	srv := serve(t, func(http.ResponseWriter, *http.Request) {})
	r := sender(t, "https"+strings.TrimPrefix(srv.URL, "http")).Notify(t.Context(), message)
	if r.Outcome != notify.Failed || !strings.HasPrefix(r.Reason, "TLS: the response is not TLS") {
		t.Errorf("%+v", r)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := sender(t, connection(t, func(c *net.TCPConn) { cancel(); _, _ = c.Read(make([]byte, 1)) }))
	want := notify.Result{Outcome: notify.Failed, Reason: "interrupted before there was a response"}
	if diff := cmp.Diff(want, s.Notify(ctx, message)); diff != "" {
		t.Error(diff)
	}
}

func TestTLS(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		var proto atomic.Int32
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			proto.Store(int32(r.ProtoMajor))
			w.WriteHeader(http.StatusNoContent)
		}))
		srv.EnableHTTP2 = h2
		srv.StartTLS()
		s := sender(t, srv.URL, func(c *Config) {
			c.RootCAs = x509.NewCertPool()
			c.RootCAs.AddCert(srv.Certificate())
		})
		if r := s.Notify(t.Context(), message); r.Outcome != notify.Delivered {
			t.Errorf("%+v", r)
		}
		if got := proto.Load(); (got == 2) != h2 {
			t.Errorf("HTTP/%d", got)
		}
		s.Close()
		srv.Close()
	}
}

// The status has come: a body that does not end, or only slowly, neither changes what it says nor holds the sender for long.
func TestBodiesDoNotMatter(t *testing.T) {
	const limit = 8 * time.Second // maxBodyTime, and a machine that is busy; a sender that waits for the body takes 15 s
	var wrote atomic.Int64
	for _, tt := range []struct {
		name   string
		answer func(*net.TCPConn)
	}{
		{"none comes", func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
			_, _ = c.Read(make([]byte, 1))
		}},
		{"byte by byte", func(c *net.TCPConn) {
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for err == nil {
				<-tick.C
				_, err = io.WriteString(c, "x")
			}
		}},
		{"endless", func(c *net.TCPConn) {
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			chunk := strings.Repeat("x", 64<<10)
			for err == nil {
				var n int
				n, err = io.WriteString(c, chunk)
				wrote.Add(int64(n))
			}
		}},
		{"endless chunks", func(c *net.TCPConn) {
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			for err == nil {
				_, err = io.WriteString(c, "5\r\nhello\r\n")
			}
		}},
		{"broken off", func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := within(t, limit, sender(t, connection(t, tt.answer)))
			if diff := cmp.Diff(notify.Result{Outcome: notify.Delivered, Status: 200}, r); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Cleanup(func() { // after the parallel ones
		// What the sender did not read is in the buffers of the two sockets.
		if n := wrote.Load(); n == 0 || n > 64<<20 {
			t.Errorf("%d bytes of the endless body were taken", n)
		}
	})
}

// The body of 101 is the connection itself: reading it heeds no timeout.
func TestSwitchingProtocolsDoesNotHang(t *testing.T) {
	s := sender(t, connection(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
		_, _ = c.Read(make([]byte, 1))
	}))
	if diff := cmp.Diff(notify.Result{Outcome: notify.Failed, Status: 101, Reason: "status 101"}, within(t, 8*time.Second, s)); diff != "" {
		t.Error(diff)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var called atomic.Bool
	target := serve(t, func(http.ResponseWriter, *http.Request) { called.Store(true) })
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, location := range []string{target.URL, "http://[broken", ""} {
			srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", location)
				w.WriteHeader(status)
			})
			if r := sender(t, srv.URL).Notify(t.Context(), message); r.Outcome != notify.Failed || r.Status != status {
				t.Errorf("%d to %q: %+v", status, location, r)
			}
		}
	}
	if called.Load() {
		t.Error("the target was called")
	}
}

type call struct {
	header http.Header
	body   string
	method string
	uri    string
	remote string
}

// record returns a server that answers with the statuses in turn, the last one for ever, and what it was called with.
func record(t *testing.T, statuses ...int) (*httptest.Server, func() []call) {
	t.Helper()
	var (
		mu    sync.Mutex
		calls []call
	)
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		w.WriteHeader(statuses[min(len(calls), len(statuses)-1)])
		calls = append(calls, call{header: r.Header, body: string(b), method: r.Method, uri: r.RequestURI, remote: r.RemoteAddr})
	})
	return srv, func() []call { mu.Lock(); defer mu.Unlock(); return calls }
}

func TestTriesAreTheSameCall(t *testing.T) {
	now := time.Unix(exampleAt, 0)
	srv, calls := record(t, 500, 502, 200)
	s := sender(t, srv.URL+"/hooks/a?b=%20c", func(c *Config) { c.Now = func() time.Time { return now } })
	for i := range 3 {
		now = time.Unix(exampleAt+int64(i)*60, 0)
		if r := s.Notify(t.Context(), message); (r.Outcome == notify.Delivered) != (i == 2) {
			t.Errorf("try %d: %+v", i, r)
		}
	}
	got := calls()
	if len(got) != 3 {
		t.Fatalf("%d calls", len(got))
	}
	stamps := map[string]bool{}
	for i, c := range got {
		if c.method != http.MethodPost || c.uri != "/hooks/a?b=%20c" {
			t.Errorf("%s %s", c.method, c.uri)
		}
		if diff := cmp.Diff(messageBody, c.body); diff != "" {
			t.Error(diff)
		}
		if !json.Valid([]byte(c.body)) {
			t.Errorf("no JSON: %s", c.body)
		}
		if c.remote != got[0].remote {
			t.Errorf("try %d came on a connection of its own", i)
		}
		for name, want := range map[string]string{HeaderID: message.ID, "Content-Type": "application/json", "User-Agent": "spate/1 (+webhook)", "Idempotency-Key": "", "Accept-Encoding": ""} {
			if v := c.header.Get(name); v != want {
				t.Errorf("%s: %q, want %q", name, v, want)
			}
		}
		stamps[c.header.Get(HeaderTimestamp)] = true
		if err := Verify(secretsOf(t, exampleSecret), c.header, []byte(c.body), time.Unix(exampleAt+int64(i)*60, 0)); err != nil {
			t.Error(err)
		}
	}
	if len(stamps) != 3 {
		t.Errorf("timestamps: %v", stamps)
	}
}

func TestRotation(t *testing.T) {
	before, after := NewSecret(), NewSecret()
	srv, calls := record(t, 204)
	now := time.Unix(exampleAt, 0)
	s := sender(t, srv.URL, func(c *Config) {
		c.Secrets, c.Now = secretsOf(t, before, after), func() time.Time { return now }
	})
	if r := s.Notify(t.Context(), message); r.Outcome != notify.Delivered {
		t.Fatalf("%+v", r)
	}
	c := calls()[0]
	if n := len(strings.Fields(c.header.Get(HeaderSignature))); n != 2 {
		t.Errorf("%d signatures", n)
	}
	for name, receiver := range map[string][]Secret{"old": secretsOf(t, before), "new": secretsOf(t, after), "both": secretsOf(t, after, before)} {
		if err := Verify(receiver, c.header, []byte(c.body), now); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Verify(secretsOf(t, NewSecret()), c.header, []byte(c.body), now); !errors.Is(err, ErrSignature) {
		t.Errorf("another: %v", err)
	}
}

// A server that drops its idle connections is not a failed try.
func TestIdleConnectionThatWasClosed(t *testing.T) {
	srv, calls := record(t, 204)
	s := sender(t, srv.URL)
	for range 3 {
		if r := s.Notify(t.Context(), message); r.Outcome != notify.Delivered {
			t.Errorf("%+v", r)
		}
		srv.CloseClientConnections()
	}
	if n := len(calls()); n != 3 {
		t.Errorf("%d calls", n)
	}
}

func TestMessagesThatCannotBeSent(t *testing.T) {
	srv, calls := record(t, 204)
	s := sender(t, srv.URL)
	for name, m := range map[string]notify.Message{
		"no id":         {Type: "x", Data: json.RawMessage(`1`)},
		"header in id":  {ID: "a\r\nX: y", Type: "x", Data: json.RawMessage(`1`)},
		"no JSON":       {ID: "a", Type: "x", Data: json.RawMessage(`{`)},
		"no UTF-8":      {ID: "a", Type: "x", Data: json.RawMessage("\"\xff\"")},
		"two documents": {ID: "a", Type: "x", Data: json.RawMessage(`1},{"type":2`)},
	} {
		err := s.Check(m)
		if r := s.Notify(t.Context(), m); !errors.Is(err, notify.ErrUnsendable) || r != (notify.Result{Outcome: notify.Unsendable, Reason: err.Error()}) {
			t.Errorf("%s: %v, %+v", name, err, r)
		}
	}
	if n := len(calls()); n != 0 {
		t.Errorf("%d calls", n)
	}
	odd := notify.Message{ID: "a", Type: `x"<`}
	if err := s.Check(odd); err != nil {
		t.Error(err)
	}
	if r := s.Notify(t.Context(), odd); r.Outcome != notify.Delivered {
		t.Errorf("%+v", r)
	}
	if body := calls()[0].body; !json.Valid([]byte(body)) || !strings.HasSuffix(body, `,"data":null}`) {
		t.Error(body)
	}
}

func TestConcurrentCalls(t *testing.T) {
	srv, calls := record(t, 204)
	s := sender(t, srv.URL)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 5 {
				if r := s.Notify(t.Context(), message); r.Outcome != notify.Delivered {
					t.Errorf("%+v", r)
				}
			}
		})
	}
	wg.Wait()
	if n := len(calls()); n != 160 {
		t.Errorf("%d calls", n)
	}
}
