package simulator

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"spate/shared/activity"
	"spate/shared/aws/cloud"
	"spate/shared/aws/stream"
)

const (
	// linger is how long a row may wait for others that go with it.
	linger = 200 * time.Millisecond
	// maxWaitingRows and maxWaitingBytes bound what waits for the stream: about ten full calls.
	maxWaitingRows  = 10 * stream.MaxRecords
	maxWaitingBytes = 32 << 20
	streamPoll      = time.Second // between looks at a stream that is being made
)

// ErrNoStream says that the stream to send to does not exist.
var ErrNoStream = errors.New("stream does not exist")

// describeAPI is what findStream needs of *kinesis.Client.
type describeAPI interface {
	DescribeStreamSummary(ctx context.Context, in *kinesis.DescribeStreamSummaryInput, opts ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error)
}

// kinesisSink writes JSON records to a stream, in calls as large as they get: full ones while rows come faster than the stream takes
// them, and what there is when the source pauses. send blocks while too much waits.
//
// A call that is repeated may write a row twice. Each row has an id of its own in event_id, so that readers can tell.
type kinesisSink struct {
	producer stream.Producer
	region   string
	log      *slog.Logger
	key      string
	byUser   bool
	run      string // what the ids of this run begin with
	onSent   func(Row, int32, int64)
	count    *counters

	// ctx is that of the calls. It ends flushTimeout after that of the run; see outlive.
	ctx     context.Context
	release func()
	sender  sync.WaitGroup
	wake    chan struct{} // of the sender; holds one signal

	mu      sync.Mutex
	room    sync.Cond // on mu: there is less waiting, or err
	waiting []waitingRow
	bytes   int  // of waiting
	flush   bool // what waits should go now
	closed  bool
	err     error

	// The sender's alone.
	shards map[string]*shardCount
}

type waitingRow struct {
	row   Row
	entry stream.Entry
	since time.Time
}

// shardCount is what OnSent gets about a shard.
type shardCount struct {
	number int32 // among the shards of this run
	next   int64
}

func newKinesisSink(ctx context.Context, cfg *Config, count *counters) (*kinesisSink, error) {
	awsCfg, err := cloud.Load(ctx)
	if err != nil {
		return nil, err
	}
	client := kinesis.NewFromConfig(awsCfg)
	if err := findStream(ctx, client, cfg.Stream, awsCfg.Region, streamPoll, cfg.Log); err != nil {
		return nil, err
	}
	s := makeKinesisSink(client, awsCfg.Region, cfg, count)
	s.start(ctx)
	return s, nil
}

func makeKinesisSink(api stream.PutAPI, region string, cfg *Config, count *counters) *kinesisSink {
	s := &kinesisSink{
		producer: stream.Producer{API: api, Stream: cfg.Stream, Log: cfg.Log},
		region:   region, log: cfg.Log, key: cfg.Key, byUser: cfg.SpreadByUser, run: rand.Text()[:10], onSent: cfg.OnSent, count: count,
		wake: make(chan struct{}, 1), shards: make(map[string]*shardCount),
	}
	s.room.L = &s.mu
	return s
}

func (s *kinesisSink) start(ctx context.Context) {
	s.ctx, s.release = outlive(ctx, flushTimeout)
	s.sender.Go(s.sendAll)
}

