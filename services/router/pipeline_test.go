package router_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/services/router"
	"spate/shared/activity"
	"spate/shared/format"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/window"
	"spate/shared/window/windowtest"
)

// bed is a broker with the topics of a pipeline, and what the keyed log came to.
type bed struct {
	t       *testing.T
	cluster *kfake.Cluster
	cfg     kafka.Config
	layout  kafka.Layout
	cl      *kgo.Client
	counts  router.Counts
	now     atomic.Int64 // wall clock of the routers, milliseconds; 0 is the real one
}

func newBed(t *testing.T, partitions int32) *bed {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	b := &bed{t: t, cluster: c, cfg: kafka.Config{Brokers: c.ListenAddrs()}, layout: kafka.Layout{Names: kafka.NamesFor(kafka.DefaultTopic), Partitions: partitions}}
	b.cl = b.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(kafka.ProducerBatchMaxBytes/2))
	if _, err := b.layout.Ensure(t.Context(), kadm.NewClient(b.cl)); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bed) client(opts ...kgo.Opt) *kgo.Client {
	b.t.Helper()
	cl, err := kgo.NewClient(b.cfg.Options(opts...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(cl.Close)
	return cl
}

// start runs a router until the returned function is called.
func (b *bed) start(instance string, change ...func(*router.Config)) (stop func()) {
	b.t.Helper()
	cfg := router.Config{
		Kafka: b.cfg, Layout: b.layout, Events: format.Config{Fields: activity.DefaultFields()}, Window: 10 * time.Second, Lateness: 10 * time.Second, MaxAhead: time.Minute,
		Instance: instance, Log: slog.New(slog.NewTextHandler(b.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		Registry: prometheus.NewRegistry(), Status: &ops.Status{}, Counts: &b.counts,
		Now: func() time.Time {
			if ms := b.now.Load(); ms != 0 {
				return time.UnixMilli(ms)
			}
			return time.Now()
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- router.Run(ctx, cfg) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					b.t.Error(err)
				}
			case <-time.After(15 * time.Second):
				b.t.Error("the router does not end")
			}
		})
	}
	b.t.Cleanup(stop)
	return stop
}

func (b *bed) send(partition int32, value string) {
	b.t.Helper()
	r := &kgo.Record{Topic: b.layout.Names.Activity, Partition: partition, Value: []byte(value), Key: []byte("k")}
	if err := b.cl.ProduceSync(b.t.Context(), r).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// event sends an event of a user at a second of event time.
func (b *bed) event(partition int32, user string, second float64) {
	b.t.Helper()
	b.send(partition, fmt.Sprintf(`{"user_id":%q,"event_time":%d}`, user, int64(1_600_000_000_000+second*1000)))
}

const base = 1_600_000_000_000

// read returns the committed records of a topic.
func (b *bed) read(topic string) (out []*kgo.Record) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	cl := b.client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(ctx, topic)
	if err != nil {
		b.t.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	for len(left) > 0 {
		f := cl.PollFetches(ctx)
		if err := f.Err(); err != nil {
			b.t.Fatalf("read %s: %v", topic, err)
		}
		for _, r := range f.Records() {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if !r.Attrs.IsControl() {
				out = append(out, r)
			}
		}
	}
	return out
}

type userWindow struct {
	user   string
	second int64
}

// keyed returns the counts in the keyed log, and the lowest watermark over its partitions.
func (b *bed) keyed() (counts map[userWindow]int64, watermark int64) {
	b.t.Helper()
	tables := map[int32]*window.Table{}
	counts = map[userWindow]int64{}
	for p := range b.layout.Partitions {
		tables[p] = window.NewTable(windowtest.Stream(10*time.Second, 0, 0))
	}
	for _, r := range b.read(b.layout.Names.Keyed) {
		vs, err := tables[r.Partition].Apply(r.Offset, r.Value, nil)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, v := range vs {
			if v.State == window.Closed {
				counts[userWindow{v.Key, (v.Pane.StartMS - base) / 1000}] = v.Pane.Count
			}
		}
	}
	watermark = window.EndOfTime
	for _, t := range tables {
		t.Each(func(u string, p window.Pane) { counts[userWindow{u, (p.StartMS - base) / 1000}] = p.Count })
		watermark = min(watermark, t.Stats().WatermarkMS)
		if t.Stats().Stray != 0 {
			b.t.Errorf("%d stray events", t.Stats().Stray)
		}
	}
	return counts, watermark
}

func (b *bed) eventually(what string, ok func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			b.t.Fatal("never: " + what)
		}
	}
}

func headers(r *kgo.Record) map[string]string {
	out := map[string]string{}
	for _, h := range r.Headers {
		out[h.Key] = string(h.Value)
	}
	return out
}

