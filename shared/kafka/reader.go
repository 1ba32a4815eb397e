package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrTopicChanged means that a topic is not the one that the session began with: it was deleted, made anew, has more partitions, or has lost
// its end. The session ends, and the next one takes the topics as they are.
var ErrTopicChanged = errors.New("topic has changed")

// TopicGone is the [ErrTopicChanged] of a topic that was deleted, and perhaps made anew.
type TopicGone struct{ Topic string }

// Error implements error.
func (e *TopicGone) Error() string {
	return fmt.Sprintf("%v: %s was deleted", ErrTopicChanged, e.Topic)
}

// Unwrap returns ErrTopicChanged.
func (e *TopicGone) Unwrap() error { return ErrTopicChanged }

// errDeleted is the cause of a gap of records that are gone.
var errDeleted = errors.New("deleted before being read")

// Gap is a stretch of a partition that nobody can read: a batch that is too large when decompressed, whose codec is unknown, or whose bytes
// are damaged. It is the same for every reader and stays so, so it is left out, counted and told. Or the records were deleted before this reader
// came to them.
type Gap struct {
	Topic     string
	Partition int32
	From, To  int64 // offsets; To is the next one that can be read
	Cause     error
	// Passed: the client has read on behind it already, and there is nothing to skip.
	Passed bool
	// Deleted: it is not known what the records were. The client has passed over them.
	Deleted bool
	// Aborted: the records are those of transactions that were aborted, and count for nothing. The client has passed over them.
	Aborted bool
}

// Reader polls a client that consumes one topic, in a way that nothing in the log stops a partition.
//
// The client stops at a batch that it cannot decode, and asks for it again for ever. The reader looks at that batch itself. If it is
// unreadable, it is a gap, which the caller leaves out with [Reader.Skip] when it has dealt with all that came before.
type Reader struct {
	cl    *kgo.Client
	adm   *kadm.Client
	topic string
	log   *slog.Logger
	pacer *pacer
	// Position returns the offset that a partition is read from next; -1 is not known.
	position func(partition int32) int64
	quiet    map[int32]int // polls in a row that had nothing of a partition that begins behind its position

	mu     sync.Mutex
	starts map[int32]int64 // where partitions begin, as last told
}

// quietPolls is how many polls have nothing of a partition before it is believed that the client holds nothing of what was deleted.
const quietPolls = 3

// pauseAfter is how long a poll waits after an error, so that one that stays does not spin.
const pauseAfter = 500 * time.Millisecond

// NewReader makes the client that the reader polls, with the given options. position tells the offset that a partition is read from next.
func (c Config) NewReader(topic string, log *slog.Logger, position func(partition int32) int64, connect func(opts ...kgo.Opt) (*kgo.Client, error), opts ...kgo.Opt) (*Reader, error) {
	p, err := newPacer(c.maxBatchBytes())
	if err != nil {
		return nil, err
	}
	cl, err := connect(c.Options(append([]kgo.Opt{kgo.WithLogger(Logger(log)), kgo.WithDecompressor(p)}, opts...)...)...)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &Reader{cl: cl, adm: kadm.NewClient(cl), topic: topic, log: log, pacer: p, position: position, quiet: make(map[int32]int)}, nil
}

// Client is the client that is polled.
func (r *Reader) Client() *kgo.Client { return r.cl }

// Poll returns what has been fetched, nothing if ctx ends before, and the gaps at which partitions have come to stand. The error is one that
// ends the session. Other faults are the client's to mend: they are logged, and cost a pause.
func (r *Reader) Poll(ctx context.Context, records int) (kgo.Fetches, []Gap, error) {
	f := r.cl.PollRecords(ctx, records)
	r.pacer.polled()
	if f.IsClientClosed() {
		return nil, nil, kgo.ErrClientClosed
	}
	gaps := append(r.deleted(f), r.passed(ctx, f)...)
	faulty := false
	for _, e := range f.Errors() {
		var large *kgo.ErrDecompressTooLarge
		var broker *kerr.Error
		var group *kgo.ErrGroupSession
		var loss *kgo.ErrDataLoss
		switch {
		case errors.Is(e.Err, context.DeadlineExceeded), errors.Is(e.Err, context.Canceled), errors.Is(e.Err, errPaced):
		case errors.As(e.Err, &group):
			name, _ := r.cl.OptValue(kgo.ConsumerGroup).(string)
			return nil, nil, fmt.Errorf("join the consumer group for topic %s: %w", r.topic, Explain(group.Err, Right{Operation: "Read", Resource: "group", Name: name}))
		case errors.Is(e.Err, kerr.TopicAuthorizationFailed), errors.Is(e.Err, kerr.SaslAuthenticationFailed):
			return nil, nil, fmt.Errorf("read %s: %w", r.topic, Explain(e.Err, Right{Operation: "Read", Resource: "topic", Name: r.topic}))
		case errors.Is(e.Err, kerr.UnknownTopicID), errors.Is(e.Err, kerr.UnknownTopicOrPartition):
			return nil, nil, &TopicGone{Topic: r.topic}
		case errors.As(e.Err, &loss) && loss.ResetTo < r.position(e.Partition):
			return nil, nil, fmt.Errorf("%w: %w", ErrTopicChanged, e.Err) // what is read again is not to be counted again
		case errors.As(e.Err, &large):
			gaps = append(gaps, Gap{Topic: e.Topic, Partition: e.Partition, From: large.Offset, To: large.NextOffset, Cause: e.Err})
		case errors.As(e.Err, &broker):
			faulty = true
			r.log.Warn("broker cannot read a partition, retrying", "topic", e.Topic, "partition", e.Partition, "offset", r.position(e.Partition), "error", e.Err)
		default:
			if g, ok, err := r.Probe(ctx, e.Partition); ok {
				gaps = append(gaps, g)
			} else {
				faulty = true
				r.log.Warn("fetch", "topic", e.Topic, "partition", e.Partition, "offset", r.position(e.Partition), "error", errors.Join(e.Err, err))
			}
		}
	}
	if faulty && f.NumRecords() == 0 {
		_ = pause(ctx, pauseAfter) // the end of ctx is the caller's to see
	}
	return f, gaps, nil
}

