package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"spate/shared/aws/cloud"
)

// What Kinesis takes in one call of PutRecords. Sizes are those of the data and the partition keys, before the SDK encodes them.
const (
	MaxRecords    = 500
	MaxCallBytes  = 5 << 20
	MaxEntryBytes = 1 << 20
	MaxKeyLength  = 256 // characters
)

const (
	defaultTimeout = 15 * time.Second
	minBackoff     = 50 * time.Millisecond
	maxBackoff     = 5 * time.Second
	sayEvery       = 3 * time.Second // between log lines about a stream that does not take what it is sent
)

// ErrEntry marks an entry that no stream takes.
var ErrEntry = errors.New("not a valid Kinesis record")

// Entry is a record to write.
type Entry struct {
	Key     string // partition key, 1 to 256 characters
	HashKey string // ExplicitHashKey, decimal, below 2^128; empty: the shard follows from Key
	Data    []byte
}

// size is what counts towards the limits.
func (e *Entry) size() int { return len(e.Data) + len(e.Key) }

// Place is where a record was written.
type Place struct{ ShardID, SequenceNumber string }

// PutAPI is what a Producer needs of *kinesis.Client.
type PutAPI interface {
	PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, opts ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error)
}

// Producer writes to a stream, at least once: an answer that gets lost makes it write the same records again, with other sequence numbers.
// Whoever reads has to know a record by what is in it.
//
// Calls are made one after another, so that all records of one come after all of those before it. Within a call the order holds as well,
// unless Kinesis refuses some of its records while it takes others: these are written again, in their order, before any later call, but
// after their neighbours.
type Producer struct {
	API    PutAPI
	Stream string       // name
	Log    *slog.Logger // nil discards

	// Before, if not nil, runs before every call, retries included; its error ends Put. The SDK does not retry by itself here, so nothing is sent
	// without it.
	Before func() error

	// Timeout bounds one call; 0 is 15 s. It is then made again, and whether it was carried out is not known.
	Timeout time.Duration

	// Bounds of the delay before another try, for tests; 0 is the default.
	minBackoff, maxBackoff time.Duration
}

// Put writes entries, in calls as large as Kinesis takes them, and returns their places, in the order of entries. What is refused or fails
// in passing (throttling, faults of the service or the network) is tried again until ctx ends, with exponential backoff and full jitter.
// What no further try can mend ends Put at once: another error of AWS, one of Before, or, before anything is sent, an entry that is too
// large or has no fitting key (ErrEntry). With an error, an entry that is not known to be written has an empty Place.
func (p *Producer) Put(ctx context.Context, entries []Entry) ([]Place, error) {
	for i := range entries {
		if err := entries[i].check(); err != nil {
			return nil, fmt.Errorf("put records: entry %d: %w", i, err)
		}
	}
	places := make([]Place, len(entries))
	for begin := 0; begin < len(entries); {
		end := callEnd(entries, begin)
		if err := p.putCall(ctx, entries[begin:end], places[begin:end]); err != nil {
			return places, fmt.Errorf("put records: stream %s: %w", p.Stream, err)
		}
		begin = end
	}
	return places, nil
}

func (e *Entry) check() error {
	switch n := utf8.RuneCountInString(e.Key); {
	case !utf8.ValidString(e.Key):
		return fmt.Errorf("%w: its key is not UTF-8", ErrEntry)
	case n < 1 || n > MaxKeyLength:
		return fmt.Errorf("%w: its key has %d characters; a key must have 1 to %d", ErrEntry, n, MaxKeyLength)
	case e.size() > MaxEntryBytes:
		return fmt.Errorf("%w: it is %d bytes long including its key, but the maximum is %d", ErrEntry, e.size(), MaxEntryBytes)
	}
	return nil
}

// callEnd returns the end of the longest run of entries from begin that fits in one call.
func callEnd(entries []Entry, begin int) int {
	end, size := begin, 0
	for end < len(entries) && end-begin < MaxRecords {
		if size += entries[end].size(); size > MaxCallBytes {
			break
		}
		end++
	}
	return end
}

