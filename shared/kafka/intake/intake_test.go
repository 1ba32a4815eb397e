package intake

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/kafka"
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
			Mend(c)
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

// TestCheck: a batch is refused, with all that came with it, unless it has the records that it claims.
func TestCheck(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "events"), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := Check(c); err != nil {
		t.Fatal(err)
	}
	Mend(c)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()

	record := (&kmsg.Record{Length: 7, Value: []byte("v")}).AppendTo(nil)
	spaces := bytes.Repeat([]byte(" "), 60_000_000)
	for name, test := range map[string]struct {
		records []byte
		codec   kgo.CompressionCodec
		raw     bool // records are not to be compressed, only said to be
		count   int32
		refused bool
	}{
		"one":                    {record, kgo.NoCompression(), false, 1, false},
		"one, zstd":              {record, kgo.ZstdCompression(), false, 1, false},
		"three, gzip":            {bytes.Repeat(record, 3), kgo.GzipCompression(), false, 3, false},
		"one more claimed":       {record, kgo.NoCompression(), false, 2, true},
		"one less claimed":       {bytes.Repeat(record, 2), kgo.Lz4Compression(), false, 1, true},
		"none":                   {nil, kgo.NoCompression(), false, 1, true},
		"half a record":          {record[:4], kgo.SnappyCompression(), false, 1, true},
		"bytes behind":           {append(bytes.Clone(record), 0), kgo.NoCompression(), false, 1, true},
		"empty records":          {make([]byte, 3), kgo.NoCompression(), false, 3, true},
		"60 million in 60 MB":    {spaces, kgo.ZstdCompression(), false, 60_000_000, true},
		"not compressed at all":  {record, kgo.ZstdCompression(), true, 1, true},
		"too large to be looked": {make([]byte, kafka.DefaultMaxBatchBytes+1), kgo.ZstdCompression(), false, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			bad := batch(t, test.records, test.codec, test.raw, test.count)
			if len(bad) > 1<<20 {
				t.Fatalf("%d bytes", len(bad))
			}
			good := batch(t, record, kgo.NoCompression(), false, 1)
			codes := produce(t, cl, good, bad)
			want := int16(0)
			if test.refused {
				want = kerr.InvalidRecord.Code
			}
			for p, code := range codes {
				if code != want {
					t.Errorf("partition %d: code %d, want %d", p, code, want)
				}
			}
		})
	}
}

// batch is one of the records, as a producer would send it.
func batch(t *testing.T, records []byte, codec kgo.CompressionCodec, raw bool, count int32) []byte {
	t.Helper()
	comp, err := kgo.DefaultCompressor(codec)
	if err != nil {
		t.Fatal(err)
	}
	b := kmsg.RecordBatch{PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: count - 1, NumRecords: count, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, Records: records}
	if comp != nil {
		out, kind := comp.Compress(new(bytes.Buffer), records)
		if b.Attributes = int16(kind); !raw {
			b.Records = out
		}
	}
	out := b.AppendTo(nil)
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-12))
	binary.BigEndian.PutUint32(out[atCRC:], crc32.Checksum(out[atAttributes:], castagnoli))
	return out
}

// produce sends the batches in one request, one for each partition, and returns the codes of the answer.
func produce(t *testing.T, cl *kgo.Client, batches ...[]byte) map[int32]int16 {
	t.Helper()
	req, topic := kmsg.NewPtrProduceRequest(), kmsg.NewProduceRequestTopic()
	req.Acks, req.TimeoutMillis, topic.Topic = -1, 5000, "events"
	meta, err := kmsg.NewPtrMetadataRequest().RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	topic.TopicID = meta.Topics[0].TopicID
	for i, b := range batches {
		topic.Partitions = append(topic.Partitions, kmsg.ProduceRequestTopicPartition{Partition: int32(i), Records: b})
	}
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	codes := make(map[int32]int16)
	for _, p := range resp.Topics[0].Partitions {
		codes[p.Partition] = p.ErrorCode
	}
	if len(codes) != len(batches) {
		t.Fatalf("%d answers for %d batches", len(codes), len(batches))
	}
	return codes
}

func FuzzStamp(f *testing.F) {
	f.Add(make([]byte, atRecords), int64(0))
	f.Fuzz(func(_ *testing.T, batch []byte, now int64) {
		clearDeltas(batch)
		stamp(batch, now)
	})
}
