package gokaclient

import (
	"context"
	"slices"
	"strings"
	"time"

	"spate/shared/kafka"

	"github.com/twmb/franz-go/pkg/kadm"
)

// leaveOut goes on after what nobody can read, and looks at partitions that stand still: the client says nothing of a batch that has fewer
// records than it claims.
func (m *member) leaveOut(ctx context.Context, r *kafka.Reader, gaps []kafka.Gap) {
	s := m.current()
	if s == nil {
		return
	}
	for p, c := range s.claims {
		if c.probe.CompareAndSwap(true, false) {
			g, ok, err := r.Probe(ctx, p)
			if c.setWhy(err); ok {
				gaps = append(gaps, g)
			} else if err != nil {
				m.g.cfg.Log.Warn("a partition has stalled", "topic", m.g.cfg.Topic, "partition", p, "offset", c.position.Load(), "error", err)
			}
		}
	}
	for _, g := range gaps {
		c := s.claims[g.Partition]
		if c == nil || !g.Passed && g.To <= c.position.Load() {
			continue
		}
		if g.Deleted || g.Aborted {
			c.position.Store(max(c.position.Load(), g.To))
			c.tracker.pass(g.To)
			if g.Deleted && m.g.cfg.Deleted != nil {
				m.g.cfg.Deleted(g)
			}
			continue
		}
		if !g.Passed {
			r.Skip(g)
			c.position.Store(g.To)
			c.tracker.pass(g.To)
		}
		m.g.cfg.Log.Error("skipping an unreadable batch", "topic", g.Topic, "partition", g.Partition, "offset", g.From, "next", g.To, "error", g.Cause)
		if m.g.cfg.Unreadable != nil {
			m.g.cfg.Unreadable(g)
		}
	}
}

// position is where a partition is read next, -1 if it is not claimed.
func (m *member) position(partition int32) int64 {
	if s := m.current(); s != nil && s.claims[partition] != nil {
		return s.claims[partition].position.Load()
	}
	return -1
}

// watch asks the broker how far partitions are behind, until ctx ends, and finds those that stand still.
func (m *member) watch(ctx context.Context, r *kafka.Reader) {
	adm := kadm.NewClient(r.Client())
	var progress kafka.Progress
	var told bool
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			m.stalled("", &told)
			return
		case <-t.C:
		}
		s := m.current()
		if s == nil || m.g.cfg.Full != nil && m.g.cfg.Full() {
			progress = kafka.Progress{}
			r.Begins(nil)
			m.stalled("", &told)
			continue
		}
		actx, cancel := context.WithTimeout(ctx, requestTimeout)
		bounds, err := kafka.ListBounds(actx, adm, m.g.cfg.Topic)
		cancel()
		if err != nil {
			continue // whoever watches the broker says so
		}
		r.Begins(bounds)
		at := make(map[int32]int64, len(s.claims))
		for p, c := range s.claims {
			at[p] = c.position.Load()
		}
		m.lag(s, at, bounds)
		var text []string
		for p, d := range progress.Stands(time.Now(), at, bounds) {
			if d >= kafka.ProbeAfter {
				s.claims[p].probe.Store(true)
			}
			if d >= kafka.StalledAfter {
				text = append(text, kafka.Stalled(m.g.cfg.Topic, p, at[p], bounds[p], d, s.claims[p].whyStands()))
			}
		}
		slices.Sort(text)
		m.stalled(strings.Join(text, "; "), &told)
	}
}

// lag tells the lag of the session's partitions, unless they are revoked by now.
func (m *member) lag(s *session, at map[int32]int64, bounds map[int32]kafka.Bounds) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sess != s || m.g.cfg.Lag == nil {
		return
	}
	for p := range at {
		m.g.cfg.Lag(p, max(0, bounds[p].End-at[p]))
	}
}

func (m *member) stalled(what string, told *bool) {
	if m.g.cfg.Stalled != nil && (what != "" || *told) {
		m.g.cfg.Stalled(what)
		*told = what != ""
	}
}
