package tests

import (
	"bytes"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/verifier"
	"spate/shared/kafka"
	"spate/shared/store/sqlite"
	"spate/tests/harness"
)

// malformed are records that are not events, by what is wrong with them. i makes them differ.
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

// TestMalformedRecords sends a million records of 20 kinds that are not events, among some that are: none stops the pipeline, and each
// is in the dead-letter topic with its reason and its place.
func TestMalformedRecords(t *testing.T) {
	total := 1_000_000
	if testing.Short() {
		total = 20_000
	}
	t.Parallel()
	harness.OnBrokers(t, func(t *testing.T, brokers string) {
		names := kafka.NamesFor(harness.UniqueTopic(t))
		env := []string{"SPATE_BROKERS=" + brokers, "SPATE_TOPIC=" + names.Activity, "SPATE_IDLE_TIMEOUT=1s", "SPATE_LATENESS=1s", "SPATE_DATABASE_URL=" + filepath.Join(t.TempDir(), "alerts.db")}
		harness.Spate(t, "router", env, "route").Start()
		harness.Spate(t, "detector", env, "detect").Start()
		cl := harness.Connect(t, brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(100_000))
		harness.Eventually(t, 30*time.Second, "topics are made", func() bool { return harness.TopicExists(t, cl, names.Activity) })
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
		ref := harness.Reference(t, brokers, names.Activity, verifier.Rule{Window: 10 * time.Second, Lateness: time.Second, Threshold: 5})
		var reasons map[string]int
		harness.Eventually(t, 120*time.Second, "all are in the dead-letter topic", func() bool {
			reasons = map[string]int{}
			n := harness.ReadAll(t, brokers, names.DLQ, func(r *kgo.Record) {
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
		harness.Eventually(t, 30*time.Second, "the events are counted", func() bool {
			counted = 0
			for _, n := range harness.KeyedCounts(t, brokers, names.Keyed, 10*time.Second) {
				counted += n
			}
			late := harness.ReadAll(t, brokers, names.Late, func(*kgo.Record) {})
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
	harness.OnOwnBrokers(t, testBrokerAway)
}

func testBrokerAway(t *testing.T, broker harness.Broker) {
	names := kafka.NamesFor(kafka.DefaultTopic)
	db := filepath.Join(t.TempDir(), "alerts.db")
	env := []string{"SPATE_BROKERS=" + broker.Addr, "SPATE_LATENESS=2s", "SPATE_IDLE_TIMEOUT=2s", "SPATE_DATABASE_URL=" + db}
	services := []*harness.Process{harness.Spate(t, "router", env, "route").Start(), harness.Spate(t, "detector", env, "detect").Start(), harness.Spate(t, "alerter", env, "alert").Start()}
	for _, s := range services {
		harness.Eventually(t, 20*time.Second, s.Name+" says that it waits", func() bool {
			return bytes.Contains(s.Output(), []byte("broker is not responding"))
		})
		if code, body := s.Get("/readyz"); code != http.StatusServiceUnavailable {
			t.Errorf("%s: /readyz %d %s", s.Name, code, body)
		}
		if code, _ := s.Get("/healthz"); code != http.StatusOK {
			t.Errorf("%s: /healthz %d", s.Name, code)
		}
	}
	broker.Up()
	ready := func() bool {
		for _, s := range services {
			if code, _ := s.Get("/readyz"); code != http.StatusOK {
				return false
			}
		}
		return true
	}
	harness.Eventually(t, 30*time.Second, "all are ready", ready)
	traffic := harness.Spate(t, "traffic", env, "simulate", "--time", "now", "--event-rate", "1000", "--duration", "20s", "--quiet").Start()
	select {
	case <-time.After(6 * time.Second):
	case <-traffic.Done():
		t.Fatalf("traffic ended early: %v", traffic.Err())
	}
	broker.Down()
	harness.Eventually(t, 20*time.Second, "none is ready", func() bool {
		for _, s := range services {
			if code, _ := s.Get("/readyz"); code == http.StatusOK {
				return false
			}
		}
		return true
	})
	broker.Up()
	harness.Eventually(t, 40*time.Second, "all are ready again", ready)
	if err := traffic.Wait(60 * time.Second); err != nil {
		t.Fatal(err)
	}
	rule := verifier.Rule{Window: 10 * time.Second, Lateness: 2 * time.Second, Threshold: 5}
	ref := harness.Reference(t, broker.Addr, names.Activity, rule)
	want := ref.Result()
	st, err := sqlite.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	harness.CheckStored(t, st, want, time.Minute)
	harness.CheckLog(t, broker.Addr, names, ref)
	harness.CheckAlertTopic(t, broker.Addr, names, len(want))
	// With the broker gone for good, they still end when they are told to.
	broker.Down()
	for _, s := range services {
		if err := s.Stop(10 * time.Second); err != nil {
			t.Errorf("%s without a broker: %v", s.Name, err)
		}
	}
}
