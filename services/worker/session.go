package worker

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"spate/shared/aws/lease"
	"spate/shared/aws/stream"
	"spate/shared/format"
	"spate/shared/revision"
	"spate/shared/window"
)

const (
	// gather is how long events are added up before the threshold is looked at.
	gather = 50 * time.Millisecond
	// maxPanes ends that early: it bounds memory.
	maxPanes = 200_000
	// tick is how often silence is looked at.
	tick = 100 * time.Millisecond
	// saveEvery bounds what has to be read and judged again after a crash when no window closes, and how old the figures are that people see.
	saveEvery = 5 * time.Second
	// listEvery is how often shards are listed while one that is closed waits for its children.
	listEvery = time.Second
	// releaseTimeout is what ending in good order may take.
	releaseTimeout = 5 * time.Second
)

// session is one worker's life as the holder of the lease: events come in from the shards, are judged and counted by the engine, and go out as alerts.
// The progress says up to where that is done.
type session struct {
	cfg     Config
	metrics *metrics
	held    *lease.Held
	rules   *revision.Follower
	events  *format.Reader
	reports *reports

	group *errgroup.Group
	ctx   context.Context // of the readers

	shards
	engine
	output
	progress
}

// runSession waits for the lease and works for as long as it lasts.
func runSession(ctx context.Context, cfg Config, m *metrics, r *reports) error {
	m.active.Set(0)
	l := cfg.Lease
	l.Waiting = func(owner string) {
		cfg.Log.Info("standing by", "active", owner)
		cfg.Status.Ready() // that is its work
	}
	cfg.Status.NotReady("waiting for the lease in table " + l.Table)
	held, err := l.Acquire(ctx)
	if err != nil {
		return err
	}
	m.active.Set(1)
	defer m.active.Set(0)
	initial, err := cfg.initial()
	if err != nil {
		return err
	}
	s := &session{
		cfg: cfg, metrics: m, held: held, reports: r,
	}
	s.shards, s.output = newShards(&s.cfg), newOutput(&s.cfg, held)
	s.follow(initial)
	return s.run(ctx)
}

func (s *session) run(ctx context.Context) error {
	// Once it is asked to end it does so in good order, so what it does then must not end with ctx.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	s.group, s.ctx = errgroup.WithContext(work)
	s.group.Go(func() error { return s.held.Keep(s.ctx) })
	err := s.work(ctx)
	if s.ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = context.Cause(s.ctx) // a reader or the lease has failed
	}
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer stop()
	if err == nil && s.replay == 0 {
		if err = s.flush(end); err == nil {
			err = s.save(end)
		}
	}
	if !errors.Is(err, lease.ErrLost) {
		s.held.Release(end)
	}
	cancel()
	_ = s.group.Wait() // what it says is in err already, or is that everything ends
	return err
}

// work reads until ctx ends or everything is drained.
func (s *session) work(ctx context.Context) error {
	if err := s.rules.Learn(s.ctx); err != nil {
		return err
	}
	if err := s.load(s.ctx); err != nil {
		return err
	}
	s.cfg.Log.Info("worker started", "stream", s.cfg.Stream, "alerts_stream", s.cfg.AlertsStream, "shards", len(s.byID), "epoch", s.held.Epoch(),
		"replay", s.replay, "rules", s.rules.Names(), "revision", s.rules.Revision(), "lateness", s.cfg.Lateness.String(), "idle_timeout", s.cfg.IdleTimeout.String())
	s.cfg.Status.Ready()
	if s.replay == 0 {
		if err := s.replayed(s.ctx); err != nil {
			return err
		}
	}
	ticks := time.NewTicker(min(tick, gather))
	defer ticks.Stop()
	looked := s.cfg.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		case f := <-s.fetches:
			if err := s.take(s.ctx, f); err != nil {
				return err
			}
		case <-ticks.C:
		}
		if s.replay > 0 {
			continue
		}
		if !s.gathers.IsZero() && time.Since(s.gathers) >= gather || s.combiner.Panes() >= maxPanes {
			if err := s.flush(s.ctx); err != nil {
				return err
			}
		}
		if now := s.cfg.Now(); now.Sub(looked) >= tick {
			looked = now
			if err := s.look(s.ctx); err != nil {
				return err
			}
			if s.cfg.Drain && s.drained() {
				return s.finish(s.ctx)
			}
		}
	}
}

// load makes the session what the state says, and starts the readers.
func (s *session) load(ctx context.Context) error {
	var err error
	if b := s.held.State(); b != nil {
		s.st, err = s.cfg.parseState(b, s.stream.Plan.Origin)
	} else {
		var shards []stream.Shard
		if shards, err = s.reader.Shards(ctx); err == nil {
			s.st = s.cfg.firstState(stream.Kept(shards), s.stream.Plan.Origin)
			err = s.store(ctx)
		}
	}
	if err != nil {
		return err
	}
	if err := s.knows(); err != nil {
		return err
	}
	s.tally = s.st.Tally
	s.table.Resume(window.Position{Watermarks: []int64{s.st.Closed}})
	for id, p := range s.st.Shards {
		sh := s.add(id, p, s.st.Closed)
		if sh.cut != "" && sh.cut != p.After {
			s.replay++
		} else {
			sh.cut = ""
		}
	}
	s.snap()
	for _, sh := range s.byID {
		if !sh.waits {
			s.start(sh)
		}
	}
	return s.inherit(ctx)
}

// replayed goes on when every shard has come to its cut: the close that was under way is done first.
func (s *session) replayed(ctx context.Context) error {
	if _, err := s.apply(nil); err != nil { // what opened was written before the cut was
		return err
	}
	s.again() // they were in the tally before
	if s.st.Pending > s.st.Closed {
		if err := s.close(ctx); err != nil {
			return err
		}
	}
	now := s.cfg.Now().UnixMilli()
	for _, sh := range s.byID {
		sh.heard = now
		if sh.held == nil {
			continue
		}
		f := *sh.held
		sh.held = nil
		if err := s.take(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// look decides what the silence of shards means, whether windows close, and whether the state is to be saved.
func (s *session) look(ctx context.Context) error {
	if time.Since(s.listed) >= listEvery {
		if err := s.inherit(ctx); err != nil {
			return err
		}
	}
	s.silence()
	if to := s.watermark(&s.engine); s.stream.Crosses(s.st.Closed, to) {
		if err := s.flush(ctx); err != nil {
			return err
		}
		if err := s.decide(ctx, to); err != nil {
			return err
		}
	}
	s.walk()
	if time.Since(s.saved) >= saveEvery {
		if err := s.flush(ctx); err != nil {
			return err
		}
		if err := s.save(ctx); err != nil {
			return err
		}
	}
	s.align(&s.engine)
	s.gauges()
	return nil
}

// finish closes every window that has an event.
func (s *session) finish(ctx context.Context) error {
	if err := s.flush(ctx); err != nil {
		return err
	}
	last := s.newest()
	if last == window.NoTime {
		return nil
	}
	if to := s.stream.LastEnd(last) - 1; to > s.st.Closed {
		return s.decide(ctx, to)
	}
	return nil
}
