package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/detector"
	"spate/services/router"
	"spate/services/verifier"
	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/format"
	"spate/shared/kafka"
	"spate/shared/ops"
)

func logger(t *testing.T) *slog.Logger {
	level := slog.LevelWarn
	if os.Getenv("SPATE_TEST_LOG") != "" {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
}

func TestPipelineOnKfake(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	cfg := kafka.Config{Brokers: cluster.ListenAddrs()}
	layout := kafka.Layout{Names: kafka.NamesFor("activity"), Partitions: 4}
	cl, err := kgo.NewClient(cfg.Options(kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if _, err := layout.Ensure(ctx, kadm.NewClient(cl)); err != nil {
		t.Fatal(err)
	}
	ref := verifier.NewReference(verifier.Rule{Window: 10 * time.Second, Lateness: 10 * time.Second, Threshold: 5})
	rng := rand.New(rand.NewPCG(1, 1))
	base := time.Date(2023, 11, 14, 22, 13, 20, 0, time.UTC).UnixMilli()
	const n = 100_000
	for i := range n {
		ts := base + int64(i)*2 - rng.Int64N(9000)
		user := rng.IntN(3000)
		p := int32(rng.IntN(4))
		v := fmt.Appendf(nil, `{"event_time":"2019-11-01 00:00:00 UTC","user_id":%d,"txn_timestamp":"%s"}`, user, activity.AppendTime(nil, ts))
		ref.Add(p, strconv.Itoa(user), ts, verifier.Unbounded)
		cl.Produce(ctx, &kgo.Record{Topic: "activity", Partition: p, Value: v}, func(_ *kgo.Record, err error) {
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
	var found detector.Counts
	rctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	det, err := detector.New(detector.Config{Kafka: cfg, Layout: layout, Threshold: 5, Critical: 10, Transitions: []alert.State{alert.Opened, alert.Closed}, Drains: true,
		Address: "127.0.0.1:1", Log: logger(t), Registry: prometheus.NewRegistry(), Status: &ops.Status{}, Counts: &found})
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		if err := det.Run(rctx); err != nil {
			t.Error(err)
		}
	})
	began := time.Now()
	err = router.Run(ctx, router.Config{Kafka: cfg, Layout: layout, Events: format.Config{Fields: activity.DefaultFields()}, Window: 10 * time.Second, Lateness: 10 * time.Second,
		Instance: "r", Drain: drain, Log: logger(t), Registry: prometheus.NewRegistry(), Status: &ops.Status{}, Counts: &counts})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("routed in %v: %d counted, %d late", time.Since(began), counts.Counted.Load(), counts.Late.Load())
	want := ref.Result()
	var got []alert.Record
	ac, err := kgo.NewClient(cfg.Options(kgo.ConsumeTopics("alerts"))...)
	if err != nil {
		t.Fatal(err)
	}
	defer ac.Close()
	for len(got) < len(want) && ctx.Err() == nil {
		f := ac.PollFetches(ctx)
		f.EachRecord(func(r *kgo.Record) {
			var a alert.Record
			if err := json.Unmarshal(r.Value, &a); err != nil {
				t.Error(err)
			}
			if a.State == alert.Closed {
				got = append(got, a)
			}
		})
	}
	t.Logf("%d closed of %d after %v, %d opened", len(got), len(want), time.Since(began), found.Opened.Load())
	if d := verifier.Compare(want, got); d.Missing+d.Wrong+d.Extra > 0 {
		t.Errorf("%+v", d)
	}
	stop()
	began = time.Now()
	wg.Wait()
	t.Logf("detector stopped in %v", time.Since(began))
	if counts.In.Load() != n || counts.Counted.Load()+counts.Late.Load() != n {
		t.Errorf("in %d counted %d late %d", counts.In.Load(), counts.Counted.Load(), counts.Late.Load())
	}
}
