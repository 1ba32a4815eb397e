package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/activity"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/window"
)

const (
	// gatherCaughtUp is how long a transaction gathers events when there is no backlog: it is most of an alert's delay.
	gatherCaughtUp = 50 * time.Millisecond
	// gatherBacklog is the same under a backlog.
	gatherBacklog = time.Second
	// backlog is the lag from which on gatherBacklog applies, in events.
	backlog = 20_000
	// maxPanes ends a transaction early: it bounds memory.
	maxPanes = 200_000
	// tick is how often silence is looked at.
	tick = 250 * time.Millisecond

	// fetchMaxWait bounds how long a partition that was taken over waits for its first fetch: the client lets a long poll for the
	// others finish first.
	fetchMaxWait = 500 * time.Millisecond

	transactionTimeout = 6 * time.Second // how long a dead router can hold readers back
	sessionTimeout     = 6 * time.Second // Apache Kafka's lower bound by default
)

// Run routes until ctx ends, or until everything is drained. A broken session is rebuilt for ever; only a setting that cannot work
// is an error.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("router: %w", err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	rule, err := window.NewRule(cfg.Window, cfg.Lateness)
	if err != nil {
		return fmt.Errorf("router: %w", err)
	}
	scanner, err := activity.NewScanner(cfg.Fields)
	if err != nil {
		return fmt.Errorf("router: %w", err)
	}
	if cfg.Instance == "" {
		name, release, err := kafka.Instance("spate-router")
		if err != nil {
			return fmt.Errorf("router: %w; give one with SPATE_INSTANCE (--instance)", err)
		}
		defer release()
		cfg.Instance = name
	}
	m := newMetrics(cfg.Registry)
	fatal := func(err error) bool { return errors.Is(err, kafka.ErrLayout) }
	err = ops.Keep(ctx, cfg.Log, cfg.Status, fatal, func(ctx context.Context) error {
		s := &session{cfg: cfg, rule: rule, scanner: scanner, metrics: m, tally: tally{invalid: make(map[activity.Reason]int64)}}
		return s.run(ctx)
	})
	if err != nil {
		return fmt.Errorf("router: %w", err)
	}
	return nil
}

// session is one life of the transactional client.
type session struct {
	cfg     Config
	rule    window.Rule
	scanner *activity.Scanner
	metrics *metrics

	txn      *kgo.GroupTransactSession
	adm      *kadm.Client
	keyed    int32
	sources  *sources
	combiner *window.Combiner
	idleness window.Idleness
	foreign  map[int32]window.Peer // as last read
	waiting  map[int32]bool        // partitions that are ahead, and not read
	tally    tally
	trouble  error // why the last transaction was aborted, until one is committed

	maxLeadMS int64

	mu     sync.Mutex
	failed error // why the open transaction must be aborted
}

