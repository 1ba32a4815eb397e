package containers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/verifier"
	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/notify"
	"spate/shared/testport"
	"spate/shared/testskip"
	"spate/tests/harness"
)

// What docker-compose.yml and the Dockerfile are made of. Where no registry can be reached, the images may be stand-ins under these names;
// that of Redpanda then is Apache Kafka behind Redpanda's command line. A test on it says nothing of Redpanda itself.
const (
	redpandaImage = "redpandadata/redpanda:v25.1.1"
	postgresImage = "postgres:17"
)

var buildImages = []string{"golang:1.26", "gcr.io/distroless/static-debian12:nonroot"}

// firstCall bounds the time from docker compose up, with the images there, to the first webhook that the receiver verified. On a machine that
// does nothing else it is some 16 s; here others run beside it.
const firstCall = 5 * time.Minute

// needsDocker skips a test where there is no engine, or where it lacks an image. It pulls none: that may be hundreds of megabytes.
func needsDocker(t *testing.T, images ...string) {
	t.Helper()
	for _, args := range [][]string{{"info", "--format", "{{.ServerVersion}}"}, {"compose", "version"}} {
		if out, err := docker(t.Context(), 30*time.Second, nil, args...); err != nil {
			testskip.Missing(t, "docker %s does not work: %v: %s", args[0], err, harness.Tail(out, 1))
		}
	}
	for _, image := range images {
		if _, err := docker(t.Context(), 30*time.Second, nil, "image", "inspect", "--format", "{{.Id}}", image); err != nil {
			testskip.Missing(t, "the image %s does not exist locally; run docker pull %s", image, image)
		}
	}
}

// docker runs a command in the root of the repository and returns what it wrote; what went wrong is at the end of that.
func docker(ctx context.Context, within time.Duration, env []string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Dir, cmd.Env = "../..", env
	cmd.WaitDelay = time.Second // a plugin may hold on to the pipes
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("not within %v", within)
		}
		return append(out.Bytes(), problem.Bytes()...), err
	}
	return out.Bytes(), nil
}

// composed is docker-compose.yml as it is, under a name and on ports of its own.
type composed struct {
	t       *testing.T
	project string
	env     []string
	ports   map[string]string // by the setting that has them
}

func compose(t *testing.T, settings ...string) *composed {
	t.Helper()
	c := &composed{t: t, project: fmt.Sprintf("spate-test-%d", time.Now().UnixNano()), ports: map[string]string{}}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "SPATE_") && !strings.HasPrefix(kv, "COMPOSE_") { // whose settings are not the test's
			c.env = append(c.env, kv)
		}
	}
	for _, name := range []string{"KAFKA", "POSTGRES", "ROUTER", "DETECTOR", "ALERTER", "RECEIVER", "CONSOLE"} {
		_, port, err := net.SplitHostPort(testport.Reserve(t))
		if err != nil {
			t.Fatal(err)
		}
		c.ports[name] = port
		c.env = append(c.env, "SPATE_"+name+"_PORT="+port)
	}
	// No file .env of whoever runs the test; settings win in their order.
	c.env = append(append(c.env, "COMPOSE_ENV_FILES=/dev/null"), settings...)
	return c
}

// command runs docker compose with arguments, or fails the test.
func (c *composed) command(within time.Duration, args ...string) []byte {
	c.t.Helper()
	out, err := c.try(c.t.Context(), within, args...)
	if err != nil {
		c.t.Fatalf("docker compose %s: %v\n%s", strings.Join(args, " "), err, harness.Tail(out, 15))
	}
	return out
}

func (c *composed) try(ctx context.Context, within time.Duration, args ...string) ([]byte, error) {
	return docker(ctx, within, c.env, append([]string{"compose", "--ansi", "never", "-p", c.project}, args...)...)
}

// up starts what does not run and returns when all of it is healthy.
func (c *composed) up() (took time.Duration) {
	c.t.Helper()
	began := time.Now()
	c.command(3*time.Minute, "up", "--no-build", "--detach", "--wait")
	return time.Since(began)
}

