package router

import (
	"context"
	"fmt"
	"time"

	"spate/shared/fault"
	"spate/shared/kafka"
	"spate/shared/window"
)

// look asks the broker where the partitions begin and end. From that come lag, what was deleted unread, which partitions stand still, and
// which are silent: those that are read to their end and have had no event for the idle timeout. That is taken back from those that hold
// something unread. What is known of other routers' partitions is renewed if a promise depends on it.
func (s *session) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	parts, owned := s.sources.snapshot()
	now := s.cfg.Now().UnixMilli()
	bounds, err := kafka.ListBounds(ctx, s.adm, s.cfg.Layout.Names.Activity)
	if err != nil {
		// What cannot be seen may hold something: nothing more is promised until it can. Time without a broker is not silence.
		for _, p := range parts {
			owned[p].now.Idle, owned[p].heard = false, now
		}
		return err
	}
	if n := int32(len(bounds)); n != s.sources.total {
		return fmt.Errorf("%w: %s has %d partitions; it had %d before", kafka.ErrTopicChanged, s.cfg.Layout.Names.Activity, n, s.sources.total)
	}
	idle := false
	for _, p := range parts {
		src := owned[p]
		src.bounds = bounds[p]
		src.readUpTo(now, s.endOf(src))
		src.now.Idle = s.cfg.IdleTimeout > 0 && (src.silent(now, s.cfg.IdleTimeout) || fault.HastyPromise)
		idle = idle || src.now.Idle
	}
	s.progress(parts, owned)
	for p := range s.waiting {
		delete(bounds, p) // the client may hold something of it
	}
	s.reader.Begins(bounds)
	if idle && len(parts) < int(s.sources.total) {
		if s.foreign, err = s.fetchForeign(ctx, owned); err != nil {
			return err
		}
	}
	s.promise(parts, owned)
	return nil
}

// endOf returns the offset up to which a partition must be read for it to be silent. That is the end of the log, not of what can be read: a
// transaction that is open may hold events. But it holds windows open for a bounded time only.
func (s *session) endOf(src *source) int64 {
	b := src.bounds
	if b.Stable >= b.End || src.position < b.Stable {
		src.held = -1
		return b.End
	}
	if src.held != b.Stable {
		src.held, src.heldSince = b.Stable, s.cfg.Now()
	}
	if limit := s.cfg.OpenTransactionTimeout; limit > 0 && s.cfg.Now().Sub(src.heldSince) >= limit {
		return b.Stable
	}
	return b.End
}

// unreadFor is how old what is unread of a silent partition may be. Somebody may always have written something a moment ago; but a partition
// that is not read on, or is held back, holds something of which nobody knows what it is.
const unreadFor = time.Second

// silent reports whether the partition has had no event for the timeout.
func (s *source) silent(now int64, timeout time.Duration) bool {
	return s.readTo-s.heard >= timeout.Milliseconds() && now-s.readTo <= unreadFor.Milliseconds()
}

// readUpTo brings readTo up to date: end is where the log ends now. A partition that gets records all the time, none of which is an event, is
// never read to the end that it has at the moment, but always to the one that it had a moment ago.
func (s *source) readUpTo(now, end int64) {
	if s.position >= s.seen {
		s.readTo = max(s.readTo, s.seenAt)
		s.seen, s.seenAt = end, now
	}
	if s.position >= end {
		s.readTo = now
		s.seen, s.seenAt = end, now
	}
}

// progress finds the partitions that stand still with something to read.
func (s *session) progress(parts []int32, owned map[int32]*source) {
	at, bounds := make(map[int32]int64, len(parts)), make(map[int32]kafka.Bounds, len(parts))
	for _, p := range parts {
		if !s.waiting[p] {
			at[p], bounds[p] = owned[p].position, owned[p].bounds
		}
	}
	stands := s.standing.Stands(time.Now(), at, bounds)
	for _, p := range parts {
		owned[p].stands = stands[p]
	}
}

// fetchForeign returns the states of partitions that other routers own.
func (s *session) fetchForeign(ctx context.Context, owned map[int32]*source) (map[int32]window.Peer, error) {
	peers, err := s.fetchPeers(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[int32]window.Peer)
	for p, c := range peers {
		if c.known && owned[p] == nil {
			out[p] = window.Peer{Source: c.Source, Known: true}
		}
	}
	return out, nil
}

// promise raises the floor of owned idle partitions.
func (s *session) promise(parts []int32, owned map[int32]*source) {
	idle := false
	for _, p := range parts {
		idle = idle || owned[p].now.Idle
	}
	if !idle || s.cfg.IdleTimeout <= 0 {
		return
	}
	peers := make([]window.Peer, s.sources.total)
	for p := range peers {
		if src := owned[int32(p)]; src != nil {
			peers[p] = window.Peer{Source: src.now, Known: true}
		} else {
			peers[p] = s.foreign[int32(p)]
		}
		peers[p].Idle = peers[p].Idle || fault.HastyPromise
		peers[p].Idle = peers[p].Idle || fault.HastyPromise
	}
	w := s.idleness.Promise(s.cfg.Now().UnixMilli(), peers)
	if w == window.NoTime {
		return
	}
	for _, p := range parts {
		if src := owned[p]; src.now.Idle {
			src.now.Floor = max(src.now.Floor, w)
		}
	}
}

// promised reports whether there is a promise that is worth a transaction of its own: one that closes windows, or makes a partition
// known as idle to the other routers.
func (s *session) promised() bool {
	parts, owned := s.sources.snapshot()
	for _, p := range parts {
		was, now := owned[p].committed, owned[p].now
		if was.Idle != now.Idle || s.stream.Crosses(was.Watermark(s.stream.LatenessMS), now.Watermark(s.stream.LatenessMS)) {
			return true
		}
	}
	return false
}

// drained reports whether the input has ended and everything of it is read.
func (s *session) drained(ctx context.Context) bool {
	select {
	case <-s.cfg.Drain:
	default:
		return false
	}
	parts, owned := s.sources.snapshot()
	if len(parts) < int(s.sources.total) {
		return false
	}
	bounds, err := kafka.ListBounds(ctx, s.adm, s.cfg.Layout.Names.Activity)
	if err != nil {
		if ctx.Err() == nil {
			s.cfg.Log.Warn("cannot determine whether the input has been read to the end", "error", err)
		}
		return false
	}
	for _, p := range parts {
		if owned[p].position < bounds[p].End {
			return false
		}
	}
	return true
}

// finish promises the end of time for all partitions, which closes every window.
func (s *session) finish(ctx context.Context) (bool, error) {
	parts, owned := s.sources.snapshot()
	for _, p := range parts {
		owned[p].now.Floor, owned[p].now.Idle = window.EndOfTime, true
	}
	return s.transact(ctx, nil)
}
