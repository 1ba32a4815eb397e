package tests

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/verifier"
	"spate/shared/kafka"
	"spate/shared/store/sqlite"
)

// malformed are records that are no events, by what is wrong with them. i makes them differ.
var malformed = []struct {
	name  string
	value func(i int) []byte
}{
	{"empty", func(int) []byte { return []byte{} }},
	{"tombstone", func(int) []byte { return nil }},
	{"blank", func(int) []byte { return []byte(" \n\t") }},
	{"text", func(i int) []byte { return fmt.Appendf(nil, "hello %d", i) }},
	{"number", func(i int) []byte { return fmt.Appendf(nil, "%d", i) }},
	{"array", func(i int) []byte { return fmt.Appendf(nil, "[%d]", i) }},
	{"cut off", func(i int) []byte { return fmt.Appendf(nil, `{"user_id":%d,"event_time":"2019-`, i) }},
	{"trailing", func(i int) []byte { return fmt.Appendf(nil, `{"user_id":%d,"event_time":"2019-11-01T00:00:00Z"}}`, i) }},
	{"no user", func(int) []byte { return []byte(`{"event_time":"2019-11-01T00:00:00Z"}`) }},
	{"null user", func(int) []byte { return []byte(`{"user_id":null,"event_time":"2019-11-01T00:00:00Z"}`) }},
	{"object user", func(i int) []byte {
		return fmt.Appendf(nil, `{"user_id":{"id":%d},"event_time":"2019-11-01T00:00:00Z"}`, i)
	}},
	{"user no UTF-8", func(int) []byte { return []byte("{\"user_id\":\"\xff\xfe\",\"event_time\":\"2019-11-01T00:00:00Z\"}") }},
	{"endless user", func(int) []byte {
		return []byte(`{"user_id":"` + strings.Repeat("u", 300) + `","event_time":"2019-11-01T00:00:00Z"}`)
	}},
	{"no time", func(i int) []byte { return fmt.Appendf(nil, `{"user_id":%d}`, i) }},
	{"no such time", func(i int) []byte { return fmt.Appendf(nil, `{"user_id":%d,"event_time":"2019-02-30T00:00:00Z"}`, i) }},
	{"year 1", func(i int) []byte { return fmt.Appendf(nil, `{"user_id":%d,"event_time":"0001-01-01T00:00:00Z"}`, i) }},
	{"year 9999", func(i int) []byte { return fmt.Appendf(nil, `{"user_id":%d,"event_time":"9999-01-01T00:00:00Z"}`, i) }},
	{"negative time", func(i int) []byte { return fmt.Appendf(nil, `{"user_id":%d,"event_time":-%d}`, i, i+1) }},
	{"control character", func(int) []byte { return []byte("{\"user_id\":\"a\x00b\",\"event_time\":\"2019-11-01T00:00:00Z\"}") }},
	{"deep", func(int) []byte { return bytes.Repeat([]byte("["), 200) }},
}

