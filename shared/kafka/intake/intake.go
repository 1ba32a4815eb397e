// Package intake does what Kafka does and kfake, the broker of `spate up` and of the tests, does not: it stamps and checks the batches that producers send, and
// says in every response to a consumer which transactions were aborted.
//
// kfake accepts the topic setting message.timestamp.type=LogAppendTime but ignores it: records keep the time that their producer
// claims. That time is too early for records that a producer held back while it was stopped or had no broker, and it cannot show that an
// event is too far ahead, because both times come from the same clock.
//
// It also trusts the number of records that a batch claims, as clients do: they allocate about 200 bytes for each record before they look at
// the records. A batch of 2 KB that decompresses to 60 MB of spaces and claims 60,000,000 records costs every reader 8.6 GB.
package intake

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/kafka"
)

// Mend makes the cluster stamp what is written to it from now on, in all topics, and name the aborted transactions in every response to a fetch.
func Mend(c *kfake.Cluster) {
	stampAll(c)
	complete(c)
}

// stampAll makes the cluster stamp batches. The records of a compressed batch keep their distance from each other: the newest gets the time of the append.
func stampAll(c *kfake.Cluster) {
	Watch(c, nil, func(r kmsg.Request) bool {
		now := time.Now().UnixMilli()
		each(r, func(batch []byte) { stamp(batch, now) })
		return false
	}, kmsg.Produce)
}

// Check makes the cluster refuse a request from now on if one of its batches does not have the records that it claims, or cannot be
// decompressed. A batch that takes more than [kafka.DefaultMaxBatchBytes] when decompressed passes, as Kafka has no such limit: readers leave
// it out.
func Check(c *kfake.Cluster) error {
	d, err := kafka.NewDecompressor(kafka.DefaultMaxBatchBytes)
	if err != nil {
		return fmt.Errorf("check batches: %w", err)
	}
	refusal := &kerr.Error{Code: kerr.InvalidRecord.Code}
	Watch(c, refusal, func(r kmsg.Request) bool {
		var all error
		each(r, func(batch []byte) {
			if err := check(batch, d); err != nil {
				all = err
			}
		})
		if all != nil {
			refusal.Message = all.Error() // read by the goroutine that calls this function, and by no other
		}
		return all != nil
	}, kmsg.Produce)
	return nil
}

// Watch calls look with each request of the given keys, or of every key if none is given, before the cluster acts on it. If look returns true, the
// cluster answers with refusal instead.
//
// It is a fault and no control, for a control keeps the last request of every connection that there ever was.
func Watch(c *kfake.Cluster, refusal *kerr.Error, look func(kmsg.Request) bool, keys ...kmsg.Key) {
	// The cluster asks for every topic and partition of a request, always on one goroutine, and all of them have one answer.
	var last kmsg.Request
	var refused bool
	c.Fault(kfake.Fault{Keys: keys, Err: refusal, Count: -1, When: func(r kmsg.Request) bool {
		if r != last {
			last, refused = r, look(r)
		}
		return refused
	}})
}

func each(r kmsg.Request, f func(batch []byte)) {
	for _, t := range r.(*kmsg.ProduceRequest).Topics {
		for _, p := range t.Partitions {
			f(p.Records)
		}
	}
}

// Places in a record batch, format 2.
const (
	atMagic      = 16
	atCRC        = 17
	atAttributes = 21 // from here on the checksum covers everything
	atFirst      = 27
	atMax        = 35
	atCount      = 57
	atRecords    = 61
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sound reports whether the header of a batch can be believed. kfake refuses a batch that is not, and one whose offsets are not those of its
// count.
func sound(batch []byte) bool {
	return len(batch) >= atRecords && batch[atMagic] == 2 && binary.BigEndian.Uint32(batch[atCRC:]) == crc32.Checksum(batch[atAttributes:], castagnoli)
}

func codec(batch []byte) kgo.CompressionCodecType {
	return kgo.CompressionCodecType(batch[atAttributes+1] & 7)
}

// check returns why a batch is to be refused that kfake would take.
func check(batch []byte, d kgo.Decompressor) error {
	if !sound(batch) {
		return nil
	}
	records := batch[atRecords:]
	if codec(batch) != kgo.CodecNone {
		var err error
		if records, err = d.Decompress(records, codec(batch)); errors.Is(err, kgo.ErrMaxDecompress) {
			return nil
		} else if err != nil {
			return fmt.Errorf("decompress a batch: %w", err)
		}
	}
	n, claimed := 0, int(int32(binary.BigEndian.Uint32(batch[atCount:])))
	for {
		_, rest, ok := kafka.NextRecord(records)
		if !ok {
			break
		}
		records = rest
		n++
	}
	if n != claimed || len(records) > 0 {
		return fmt.Errorf("a batch claims to have %d records but has %d, followed by %d extra bytes", claimed, n, len(records))
	}
	return nil
}

// stamp changes the times in a batch, not its length. What is not a sound batch stays as it is, so that the broker refuses it.
//
// The batch does not get the attribute "log append time", with which its records' own times would not matter: kfake sets such a batch's
// times once more, to its own now, without a new checksum, and consumers refuse it.
func stamp(batch []byte, nowMS int64) {
	if !sound(batch) {
		return
	}
	first := nowMS
	if codec(batch) != kgo.CodecNone {
		span := int64(binary.BigEndian.Uint64(batch[atMax:]) - binary.BigEndian.Uint64(batch[atFirst:]))
		first -= min(max(span, 0), nowMS)
	} else {
		clearDeltas(batch[atRecords:])
	}
	binary.BigEndian.PutUint64(batch[atFirst:], uint64(first))
	binary.BigEndian.PutUint64(batch[atMax:], uint64(nowMS))
	binary.BigEndian.PutUint32(batch[atCRC:], crc32.Checksum(batch[atAttributes:], castagnoli))
}

// clearDeltas sets the time of each record, which is relative to the batch's first, to 0. A record is a byte of attributes, the time, and what
// does not matter here. The 0 takes as many bytes as what was there.
func clearDeltas(records []byte) {
	for {
		record, rest, ok := kafka.NextRecord(records)
		if !ok {
			return
		}
		records = rest
		_, n := binary.Varint(record[1:])
		if n <= 0 {
			return
		}
		for i := 1; i < n; i++ {
			record[i] = 0x80 // 0, and more follows
		}
		record[n] = 0
	}
}
