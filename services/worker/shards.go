package worker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"spate/shared/aws/stream"
	"spate/shared/window"
)

// shard is a shard that is read, or was and is still needed.
type shard struct {
	id      string
	number  int32 // stands for it in the engine
	parents []string
	src     window.Source
	at      stream.Position // the last record that was judged
	cut     string          // replay: what comes up to here was judged before; empty: nothing is replayed
	held    *stream.Fetch   // what came behind the cut, until all shards have come to theirs
	waits   bool            // its parents are not read to their ends yet
	closed  bool            // read to its end
	gone    bool            // not kept any more before it was
	ended   bool            // and its children have taken over
	atEnd   bool            // there was nothing more to read
	heard   int64           // wall clock of the last event, milliseconds
	looked  int64           // wall clock of the last call that read it
	behind  int64           // as Kinesis has it, milliseconds
	seqs    stream.Sequences

	more    chan struct{} // the reader may go on
	started bool
	paused  bool // it is ahead of the others: the reader waits
	owed    bool // it would go on, were it not paused
}

// shards are those of the stream that are read, or were and are still needed.
type shards struct {
	cfg      *Config // the session's
	reader   *stream.Reader
	byID     map[string]*shard
	numbered []*shard // by the number that stands for a shard in the engine
	fetches  chan stream.Fetch
	replay   int       // shards that have not come to their cut yet
	listed   time.Time // when they were looked for last
}

func newShards(cfg *Config) shards {
	return shards{
		cfg: cfg, byID: make(map[string]*shard), fetches: make(chan stream.Fetch),
		reader: &stream.Reader{API: cfg.Kinesis, Stream: cfg.Stream, Log: cfg.Log, Interval: cfg.Poll, Now: cfg.Now},
	}
}

// add makes a shard out of what the state knows of it. Windows are closed up to a watermark.
func (s *shards) add(id string, p place, closed int64) *shard {
	sh := &shard{
		id: id, number: int32(len(s.numbered)), parents: p.Parents, at: p.Position, cut: p.Cut, waits: p.Waits, ended: p.Ended,
		src: window.Source{MaxTS: p.MaxTS, Newest: p.MaxTS, Floor: closed}, heard: s.cfg.Now().UnixMilli(), more: make(chan struct{}, 1),
	}
	if p.Ended && p.Cut == "" { // nothing of it has to be read again
		sh.closed = true
	}
	s.byID[id] = sh
	s.numbered = append(s.numbered, sh)
	return sh
}

// start begins to read a shard.
func (s *session) start(sh *shard) {
	if sh.started || sh.closed {
		return
	}
	sh.started = true
	from := sh.at
	s.group.Go(func() error {
		err := s.reader.Read(s.ctx, sh.id, from, func(ctx context.Context, f stream.Fetch) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case s.fetches <- f:
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-sh.more:
				return nil
			}
		})
		if err != nil && s.ctx.Err() == nil {
			return fmt.Errorf("shard %s: %w", sh.id, err)
		}
		return err
	})
}

// next lets the shard's reader go on.
func (sh *shard) next() {
	if sh.paused {
		sh.owed = true
		return
	}
	select {
	case sh.more <- struct{}{}:
	default: // it has been told
	}
}

// take judges what was read of a shard.
func (s *session) take(ctx context.Context, f stream.Fetch) error {
	if err := s.consult(ctx, f); err != nil {
		return err
	}
	sh := s.byID[f.Shard]
	if f.Lost {
		s.tally.Lost++
		s.metrics.lost.Inc()
		s.reports.lose()
		s.cfg.Log.Error("records were deleted before they were read: alerts may be missing", "stream", s.cfg.Stream, "shard", sh.id, "after", sh.at.After)
	}
	if s.replay > 0 {
		return s.takeAgain(ctx, sh, f)
	}
	for _, r := range f.Records {
		if err := s.record(ctx, sh, aws.ToString(r.SequenceNumber), r.Data, aws.ToTime(r.ApproximateArrivalTimestamp)); err != nil {
			return err
		}
	}
	sh.atEnd, sh.behind, sh.looked = f.AtEnd, f.BehindMS, f.Asked.UnixMilli()
	if f.Closed {
		sh.closed, sh.gone = true, f.Gone
		if err := s.inherit(ctx); err != nil {
			return err
		}
	}
	if len(s.asides) >= stream.MaxRecords {
		if err := s.writeAside(ctx); err != nil {
			return err
		}
	}
	sh.next()
	return nil
}

