package router

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/fault"
	"spate/shared/window"
)

// source is a source partition that this router owns.
type source struct {
	committed window.Source // as in the offset's metadata
	now       window.Source // in the transaction that is open
	position  int64         // offset of the next record; -1 until it is known
	high      int64         // the partition's end, as far as a fetch told
	settled   int64         // position at the last commit
	heard     int64         // wall clock of the last event, milliseconds
}

// sources are the owned partitions. The group's callbacks change the set while the loop works on members of it: a member that is
// gone meanwhile fails the transaction, so what is done to it does not matter.
type sources struct {
	now func() int64

	mu    sync.Mutex
	owned map[int32]*source
	total int32 // source partitions of the topic
}

func newSources(total int32, now func() int64) *sources {
	return &sources{now: now, owned: make(map[int32]*source), total: total}
}

// fetched is the group's answer to "where are we": called after an assignment and before its first record. It waits for
// transactions that are still open, so it never shows a state that another router is about to replace.
func (s *sources) fetched(resp *kmsg.OffsetFetchResponse) error {
	type at struct {
		offset   int64
		metadata *string
	}
	found := make(map[int32]at)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			found[p.Partition] = at{p.Offset, p.Metadata}
		}
	}
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				found[p.Partition] = at{p.Offset, p.Metadata}
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, f := range found {
		var md string
		if f.metadata != nil && !fault.WatermarkLost {
			md = *f.metadata
		}
		st, err := window.ParseSource(md)
		if err != nil {
			return fmt.Errorf("state of partition %d: %w", p, err)
		}
		now := st
		now.Idle = false // it may have got something since: this router has to see its end, and its silence, for itself
		s.owned[p] = &source{committed: st, now: now, position: f.offset, settled: f.offset, heard: s.now()}
	}
	return nil
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

// snapshot returns the owned partitions in ascending order.
func (s *sources) snapshot() ([]int32, map[int32]*source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	owned := maps.Clone(s.owned)
	return slices.Sorted(maps.Keys(owned)), owned
}

// rollback forgets what an aborted transaction did; the client reads from the committed offsets again.
func (s *sources) rollback() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.owned {
		src.now, src.position = src.committed, src.settled
		src.now.Idle = false
	}
}

// commitContext adds the state of the given partitions to the transaction's offset commit. Partitions without a new offset are
// committed at their old one when their state has changed.
func commitContext(topic string, parts []int32, owned map[int32]*source) func(*kmsg.TxnOffsetCommitRequest) error {
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
			p.Metadata = kmsg.StringPtr(src.now.Metadata())
			moved[p.Partition] = true
		}
		for _, p := range parts {
			src := owned[p]
			if moved[p] || src.now == src.committed || src.position < 0 {
				continue
			}
			np := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			np.Partition, np.Offset, np.LeaderEpoch = p, src.position, -1
			np.Metadata = kmsg.StringPtr(src.now.Metadata())
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
	s.high = f.HighWatermark
}

func (s *source) lag() int64 {
	if s.position < 0 {
		return 0
	}
	return max(0, s.high-s.position)
}
