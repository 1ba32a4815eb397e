package router

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/kafka"
	"spate/shared/window"
)

// source is a source partition that this router owns.
type source struct {
	committed window.Source // as in the offset's metadata
	settled   int64         // position in the group
	base      window.Source // what an aborted transaction goes back to: what reading began with, then what was last committed
	from      int64         // position there
	now       window.Source // in the transaction that is open
	position  int64         // offset of the next record
	routed    int64         // the keyed log has everything below, which is not judged again; the client may have to read it again
	heard     int64         // wall clock of the last event, milliseconds

	gap *gap // at which it stands; nil if at none

	bounds kafka.Bounds // of its log, as last told
	// What the log held at the look of the time seenAt ended at seen. When that is read, so is everything that came before seenAt.
	seen, seenAt int64
	readTo       int64         // wall clock up to which everything that came is read, milliseconds
	held         int64         // the last stable offset at which an open transaction holds the partition back; -1 if none does
	heldSince    time.Time     // when it was first seen there
	stands       time.Duration // how long it has stood still with something to read
	why          error         // what came of a look at the next batch then
}

// sources are the owned partitions. The group's callbacks change the set while the loop works on members of it: a member that is
// gone meanwhile fails the transaction, so what is done to it does not matter.
type sources struct {
	mu    sync.Mutex
	owned map[int32]*source
	total int32 // source partitions of the topic
}

func newSources(total int32) *sources {
	return &sources{owned: make(map[int32]*source), total: total}
}

// own adds partitions that were taken over.
func (s *sources) own(taken map[int32]*source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.owned, taken)
}

func (s *sources) revoked(partitions []int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range partitions {
		delete(s.owned, p)
	}
}

func (s *sources) get(p int32) *source {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owned[p]
}

// position is where a partition is read next, -1 if it is not owned.
func (s *sources) position(p int32) int64 {
	if src := s.get(p); src != nil {
		return src.position
	}
	return -1
}

// snapshot returns the owned partitions in ascending order.
func (s *sources) snapshot() ([]int32, map[int32]*source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	owned := maps.Clone(s.owned)
	return slices.Sorted(maps.Keys(owned)), owned
}

// gapped returns the partitions that stand at a gap.
func (s *sources) gapped() (out []*source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.owned {
		if src.gap != nil {
			out = append(out, src)
		}
	}
	return out
}

// begin makes what there is now what an aborted transaction goes back to.
func (s *source) begin() {
	s.base, s.from = s.now, s.next()
	if s.gap != nil && s.gap.skipped {
		s.gap = nil // its dead letter is committed
	}
}

// rollback forgets what an aborted transaction did; the client goes back as well.
func (s *sources) rollback() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.owned {
		src.now, src.position = src.base, src.from
		src.now.Idle = false
		switch {
		case src.gap == nil:
		case src.gap.skipped:
			src.position = max(src.position, src.gap.To) // the client does not come to it again
		default:
			src.gap = nil
		}
	}
}

// commitContext adds the state of the given partitions to the transaction's offset commit. Partitions without a new offset are
// committed where they stand when that or their state has changed.
func commitContext(topic string, parts []int32, owned map[int32]*source, metadata func(*source) string) func(*kmsg.TxnOffsetCommitRequest) error {
	return func(req *kmsg.TxnOffsetCommitRequest) error {
		var t *kmsg.TxnOffsetCommitRequestTopic
		for i := range req.Topics {
			if req.Topics[i].Topic == topic {
				t = &req.Topics[i]
			}
		}
		if t == nil {
			nt := kmsg.NewTxnOffsetCommitRequestTopic()
			nt.Topic = topic
			req.Topics = append(req.Topics, nt)
			t = &req.Topics[len(req.Topics)-1]
		}
		moved := make(map[int32]bool, len(t.Partitions))
		for i := range t.Partitions {
			p := &t.Partitions[i]
			src := owned[p.Partition]
			if src == nil {
				return fmt.Errorf("commit of partition %d, which is not owned", p.Partition)
			}
			p.Offset = max(p.Offset, src.next())
			p.Metadata = kmsg.StringPtr(metadata(src))
			moved[p.Partition] = true
		}
		for _, p := range parts {
			src := owned[p]
			if moved[p] || src.now == src.committed && src.next() == src.settled {
				continue
			}
			np := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			np.Partition, np.Offset, np.LeaderEpoch = p, src.next(), -1
			np.Metadata = kmsg.StringPtr(metadata(src))
			t.Partitions = append(t.Partitions, np)
		}
		return nil
	}
}

// advance follows the client's position through a fetched partition.
func (s *source) advance(f kgo.FetchPartition) {
	if n := len(f.Records); n > 0 {
		s.position = f.Records[n-1].Offset + 1
	}
	s.bounds.Stable = max(s.bounds.Stable, f.LastStableOffset)
	s.bounds.End = max(s.bounds.End, f.HighWatermark)
}

// next is the offset of the first event that the keyed log does not have, when what is open is committed.
func (s *source) next() int64 { return max(s.position, s.routed) }

// lag is what lies between the position and the end of the log, also what a transaction that is open holds back.
func (s *source) lag() int64 { return max(0, s.bounds.End-s.position) }

// waiting is what can be read.
func (s *source) waiting() int64 { return max(0, s.bounds.Stable-s.position) }