// TestSilentPartitionOfAnotherRouter: one router has the partition with the events, the other one that never had any. The other one's
// promise has to follow what it does not see.
func TestSilentPartitionOfAnotherRouter(t *testing.T) {
	b := newBed(t, 2)
	idle := func(c *router.Config) { c.IdleTimeout = 500 * time.Millisecond }
	b.start("one", idle)
	b.start("two", idle)
	adm := kadm.NewClient(b.cl)
	b.eventually("they share", func() bool {
		g, err := adm.DescribeGroups(t.Context(), b.layout.Names.RouterGroup)
		if err != nil || len(g[b.layout.Names.RouterGroup].Members) != 2 {
			return false
		}
		for _, m := range g[b.layout.Names.RouterGroup].Members {
			if a, ok := m.Assigned.AsConsumer(); !ok || len(a.Topics) != 1 || len(a.Topics[0].Partitions) != 1 {
				return false
			}
		}
		return true
	})
	second := 0.0
	b.eventually("the watermark follows the partition with events", func() bool {
		second += 2
		b.event(0, "u", second)
		_, w := b.keyed()
		return w != window.NoTime && w >= base+10_000
	})
	if late := b.read(b.layout.Names.Late); len(late) > 0 {
		t.Errorf("%d late events", len(late))
	}
}

// TestAllSilent: the watermark walks on with the clock, closes everything, and stops there.
func TestAllSilent(t *testing.T) {
	b := newBed(t, 2)
	b.now.Store(1_000_000)
	stop := b.start("one", func(c *router.Config) { c.IdleTimeout = 5 * time.Second })
	b.event(0, "u", 12)
	b.event(1, "v", 3)
	b.eventually("both are counted", func() bool { return b.counts.Counted.Load() == 2 })
	if _, w := b.keyed(); w != base+3_000-10_000 {
		t.Errorf("watermark %d", w-base)
	}
	last := int64(window.NoTime)
	b.eventually("every window is closed", func() bool {
		b.now.Add(500)
		_, w := b.keyed()
		if w < last {
			t.Fatalf("the watermark goes back from %d to %d", last, w)
		}
		last = w
		return w == base+19_999
	})
	before := len(b.read(b.layout.Names.Keyed))
	b.now.Add(3_600_000)
	b.event(0, "u", 15) // its window is closed by the promise
	b.event(0, "u", 25)
	b.eventually("one more is counted, one is late", func() bool { return b.counts.Counted.Load() == 3 && b.counts.Late.Load() == 1 })
	stop()
	late := b.read(b.layout.Names.Late)
	want := map[string]string{router.HeaderReason: "idle", router.HeaderTopic: "activity", router.HeaderPartition: "0", router.HeaderOffset: "1", router.HeaderWindow: fmt.Sprint(base + 10_000), router.HeaderLateBy: "0"}
	if len(late) != 1 || !cmp.Equal(headers(late[0]), want) || string(late[0].Key) != "k" {
		t.Errorf("late: %v", late)
	}
	counts, _ := b.keyed()
	if d := cmp.Diff(map[userWindow]int64{{`"u"`, 10}: 1, {`"v"`, 0}: 1, {`"u"`, 20}: 1}, counts); d != "" {
		t.Error(d)
	}
	if after := len(b.read(b.layout.Names.Keyed)); after > before+3*2 {
		t.Errorf("%d batches for two events: a promise that closes nothing is not worth a transaction", after-before)
	}
}

// TestLateAfterRestart: what was read before decides what is late, also if another process had read it.
func TestLateAfterRestart(t *testing.T) {
	b := newBed(t, 1)
	stop := b.start("one")
	b.event(0, "u", 100)
	b.eventually("counted", func() bool { return b.counts.Counted.Load() == 1 })
	stop()
	stop = b.start("two")
	b.event(0, "u", 79)   // window [70,80), watermark 90
	b.event(0, "u", 80.5) // window [80,90): watermark 90 is past 89.999 as well
	b.event(0, "u", 91)
	b.eventually("judged", func() bool { return b.counts.In.Load() == 4 })
	stop()
	if b.counts.Late.Load() != 2 || b.counts.Counted.Load() != 2 {
		t.Errorf("%d late, %d counted", b.counts.Late.Load(), b.counts.Counted.Load())
	}
	late := b.read(b.layout.Names.Late)
	if h := headers(late[0]); h[router.HeaderReason] != "watermark" || h[router.HeaderLateBy] != "10001" || h[router.HeaderWindow] != fmt.Sprint(base+70_000) {
		t.Errorf("%v", h)
	}
}

