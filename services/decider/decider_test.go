package decider

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/decision"
	"spate/shared/decision/topic"
	"spate/shared/kafka"
	"spate/shared/ops"
)

const patience = 20 * time.Second

// bench is a decider on a broker.
type bench struct {
	t      *testing.T
	kafka  kafka.Config
	d      *Decider
	url    string
	status *ops.Status
	cut    func() // ends the broker

	mu    sync.Mutex
	ahead time.Duration // of the decider's clock
}

func newBench(t *testing.T, maxAge time.Duration) *bench {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, kafka: kafka.Config{Brokers: c.ListenAddrs()}, status: &ops.Status{}, cut: sync.OnceFunc(c.Close)}
	t.Cleanup(b.cut)
	b.d, err = New(Config{Kafka: b.kafka, Topic: "decisions", MaxAge: maxAge, Registry: prometheus.NewRegistry(), Status: b.status, Now: b.now})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for pattern, page := range b.d.Handlers() {
		mux.Handle(pattern, page)
	}
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	b.url = srv.URL
	ended := make(chan error, 1)
	go func() { ended <- b.d.Run(t.Context()) }()
	t.Cleanup(func() {
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
	return b
}

func (b *bench) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Add(b.ahead)
}

func (b *bench) later(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead += d
}

// writer makes the topic and returns a writer to it.
func (b *bench) writer() *topic.Writer {
	b.t.Helper()
	cl, err := kgo.NewClient(b.kafka.Options()...)
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	if err := topic.Ensure(b.t.Context(), kadm.NewClient(cl), "decisions", 3, 1); err != nil {
		b.t.Fatal(err)
	}
	w, err := topic.NewWriter(b.kafka, "decisions", slog.New(slog.DiscardHandler))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(w.Close)
	return w
}

func (b *bench) get(path string) (status int, body string, h http.Header) {
	b.t.Helper()
	res, err := http.Get(b.url + path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res.StatusCode, string(text), res.Header
}

// until waits until a page says something.
func (b *bench) until(path, what string) string {
	b.t.Helper()
	var status int
	var body string
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if status, body, _ = b.get(path); strings.Contains(body, what) {
			return body
		}
		<-time.After(5 * time.Millisecond)
	}
	b.t.Fatalf("%s does not say %s, but %d: %s", path, what, status, body)
	return ""
}

func decide(value string, held time.Duration) decision.Decision {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return decision.Decision{Scope: decision.ScopeUser, Value: value, Level: "challenge", Rule: "burst", Since: now, Until: now.Add(held), Incident: "abc"}
}