func (s *session) run(ctx context.Context) error {
	names := s.cfg.Layout.Names
	plain, err := kgo.NewClient(s.cfg.Kafka.Options()...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer plain.Close()
	s.adm = kadm.NewClient(plain)
	total, keyed, err := s.cfg.Layout.EnsureWhenReady(ctx, plain, s.cfg.Kafka.Brokers, s.cfg.Log)
	if err != nil {
		return err
	}
	s.keyed = keyed
	nowMS := func() int64 { return s.cfg.Now().UnixMilli() }
	s.sources = newSources(total, nowMS)
	s.combiner = window.NewCombiner(s.rule.SizeMS)
	s.maxLeadMS = s.rule.SizeMS + s.rule.LatenessMS + maxLead.Milliseconds()
	s.idleness = window.Idleness{Rule: s.rule, TimeoutMS: s.cfg.IdleTimeout.Milliseconds()}

	revoked := func(_ context.Context, _ *kgo.Client, m map[string][]int32) { s.sources.revoked(m[names.Activity]) }
	if err := s.endFormerLife(ctx); err != nil {
		return err
	}
	s.txn, err = kgo.NewGroupTransactSession(s.cfg.Kafka.Options(
		kgo.WithLogger(kafka.Logger(s.cfg.Log)),
		kgo.TransactionalID(s.cfg.Instance),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.ConsumerGroup(names.RouterGroup),
		kgo.SessionTimeout(sessionTimeout),
		kgo.HeartbeatInterval(time.Second),
		kgo.RebalanceTimeout(15*time.Second),
		kgo.ConsumeTopics(names.Activity),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // they move the position, which tells whether a partition is read to its end
		kgo.FetchMaxWait(fetchMaxWait), kgo.FetchMaxPartitionBytes(4<<20), kgo.FetchMaxBytes(16<<20),
		kgo.OnOffsetsFetched(func(_ context.Context, _ *kgo.Client, r *kmsg.OffsetFetchResponse) error { return s.sources.fetched(r) }),
		kgo.OnPartitionsRevoked(revoked), kgo.OnPartitionsLost(revoked),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchMaxBytes(kafka.ProducerBatchMaxBytes),
		kgo.MaxBufferedRecords(100_000), kgo.MaxBufferedBytes(256<<20),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	)...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer kafka.Close(s.txn.Client(), s.cfg.Log)
	var wg sync.WaitGroup
	defer wg.Wait()
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { kafka.Watch(wctx, plain, s.cfg.Log, s.cfg.Status.Hold) })
	s.cfg.Log.Info("router started", "instance", s.cfg.Instance, "topic", names.Activity, "partitions", total, "keyed_partitions", keyed,
		"window", s.cfg.Window.String(), "lateness", s.cfg.Lateness.String(), "idle_timeout", s.cfg.IdleTimeout.String())
	return s.loop(ctx)
}

// endFormerLife aborts the transaction that a killed router of this name left open. Until it is ended, readers of the outputs wait, and
// so does whoever takes the source partitions over; the session's own client would do it only with its first write, which comes after
// the offsets that it waits for.
func (s *session) endFormerLife(ctx context.Context) error {
	cl, err := kgo.NewClient(s.cfg.Kafka.Options(kgo.WithLogger(kafka.Logger(s.cfg.Log)), kgo.TransactionalID(s.cfg.Instance), kgo.TransactionTimeout(transactionTimeout))...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*transactionTimeout)
	defer cancel()
	if _, _, err := cl.ProducerID(ctx); err != nil {
		return fmt.Errorf("end what a router of this name left open: %w", err)
	}
	return nil
}

func (s *session) loop(ctx context.Context) error {
	ticked := time.Now()
	for ctx.Err() == nil {
		f, err := s.poll(ctx, tick)
		if err != nil {
			return err
		}
		if time.Since(ticked) >= tick {
			ticked = time.Now()
			s.gauges()
			if err := s.lookForSilence(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Log.Warn("cannot tell which partitions are silent", "error", err)
			}
		}
		switch {
		case f.NumRecords() > 0:
			_, err = s.transact(ctx, f)
		case s.drained(ctx):
			done, err := s.finish(ctx)
			if done || err != nil {
				return err
			}
		case s.promised():
			_, err = s.transact(ctx, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// poll returns what has been fetched, or nothing after d.
func (s *session) poll(ctx context.Context, d time.Duration) (kgo.Fetches, error) {
	s.align()
	pctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	f := s.txn.PollRecords(pctx, 20_000)
	if f.IsClientClosed() {
		return nil, kgo.ErrClientClosed
	}
	for _, e := range f.Errors() {
		if errors.Is(e.Err, context.DeadlineExceeded) || errors.Is(e.Err, context.Canceled) {
			continue
		}
		// A partition's own offset that is gone (retention) is reset by the client, and everything else it retries.
		s.cfg.Log.Warn("fetch", "topic", e.Topic, "partition", e.Partition, "error", e.Err)
	}
	return f, nil
}

// transact runs one transaction that begins with the given fetches, and tells whether it was committed.
func (s *session) transact(ctx context.Context, f kgo.Fetches) (bool, error) {
	if err := s.txn.Begin(); err != nil {
		return false, fmt.Errorf("begin transaction: %w", err)
	}
	s.abort(nil)
	began := time.Now()
	for {
		lag := s.take(ctx, f)
		limit := gatherCaughtUp
		if lag > backlog {
			limit = gatherBacklog
		}
		left := limit - time.Since(began)
		if f == nil || left <= 0 || s.combiner.Panes() >= maxPanes || ctx.Err() != nil {
			break
		}
		var err error
		if f, err = s.poll(ctx, left); err != nil {
			return false, err
		}
	}
	return s.commit(ctx)
}

// take judges the records of one poll and returns how many events are waiting behind them.
func (s *session) take(ctx context.Context, f kgo.Fetches) (lag int64) {
	now := s.cfg.Now().UnixMilli()
	ahead := s.cfg.MaxAhead.Milliseconds()
	f.EachPartition(func(p kgo.FetchTopicPartition) {
		src := s.sources.get(p.Partition)
		if src == nil {
			if len(p.Records) > 0 { // revoked meanwhile: the session aborts what is open
				s.abort(fmt.Errorf("records of partition %d, which is not owned any more", p.Partition))
			}
			return
		}
		for _, r := range p.Records {
			if r.Attrs.IsControl() {
				continue
			}
			mark, reason := s.scanner.Scan(r.Value)
			if reason == activity.ReasonNone && ahead > 0 && mark.TimeMS > r.Timestamp.UnixMilli()+ahead {
				reason = activity.ReasonTimeAhead
			}
			if reason != activity.ReasonNone {
				s.tally.invalid[reason]++
				s.dead(ctx, r, reason)
				continue
			}
			src.heard = now
			fate, start, lateBy := src.now.Judge(s.rule, mark.TimeMS)
			if fate.Late() {
				s.tally.late[fate]++
				s.late(ctx, r, fate, start, lateBy)
				continue
			}
			s.tally.counted++
			s.combiner.Add(mark.User, start, mark.TimeMS, p.Partition, r.Offset)
		}
		src.advance(p.FetchPartition)
		lag += src.lag()
	})
	return lag
}

// commit writes the batches and ends the transaction. It tells whether it was committed; if not, everything is read again.
func (s *session) commit(ctx context.Context) (bool, error) {
	// A transaction that is being committed is finished even if ctx ends: it takes a bounded time, and aborting costs as much.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transactionTimeout)
	defer cancel()
	names := s.cfg.Layout.Names
	parts, owned := s.sources.snapshot()
	// Nothing is promised here: what the last look at silence said may be old by now, and a partition that had an event since would be
	// promised past it.
	var marks []window.Mark
	for _, p := range parts {
		if w := owned[p].now.Watermark(s.rule.LatenessMS); w != window.NoTime {
			marks = append(marks, window.Mark{Partition: p, WatermarkMS: w})
		}
	}
	s.tally.panes = int64(s.combiner.Panes())
	home := func(user []byte) int32 { return kafka.PartitionFor(user, s.keyed) }
	s.combiner.Flush(s.keyed, home, s.sources.total, marks, func(p int32, value []byte) {
		s.produce(ctx, &kgo.Record{Topic: names.Keyed, Partition: p, Value: append([]byte(nil), value...)})
	})
	try := kgo.TryCommit
	if err := s.txn.Client().Flush(ctx); err != nil {
		return false, fmt.Errorf("flush: %w", err)
	}
	if err := s.abortCause(); err != nil {
		s.cfg.Log.Warn("transaction aborted, its events are read again", "error", err)
		try = kgo.TryAbort
		s.trouble = err
	}
	ok, err := s.txn.End(kgo.PreTxnCommitFnContext(ctx, commitContext(names.Activity, parts, owned)), try)
	defer s.tally.reset()
	if err != nil {
		s.metrics.transactions.WithLabelValues("failed").Inc()
		return false, fmt.Errorf("end transaction: %w", err)
	}
	if !ok {
		s.metrics.transactions.WithLabelValues("aborted").Inc()
		s.sources.rollback()
		return false, nil
	}
	for _, p := range parts {
		src := owned[p]
		src.committed, src.settled = src.now, src.position
	}
	s.metrics.committed(&s.tally, s.cfg.Counts)
	s.trouble = nil
	return true, nil
}

func (s *session) produce(ctx context.Context, r *kgo.Record) {
	s.txn.Produce(ctx, r, func(r *kgo.Record, err error) {
		if err != nil {
			s.abort(fmt.Errorf("write to %s: %w", r.Topic, err))
		}
	})
}

// abort makes the open transaction end without effect; nil takes that back.
func (s *session) abort(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil || cause == nil {
		s.failed = cause
	}
}

func (s *session) abortCause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *session) gauges() {
	parts, owned := s.sources.snapshot()
	var lag, idle int64
	low := int64(window.EndOfTime)
	for _, p := range parts {
		lag += owned[p].lag()
		if owned[p].now.Idle {
			idle++
		}
		low = min(low, owned[p].now.Watermark(s.rule.LatenessMS))
	}
	s.metrics.lag.Set(float64(lag))
	s.metrics.idle.Set(float64(idle))
	s.metrics.owned.Set(float64(len(parts)))
	if low != window.NoTime && low != window.EndOfTime {
		s.metrics.watermark.Set(float64(low) / 1000)
	}
	switch {
	case len(parts) == 0: // it has said why, or waits for the group
	case s.trouble != nil && lag > 0:
		s.cfg.Status.NotReady("transactions are aborted, their events wait: " + s.trouble.Error())
	default:
		s.cfg.Status.Ready()
	}
}
