package worker

import (
	"context"
	"errors"
	"time"

	"spate/shared/activity"
	"spate/shared/aws/stream"
	"spate/shared/window"
)

// counts are events by fate, since the last save.
type counts struct {
	counted, repeated int64
	late              [3]int64 // by window.Fate
	invalid, skipped  map[activity.Reason]int64
}

// skip counts a record that is not meant as an event.
func (c *counts) skip(reason activity.Reason) {
	if c.skipped == nil {
		c.skipped = make(map[activity.Reason]int64)
	}
	c.skipped[reason]++
}

// Reasons of records that cannot be unpacked: what the Kinesis Producer Library packed, and gzip.
const (
	reasonAggregate activity.Reason = "bad_aggregate"
	reasonGzip      activity.Reason = "bad_gzip"
)

// record judges the events of a record of the stream.
func (s *session) record(ctx context.Context, sh *shard, seq string, data []byte, arrived time.Time) error {
	number := sh.seqs.Add(seq)
	events, err := stream.Unpack(data, nil)
	if errors.Is(err, stream.ErrAggregate) {
		s.invalid(sh, seq, data, reasonAggregate)
	} else if err != nil {
		s.invalid(sh, seq, data, reasonGzip)
	}
	for _, e := range events {
		if err := s.event(ctx, sh, seq, number, e, arrived); err != nil {
			return err
		}
	}
	sh.at = stream.Position{After: seq}
	return nil
}

func (s *session) event(ctx context.Context, sh *shard, seq string, number int64, data []byte, arrived time.Time) error {
	mark, reason, err := s.events.Mark(ctx, data, nil)
	if err != nil {
		return err // the session begins anew, and reads it again
	}
	if reason == activity.ReasonNotJSON {
		if texts := activity.Texts(data); len(texts) > 1 {
			for _, text := range texts {
				if err := s.event(ctx, sh, seq, number, text, arrived); err != nil {
					return err
				}
			}
			return nil
		}
	}
	if reason.Skipped() {
		if s.replay == 0 {
			s.counted.skip(reason)
		}
		return nil
	}
	if ahead := s.cfg.MaxAhead.Milliseconds(); reason == activity.ReasonNone && ahead > 0 && mark.TimeMS > arrived.UnixMilli()+ahead {
		reason = activity.ReasonTimeAhead
	}
	if reason != activity.ReasonNone {
		s.invalid(sh, seq, data, reason)
		return nil
	}
	sh.heard = s.cfg.Now().UnixMilli()
	e := window.Event{MS: mark.TimeMS, Partition: sh.number, Offset: number, Identity: window.Identity(mark.ID), Values: s.events.Columns(mark, nil)}
	fate, missed := s.combiner.Add(&e, sh.src.Judge(s.stream.LatenessMS, mark.TimeMS, arrived.UnixMilli()))
	if fate.Late() {
		s.late(sh, seq, data, fate, missed)
		return nil
	}
	if s.replay == 0 {
		s.tally.In++
		s.tally.Counted++
		s.counted.counted++
	}
	if s.gathers.IsZero() {
		s.gathers = time.Now()
	}
	return nil
}

func (s *session) late(sh *shard, seq string, data []byte, fate window.Fate, missed window.Missed) {
	if s.replay > 0 {
		return // it was told before
	}
	s.tally.In++
	if fate == window.LateIdle {
		s.tally.Idle++
	} else {
		s.tally.Late++
	}
	s.counted.late[fate]++
	s.setAside(sh, seq, data, aside{Reason: fate.String(), WindowStartMS: &missed.StartMS, LateByMS: &missed.ByMS})
}

func (s *session) invalid(sh *shard, seq string, data []byte, reason activity.Reason) {
	if s.replay > 0 {
		return
	}
	s.tally.In++
	s.tally.Invalid++
	if s.counted.invalid == nil {
		s.counted.invalid = make(map[activity.Reason]int64)
	}
	s.counted.invalid[reason]++
	s.setAside(sh, seq, data, aside{Reason: string(reason)})
}
