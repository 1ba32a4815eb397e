package router

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
	"spate/shared/revision/topic"
	"spate/shared/rule"
	"spate/shared/window"
	"spate/shared/window/windowtest"
)

// TestUnconfirmedTransaction: the broker did not say that a transaction was committed, and it was. What it counted is not counted again, also by
// whoever takes the partition over later, and may look no further back than the group tells.
func TestUnconfirmedTransaction(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cfg := Config{Kafka: kafka.Config{Brokers: c.ListenAddrs()}, Layout: kafka.Layout{Names: kafka.NamesFor(kafka.DefaultTopic), Partitions: 2}, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	cl, err := kgo.NewClient(cfg.Kafka.Options(kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	topics, err := cfg.Layout.Ensure(t.Context(), adm)
	if err != nil {
		t.Fatal(err)
	}
	names := cfg.Layout.Names
	for range 12 {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: names.Activity, Value: []byte("event")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	write := func(next int64) (offset int64) {
		h := window.Header{Sources: 2, Topic: topics.Incarnation(names.Activity), Watermarks: []window.Watermark{{Partition: 0, WatermarkMS: 100 * next}}, Progress: []window.Progress{{Partition: 0, Next: next, NewestMS: 7}}}
		window.NewCombiner(windowtest.Stream(10*time.Millisecond, 0, 5)).Flush(1, func([]byte) int32 { return 0 }, h, func(_ int32, b []byte) {
			r := &kgo.Record{Topic: names.Keyed, Value: bytes.Clone(b)}
			if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
			offset = r.Offset
		})
		return offset
	}
	s := &session{cfg: cfg, stream: windowtest.Stream(10*time.Millisecond, 10*time.Millisecond, 5), adm: adm, topics: topics, sources: newSources(2), metrics: newMetrics(prometheus.NewRegistry())}
	s.follow(rulesOf(t, s))
	was := window.Source{MaxTS: 410, Newest: 410, Floor: window.NoTime}
	src := &source{committed: was, now: was, position: 4, settled: 4}
	s.sources.own(map[int32]*source{0: src})

	s.wrote(write(4) + 1)
	s.learned(s.end()) // that one was confirmed
	if err := s.verify(t.Context()); err != nil || src.next() != 4 || src.now != was {
		t.Fatalf("nothing was written since: %+v, %v", src, err)
	}
	s.wrote(write(9) + 1)
	if err := s.verify(t.Context()); err != nil || src.next() != 9 || src.now.Watermark(10) != 900 || src.now.Newest != 7 {
		t.Fatalf("what was committed is not known: %+v, %v", src, err)
	}
	// The next commit says so, although the client has read nothing again yet.
	r, err := window.ParseRouted(s.metadata(src))
	if err != nil || r.Keyed != 2 {
		t.Errorf("%+v %v", r, err)
	}
	// A lie about progress beyond the log's end, or a batch from the future, is none of it.
	write(1000)
	if err := s.verify(t.Context()); err != nil || src.next() != 9 {
		t.Errorf("%+v, %v", src, err)
	}
}

// TestRecallBehindAnAbortWithoutAMark: a broker that was killed aborts the transaction that was open, and writes no mark. A client says nothing of
// what is behind the last record then, and the router of `up` waited for it for good.
func TestRecallBehindAnAbortWithoutAMark(t *testing.T) {
	dir, killed := t.TempDir(), t.TempDir()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir), kfake.SyncWrites())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cfg := Config{Layout: kafka.Layout{Names: kafka.NamesFor(kafka.DefaultTopic), Partitions: 1}, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	keyed := cfg.Layout.Names.Keyed
	connect := func(c *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
		cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(c.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		return cl
	}
	cl := connect(c, kgo.TransactionalID("router"))
	if _, err := cfg.Layout.Ensure(t.Context(), kadm.NewClient(cl)); err != nil {
		t.Fatal(err)
	}
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: keyed, Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil { // as a kill -9 leaves it
		t.Fatal(err)
	}
	again, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(killed), kfake.SyncWrites())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	cfg.Kafka = kafka.Config{Brokers: again.ListenAddrs()}
	adm := kadm.NewClient(connect(again))
	topics, err := cfg.Layout.Ensure(t.Context(), adm)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{cfg: cfg, adm: adm, topics: topics, sources: newSources(1)}
	s.follow(rulesOf(t, s))
	if r, err := s.recall(t.Context(), 0); err != nil || r.next != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// rulesOf is a reader of the rules that has read nothing.
func rulesOf(t *testing.T, s *session) *topic.Reader {
	t.Helper()
	initial, err := rule.Burst(10*time.Second, 5, 10)
	if err != nil {
		t.Fatal(err)
	}
	return topic.NewReader(s.cfg.Kafka, s.adm, s.cfg.Layout.Names, initial)
}

// TestRulesAreLostWhileNothingHappens: everything that was routed was known when the router ended, so it had nothing to read of the keyed log, and began to
// judge by the rule from the settings.
func TestRulesAreLostWhileNothingHappens(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cfg := Config{Kafka: kafka.Config{Brokers: c.ListenAddrs()}, Layout: kafka.Layout{Names: kafka.NamesFor(kafka.DefaultTopic), Partitions: 1}, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	s := &session{cfg: cfg, adm: kadm.NewClient(cl), sources: newSources(1)}
	s.follow(rulesOf(t, s))
	if s.topics, err = cfg.Layout.Ensure(t.Context(), s.adm); err != nil {
		t.Fatal(err)
	}
	stream, err := window.NewStream(s.rules.Plan(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	revised := *stream.Plan
	revised.Revision = 3
	stream.Plan = &revised
	h := window.Header{Sources: 1, Watermarks: []window.Watermark{{WatermarkMS: 5000}}, Progress: []window.Progress{{Next: 7, NewestMS: 6000}}}
	window.NewCombiner(stream).Flush(1, func([]byte) int32 { return 0 }, h, func(_ int32, value []byte) {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: cfg.Layout.Names.Keyed, Value: bytes.Clone(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	})
	r, err := s.recall(t.Context(), 1)
	if err == nil || !strings.Contains(err.Error(), "events were judged by revision 3 of the rules, but topic activity.rules has only revisions up to 0") {
		t.Errorf("%+v, %v", r, err)
	}
	if len(r.progress) > 0 || len(r.watermarks) > 0 { // that was known before
		t.Errorf("%+v", r)
	}
}
