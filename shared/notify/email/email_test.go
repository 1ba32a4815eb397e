package email

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"spate/shared/notify"
	"spate/shared/notify/notifytest"
	"spate/shared/notify/post"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const password = "p4ssw0rd 0f the m41lb0x"

var suite = notifytest.Suite{Secrets: []string{password, base64.StdEncoding.EncodeToString([]byte(password)), "p4ssw0rd"}}

// sent is what came over one connection.
type sent struct {
	hello, user, pass, from string
	to                      []string
	data                    []byte
	encrypted               bool
}

// server is a mail server (RFC 5321) that is as strict as one can be.
type server struct {
	t        *testing.T
	cert     tls.Certificate
	roots    *x509.CertPool
	implicit bool              // TLS from the first byte on
	plain    bool              // no STARTTLS
	auth     string            // mechanisms; empty is none
	refuse   map[string]string // responses by the beginning of a command, in place of the usual ones

	mu   sync.Mutex
	came []sent
}

func newServer(t *testing.T) *server {
	t.Helper()
	h := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	defer h.Close()
	s := &server{t: t, cert: h.TLS.Certificates[0], roots: x509.NewCertPool(), auth: "LOGIN PLAIN"}
	s.roots.AddCert(h.Certificate())
	return s
}

func (s *server) start() string {
	return notifytest.Listen(s.t, func(raw *net.TCPConn) {
		var conn net.Conn = raw
		var one sent
		if s.implicit {
			secured := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{s.cert}})
			if secured.Handshake() != nil {
				return
			}
			conn, one.encrypted = secured, true
		}
		s.session(conn, &one)
	})
}

func (s *server) session(conn net.Conn, one *sent) {
	r := bufio.NewReader(conn)
	say := func(text string) { _, _ = io.WriteString(conn, text+"\r\n") }
	line := func() (string, bool) {
		text, err := r.ReadString('\n')
		if err != nil {
			return "", false
		}
		if strings.HasPrefix(text, "\x16\x03") { // TLS
			return "", false
		}
		if !strings.HasSuffix(text, "\r\n") || strings.Count(text, "\r") != 1 || len(text) > 1000 {
			s.t.Errorf("not a line of SMTP: %q", text)
		}
		return strings.TrimSuffix(text, "\r\n"), true
	}
	say("220 mail.example ESMTP")
	for {
		command, ok := line()
		if !ok {
			return
		}
		for prefix, response := range s.refuse {
			if strings.HasPrefix(command, prefix) {
				if response == "" {
					return // the connection ends
				}
				say(response)
				ok = false
			}
		}
		if !ok {
			continue
		}
		verb, rest, _ := strings.Cut(command, " ")
		switch verb {
		case "EHLO":
			one.hello = rest
			lines := []string{"250-mail.example", "250-PIPELINING"}
			if !s.plain && !one.encrypted {
				lines = append(lines, "250-STARTTLS")
			} else if s.auth != "" {
				lines = append(lines, "250-AUTH "+s.auth)
			}
			say(strings.Join(append(lines, "250 8BITMIME"), "\r\n"))
		case "STARTTLS":
			say("220 go ahead")
			secured := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{s.cert}})
			if secured.Handshake() != nil {
				return
			}
			conn, r, one.encrypted = secured, bufio.NewReader(secured), true
		case "AUTH":
			if !one.encrypted {
				s.t.Error("a password that is not encrypted")
			}
			s.login(rest, one, say, line)
		case "MAIL":
			one.from = rest
			say("250 ok")
		case "RCPT":
			one.to = append(one.to, rest)
			say("250 ok")
		case "DATA":
			say("354 go ahead")
			for {
				text, ok := line()
				if !ok {
					return
				}
				if text == "." {
					break
				}
				one.data = append(one.data, strings.TrimPrefix(text, ".")+"\r\n"...)
			}
			if response, ok := s.refuse["."]; ok {
				if response != "" {
					say(response)
					continue
				}
				return
			}
			s.mu.Lock()
			s.came = append(s.came, *one)
			s.mu.Unlock()
			say("250 queued as 1")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("500 what?")
		}
	}
}

func (s *server) login(how string, one *sent, say func(string), line func() (string, bool)) {
	decode := func(text string) string {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			s.t.Error(err)
		}
		return string(b)
	}
	if mechanism, initial, _ := strings.Cut(how, " "); mechanism == "PLAIN" {
		parts := strings.Split(decode(initial), "\x00")
		one.user, one.pass = parts[1], parts[2]
	} else {
		say("334 " + base64.StdEncoding.EncodeToString([]byte("Username:")))
		user, _ := line()
		say("334 " + base64.StdEncoding.EncodeToString([]byte("Password:")))
		pass, _ := line()
		one.user, one.pass = decode(user), decode(pass)
	}
	if one.pass != password {
		say("535 5.7.8 wrong: " + one.pass)
		return
	}
	say("235 2.7.0 welcome")
}