// remove leaves nothing behind: containers, networks, data. A test that has failed tells first what the services said.
func (c *composed) remove() {
	ctx := context.WithoutCancel(c.t.Context())
	if c.t.Failed() {
		ps, _ := c.try(ctx, 30*time.Second, "ps", "--all")
		for id := range strings.FieldsSeq(string(c.unhealthy(ctx))) {
			why, _ := docker(ctx, 10*time.Second, c.env, "inspect", "--format", `{{.Name}}: {{range .State.Health.Log}}{{println .Output}}{{end}}`, id)
			_, _ = docker(ctx, 10*time.Second, c.env, "kill", "--signal", "QUIT", id) // where it hangs is then in its log
			time.Sleep(time.Second)
			logs, _ := docker(ctx, 10*time.Second, c.env, "logs", "--tail", "600", id)
			c.t.Logf("--- unhealthy: %s\n%s", why, logs)
		}
		logs, _ := c.try(ctx, 30*time.Second, "logs", "--no-color", "--tail", "12")
		c.t.Logf("--- containers, and the last lines of their logs:\n%s\n%s", ps, logs)
	}
	if out, err := c.try(ctx, 2*time.Minute, "down", "--volumes", "--remove-orphans", "--timeout", "2"); err != nil {
		c.t.Errorf("docker compose down -v: %v: %s", err, harness.Tail(out, 5))
	}
}

// unhealthy returns the ids of the containers that are.
func (c *composed) unhealthy(ctx context.Context) []byte {
	ids, _ := docker(ctx, 10*time.Second, c.env, "ps", "--quiet", "--filter", "health=unhealthy", "--filter", "label=com.docker.compose.project="+c.project)
	return ids
}

// call is a line of the receiver.
type call struct {
	At       time.Time `json:"at"`
	ID       string    `json:"webhook_id"`
	Type     string    `json:"type"`
	Verified bool      `json:"verified"`
	Reason   string    `json:"reason"`
}

// calls are those that the receiver printed in all its lives: the log is the container's, and a container that is killed keeps it.
func (c *composed) calls() (all []call) {
	c.t.Helper()
	out := c.command(30*time.Second, "logs", "--no-color", "--no-log-prefix", "receiver")
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		// What the receiver says to people is between its lines, and versions of compose begin each with an escape sequence, asked or not.
		at := bytes.IndexByte(lines.Bytes(), '{')
		if at < 0 {
			continue
		}
		var l call
		if err := json.Unmarshal(lines.Bytes()[at:], &l); err != nil || l.At.IsZero() {
			c.t.Fatalf("the receiver printed %q: %v", lines.Bytes(), err)
		}
		all = append(all, l)
	}
	if err := lines.Err(); err != nil {
		c.t.Fatal(err)
	}
	return all
}

// verified are the ids of the messages that the receiver got and found to be signed.
func (c *composed) verified() map[string]bool {
	c.t.Helper()
	ids := map[string]bool{}
	for _, l := range c.calls() {
		switch {
		case l.Verified && notify.IsDigest(l.Type):
			c.t.Fatalf("%s is a digest, which stands for messages that this test counts", l.ID)
		case l.Verified:
			ids[l.ID] = true
		default:
			c.t.Errorf("the receiver refused a call: %s", l.Reason)
		}
	}
	return ids
}

// stored are the alerts in Postgres: state by id.
func (c *composed) stored() map[string]string {
	c.t.Helper()
	states := map[string]string{}
	for _, row := range c.query("SELECT id, state FROM alert") {
		states[row[0]] = row[1]
	}
	return states
}

// toTell are the messages about the incidents in Postgres, and windows the alerts that these are made up of.
func (c *composed) toTell() (messages map[string]bool, windows int) {
	c.t.Helper()
	messages = map[string]bool{}
	for _, row := range c.query("SELECT id, escalations, resolved_at IS NOT NULL, windows FROM incident") {
		messages[row[0]+"_opened"] = true
		if row[1] == "1" {
			messages[row[0]+"_escalated_1"] = true
		}
		if row[2] == "t" {
			messages[row[0]+"_resolved"] = true
		}
		n, err := strconv.Atoi(row[3])
		if err != nil {
			c.t.Fatal(err)
		}
		windows += n
	}
	return messages, windows
}

// query returns the rows of a query of Postgres.
func (c *composed) query(text string) (rows [][]string) {
	c.t.Helper()
	out := c.command(30*time.Second, "exec", "-T", "postgres", "psql", "-U", "spate", "-d", "spate", "-tA", "-F", " ", "-c", text)
	for line := range strings.Lines(string(out)) {
		rows = append(rows, strings.Split(strings.TrimSpace(line), " "))
	}
	return rows
}

