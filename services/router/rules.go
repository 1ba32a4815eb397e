package router

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/format"
	"spate/shared/revision"
	"spate/shared/revision/topic"
	"spate/shared/window"
)

// follow makes the session judge by the rules of the log.
func (s *session) follow(r *topic.Reader) {
	c := s.cfg
	s.rules = &revision.Follower{
		Log:     r.Log,
		Look:    r.Look,
		Own:     revision.Settings{Lateness: c.Lateness, MaxAhead: c.MaxAhead, Time: c.Events.Fields.Time},
		Service: "router",
		Adopt:   s.adopt,
		Late:    func(revision.Entry) { s.metrics.rulesLate.Inc() },
		Report:  c.Log,
	}
}

// adopt makes the session judge by all the rules that were read, and by the settings of the stream that were applied with them.
func (s *session) adopt(set revision.Settings) (err error) {
	s.cfg.Lateness, s.cfg.MaxAhead, s.cfg.Events.Fields.Time = set.Lateness, set.MaxAhead, set.Time
	if s.stream, err = window.NewStream(s.rules.Plan(), s.cfg.Lateness); err != nil {
		return err
	}
	s.cfg.Events.Columns = s.stream.Plan.Inputs
	if s.events, err = format.New(s.cfg.Events); err != nil {
		return err
	}
	if s.combiner == nil {
		s.combiner = window.NewCombiner(s.stream)
	} else {
		s.combiner.Extend(s.stream.Plan)
	}
	s.idleness.Stream, s.idleness.TimeoutMS = s.stream, s.cfg.IdleTimeout.Milliseconds()
	s.maxLeadMS = s.stream.Span() + s.stream.LatenessMS + maxLead.Milliseconds()
	s.metrics.rules.Set(float64(s.stream.Plan.Revision))
	return nil
}

// consult makes sure that all rules are known which records that were fetched can be about.
func (s *session) consult(ctx context.Context, f kgo.Fetches) error {
	newest, now := int64(window.NoTime), time.Now().UnixMilli()
	f.EachRecord(func(r *kgo.Record) {
		t := r.Timestamp.UnixMilli()
		if r.Attrs.TimestampType() == claimedTime {
			t = min(t, now)
		}
		newest = max(newest, t)
	})
	return s.rules.Consult(ctx, newest)
}