// TestMalformedRecords sends a million records of 20 kinds that are no events, among some that are: none stops the pipeline, and each
// is in the dead-letter topic with its reason and its place.
func TestMalformedRecords(t *testing.T) {
	total := 1_000_000
	if testing.Short() {
		total = 20_000
	}
	onBrokers(t, func(t *testing.T, brokers string) {
		names := kafka.NamesFor(uniqueTopic(t))
		env := []string{"SPATE_BROKERS=" + brokers, "SPATE_TOPIC=" + names.Activity, "SPATE_IDLE_TIMEOUT=1s", "SPATE_LATENESS=1s", "SPATE_DATABASE_URL=" + filepath.Join(t.TempDir(), "alerts.db")}
		spate(t, "router", env, "route").start()
		spate(t, "detector", env, "detect").start()
		cl := connect(t, brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(100_000))
		eventually(t, 30*time.Second, "topics are made", func() bool { return topicExists(t, cl, names.Activity) })
		bad := 0
		send := func(r *kgo.Record) {
			r.Topic = names.Activity
			cl.Produce(t.Context(), r, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		for i := range total {
			send(&kgo.Record{Partition: int32(i % 4), Value: malformed[i%len(malformed)].value(i), Key: []byte(strconv.Itoa(i))})
			bad++
			if i%1000 == 0 {
				send(&kgo.Record{Partition: int32(i % 4), Value: fmt.Appendf(nil, `{"user_id":7,"event_time":%d}`, time.Date(2019, 11, 1, 0, 0, i/10000, 0, time.UTC).UnixMilli())})
			}
		}
		// One megabyte, valid and not.
		send(&kgo.Record{Value: append(append([]byte(`{"user_id":8,"event_time":"2019-11-01T00:00:00Z","pad":"`), bytes.Repeat([]byte("x"), 990_000)...), `"}`...)})
		send(&kgo.Record{Value: bytes.Repeat([]byte{0xff}, 990_000)})
		bad++
		if err := cl.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		ref := reference(t, brokers, names.Activity, verifier.Rule{Window: 10 * time.Second, Lateness: time.Second, Threshold: 5})
		var reasons map[string]int
		eventually(t, 120*time.Second, "all are in the dead-letter topic", func() bool {
			reasons = map[string]int{}
			n := readAll(t, brokers, names.DLQ, func(r *kgo.Record) {
				h := map[string]string{}
				for _, x := range r.Headers {
					h[x.Key] = string(x.Value)
				}
				if h["spate-source-topic"] != names.Activity || h["spate-source-partition"] == "" || h["spate-source-offset"] == "" {
					t.Fatalf("a dead letter without its place: %v", h)
				}
				reasons[h["spate-reason"]]++
			})
			return n >= int64(bad)
		})
		t.Logf("%v", reasons)
		var counted, dead int64
		for _, n := range reasons {
			dead += int64(n)
		}
		eventually(t, 30*time.Second, "the events are counted", func() bool {
			counted = 0
			for _, n := range keyedCounts(t, brokers, names.Keyed) {
				counted += n
			}
			late := readAll(t, brokers, names.Late, func(*kgo.Record) {})
			return counted+late+dead == ref.In
		})
		if dead != int64(bad) || counted == 0 {
			t.Errorf("%d dead letters, want %d; %d counted", dead, bad, counted)
		}
	})
}

// TestBrokerAway: without a broker the services wait for it and say so; when it goes while they run, they go on when it is back.
func TestBrokerAway(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute a broker")
	}
	t.Parallel()
	onOwnBrokers(t, testBrokerAway)
}

// onOwnBrokers runs a test on an in-process broker and on a real Kafka of its own, both at once. Each is down at first, and keeps its data
// when it goes down, for the real one by kill -9.
func onOwnBrokers(t *testing.T, test func(t *testing.T, addr string, up, down func())) {
	t.Run("kfake", func(t *testing.T) {
		t.Parallel()
		addr, dir := freePort(t), t.TempDir()
		n := portOf(t, addr)
		var c *kfake.Cluster
		test(t, addr, func() {
			var err error
			if c, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(n), kfake.DataDir(dir)); err != nil {
				t.Fatal(err)
			}
		}, func() { c.Close() })
	})
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		up, down := sharedFile(t, "kafka/kafka-up"), sharedFile(t, "kafka/kafka-down")
		addr, dir := freePort(t), t.TempDir()
		script := func(args ...string) {
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Env = append(os.Environ(), "KAFKA_CONTROLLER_PORT="+strconv.Itoa(portOf(t, freePort(t))))
			// Not CombinedOutput: the broker inherits the pipe and keeps it open.
			log, err := os.Create(filepath.Join(dir, "script.log"))
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			cmd.Stdout, cmd.Stderr = log, log
			if err := cmd.Run(); err != nil {
				b, _ := os.ReadFile(log.Name())
				t.Fatalf("%v: %v: %s", args, err, b)
			}
		}
		t.Cleanup(func() { script(down, dir) })
		test(t, addr, func() { script(up, strconv.Itoa(portOf(t, addr)), dir) }, func() { script(down, dir, "-9") })
	})
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func testBrokerAway(t *testing.T, addr string, up, down func()) {
	names := kafka.NamesFor(kafka.DefaultTopic)
	db := filepath.Join(t.TempDir(), "alerts.db")
	env := []string{"SPATE_BROKERS=" + addr, "SPATE_LATENESS=2s", "SPATE_IDLE_TIMEOUT=2s", "SPATE_DATABASE_URL=" + db}
	services := []*process{spate(t, "router", env, "route").start(), spate(t, "detector", env, "detect").start(), spate(t, "alerter", env, "alert").start()}
	for _, s := range services {
		eventually(t, 20*time.Second, s.name+" says that it waits", func() bool {
			return bytes.Contains(s.output(t), []byte("broker does not answer"))
		})
		if code, body := s.get(t, "/readyz"); code != http.StatusServiceUnavailable {
			t.Errorf("%s: /readyz %d %s", s.name, code, body)
		}
		if code, _ := s.get(t, "/healthz"); code != http.StatusOK {
			t.Errorf("%s: /healthz %d", s.name, code)
		}
	}
	up()
	ready := func() bool {
		for _, s := range services {
			if code, _ := s.get(t, "/readyz"); code != http.StatusOK {
				return false
			}
		}
		return true
	}
	eventually(t, 30*time.Second, "all are ready", ready)
	traffic := spate(t, "traffic", env, "simulate", "--time", "now", "--event-rate", "1000", "--duration", "20s", "--quiet").start()
	select {
	case <-time.After(6 * time.Second):
	case <-traffic.done:
		t.Fatalf("traffic ended early: %v", traffic.err)
	}
	down()
	eventually(t, 20*time.Second, "none is ready", func() bool {
		for _, s := range services {
			if code, _ := s.get(t, "/readyz"); code == http.StatusOK {
				return false
			}
		}
		return true
	})
	up()
	eventually(t, 40*time.Second, "all are ready again", ready)
	if err := traffic.wait(60 * time.Second); err != nil {
		t.Fatal(err)
	}
	rule := verifier.Rule{Window: 10 * time.Second, Lateness: 2 * time.Second, Threshold: 5}
	ref := reference(t, addr, names.Activity, rule)
	want := ref.Result()
	st, err := sqlite.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	eventually(t, 40*time.Second, "all windows are closed", func() bool {
		n, err := st.Count(t.Context())
		return err == nil && n.Opened == 0 && n.Closed == int64(len(want))
	})
	checkLog(t, addr, names, ref)
	checkAlertTopic(t, addr, names, len(want))
	// With the broker gone for good, they still end when they are told to.
	down()
	for _, s := range services {
		if err := s.stop(10 * time.Second); err != nil {
			t.Errorf("%s without a broker: %v", s.name, err)
		}
	}
}

func (p *process) output(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile(p.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var address = regexp.MustCompile(`/readyz","service":"[a-z]+","address":"([^"]+)"`)

// get asks the process's server for operators.
func (p *process) get(t *testing.T, page string) (int, string) {
	t.Helper()
	m := address.FindSubmatch(p.output(t))
	if m == nil {
		return 0, "it has not told its address"
	}
	resp, err := http.Get("http://" + string(m[1]) + page)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}
