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

// keyedPartitions are the partitions that this process owns. They implement gokaclient.Positions, which is what ties a table to the offsets that
// are committed for it.
type keyedPartitions struct {
	cfg     Config
	rules   *rules
	log     uint64 // the incarnation of the keyed log
	metrics *metrics
	wasFull bool // of the group's loop alone

	mu   sync.Mutex
	m    map[int32]*keyedPartition
	kept map[int32]*keyedPartition // those that were revoked, until it is known which come back
}

var _ gokaclient.Positions = (*keyedPartitions)(nil)

func newKeyedPartitions(cfg Config, rules *rules, log uint64, m *metrics) *keyedPartitions {
	return &keyedPartitions{cfg: cfg, rules: rules, log: log, metrics: m, m: make(map[int32]*keyedPartition), kept: make(map[int32]*keyedPartition)}
}

// Resume takes a partition over. If this process had it before, its table is at hand, and has to read again only what is new.
func (s *keyedPartitions) Resume(partition int32, c gokaclient.Commit, start, end int64) (int64, error) {
	pos, from := window.Position{}, int64(-1)
	if c.Offset >= 0 {
		var err error
		pos, err = window.ParsePosition(c.Offset, c.Metadata)
		if from = c.Offset; err != nil {
			// Somebody has reset the group, or it is another program's. From there windows would be counted from their middle.
			s.cfg.Log.Error("the consumer group's offset was not committed by a detector; reading the keyed log from the beginning: alerts are written again, with the same IDs",
				"partition", partition, "group", s.cfg.Layout.Names.DetectorGroup, "offset", c.Offset, "error", err)
			pos, from = window.Position{}, -1
		}
	} else if end > start {
		s.cfg.Log.Info("the consumer group has no offset; reading the keyed log from the beginning", "partition", partition, "group", s.cfg.Layout.Names.DetectorGroup, "end", end)
	}
	switch {
	case pos.Next > end || from >= 0 && !window.SameIncarnation(pos.Log, s.log):
		// What was committed says nothing about it, and would keep alerts from being told.
		s.cfg.Log.Error("the keyed log was recreated; reading it from the beginning: alerts for windows that were open at the time may be missing or have counts that are too low",
			"partition", partition, "committed", pos.Next, "end", end)
		pos, from = window.Position{}, -1
	case c.Offset >= 0 && from >= 0 && pos.Replay < start:
		s.deleted(kafka.Gap{Partition: partition, From: pos.Replay, To: start})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kp := s.kept[partition]
	if kp == nil {
		kp = &keyedPartition{partition: partition, log: s.cfg.Log, table: window.NewTable(window.Stream{Plan: s.rules.now().plan}), recovered: s.report}
	}
	kp.begin(pos, end)
	s.m[partition] = kp
	s.cfg.Status.NotReady("taking over partitions")
	return from, nil
}

// deleted reports a part of the keyed log that was deleted before it was read.
func (s *keyedPartitions) deleted(g kafka.Gap) {
	s.cfg.Log.Error("records in the keyed log were deleted before they were read: alerts for windows that were open at the time may be missing or have counts that are too low",
		"partition", g.Partition, "offset", g.From, "log_begins", g.To)
	s.metrics.lost.Add(float64(g.To - g.From))
}

// report sets the status to ready once all tables are recovered. It holds the lock, so that no partition is taken over at the same time and its
// reason for not being ready is not overwritten.
func (s *keyedPartitions) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, kp := range s.m {
		if !kp.isReady() {
			return
		}
	}
	s.cfg.Status.Ready()
}

// full reports whether the tables hold as much as they may. Windows that are closed leave them when that is committed; if all are open, only
// others can help: a higher limit, or another detector that takes partitions over.
func (s *keyedPartitions) full() bool {
	var open int64
	for _, kp := range s.all() {
		open += kp.open.Load()
	}
	full := open >= s.cfg.MaxOpenWindows
	if full != s.wasFull {
		s.wasFull = full
		s.reportLimit(!full, open)
	}
	return full
}

// reportLimit reports that the limit of open windows is reached, or that fewer windows are open again.
func (s *keyedPartitions) reportLimit(again bool, open int64) {
	if again {
		s.cfg.Log.Info("fewer windows are open; reading of the keyed log has resumed", "open", open)
		s.cfg.Status.Ready()
		return
	}
	s.cfg.Log.Warn("the limit on open windows has been reached; reading of the keyed log is paused", "open", open, "limit", s.cfg.MaxOpenWindows)
	s.cfg.Status.NotReady(fmt.Sprintf("%d windows are open, and the limit is %d: raise SPATE_MAX_OPEN_WINDOWS (--max-open-windows), or start more detectors", open, s.cfg.MaxOpenWindows))
}

// build is goka's storage builder.
func (s *keyedPartitions) build(_ string, partition int32) (storage.Storage, error) {
	kp := s.get(partition)
	if kp == nil {
		return nil, fmt.Errorf("partition %d is not assigned", partition)
	}
	s.forget() // every partition of the assignment has been resumed
	return kp, nil
}

// forget drops the tables that did not come back.
func (s *keyedPartitions) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.kept)
}

func (s *keyedPartitions) get(partition int32) *keyedPartition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[partition]
}

// all returns the partitions in the order of their numbers.
func (s *keyedPartitions) all() []*keyedPartition {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*keyedPartition, 0, len(s.m))
	for _, p := range slices.Sorted(maps.Keys(s.m)) {
		out = append(out, s.m[p])
	}
	return out
}

// Position returns what to commit when the alerts of all batches below next are acknowledged.
func (s *keyedPartitions) Position(partition int32, next int64) (gokaclient.Commit, error) {
	kp := s.get(partition)
	if kp == nil {
		return gokaclient.Commit{}, fmt.Errorf("partition %d is not assigned", partition)
	}
	kp.mu.Lock()
	defer kp.mu.Unlock()
	if kp.failed >= 0 {
		next = min(next, kp.failed)
	}
	pos := kp.table.Position(next)
	pos.Log = s.log
	if fault.NoClamp {
		pos.Replay = pos.Next
	}
	md, err := pos.Metadata()
	if err != nil {
		return gokaclient.Commit{}, err
	}
	kp.latest = pos
	kp.caughtUp = kp.caughtUp || next >= kp.until
	return gokaclient.Commit{Offset: pos.Replay, Metadata: md}, nil
}

// Committed lets the table forget what is closed for good.
func (s *keyedPartitions) Committed(partition int32, c gokaclient.Commit) {
	kp := s.get(partition)
	if kp == nil {
		return
	}
	kp.mu.Lock()
	defer kp.mu.Unlock()
	kp.table.Committed(kp.latest)
	kp.count()
}

// Revoked puts the partition's table aside: after most rebalances it is needed again at once.
func (s *keyedPartitions) Revoked(partition int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kp := s.m[partition]; kp != nil {
		kp.end()
		s.kept[partition] = kp
		delete(s.m, partition)
	}
	s.metrics.lag.DeleteLabelValues(strconv.Itoa(int(partition)))
}

// lag returns how far this process is behind in a partition that it owns.
func (s *keyedPartitions) lag(partition int32, messages int64) {
	s.metrics.lag.WithLabelValues(strconv.Itoa(int(partition))).Set(float64(messages))
}