// putCall writes what fits in one call, with as many calls as that takes.
func (p *Producer) putCall(ctx context.Context, entries []Entry, places []Place) error {
	records := make([]types.PutRecordsRequestEntry, len(entries))
	index := make([]int, len(entries)) // of the records still to write, in entries
	for i := range entries {
		e := &entries[i]
		records[i].PartitionKey, records[i].Data = aws.String(e.Key), e.Data
		if e.HashKey != "" {
			records[i].ExplicitHashKey = aws.String(e.HashKey)
		}
		index[i] = i
	}
	said := time.Now()
	for try := 0; ; try++ {
		if try > 0 {
			if err := p.wait(ctx, try); err != nil {
				return err
			}
		}
		if p.Before != nil {
			if err := p.Before(); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		answers, err := p.call(ctx, records)
		switch {
		case err == nil:
			if records, index, err = remaining(records, index, answers, places); err == nil && len(records) == 0 {
				return nil
			}
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if !Transient(err) {
			return err
		}
		if now := time.Now(); p.Log != nil && now.Sub(said) >= sayEvery {
			said = now
			p.Log.Warn("waiting for the stream to accept records", "stream", p.Stream, "records", len(records), "tries", try+1, "error", err)
		}
	}
}

// call makes one call.
func (p *Producer) call(ctx context.Context, records []types.PutRecordsRequestEntry) ([]types.PutRecordsResultEntry, error) {
	timeout := p.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	in := &kinesis.PutRecordsInput{StreamName: &p.Stream, Records: records}
	out, err := p.API.PutRecords(bounded, in, func(o *kinesis.Options) { o.Retryer = aws.NopRetryer{} })
	if err != nil {
		if bounded.Err() != nil && ctx.Err() == nil {
			return nil, errTimeout
		}
		return nil, err
	}
	if len(out.Records) != len(records) {
		return nil, fmt.Errorf("response has %d records, expected %d", len(out.Records), len(records))
	}
	return out.Records, nil
}

// errTimeout stands for the SDK's error, which cannot be told from that of a canceled call.
var errTimeout = errors.New("no response in time")

// refusedError is what Kinesis says of a record that it did not write.
type refusedError struct{ code, message string }

func (e *refusedError) Error() string { return e.code + ": " + e.message }

// transient says that such a record may be taken later.
func (e *refusedError) transient() bool {
	switch e.code {
	case "ProvisionedThroughputExceededException", "InternalFailure", "InternalFailureException", "ServiceUnavailable", "ThrottlingException", "KMSThrottlingException":
		return true
	}
	return false
}

// remaining notes the places of the records that were written, and returns the others, with what was said of the first of them; of one that
// will never be taken, if there is one.
func remaining(records []types.PutRecordsRequestEntry, index []int, answers []types.PutRecordsResultEntry, places []Place) (
	left []types.PutRecordsRequestEntry, leftIndex []int, err error,
) {
	var first, final *refusedError
	for i := range answers {
		a := &answers[i]
		if a.ErrorCode == nil {
			places[index[i]] = Place{aws.ToString(a.ShardId), aws.ToString(a.SequenceNumber)}
			continue
		}
		refused := &refusedError{*a.ErrorCode, aws.ToString(a.ErrorMessage)}
		if first == nil {
			first = refused
		}
		if final == nil && !refused.transient() {
			final = refused
		}
		left, leftIndex = append(left, records[i]), append(leftIndex, index[i])
	}
	switch {
	case final != nil:
		return left, leftIndex, final
	case first != nil:
		return left, leftIndex, first
	}
	return nil, nil, nil
}

var retryable = retry.IsErrorRetryables(retry.DefaultRetryables)

// Transient reports whether another try of a call may succeed: it was throttled, or the service or the network had a fault.
func Transient(err error) bool {
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		return refused.transient()
	case errors.Is(err, errTimeout), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF): // an answer that broke off
		return true
	case cloud.IsCode(err, "InternalFailure", "InternalFailureException", "InternalServerError", "ServiceUnavailable", "KMSThrottlingException"):
		return true
	}
	return retryable.IsErrorRetryable(err) == aws.TrueTernary
}

// wait passes the time before a try, from 1.
func (p *Producer) wait(ctx context.Context, try int) error {
	low, high := p.minBackoff, p.maxBackoff
	if low <= 0 {
		low = minBackoff
	}
	if high <= 0 {
		high = maxBackoff
	}
	limit := low
	for i := 1; i < try && limit < high; i++ {
		limit *= 2
	}
	timer := time.NewTimer(rand.N(min(limit, high))) // from 0: full jitter
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
