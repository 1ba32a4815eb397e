package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/fault"
	"spate/shared/kafka"
	"spate/shared/window"
)

// The keyed log is the truth about what was counted; the group's offsets are where to look. A router that takes partitions over reads the
// end of the keyed log, from where the last commit says that it knew it, and goes on after what is there. So nothing is counted twice when a
// broker that fails loses the offsets of a transaction and keeps its sums, or does not say whether it was committed, or when somebody resets
// the group's offsets.

// recallTime bounds how long the reading of the keyed log may stand still. A transaction in it that a dead router left open ends within
// kafka.TransactionTimeout.
const recallTime = 3 * kafka.TransactionTimeout

// recallPoll is how long a poll waits before a look at what there is.
const recallPoll = time.Second

// lastBatches is how many offsets at the end of the keyed log are read in any case: some batches, and the markers of their transactions.
const lastBatches = 32

var errStands = errors.New("reading has stalled")

// recollection is what the keyed log says of source partitions.
type recollection struct {
	progress   map[int32]window.Progress
	watermarks map[int32]int64 // watermarks, whatever incarnation of the topic they are of
	total      int32           // source partitions as the last batch has them
	remade     bool            // the last batch is of another incarnation of the topic
	next       int64           // the end of what was read
	revision   int64           // the newest one of the rules that batches were judged by
}

// recall reads the keyed log's first partition from an offset to its end.
func (s *session) recall(ctx context.Context, from int64) (recollection, error) {
	r := recollection{progress: make(map[int32]window.Progress), watermarks: make(map[int32]int64)}
	keyed := s.cfg.Layout.Names.Keyed
	bctx, cancel := context.WithTimeout(ctx, recallTime)
	defer cancel()
	bounds, err := kafka.ListBounds(bctx, s.adm, keyed)
	if err != nil {
		return r, fmt.Errorf("find what was already routed: %w", err)
	}
	from, end := max(from, bounds[0].Start), bounds[0].End
	// The end of what was known already still says which revision of the rules it was judged by: the log of the rules must have it, even if nothing came since.
	r.next = max(bounds[0].Start, min(from, end-lastBatches))
	if r.next >= end {
		r.next = max(r.next, from)
		return r, nil
	}
	if end-from > 100_000 {
		s.cfg.Log.Info("reading the keyed log to find what was already routed", "from", from, "end", end)
	}
	reader, err := s.cfg.Kafka.NewReader(keyed, s.cfg.Log, func(int32) int64 { return r.next }, kgo.NewClient,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{keyed: {0: kgo.NewOffset().At(r.next)}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(fetchMaxWait))
	if err != nil {
		return r, fmt.Errorf("find what was already routed: %w", err)
	}
	defer reader.Client().Close()
	sources, err := kafka.ListBounds(bctx, s.adm, s.cfg.Layout.Names.Activity)
	if err != nil {
		return r, fmt.Errorf("find what was already routed: %w", err)
	}
	topic := s.topics.Incarnation(s.cfg.Layout.Names.Activity)
	var h window.Header
	failed := func(err error) error {
		return fmt.Errorf("find what was already routed: keyed log read up to offset %d of %d: %w", r.next, end, err)
	}
	for moved := time.Now(); r.next < end; {
		pctx, cancel := context.WithTimeout(ctx, recallPoll)
		f, gaps, err := reader.Poll(pctx, 10_000)
		cancel()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return r, failed(err)
		}
		if f.NumRecords() == 0 && len(gaps) == 0 {
			switch g, ok, err := reader.Probe(ctx, 0); {
			case ok:
				gaps = append(gaps, g)
			case time.Since(moved) > recallTime:
				return r, failed(errors.Join(errStands, err))
			default:
				continue // an open transaction ends, or the broker comes back
			}
		}
		moved = time.Now()
		f.EachRecord(func(rec *kgo.Record) {
			if r.next = rec.Offset + 1; rec.Attrs.IsControl() || window.ParseHeader(rec.Value, &h) != nil {
				return
			}
			// What the detector would not take was not counted.
			g := window.Guard{Sources: s.sources.total, LatestMS: rec.Timestamp.Add(kafka.MaxClockSkew).UnixMilli(), Drains: s.cfg.Drain != nil}
			if !window.SameIncarnation(h.Topic, topic) {
				g.Sources = kafka.MaxSources
			}
			switch {
			case g.Check(&h) != nil:
			case rec.Offset < from:
				r.revision = max(r.revision, h.Revision)
			default:
				r.take(&h, topic, sources)
			}
		})
		for _, g := range gaps {
			if !g.Passed {
				reader.Skip(g)
			}
			r.next = max(r.next, g.To)
		}
	}
	if have := s.rules.Revision(); r.revision > have {
		return r, fmt.Errorf("events were judged by revision %d of the rules, but topic %s has only revisions up to %d: the topic was deleted, or its broker lost records; restore it, or start over", r.revision, s.cfg.Layout.Names.Rules, have)
	}
	return r, nil
}

