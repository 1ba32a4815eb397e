package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"spate/shared/aws/cloud"
)

// ErrNotFound means that the stream does not exist, or that the shard no longer does.
var ErrNotFound = errors.New("not found")

// GetAPI is what a [Reader] needs of *kinesis.Client.
type GetAPI interface {
	ListShards(context.Context, *kinesis.ListShardsInput, ...func(*kinesis.Options)) (*kinesis.ListShardsOutput, error)
	GetShardIterator(context.Context, *kinesis.GetShardIteratorInput, ...func(*kinesis.Options)) (*kinesis.GetShardIteratorOutput, error)
	GetRecords(context.Context, *kinesis.GetRecordsInput, ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error)
}

// Position is a place in a shard, from which reading goes on. The zero value is the shard's beginning.
type Position struct {
	// After is the sequence number of the last record that was read.
	After string `json:"after,omitempty"`
	// Include begins with that record instead of behind it.
	Include bool `json:"include,omitempty"`
	// AtMS is, if After is empty, the arrival time to begin at, Unix milliseconds; what is older is left out.
	AtMS int64 `json:"at_ms,omitempty"`
}

// Fetch is what one call has found.
type Fetch struct {
	Shard   string
	Records []types.Record
	// AtEnd: there was nothing more to read behind these.
	AtEnd bool
	// Closed: the shard is closed and read to its end; nothing follows.
	Closed bool
	// Gone: the shard is not kept any more, closed or not. What was not read of it is lost.
	Gone bool
	// Lost: records before these were deleted before they were read.
	Lost bool
	// BehindMS is how long ago the last of these had arrived when the next ones did, as Kinesis has it; 0 is up to date.
	BehindMS int64
	// Asked is when the call was made, by the reader's clock: the others say how it was then.
	Asked time.Time
}

// Shard of a stream.
type Shard struct {
	ID      string
	Parents []string // one after a split, two after a merge; they may not be listed any more
}

// Kept leaves out parents that are not listed any more: whoever begins with these shards need not wait for them.
func Kept(listed []Shard) []Shard {
	there := make(map[string]bool, len(listed))
	for _, s := range listed {
		there[s.ID] = true
	}
	out := slices.Clone(listed)
	for i, s := range out {
		out[i].Parents = slices.DeleteFunc(slices.Clone(s.Parents), func(p string) bool { return !there[p] })
	}
	return out
}

// Successors returns the shards that go on from one that is read to its end: its children. If it is gone, and they are gone as well, those
// are it that nobody else is followed by: the oldest that are listed.
func Successors(listed []Shard, ended string, gone bool) []Shard {
	children := slices.DeleteFunc(slices.Clone(listed), func(s Shard) bool { return !slices.Contains(s.Parents, ended) })
	if len(children) > 0 || !gone {
		return children
	}
	return slices.DeleteFunc(Kept(listed), func(s Shard) bool { return len(s.Parents) > 0 })
}

// Reader reads the shards of a stream. It is safe for concurrent use.
type Reader struct {
	API    GetAPI
	Stream string
	Log    *slog.Logger
	// Interval between two calls for one shard; 0 is [DefaultInterval]. Kinesis takes five calls a second for each shard, of all its
	// readers together.
	Interval time.Duration
	// Timeout bounds one call, so that a connection that has gone silent does not end all reading; 0 is 15 s. The call is made again.
	Timeout time.Duration
	// Now is the clock of [Fetch.Asked]; time.Now if nil.
	Now func() time.Time
}

// bounded gives a call its time.
func (r *Reader) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	return context.WithTimeout(ctx, timeout)
}

// list makes one call of ListShards.
func (r *Reader) list(ctx context.Context, in *kinesis.ListShardsInput) (*kinesis.ListShardsOutput, error) {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	return r.API.ListShards(ctx, in)
}

// DefaultInterval leaves a fifth of a shard's calls to others. The bounds are for settings.
const (
	DefaultInterval = 250 * time.Millisecond
	MinInterval     = 10 * time.Millisecond
	MaxInterval     = 10 * time.Second
)

const (
	// maxRecords is the most that Kinesis hands out in one call.
	maxRecords = 10_000
	backoffMin = 200 * time.Millisecond
	backoffMax = 10 * time.Second
)

// Shards lists the shards of the stream, closed ones that are still kept included.
func (r *Reader) Shards(ctx context.Context) ([]Shard, error) {
	var out []Shard
	in := &kinesis.ListShardsInput{StreamName: aws.String(r.Stream)}
	for {
		page, err := r.list(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("list shards of stream %s: %w", r.Stream, notFound(err))
		}
		for _, s := range page.Shards {
			sh := Shard{ID: aws.ToString(s.ShardId)}
			for _, p := range []*string{s.ParentShardId, s.AdjacentParentShardId} {
				if p != nil {
					sh.Parents = append(sh.Parents, *p)
				}
			}
			out = append(out, sh)
		}
		if page.NextToken == nil {
			return out, nil
		}
		in = &kinesis.ListShardsInput{NextToken: page.NextToken}
	}
}

