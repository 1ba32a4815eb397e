package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/incident"
	"spate/shared/kafka"
	"spate/shared/notify/webhook"
	"spate/shared/testport"
	"spate/tests/harness"
)

// world is a pipeline in one process, its console, and somebody who is notified.
type world struct {
	t       *testing.T
	up      *harness.Process
	state   string
	brokers string
	console string // its address, as a browser has it
	client  *kgo.Client
	told    *receiver
}

// receiver takes messages, or wants none.
type receiver struct {
	url string

	mu   sync.Mutex
	gone bool
	ids  map[string][]int // the status of each answer, by webhook-id
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{ids: map[string][]int{}}
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	r.url = srv.URL
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	code := http.StatusNoContent
	if r.gone {
		code = http.StatusGone
	}
	id := req.Header.Get("webhook-id")
	r.ids[id] = append(r.ids[id], code)
	w.WriteHeader(code)
}

func (r *receiver) turn(gone bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = gone
}

func (r *receiver) answers(id string) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ids[id])
}

var consoleLine = regexp.MustCompile(`(?m)^ *console +(http://\S+)$`)

func start(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, state: filepath.Join(t.TempDir(), "state"), brokers: testport.Reserve(t), told: newReceiver(t)}
	env := []string{
		"SPATE_BROKERS=", "SPATE_WINDOW=2s", "SPATE_LATENESS=1s", "SPATE_IDLE_TIMEOUT=1s", "SPATE_MAX_AHEAD=1s",
		"SPATE_WEBHOOK_URL=" + w.told.url, "SPATE_WEBHOOK_SECRET=" + webhook.NewSecret(), "SPATE_WEBHOOK_ALLOW_PRIVATE=true",
	}
	w.up = harness.Spate(t, "up", env, "up", "--state", w.state, "--listen", w.brokers, "--console", "127.0.0.1:0").Start()
	harness.Eventually(t, time.Minute, "spate up says where its console is", func() bool { return consoleLine.Match(w.up.Output()) })
	w.console = string(consoleLine.FindSubmatch(w.up.Output())[1])
	w.client = harness.Connect(t, w.brokers)
	return w
}

// event is an event of a user; user and the values of fields are JSON.
func event(user string, at time.Time, fields map[string]string) []byte {
	var b bytes.Buffer
	b.WriteString(`{"user_id":` + user + `,"txn_timestamp":"` + at.UTC().Format("2006-01-02T15:04:05.000Z") + `"`)
	for name, value := range fields {
		b.WriteString("," + quoted(name) + ":" + value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// burst sends n events of a user, all within one window.
func (w *world) burst(t *testing.T, user string, n int, fields map[string]string) {
	t.Helper()
	at := time.Now()
	var records []*kgo.Record
	for i := range n {
		of := map[string]string{"event_type": `"click"`, "product_id": strconv.Itoa(i)}
		for name, value := range fields {
			of[name] = value
		}
		records = append(records, &kgo.Record{Topic: kafka.DefaultTopic, Key: []byte(user), Value: event(user, at, of)})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := w.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// spate runs a command on the pipeline and returns what it printed.
func (w *world) spate(t *testing.T, args ...string) []byte {
	t.Helper()
	path, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), w.env()...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, errs.Bytes())
	}
	return out
}

// env is what other processes need to find the pipeline.
func (w *world) env() []string {
	return []string{"SPATE_BROKERS=" + w.brokers, "SPATE_DATABASE_URL=" + filepath.Join(w.state, "spate.db")}
}

// lines reads JSON objects, as spate's commands print them with --json.
func lines[T any](t *testing.T, out []byte) (list []T) {
	t.Helper()
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var x T
		if err := d.Decode(&x); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		list = append(list, x)
	}
	return list
}

// incidents asks the console, as a program does.
func (w *world) incidents(t *testing.T) []incident.Incident {
	t.Helper()
	var list struct{ Items []incident.Incident }
	resp, err := http.Get(w.console + "/api/incidents")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// incidentOf waits until a user, in JSON, has an incident under a rule.
func (w *world) incidentOf(t *testing.T, user, rule string) (found incident.Incident) {
	t.Helper()
	want := decoded(t, user)
	harness.Eventually(t, 30*time.Second, "an incident of user "+user+" under "+rule, func() bool {
		for _, i := range w.incidents(t) {
			if key, ok := decoded(t, string(i.Key)).(map[string]any); ok && i.Rule == rule && key["user_id"] == want {
				found = i
				return true
			}
		}
		return false
	})
	return found
}

// decoded is what JSON says, however it is written; numbers keep their digits.
func decoded(t *testing.T, text string) (v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// consoleOf starts a console of its own and returns its address, with 127.0.0.1 for every address.
func (w *world) consoleOf(t *testing.T, name string, env []string, args ...string) (*harness.Process, string) {
	t.Helper()
	p := harness.Spate(t, name, env, append([]string{"console"}, args...)...).Start()
	harness.Eventually(t, time.Minute, "the console says where it is", func() bool { return servedAt.Match(p.Output()) })
	return p, strings.Replace(string(servedAt.FindSubmatch(p.Output())[1]), "[::]", "127.0.0.1", 1)
}

var servedAt = regexp.MustCompile(`"serving the console".*"address":"([^"]+)"`)
