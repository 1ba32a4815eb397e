package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/embedded"
	"spate/services/web"
	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/format"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/revision/topic"
	"spate/shared/rule"
	"spate/tests/harness"
)

// consoleOf starts a pipeline with a console, and returns the console's address and a client for the broker.
func consoleOf(t *testing.T) (address string, cl *kgo.Client) {
	t.Helper()
	address, cl, _ = pipelineOf(t, nil)
	return address, cl
}

// pipelineOf is consoleOf with settings that may be changed. It also returns where the broker and the database are. The router has begun: rules that are applied are not in force for
// all windows.
func pipelineOf(t *testing.T, change func(*embedded.Config)) (address string, cl *kgo.Client, info embedded.Info) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	cfg := embedded.Config{
		Rule: embedded.Rule{
			Events: format.Config{Fields: activity.DefaultFields()}, Window: 10 * time.Second, Lateness: time.Second, IdleTimeout: time.Second, MaxAhead: time.Minute,
			OpenTransactionTimeout: 75 * time.Second, Threshold: 5, Critical: 10, Transitions: []alert.State{alert.Opened, alert.Raised, alert.Closed},
		},
		State: t.TempDir(), Listen: "127.0.0.1:0", HTTP: "127.0.0.1:0", Topic: "activity", Log: log,
	}
	if change != nil {
		change(&cfg)
	}
	f := consoleFlags{Console: "127.0.0.1:0"}
	address, err := f.beside(&cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	up, done := make(chan embedded.Info, 1), make(chan error, 1)
	go func() {
		_, err := embedded.Up(ctx, cfg, func(i embedded.Info) { up <- i })
		done <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("up: %v", err)
		}
	})
	select {
	case info = <-up:
	case err := <-done:
		done <- err
		t.Fatalf("up: %v", err)
	}
	if cl, err = kgo.NewClient(kgo.SeedBrokers(info.Brokers), kgo.DefaultProduceTopic("activity")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	begun := topic.NewReader(kafka.Config{Brokers: kafka.ParseBrokers(info.Brokers)}, kadm.NewClient(cl), kafka.NamesFor("activity"), &rule.Set{})
	harness.Eventually(t, time.Minute, "the router has begun", func() bool {
		ok, err := begun.Begun(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return ok
	})
	return address, cl, info
}

// visit asks the console, and returns status and body.
func visit(t *testing.T, method, address string, form url.Values, header ...string) (int, string) {
	t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(t.Context(), method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		if r.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(b) + answer.Header.Get("Location")
}

// TestConsoleAPI holds the description of the API against what the console answers for a running pipeline: every address, every member, in both directions.
func TestConsoleAPI(t *testing.T) {
	bare(t)
	address, cl := consoleOf(t)
	const user = "9007199254740993" // beyond 2^53
	now := time.Now()
	for i := range 12 {
		value := fmt.Sprintf(`{"user_id":%s,"event_type":"view","product_id":%d,"txn_timestamp":%q}`, user, i, now.Add(time.Duration(i)*time.Millisecond).UTC().Format(time.RFC3339Nano))
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	var id string
	harness.Eventually(t, 30*time.Second, "an incident is listed", func() bool {
		_, body := visit(t, http.MethodGet, address+"/api/incidents", nil)
		var page struct{ Items []struct{ ID string } }
		if json.Unmarshal([]byte(body), &page) != nil || len(page.Items) == 0 {
			return false
		}
		id = page.Items[0].ID
		return true
	})
	if code, body := visit(t, http.MethodPost, address+"/incidents/"+id+"/mark", url.Values{"mark": {"attack"}, "note": {"a bot"}, "by": {"Ann"}}); code != http.StatusSeeOther {
		t.Fatalf("mark: %d %s", code, body)
	}
	rule := "-- rule: twice\nINSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '5' SECOND), user_id HAVING COUNT(*) > 1;"
	if code, body := visit(t, http.MethodPost, address+"/studio", url.Values{"do": {"save"}, "statement": {rule}}); code != http.StatusSeeOther {
		t.Fatalf("save: %d %s", code, body)
	}
	harness.Eventually(t, 30*time.Second, "figures of the broker are there", func() bool {
		_, body := visit(t, http.MethodGet, address+"/api/health", nil)
		return strings.Contains(body, `"partition":"3"`) && !strings.Contains(body, `"events_per_second":null`)
	})

	_, text := visit(t, http.MethodGet, address+"/assets/openapi.yaml", nil)
	doc, err := harness.ParseOpenAPI(text)
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string][]string{
		"/api/incidents":             {"", "?state=open&severity=critical&key=" + user + "&mark=attack&since=1h", "?rule=nobody"},
		"/api/incidents/{id}":        {id, id[:8]},
		"/api/alerts":                {"", "?incident=" + id, "?user=" + user},
		"/api/why":                   {"?id=" + id, "?key=user_id=" + user, "?key=user_id=1&rule=burst&at=2026-01-01T00:00:00Z"},
		"/api/keys/{column}/{value}": {"user_id/" + user, "user_id/nobody?rule=burst"},
		"/api/rules":                 {""},
		"/api/health":                {""},
		"/api/check":                 {rule, "SELECT user_id, COUNT(*) FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), userid"},
		"/api/stream":                nil, // TestConsoleStream
	}
	paths := doc["paths"].(map[string]any)
	for path := range asked {
		if paths[path] == nil {
			t.Errorf("openapi.yaml has no %s", path)
		}
	}
	for path := range paths {
		wanted, ok := asked[path]
		if !ok {
			t.Errorf("openapi.yaml has %s, which is not asked here", path)
		}
		for _, q := range wanted {
			base, _, _ := strings.Cut(path, "{")
			method, where, form := http.MethodGet, address+base+q, url.Values(nil)
			if path == "/api/check" {
				method, where, form = http.MethodPost, address+path, url.Values{"statement": {q}}
			}
			code, body := visit(t, method, where, form)
			if code != http.StatusOK {
				t.Errorf("%s: %d %.300s", where, code, body)
				continue
			}
			for _, fault := range doc.Faults(method, path, body) {
				t.Errorf("%s: %s", where, fault)
			}
			if strings.Contains(q, user) && !strings.Contains(body, user) {
				t.Errorf("%s: the user is not exact: %.300s", where, body)
			}
		}
	}
	for _, wrong := range []string{"/api/incidents?state=shut", "/api/incidents?after=x", "/api/alerts?since=x", "/api/why", "/api/incidents/zz", "/api/incidents/00000000", "/api/why?id=00000000", "/api/nothing"} {
		code, body := visit(t, http.MethodGet, address+wrong, nil)
		var e struct{ Message string }
		if err := json.Unmarshal([]byte(body), &e); err != nil || code < 400 || code > 499 && !strings.Contains(wrong, "why?id") || e.Message == "" {
			t.Errorf("%s: %d %s", wrong, code, body)
		}
	}
	// The rule that was saved is in shadow mode, and everything else is as it was.
	if _, body := visit(t, http.MethodGet, address+"/api/rules", nil); !strings.Contains(body, `"name":"twice","mode":"shadow"`) || !strings.Contains(body, `"name":"burst","mode":"live"`) {
		t.Errorf("rules: %s", body)
	}
	if _, body := visit(t, http.MethodGet, address+"/incidents/"+id, nil); !strings.Contains(body, "attack by <bdi>Ann</bdi>") || !strings.Contains(body, "SQLite ") || !strings.Contains(body, user) {
		t.Errorf("the page of the incident: %s", body)
	}
}

// TestConsoleVisitors: who may come in, and what for.
func TestConsoleVisitors(t *testing.T) {
	bare(t)
	t.Setenv("SPATE_CONSOLE_TOKEN", "0123456789abcdef0123")
	address, _ := consoleOf(t)
	bearer := []string{"Authorization", "Bearer 0123456789abcdef0123"}
	for _, c := range []struct {
		name, method, path string
		form               url.Values
		header             []string
		code               int
		says               string
	}{
		{"without a token", "GET", "/", nil, nil, 303, "/login?next=%2F"},
		{"API without a token", "GET", "/api/incidents", nil, nil, 401, "A token is required"},
		{"stream without a token", "GET", "/api/stream", nil, nil, 401, "A token is required"},
		{"write without a token", "POST", "/silences/x/end", url.Values{}, nil, 401, "A token is required"},
		{"another token", "GET", "/api/incidents", nil, []string{"Authorization", "Bearer 0123456789abcdef0124"}, 401, "A token is required"},
		{"the token", "GET", "/api/incidents", nil, bearer, 200, `"items":[]`},
		{"a wrong login", "POST", "/login", url.Values{"token": {"guess"}}, nil, 401, "The token is wrong."},
		{"a login", "POST", "/login", url.Values{"token": {"0123456789abcdef0123"}, "next": {"/rules"}}, nil, 303, "/rules"},
		{"a login that leads elsewhere with a tab", "POST", "/login", url.Values{"token": {"0123456789abcdef0123"}, "next": {"/\t/evil.example"}}, nil, 303, "/"},
		{"a login that is too large", "POST", "/login", url.Values{"token": {strings.Repeat("x", 2<<20)}}, nil, 400, "cannot be read"},
		{"a statement that is too large", "POST", "/api/check", url.Values{"statement": {strings.Repeat("x", 2<<20)}}, bearer, 400, "cannot be read"},
		{"an id that nobody has", "GET", "/api/why?id=00000000", nil, bearer, 404, "no alert or incident has the ID"},
		{"a column that no rule has", "GET", "/api/why?key=a%3D1", nil, bearer, 400, "a"},
		{"a silence that does not exist", "POST", "/silences/nothing/end", url.Values{}, bearer, 404, "silence not found"},
		{"a login that leads elsewhere", "POST", "/login", url.Values{"token": {"0123456789abcdef0123"}, "next": {"//evil.example"}}, nil, 303, "/"},
		{"health needs none", "GET", "/healthz", nil, nil, 200, "ok"},
		{"a stranger's name", "GET", "/", nil, append([]string{"Host", "evil.example"}, bearer...), 403, "not served under the host name"},
		{"localhost", "GET", "/api/incidents", nil, append([]string{"Host", "localhost:1234"}, bearer...), 200, `"items":[]`},
		{"a stranger's form", "POST", "/silences/x/end", url.Values{}, append([]string{"Sec-Fetch-Site", "cross-site"}, bearer...), 403, "a page on another site"},
		{"a stranger's form, older browser", "POST", "/silences/x/end", url.Values{}, append([]string{"Origin", "https://evil.example"}, bearer...), 403, "a page on another site"},
		{"no such page", "GET", "/nothing", nil, bearer, 404, "This page does not exist"},
		{"out of the assets", "GET", "/assets/%2e%2e/frame.html", nil, bearer, 404, ""},
		{"no such method", "DELETE", "/incidents", nil, bearer, 404, "This page does not exist"},
	} {
		code, body := visit(t, c.method, address+c.path, c.form, c.header...)
		if code != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %.300s", c.name, code, body)
		}
	}
	t.Setenv("SPATE_CONSOLE_TOKEN", "short")
	if code, _, errs := spate("console", "--listen", "127.0.0.1:0"); code != ExitUsage || !strings.Contains(errs, "SPATE_CONSOLE_TOKEN: a token must have at least 16") {
		t.Errorf("a short token: exit code %d %s", code, errs)
	}
	for _, c := range [][]string{
		{"--listen", "0.0.0.0:8088"}, {"--listen", "8088"}, {"--token-file", filepath.Join(t.TempDir(), "none")}, {"--trusted-header", "a b"},
	} {
		t.Setenv("SPATE_CONSOLE_TOKEN", "")
		if code, out, errs := spate(append([]string{"console"}, c...)...); code != ExitUsage || !strings.Contains(errs, strings.TrimPrefix(c[0], "--")) {
			t.Errorf("console %v: exit code %d %s%s", c, code, out, errs)
		}
	}
}

// TestConsoleWithout: with the broker and the database away, every page answers, says what is missing, and shows the rest.
func TestConsoleWithout(t *testing.T) {
	bare(t)
	p := &consoleParts{topic: "activity", log: slog.New(slog.DiscardHandler), initial: initialFlags{10 * time.Second, 5, 10}}
	st := lazyStore{open: func() (incidentReader, error) { return nil, fmt.Errorf("connect to the database: refused") }}
	p.store, p.rules = st.get, func(context.Context) (*rulesLog, error) { return nil, fmt.Errorf("connect to the broker: refused") }
	web := httptest.NewServer(web.New(p.config("activity")).Handler())
	defer web.Close()
	server := web.URL
	for path, says := range map[string][]string{
		"/":                       {"connect to the database: refused", "Open incidents"},
		"/incidents":              {"connect to the database: refused"},
		"/alerts":                 {"connect to the database: refused"},
		"/incidents/0123456789":   {"connect to the database: refused"},
		"/keys?key=user_id%3D42":  {"connect to the database: refused", "connect to the broker: refused", "user_id=42"},
		"/rules":                  {"connect to the broker: refused"},
		"/deliveries":             {"connect to the database: refused"},
		"/health":                 {"The database cannot be reached: connect to the database: refused"},
		"/studio":                 {"Flink SQL"},
		"/search?q=42":            {"/keys?key=42"},
		"/keys?key=%3D":           {"is not column=value"},
		"/incidents?after=1-1-1":  {"is not a page of this list"},
		"/incidents?state=closed": {"state"},
	} {
		code, body := visit(t, http.MethodGet, server+path, nil)
		for _, s := range says {
			if !strings.Contains(strings.ToLower(body), strings.ToLower(s)) {
				t.Errorf("%s: %d without %q: %s", path, code, s, body)
			}
		}
	}
	if code, body := visit(t, http.MethodGet, server+"/api/incidents", nil); code != http.StatusServiceUnavailable || !strings.Contains(body, "refused") {
		t.Errorf("API: %d %s", code, body)
	}
}

// TestConsoleStream: changes are passed on at once, and not more often than twice a second.
func TestConsoleStream(t *testing.T) {
	bare(t)
	address, cl := consoleOf(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+"/api/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if typ := answer.Header.Get("Content-Type"); typ != "text/event-stream" {
		t.Errorf("content type %q", typ)
	}
	buf := make([]byte, 4096)
	var got bytes.Buffer
	read := func(events int) {
		t.Helper()
		for strings.Count(got.String(), "event: changed\n") < events {
			n, err := answer.Body.Read(buf)
			if err != nil {
				t.Fatalf("%v after %q", err, got.String())
			}
			got.Write(buf[:n])
		}
	}
	read(1)
	for range 6 {
		value := fmt.Sprintf(`{"user_id":7,"txn_timestamp":%q}`, time.Now().UTC().Format(time.RFC3339Nano))
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	read(3)
}

// TestTop: what top shows of a running pipeline, for people and programs.
func TestTop(t *testing.T) {
	bare(t)
	_, cl, info := pipelineOf(t, nil)
	for range 8 {
		value := fmt.Sprintf(`{"user_id":42,"product_id":7,"txn_timestamp":%q}`, time.Now().UTC().Format(time.RFC3339Nano))
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	top := func(want int, args ...string) string {
		t.Helper()
		code, out, errs := spate(append([]string{"top", "--brokers", info.Brokers, "--database-url", info.Database, "--last", "1h"}, args...)...)
		if code != want {
			t.Fatalf("top %v: exit code %d\n%s%s", args, code, out, errs)
		}
		return out + errs
	}
	harness.Eventually(t, 30*time.Second, "the incident is shown", func() bool { return strings.Contains(top(ExitOK, "--rounds", "1"), "1 incident open") })
	says(t, top(ExitOK, "--rounds", "1"), "? events/s", "most: 42 (8)")
	var l look
	lines := strings.Split(strings.TrimSpace(top(ExitOK, "--rounds", "2", "--every", "1s", "--by", "product_id", "--json")), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &l); err != nil || len(lines) != 2 {
		t.Fatalf("%v: %q", err, lines)
	}
	if l.Rate == nil || len(l.Hottest) != 1 || l.Hottest[0] != (hot{"7", 8}) || len(l.Incidents) != 1 || len(l.Troubles) != 0 {
		t.Errorf("%+v", l)
	}
	for _, field := range []string{"product_id", "customer,product_id", "customer.id", `customer\.id`} { // the built-in table has the user as user_id
		want := "most: 7 (8)"
		if !strings.Contains(field, "product_id") {
			want = "events not counted yet"
		}
		says(t, top(ExitOK, "--rounds", "1", "--user-field", field), want)
	}
	says(t, top(ExitUsage, "--rounds", "1", "--by", "nothing"), "nothing")
	says(t, top(ExitUsage, "--every", "1ms"), "every: 1ms is below 1s")
	says(t, top(ExitFailed, "--rounds", "1", "--topic", "other"), "topic other does not exist")
}

// TestConsoleProxy: behind a proxy that names visitors, whoever has no name, or two, stays out.
func TestConsoleProxy(t *testing.T) {
	bare(t)
	p := &consoleParts{topic: "activity", log: slog.New(slog.DiscardHandler)}
	p.store, p.rules = func() (incidentReader, error) { return nil, errNoDatabase }, func(context.Context) (*rulesLog, error) { return nil, errNoDatabase }
	cfg := p.config("activity")
	cfg.TrustedHeader = "X-Forwarded-User"
	served := httptest.NewServer(web.New(cfg).Handler())
	defer served.Close()
	if code, body := visit(t, http.MethodGet, served.URL+"/studio", nil); code != http.StatusUnauthorized || !strings.Contains(body, "X-Forwarded-User") {
		t.Errorf("without a name: %d %s", code, body)
	}
	if code, body := visit(t, http.MethodGet, served.URL+"/studio", nil, "X-Forwarded-User", "ann"); code != http.StatusOK || !strings.Contains(body, "ann") {
		t.Errorf("with a name: %d %s", code, body)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, served.URL+"/studio", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header["X-Forwarded-User"] = []string{"root", "ann"}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("with two names: %d", answer.StatusCode)
	}
}

// TestStudioSaves: what is saved is a shadow rule, and changes nothing that is in force.
func TestStudioSaves(t *testing.T) {
	bare(t)
	address, _ := consoleOf(t)
	save := func(name, text string) (int, string) {
		return visit(t, http.MethodPost, address+"/studio", url.Values{"do": {"save"}, "name": {name}, "statement": {text}})
	}
	rule := func(n int) string {
		return fmt.Sprintf("SELECT user_id, COUNT(*) AS n FROM activity\r\nGROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > %d", n)
	}
	for n, c := range []struct {
		name, text, says string
		code             int
	}{
		{"", rule(1), "name: missing; enter one", 400},
		{"first", rule(1), "/rules", 303},
		{"ends_in_a_comment", rule(2) + "\n-- the end", "/rules", 303},
		{"with_semicolon", rule(3) + ";\n", "/rules", 303},
		{"last", rule(4), "/rules", 303},
		{"first", rule(5), "two rules have the name first", 400},
		{"", "-- rule: alive\n-- mode: live\n" + rule(6), "mode", 400},
		{"", "CREATE TABLE activity (user_id STRING, txn_timestamp TIMESTAMP(3), WATERMARK FOR txn_timestamp AS txn_timestamp);\n-- rule: other_table\nINSERT INTO alerts " + rule(7), "remove CREATE TABLE", 400},
		{"no_window", "SELECT user_id FROM activity", "window", 400},
	} {
		if code, body := save(c.name, c.text); code != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%d: %d %s", n, code, body[max(strings.Index(body, "<main"), 0):])
		}
	}
	_, body := visit(t, http.MethodGet, address+"/api/rules", nil)
	var got struct {
		Rules []struct{ Name, Mode, Text string }
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range got.Rules {
		names = append(names, r.Name+" "+r.Mode)
		if strings.Contains(r.Text, "\r") {
			t.Errorf("%s: %q", r.Name, r.Text)
		}
	}
	if want := []string{"burst live", "first shadow", "ends_in_a_comment shadow", "with_semicolon shadow", "last shadow"}; !slices.Equal(names, want) {
		t.Errorf("rules: %q, not %q", names, want)
	}
}

// TestStudioRuns: what is run has bounds, and says what it adds.
func TestStudioRuns(t *testing.T) {
	bare(t)
	address, cl := consoleOf(t)
	for range 8 {
		value := fmt.Sprintf(`{"user_id":42,"txn_timestamp":%q}`, time.Now().UTC().Format(time.RFC3339Nano))
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	run := func(text string) string {
		_, body := visit(t, http.MethodPost, address+"/studio", url.Values{"do": {"run"}, "statement": {text}}, "Spate-Fragment", "1")
		return body
	}
	says(t, run("SELECT user_id, COUNT(*) AS n FROM activity GROUP BY 1"), "1 row", "<td><bdi>42</bdi></td><td><bdi>8</bdi></td>")
	says(t, run("SELECT usr_id FROM activity"), "no such column: usr_id", "did you mean user_id")
	harness.Eventually(t, 30*time.Second, "the incident is known", func() bool {
		return strings.Contains(run("SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id"), "1 key; 1 has an incident from a live rule in this period, so the rule adds no keys")
	})
	// What it would find with other limits, and when.
	says(t, run("SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 1"), "With another limit: <bdi>COUNT(*) &gt; …</bdi>", `<td class="n">1 (this rule)</td>`)
	says(t, run("SELECT event_type, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), event_type"), "No live rule has the key event_type")
	// A table with other fields than the events have finds nothing; the page says why.
	says(t, run("CREATE TABLE o (uid BIGINT, seen TIMESTAMP(3), WATERMARK FOR seen AS seen);\nINSERT INTO alerts SELECT uid, COUNT(*) AS n FROM o GROUP BY TUMBLE(seen, INTERVAL '10' SECOND), uid"), "0 rows; 8 of 8 records read", "; 8 invalid")
	// Cells are cut when they come.
	if body := run("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<600) SELECT hex(zeroblob(100000))||i AS x FROM c"); len(body) > 500*1000 || !strings.Contains(body, "The first 500 rows") {
		t.Errorf("a page of %d bytes", len(body))
	}
	// More than two at once are refused.
	endless := "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<3000000) SELECT count(*) FROM c"
	busy := make(chan string, 4)
	for range 4 {
		go func() { busy <- run(endless) }()
	}
	refused := 0
	for range 4 {
		if strings.Contains(<-busy, "2 statements are already running") {
			refused++
		}
	}
	if refused < 1 {
		t.Error("four statements ran at once")
	}
}

// TestStudioFollows: a rule that runs live shows a row when its window closes, and ends with the page that shows it.
func TestStudioFollows(t *testing.T) {
	bare(t)
	address, cl := consoleOf(t)
	const rule = "SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '2' SECOND), user_id HAVING COUNT(*) > 2"
	// More than there are places: each ends when its page does.
	for n := range liveAtOnce + 1 {
		user := fmt.Sprintf("<i>%d", n)
		ctx, leave := context.WithTimeout(t.Context(), time.Minute)
		var sending sync.WaitGroup
		sending.Go(func() { // again and again: on a busy machine, the first may come so late that their window is closed
			for ops.Pause(ctx, 500*time.Millisecond) {
				value := fmt.Sprintf(`{"user_id":%q,"txn_timestamp":%q}`, user, time.Now().UTC().Format(time.RFC3339Nano)) // one window
				for range 3 {
					_ = cl.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr() // that nothing comes is seen below
				}
			}
		})
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, address+"/studio", strings.NewReader(url.Values{"do": {"live"}, "statement": {rule}, "since": {"1m"}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if n%2 == 0 {
			r.Header.Set("Spate-Fragment", "1")
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(answer.Body)
		wanted := []string{"The rule is running."}
		if n == liveAtOnce {
			wanted = append(wanted, "<td><bdi>"+html.EscapeString(user)+"</bdi></td><td><bdi>")
		}
		for _, text := range wanted {
			for found := false; !found; found = strings.Contains(lines.Text(), text) {
				if !lines.Scan() {
					t.Fatalf("page %d ended without %q: %v", n, text, lines.Err())
				}
			}
		}
		leave()
		sending.Wait()
		_ = answer.Body.Close() // it was left
	}
	for text, says := range map[string]string{"SELECT COUNT(*) AS n FROM activity": "a statement without a window cannot run live", strings.Replace(rule, "user_id,", "usr_id,", 1): "usr_id"} {
		if code, body := visit(t, http.MethodPost, address+"/studio", url.Values{"do": {"live"}, "statement": {text}}); code != http.StatusBadRequest || !strings.Contains(body, says) {
			t.Errorf("%s: %d %s", text, code, body)
		}
	}
}
