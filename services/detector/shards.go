package detector

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/lovoo/goka/storage"

	"spate/shared/fault"
	"spate/shared/kafka"
	"spate/shared/kafka/gokaclient"
	"spate/shared/window"
)

// shards are the partitions that this process owns. They implement gokaclient.Positions, which is what ties a table to the offsets that
// are committed for it.
type shards struct {
	cfg     Config
	log     uint64 // the incarnation of the keyed log
	metrics *metrics
	wasFull bool // of the group's loop alone

	mu   sync.Mutex
	m    map[int32]*shard
	kept map[int32]*shard // those that were revoked, until it is known which come back
}

var _ gokaclient.Positions = (*shards)(nil)

func newShards(cfg Config, log uint64, m *metrics) *shards {
	return &shards{cfg: cfg, log: log, metrics: m, m: make(map[int32]*shard), kept: make(map[int32]*shard)}
}

// Resume takes a partition over. If this process had it before, its table is at hand, and has to read again only what is new.
func (s *shards) Resume(partition int32, c gokaclient.Commit, start, end int64) (int64, error) {
	pos, from := window.Position{}, int64(-1)
	if c.Offset >= 0 {
		var err error
		pos, err = window.ParsePosition(c.Offset, c.Metadata)
		if from = c.Offset; err != nil {
			// Somebody has reset the group, or it is another program's. From there windows would be counted from their middle.
			s.cfg.Log.Error("the offset in the group is not one that a detector has committed, reading the keyed log from its start: alerts are told again, under the same ids",
				"partition", partition, "group", s.cfg.Layout.Names.DetectorGroup, "offset", c.Offset, "error", err)
			pos, from = window.Position{}, -1
		}
	} else if end > start {
		s.cfg.Log.Info("the group has no offset, reading the keyed log from its start", "partition", partition, "group", s.cfg.Layout.Names.DetectorGroup, "end", end)
	}
	switch {
	case pos.Next > end || from >= 0 && !window.SameIncarnation(pos.Log, s.log):
		// What was committed says nothing about it, and would keep alerts from being told.
		s.cfg.Log.Error("the keyed log was made anew, reading it from its start: alerts of windows that were open then can be missing, or too low",
			"partition", partition, "committed", pos.Next, "end", end)
		pos, from = window.Position{}, -1
	case c.Offset >= 0 && from >= 0 && pos.Replay < start:
		s.deleted(kafka.Gap{Partition: partition, From: pos.Replay, To: start})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.kept[partition]
	if sh == nil {
		sh = &shard{partition: partition, log: s.cfg.Log, table: window.NewTable(s.cfg.Threshold), recovered: s.report}
	}
	sh.begin(pos, end)
	s.m[partition] = sh
	s.cfg.Status.NotReady("taking partitions over")
	return from, nil
}

// deleted tells of a part of the keyed log that nobody has read.
func (s *shards) deleted(g kafka.Gap) {
	s.cfg.Log.Error("the keyed log was deleted before it was read: alerts of windows that were open then can be missing, or too low",
		"partition", g.Partition, "offset", g.From, "log_begins", g.To)
	s.metrics.lost.Add(float64(g.To - g.From))
}

// report tells when all tables are recovered. No partition is taken over meanwhile: what it has said would hide that one is not ready.
func (s *shards) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sh := range s.m {
		if !sh.isReady() {
			return
		}
	}
	s.cfg.Status.Ready()
}

// full reports whether the tables hold as much as they may. Windows that are closed leave them when that is committed; if all are open, only
// others can help: a higher limit, or another detector that takes partitions over.
func (s *shards) full() bool {
	var open int64
	for _, sh := range s.all() {
		open += sh.open.Load()
	}
	full := open >= s.cfg.MaxOpenWindows
	if full != s.wasFull {
		s.wasFull = full
		s.room(!full, open)
	}
	return full
}

// room tells of the limit: there is room again, or there is none.
func (s *shards) room(again bool, open int64) {
	if again {
		s.cfg.Log.Info("fewer windows are open, reading on", "open", open)
		s.cfg.Status.Ready()
		return
	}
	s.cfg.Log.Warn("as many windows are open as may be: what follows waits in the keyed log", "open", open, "limit", s.cfg.MaxOpenWindows)
	s.cfg.Status.NotReady(fmt.Sprintf("%d windows are open, the limit is %d: set SPATE_MAX_OPEN_WINDOWS (--max-open-windows) higher, or start more detectors", open, s.cfg.MaxOpenWindows))
}

// build is goka's storage builder.
func (s *shards) build(_ string, partition int32) (storage.Storage, error) {
	sh := s.get(partition)
	if sh == nil {
		return nil, fmt.Errorf("partition %d is not assigned", partition)
	}
	s.forget() // every partition of the assignment has been resumed
	return sh, nil
}

// forget drops the tables that did not come back.
func (s *shards) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.kept)
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
	pos.Log = s.log
	if fault.NoClamp {
		pos.Replay = pos.Next
	}
	md, err := pos.Metadata()
	if err != nil {
		return gokaclient.Commit{}, err
	}
	sh.latest = pos
	sh.caughtUp = sh.caughtUp || next >= sh.until
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
	sh.count()
}

// Revoked puts the partition's table aside: after most rebalances it is needed again at once.
func (s *shards) Revoked(partition int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh := s.m[partition]; sh != nil {
		sh.end()
		s.kept[partition] = sh
		delete(s.m, partition)
	}
	s.metrics.lag.DeleteLabelValues(strconv.Itoa(int(partition)))
}

// lag tells how far this process is behind in a partition that it owns.
func (s *shards) lag(partition int32, messages int64) {
	s.metrics.lag.WithLabelValues(strconv.Itoa(int(partition))).Set(float64(messages))
}