func (r *recollection) take(h *window.Header, topic uint64, sources map[int32]kafka.Bounds) {
	r.revision = max(r.revision, h.Revision)
	r.total, r.remade = h.Sources, !window.SameIncarnation(h.Topic, topic)
	for _, m := range h.Watermarks {
		r.mark(m.Partition, m.WatermarkMS)
	}
	if r.remade {
		return // of a topic that is gone; its watermarks hold, since windows were closed by them
	}
	for _, p := range h.Progress {
		if old := r.progress[p.Partition]; p.Next >= old.Next && p.Next <= sources[p.Partition].End {
			r.progress[p.Partition] = p
		}
	}
}

func (r *recollection) mark(p int32, watermark int64) {
	if old, known := r.watermarks[p]; !known || watermark > old {
		r.watermarks[p] = watermark
	}
}

// floor is the watermark below which windows may be closed already.
func (r recollection) floor() int64 {
	low := int64(window.EndOfTime)
	for p := range r.total {
		m, known := r.watermarks[p]
		if !known {
			return window.NoTime
		}
		low = min(low, m)
	}
	if r.total == 0 {
		return window.NoTime
	}
	return low
}

// commitment is what the group has of a partition.
type commitment struct {
	offset int64 // -1: nothing
	window.Routed
	known bool // that it is of this program
}

func commitmentOf(offset int64, metadata *string) (c commitment) {
	c.offset = offset
	c.Source = window.NewSource()
	if metadata == nil || offset < 0 {
		return c
	}
	if r, err := window.ParseRouted(*metadata); err == nil {
		c.Routed, c.known = r, true
	}
	return c
}

// fetched is the group's answer to "where are we": it comes after an assignment and before the first record. The broker waits for
// transactions that are still open, so it never shows a state that another router is about to replace.
func (s *session) fetched(ctx context.Context, resp *kmsg.OffsetFetchResponse) error {
	found := make(map[int32]commitment)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			found[p.Partition] = commitmentOf(p.Offset, p.Metadata)
		}
	}
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				found[p.Partition] = commitmentOf(p.Offset, p.Metadata)
			}
		}
	}
	if len(found) == 0 {
		return nil
	}
	if fault.WatermarkLost {
		for p, c := range found {
			found[p] = commitment{offset: c.offset, Routed: window.Routed{Source: window.NewSource()}}
		}
	}
	taken, err := s.takeOver(ctx, found)
	if err != nil {
		return err
	}
	s.sources.own(taken)
	return nil
}

