package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"spate/shared/aws/stream"
	"spate/shared/format"
	"spate/shared/revision"
	"spate/shared/revision/table"
	"spate/shared/rule"
	"spate/shared/window"
)

// LeaseKey is what the lease of the workers of a stream is for.
func LeaseKey(stream string) string { return "worker#" + stream }

// initial are the rules until the first revision.
func (c Config) initial() (*rule.Set, error) {
	rules, err := rule.Burst(c.Window, max(c.Threshold, 1), max(c.Critical, 1))
	return rules, errors.Join(err, window.CheckLateness(c.Lateness))
}

// follow makes the session judge by the rules of the log.
func (s *session) follow(initial *rule.Set) {
	r := table.NewReader(s.cfg.Lease.API, s.cfg.Lease.Table, s.cfg.Stream, initial)
	c := s.cfg
	s.rules = &revision.Follower{
		Log:     r.Log,
		Look:    r.Look,
		Own:     revision.Settings{Lateness: c.Lateness, MaxAhead: c.MaxAhead, Time: c.Events.Fields.Time},
		Service: "worker",
		Adopt:   s.adopt,
		Late:    func(revision.Entry) { s.metrics.rulesLate.Inc() },
		Report:  c.Log,
	}
}

// adopt makes the session judge by all the rules that were read, and by the settings of the stream that were applied with them.
func (s *session) adopt(set revision.Settings) (err error) {
	s.cfg.Lateness, s.cfg.MaxAhead, s.cfg.Events.Fields.Time = set.Lateness, set.MaxAhead, set.Time
	plan := s.rules.Plan()
	if err := s.extend(plan, s.cfg.Lateness, s.cfg.IdleTimeout); err != nil {
		return err
	}
	s.cfg.Events.Columns = plan.Inputs
	if s.events, err = format.New(s.cfg.Events); err != nil {
		return err
	}
	s.metrics.rules.Set(float64(plan.Revision))
	return nil
}

// consult makes sure that all rules are known which records can be about.
func (s *session) consult(ctx context.Context, f stream.Fetch) error {
	newest := int64(window.NoTime)
	for _, r := range f.Records {
		newest = max(newest, arrival(r))
	}
	return s.rules.Consult(ctx, newest)
}

// arrival is when a record came into the stream.
func arrival(r types.Record) int64 { return aws.ToTime(r.ApproximateArrivalTimestamp).UnixMilli() }

// knows reports whether the log has the rules that events were judged by.
func (s *session) knows() error {
	if have := s.rules.Revision(); s.st.Revision > have {
		return fmt.Errorf("events were judged by revision %d of the rules, but table %s has only revisions up to %d: its items were deleted; restore them, or start over", s.st.Revision, s.cfg.Lease.Table, have)
	}
	return nil
}
