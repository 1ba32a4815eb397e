package worker

import (
	"context"
	"slices"
	"time"

	"spate/shared/aws/stream"
	"spate/shared/window"
)

// progress is up to where events are judged, and what was made of them.
type progress struct {
	st      state
	snaps   []snapshot // places before each batch, from the first of an open window on
	tally   tally      // of everything that was judged, st.Tally up to the cut
	counted counts
	saved   time.Time

	// While all shards are silent and no window is open, event time walks on with the wall clock, from walkFrom at quietSince; 0: they are not.
	quietSince, walkFrom int64
}

// snapshot is how far each shard had come before a batch.
type snapshot struct {
	batch int64
	at    map[string]mark
}

// mark is a place in a shard: what a place of the state is made of.
type mark struct {
	stream.Position
	maxTS  int64
	record int64 // number of the next record, of sequences
}

// snap notes how far the shards have come before the next batch. Shards that have not moved share nothing: there are few.
func (s *session) snap() {
	at := make(map[string]mark, len(s.byID))
	for id, sh := range s.byID {
		if !sh.waits {
			at[id] = sh.mark()
		}
	}
	if n := len(s.snaps); n > 0 && s.snaps[n-1].batch == s.batch {
		s.snaps[n-1].at = at // nothing was counted in between
		return
	}
	s.snaps = append(s.snaps, snapshot{s.batch, at})
}

// snapShard adds a shard that begins to the snapshots: nothing of it is in any batch so far.
func (s *session) snapShard(sh *shard) {
	for _, p := range s.snaps {
		p.at[sh.id] = sh.mark()
	}
}

func (sh *shard) mark() mark { return mark{sh.at, sh.src.MaxTS, sh.seqs.Next()} }

// forget drops what the windows that are open do not need, and moves resume on.
func (s *session) forget() {
	p := s.table.Position(s.batch)
	s.table.Committed(p)
	i := 0
	for i+1 < len(s.snaps) && s.snaps[i+1].batch <= p.Replay {
		i++
	}
	s.snaps = slices.Delete(s.snaps, 0, i)
	for id, at := range s.snaps[0].at {
		sh := s.byID[id]
		sh.seqs.Forget(at.record)
		if sh.ended && sh.closed && at.Position == sh.at { // no open window has an event of it, and nobody reads it any more
			s.drop(id)
		}
	}
	for _, sh := range s.byID {
		sh.src.Floor = max(sh.src.Floor, s.st.Closed)
	}
}

// drop forgets a shard that is read to its end and not needed any more.
func (s *session) drop(id string) {
	delete(s.byID, id)
	for _, p := range s.snaps {
		delete(p.at, id)
	}
}

// save writes the state: where to resume, and how far everything is judged. Alerts that opened up to there are written.
func (s *session) save(ctx context.Context) error {
	resume := s.snaps[0].at
	s.st.Shards = make(map[string]place, len(s.byID))
	for id, sh := range s.byID {
		p := place{Waits: sh.waits, Ended: sh.ended, Parents: sh.parents, MaxTS: sh.src.MaxTS, Position: sh.at, Seen: s.seen(sh)}
		if at, ok := resume[id]; ok && !sh.waits {
			p.Position, p.MaxTS = at.Position, at.maxTS
			if sh.at != at.Position {
				p.Cut = sh.at.After
			}
		}
		s.st.Shards[id] = p
	}
	s.st.Tally, s.st.Revision, s.st.SavedMS = s.tally, s.rules.Revision(), s.cfg.Now().UnixMilli()
	if err := s.store(ctx); err != nil {
		return err
	}
	s.told()
	return nil
}

// maxWalk bounds how far event time walks on: nothing stays open for longer than the longest quiet and the longest window.
const maxWalk = 26 * time.Hour

// walk lets event time walk on with the wall clock while all shards are silent, for incidents: all windows that have an event are closed by then. Windows
// that are opened later, by events that are older, are not affected.
func (s *session) walk() {
	newest := s.newest()
	if newest == window.NoTime || s.st.Closed == window.NoTime || !s.silent() || s.stream.LastEnd(newest)-1 > s.st.Closed {
		s.quietSince = 0
		return
	}
	now := s.cfg.Now().UnixMilli()
	if s.quietSince == 0 {
		s.quietSince, s.walkFrom = now, s.st.Closed
		if s.st.Over > s.st.Closed { // where an earlier session had come to
			s.walkFrom = s.st.Over
		}
		return
	}
	if to := s.walkFrom + now - s.quietSince; to > s.st.Over && to-s.st.Closed < maxWalk.Milliseconds() {
		s.st.Over = to
	}
}

// store writes the state as it is.
func (s *session) store(ctx context.Context) error {
	s.st.Wrote(nil) // none is something to know, too
	b, err := s.st.encode()
	if err != nil {
		return err
	}
	if err := s.held.Save(ctx, b); err != nil {
		return err
	}
	s.metrics.saves.Inc()
	s.saved = time.Now()
	return nil
}
