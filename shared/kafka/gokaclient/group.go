package gokaclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/fault"
	"spate/shared/kafka"
)

// Commit is an offset with the state that belongs to it.
type Commit struct {
	Offset   int64
	Metadata string
}

// Positions ties the offsets that are committed to the state of the partitions. Its methods are called for one input topic; those
// for one partition are not called concurrently with each other.
type Positions interface {
	// Resume tells what was committed, before goka sets the partition up. Offset is -1 if nothing was. start and end are those of the log.
	// It returns the offset to read from; -1 is the start of the log.
	Resume(partition int32, c Commit, start, end int64) (from int64, err error)
	// Position returns what to commit when all messages below next are done.
	Position(partition int32, next int64) (Commit, error)
	// Committed tells that c, which Position returned, is committed.
	Committed(partition int32, c Commit)
	// Revoked tells that the partition is another's now, or nobody's.
	Revoked(partition int32)
}

// GroupConfig of a consumer group that reads one topic.
type GroupConfig struct {
	Kafka     kafka.Config
	Topic     string
	Positions Positions
	// Assigned, if set, is told how many partitions a new session has; none is a stand-by.
	Assigned func(partitions int)
	// Full, if set, is asked before every poll whether there is no room for more: then nothing is read until there is again.
	Full func() bool
	// Every is the commit interval.
	Every time.Duration
	Log   *slog.Logger
	// Lag, if set, is told the messages between where a partition is read and its end, according to the broker.
	Lag func(partition int32, messages int64)
	// Stalled, if set, is told which partitions have not been read on for a while although there is something to read; "" if none.
	Stalled func(what string)
	// Unreadable, if set, is told of each batch that is left out since nobody can read it.
	Unreadable func(kafka.Gap)
}

// Group implements sarama.ConsumerGroup. Consume runs sessions, one after another, until its context ends or goka fails.
type Group struct {
	cfg   GroupConfig
	group string
	errs  chan error
}

var _ sarama.ConsumerGroup = (*Group)(nil)

// GroupBuilder returns the builder for goka.WithConsumerGroupBuilder.
func GroupBuilder(cfg GroupConfig) func(brokers []string, group, clientID string) (sarama.ConsumerGroup, error) {
	return func(_ []string, group, _ string) (sarama.ConsumerGroup, error) {
		return &Group{cfg: cfg, group: group, errs: make(chan error, 16)}, nil
	}
}

const (
	sessionTimeout = 6 * time.Second // Apache Kafka's lower bound by default
	// rebalanceTimeout bounds how long the end of one session may take: goka waits for acknowledgements.
	rebalanceTimeout = 20 * time.Second
	requestTimeout   = 10 * time.Second
	// pollFor bounds a poll, so that partitions that stand still are looked at.
	pollFor = time.Second
	// watchEvery is how often the broker is asked where partitions end.
	watchEvery = time.Second
	// fullPause is how often Full is asked while it says yes.
	fullPause = 100 * time.Millisecond
)