// takeOver finds out where partitions are to be read from, and in which state they are.
func (s *session) takeOver(ctx context.Context, found map[int32]commitment) (map[int32]*source, error) {
	names := s.cfg.Layout.Names
	bounds, err := kafka.ListBounds(ctx, s.adm, names.Activity)
	if err != nil {
		return nil, err
	}
	if n := int32(len(bounds)); n != s.sources.total {
		return nil, fmt.Errorf("%w: %s has %d partitions; it had %d before", kafka.ErrTopicChanged, names.Activity, n, s.sources.total)
	}
	peers, err := s.fetchPeers(ctx)
	if err != nil {
		return nil, err
	}
	r, err := s.recall(ctx, s.lookFrom(found, peers))
	if err != nil {
		return nil, err
	}
	for p, c := range peers {
		if c.known {
			r.mark(p, c.Watermark(s.stream.LatenessMS))
			r.total = max(r.total, c.Sources)
		}
	}
	s.learned(r.next)
	taken := make(map[int32]*source, len(found))
	for p, c := range found {
		taken[p] = s.source(p, c, r, bounds[p])
	}
	return taken, nil
}

// lookFrom returns the offset of the keyed log from which on it may know more than the group.
func (s *session) lookFrom(found, peers map[int32]commitment) int64 {
	log := s.topics.Incarnation(s.cfg.Layout.Names.Keyed)
	from, newest, sources := int64(window.EndOfTime), int64(0), int32(0)
	for _, c := range peers {
		if c.known && window.SameIncarnation(c.Log, log) {
			newest, sources = max(newest, c.Keyed), max(sources, c.Sources)
		}
	}
	for p, c := range found {
		switch {
		case c.known && window.SameIncarnation(c.Log, log):
			from = min(from, c.Keyed)
		case sources > 0 && p >= sources: // it is new: the keyed log has nothing of it
			from = min(from, newest)
		default:
			return 0
		}
	}
	return from
}

// remade is called for a partition whose topic was recreated since it was read.
const remade = "the topic was deleted and recreated: reading it from the beginning; events for windows that had already closed are late"

// source puts together what is known of a partition.
func (s *session) source(p int32, c commitment, r recollection, b kafka.Bounds) *source {
	names := s.cfg.Layout.Names
	log := s.cfg.Log.With("topic", names.Activity, "partition", p)
	now := s.cfg.Now()
	topic := s.topics.Incarnation(names.Activity)
	src := &source{committed: c.Source, now: c.Source, position: max(c.offset, 0), settled: c.offset, heard: now.UnixMilli(), bounds: b, seen: b.End, seenAt: now.UnixMilli(), held: -1}
	place, routed := r.progress[p]
	routed = routed && !fault.WatermarkLost
	switch {
	case c.known && !window.SameIncarnation(c.Topic, topic):
		log.Error(remade)
		src.position = 0
		src.now = window.Source{MaxTS: window.NoTime, Newest: window.NoTime, Floor: c.Watermark(s.stream.LatenessMS)}
	case !c.known && c.offset < 0 && r.remade: // Kafka deletes the offsets of a topic with it
		log.Error(remade)
	case c.known && !window.SameIncarnation(c.Log, s.topics.Incarnation(names.Keyed)):
		log.Error("the keyed log was deleted and recreated: counts for windows that were open at the time are too low, and their alerts may never close", "keyed", names.Keyed)
	case !c.known && (c.offset >= 0 || routed) && !fault.WatermarkLost:
		log.Error("the consumer group has no offset committed by a router; using the keyed log to find what was already counted", "group", names.RouterGroup, "offset", c.offset)
	}
	switch {
	case routed && (!c.known || place.Next > src.position):
		if c.offset >= 0 && place.Next != c.offset {
			log.Warn("the consumer group's offset differs from the one in the keyed log; using the one in the keyed log", "offset", c.offset, "routed", place.Next)
		}
		src.position = place.Next
		src.now = window.Source{MaxTS: window.NoTime, Newest: place.NewestMS, Floor: r.watermarks[p]}
	case !c.known && !routed && !fault.WatermarkLost:
		src.now = window.NewSource()
		src.now.Floor = r.floor() // a partition that was added to a topic in use
	}
	if src.position > b.End {
		// The log is shorter than what was read of it: the broker has lost its end, and what it gets from now on is new.
		to := b.End
		if topic == 0 {
			to = b.Start // without ids of topics, it may have been made anew as well
		}
		log.Error("the topic ends before the last position read: records were lost, or the topic was recreated", "position", src.position, "end", b.End, "read_from", to)
		src.position = to
	}
	if src.position < b.Start {
		if c.offset >= 0 || routed { // else nothing was ever read
			s.lost(p, b.Start-src.position)
		}
		src.position = b.Start
	}
	src.now.Idle = false // it may have got something since: this router has to see its end, and its silence, for itself
	src.begin()
	return src
}