// findStream returns when the stream can be written to. It waits for one that is being made as long as ctx lets it, and for Kinesis to answer for brokerWait.
func findStream(ctx context.Context, api describeAPI, name, region string, poll time.Duration, log *slog.Logger) error {
	for until := time.Now().Add(brokerWait); ; {
		attempt, cancel := context.WithTimeout(ctx, 5*stallEvery)
		out, err := api.DescribeStreamSummary(attempt, &kinesis.DescribeStreamSummaryInput{StreamName: &name})
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && cloud.IsCode(err, "ResourceNotFoundException"):
			return noStream(name, region)
		case err != nil && !stream.Transient(err) && !errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("look up stream %s in %s: %w", name, region, err)
		case err != nil && time.Now().After(until):
			return fmt.Errorf("waited %.0f s for Kinesis in %s, to look up stream %s: %w; check the region, and the endpoint if one is set (AWS_ENDPOINT_URL)", brokerWait.Seconds(), region, name, err)
		case err != nil:
			log.Warn("waiting for Kinesis", "stream", name, "gives_up_in", time.Until(until).Round(time.Second).String(), "error", err)
		default:
			switch status := out.StreamDescriptionSummary.StreamStatus; status {
			case types.StreamStatusCreating:
				until = time.Now().Add(brokerWait) // it has answered
				log.Info("waiting for the stream to be created", "stream", name)
			case types.StreamStatusDeleting:
				return fmt.Errorf("%w: stream %s in %s is being deleted", ErrNoStream, name, region)
			default: // one that is being updated takes records
				return nil
			}
		}
		timer := time.NewTimer(poll)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

func noStream(name, region string) error {
	return fmt.Errorf("%w: stream %s does not exist in %s; create it with `spate aws setup`, or see docs/aws.md", ErrNoStream, name, region)
}

// withID puts the id of an event into its JSON, as the last member, which is the one that counts. What is not an object stays as it is, for the pipeline
// to refuse.
func withID(object []byte, id string) []byte {
	body, ok := bytes.CutSuffix(object, []byte("}"))
	if !ok {
		return object
	}
	out := bytes.Clone(body)
	if !bytes.HasSuffix(bytes.TrimRight(body, " \t\r\n"), []byte("{")) {
		out = append(out, ',')
	}
	out = append(activity.AppendString(out, "event_id"), ':')
	return append(activity.AppendString(out, id), '}')
}

func (s *kinesisSink) send(r *Row, index int64) error {
	w := waitingRow{row: *r, since: time.Now()}
	e := &w.row.Event
	e.EventID = s.run + "-" + strconv.FormatInt(index, 10)
	w.entry.Key = s.partitionKey(e.CategoryID, e.UserID, index)
	if s.byUser && e.UserID != "" {
		w.entry.HashKey = hashKey(e.UserID)
	}
	if w.entry.Data = w.row.AppendJSON(make([]byte, 0, 512)); r.JSON != nil {
		w.entry.Data = withID(r.JSON, e.EventID)
	}
	size := len(w.entry.Data) + len(w.entry.Key)

	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && len(s.waiting) > 0 && (len(s.waiting) >= maxWaitingRows || s.bytes+size > maxWaitingBytes) {
		s.room.Wait()
	}
	if s.err != nil {
		return s.err
	}
	s.waiting = append(s.waiting, w)
	s.bytes += size
	if len(s.waiting) == 1 || s.full() {
		s.signal()
	}
	return nil
}

// partitionKey returns what the key's field says, or the row's number where it says nothing. Kinesis takes 256 characters of UTF-8; what is
// beyond that, in a file that is broken, does not matter for the order of anybody's events.
func (s *kinesisSink) partitionKey(category, user string, index int64) string {
	text := ""
	switch s.key {
	case KeyCategory:
		text = category
	case KeyUser:
		text = user
	}
	if text == "" {
		return strconv.FormatInt(index, 10)
	}
	if text = strings.ToValidUTF8(text, "\ufffd"); utf8.RuneCountInString(text) > stream.MaxKeyLength {
		text = string([]rune(text)[:stream.MaxKeyLength])
	}
	return text
}

// hashKey returns the place of a user among all shards: the one that Kinesis would give the user as a partition key, by the MD5 of it.
func hashKey(user string) string {
	sum := md5.Sum([]byte(user))
	return new(big.Int).SetBytes(sum[:]).String()
}

// full reports whether what waits fills a call. s.mu is held.
func (s *kinesisSink) full() bool {
	return len(s.waiting) >= stream.MaxRecords || s.bytes >= stream.MaxCallBytes
}

// signal makes the sender look. It never blocks.
func (s *kinesisSink) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *kinesisSink) idle() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) > 0 {
		s.flush = true
		s.signal()
	}
	return s.err
}

// sendAll is the sender: it writes what waits until the sink is closed, or writing fails.
func (s *kinesisSink) sendAll() {
	timer := time.NewTimer(linger)
	defer timer.Stop()
	for {
		batch, wait, done := s.take()
		if done {
			return
		}
		if len(batch) == 0 {
			timer.Reset(wait)
			select {
			case <-s.wake:
			case <-timer.C:
			}
			continue
		}
		entries := make([]stream.Entry, len(batch))
		for i := range batch {
			entries[i] = batch[i].entry
		}
		places, err := s.producer.Put(s.ctx, entries)
		s.acked(batch, places)
		if err == nil {
			continue
		}
		if err = fmt.Errorf("send to Kinesis: %w", err); cloud.IsCode(err, "ResourceNotFoundException") {
			err = noStream(s.producer.Stream, s.region)
		}
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
		s.room.Broadcast()
		return
	}
}

// take returns the rows of the next call if it is due, or else how long it is until then, at most.
func (s *kinesisSink) take() (batch []waitingRow, wait time.Duration, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return nil, linger, s.closed
	}
	if wait = linger - time.Since(s.waiting[0].since); wait > 0 && !s.full() && !s.flush && !s.closed {
		return nil, wait, false
	}
	n, size := 0, 0
	for n < len(s.waiting) && n < stream.MaxRecords {
		e := &s.waiting[n].entry
		if size += len(e.Data) + len(e.Key); n > 0 && size > stream.MaxCallBytes {
			size -= len(e.Data) + len(e.Key)
			break
		}
		n++
	}
	batch = append(batch, s.waiting[:n]...)
	clear(s.waiting[:n]) // the array outlives them
	s.waiting = s.waiting[n:]
	s.bytes -= size
	if len(s.waiting) == 0 {
		s.waiting, s.flush = nil, false
	}
	s.room.Signal()
	return batch, 0, false
}

// acked reports the rows that were written.
func (s *kinesisSink) acked(batch []waitingRow, places []stream.Place) {
	for i, p := range places {
		if p.ShardID == "" {
			continue
		}
		s.count.sent.Add(1)
		if s.onSent == nil {
			continue
		}
		c := s.shards[p.ShardID]
		if c == nil {
			c = &shardCount{number: int32(len(s.shards))}
			s.shards[p.ShardID] = c
		}
		s.onSent(batch[i].row, c.number, c.next)
		c.next++
	}
}

func (s *kinesisSink) close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
	s.sender.Wait()
	s.release()
	if s.err != nil && ctx.Err() != nil && errors.Is(s.err, context.Canceled) {
		s.log.Warn("records were not acknowledged in time; some may have been written", "timeout", flushTimeout)
		return nil
	}
	return s.err
}