// Consume reads until ctx ends, which is no error, or until goka or the group fails.
func (g *Group) Consume(ctx context.Context, topics []string, h sarama.ConsumerGroupHandler) error {
	if !slices.Equal(topics, []string{g.cfg.Topic}) {
		return fmt.Errorf("consume %v: the group is made for %s alone", topics, g.cfg.Topic)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m := &member{g: g, h: h, ctx: ctx, fail: cancel}
	reader, err := g.cfg.Kafka.NewReader(g.cfg.Topic, g.cfg.Log, m.position, kgo.NewClient,
		kgo.ConsumerGroup(g.group),
		kgo.ConsumeTopics(g.cfg.Topic),
		kgo.Balancers(kgo.RangeBalancer()), // eager, as goka needs it
		kgo.SessionTimeout(sessionTimeout), kgo.HeartbeatInterval(500*time.Millisecond), kgo.RebalanceTimeout(rebalanceTimeout),
		kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(isolation()),
		kgo.KeepControlRecords(),               // the ends of transactions, so that the end of the log is known when it is reached
		kgo.FetchMaxWait(500*time.Millisecond), // a partition that was taken over waits for a long poll of the others to end
		kgo.FetchMaxPartitionBytes(4<<20), kgo.FetchMaxBytes(16<<20),
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(m.assigned),
		kgo.AdjustFetchOffsetsFn(m.adjust),
		kgo.OnPartitionsRevoked(func(context.Context, *kgo.Client, map[string][]int32) { m.end(true) }),
		kgo.OnPartitionsLost(func(context.Context, *kgo.Client, map[string][]int32) { m.end(false) }),
	)
	if err != nil {
		return fmt.Errorf("consumer group %s: %w", g.group, err)
	}
	cl := reader.Client()
	defer kafka.Close(cl, g.cfg.Log) // revokes what is left
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { m.watch(ctx, kadm.NewClient(cl)) })
	for {
		f, gaps, err := g.poll(ctx, reader)
		if err != nil {
			cancel(err)
		}
		if ctx.Err() != nil {
			break
		}
		m.deliver(f)
		m.leaveOut(ctx, reader, gaps)
		cl.AllowRebalance()
	}
	cl.AllowRebalance()
	m.end(true)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// poll returns what has been fetched; nothing for a while, if there is no room for more. The group is served in any case, so that others
// can take partitions over.
func (g *Group) poll(ctx context.Context, r *kafka.Reader) (kgo.Fetches, []kafka.Gap, error) {
	patience := pollFor
	if g.cfg.Full == nil || !g.cfg.Full() {
		r.Client().ResumeFetchTopics(g.cfg.Topic)
	} else {
		r.Client().PauseFetchTopics(g.cfg.Topic)
		patience = fullPause
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return r.Poll(ctx, 10_000)
}

// Errors is part of sarama.ConsumerGroup.
func (g *Group) Errors() <-chan error { return g.errs }

// Close is part of sarama.ConsumerGroup; Consume has cleaned up by itself.
func (g *Group) Close() error { return nil }

// Pause, Resume, PauseAll and ResumeAll are part of sarama.ConsumerGroup; goka does not call them.
func (g *Group) Pause(map[string][]int32)  {}
func (g *Group) Resume(map[string][]int32) {}
func (g *Group) PauseAll()                 {}
func (g *Group) ResumeAll()                {}

// member holds the session of the present generation, if there is one.
type member struct {
	g    *Group
	h    sarama.ConsumerGroupHandler
	ctx  context.Context
	fail context.CancelCauseFunc

	mu   sync.Mutex
	sess *session
}

func (m *member) current() *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sess
}

// assigned begins a session. With an eager balancer it gets the whole assignment at once.
func (m *member) assigned(_ context.Context, cl *kgo.Client, parts map[string][]int32) {
	n := len(parts[m.g.cfg.Topic])
	if m.g.cfg.Assigned != nil {
		m.g.cfg.Assigned(n)
	}
	if n == 0 {
		return
	}
	s, err := m.g.newSession(m.ctx, cl, parts[m.g.cfg.Topic])
	if err != nil {
		m.fail(fmt.Errorf("begin session: %w", err))
		return
	}
	if err := m.h.Setup(s); err != nil {
		s.cancel()
		err = errors.Join(err, m.h.Cleanup(s))
		s.revoke()
		m.fail(fmt.Errorf("set session up: %w", err))
		return
	}
	m.mu.Lock()
	m.sess = s
	m.mu.Unlock()
	for _, c := range s.claims {
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			err := m.h.ConsumeClaim(s, c)
			if err == nil && s.ctx.Err() == nil {
				err = errors.New("partition processor ended")
			}
			if s.ctx.Err() == nil {
				m.fail(fmt.Errorf("partition %d: %w", c.partition, err))
			}
		}()
	}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		s.commitEvery(m.g.cfg.Every)
	}()
}

