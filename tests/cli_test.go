package tests

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spate/shared/testport"
	"spate/tests/harness"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestDemo holds the demo to what it promises; how fast its alerts come is printed, not asserted.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 seconds; -short is set")
	}
	t.Parallel()
	var res struct {
		In        int64              `json:"events_in"`
		Counted   int64              `json:"counted"`
		Late      int64              `json:"late"`
		Invalid   int64              `json:"invalid"`
		Alerts    int                `json:"alerts"`
		Missing   *int               `json:"missing"`
		Wrong     *int               `json:"wrong"`
		Extra     *int               `json:"extra"`
		Recall    map[string]float64 `json:"recall"`
		Precision float64            `json:"precision"`
		Latency   map[string]float64 `json:"alert_latency_ms"`
	}
	out := run(t, 0, "demo", "--json")
	t.Logf("%s", out)
	if err := json.Unmarshal(out, &res); err != nil {
		t.Fatal(err)
	}
	if res.Missing == nil || res.Wrong == nil || res.Extra == nil || *res.Missing+*res.Wrong+*res.Extra != 0 {
		t.Error("the alerts are not those of the reference")
	}
	if res.In == 0 || res.In != res.Counted+res.Late+res.Invalid || res.Alerts == 0 {
		t.Error("the accounts do not add up")
	}
	for _, kind := range []string{"burst", "bulk_order", "flood", "giant"} {
		if res.Recall[kind] != 1 {
			t.Errorf("recall of %s is %v", kind, res.Recall[kind])
		}
	}
	if res.Precision < 0.99 || res.Latency["p99"] < res.Latency["p50"] || res.Latency["p50"] <= 0 {
		t.Errorf("precision %v, latency %v", res.Precision, res.Latency)
	}
}

// TestSettingsAreExplained: what is wrong is named, with what would be right, and the exit code is that of a wrong command line.
func TestSettingsAreExplained(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		says []string
	}{
		{[]string{"up", "--window", "0s", "--threshold", "0", "--lateness=-1s"}, []string{"window: 0s", "threshold: 0", "lateness: -1s"}},
		{[]string{"route", "--brokers", "nowhere"}, []string{`brokers: "nowhere" is not host:port`}},
		{[]string{"detect", "--transitions", "opened"}, []string{"transitions: closed is missing"}},
		{[]string{"route", "--mode", "kafka"}, []string{"brokers: missing, but mode kafka requires them"}},
		{[]string{"up", "--mode", "aws"}, []string{"mode: this command needs Kafka"}},
		{[]string{"up", "--user-field", ""}, []string{"user field"}},
		{[]string{"up", "--listen", "127.0.0.1:99999"}, []string{`listen: "99999" is not a port`}},
		{[]string{"up", "--listen", "0.0.0.0:9092"}, []string{"listens on 127.0.0.1 only"}},
		{[]string{"route", "--format", "avro"}, []string{"schema-registry-url: missing"}},
		{[]string{"up", "--format", "xml"}, []string{"--format must be one of"}},
		{[]string{"simulate", "--speed", "0"}, []string{"events, duration: one of them is required"}},
		{[]string{"simulate", "--to", "sqs"}, []string{"--to must be one of"}},
		{[]string{"simulate", "--to", "kinesis", "--stream", "a b", "--rate=-1"}, []string{`stream: "a b" is not a valid stream name`, "rate: -1"}},
		{[]string{"simulate", "--mode", "aws", "--stream", "a b"}, []string{`stream: "a b" is not a valid stream name`}},
		{[]string{"simulate", "--spread-by-user"}, []string{"spread-by-user: applies only to Kinesis"}},
		{[]string{"simulate", "s3://Bucket/key"}, []string{`file: "s3://Bucket/key" is not s3://bucket/key`}},
		{[]string{"simulate", "--put", "bucket/key", "-o", "x.csv"}, []string{`put: "bucket/key" is not s3://bucket/key`, "file: missing; --put uploads a file", "put, out: only one of them"}},
		{[]string{"simulate", "s3://bucket/key", "--put", "s3://bucket/other"}, []string{"file: --put uploads a local file"}},
		{[]string{"simulate", "-n", "1", "--to", "kinesis"}, []string{"region: missing; set AWS_REGION"}},
		{[]string{"verify"}, []string{"file: missing. Event file"}},
		{[]string{"nonsense"}, []string{"unexpected argument nonsense"}},
		{[]string{"demo", "--log-level", "loud"}, []string{`log-level: "loud"`}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			env := []string{"SPATE_BROKERS=", "AWS_REGION=", "AWS_DEFAULT_REGION=", "AWS_PROFILE=", "AWS_CONFIG_FILE=" + os.DevNull}
			p := harness.Spate(t, "spate", env, c.args...).Start()
			err := p.Wait(20 * time.Second)
			var e *exec.ExitError
			if !errors.As(err, &e) || e.ExitCode() != 2 {
				t.Errorf("exit: %v, want 2", err)
			}
			for _, s := range c.says {
				if !strings.Contains(string(p.Output()), s) {
					t.Errorf("it does not say %q: %s", s, p.Output())
				}
			}
		})
	}
}