// told are the messages that the topic of alerts stands for, and the newest state of each alert in it.
func (c *composed) told() (messages map[string]bool, states map[string]string, records int64) {
	c.t.Helper()
	messages, states = map[string]bool{}, map[string]string{}
	records = harness.ReadAll(c.t, c.brokers(), kafka.NamesFor(kafka.DefaultTopic).Alerts, func(r *kgo.Record) {
		a, err := alert.Parse(r.Value)
		if err != nil {
			c.t.Fatal(err)
		}
		messages[notify.IDOf(a)] = true
		if a.State.Rank() > alert.State(states[a.ID]).Rank() {
			states[a.ID] = string(a.State)
		}
	})
	return messages, states, records
}

func (c *composed) brokers() string { return "127.0.0.1:" + c.ports["KAFKA"] }

// metric is the sum of a metric's series at a service; false if it has none or does not answer.
func (c *composed) metric(service, name string) (sum float64, ok bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+c.ports[strings.ToUpper(service)]+"/metrics", http.NoBody)
	if err != nil {
		c.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, false
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		rest, found := strings.CutPrefix(lines.Text(), name)
		if !found || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			c.t.Fatal(err)
		}
		sum, ok = sum+v, true
	}
	return sum, ok
}

// TestCompose runs docker-compose.yml as a newcomer does, then kills its services one after the other while traffic flows. At the end
// the topic of alerts, Postgres and what the receiver verified must agree on every alert, and the alerts with a plain count of the events.
func TestCompose(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes; -short is set")
	}
	t.Parallel()
	needsDocker(t, slices.Concat([]string{redpandaImage, postgresImage}, buildImages)...)
	// No partition may count as silent while a service is away: then the alerts depend on the events alone and can be counted anew.
	c := compose(t, "SPATE_IDLE_TIMEOUT=40s")
	t.Cleanup(c.remove)

	began := time.Now()
	c.command(10*time.Minute, "build", "--quiet", "router")
	size, err := docker(t.Context(), 10*time.Second, nil, "image", "inspect", "--format", "{{.Size}}", "spate:local")
	if err != nil {
		t.Fatalf("docker image inspect: %v: %s", err, size)
	}
	t.Logf("built in %v; the image has %s bytes", time.Since(began).Round(time.Second), bytes.TrimSpace(size))

	began = time.Now()
	healthy := c.up()
	var first call
	harness.Eventually(t, max(firstCall-time.Since(began), time.Second), "the receiver has verified a call", func() bool {
		calls := c.calls()
		if len(calls) > 0 {
			first = calls[0]
		}
		return len(calls) > 0
	})
	took := first.At.Sub(began)
	t.Logf("all healthy after %v, first alert at the receiver after %v", healthy.Round(100*time.Millisecond), took.Round(100*time.Millisecond))
	if !first.Verified {
		t.Errorf("the first call, after %v: %+v", took, first)
	}

	for _, service := range []string{"redpanda", "postgres", "router", "detector", "alerter", "receiver", "simulator"} {
		before := len(c.stored())
		c.command(30*time.Second, "kill", "--signal", "KILL", service)
		again := c.up()
		t.Logf("killed %s; healthy again after %v", service, again.Round(100*time.Millisecond))
		harness.Eventually(t, 2*time.Minute, "alerts arrive after "+service+" was killed", func() bool { return len(c.stored()) > before })
	}

	c.command(time.Minute, "stop", "simulator")
	is := func(service, name string, want float64) bool {
		v, ok := c.metric(service, name)
		return ok && v == want
	}
	harness.Eventually(t, 2*time.Minute, "all that was sent is read, and all windows are closed", func() bool {
		return is("router", "spate_router_lag_events", 0) && is("detector", "spate_detector_lag_batches", 0) &&
			is("detector", "spate_detector_open_windows", 0) && is("alerter", "spate_alerter_lag_records", 0)
	})
	messages, states, records := c.told()
	t.Logf("%d alerts; %d records of them in the topic, %d told again", len(states), records, records-int64(len(messages)))
	for id, state := range states {
		if state != string(alert.Closed) {
			t.Errorf("alert %s is %s for ever", id, state)
		}
	}
	if stored := c.stored(); !maps.Equal(states, stored) {
		t.Errorf("Postgres has %d alerts, the topic %d; %s", len(stored), len(states), difference(states, stored))
	}
	// A message of which two tries fell into the receiver's absence would be due again after five minutes; somebody asks for it now. What was
	// under way when the alerter was killed comes by itself, after a minute.
	c.command(30*time.Second, "exec", "-T", "alerter", "/spate", "deliveries", "recover", "--since", "1h")
	deadline := time.Now().Add(2 * time.Minute)
	for poll := time.NewTicker(2 * time.Second); ; <-poll.C {
		want, windows := c.toTell()
		got := c.verified()
		if maps.Equal(got, want) && windows == len(states) {
			t.Logf("the receiver verified all %d messages about the incidents of %d alerts", len(got), windows)
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("the receiver verified %d messages; there are %d, about the incidents of %d alerts of %d; %s", len(got), len(want), windows, len(states), difference(want, got))
			break
		}
	}
	// What is told is right as well: a count of the events by other code than the engine's.
	ref := harness.Reference(t, c.brokers(), kafka.DefaultTopic, verifier.Rule{Window: 10 * time.Second, Lateness: 10 * time.Second, Threshold: 5})
	var found []alert.Record
	harness.ReadAll(t, c.brokers(), kafka.NamesFor(kafka.DefaultTopic).Alerts, func(r *kgo.Record) {
		a, err := alert.Parse(r.Value)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, a)
	})
	if d := verifier.Compare(ref.Result(), found); !d.Exact() {
		t.Errorf("of %d events: %+v", ref.In, d)
	} else {
		t.Logf("%d events, %d alerts: as counted", ref.In, d.Rows)
	}

	c.command(2*time.Minute, "down")
	t.Logf("down and up: healthy after %v", c.up().Round(100*time.Millisecond))
	for id, state := range c.stored() {
		if states[id] == state {
			delete(states, id)
		}
	}
	if len(states) > 0 {
		t.Errorf("down without -v has lost or changed %d alerts", len(states))
	}
	if now, _, _ := c.told(); len(now) < len(messages) {
		t.Errorf("down without -v has lost %d of %d messages in the topic", len(messages)-len(now), len(messages))
	}
}

