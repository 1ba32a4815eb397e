package intake

import (
	"bytes"
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestAbortedIsNeverRead: whoever reads committed records reads no aborted one, however little fits into a response.
func TestAbortedIsNeverRead(t *testing.T) {
	t.Parallel()
	const partitions, each, size = 3, 12, 10_000
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	Mend(c)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i, end := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.TransactionalID(string(rune('a'+i))), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		value := bytes.Repeat([]byte{"ac"[i]}, size)
		for range each { // a batch each
			for p := range int32(partitions) {
				if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "t", Partition: p, Value: value}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cl.EndTransaction(ctx, end); err != nil {
			t.Fatal(err)
		}
	}
	for _, most := range []int32{1, 2 * size, 5 * size, 20 * size} {
		for name, opts := range map[string][]kgo.Opt{"sessions": nil, "no sessions": {kgo.DisableFetchSessions()}} {
			cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics("t"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxBytes(most))...)
			if err != nil {
				t.Fatal(err)
			}
			committed := 0
			for committed < partitions*each {
				f := cl.PollFetches(ctx)
				if err := f.Err(); err != nil {
					t.Fatalf("%d bytes, %s, %d of %d committed records: %v", most, name, committed, partitions*each, err)
				}
				f.EachRecord(func(r *kgo.Record) {
					if committed++; strings.HasPrefix(string(r.Value), "a") {
						t.Fatalf("%d bytes, %s: a record of partition %d was aborted, and is read", most, name, r.Partition)
					}
				})
			}
			cl.Close()
		}
	}
}

// TestShare: what partitions may return fits into the response, and the first ones always may return a batch.
func TestShare(t *testing.T) {
	for name, c := range map[string]struct {
		most int32
		own  []int32
		want []int32
	}{
		"room for all":            {50 << 20, []int32{1 << 20, 2 << 20}, []int32{1 << 20, 2 << 20}},
		"shares":                  {8 << 20, []int32{100 << 20, 100 << 20, 1 << 20, 100 << 20}, []int32{2 << 20, 2 << 20, 1 << 20, 2 << 20}},
		"more than there is room": {2 << 20, []int32{5 << 20, 5 << 20, 5 << 20, 5 << 20}, []int32{1 << 20, 1 << 20, 1, 1}},
		"nearly nothing":          {1, []int32{5 << 20, 5 << 20}, []int32{1, 1}},
		"nothing sensible":        {-1, []int32{-1, 0, math.MaxInt32}, []int32{-1, 0, 1}},
	} {
		r := kmsg.NewPtrFetchRequest()
		r.MaxBytes, r.SessionID, r.SessionEpoch = c.most, 0, 0
		topic := kmsg.NewFetchRequestTopic()
		for _, own := range c.own {
			p := kmsg.NewFetchRequestTopicPartition()
			p.PartitionMaxBytes = own
			topic.Partitions = append(topic.Partitions, p)
		}
		r.Topics = append(r.Topics, topic)
		for range 2 { // a request that waits for records is looked at again
			share(r)
			for i, p := range r.Topics[0].Partitions {
				if p.PartitionMaxBytes != c.want[i] {
					t.Errorf("%s: partition %d may return %d bytes, want %d", name, i, p.PartitionMaxBytes, c.want[i])
				}
			}
		}
		if r.SessionEpoch != -1 || r.MaxBytes != math.MaxInt32 {
			t.Errorf("%s: epoch %d, %d bytes", name, r.SessionEpoch, r.MaxBytes)
		}
	}
}