func notFound(err error) error {
	if cloud.IsCode(err, "ResourceNotFoundException") {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

// Read reads a shard from a place on and hands everything to deliver, which may take its time, until the shard is closed and read to its
// end, ctx ends, or deliver returns an error. Throttling, faults of the network and of Kinesis, and iterators that have expired, are tried
// again for ever. A call without records is handed over, too, since it tells that the end is reached.
func (r *Reader) Read(ctx context.Context, shard string, from Position, deliver func(context.Context, Fetch) error) error {
	s := &shardReader{Reader: r, shard: shard, at: from, interval: r.Interval, now: r.Now}
	if s.interval <= 0 {
		s.interval = DefaultInterval
	}
	if s.now == nil {
		s.now = time.Now
	}
	for {
		f, err := s.next(ctx)
		if err != nil {
			return err
		}
		if err := deliver(ctx, f); err != nil || f.Closed {
			return err
		}
	}
}

type shardReader struct {
	*Reader
	interval time.Duration
	now      func() time.Time
	shard    string
	at       Position
	iterator *string // nil: to be asked for
	skip     bool    // the first record must be the last that was read before
	asked    time.Time
	lost     bool   // and not told yet
	read     string // the last record that was read before some were lost
}

// next makes one call that succeeds.
func (s *shardReader) next(ctx context.Context) (Fetch, error) {
	for try := 0; ; try++ {
		if err := pause(ctx, time.Until(s.asked.Add(s.interval))); err != nil {
			return Fetch{}, err
		}
		f, err := s.ask(ctx)
		switch {
		case err == nil:
			return f, nil
		case ctx.Err() != nil:
			return Fetch{}, ctx.Err()
		case cloud.IsCode(err, "ExpiredIteratorException", "InvalidArgumentException"):
			s.iterator = nil // it is five minutes old, or of another life of the stream
		case errors.Is(err, ErrNotFound):
			if s.gone(ctx) {
				return Fetch{Shard: s.shard, Closed: true, Gone: true, Lost: true}, nil
			}
			return Fetch{}, fmt.Errorf("read shard %s of stream %s: %w", s.shard, s.Stream, err)
		case cloud.IsCode(err, "AccessDeniedException", "ValidationException"):
			return Fetch{}, fmt.Errorf("read shard %s of stream %s: %w", s.shard, s.Stream, err)
		}
		wait := backoff(try)
		if try > 0 { // once is nothing special
			s.Log.Warn("cannot read from Kinesis, retrying", "stream", s.Stream, "shard", s.shard, "error", err, "wait", wait.String())
		}
		if err := pause(ctx, wait); err != nil {
			return Fetch{}, err
		}
	}
}

// gone reports whether the stream is there without the shard: it was closed, and is older than the stream keeps anything.
func (s *shardReader) gone(ctx context.Context) bool {
	listed, err := s.Shards(ctx)
	return err == nil && !slices.ContainsFunc(listed, func(l Shard) bool { return l.ID == s.shard })
}

func (s *shardReader) ask(ctx context.Context) (Fetch, error) {
	s.asked = time.Now()
	asked := s.now()
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	if s.iterator == nil {
		if err := s.open(ctx); err != nil {
			return Fetch{}, err
		}
	}
	out, err := s.API.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: s.iterator, Limit: aws.Int32(maxRecords)})
	if err != nil {
		return Fetch{}, notFound(err)
	}
	behind := aws.ToInt64(out.MillisBehindLatest)
	f := Fetch{
		Shard: s.shard, Records: out.Records, BehindMS: behind, Asked: asked,
		AtEnd: len(out.Records) == 0 && behind == 0, Closed: out.NextShardIterator == nil,
	}
	if s.skip && len(f.Records) > 0 {
		s.skip = false
		if aws.ToString(f.Records[0].SequenceNumber) == s.at.After {
			f.Records = f.Records[1:]
			f.AtEnd = false // this call had a record
		} else {
			s.lost = true
		}
	}
	for len(f.Records) > 0 && s.read != "" && !Before(s.read, aws.ToString(f.Records[0].SequenceNumber)) {
		f.Records, f.AtEnd = f.Records[1:], false
	}
	if n := len(f.Records); n > 0 {
		s.at = Position{After: aws.ToString(f.Records[n-1].SequenceNumber)}
	}
	f.Lost, s.lost = s.lost, false
	s.iterator = out.NextShardIterator
	return f, nil
}

// open asks for an iterator at the place that was reached.
func (s *shardReader) open(ctx context.Context) error {
	in := &kinesis.GetShardIteratorInput{StreamName: aws.String(s.Stream), ShardId: aws.String(s.shard), ShardIteratorType: types.ShardIteratorTypeTrimHorizon}
	switch {
	case s.at.After != "":
		in.ShardIteratorType, in.StartingSequenceNumber = types.ShardIteratorTypeAtSequenceNumber, aws.String(s.at.After)
	case s.at.AtMS != 0:
		in.ShardIteratorType, in.Timestamp = types.ShardIteratorTypeAtTimestamp, aws.Time(time.UnixMilli(s.at.AtMS))
	}
	out, err := s.API.GetShardIterator(ctx, in)
	if s.at.After != "" && cloud.IsCode(err, "InvalidArgumentException") {
		// The record is not there any more: what followed it may be gone as well. The oldest that is left comes next, but for what was
		// read already, should it be there all the same.
		s.lost, s.read = true, s.at.After
		s.at = Position{}
		return s.open(ctx)
	}
	if err != nil {
		return notFound(err)
	}
	s.iterator, s.skip = out.ShardIterator, s.at.After != "" && !s.at.Include
	return nil
}

// backoff grows with the tries, and is spread so that many readers do not come together.
func backoff(try int) time.Duration {
	limit := min(backoffMin<<min(try, 10), backoffMax)
	return limit/2 + rand.N(limit/2)
}

// pause waits, or returns the error of ctx.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
