package explainer

import (
	"bytes"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
	"spate/shared/rule"
	"spate/shared/window"
)

// TestFind: of a log whose batches are a minute each, as when a backlog is routed, those around the time that was asked about are found exactly. Source partition 1 is behind 0.
func TestFind(t *testing.T) {
	names := kafka.NamesFor("activity")
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, names.Keyed))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	k := &Kafka{Config: kafka.Config{Brokers: cluster.ListenAddrs()}, Names: names}
	cl, err := k.client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	const minutes, behind, perMinute = 1000, 3, 100
	at := func(minute int) time.Time { return time.UnixMilli(int64(minute) * 60_000).UTC() }
	combiner := window.NewCombiner(window.Stream{Plan: &rule.Plan{}})
	for i := range minutes {
		h := window.Header{Sources: 2}
		for p, minute := range []int{i, max(0, i-behind)} {
			newest := at(minute).UnixMilli()
			h.Watermarks = append(h.Watermarks, window.Watermark{Partition: int32(p), WatermarkMS: newest - 10_000})
			h.Progress = append(h.Progress, window.Progress{Partition: int32(p), Next: int64(minute * perMinute), NewestMS: newest})
		}
		combiner.Flush(1, nil, h, func(_ int32, batch []byte) {
			cl.Produce(t.Context(), &kgo.Record{Topic: names.Keyed, Value: bytes.Clone(batch)}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		})
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, minute := range []int{10, 500, 777, 990} {
		f := &Facts{}
		s, err := k.find(t.Context(), cl, kadm.NewClient(cl), at(minute), at(minute+1), f)
		if err != nil || len(f.Notes) > 0 {
			t.Fatal(err, f.Notes)
		}
		last, over := int64((minute-1)*perMinute), int64((minute+2)*perMinute) // its watermark is ten seconds behind
		if s.from[0] != last || s.from[1] > last || s.from[1] < last-behind*perMinute {
			t.Errorf("minute %d: events are read from %v on, want from %d", minute, s.from, last)
		}
		if s.until[1] != over || s.until[0] < over || s.until[0] > over+behind*perMinute {
			t.Errorf("minute %d: events are read up to %v, want %d", minute, s.until, over)
		}
	}
}
