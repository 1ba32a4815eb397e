package browser

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"spate/shared/testport"
	"spate/shared/testskip"
	"spate/tests/harness"
)

// ask sends a request as it is written, because Go's client would mend it, and returns status and body.
func ask(t *testing.T, origin, request string) (int, string) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(origin, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second)) // the read fails otherwise
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	var body []byte                                             // never closed: that would read a stream to its end, and the connection is closed
	if resp.Header.Get("Content-Type") != "text/event-stream" { // it would not end
		body, _ = io.ReadAll(resp.Body)
	}
	if l := resp.Header.Get("Location"); l != "" {
		body = []byte(l)
	}
	return resp.StatusCode, string(body)
}

// testToken: a console that others can reach lets in who has the token, and nobody else.
func (w *world) testToken(t *testing.T) {
	const token = "a-token-of-the-tests-0123456789"
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, at := w.consoleOf(t, "console with a token", w.env(), "--listen", "0.0.0.0:0", "--token-file", file)
	host := strings.TrimPrefix(at, "http://")
	_, port, _ := net.SplitHostPort(host)
	const bearer = "Authorization: Bearer " + token + "\r\n"
	for _, tt := range []struct {
		name, line, headers string
		code                int
		says                string
	}{
		{"a page leads to the login", "GET /incidents?rule=x HTTP/1.1", "", 303, "/login?next=%2Fincidents%3Frule%3Dx"},
		{"the API", "GET /api/incidents HTTP/1.1", "", 401, "token"},
		{"the API with another token", "GET /api/incidents HTTP/1.1", "Authorization: Bearer a-token-of-the-tests-012345678\r\n", 401, "token"},
		{"the API with the token", "GET /api/incidents HTTP/1.1", bearer, 200, "items"},
		{"the stream", "GET /api/stream HTTP/1.1", "", 401, "token"},
		{"the stream with the token", "GET /api/stream HTTP/1.1", bearer, 200, ""},
		{"a live part", "GET / HTTP/1.1", "Spate-Fragment: 1\r\n", 401, "token"},
		{"a form", "POST /deliveries/resend HTTP/1.1", "", 401, "token"},
		{"a made-up session", "GET /api/incidents HTTP/1.1", "Cookie: spate-session=0\r\n", 401, "token"},
		{"assets are no secret", "GET /assets/app.css HTTP/1.1", "", 200, ":root"},
		{"health", "GET /healthz HTTP/1.1", "", 200, "ok"},
		{"a stranger's page cannot write", "POST /deliveries/resend HTTP/1.1", bearer + "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n", 403, "another site"},
		{"nor from another origin of an old browser", "POST /deliveries/resend HTTP/1.1", bearer + "Origin: https://evil.example\r\n", 403, "another site"},
		{"nor from another port of this host", "POST /deliveries/resend HTTP/1.1", bearer + "Origin: http://127.0.0.1:1\r\nSec-Fetch-Site: same-site\r\n", 403, "another site"},
		{"nor log in", "POST /login HTTP/1.1", "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n", 403, "another site"},
		{"nor without an origin that can be named", "POST /logout HTTP/1.1", bearer + "Origin: null\r\n", 403, "another site"},
		{"to leave for elsewhere", "GET /login?next=//evil.example HTTP/1.1", "", 200, `value="/"`},
		{"to leave for elsewhere, with a backslash", `GET /login?next=/%5Cevil.example HTTP/1.1`, "", 200, `value="/"`},
		{"a path that climbs", "GET /assets/../ HTTP/1.1", "", 400, ""},
		{"a path that climbs, in code", "GET /assets/%2e%2e/%2e%2e/go.mod HTTP/1.1", "", 400, ""},
		{"a path that climbs, in code with the slash", "GET /assets/..%2f..%2fgo.mod HTTP/1.1", "", 400, ""},
		{"a path with a backslash", `GET /assets/..\..\go.mod HTTP/1.1`, "", 400, ""},
		{"a path with two slashes", "GET //evil.example/ HTTP/1.1", "", 0, ""},
		{"a name in the API that climbs", "GET /api/incidents/..%2f..%2fetc HTTP/1.1", bearer, 404, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, body := ask(t, at, tt.line+"\r\nHost: "+host+"\r\n"+tt.headers+"Content-Length: 0\r\n\r\n")
			t.Logf("%d %.100s", code, body)
			climbs := tt.code == 400
			switch {
			case tt.code == 0 && code >= 300 && code < 400 && strings.HasPrefix(body, "//"):
				t.Errorf("it leads to %s", body)
			case climbs && code != 404 && code != 400 && !(code >= 301 && code <= 308 && strings.HasPrefix(body, "/") && !strings.HasPrefix(body, "//")):
				t.Errorf("status %d: %.200s", code, body)
			case tt.code != 0 && !climbs && code != tt.code:
				t.Errorf("status %d, want %d: %.200s", code, tt.code, body)
			}
			if !strings.Contains(body, tt.says) {
				t.Errorf("it does not say %q: %.300s", tt.says, body)
			}
		})
	}
	for name, code := range map[string]int{"evil.example": 403, "evil.example:" + port: 403, "localhost:" + port: 200, "127.0.0.1": 200, "": 400, "[::1]:" + port: 200, "127.0.0.1.evil.example": 403} {
		if got, body := ask(t, at, "GET /api/rules HTTP/1.1\r\nHost: "+name+"\r\n"+bearer+"\r\n"); got != code && !(name == "" && got == 403) {
			t.Errorf("as %q: status %d, want %d: %.200s", name, got, code, body)
		}
	}

	p := open(t, at)
	p.allow("status of 401")
	p.visit("/rules")
	if got := p.url(); got != "/login?next=%2Frules" {
		t.Errorf("the page is %s", got)
	}
	p.inEachLook("login")
	p.look(false, wide, high)
	if problems := p.walkFrom("login"); problems != nil {
		t.Error(problems)
	}
	p.fill("input[name=token]", "a-token-of-somebody-else")
	p.press("Enter")
	p.sees("[role=alert]", "The token is wrong")
	p.fill("input[name=token]", token)
	p.click("form.login button")
	p.until("it goes on to the page", "location.pathname === '/rules'")
	p.sees("h1", "Rules")
	p.visit("/")
	p.sees("h1", "Now")
	if got := is[string](p, "document.cookie"); got != "" {
		t.Errorf("the script sees the cookie %s", got)
	}
	p.click("form[action='/logout'] button")
	p.until("it asks again", "location.pathname === '/login'")
	p.visit("/api/incidents")
	p.sees("body", "token")

	// Without a token, it is for this machine only.
	none := harness.Spate(t, "console for all", w.env(), "console", "--listen", "0.0.0.0:0").Start()
	if err := none.Wait(30 * time.Second); err == nil || !strings.Contains(string(none.Output()), "need a token") {
		t.Errorf("a console for everybody: %v: %s", err, none.Output())
	}
}