// adjust lets Positions have the last word about where reading begins. It is called after assigned.
func (m *member) adjust(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	s := m.current()
	if s == nil {
		return offsets, nil
	}
	for p := range offsets[m.g.cfg.Topic] {
		if c := s.claims[p]; c != nil {
			offsets[m.g.cfg.Topic][p] = kgo.NewOffset().At(c.from)
		}
	}
	return offsets, nil
}

func (m *member) deliver(f kgo.Fetches) {
	s := m.current()
	if s == nil {
		return
	}
	f.EachPartition(func(p kgo.FetchTopicPartition) {
		if c := s.claims[p.Partition]; c != nil {
			c.deliver(s.ctx, p)
		}
	})
}

// leaveOut goes on after what nobody can read, and looks at partitions that stand still: the client says nothing of a batch that has fewer
// records than it claims.
func (m *member) leaveOut(ctx context.Context, r *kafka.Reader, gaps []kafka.Gap) {
	s := m.current()
	if s == nil {
		return
	}
	for p, c := range s.claims {
		if c.probe.CompareAndSwap(true, false) {
			g, ok, err := r.Probe(ctx, p)
			if c.setWhy(err); ok {
				gaps = append(gaps, g)
			} else if err != nil {
				m.g.cfg.Log.Warn("a partition stands still", "topic", m.g.cfg.Topic, "partition", p, "offset", c.position.Load(), "error", err)
			}
		}
	}
	for _, g := range gaps {
		c := s.claims[g.Partition]
		if c == nil || !g.Passed && g.To <= c.position.Load() {
			continue
		}
		if !g.Passed {
			r.Skip(g)
			// For the commit it is a message that is done.
			c.tracker.deliver(g.To - 1)
			c.tracker.done(g.To - 1)
			c.position.Store(g.To)
		}
		m.g.cfg.Log.Error("a batch cannot be read, it is left out", "topic", g.Topic, "partition", g.Partition, "offset", g.From, "next", g.To, "error", g.Cause)
		if m.g.cfg.Unreadable != nil {
			m.g.cfg.Unreadable(g)
		}
	}
}

// position is where a partition is read next, -1 if it is not claimed.
func (m *member) position(partition int32) int64 {
	if s := m.current(); s != nil && s.claims[partition] != nil {
		return s.claims[partition].position.Load()
	}
	return -1
}

// watch asks the broker how far partitions are behind, until ctx ends, and finds those that stand still.
func (m *member) watch(ctx context.Context, adm *kadm.Client) {
	var progress kafka.Progress
	var told bool
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			m.stalled("", &told)
			return
		case <-t.C:
		}
		s := m.current()
		if s == nil || m.g.cfg.Full != nil && m.g.cfg.Full() {
			progress = kafka.Progress{}
			m.stalled("", &told)
			continue
		}
		actx, cancel := context.WithTimeout(ctx, requestTimeout)
		bounds, err := kafka.ListBounds(actx, adm, m.g.cfg.Topic)
		cancel()
		if err != nil {
			continue // whoever watches the broker says so
		}
		at := make(map[int32]int64, len(s.claims))
		for p, c := range s.claims {
			at[p] = c.position.Load()
			if m.g.cfg.Lag != nil {
				m.g.cfg.Lag(p, max(0, bounds[p].End-at[p]))
			}
		}
		var text []string
		for p, d := range progress.Stands(time.Now(), at, bounds) {
			if d >= kafka.ProbeAfter {
				s.claims[p].probe.Store(true)
			}
			if d >= kafka.StalledAfter {
				text = append(text, kafka.Stalled(m.g.cfg.Topic, p, at[p], bounds[p], d, s.claims[p].whyStands()))
			}
		}
		slices.Sort(text)
		m.stalled(strings.Join(text, "; "), &told)
	}
}

func (m *member) stalled(what string, told *bool) {
	if m.g.cfg.Stalled != nil && (what != "" || *told) {
		m.g.cfg.Stalled(what)
		*told = what != ""
	}
}

