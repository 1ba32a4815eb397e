package query

import (
	"context"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Topic is one of the topics of a pipeline.
type Topic string

// The topics that have events.
const (
	Activity Topic = "activity"
	Late     Topic = "late"
	DLQ      Topic = "dlq"
)

// Record is one of a log.
type Record struct {
	Partition int32
	Offset    int64
	// AppendedMS is when the log took it; 0 if that is not known, as for files. Claimed: its producer says so, and not the log.
	AppendedMS int64
	Claimed    bool
	Key, Value []byte
	Headers    []kgo.RecordHeader
}

// Range is a part of a topic: all bounds are inclusive.
type Range struct {
	FromPartition, ToPartition int32
	FromOffset, ToOffset       int64
	// FromMS and ToMS bound the append time. A log may hand over more, never less.
	FromMS, ToMS int64
	// Follow goes on behind the end of the log, until the context ends. The callback is called without records while nothing comes.
	Follow bool
	// Silence is after which a partition is silent, for who follows; 0 is never. The log finds out sooner than that whether it can be reached at all.
	Silence time.Duration
}

// Everything is the whole of a topic.
func Everything() Range {
	return Range{ToPartition: math.MaxInt32, ToOffset: math.MaxInt64, FromMS: math.MinInt64, ToMS: math.MaxInt64}
}

// empty reports whether nothing can be in the range.
func (r Range) empty() bool {
	return r.FromPartition > r.ToPartition || r.FromOffset > r.ToOffset || r.FromMS > r.ToMS
}

// Log is where events are.
type Log interface {
	// Topics are those that the log has.
	Topics() []Topic
	// Times reports whether records have an append time.
	Times() bool
	// Partitions is how many partitions a topic has.
	Partitions(ctx context.Context, t Topic) (int32, error)
	// Size is how many records a topic has.
	Size(ctx context.Context, t Topic) (int64, error)
	// Read hands over the records of a range, those of each partition in their order, and returns after the last that was there when it was called. Records are
	// valid until the callback returns, whose error ends the reading and is returned. What cannot be read is told to note, and left out.
	Read(ctx context.Context, t Topic, r Range, note func(string), take func([]Record) error) error
}