func TestLookup(t *testing.T) {
	b := newBench(t, 0)
	// Nothing was ever decided, so nobody is flagged.
	b.until("/v1/decisions?scope=username&value=7", "null")
	w := b.writer()
	other := decide("7", 2*time.Hour)
	other.Rule, other.Level = "", "block"
	if err := w.Put(t.Context(), decide("7", time.Hour), other, decide("8&x", time.Hour)); err != nil {
		t.Fatal(err)
	}
	body := b.until("/v1/decisions?scope=Username&value=7", "abc")
	var list []map[string]any
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list) != 2 {
		t.Fatalf("%v: %s", err, body)
	}
	// What CrowdSec requires of a decision: duration, origin, scenario, scope, type, value.
	for i, want := range []map[string]any{{"origin": "manual", "type": "block", "scenario": ""}, {"origin": "spate", "type": "challenge", "scenario": "burst", "uuid": "abc"}} {
		want["scope"], want["value"] = "username", "7"
		for name, v := range want {
			if list[i][name] != v {
				t.Errorf("decision %d: %s is %v, not %v", i, name, list[i][name], v)
			}
		}
		if left, err := time.ParseDuration(list[i]["duration"].(string)); err != nil || left > 2*time.Hour || left < 50*time.Minute {
			t.Errorf("duration %v: %v", left, err)
		}
	}
	if _, body, _ := b.get("/v1/decisions?scope=username&value=7&type=block"); strings.Count(body, `"id"`) != 1 {
		t.Error(body)
	}
	b.until("/v1/decisions?scope=username&value=8%26x", "challenge")
	for path, want := range map[string]int{
		"/v1/decisions":                        http.StatusBadRequest,
		"/v1/decisions?scope=username":         http.StatusBadRequest,
		"/v1/decisions?ip=192.0.2.1":           http.StatusOK,
		"/v1/decisions?scope=ip&value=7":       http.StatusOK,
		"/v1/decisions?scope=username&value=9": http.StatusOK,
	} {
		if got, body, h := b.get(path); got != want || want == http.StatusOK && body != "null\n" || h.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d, %s", path, got, body)
		}
	}
	// Whoever reads an error sees it as it is written, and what there is to ask.
	if _, body, _ := b.get("/v1/decisions"); body != `{"message":"scope and value are required, as in /v1/decisions?scope=username&value=42; or ip, as in ?ip=192.0.2.1"}`+"\n" {
		t.Error(body)
	}
	if status, body, h := b.get("/v1/decision?scope=username&value=7"); status != http.StatusNotFound || h.Get("Content-Type") != "application/json" ||
		body != `{"message":"page not found; the pages are /v1/decisions, /v1/check, /v1/decisions/stream, /healthz, /readyz, /metrics"}`+"\n" {
		t.Errorf("%d, %v: %s", status, h, body)
	}
	resp, err := http.Post(b.url+"/v1/check", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %s, %v", resp.Status, resp.Header)
	}
	// Several values, in their order.
	_, body, _ = b.get("/v1/decisions?scope=username&value=8%26x&value=9&value=7")
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list) != 3 || list[0]["value"] != "8&x" || list[1]["type"] != "block" || list[2]["type"] != "challenge" {
		t.Errorf("%v: %s", err, body)
	}
	if status, body, _ := b.get("/v1/decisions?scope=username" + strings.Repeat("&value=1", maxValues+1)); status != http.StatusBadRequest || !strings.Contains(body, "1001 values") {
		t.Errorf("%d: %s", status, body)
	}
	if status, _, _ := b.get("/v1/decisions?scope=username&value=7&value="); status != http.StatusBadRequest {
		t.Errorf("an empty value: %d", status)
	}
	if status, _, h := b.get("/v1/check?scope=username&value=9&value=7"); status != http.StatusForbidden || h.Get(levelHeader) != "block" {
		t.Errorf("check of two: %d, %v", status, h)
	}
	if status, _, h := b.get("/v1/check?scope=username&value=7"); status != http.StatusForbidden || h.Get(levelHeader) != "block" {
		t.Errorf("check: %d, %v", status, h)
	}
	if status, body, h := b.get("/v1/check?scope=username&value=9"); status != http.StatusNoContent || body != "" || h.Get(levelHeader) != "" {
		t.Errorf("check: %d, %s, %v", status, body, h)
	}
	if status, _, _ := b.get("/v1/check"); status != http.StatusBadRequest {
		t.Errorf("check of nothing: %d", status)
	}
	// Its end, by a person, and by time.
	if err := w.End(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	b.until("/v1/decisions?scope=username&value=7&type=block", "null")
	b.until("/v1/decisions?scope=username&value=7", "challenge")
	b.later(61 * time.Minute)
	b.until("/v1/decisions?scope=username&value=7", "null")
}