// walkFrom is walk on a page whose first field has the focus already.
func (p *tab) walkFrom(name string) []string {
	p.t.Helper()
	is[any](p, "document.activeElement.blur()")
	p.visit(p.url())
	if !is[bool](p, "document.activeElement.name === 'token'") {
		return []string{name + ": the focus is not on the token"}
	}
	p.press("Tab")
	if !is[bool](p, "document.activeElement.tagName === 'BUTTON' && document.activeElement.matches(':focus-visible')") {
		return []string{name + ": Tab does not lead from the token to the button"}
	}
	return nil
}

// allow lets errors in the browser's console pass that have a text.
func (p *tab) allow(text string) { p.allowed = regexp.MustCompile(regexp.QuoteMeta(text)) }

// residentMB is the memory that a process has, in MiB.
func residentMB(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		testskip.Missing(t, "memory is read from /proc: %v", err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no VmRSS: %s", b)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n / 1024
}

// testStreams: pages that are open, and pages that read nothing, cost little, and do not keep others from being told.
func (w *world) testStreams(t *testing.T) {
	p, at := w.consoleOf(t, "console with many pages", w.env(), "--listen", "127.0.0.1:0")
	host := strings.TrimPrefix(at, "http://")
	if code, _ := ask(t, at, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); code != 200 {
		t.Fatalf("status %d", code)
	}
	before := residentMB(t, p.PID())
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	stream := func(reads bool) (*bufio.Reader, int) {
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		if !reads {
			_ = c.(*net.TCPConn).SetReadBuffer(1) // the kernel has a minimum of its own
		}
		if _, err := io.WriteString(c, "GET /api/stream HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if !reads {
			return nil, 0
		}
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second)) // a read that waits for ever fails the test late
		r := bufio.NewReader(c)
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		code, err := strconv.Atoi(strings.Fields(line)[1])
		if err != nil {
			t.Fatal(err)
		}
		return r, code
	}
	for range 100 { // they read nothing
		stream(false)
	}
	var readers []*bufio.Reader
	for range 100 {
		r, code := stream(true)
		if code == http.StatusServiceUnavailable { // those that read nothing have not all been counted before
			break
		}
		if code != http.StatusOK {
			t.Fatalf("status %d", code)
		}
		readers = append(readers, r)
	}
	if len(readers) != 100 {
		t.Errorf("%d pages could be opened beside a hundred, want 100", len(readers))
	}
	if _, code := stream(true); code != http.StatusServiceUnavailable {
		t.Errorf("page 201: status %d, want 503", code)
	}
	w.burst(t, `"streams"`, 7, nil)
	for n, r := range readers {
		for told := 0; told < 2; { // the first says where it stands
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("page %d of %d is not told: %v", n, len(readers), err)
			}
			if strings.HasPrefix(line, "event: changed") {
				told++
			}
		}
	}
	after := residentMB(t, p.PID())
	t.Logf("%d MiB with no page open, %d MiB with 200, of which 100 read nothing", before, after)
	if after > before+64 {
		t.Errorf("200 pages take %d MiB", after-before)
	}
	for _, c := range open {
		c.Close()
	}
	open = nil
	harness.Eventually(t, 30*time.Second, "there is room again", func() bool {
		_, code := stream(true)
		return code == http.StatusOK
	})
}

