package web

import (
	"context"
	"math"
	"sync"
	"time"

	"spate/services/doctor"
	"spate/shared/incident"
	"spate/shared/store"
)

// Health is what is known of the pipeline's parts.
type Health struct {
	OK         bool             `json:"ok"` // nothing has failed
	Findings   []doctor.Finding `json:"findings"`
	Troubles   []string         `json:"troubles"`
	Partitions []Partition      `json:"partitions"`
	Rate       *float64         `json:"events_per_second"` // null: not known
	Lag        *int64           `json:"lag"`
	Behind     *float64         `json:"behind_seconds"`
	ClosedTo   *time.Time       `json:"closed_up_to"`
	Part       string           `json:"-"` // what a partition is called
}

// checkedFor is how long what was checked is not checked again.
const checkedFor = 30 * time.Second

// checks are what the last look at the pipeline's parts has found.
type checks struct {
	mu       sync.Mutex
	at       time.Time
	findings []doctor.Finding
}

func (s *Server) check(ctx context.Context) []doctor.Finding {
	if s.cfg.Doctor == nil {
		return nil
	}
	s.checks.mu.Lock()
	defer s.checks.mu.Unlock()
	if time.Since(s.checks.at) > checkedFor {
		s.checks.findings = s.cfg.Doctor(ctx)
		if ctx.Err() == nil { // otherwise it is not complete
			s.checks.at = time.Now()
		}
	}
	return s.checks.findings
}

// health returns what is known of the pipeline; whole reports whether its parts are to be checked, too.
func (s *Server) health(ctx context.Context, whole bool) (h Health) {
	h.OK, h.Findings, h.Partitions = true, []doctor.Finding{}, []Partition{}
	samples, err := s.sampler.now()
	h.Troubles = append([]string{}, Troubles(samples)...)
	if err != nil {
		h.OK, h.Troubles = false, append(h.Troubles, sentence(err))
	}
	if len(samples) > 0 {
		now := samples[len(samples)-1]
		h.Partitions, h.Part, h.Lag, h.Behind = append(h.Partitions, now.Partitions...), now.Part, now.Lag(), now.Behind()
		if !math.IsNaN(now.Rate) {
			h.Rate = &now.Rate
		}
		if !now.Counted.IsZero() {
			h.ClosedTo = &now.Counted
		}
	}
	st, err := s.store(ctx)
	if err == nil { // it was opened at some time, and may have gone away since
		_, err = store.Collect(st.Incidents(ctx, store.IncidentFilter{State: incident.StateOpen, Limit: 1}))
	}
	if err != nil {
		h.OK, h.Troubles = false, append(h.Troubles, "The database cannot be reached: "+message(err))
	}
	if whole {
		h.Findings = append(h.Findings, s.check(ctx)...)
	}
	for _, f := range h.Findings {
		h.OK = h.OK && f.Level != doctor.Failed
	}
	return h
}