// Begins tells where partitions begin, so that what was deleted is found in those, too, that get nothing more. It may be called while others
// poll.
func (r *Reader) Begins(bounds map[int32]Bounds) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starts = make(map[int32]int64, len(bounds))
	for p, b := range bounds {
		r.starts[p] = b.Start
	}
}

// deleted finds what the log has no more: the client reads on where it begins now, and says nothing. What was fetched before it was deleted
// is not lost.
func (r *Reader) deleted(f kgo.Fetches) (gaps []Gap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	starts := maps.Clone(r.starts)
	lost := func(p int32, from, to int64) {
		gaps = append(gaps, Gap{Topic: r.topic, Partition: p, From: from, To: to, Cause: errDeleted, Passed: true, Deleted: true})
	}
	f.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) == 0 {
			return
		}
		delete(starts, p.Partition)
		delete(r.quiet, p.Partition)
		if at := r.position(p.Partition); at >= 0 && at < p.LogStartOffset && p.LogStartOffset <= p.Records[0].Offset {
			lost(p.Partition, at, p.LogStartOffset)
		}
	})
	for p, start := range starts {
		at := r.position(p)
		if at < 0 || at >= start {
			delete(r.quiet, p)
		} else if r.quiet[p]++; r.quiet[p] >= quietPolls {
			lost(p, at, start)
			delete(r.quiet, p)
		}
	}
	return gaps
}

// passed finds what the client has left out without a word: records that a batch claims and does not have, if more batches follow. Offsets that
// are missing are looked for in the log, for mostly they are those of an aborted transaction.
func (r *Reader) passed(ctx context.Context, f kgo.Fetches) (gaps []Gap) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), examineTime) // a poll has less time than that
	defer cancel()
	f.EachPartition(func(p kgo.FetchTopicPartition) {
		at := r.position(p.Partition)
		n := len(p.Records)
		if at < 0 || n == 0 || p.Records[n-1].Offset-at+1 <= int64(n) {
			return
		}
		var looked []byte // batches that were fetched for the stretch before
		for _, rec := range p.Records {
			if from := max(at, p.LogStartOffset); rec.Offset > from {
				found, err := r.examine(ctx, p.Partition, from, rec.Offset, &looked)
				if gaps = append(gaps, found...); err != nil {
					r.log.Warn("records were skipped for an unknown reason", "topic", p.Topic, "partition", p.Partition, "from", from, "to", rec.Offset, "error", err)
				}
			}
			at = rec.Offset + 1
		}
	})
	return gaps
}

// examine returns what cannot be read of the offsets from one to before another. looked are batches that were fetched, and may go on into this
// stretch; what is left of them is for the next one.
func (r *Reader) examine(ctx context.Context, partition int32, from, to int64, looked *[]byte) (gaps []Gap, err error) {
	fetched := false
	for from < to {
		data := *looked
		size := int64(0)
		if len(data) >= batchHeader {
			size = 12 + int64(binary.BigEndian.Uint32(data[8:]))
		}
		if size == 0 || size > int64(len(data)) { // the fetch was cut there
			if fetched {
				return gaps, fmt.Errorf("no batch at offset %d", from)
			}
			if *looked, err = r.fetch(ctx, partition, from, examineBytes); err != nil {
				return gaps, err
			}
			fetched = true
			continue
		}
		next, err := r.decode(partition, data[:size])
		if next > from && err != nil {
			gaps = append(gaps, Gap{Topic: r.topic, Partition: partition, From: from, To: min(next, to), Cause: err, Passed: true})
		}
		if next > from {
			from, fetched = next, false
		}
		if next > to {
			break // it goes on behind
		}
		*looked = data[size:]
	}
	return gaps, nil
}

// Skip makes the client read a partition on after a gap. What came before the gap must be dealt with: for the client, everything up to its
// end counts as read.
func (r *Reader) Skip(g Gap) {
	r.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{g.Topic: {g.Partition: {Epoch: -1, Offset: g.To}}})
}

