// Package appendtime makes kfake, the broker of `spate up` and of tests, stamp records with the time at which it appended them.
//
// kfake takes the topic setting message.timestamp.type=LogAppendTime and does not act on it: records keep the time that their producer
// claims. That time is too early for what a producer held back while it was stopped or had no broker, and it is no measure of an event
// that is too far ahead, for both times come from the same clock.
package appendtime

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Stamp makes the cluster stamp whatever is written to it from now on, in all topics. The records of a compressed batch keep their distance
// from each other: the newest gets the time of the append.
func Stamp(c *kfake.Cluster) {
	c.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		now := time.Now().UnixMilli()
		for _, t := range r.(*kmsg.ProduceRequest).Topics {
			for _, p := range t.Partitions {
				stamp(p.Records, now)
			}
		}
		return nil, nil, false // not handled: the cluster takes it from here
	})
}

// Places in a record batch, format 2.
const (
	atMagic      = 16
	atCRC        = 17
	atAttributes = 21 // from here on the checksum covers everything
	atFirst      = 27
	atMax        = 35
	atRecords    = 61
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stamp changes the times in a batch, not its length. What is no sound batch stays as it is, so that the broker refuses it.
//
// The batch does not get the attribute "log append time", with which its records' own times would not matter: kfake sets such a batch's
// times once more, to its own now, without a new checksum, and consumers refuse it.
func stamp(batch []byte, nowMS int64) {
	if len(batch) < atRecords || batch[atMagic] != 2 || binary.BigEndian.Uint32(batch[atCRC:]) != crc32.Checksum(batch[atAttributes:], castagnoli) {
		return
	}
	first := nowMS
	if compressed := batch[atAttributes+1]&7 != 0; compressed {
		span := int64(binary.BigEndian.Uint64(batch[atMax:]) - binary.BigEndian.Uint64(batch[atFirst:]))
		first -= min(max(span, 0), nowMS)
	} else {
		clearDeltas(batch[atRecords:])
	}
	binary.BigEndian.PutUint64(batch[atFirst:], uint64(first))
	binary.BigEndian.PutUint64(batch[atMax:], uint64(nowMS))
	binary.BigEndian.PutUint32(batch[atCRC:], crc32.Checksum(batch[atAttributes:], castagnoli))
}

// clearDeltas sets the time of each record, which is relative to the batch's first, to 0. A record is its length, a byte of attributes, the
// time, and what does not matter here. The 0 takes as many bytes as what was there.
func clearDeltas(records []byte) {
	for len(records) > 0 {
		length, n := binary.Varint(records)
		if n <= 0 || length < 1 || length > int64(len(records)-n) {
			return
		}
		record := records[n : n+int(length)]
		records = records[n+int(length):]
		_, n = binary.Varint(record[1:])
		if n <= 0 {
			return
		}
		for i := 1; i < n; i++ {
			record[i] = 0x80 // 0, and more follows
		}
		record[n] = 0
	}
}
