package router

import (
	"bytes"
	"context"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/window"
)

// Headers of records in the late and the dead-letter topic. Key and value are the event's own.
const (
	HeaderReason    = "spate-reason"
	HeaderTopic     = "spate-source-topic"
	HeaderPartition = "spate-source-partition"
	HeaderOffset    = "spate-source-offset"
	HeaderWindow    = "spate-window-start" // late: the window that was missed
	HeaderLateBy    = "spate-late-by-ms"   // late: by how much the watermark had passed the window's last instant
	HeaderNext      = "spate-next-offset"  // unreadable: the offset after the batch
	HeaderError     = "spate-error"        // unreadable: why it cannot be decoded
	HeaderTruncated = "spate-truncated"    // the length of a value that was too long to be kept whole
)

const (
	// maxValueBytes is how much of a value the side topics keep.
	maxValueBytes = 2 << 20
	// maxKeyBytes is how much of a key they keep.
	maxKeyBytes = 1 << 20
)

// maxHeaderBytes is how much of the headers of an event they keep.
const maxHeaderBytes = 64 << 10

// own returns the headers that an event's producer gave it, but for those that look like ours: what a reader of the side topics finds in those is
// spate's word.
func own(headers []kgo.RecordHeader) (out []kgo.RecordHeader) {
	n := 0
	for _, h := range headers {
		if n += len(h.Key) + len(h.Value); n > maxHeaderBytes {
			break
		}
		if !strings.HasPrefix(h.Key, "spate-") {
			out = append(out, kgo.RecordHeader{Key: strings.Clone(h.Key), Value: bytes.Clone(h.Value)})
		}
	}
	return out
}

// late sets aside an event that missed its window.
func (s *session) late(ctx context.Context, r *kgo.Record, f window.Fate, missed window.Missed) {
	out := s.aside(r, s.cfg.Layout.Names.Late, f.String())
	out.Headers = append(out.Headers,
		kgo.RecordHeader{Key: HeaderWindow, Value: strconv.AppendInt(nil, missed.StartMS, 10)},
		kgo.RecordHeader{Key: HeaderLateBy, Value: strconv.AppendInt(nil, missed.ByMS, 10)})
	s.produce(ctx, out)
}

// dead sets aside what is not an event.
func (s *session) dead(ctx context.Context, r *kgo.Record, reason activity.Reason) {
	s.produce(ctx, s.aside(r, s.cfg.Layout.Names.DLQ, string(reason)))
}

func (s *session) aside(r *kgo.Record, topic, reason string) *kgo.Record {
	out := &kgo.Record{
		Topic: topic, Key: r.Key, Value: r.Value,
		// By source partition, so that the order within it is kept.
		Partition: r.Partition % s.keyed,
		Headers: []kgo.RecordHeader{
			{Key: HeaderReason, Value: []byte(reason)},
			{Key: HeaderTopic, Value: []byte(r.Topic)},
			{Key: HeaderPartition, Value: strconv.AppendInt(nil, int64(r.Partition), 10)},
			{Key: HeaderOffset, Value: strconv.AppendInt(nil, r.Offset, 10)},
		},
	}
	out.Headers = append(out.Headers, own(r.Headers)...)
	if len(out.Value) > maxValueBytes || len(out.Key) > maxKeyBytes {
		out.Headers = append(out.Headers, kgo.RecordHeader{Key: HeaderTruncated, Value: strconv.AppendInt(nil, int64(len(out.Value)), 10)})
		out.Value, out.Key = out.Value[:min(len(out.Value), maxValueBytes)], out.Key[:min(len(out.Key), maxKeyBytes)]
	}
	// Not the record's own bytes: they would keep the whole batch that it came in, which may be a thousand times as large.
	out.Value, out.Key = bytes.Clone(out.Value), bytes.Clone(out.Key)
	s.tally.asideBytes += len(out.Value) + len(out.Key)
	return out
}