const (
	// examineTime is what finding out about missing offsets may take of a poll. It is for the account only, and whoever polls has a transaction
	// to end: what was not looked at then is told as that.
	examineTime = 2 * time.Second
	// examineBytes are fetched at once: there may be thousands of batches of an aborted transaction.
	examineBytes = 4 << 20
)

// probeTime bounds how long the broker may take to hand a batch out.
const probeTime = 5 * time.Second

// Probe looks at the batches of a partition from its position on. It reports whether the first one that does not lie before the position is
// unreadable, or whether nothing follows but aborted transactions.
func (r *Reader) Probe(ctx context.Context, partition int32) (Gap, bool, error) {
	at := r.position(partition)
	if at < 0 {
		return Gap{}, false, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTime) // a poll has less time than that
	defer cancel()
	data, err := r.fetch(ctx, partition, at, 1) // a broker returns one batch at least
	if err != nil {
		return Gap{}, false, fmt.Errorf("examine the batch at offset %d: %w", at, err)
	}
	for len(data) >= batchHeader {
		size := 12 + int64(binary.BigEndian.Uint32(data[8:]))
		if size > int64(len(data)) { // the fetch was cut there
			break
		}
		next, err := r.decode(partition, data[:size])
		if next > at && err != nil {
			return Gap{Topic: r.topic, Partition: partition, From: at, To: next, Cause: err}, true, nil
		}
		if next > at {
			next, err := r.past(ctx, partition, at)
			return Gap{Topic: r.topic, Partition: partition, From: at, To: next, Passed: true, Aborted: true}, next > at, err
		}
		data = data[size:]
	}
	return Gap{}, false, nil
}

// batchHeader is the length of what precedes the records of a batch: offset, length, leader's epoch, magic, checksum, attributes, last
// offset's delta and so on.
const batchHeader = 61

// decode returns the offset after a batch, and an error that says why it is unreadable.
func (r *Reader) decode(partition int32, batch []byte) (next int64, err error) {
	first := int64(binary.BigEndian.Uint64(batch))
	claimed := 1
	if batch[16] == 2 {
		delta := int32(binary.BigEndian.Uint32(batch[23:]))
		claimed = int(int32(binary.BigEndian.Uint32(batch[57:])))
		next = first + int64(max(delta, 0)) + 1
	} else {
		next = first + 1 // a message of before Kafka 0.11
	}
	p := kmsg.NewFetchResponseTopicPartition()
	p.Partition, p.RecordBatches = partition, batch
	f, reached := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: first, KeepControlRecords: true, Topic: r.topic, Partition: partition}, &p, r.pacer, nil)
	r.pacer.polled()
	switch {
	case f.Err != nil:
		return next, f.Err
	case reached < next:
		return next, fmt.Errorf("only %d of %d records can be decoded", len(f.Records), claimed)
	}
	return max(next, reached), nil
}

// past returns the offset after the batches of aborted transactions that begin at an offset, or the offset itself if no such batch begins there. A transaction
// usually ends with a mark, which the client hands out. A broker that was killed aborts what was open without one.
func (r *Reader) past(ctx context.Context, partition int32, at int64) (int64, error) {
	p, err := r.fetchPartition(ctx, partition, at, examineBytes, committedOnly)
	if err != nil {
		return at, err
	}
	f, reached := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: at, IsolationLevel: kgo.ReadCommitted(), KeepControlRecords: true, Topic: r.topic, Partition: partition}, &p, r.pacer, nil)
	r.pacer.polled()
	if f.Err != nil || len(f.Records) > 0 {
		return at, f.Err
	}
	return max(at, reached), nil
}

// fetch returns bytes of a partition from the batch that has the offset on, some of which may be of a batch that is cut.
func (r *Reader) fetch(ctx context.Context, partition int32, at int64, most int32) ([]byte, error) {
	p, err := r.fetchPartition(ctx, partition, at, most, 0)
	return p.RecordBatches, err
}

// committedOnly is the isolation level of a fetch whose answer tells which transactions were aborted.
const committedOnly = 1

func (r *Reader) fetchPartition(ctx context.Context, partition int32, at int64, most int32, isolation int8) (none kmsg.FetchResponseTopicPartition, err error) {
	found, err := r.adm.ListTopics(ctx, r.topic)
	if err != nil {
		return none, err
	}
	d := found[r.topic]
	leader, ok := d.Partitions[partition]
	if !ok {
		return none, kerr.UnknownTopicOrPartition
	}
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, at, most
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID, t.Partitions = r.topic, d.ID, []kmsg.FetchRequestTopicPartition{p}
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes, req.SessionEpoch, req.IsolationLevel, req.Topics = most, -1, isolation, []kmsg.FetchRequestTopic{t}
	resp, err := req.RequestWith(ctx, r.cl.Broker(int(leader.Leader)))
	if err != nil {
		return none, err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return none, err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.Partition == partition {
				return p, kerr.ErrorForCode(p.ErrorCode)
			}
		}
	}
	return none, kerr.UnknownTopicOrPartition
}
