package gokaclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

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
			return nil, fmt.Errorf("offsets of partition %d are unknown: %w", p, err)
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
			return fmt.Errorf("get position of partition %d: %w", p, err)
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