// takeAgain judges what comes up to the cut, and keeps what comes behind it until all shards have come to theirs.
func (s *session) takeAgain(ctx context.Context, sh *shard, f stream.Fetch) error {
	if sh.cut == "" { // it is there already
		f.Lost = false // that is told
		sh.held = &f
		return nil
	}
	rest := len(f.Records) // of it was judged before
	for i, r := range f.Records {
		seq := aws.ToString(r.SequenceNumber)
		if stream.Before(sh.cut, seq) {
			rest = i
			break
		}
		if err := s.record(ctx, sh, seq, r.Data, aws.ToTime(r.ApproximateArrivalTimestamp)); err != nil {
			return err
		}
	}
	if s.combiner.Panes() >= maxPanes {
		if _, err := s.apply(nil); err != nil {
			return err
		}
	}
	if rest == len(f.Records) && sh.at.After != sh.cut && !f.Closed && !f.AtEnd {
		sh.next()
		return nil
	}
	f.Records, f.Lost = f.Records[rest:], false
	sh.held, sh.cut = &f, ""
	if s.replay--; s.replay > 0 {
		return nil
	}
	return s.replayed(ctx)
}

// inherit starts the shards whose parents are all read to their ends: they go on where those have come to.
func (s *session) inherit(ctx context.Context) error {
	s.listed = time.Now()
	for _, sh := range s.byID {
		if !sh.closed || sh.ended || s.replay > 0 {
			continue
		}
		children, err := s.childrenOf(ctx, sh)
		if err != nil {
			return err
		}
		all := len(children) > 0
		for _, c := range children {
			all = all && !c.waits
		}
		if all {
			sh.ended = true
		}
	}
	return nil
}

// childrenOf returns the children of a shard that is read to its end; those that can begin have begun.
func (s *session) childrenOf(ctx context.Context, parent *shard) ([]*shard, error) {
	listed, err := s.reader.Shards(ctx)
	if err != nil {
		return nil, err
	}
	var out []*shard
	for _, l := range stream.Successors(listed, parent.id, parent.gone) {
		sh := s.byID[l.ID]
		if sh == nil {
			sh = s.add(l.ID, place{MaxTS: window.NoTime, Waits: true, Parents: l.Parents}, s.st.Closed)
		}
		if sh.waits && !s.unheard(l.Parents, listed) {
			s.succeed(sh)
		}
		out = append(out, sh)
	}
	if len(out) == 0 {
		s.cfg.Log.Warn("shard is closed, but its children are not listed yet", "stream", s.cfg.Stream, "shard", parent.id)
	}
	return out, nil
}

// unheard reports whether one of the parents of a shard that waits is listed, but not known to the session yet: it is the child of one that is
// still read. It cannot be one that is done with, for a shard is kept until all its children have begun.
func (s *shards) unheard(parents []string, listed []stream.Shard) bool {
	return slices.ContainsFunc(listed, func(l stream.Shard) bool { return s.byID[l.ID] == nil && slices.Contains(parents, l.ID) })
}

// succeed begins a shard if all its parents are read to their ends. It takes over from the one that is furthest behind.
func (s *session) succeed(sh *shard) {
	from := window.Source{MaxTS: window.EndOfTime}
	for _, id := range sh.parents {
		p := s.byID[id]
		if p == nil {
			continue // it was done with long ago
		}
		if !p.closed {
			return
		}
		if p.src.MaxTS < from.MaxTS {
			from = p.src
		}
	}
	if from.MaxTS == window.EndOfTime {
		from.MaxTS = window.NoTime
	}
	sh.waits = false
	sh.src = window.Source{MaxTS: from.MaxTS, Newest: from.MaxTS, Floor: s.st.Closed}
	sh.heard = s.cfg.Now().UnixMilli()
	s.snapShard(sh)
	s.cfg.Log.Info("starting to read shard", "stream", s.cfg.Stream, "shard", sh.id, "parents", sh.parents)
	s.start(sh)
}