// testNoDatabase: without the database, each page says so, and shows what the log knows.
func (w *world) testNoDatabase(t *testing.T) {
	i := w.incidentOf(t, `"marked"`, "burst")
	env := []string{"SPATE_BROKERS=" + w.brokers, "SPATE_DATABASE_URL=postgres://spate:secret@" + testport.Reserve(t) + "/spate"}
	_, at := w.consoleOf(t, "console without a database", env, "--listen", "127.0.0.1:0")
	p := open(t, at)
	p.allow("status of 503")
	const away = "connection refused"
	for _, tt := range []struct {
		path, shows string
		code        int
	}{
		{"/", "Events not counted yet", 200}, {"/incidents", "Filter", 503}, {"/incidents/" + i.ID, "Incident", 503}, {"/alerts", "Filter", 503}, {"/alerts/" + i.AlertID, "Alert", 503},
		{"/keys?key=user_id%3Dmarked", "Flagged", 200}, {"/rules", "from_the_studio", 200}, {"/deliveries", "Deliveries", 503}, {"/health", "Event partitions", 200},
	} {
		if code := p.visit(tt.path); code != tt.code {
			t.Errorf("%s: status %d, want %d", tt.path, code, tt.code)
		}
		p.sees("main", away)
		p.sees("main", tt.shows)
		if strings.Contains(p.text("body"), "secret") {
			t.Errorf("%s shows the password", tt.path)
		}
	}
	if code := p.visit("/studio"); code != 200 {
		t.Errorf("the studio: status %d", code)
	}
	p.visit("/")
	p.shot("without-database")
	p.serious("without the database")
}

// testNoBroker: a console whose broker has gone, and one that never had it, answer with what the database knows.
func (w *world) testNoBroker(t *testing.T) {
	i := w.incidentOf(t, `"marked"`, "burst")
	_, had := w.consoleOf(t, "console that had a broker", w.env(), "--listen", "127.0.0.1:0")
	seen := open(t, had)
	seen.allow("status of 503")
	seen.visit("/incidents/" + i.ID)
	seen.sees(".answer h2", "Flagged")
	w.up.Kill()
	_, never := w.consoleOf(t, "console without a broker", w.env(), "--listen", "127.0.0.1:0")
	fresh := open(t, never)
	fresh.allow("status of 503")
	for name, p := range map[string]*tab{"had it": seen, "never had it": fresh} {
		for _, tt := range []struct {
			path, shows, misses string
			code                int
		}{
			{"/", "Open incidents", "No figures since", 200}, {"/incidents", "marked", "", 200}, {"/incidents/" + i.ID, "stolen cards", "connection refused", 200}, {"/alerts", "marked", "", 200},
			{"/alerts/" + i.AlertID, "Window", "connection refused", 200}, {"/keys?key=user_id%3Dmarked", "Incidents about this key", "connection refused", 200}, {"/studio", "Save as shadow", "", 200},
			{"/deliveries", "webhook", "", 200}, {"/health", "Health", "No figures since", 200}, {"/rules", "Rules", "", 0},
		} {
			began := time.Now()
			if code := p.visit(tt.path); code != tt.code && tt.code != 0 {
				t.Errorf("%s: %s: status %d, want %d", name, tt.path, code, tt.code)
			}
			t.Logf("%s: %s after %v", name, tt.path, time.Since(began).Round(time.Millisecond))
			p.sees("main", tt.shows)
			if tt.misses != "" {
				p.sees("main", tt.misses)
			}
		}
	}
	fresh.visit("/")
	fresh.shot("without-broker")
}
