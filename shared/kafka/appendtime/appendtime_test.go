package appendtime

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestStamp: records come back as they were sent, at the time at which the broker took them and not at that which their producer claims.
func TestStamp(t *testing.T) {
	t.Parallel()
	claims := []time.Time{time.Unix(0, 0), time.Now().Add(-time.Hour), time.Now().Add(time.Minute), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}
	for name, codec := range map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "zstd": kgo.ZstdCompression()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "events"), kfake.DataDir(t.TempDir()))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			Stamp(c)
			cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("events"), kgo.ConsumeTopics("events"), kgo.ProducerBatchCompression(codec))
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()

			before := time.Now().Truncate(time.Millisecond)
			var sent []*kgo.Record
			for i, at := range claims {
				sent = append(sent, &kgo.Record{Key: fmt.Append(nil, i), Value: fmt.Appendf(nil, "event %d", i), Timestamp: at})
			}
			if err := cl.ProduceSync(ctx, sent...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			after := time.Now()

			var got []*kgo.Record
			for len(got) < len(sent) {
				f := cl.PollFetches(ctx)
				if err := f.Err(); err != nil {
					t.Fatal(err)
				}
				got = append(got, f.Records()...)
			}
			for i, r := range got {
				if string(r.Key) != string(sent[i].Key) || string(r.Value) != string(sent[i].Value) {
					t.Errorf("record %d came back as %q: %q", i, r.Key, r.Value)
				}
				if r.Timestamp.After(after) || r.Timestamp.Before(before) && name == "none" {
					t.Errorf("record %d claims %v, was appended between %v and %v and has %v", i, claims[i], before, after, r.Timestamp)
				}
			}
			if newest := got[len(got)-1].Timestamp; newest.Before(before) {
				t.Errorf("the newest record was appended after %v and has %v", before, newest)
			}
		})
	}
}

func FuzzStamp(f *testing.F) {
	f.Add(make([]byte, atRecords), int64(0))
	f.Fuzz(func(_ *testing.T, batch []byte, now int64) {
		clearDeltas(batch)
		stamp(batch, now)
	})
}