// live reports whether the shard has a say in the watermark.
func (sh *shard) live() bool { return !sh.waits && !sh.ended }

// lookMargin is for how long, beyond two polls, what the last call has said of a shard is taken for what is so.
const lookMargin = 2 * time.Second

// silence finds the shards that are read to their ends and have had no event for the idle timeout. Only what was looked at can be found
// silent: a shard that is paused, or that cannot be read, or all of them while the worker waited for something else, may have had events
// since, and what closed their windows would make those late.
func (s *shards) silence() {
	now, timeout := s.cfg.Now().UnixMilli(), s.cfg.IdleTimeout.Milliseconds()
	for _, sh := range s.byID {
		sh.src.Idle = timeout > 0 && sh.live() && !sh.closed && !sh.paused && sh.atEnd && sh.looked-sh.heard >= timeout && s.isRecent(now-sh.looked)
	}
}

// isRecent reports whether what a call has said so many milliseconds ago is taken for what is so.
func (s *shards) isRecent(ms int64) bool { return ms <= (2*s.cfg.Poll + lookMargin).Milliseconds() }

// seen is what people are shown of a shard. One that could not be read for a while, or was to wait for the others, is behind by that time, too.
func (s *shards) seen(sh *shard) *seen {
	if sh.looked == 0 {
		return nil
	}
	out := &seen{Newest: sh.src.Newest, BehindMS: sh.behind}
	if ago := s.cfg.Now().UnixMilli() - sh.looked; !sh.closed && !s.isRecent(ago) {
		out.BehindMS += ago
	}
	if sh.src.Idle {
		out.SilentSince = sh.heard
	}
	return out
}

// silent reports whether all shards are.
func (s *shards) silent() bool {
	live := 0
	for _, sh := range s.byID {
		if sh.live() {
			if live++; !sh.src.Idle {
				return false
			}
		}
	}
	return live > 0
}

// watermark is how far windows could be closed.
func (s *shards) watermark(e *engine) int64 {
	var peers []window.Peer
	for _, sh := range s.byID {
		if sh.live() {
			peers = append(peers, window.Peer{Source: sh.src, Known: true})
		}
	}
	if len(peers) == 0 {
		return window.NoTime
	}
	return e.idleness.Promise(s.cfg.Now().UnixMilli(), peers)
}

// newest is the highest event time of all shards.
func (s *shards) newest() int64 {
	newest := int64(window.NoTime)
	for _, sh := range s.byID {
		newest = max(newest, sh.src.Newest)
	}
	return newest
}

// sources is how many numbers of shards the engine knows.
func (s *shards) sources() int32 { return max(1, int32(len(s.numbered))) }

// drained reports whether every shard is read to its end.
func (s *shards) drained() bool {
	for _, sh := range s.byID {
		if sh.waits || !sh.ended && (sh.closed || !sh.atEnd) {
			return false
		}
	}
	return true
}

// maxLead is how far a shard may be ahead of the slowest in event time, beyond a window and its lateness, while there is a backlog.
const maxLead = time.Minute

// align keeps the shards together in event time while there is a backlog: all windows between the slowest and the fastest are open, with
// everyone who has an event in them. With too many open windows, only the slowest is read.
func (s *shards) align(e *engine) {
	full := e.table.Stats().Open() >= s.cfg.MaxOpenWindows
	slowest := int64(window.EndOfTime)
	for _, sh := range s.byID {
		switch {
		case !sh.live() || sh.closed || sh.src.Idle:
		case full: // whoever holds windows open is waited for, be it that nothing of it has come yet
			slowest = min(slowest, sh.src.MaxTS)
		case !sh.atEnd && sh.src.MaxTS != window.NoTime:
			slowest = min(slowest, sh.src.MaxTS)
		}
	}
	lead := e.stream.Span() + e.stream.LatenessMS + maxLead.Milliseconds()
	if full {
		lead = 0
	}
	for _, sh := range s.byID {
		ahead := sh.src.MaxTS != window.NoTime && sh.src.MaxTS-lead > slowest
		if ahead == sh.paused {
			continue
		}
		sh.paused = ahead
		sh.atEnd = false // nobody knows before it is read again
		if !ahead && sh.owed {
			sh.owed = false
			sh.next()
		}
	}
}
