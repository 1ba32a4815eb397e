package gokaclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"

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
	// Resume returns what was committed, before goka sets the partition up. Offset is -1 if nothing was. start and end are those of the log.
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
	// Assigned, if set, is called with the number of partitions of each new session; 0 is a stand-by.
	Assigned func(partitions int)
	// Full, if set, reports whether there is room for no more. It runs before every poll, and nothing is read while it returns true.
	Full func() bool
	// Every is the commit interval.
	Every time.Duration
	Log   *slog.Logger
	// Lag, if set, is told the messages between where a partition is read and its end, according to the broker, until it is revoked.
	Lag func(partition int32, messages int64)
	// Stalled, if set, is told which partitions have not been read on for a while although there is something to read; "" if none.
	Stalled func(what string)
	// Unreadable, if set, is called for each batch that is skipped because it cannot be read.
	Unreadable func(kafka.Gap)
	// Deleted, if set, is called for records that were deleted before they were read.
	Deleted func(kafka.Gap)
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

// Consume reads until ctx ends, which is not an error, or until goka or the group fails.
func (g *Group) Consume(ctx context.Context, topics []string, h sarama.ConsumerGroupHandler) error {
	if !slices.Equal(topics, []string{g.cfg.Topic}) {
		return fmt.Errorf("consume %v: this group consumes only %s", topics, g.cfg.Topic)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m := &member{g: g, h: h, ctx: ctx, fail: cancel}
	reader, err := g.cfg.Kafka.NewReader(g.cfg.Topic, g.cfg.Log, m.position, kgo.NewClient,
		kgo.ConsumerGroup(g.group),
		kgo.ConsumeTopics(g.cfg.Topic),
		kgo.Balancers(kgo.RangeBalancer()), // eager, as goka needs it
		kgo.SessionTimeout(kafka.SessionTimeout), kgo.HeartbeatInterval(500*time.Millisecond), kgo.RebalanceTimeout(rebalanceTimeout),
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
	wg.Go(func() { m.watch(ctx, reader) })
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

// poll returns what has been fetched, or nothing after a while if [GroupConfig.Full] returns true. It serves the group in either case, so that others
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
		m.fail(fmt.Errorf("set up session: %w", err))
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

// end ends the session; ours reports whether the partitions are still this member's to commit.
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
			m.g.cfg.Log.Warn("the last commit of the session failed", "error", err)
		}
	}
	s.revoke()
}
