package harness

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Batch is a batch of records that no honest producer writes.
type Batch struct {
	// Codec is what the attributes say. Records are compressed if it is one that exists.
	Codec kgo.CompressionCodecType
	// Records are how many records there are, Size the bytes of each one's value, which is blank.
	Records, Size int
	// Claims is the number of records that the header has; 0 is the true one.
	Claims int
	// Damaged: what should be compressed records is something else.
	Damaged bool
	// BadCRC: the checksum is not that of the batch.
	BadCRC bool
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sealed repairs the checksum of an encoded batch.
func Sealed(batch []byte) []byte {
	binary.BigEndian.PutUint32(batch[17:], crc32.Checksum(batch[21:], castagnoli))
	return batch
}

// Encode returns the batch as it is on the wire.
func (b Batch) Encode(t *testing.T) []byte {
	t.Helper()
	claims, now := b.Claims, time.Now().UnixMilli()
	if claims == 0 {
		claims = b.Records
	}
	payload := b.payload(t)
	out := kmsg.RecordBatch{
		Length: int32(49 + len(payload)), PartitionLeaderEpoch: -1, Magic: 2, Attributes: int16(b.Codec), LastOffsetDelta: int32(claims - 1),
		FirstTimestamp: now, MaxTimestamp: now, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(claims), Records: payload,
	}
	wire := Sealed(out.AppendTo(nil))
	if b.BadCRC {
		wire[17]++
	}
	return wire
}

func (b Batch) payload(t *testing.T) []byte {
	t.Helper()
	if b.Damaged {
		return []byte("these are not the records that you are looking for")
	}
	var records []byte
	value := bytes.Repeat([]byte(" "), b.Size)
	for i := range b.Records {
		head := binary.AppendVarint([]byte{0, 0}, int64(i)) // attributes, time, offset
		head = binary.AppendVarint(append(head, 1), int64(b.Size))
		records = binary.AppendVarint(records, int64(len(head)+b.Size+1))
		records = append(append(append(records, head...), value...), 0)
	}
	var codec kgo.CompressionCodec
	switch b.Codec {
	case kgo.CodecGzip:
		codec = kgo.GzipCompression()
	case kgo.CodecZstd:
		codec = kgo.ZstdCompression()
	default:
		return records
	}
	c, err := kgo.DefaultCompressor(codec)
	if err != nil {
		t.Fatal(err)
	}
	small, _ := c.Compress(new(bytes.Buffer), records)
	return bytes.Clone(small)
}

// SendBatch writes an encoded batch as it is. It returns the offset of its first record, or why the broker refuses it.
func SendBatch(t *testing.T, cl *kgo.Client, topic string, partition int32, batch []byte) (int64, error) {
	t.Helper()
	return SendTransactional(t, cl, "", topic, partition, batch)
}

// SendTransactional is [SendBatch] for a batch that says that it is part of a transaction.
func SendTransactional(t *testing.T, cl *kgo.Client, transaction, topic string, partition int32, batch []byte) (int64, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		offset, err := sendBatch(ctx, cl, transaction, topic, partition, batch)
		if !errors.Is(err, kerr.NotLeaderForPartition) && !errors.Is(err, kerr.LeaderNotAvailable) && !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return offset, err
		}
		select { // a topic that was just made
		case <-tick.C:
		case <-ctx.Done():
			return offset, err
		}
	}
}

func sendBatch(ctx context.Context, cl *kgo.Client, transaction, topic string, partition int32, batch []byte) (int64, error) {
	leader, id, err := leaderOf(ctx, cl, topic, partition)
	if err != nil {
		return 0, err
	}
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, batch
	tp := kmsg.NewProduceRequestTopic()
	tp.Topic, tp.TopicID, tp.Partitions = topic, id, []kmsg.ProduceRequestTopicPartition{p}
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis, req.Topics = -1, 30_000, []kmsg.ProduceRequestTopic{tp}
	if transaction != "" {
		req.TransactionID = &transaction
	}
	r, err := cl.Broker(int(leader)).Request(ctx, req)
	if err != nil {
		return 0, fmt.Errorf("send a batch to %s: %w", topic, err)
	}
	answer := r.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return 0, fmt.Errorf("send a batch to %s: %w", topic, err)
	}
	return answer.BaseOffset, nil
}

// leaderOf asks the broker; an admin client may answer from what it remembers.
func leaderOf(ctx context.Context, cl *kgo.Client, topic string, partition int32) (leader int32, id [16]byte, err error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return 0, id, fmt.Errorf("find the leader of %s: %w", topic, err)
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.Partition == partition {
				return p.Leader, t.TopicID, kerr.ErrorForCode(p.ErrorCode)
			}
		}
	}
	return 0, id, fmt.Errorf("find the leader of %s: %w", topic, kerr.UnknownTopicOrPartition)
}