// TestWhatIsNoEvent: each is set aside with its reason, its place and its content.
func TestWhatIsNoEvent(t *testing.T) {
	b := newBed(t, 1)
	big := strings.Repeat("x", 1<<20)
	soon := time.Now().Add(30 * time.Second).UnixMilli()
	cases := []struct{ value, reason string }{
		{"", "empty"}, {"nope", "not_json"}, {"[1]", "not_object"}, {`{"event_time":5}`, "no_user"}, {`{"user_id":true,"event_time":5}`, "bad_user"},
		{"{\"user_id\":\"\xff\",\"event_time\":5}", "bad_user"}, {`{"user_id":1}`, "no_time"}, {`{"user_id":1,"event_time":"yesterday"}`, "bad_time"},
		{`{"user_id":1,"event_time":"0001-01-01T00:00:00Z"}`, "time_out_of_range"}, {`{"user_id":1,"event_time":-1}`, "time_out_of_range"},
		{fmt.Sprintf(`{"user_id":1,"event_time":%d}`, soon+3_600_000), "time_ahead"}, {big, "not_json"},
	}
	b.start("one")
	for _, c := range cases {
		b.send(0, c.value)
	}
	b.send(0, fmt.Sprintf(`{"user_id":1,"event_time":%d,"pad":%q}`, soon, big)) // an event, if a large one, and not too far ahead
	b.eventually("all are judged", func() bool { return b.counts.In.Load() == int64(len(cases)+1) })
	if b.counts.Invalid.Load() != int64(len(cases)) || b.counts.Counted.Load() != 1 {
		t.Errorf("%d invalid, %d counted", b.counts.Invalid.Load(), b.counts.Counted.Load())
	}
	got := b.read(b.layout.Names.DLQ)
	if len(got) != len(cases) {
		t.Fatalf("%d dead letters of %d", len(got), len(cases))
	}
	for i, c := range cases {
		h := headers(got[i])
		want := map[string]string{router.HeaderReason: c.reason, router.HeaderTopic: "activity", router.HeaderPartition: "0", router.HeaderOffset: fmt.Sprint(i)}
		if d := cmp.Diff(want, h); d != "" || string(got[i].Value) != c.value || string(got[i].Key) != "k" {
			t.Errorf("%.40q: %s", c.value, d)
		}
	}
}

// TestAbortedTransactions: whatever request of a transaction fails, each event is in the keyed log once.
func TestAbortedTransactions(t *testing.T) {
	for name, c := range map[string]struct {
		key  kmsg.Key
		fail func(kmsg.Request) kmsg.Response
	}{
		"the offsets are refused": {kmsg.TxnOffsetCommit, func(r kmsg.Request) kmsg.Response {
			resp := r.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
			for _, t := range r.(*kmsg.TxnOffsetCommitRequest).Topics {
				rt := kmsg.NewTxnOffsetCommitResponseTopic()
				rt.Topic, rt.TopicID = t.Topic, t.TopicID
				for _, p := range t.Partitions {
					rp := kmsg.NewTxnOffsetCommitResponseTopicPartition()
					rp.Partition, rp.ErrorCode = p.Partition, kerr.IllegalGeneration.Code
					rt.Partitions = append(rt.Partitions, rp)
				}
				resp.Topics = append(resp.Topics, rt)
			}
			return resp
		}},
		"the producer is fenced": {kmsg.EndTxn, func(r kmsg.Request) kmsg.Response {
			resp := r.ResponseKind().(*kmsg.EndTxnResponse)
			resp.ErrorCode = kerr.InvalidProducerEpoch.Code
			return resp
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, 2)
			var left atomic.Int32
			left.Store(3)
			b.cluster.ControlKey(int16(c.key), func(r kmsg.Request) (kmsg.Response, error, bool) {
				b.cluster.KeepControl()
				if left.Add(-1) < 0 {
					return nil, nil, false
				}
				return c.fail(r), nil, true
			})
			stop := b.start("one")
			want := map[userWindow]int64{}
			for i := range 200 {
				user, second := fmt.Sprintf("u%d", i%7), float64(i%18)
				b.event(int32(i%2), user, second)
				want[userWindow{fmt.Sprintf("%q", user), int64(second) / 10 * 10}]++
			}
			b.eventually("all are judged", func() bool { return b.counts.In.Load() >= 200 })
			stop()
			if left.Load() >= 0 {
				t.Error("no transaction failed")
			}
			got, _ := b.keyed()
			for _, r := range b.read(b.layout.Names.Late) {
				t.Errorf("late: %s", r.Value)
			}
			if d := cmp.Diff(want, got); d != "" || b.counts.In.Load() != 200 {
				t.Errorf("%d in, (-want +got): %s", b.counts.In.Load(), d)
			}
		})
	}
}

func TestDrain(t *testing.T) {
	b := newBed(t, 3)
	for i := range 10 {
		b.event(int32(i%2), "u", float64(i))
	}
	drain := make(chan struct{})
	close(drain)
	cfgDone := make(chan struct{})
	stop := b.start("one", func(c *router.Config) { c.Drain = drain })
	go func() { stop(); close(cfgDone) }()
	<-cfgDone
	b.start("two", func(c *router.Config) { c.Drain = drain })
	b.eventually("the end of time", func() bool { _, w := b.keyed(); return w == window.EndOfTime })
	counts, _ := b.keyed()
	if d := cmp.Diff(map[userWindow]int64{{`"u"`, 0}: 10}, counts); d != "" {
		t.Error(d)
	}
}

func TestValidateTellsAll(t *testing.T) {
	err := router.Config{Window: -1, Lateness: -1, IdleTimeout: time.Millisecond, MaxAhead: -1}.Validate()
	for _, s := range []string{"brokers", "user field", "window", "lateness", "idle-timeout", "max-ahead"} {
		if err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("%s is not named: %v", s, err)
		}
	}
}