// end ends the session; ours tells whether the partitions are still this member's to commit.
func (m *member) end(ours bool) {
	m.mu.Lock()
	s := m.sess
	m.sess = nil
	m.mu.Unlock()
	if s == nil {
		return
	}
	s.cancel()
	s.wg.Wait()
	if err := m.h.Cleanup(s); err != nil {
		m.fail(fmt.Errorf("end session: %w", err))
	}
	if ours {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(m.ctx), 3*time.Second)
		defer cancel()
		if err := s.commit(ctx); err != nil {
			m.g.cfg.Log.Warn("last commit of the session", "error", err)
		}
	}
	s.revoke()
}

// session implements sarama.ConsumerGroupSession.
type session struct {
	g          *Group
	cl         *kgo.Client
	ctx        context.Context
	cancel     context.CancelFunc
	member     string
	generation int32
	claims     map[int32]*claim
	wg         sync.WaitGroup

	mu   sync.Mutex
	last map[int32]Commit
}

var _ sarama.ConsumerGroupSession = (*session)(nil)

func (g *Group) newSession(ctx context.Context, cl *kgo.Client, parts []int32) (*session, error) {
	s := &session{g: g, cl: cl, claims: make(map[int32]*claim), last: make(map[int32]Commit)}
	s.member, s.generation = cl.GroupMetadata()
	s.ctx, s.cancel = context.WithCancel(ctx)
	rctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	adm := kadm.NewClient(cl)
	committed, err := adm.FetchOffsets(rctx, g.group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // a group that never committed
		return nil, fmt.Errorf("fetch offsets: %w", err)
	}
	ends, err := adm.ListCommittedOffsets(rctx, g.cfg.Topic)
	if err != nil {
		return nil, fmt.Errorf("list end offsets: %w", err)
	}
	starts, err := adm.ListStartOffsets(rctx, g.cfg.Topic)
	if err != nil {
		return nil, fmt.Errorf("list start offsets: %w", err)
	}
	for _, p := range parts {
		start, _ := starts.Lookup(g.cfg.Topic, p)
		end, ok := ends.Lookup(g.cfg.Topic, p)
		if err := cmp.Or(start.Err, end.Err); !ok || err != nil {
			return nil, fmt.Errorf("offsets of partition %d are not known: %w", p, err)
		}
		was := Commit{Offset: -1}
		if o, ok := committed.Lookup(g.cfg.Topic, p); ok && o.At >= 0 {
			was = Commit{Offset: o.At, Metadata: o.Metadata}
		}
		from, err := g.cfg.Positions.Resume(p, was, start.Offset, end.Offset)
		if err != nil {
			return nil, fmt.Errorf("resume partition %d: %w", p, err)
		}
		if from < 0 {
			from = start.Offset // not "the start": the client can leave out only what it knows the place of
		}
		c := &claim{topic: g.cfg.Topic, partition: p, from: from, messages: make(chan *sarama.ConsumerMessage, 64), tracker: newTracker(from)}
		c.position.Store(from)
		s.claims[p] = c
	}
	return s, nil
}

// Claims is part of sarama.ConsumerGroupSession.
func (s *session) Claims() map[string][]int32 {
	return map[string][]int32{s.g.cfg.Topic: slices.Sorted(maps.Keys(s.claims))}
}

// MemberID is part of sarama.ConsumerGroupSession.
func (s *session) MemberID() string { return s.member }

// GenerationID is part of sarama.ConsumerGroupSession.
func (s *session) GenerationID() int32 { return s.generation }

// Context ends with the session.
func (s *session) Context() context.Context { return s.ctx }

// MarkOffset tells that the message before offset is done.
func (s *session) MarkOffset(_ string, partition int32, offset int64, _ string) {
	if c := s.claims[partition]; c != nil {
		c.tracker.done(offset - 1)
	}
}

// MarkMessage tells that the message is done.
func (s *session) MarkMessage(m *sarama.ConsumerMessage, _ string) {
	s.MarkOffset(m.Topic, m.Partition, m.Offset+1, "")
}

// ResetOffset is part of sarama.ConsumerGroupSession; goka does not call it.
func (s *session) ResetOffset(string, int32, int64, string) {}