// TestFilesThatAreNotThere: a failure at work, not of the command line.
func TestFilesThatAreNotThere(t *testing.T) {
	for _, args := range [][]string{
		{"replay", "-q", filepath.Join(t.TempDir(), "none.csv")},
		{"verify", "-q", filepath.Join(t.TempDir(), "none.csv")},
		{"up", "--state", "/proc/none/here", "--listen", testport.Reserve(t)},
	} {
		p := harness.Spate(t, "spate", []string{"SPATE_BROKERS="}, args...).Start()
		if err := p.Wait(20 * time.Second); err == nil || p.Running() {
			t.Errorf("%v: %v", args, err)
		}
		if !strings.Contains(string(p.Output()), "spate: ") {
			t.Errorf("%v: %s", args, p.Output())
		}
	}
}

// TestUser asks for a user while its window is open, through the consumer group of the detectors.
func TestUser(t *testing.T) {
	t.Parallel()
	state, addr := t.TempDir(), testport.Reserve(t)
	env := []string{"SPATE_BROKERS="}
	up := harness.Spate(t, "up", env, "up", "--state", state, "--listen", addr, "--max-ahead", "0").Start()
	harness.Eventually(t, 20*time.Second, "up is ready", func() bool { code, _ := up.Get("/readyz"); return code == http.StatusOK })
	cl := harness.Connect(t, addr)
	for i := range 7 {
		for _, user := range []string{`42`, `"42"`, `"müller & söhne"`} {
			if user == `"42"` && i > 2 {
				continue
			}
			r := &kgo.Record{Topic: "activity", Value: []byte(`{"user_id":` + user + `,"event_time":"2030-01-01T00:00:05Z"}`)}
			if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	type answer struct {
		User    json.RawMessage `json:"user_id"`
		Windows []struct {
			Count int64  `json:"count"`
			Alert string `json:"alert_id"`
		} `json:"windows"`
	}
	ask := func(id string) (out []answer) {
		d := json.NewDecoder(strings.NewReader(string(run(t, 0, "user", "--json", "--brokers", addr, id))))
		for d.More() {
			var a answer
			if err := d.Decode(&a); err != nil {
				t.Fatal(err)
			}
			out = append(out, a)
		}
		return out
	}
	harness.Eventually(t, 10*time.Second, "both users named 42 are known", func() bool {
		a := ask("42")
		return len(a) == 2 && string(a[0].User) == "42" && len(a[0].Windows) == 1 && a[0].Windows[0].Count == 7 && a[0].Windows[0].Alert != "" &&
			string(a[1].User) == `"42"` && len(a[1].Windows) == 1 && a[1].Windows[0].Count == 3 && a[1].Windows[0].Alert == ""
	})
	if a := ask("müller & söhne"); len(a) != 1 || len(a[0].Windows) != 1 || a[0].Windows[0].Count != 7 {
		t.Errorf("%+v", a)
	}
	if a := ask("nobody"); len(a) != 1 || len(a[0].Windows) != 0 {
		t.Errorf("%+v", a)
	}
}