// adjust makes the client begin where the partitions are.
func (s *session) adjust(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	for p := range offsets[s.cfg.Layout.Names.Activity] {
		if at := s.sources.position(p); at >= 0 {
			offsets[s.cfg.Layout.Names.Activity][p] = kgo.NewOffset().At(at)
		}
	}
	return offsets, nil
}

// verify finds out whether a transaction that seems to be aborted was committed after all: a broker that fails does not always know.
func (s *session) verify(ctx context.Context) error {
	r, err := s.recall(ctx, s.known())
	if err != nil {
		return err
	}
	s.learned(r.next)
	parts, owned := s.sources.snapshot()
	for _, p := range parts {
		src := owned[p]
		if place, ok := r.progress[p]; ok && place.Next > src.position {
			s.cfg.Log.Warn("a transaction whose commit the broker did not confirm was committed after all", "partition", p, "routed", place.Next)
			src.routed = place.Next
			src.now = window.Source{MaxTS: window.NoTime, Newest: place.NewestMS, Floor: r.watermarks[p]}
			src.base = src.now // the next look begins behind this place
		}
	}
	return nil
}

// learned records how far the keyed log is known.
func (s *session) learned(next int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keyedNext = max(s.keyedNext, next)
}

func (s *session) known() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keyedNext
}

// wrote tells where the keyed log's first partition ends with what the open transaction has written. Whether that counts is not known before the
// transaction is committed: what is read after one that was not begins before it.
func (s *session) wrote(next int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = max(s.written, next)
}

// end is how far the keyed log is known when the open transaction is committed.
func (s *session) end() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.keyedNext, s.written)
}

// metadata is what is committed with a partition's offset.
func (s *session) metadata(src *source) string {
	names := s.cfg.Layout.Names
	return window.Routed{
		Source: src.now, Sources: s.sources.total, Keyed: s.end(),
		Topic: s.topics.Incarnation(names.Activity), Log: s.topics.Incarnation(names.Keyed),
	}.Metadata()
}

// fetchPeers reads what routers have committed for all partitions. It is never ahead of the truth, and watermarks only grow, so a promise
// made of it is safe.
func (s *session) fetchPeers(ctx context.Context) (map[int32]commitment, error) {
	names := s.cfg.Layout.Names
	offsets, err := s.adm.FetchOffsets(ctx, names.RouterGroup)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetch states of other routers: %w", err)
	}
	out := make(map[int32]commitment)
	offsets.Each(func(o kadm.OffsetResponse) {
		if o.Topic == names.Activity && o.Err == nil && o.Partition < s.sources.total {
			out[o.Partition] = commitmentOf(o.At, &o.Metadata)
		}
	})
	return out, nil
}

// lostWithTopic reports the records that were unread when their topic was deleted. They are those of the last look.
func (s *session) lostWithTopic() {
	parts, owned := s.sources.snapshot()
	for _, p := range parts {
		s.lost(p, owned[p].lag())
	}
}

// lost counts and logs records that were deleted before they were read.
func (s *session) lost(p int32, records int64) {
	if records > 0 {
		s.metrics.lost.Add(float64(records))
		s.deleted(p, records)
	}
}

func (s *session) deleted(p int32, records int64) {
	s.cfg.Log.Error("events were deleted before they were read: counts for their windows are too low; increase the topic's retention.ms",
		"topic", s.cfg.Layout.Names.Activity, "partition", p, "records", records)
}
