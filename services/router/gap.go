package router

import (
	"context"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/kafka"
)

// gap is a stretch of a source partition that cannot be read. It is left out in a transaction of which it is the beginning, with a dead letter
// in its place: the client can be sent past it only when everything before it is committed, for after an aborted transaction it goes back no
// further.
type gap struct {
	kafka.Gap
	skipped bool // the client reads on behind it; its dead letter is not committed yet
}

// reasonUnreadable: the batch that the record is in cannot be decoded.
const reasonUnreadable activity.Reason = "unreadable"

// found takes note of a gap. A partition stands at one at most.
func (s *session) found(g kafka.Gap) {
	src := s.sources.get(g.Partition)
	switch {
	case src == nil:
		return
	case g.Deleted || g.Aborted:
		src.position = max(src.position, g.To)
		if g.Deleted {
			s.tally.lost += g.To - g.From
			s.deleted(g.Partition, g.To-g.From)
		}
		return
	case g.Passed:
		s.passed = append(s.passed, g)
		return
	}
	if src.gap != nil || g.To <= src.position {
		return
	}
	s.cfg.Log.Error("skipping an unreadable batch", "topic", g.Topic, "partition", g.Partition, "offset", g.From, "next", g.To, "error", g.Cause)
	src.gap = &gap{Gap: g}
}

// toLeaveOut reports whether a partition stands at a gap: the transaction that is open should end.
func (s *session) toLeaveOut() bool {
	for _, src := range s.sources.gapped() {
		if !src.gap.skipped {
			return true
		}
	}
	return false
}

// leaveOut begins a transaction with the gaps. New ones are left out only if nothing was read since the last commit.
func (s *session) leaveOut(ctx context.Context, first bool) {
	for _, src := range s.sources.gapped() {
		g := src.gap
		if !first && !g.skipped {
			continue
		}
		if !g.skipped {
			s.reader.Skip(g.Gap)
			g.skipped = true
		}
		src.position = max(src.position, g.To)
		s.unreadable(ctx, g.Gap)
	}
}

// passOver writes dead letters for what the client has passed over, in the transaction of the records behind it: if that is aborted, both are
// read again.
func (s *session) passOver(ctx context.Context) {
	for _, g := range s.passed {
		if src := s.sources.get(g.Partition); src != nil && g.To > src.next() {
			s.cfg.Log.Error("skipping unreadable records", "topic", g.Topic, "partition", g.Partition, "offset", g.From, "next", g.To, "error", g.Cause)
			s.unreadable(ctx, g)
		}
	}
	s.passed = nil
}

// unreadable writes a dead letter in the place of what cannot be read.
func (s *session) unreadable(ctx context.Context, g kafka.Gap) {
	s.tally.invalid[reasonUnreadable]++
	out := s.aside(&kgo.Record{Topic: g.Topic, Partition: g.Partition, Offset: g.From}, s.cfg.Layout.Names.DLQ, string(reasonUnreadable))
	out.Headers = append(out.Headers,
		kgo.RecordHeader{Key: HeaderNext, Value: strconv.AppendInt(nil, g.To, 10)},
		kgo.RecordHeader{Key: HeaderError, Value: []byte(g.Cause.Error())})
	s.produce(ctx, out)
}

// probe looks at the next batch of partitions that stand still: the client says nothing of one that has fewer records than it claims.
func (s *session) probe(ctx context.Context) {
	parts, owned := s.sources.snapshot()
	for _, p := range parts {
		if owned[p].stands < kafka.ProbeAfter || owned[p].gap != nil {
			continue
		}
		g, ok, err := s.reader.Probe(ctx, p)
		if owned[p].why = err; ok {
			s.found(g)
		} else if err != nil {
			s.cfg.Log.Warn("a partition has stalled", "topic", s.cfg.Layout.Names.Activity, "partition", p, "offset", owned[p].position, "error", err)
		}
	}
}