// mails returns what has come.
func (s *server) mails() []sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.came
	s.came = nil
	return out
}

func sender(t *testing.T, s *server, addr string, change ...func(*Config)) *Sender {
	t.Helper()
	c := Config{
		Server: addr, Username: "spate", Password: post.NewSecret(password), From: `"Späte, Alerts" <spate@example.com>`, To: []string{"on-call@example.com", "Fraud <fraud@example.org>"},
		AllowPrivate: true, RootCAs: s.roots, Link: "https://grafana.example/d/x?from={since}",
	}
	for _, f := range change {
		f(&c)
	}
	out, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// check has the rules of RFC 5322, 2045 and 2047. It returns the mail and its text.
func check(t *testing.T, one sent) (*mail.Message, string) {
	t.Helper()
	head, _, ok := bytes.Cut(one.data, []byte("\r\n\r\n"))
	if !ok {
		t.Fatalf("no headers: %q", one.data)
	}
	for _, b := range one.data {
		if b > '~' || b < ' ' && b != '\r' && b != '\n' {
			t.Fatalf("byte %#x: %q", b, one.data)
		}
	}
	for line := range strings.SplitSeq(string(one.data), "\r\n") {
		if len(line) > 998 {
			t.Errorf("a line of %d characters", len(line))
		}
	}
	for line := range strings.SplitSeq(string(head), "\r\n") {
		if strings.Contains(line, "=?") && len(line) > 78 {
			t.Errorf("%d characters: %s", len(line), line)
		}
	}
	m, err := mail.ReadMessage(bytes.NewReader(one.data))
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{"Date", "From", "To", "Subject", "Message-Id", "In-Reply-To", "References", "Auto-Submitted", "Mime-Version", "Content-Type", "Content-Transfer-Encoding"}
	for name, values := range m.Header {
		if !slices.Contains(allowed, name) || len(values) != 1 {
			t.Errorf("header %s: %q", name, values)
		}
	}
	if _, err := m.Header.Date(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"From", "To"} {
		if _, err := m.Header.AddressList(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type")); err != nil || kind != "text/plain" || params["charset"] != "utf-8" || m.Header.Get("Content-Transfer-Encoding") != "quoted-printable" {
		t.Errorf("%v", m.Header)
	}
	text, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	return m, string(text)
}

func subject(t *testing.T, m *mail.Message) string {
	t.Helper()
	text, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil {
		t.Error(err)
	}
	return text
}

// TestThread: the messages of an incident are a thread.
func TestThread(t *testing.T) {
	srv := newServer(t)
	s := sender(t, srv, srv.start())
	var got []string
	for _, messageType := range []string{notify.TypeIncidentOpened, notify.TypeIncidentEscalated, notify.TypeIncidentResolved} {
		if r := s.Notify(t.Context(), notifytest.Incident(messageType)); r != (notify.Result{Outcome: notify.Delivered, Status: 250}) {
			t.Fatalf("%+v", r)
		}
		mails := srv.mails()
		if len(mails) != 1 {
			t.Fatalf("%d mails", len(mails))
		}
		one := mails[0]
		m, _ := check(t, one)
		got = append(got, subject(t, m)+" "+m.Header.Get("Message-ID")+" "+m.Header.Get("In-Reply-To")+m.Header.Get("References"))
		one.data = nil
		want := sent{hello: "example.com", user: "spate", pass: password, from: "FROM:<spate@example.com> BODY=8BITMIME", to: []string{"TO:<on-call@example.com>", "TO:<fraud@example.org>"}, encrypted: true}
		if diff := cmp.Diff(want, one, cmp.AllowUnexported(sent{})); diff != "" {
			t.Error(diff)
		}
	}
	const first = "<" + notifytest.IncidentID + "_opened@example.com>"
	want := []string{
		"[spate] card-testing: ip=10.0.0.1 product_id=5 " + first + " ",
		"Re: [spate] card-testing: ip=10.0.0.1 product_id=5 <" + notifytest.IncidentID + "_escalated_1@example.com> " + first + first,
		"Re: [spate] card-testing: ip=10.0.0.1 product_id=5 <" + notifytest.IncidentID + "_resolved@example.com> " + first + first,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestText(t *testing.T) {
	srv := newServer(t)
	s := sender(t, srv, srv.start())
	s.Notify(t.Context(), notifytest.Incident(notify.TypeIncidentEscalated))
	m, text := check(t, srv.mails()[0])
	want := "escalated: critical, card-testing: ip=10.0.0.1 product_id=5\r\n\r\n10.0.0.1 tried 31 cards\r\n\r\nrule: card-testing\r\nkey: ip=10.0.0.1 product_id=5\r\nseverity: critical\r\n" +
		"events: 9007200134741019\r\nwindows: 2\r\nmost in a window: 31\r\nevent time: 2026-09-01 12:00:00 to 12:02:00 UTC\r\nopened: 2026-09-01 12:02:03 UTC\r\nescalated: 2026-09-01 12:03:03 UTC\r\n" +
		"incident: " + notifytest.IncidentID + "\r\n\r\nRunbook: https://runbooks.example/cards\r\nDashboard: https://grafana.example/d/x?from=2026-09-01T12:00:00Z\r\n"
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
	from, err := m.Header.AddressList("From")
	if err != nil || from[0].Name != "Späte, Alerts" || m.Header.Get("Date") != "Tue, 01 Sep 2026 12:03:03 +0000" || m.Header.Get("Auto-Submitted") != "auto-generated" {
		t.Errorf("%v", m.Header)
	}
}

func TestEveryMessage(t *testing.T) {
	srv := newServer(t)
	s := sender(t, srv, srv.start())
	for _, m := range notifytest.Messages() {
		if err := s.Check(m); err != nil {
			t.Error(err)
		}
		if r := s.Notify(t.Context(), m); r.Outcome != notify.Delivered {
			t.Errorf("%s: %+v", m.Type, r)
		}
		parsed, text := check(t, srv.mails()[0])
		if !strings.Contains(subject(t, parsed), "[spate] ") || text == "" {
			t.Errorf("%s: %v %s", m.Type, parsed.Header, text)
		}
	}
}

// TestHostileText: no text of an event makes a header, ends the mail, or is anything but text.
func TestHostileText(t *testing.T) {
	srv := newServer(t)
	s := sender(t, srv, srv.start())
	for _, m := range notifytest.Hostile() {
		letter, err := s.letter(m)
		if err != nil {
			if !errors.Is(err, notify.ErrUnsendable) {
				t.Error(err)
			}
			continue
		}
		parsed, text := check(t, sent{data: letter})
		if strings.ContainsAny(text, "\x00\x1b\u202e") || strings.ContainsAny(subject(t, parsed), "\r\n\x00\u202e") {
			t.Errorf("%q %q", subject(t, parsed), text)
		}
		for line := range strings.SplitSeq(text, "\r\n") {
			if strings.HasPrefix(line, "Bcc:") || line == "." {
				t.Errorf("%q", text)
			}
		}
	}
	// Over the wire, where a line with a dot would end it.
	for _, m := range notifytest.Hostile()[:40] {
		if s.Check(m) != nil {
			continue
		}
		if r := s.Notify(t.Context(), m); r.Outcome != notify.Delivered {
			t.Errorf("%+v", r)
		}
		if mails := srv.mails(); len(mails) != 1 {
			t.Errorf("%d mails", len(mails))
		}
	}
	for _, m := range []notify.Message{{}, {ID: "a\r\nBcc: x", Type: notify.TypeTest}, {ID: "a", Type: notify.TypeOpened, Data: []byte(`{`)}} {
		err := s.Check(m)
		if r := s.Notify(t.Context(), m); !errors.Is(err, notify.ErrUnsendable) || r.Outcome != notify.Unsendable || r.Reason != err.Error() {
			t.Errorf("%v %+v", err, r)
		}
	}
}

func TestWays(t *testing.T) {
	for _, c := range []struct {
		name   string
		server func(*server)
		change func(*Config)
		want   sent
	}{
		{"TLS", func(s *server) { s.implicit = true }, func(c *Config) { c.TLS = TLS }, sent{user: "spate", pass: password, encrypted: true}},
		{"LOGIN", func(s *server) { s.auth = "XOAUTH2 LOGIN" }, func(*Config) {}, sent{user: "spate", pass: password, encrypted: true}},
		{"nobody", func(*server) {}, func(c *Config) { c.Username, c.Password = "", post.Secret{} }, sent{encrypted: true}},
		{"a relay", func(s *server) { s.plain = true }, func(c *Config) { c.TLS, c.Username, c.Password = None, "", post.Secret{} }, sent{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := newServer(t)
			c.server(srv)
			if r := sender(t, srv, srv.start(), c.change).Notify(t.Context(), notifytest.Test()); r != (notify.Result{Outcome: notify.Delivered, Status: 250}) {
				t.Fatalf("%+v", r)
			}
			got := srv.mails()[0]
			if got = (sent{user: got.user, pass: got.pass, encrypted: got.encrypted}); !cmp.Equal(c.want, got, cmp.AllowUnexported(sent{})) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name   string
		server func(*server)
		change func(*Config)
		want   notify.Result
	}{
		{"no STARTTLS", func(s *server) { s.plain = true }, nil, notify.Result{Reason: "STARTTLS: the server does not support it; set tls: tls if the connection is encrypted from the start, as on port 465"}},
		{"certificate", nil, func(c *Config) { c.RootCAs = x509.NewCertPool() }, notify.Result{Reason: "TLS: certificate is not trusted"}},
		{"not TLS", nil, func(c *Config) { c.TLS = TLS }, notify.Result{Reason: "TLS: the response is not TLS; set tls: starttls if the connection begins unencrypted, as on port 587"}},
		{"wrong password, which is quoted", nil, func(c *Config) { c.Password = post.NewSecret("p4ssw0rd of another") },
			notify.Result{Status: 535, Reason: "AUTH: status 535: (the response quotes the URL or a secret, so it is not kept)"}},
		{"no way to log in", func(s *server) { s.auth = "XOAUTH2" }, nil, notify.Result{Reason: "AUTH: the server supports neither PLAIN nor LOGIN"}},
		{"sender", func(s *server) { s.refuse = map[string]string{"MAIL": "550 5.7.1 not from here"} }, nil, notify.Result{Status: 550, Reason: "MAIL: status 550: 5.7.1 not from here"}},
		{"recipient", func(s *server) { s.refuse = map[string]string{"RCPT TO:<fraud": "550 5.1.1 no such user"} }, nil, notify.Result{Status: 550, Reason: "recipient 2 of 2: status 550: 5.1.1 no such user"}},
		{"greylisting", func(s *server) { s.refuse = map[string]string{"RCPT": "450 4.2.0 try again later"} }, nil, notify.Result{Status: 450, Reason: "recipient 1 of 2: status 450: 4.2.0 try again later"}},
		{"content", func(s *server) { s.refuse = map[string]string{".": "554 5.6.0 spam"} }, nil, notify.Result{Status: 554, Reason: "end of DATA: status 554: 5.6.0 spam"}},
		{"closed after the mail", func(s *server) { s.refuse = map[string]string{".": ""} }, nil, notify.Result{Reason: "connection closed without a response"}},
		{"closed", func(s *server) { s.refuse = map[string]string{"MAIL": ""} }, nil, notify.Result{Reason: "connection closed without a response"}},
		{"private", nil, func(c *Config) { c.AllowPrivate = false }, notify.Result{Reason: "address 127.0.0.1 is loopback; to allow it, set SPATE_WEBHOOK_ALLOW_PRIVATE=true or, for an endpoint in the endpoints file, allow_private: true"}},
		{"metadata", nil, func(c *Config) { c.Server = "169.254.169.254:25" }, notify.Result{Reason: "address 169.254.169.254 is link-local, which is never allowed"}},
		{"unencrypted to the public", nil, func(c *Config) { c.Server, c.TLS, c.Username, c.Password = "1.1.1.1:25", None, "", post.Secret{} },
			notify.Result{Reason: "the address is public, and the connection would not be encrypted: set tls to starttls or tls"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := newServer(t)
			if c.server != nil {
				c.server(srv)
			}
			if c.change == nil {
				c.change = func(*Config) {}
			}
			c.want.Outcome = notify.Failed
			if diff := cmp.Diff(c.want, sender(t, srv, srv.start(), c.change).Notify(t.Context(), notifytest.Test())); diff != "" {
				t.Error(diff)
			}
			if n := len(srv.mails()); n != 0 {
				t.Errorf("%d mails", n)
			}
		})
	}
}

func TestBadServers(t *testing.T) {
	srv := newServer(t)
	for _, c := range []struct {
		name    string
		answer  func(*net.TCPConn)
		timeout time.Duration
		want    string
	}{
		{"hangs", func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1)) }, 100 * time.Millisecond, "no response within 100ms"},
		{"hangs after the greeting", func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "220 hi\r\n")
			_, _ = io.Copy(io.Discard, c)
		}, 100 * time.Millisecond, "no response within 100ms"},
		{"resets", func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "220 hi\r\n")
			_, _ = c.Read(make([]byte, 1))
			_ = c.SetLinger(0)
		}, 0, "connection reset"},
		{"no SMTP", func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, 0, "greeting: invalid SMTP response"},
		{"refuses", func(c *net.TCPConn) { _, _ = io.WriteString(c, "554 go away\r\n") }, 0, "greeting: status 554: go away"},
		{"endless line", func(c *net.TCPConn) {
			for err := error(nil); err == nil; {
				_, err = io.WriteString(c, "220"+strings.Repeat("x", 1000))
			}
		}, 0, "greeting: the server sends too much data"},
		{"endless response", func(c *net.TCPConn) {
			for err := error(nil); err == nil; {
				_, err = io.WriteString(c, "220-x\r\n")
			}
		}, 0, "greeting: the server sends too much data"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := sender(t, srv, notifytest.Listen(t, c.answer), func(cfg *Config) { cfg.Timeout = c.timeout }).Notify(t.Context(), notifytest.Test())
			if r.Outcome != notify.Failed || r.Reason != c.want {
				t.Errorf("%+v, want %q", r, c.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := sender(t, srv, notifytest.Listen(t, func(c *net.TCPConn) { cancel(); _, _ = c.Read(make([]byte, 1)) }))
	if r := s.Notify(ctx, notifytest.Test()); r != (notify.Result{Outcome: notify.Failed, Reason: "interrupted before there was a response"}) {
		t.Errorf("%+v", r)
	}
}

func TestConfig(t *testing.T) {
	good := Config{Server: "mail.example.com:587", From: "spate@example.com", To: []string{"a@example.com"}, Username: "u", Password: post.NewSecret(password)}
	for _, c := range []struct {
		change func(*Config)
		says   []string
	}{
		{func(*Config) {}, nil},
		{func(c *Config) { c.Server = "[2001:db8::1]:25" }, nil},
		{func(c *Config) { *c = Config{} }, []string{"smtp: missing", "from: missing", "to: missing"}},
		{func(c *Config) { c.Server = "mail.example.com" }, []string{"smtp: is not host:port"}},
		{func(c *Config) { c.Server = "smtp://u:" + password + "@h:25" }, []string{"smtp: is not host:port"}},
		{func(c *Config) { c.Server = "h:0" }, []string{"smtp: is not host:port"}},
		{func(c *Config) { c.TLS = "ssl" }, []string{"tls: must be starttls, tls or none"}},
		{func(c *Config) { c.TLS = None }, []string{"tls: none is allowed only for servers on this machine", "tls: none would send the password unencrypted"}},
		{func(c *Config) { c.Password = post.Secret{} }, []string{"username: authentication requires both"}},
		{func(c *Config) { c.Username = "" }, []string{"username: authentication requires both"}},
		{func(c *Config) {
			c.From, c.To = "a@b\r\nBcc: c@d", []string{"x", "ä@example.com", "a@example.com, b@example.com"}
		}, []string{"from: is not an e-mail address", "to: address 1", "to: address 2", "to: address 3"}},
		{func(c *Config) { c.To = slices.Repeat(c.To, 51) }, []string{"to: has more than 50"}},
		{func(c *Config) { c.Timeout = -1 }, []string{"timeout: "}},
	} {
		config := good
		c.change(&config)
		suite.Printed(t, config)
		err := config.Validate()
		if (err == nil) != (c.says == nil) {
			t.Errorf("%v, want %q", err, c.says)
		}
		for _, part := range c.says {
			if !strings.Contains(fmt.Sprint(err), part) || strings.Contains(err.Error(), password) {
				t.Errorf("%v, want %q", err, part)
			}
		}
		if s, err := New(config); err == nil {
			suite.Printed(t, s)
			if !strings.HasPrefix(s.Host(), "smtp://") {
				t.Error(s.Host())
			}
		}
	}
}

func TestWords(t *testing.T) {
	for text, lines := range map[string]int{"plain": 1, "Späte": 1, "=?utf-8?q?x?=": 1, strings.Repeat("ä", 50): 3, strings.Repeat("😀", 21): 3, "a\r\nBcc: x": 1, "": 1} {
		got := words(text)
		if n := len(strings.Split(got, "\r\n ")); n != lines {
			t.Errorf("%q: %d lines: %s", text, n, got)
		}
		for line := range strings.SplitSeq(got, "\r\n ") {
			if len(line) > 75 {
				t.Errorf("%d characters: %s", len(line), line)
			}
		}
		back, err := new(mime.WordDecoder).DecodeHeader(strings.ReplaceAll(got, "\r\n", ""))
		if err != nil || back != text {
			t.Errorf("%q, %v; want %q", back, err, text)
		}
	}
}
