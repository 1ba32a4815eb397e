package detector

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/lovoo/goka/storage"

	"spate/shared/kafka/gokaclient"
	"spate/shared/window"
)

// shards are the partitions that this process owns. They implement gokaclient.Positions, which is what ties a table to the offsets that
// are committed for it.
type shards struct {
	threshold int64
	log       *slog.Logger
	ready     func(bool)

	mu sync.Mutex
	m  map[int32]*shard
}

var _ gokaclient.Positions = (*shards)(nil)

func newShards(threshold int64, log *slog.Logger, ready func(bool)) *shards {
	return &shards{threshold: threshold, log: log, ready: ready, m: make(map[int32]*shard)}
}

// Resume begins a partition's table anew.
func (s *shards) Resume(partition int32, c gokaclient.Commit, end int64) (int64, error) {
	pos, from := window.Position{}, int64(-1)
	if c.Offset >= 0 {
		var err error
		if pos, err = window.ParsePosition(c.Offset, c.Metadata); err != nil {
			return 0, fmt.Errorf("%w: the committed offset is not of this program; reset the consumer group", err)
		}
		from = c.Offset
	}
	if pos.Next > end {
		// The log was made anew. What was committed says nothing about it, and would keep alerts from being told.
		s.log.Error("the keyed log is shorter than what was committed, reading it from its start", "partition", partition, "committed", pos.Next, "end", end)
		pos, from = window.Position{}, -1
	}
	sh := &shard{partition: partition, log: s.log, table: window.NewTable(s.threshold), resume: pos, end: end, recovered: s.report}
	s.mu.Lock()
	s.m[partition] = sh
	s.mu.Unlock()
	s.ready(false)
	return from, nil
}

// report tells whether all tables are recovered. It is called with a shard locked.
func (s *shards) report() {
	go func() {
		for _, sh := range s.all() {
			sh.mu.Lock()
			ready := sh.ready
			sh.mu.Unlock()
			if !ready {
				return
			}
		}
		s.ready(true)
	}()
}

// build is goka's storage builder.
func (s *shards) build(_ string, partition int32) (storage.Storage, error) {
	sh := s.get(partition)
	if sh == nil {
		return nil, fmt.Errorf("partition %d is not assigned", partition)
	}
	return sh, nil
}

func (s *shards) get(partition int32) *shard {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[partition]
}

// all returns the shards in the order of their partitions.
func (s *shards) all() []*shard {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*shard, 0, len(s.m))
	for _, p := range slices.Sorted(maps.Keys(s.m)) {
		out = append(out, s.m[p])
	}
	return out
}

// Position returns what to commit when the alerts of all batches below next are acknowledged.
func (s *shards) Position(partition int32, next int64) (gokaclient.Commit, error) {
	sh := s.get(partition)
	if sh == nil {
		return gokaclient.Commit{}, fmt.Errorf("partition %d is not assigned", partition)
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	pos := sh.table.Position(next)
	md, err := pos.Metadata()
	if err != nil {
		return gokaclient.Commit{}, err
	}
	sh.latest = pos
	sh.caughtUp = sh.caughtUp || next >= sh.end
	return gokaclient.Commit{Offset: pos.Replay, Metadata: md}, nil
}

// Committed lets the table forget what is closed for good.
func (s *shards) Committed(partition int32, c gokaclient.Commit) {
	sh := s.get(partition)
	if sh == nil {
		return
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.table.Committed(sh.latest)
}

// Revoked drops the partition's table.
func (s *shards) Revoked(partition int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, partition)
}