// Commit is part of sarama.ConsumerGroupSession.
func (s *session) Commit() {
	ctx, cancel := context.WithTimeout(s.ctx, requestTimeout)
	defer cancel()
	if err := s.commit(ctx); err != nil && s.ctx.Err() == nil {
		s.g.cfg.Log.Warn("commit", "error", err)
	}
}

func (s *session) commitEvery(d time.Duration) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			s.Commit()
		case <-s.ctx.Done():
			return
		}
	}
}

// commit commits the contiguous prefix of every partition whose position has changed.
func (s *session) commit(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	topic := s.g.cfg.Topic
	todo := make(map[int32]Commit)
	offsets := map[string]map[int32]kgo.EpochOffset{topic: {}}
	for p, c := range s.claims {
		pos, err := s.g.cfg.Positions.Position(p, c.tracker.committable())
		if err != nil {
			return fmt.Errorf("position of partition %d: %w", p, err)
		}
		if pos == s.last[p] {
			continue
		}
		todo[p] = pos
		offsets[topic][p] = kgo.EpochOffset{Epoch: -1, Offset: pos.Offset}
	}
	if len(todo) == 0 {
		return nil
	}
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				p := &req.Topics[i].Partitions[j]
				p.Metadata = kmsg.StringPtr(todo[p.Partition].Metadata)
			}
		}
		return nil
	})
	var errs []error
	s.cl.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if err != nil {
			errs = append(errs, err)
			return
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					errs = append(errs, fmt.Errorf("partition %d: %w", p.Partition, err))
					continue
				}
				s.last[p.Partition] = todo[p.Partition]
				s.g.cfg.Positions.Committed(p.Partition, todo[p.Partition])
			}
		}
	})
	return errors.Join(errs...)
}

func (s *session) revoke() {
	for p := range s.claims {
		s.g.cfg.Positions.Revoked(p)
	}
}

// claim implements sarama.ConsumerGroupClaim.
type claim struct {
	topic     string
	partition int32
	from      int64
	position  atomic.Int64 // of the next record
	probe     atomic.Bool  // it stands still: the next batch is to be looked at
	messages  chan *sarama.ConsumerMessage
	tracker   *tracker

	mu   sync.Mutex
	high int64
	why  error // what came of a look at the next batch, when it stood still
}

func (c *claim) setWhy(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.why = err
}

func (c *claim) whyStands() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why
}

var _ sarama.ConsumerGroupClaim = (*claim)(nil)

// Topic is part of sarama.ConsumerGroupClaim.
func (c *claim) Topic() string { return c.topic }

// Partition is part of sarama.ConsumerGroupClaim.
func (c *claim) Partition() int32 { return c.partition }

// InitialOffset is part of sarama.ConsumerGroupClaim.
func (c *claim) InitialOffset() int64 { return c.from }

// HighWaterMarkOffset is the end of the log as the last fetch told it.
func (c *claim) HighWaterMarkOffset() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.high
}

// Messages is part of sarama.ConsumerGroupClaim.
func (c *claim) Messages() <-chan *sarama.ConsumerMessage { return c.messages }

// deliver hands records over; it blocks while goka is behind, and drops what is left when the session ends.
func (c *claim) deliver(ctx context.Context, p kgo.FetchTopicPartition) {
	c.mu.Lock()
	c.high = p.HighWatermark
	c.mu.Unlock()
	for _, r := range p.Records {
		if !r.Attrs.IsControl() {
			c.tracker.deliver(r.Offset)
			select {
			case c.messages <- message(r):
			case <-ctx.Done():
				return
			}
		}
		c.position.Store(r.Offset + 1)
	}
}

func isolation() kgo.IsolationLevel {
	if fault.ReadUncommitted {
		return kgo.ReadUncommitted()
	}
	return kgo.ReadCommitted()
}

func message(r *kgo.Record) *sarama.ConsumerMessage {
	return &sarama.ConsumerMessage{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
}
