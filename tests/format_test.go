package tests

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"spate/services/detector"
	"spate/services/router"
	"spate/services/verifier"
	"spate/shared/alert"
	"spate/shared/format"
	"spate/shared/format/formattest"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/tests/harness"
)

// TestFormats: the same events give the same alerts, whatever format they are written in. SPATE_TEST_EVENTS is how many of each; 20,000 by default.
func TestFormats(t *testing.T) {
	t.Parallel()
	n := 20_000
	if text := os.Getenv("SPATE_TEST_EVENTS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	rnd := rand.New(rand.NewPCG(7, 7))
	base := time.Date(2023, 11, 14, 22, 13, 20, 0, time.UTC).UnixMilli()
	events := make([]formattest.Event, n)
	for i := range events {
		user := strconv.Itoa(rnd.IntN(1500))
		if rnd.IntN(4) == 0 {
			user = "user-" + user
		}
		events[i] = formattest.Event{User: user, TimeMS: base + int64(i)*2 - rnd.Int64N(9000), Kind: "view", Brand: "xiaomi", Price: 489.07}
	}
	registry, err := format.NewRegistry(format.RegistryConfig{URL: formattest.Registry(t).URL()}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	harness.OnBrokers(t, func(t *testing.T, brokers string) {
		var first []alert.Record
		for _, f := range formattest.Formats() {
			names := kafka.NamesFor(harness.UniqueTopic(t))
			ref := verifier.NewReference(verifier.Rule{Window: 10 * time.Second, Lateness: 10 * time.Second, Threshold: 5})
			got, in := countFormat(t, brokers, names, f, registry, events, ref)
			for i := range got {
				got[i].Evidence.Topic = ""
			}
			if in != int64(n) {
				t.Errorf("%s: %d of %d events accounted for", f.Name, in, n)
			}
			if d := verifier.Compare(ref.Result(), got); d.Missing+d.Wrong+d.Extra > 0 {
				t.Errorf("%s: %+v", f.Name, d)
			}
			if first == nil {
				first = got
				t.Logf("%d events, %d alerts", n, len(got))
				if len(got) < n/200 {
					t.Errorf("%d alerts of %d events: nothing is compared", len(got), n)
				}
			} else if diff := cmp.Diff(first, got); diff != "" {
				t.Errorf("%s: other alerts than JSON gives (-json +this):\n%.2000s", f.Name, diff)
			}
		}
	})
}

// countFormat has events written in a format, routed and detected, and returns the closed alerts in the order of their ids.
func countFormat(t *testing.T, brokers string, names kafka.Names, f formattest.Format, registry *format.Registry, events []formattest.Event, ref *verifier.Reference) (closed []alert.Record, in int64) {
	cfg := kafka.Config{Brokers: []string{brokers}}
	layout := kafka.Layout{Names: names, Partitions: 4}
	cl := harness.Connect(t, brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	harness.MakeTopics(t, cl, layout)
	for i, e := range events {
		value, headers := f.Write(e)
		token := e.User
		if strings.HasPrefix(token, "user") {
			token = strconv.Quote(token)
		}
		ref.Add(int32(i%4), token, e.TimeMS, verifier.Unbounded)
		cl.Produce(ctx, &kgo.Record{Topic: names.Activity, Partition: int32(i % 4), Value: value, Headers: headers}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	drain := make(chan struct{})
	close(drain)
	var counts router.Counts
	rctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	det, err := detector.New(detector.Config{Kafka: cfg, Layout: layout, Window: 10 * time.Second, Threshold: 5, Critical: 10, Transitions: []alert.State{alert.Closed}, Drains: true,
		Address: "127.0.0.1:1", Log: logger(t), Registry: prometheus.NewRegistry(), Status: &ops.Status{}})
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		if err := det.Run(rctx); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer stop()
	if err := router.Run(ctx, router.Config{Kafka: cfg, Layout: layout, Events: format.Config{Format: f.Format, Fields: f.Fields, Registry: registry}, Window: 10 * time.Second, Lateness: 10 * time.Second,
		Instance: "router-" + names.Activity, Drain: drain, Log: logger(t), Registry: prometheus.NewRegistry(), Status: &ops.Status{}, Counts: &counts}); err != nil {
		t.Fatal(err)
	}
	found := make(map[string]alert.Record)
	want := len(ref.Result())
	for reader := harness.Connect(t, brokers, kgo.ConsumeTopics(names.Alerts)); len(found) < want && ctx.Err() == nil; {
		reader.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			var a alert.Record
			if err := json.Unmarshal(r.Value, &a); err != nil {
				t.Error(err)
			}
			found[a.ID] = a
		})
	}
	for _, a := range found {
		closed = append(closed, a)
	}
	slices.SortFunc(closed, func(a, b alert.Record) int { return strings.Compare(a.ID, b.ID) })
	return closed, counts.In.Load()
}

// registryProxy stands before a registry, and answers as it is told.
type registryProxy struct {
	*httptest.Server
	status atomic.Int64 // 0 passes on, -1 does not answer
}

func newRegistryProxy(t *testing.T, registry *srfake.Registry) *registryProxy {
	u, err := url.Parse(registry.URL())
	if err != nil {
		t.Fatal(err)
	}
	behind := httputil.NewSingleHostReverseProxy(u)
	p := &registryProxy{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch s := p.status.Load(); s {
		case 0:
			behind.ServeHTTP(w, r)
		case -1:
			<-r.Context().Done()
		default:
			w.WriteHeader(int(s))
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// TestRegistryFaults: a registry that is away, does not answer or refuses the login holds events back, with one clear line, and nothing is lost; a schema
// that evolves in mid-stream changes nothing; an id that nobody knows is told and set aside, and when it is known it counts.
func TestRegistryFaults(t *testing.T) {
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		registry := formattest.Registry(t)
		proxy := newRegistryProxy(t, registry)
		topic := harness.UniqueTopic(t)
		names := kafka.NamesFor(topic)
		cl := harness.Connect(t, brokers)
		click, next := avro.MustParse(formattest.AvroSchema), avro.MustParse(formattest.AvroNextSchema)
		base := time.Now().Add(-time.Hour).UnixMilli()
		sent := 0
		send := func(values ...[]byte) {
			for _, v := range values {
				sent++
				if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: v}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		}
		one := func(user int64) []byte {
			return formattest.Avro(click, formattest.AvroID, formattest.AvroRow(formattest.Event{User: strconv.FormatInt(user, 10), TimeMS: base + int64(sent), Kind: "view"}))
		}
		proxy.status.Store(http.StatusServiceUnavailable)
		p := harness.Spate(t, "router", []string{"SPATE_MODE=kafka", "SPATE_BROKERS=" + brokers, "SPATE_TOPIC=" + topic, "SPATE_SCHEMA_REGISTRY_URL=" + proxy.URL, "SPATE_PARTITIONS=1", "SPATE_REPLICATION=1",
			"SPATE_TIME_FIELD=event_time"}, "route").Start()
		harness.Eventually(t, time.Minute, "the router is ready", func() bool { code, _ := p.Get("/readyz"); return code == http.StatusOK })
		says := func(what string, words ...string) {
			t.Helper()
			var last string
			ok := harness.Within(30*time.Second, func() bool {
				var code int
				if code, last = p.Get("/readyz"); code != http.StatusServiceUnavailable {
					return false
				}
				for _, w := range words {
					if !strings.Contains(last, w) {
						return false
					}
				}
				return true
			})
			if !ok {
				t.Fatalf("%s: /readyz says %s, want %q", what, last, words)
			}
		}
		counted := func(fate string, n int) {
			t.Helper()
			harness.Eventually(t, time.Minute, fate+" "+strconv.Itoa(n), func() bool {
				_, page := p.Get("/metrics")
				return strings.Contains(page, `spate_router_events_total{fate="`+fate+`",reason=`) && metricSum(page, fate) == n
			})
		}
		send(one(1), one(1))
		says("503", "schema 1", "returned status 503")
		proxy.status.Store(http.StatusUnauthorized)
		says("401", "SPATE_SCHEMA_REGISTRY_PASSWORD")
		proxy.status.Store(-1)
		says("no answer", "cannot connect to the schema registry", "schema-registry-url")
		proxy.status.Store(0)
		counted("counted", 2)
		harness.Eventually(t, 30*time.Second, "the router is ready again", func() bool { code, _ := p.Get("/readyz"); return code == http.StatusOK })

		// It is away again: what it has said still counts.
		proxy.status.Store(http.StatusServiceUnavailable)
		send(one(1))
		counted("counted", 3)
		proxy.status.Store(0)
		// The schema evolves.
		send(formattest.Avro(next, formattest.AvroNextID, map[string]any{"event_time": time.UnixMilli(base), "attributes": map[string]any{}, "user_id": map[string]any{"long": int64(1)}}), one(1))
		counted("counted", 5)
		// An id that is not known yet.
		unknown := append(formattest.Header(77), one(1)[5:]...)
		send(unknown, one(1))
		counted("invalid", 1)
		counted("counted", 6)
		harness.Eventually(t, 30*time.Second, "the log tells of it", func() bool { return strings.Contains(string(p.Output()), "has no schema 77") })
		registry.SeedSchema("later-value", 1, 77, sr.Schema{Schema: formattest.AvroSchema, Type: sr.TypeAvro})
		harness.Eventually(t, 30*time.Second, "the schema is asked for again", func() bool {
			send(unknown)
			_, page := p.Get("/metrics")
			return metricSum(page, "counted") > 6
		})
		harness.Eventually(t, 30*time.Second, "every event is accounted for", func() bool {
			_, page := p.Get("/metrics")
			return metricSum(page, "counted")+metricSum(page, "invalid")+metricSum(page, "late") == sent
		})
		dead := 0
		if err := p.Stop(30 * time.Second); err != nil {
			t.Error(err)
		}
		harness.ReadAll(t, brokers, names.DLQ, func(r *kgo.Record) {
			dead++
			for _, h := range r.Headers {
				if h.Key == "spate-reason" && string(h.Value) != "no_schema" {
					t.Errorf("reason %s", h.Value)
				}
			}
			if string(r.Value) != string(unknown) {
				t.Errorf("the dead letter has %x", r.Value)
			}
		})
		if dead == 0 {
			t.Error("nothing was set aside")
		}
	})
}

// metricSum adds the events of a fate up.
func metricSum(page, fate string) (sum int) {
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, `spate_router_events_total{fate="`+fate+`"`); ok {
			_, number, _ := strings.Cut(rest, "} ")
			n, _ := strconv.ParseFloat(strings.TrimSpace(number), 64)
			sum += int(n)
		}
	}
	return sum
}