func TestStream(t *testing.T) {
	b := newBench(t, 0)
	w := b.writer()
	ip := decide("10.0.0.1", time.Hour)
	ip.Scope = "ip"
	if err := w.Put(t.Context(), decide("7", time.Hour), decide("8", time.Hour), ip); err != nil {
		t.Fatal(err)
	}
	b.until("/v1/decisions/stream?startup=true", "10.0.0.1")
	stream := func(query string) (added, deleted int) {
		t.Helper()
		_, body, _ := b.get("/v1/decisions/stream" + query)
		var c changes
		if err := json.Unmarshal([]byte(body), &c); err != nil || c.New == nil || c.Deleted == nil {
			t.Fatalf("%v: %s", err, body)
		}
		return len(c.New), len(c.Deleted)
	}
	check := func(query string, added, deleted int) {
		t.Helper()
		if a, d := stream(query); a != added || d != deleted {
			t.Errorf("%s: %d new, %d deleted; want %d, %d", query, a, d, added, deleted)
		}
	}
	check("?startup=true", 3, 0)
	check("?startup=false", 0, 0)
	check("", 0, 0)
	check("?startup=true&scopes=ip", 1, 0)
	check("?scopes=ip", 0, 0)
	if err := w.Put(t.Context(), decide("9", time.Hour), decide("7", 2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	b.until("/v1/decisions?scope=username&value=9", "challenge")
	if err := w.End(t.Context(), decide("8", 0)); err != nil {
		t.Fatal(err)
	}
	b.until("/v1/decisions?scope=username&value=8", "null")
	check("", 2, 1) // 9 is new, 7 was prolonged, 8 has ended
	check("?scopes=ip", 0, 0)
	check("?scopes=username,ip", 3, 0) // nobody who was here before
}

// TestBrokerAway: the decider answers from what it knows and says how old that is; beyond the bound, it refuses.
func TestBrokerAway(t *testing.T) {
	for _, maxAge := range []time.Duration{0, 10 * time.Second} {
		t.Run(fmt.Sprint(maxAge), func(t *testing.T) {
			b := newBench(t, maxAge)
			w := b.writer()
			if err := w.Put(t.Context(), decide("7", time.Hour)); err != nil {
				t.Fatal(err)
			}
			b.until("/v1/decisions?scope=username&value=7", "challenge")
			b.cut()
			b.later(30 * time.Second)
			status, body, h := b.get("/v1/decisions?scope=username&value=7")
			var age float64
			if _, err := fmt.Sscan(h.Get(ageHeader), &age); err != nil || age < 29 {
				t.Errorf("age %q: %v", h.Get(ageHeader), err)
			}
			if maxAge == 0 && (status != http.StatusOK || !strings.Contains(body, "challenge")) || maxAge > 0 && (status != http.StatusServiceUnavailable || !strings.Contains(body, "SPATE_DECIDE_MAX_AGE")) {
				t.Errorf("%d, %s", status, body)
			}
		})
	}
}

// TestMalformed: a record that is not a decision is skipped.
func TestMalformed(t *testing.T) {
	b := newBench(t, 0)
	w := b.writer()
	cl, err := kgo.NewClient(b.kafka.Options(kgo.DefaultProduceTopic("decisions"))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, r := range []kgo.Record{{Value: []byte("x")}, {Key: []byte("x"), Value: []byte("{}")}, {Key: []byte(`["a","b","c"]`), Value: []byte(`{"scope":"a"}`)}, {}} {
		if err := cl.ProduceSync(t.Context(), &r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Put(t.Context(), decide("7", time.Hour)); err != nil {
		t.Fatal(err)
	}
	b.until("/v1/decisions?scope=username&value=7", "challenge")
}

func TestValidate(t *testing.T) {
	for _, c := range []Config{{}, {Kafka: kafka.Config{Brokers: []string{"a:1"}}, MaxAge: time.Second}, {Kafka: kafka.Config{Brokers: []string{"a:1"}}, MaxAge: -1}} {
		if c.Validate() == nil {
			t.Errorf("%+v is valid", c)
		}
	}
}

// BenchmarkHTTP answers lookups over connections, as a process does, with the values of one request named. ns/lookup is the time of client and server together;
// with GOMAXPROCS=1 it is that of one core.
func BenchmarkHTTP(b *testing.B) {
	for _, values := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("values=%d", values), func(b *testing.B) {
			d, err := New(Config{Kafka: kafka.Config{Brokers: []string{"a:1"}}, Registry: prometheus.NewRegistry()})
			if err != nil {
				b.Fatal(err)
			}
			now := time.Now()
			for i := range 100_000 {
				d.view.Take(decide(fmt.Sprint(10*i), time.Hour), false, now) // a tenth of those that are asked for
			}
			f := d.follow.(*topic.Follower)
			f.View = decision.NewView() // an empty one is fresh
			f.Nothing()
			srv := httptest.NewServer(d.Handlers()["GET /v1/decisions"])
			defer srv.Close()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				url := srv.URL + "/v1/decisions?scope=username"
				for v := range values {
					url += fmt.Sprintf("&value=%d", (i*values+v)*7919%1_000_000)
				}
				res, err := http.Get(url)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
					b.Fatal(res.Status, err)
				}
				_ = res.Body.Close() // it was read
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*values), "ns/lookup")
		})
	}
}

// TestDocumentedMiddleware: the example in the docs compiles, and does what it says, also when spate is away.
func TestDocumentedMiddleware(t *testing.T) {
	text, err := os.ReadFile("../../docs/decisions.md")
	if err != nil {
		t.Fatal(err)
	}
	_, code, ok := strings.Cut(string(text), "```go\n")
	if !ok {
		t.Fatal("the example is gone")
	}
	code, _, _ = strings.Cut(code, "```")
	b := newBench(t, 0)
	if err := b.writer().Put(t.Context(), decide("7&", time.Hour)); err != nil {
		t.Fatal(err)
	}
	b.until("/v1/decisions?scope=username&value=7%26", "challenge")
	dir := t.TempDir()
	for name, content := range map[string]string{
		"go.mod": "module example\n\ngo 1.26\n",
		"main.go": `package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"time"
)

` + code + `
func main() {
	for _, base := range []string{os.Args[1], "http://127.0.0.1:1"} {
		for _, user := range []string{"7&", "8"} {
			h := Guard(http.NotFoundHandler(), func(r *http.Request) string { return Flagged(r.Context(), http.DefaultClient, base, "token", user) })
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			fmt.Print(w.Code, " ")
		}
	}
}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", ".", b.url)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "303 404 404 404 " {
		t.Errorf("%v: %s", err, out)
	}
}