// difference names a few keys that one map has and the other has not, or has otherwise.
func difference[V comparable](want, got map[string]V) string {
	var lacks, extra []string
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			lacks = append(lacks, fmt.Sprintf("%s (%v, not %v)", k, v, g))
		}
	}
	for k, v := range got {
		if _, ok := want[k]; !ok {
			extra = append(extra, fmt.Sprintf("%s (%v)", k, v))
		}
	}
	slices.Sort(lacks)
	slices.Sort(extra)
	return fmt.Sprintf("%d lacking, as %v; %d extra, as %v", len(lacks), lacks[:min(3, len(lacks))], len(extra), extra[:min(3, len(extra))])
}

// TestComposeFiles: what Prometheus and Grafana are given speaks of metrics that there are. Neither is started: this is what can be known
// without their images.
func TestComposeFiles(t *testing.T) {
	if _, err := docker(t.Context(), 30*time.Second, nil, "compose", "version"); err == nil { // it needs no engine
		if out, err := docker(t.Context(), 30*time.Second, nil, "compose", "--profile", "observability", "config", "--quiet"); err != nil {
			t.Errorf("docker compose config: %v: %s", err, out)
		}
	}
	defined := definedMetrics(t)
	if !defined["spate_router_events_total"] || !defined["spate_detector_open_windows"] {
		t.Fatalf("the metrics of the program are not found, only %v", slices.Sorted(maps.Keys(defined)))
	}
	known := func(name string) bool {
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && defined[base] {
				return true
			}
		}
		return false
	}
	files := map[string]int{"prometheus/rules.yml": 10, "grafana/dashboards/spate.json": 15} // at least as many metrics are in it
	for name, least := range files {
		b, err := os.ReadFile(filepath.Join("../../deploy/compose", name))
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(name) == ".json" && !json.Valid(b) {
			t.Errorf("%s is not valid JSON", name)
		}
		named := map[string]bool{}
		for _, m := range metricName.FindAllString(string(b), -1) {
			named[m] = true
		}
		if len(named) < least {
			t.Errorf("%s names %d metrics", name, len(named))
		}
		for m := range named {
			if !known(m) {
				t.Errorf("%s names %s, which no code defines", name, m)
			}
		}
	}
}

var (
	metricName    = regexp.MustCompile(`\bspate_[a-z_]+[a-z]\b`)
	metricDefined = regexp.MustCompile(`(?:Name: |NewDesc\()"(spate_[a-z_]+)"`)
)

// definedMetrics are the names that the program's code gives to metrics.
func definedMetrics(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, root := range []string{"../../services", "../../shared"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			for _, m := range metricDefined.FindAllSubmatch(b, -1) {
				names[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}
