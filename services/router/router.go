package router

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"spate/shared/activity"
	"spate/shared/fault"
	"spate/shared/format"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/revision"
	"spate/shared/revision/topic"
	"spate/shared/rule"
	"spate/shared/window"
)

const (
	// gatherCaughtUp is how long a transaction gathers events without a backlog. It accounts for most of an alert's delay.
	gatherCaughtUp = 50 * time.Millisecond
	// gatherBacklog is how long it gathers them with a backlog.
	gatherBacklog = time.Second
	// backlog is the lag above which gatherBacklog applies, in events.
	backlog = 20_000
	// maxPanes ends a transaction early, to bound memory.
	maxPanes = 200_000
	// maxAsideBytes does so, too: late events and dead letters stay in memory until they are written.
	maxAsideBytes = 32 << 20
	// tick is how often the router looks for silent partitions while one may be silent, lookEvery otherwise.
	tick      = 250 * time.Millisecond
	lookEvery = time.Second

	// fetchMaxWait bounds how long a partition that was taken over waits for its first fetch: the client first finishes a long poll for
	// the other partitions.
	fetchMaxWait = 500 * time.Millisecond

	// After an aborted transaction, the next one waits for abortPause, and twice as long after each further one. After abortsInRow of them,
	// the session is rebuilt, which checks the topics again.
	abortPause  = 50 * time.Millisecond
	abortsInRow = 8
)

// Run routes until ctx ends or everything is drained. It rebuilds a broken session as often as needed; only a setting that cannot work is
// an error.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("router: %w", err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	initial, err := cfg.initial()
	if err != nil {
		return fmt.Errorf("router: %w", err)
	}
	if cfg.Instance == "" {
		name, release, err := kafka.Instance("spate-router")
		if err != nil {
			return fmt.Errorf("router: %w; set one with SPATE_INSTANCE (--instance)", err)
		}
		defer release()
		cfg.Instance = name
	}
	cfg.Layout.Replays = cfg.Window + cfg.Lateness
	m := newMetrics(cfg.Registry)
	fatal := func(err error) bool { return errors.Is(err, kafka.ErrLayout) }
	err = ops.Keep(ctx, cfg.Log, cfg.Status, fatal, func(ctx context.Context) error {
		s := &session{cfg: cfg, initial: initial, metrics: m, tally: tally{invalid: make(map[activity.Reason]int64), skipped: make(map[activity.Reason]int64)}, input: newInput()}
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
	initial *rule.Set // in force until the first revision is
	rules   *revision.Follower
	stream  window.Stream
	events  *format.Reader
	metrics *metrics

	txn      *kgo.GroupTransactSession
	reader   *kafka.Reader
	adm      *kadm.Client
	topics   kafka.Topics
	keyed    int32
	sources  *sources
	passed   []kafka.Gap // what the client has passed over, with the records that were fetched last
	standing kafka.Progress
	combiner *window.Combiner
	idleness window.Idleness
	foreign  map[int32]window.Peer // as last read
	waiting  map[int32]bool        // partitions that are ahead, and not read
	tally    tally
	input    input
	trouble  error // why the last transaction was aborted, until one is committed
	aborts   int   // in a row

	// What holders of open transactions are called, when the broker was asked, and when it was logged last.
	holders           map[int32]string
	described, warned time.Time

	maxLeadMS int64

	mu        sync.Mutex
	failed    error // why the open transaction must be aborted
	keyedNext int64 // the keyed log's first partition is known up to here
	written   int64 // and ends here with what the open transaction has written to it
}

func (s *session) run(ctx context.Context) error {
	names := s.cfg.Layout.Names
	plain, err := kgo.NewClient(s.cfg.Kafka.Options()...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer plain.Close()
	s.adm = kadm.NewClient(plain)
	s.follow(topic.NewReader(s.cfg.Kafka, s.adm, names, s.initial))
	if s.topics, err = s.cfg.Layout.EnsureWhenReady(ctx, plain, s.cfg.Kafka.Brokers, s.cfg.Log, s.hold); err != nil {
		return err
	}
	s.keyed = s.topics.Keyed
	s.sources = newSources(s.topics.Sources)
	if err := s.rules.Learn(ctx); err != nil {
		return err
	}
	if s.topics.ClaimedTime {
		s.cfg.Log.Warn("the records in the topic have producer timestamps: one producer whose clock is ahead can make the events of others late; "+
			"set message.timestamp.type=LogAppendTime", "topic", names.Activity)
	}

	revoked := func(_ context.Context, _ *kgo.Client, m map[string][]int32) { s.sources.revoked(m[names.Activity]) }
	if err := s.endFormerLife(ctx); err != nil {
		return err
	}
	s.reader, err = s.cfg.Kafka.NewReader(names.Activity, s.cfg.Log, s.sources.position, func(opts ...kgo.Opt) (*kgo.Client, error) {
		if s.txn, err = kgo.NewGroupTransactSession(opts...); err != nil {
			return nil, err
		}
		return s.txn.Client(), nil
	},
		kgo.TransactionalID(s.cfg.Instance),
		kgo.TransactionTimeout(kafka.TransactionTimeout),
		kgo.ConsumerGroup(names.RouterGroup),
		kgo.SessionTimeout(kafka.SessionTimeout),
		kgo.HeartbeatInterval(time.Second),
		kgo.RebalanceTimeout(15*time.Second),
		kgo.ConsumeTopics(names.Activity),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // they advance the position, which shows whether a partition has been read to its end
		kgo.FetchMaxWait(fetchMaxWait), kgo.FetchMaxPartitionBytes(4<<20), kgo.FetchMaxBytes(16<<20),
		kgo.OnOffsetsFetched(func(ctx context.Context, _ *kgo.Client, r *kmsg.OffsetFetchResponse) error { return s.fetched(ctx, r) }),
		kgo.AdjustFetchOffsetsFn(s.adjust),
		kgo.OnPartitionsRevoked(revoked), kgo.OnPartitionsLost(revoked),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchMaxBytes(kafka.ProducerBatchMaxBytes),
		kgo.MaxBufferedRecords(100_000), kgo.MaxBufferedBytes(256<<20),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	)
	if err != nil {
		return err
	}
	defer kafka.Close(s.txn.Client(), s.cfg.Log)
	defer s.tellNothing()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	wg.Go(func() {
		if err := s.cfg.Layout.Watch(ctx, plain, s.topics, s.cfg.Log, s.hold); err != nil {
			cancel(err)
		}
	})
	s.cfg.Log.Info("router started", "instance", s.cfg.Instance, "topic", names.Activity, "partitions", s.topics.Sources, "keyed_partitions", s.keyed,
		"user_field", strings.Join(s.cfg.Events.Fields.User, ","), "time_field", strings.Join(s.cfg.Events.Fields.Time, ","), "time_format", string(s.cfg.Events.Fields.TimeFormat),
		"window", s.cfg.Window.String(), "lateness", s.cfg.Lateness.String(), "idle_timeout", s.cfg.IdleTimeout.String())
	err = s.loop(ctx)
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	if gone := (*kafka.TopicGone)(nil); errors.As(err, &gone) && gone.Topic == names.Activity {
		s.lostWithTopic()
	}
	if err != nil {
		s.cfg.Status.NotReady(err.Error()) // leaving the group takes a while if the broker is away
	}
	return err
}

// endFormerLife aborts the transaction that a killed router of this name left open. Until then, readers of the outputs wait, and so does
// the router that takes over the source partitions. The session's own client would abort it only with its first write, which comes after
// the offsets that it waits for.
func (s *session) endFormerLife(ctx context.Context) error {
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(kmsg.AddPartitionsToTxn.Int16(), 3) // those behind are for brokers
	versions.SetMaxKeyVersion(kmsg.EndTxn.Int16(), 4)             // those behind change the epoch
	cl, err := kgo.NewClient(s.cfg.Kafka.Options(kgo.WithLogger(kafka.Logger(s.cfg.Log)), kgo.TransactionalID(s.cfg.Instance), kgo.TransactionTimeout(kafka.TransactionTimeout), kgo.MaxVersions(versions))...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*kafka.TransactionTimeout)
	defer cancel()
	id, epoch, err := cl.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("abort the transaction that a previous router of this name left open: %w", kafka.Explain(err, kafka.Right{Operation: "Write", Resource: "transactional-id", Name: s.cfg.Instance}))
	}
	bounds, err := kafka.ListBounds(ctx, s.adm, s.cfg.Layout.Names.Keyed)
	if err != nil {
		return err
	}
	for _, b := range bounds {
		if b.Stable < b.End {
			if err := s.endForgotten(ctx, cl, id, epoch); err != nil {
				return fmt.Errorf("end a transaction that the broker has forgotten: %w", err)
			}
			break
		}
	}
	return nil
}

// endForgotten ends what a previous router of this name left open and its broker knows nothing of: a Kafka that is killed in the middle of a transaction can lose the transaction
// and keep its records. Such a transaction never ends by itself: the keyed log cannot be read beyond it, and the group does not tell its offsets. But the end of any
// transaction of a producer ends all that it has open in a partition, so an empty one that covers everything is begun and aborted.
func (s *session) endForgotten(ctx context.Context, cl *kgo.Client, id int64, epoch int16) error {
	n := s.cfg.Layout.Names
	topics, err := s.adm.ListTopics(ctx, n.Keyed, n.Late, n.DLQ)
	if err != nil {
		return err
	}
	parts := kmsg.NewPtrAddPartitionsToTxnRequest()
	parts.TransactionalID, parts.ProducerID, parts.ProducerEpoch = s.cfg.Instance, id, epoch
	for _, t := range topics {
		to := kmsg.NewAddPartitionsToTxnRequestTopic()
		to.Topic, to.Partitions = t.Topic, t.Partitions.Numbers()
		parts.Topics = append(parts.Topics, to)
	}
	added, err := parts.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	for _, t := range added.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("add partition %d of %s: %w", p.Partition, t.Topic, err)
			}
		}
	}
	offsets := kmsg.NewPtrAddOffsetsToTxnRequest()
	offsets.TransactionalID, offsets.ProducerID, offsets.ProducerEpoch, offsets.Group = s.cfg.Instance, id, epoch, n.RouterGroup
	group, err := offsets.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(group.ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("add the offsets of group %s: %w", n.RouterGroup, err)
	}
	end := kmsg.NewPtrEndTxnRequest()
	end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = s.cfg.Instance, id, epoch, false
	ended, err := end.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(ended.ErrorCode)
	}
	return err
}

func (s *session) loop(ctx context.Context) error {
	var ticked, looked time.Time
	for ctx.Err() == nil {
		f, err := s.poll(ctx, tick)
		if err != nil {
			return err
		}
		if time.Since(ticked) >= tick {
			ticked = time.Now()
			if s.maybeSilent() || time.Since(looked) >= lookEvery {
				looked = ticked
				if err := s.look(ctx); errors.Is(err, kafka.ErrTopicChanged) {
					return err
				} else if err != nil && ctx.Err() == nil {
					s.cfg.Log.Warn("cannot list the end offsets of partitions, so silent partitions are not detected", "error", err)
				}
				s.probe(ctx)
				s.reportHeld(ctx)
			}
			s.gauges()
			s.input.tell(ticked, s.cfg.Events.ID, s.cfg.Layout.Names.Activity, s.cfg.Status, s.cfg.Log)
		}
		switch {
		case f.NumRecords() > 0:
			if _, err = s.transact(ctx, f); err == nil && s.toLeaveOut() {
				_, err = s.transact(ctx, nil) // other partitions may never be quiet
			}
		case s.drained(ctx):
			done, err := s.finish(ctx)
			if done || err != nil {
				return err
			}
		case len(s.sources.gapped()) > 0, s.tally.lost > 0, s.promised():
			_, err = s.transact(ctx, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maybeSilent reports whether a partition has had no event for the idle timeout.
func (s *session) maybeSilent() bool {
	parts, owned := s.sources.snapshot()
	now := s.cfg.Now().UnixMilli()
	for _, p := range parts {
		if s.cfg.IdleTimeout > 0 && now-owned[p].heard >= s.cfg.IdleTimeout.Milliseconds() || fault.HastyPromise {
			return true
		}
	}
	return false
}

// poll returns what has been fetched, or nothing after d.
func (s *session) poll(ctx context.Context, d time.Duration) (kgo.Fetches, error) {
	s.align()
	pctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	f, gaps, err := s.reader.Poll(pctx, 20_000)
	if err != nil {
		return nil, err
	}
	for _, g := range gaps {
		s.found(g)
	}
	return f, s.consult(ctx, f)
}

// transact runs one transaction that begins with the given fetches, and reports whether it was committed.
func (s *session) transact(ctx context.Context, f kgo.Fetches) (bool, error) {
	if err := s.txn.Begin(); err != nil {
		return false, fmt.Errorf("begin transaction: %w", err)
	}
	s.abort(nil)
	s.leaveOut(ctx, f == nil)
	began := time.Now()
	for {
		s.passOver(ctx)
		lag := s.take(ctx, f)
		limit := gatherCaughtUp
		if lag > backlog {
			limit = gatherBacklog
		}
		left := limit - time.Since(began)
		if f == nil || left <= 0 || s.combiner.Panes() >= maxPanes || s.toLeaveOut() || s.tally.asideBytes >= maxAsideBytes || ctx.Err() != nil {
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
	ahead, read := s.cfg.MaxAhead.Milliseconds(), time.Now().UnixMilli()
	f.EachPartition(func(p kgo.FetchTopicPartition) {
		src := s.sources.get(p.Partition)
		if src == nil {
			if len(p.Records) > 0 { // revoked meanwhile: the open transaction is aborted
				s.abort(fmt.Errorf("received records from partition %d after it was revoked", p.Partition))
			}
			return
		}
		if len(p.Records) > 0 && p.Records[0].Offset < src.position {
			s.abort(fmt.Errorf("partition %d was read up to offset %d, then again from %d", p.Partition, src.position, p.Records[0].Offset))
		}
		for _, r := range p.Records {
			if r.Attrs.IsControl() || r.Offset < src.routed {
				continue
			}
			mark, reason, err := s.events.Mark(ctx, r.Value, r.Headers)
			if err != nil { // the record is read again
				s.abort(err)
				return
			}
			if reason.Skipped() {
				s.tally.skipped[reason]++
				s.input.skip(reason)
				continue
			}
			s.input.in++
			limit := r.Timestamp.UnixMilli() // when the record was appended
			if r.Attrs.TimestampType() == claimedTime {
				limit = min(limit, read) // a record is written before it is read, whatever its producer claims
			}
			if reason == activity.ReasonNone && ahead > 0 && mark.TimeMS > limit+ahead {
				reason = activity.ReasonTimeAhead
			}
			if reason != activity.ReasonNone {
				s.tally.invalid[reason]++
				s.input.add(string(reason), func() (why, example string) { return s.describe(r, reason) })
				s.dead(ctx, r, reason)
				continue
			}
			src.heard = now
			e := window.Event{MS: mark.TimeMS, Partition: p.Partition, Offset: r.Offset, Identity: window.Identity(mark.ID), Values: s.events.Columns(mark, r.Headers)}
			fate, missed := s.combiner.Add(&e, src.now.Judge(s.stream.LatenessMS, mark.TimeMS, limit))
			if fate.Late() {
				s.tally.late[fate]++
				s.input.add(fate.String(), func() (why, example string) { return s.describe(r, activity.ReasonNone) })
				s.late(ctx, r, fate, missed)
				continue
			}
			if ahead > 0 && limit-mark.TimeMS > implausible.Milliseconds() { // events that are this far ahead are invalid
				s.input.far++
				s.input.farAt = mark.TimeMS
			}
			s.tally.counted++
			if mark.ID != nil {
				s.tally.ids++
				s.input.ids++
			}
		}
		src.advance(p.FetchPartition)
		lag += src.waiting()
	})
	return lag
}

// claimedTime is the type of a record's timestamp that its producer has set.
const claimedTime = 0

// commit writes the batches and ends the transaction. It reports whether it was committed; if not, everything is read again.
func (s *session) commit(outer context.Context) (bool, error) {
	// A transaction that is being committed is finished even if ctx ends: it takes a bounded time, and aborting costs as much.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(outer), kafka.TransactionTimeout)
	defer cancel()
	names := s.cfg.Layout.Names
	parts, owned := s.sources.snapshot()
	// Nothing is promised here: what the last look at silence said may be old by now, and a partition that had an event since would be
	// promised past it.
	h := window.Header{Sources: s.sources.total, Topic: s.topics.Incarnation(names.Activity)}
	for _, p := range parts {
		src := owned[p]
		if w := src.now.Watermark(s.stream.LatenessMS); w != window.NoTime {
			h.Watermarks = append(h.Watermarks, window.Watermark{Partition: p, WatermarkMS: w})
		}
		h.Progress = append(h.Progress, window.Progress{Partition: p, Next: src.next(), NewestMS: src.now.Newest})
	}
	s.tally.panes = int64(s.combiner.Panes())
	home := func(user []byte) int32 { return kafka.PartitionFor(user, s.keyed) }
	s.combiner.Flush(s.keyed, home, h, func(p int32, value []byte) {
		s.produce(ctx, &kgo.Record{Topic: names.Keyed, Partition: p, Value: append([]byte(nil), value...)})
	})
	try := kgo.TryCommit
	if err := s.txn.Client().Flush(ctx); err != nil {
		return false, fmt.Errorf("flush: %w", err)
	}
	if err := s.abortCause(); err != nil {
		s.cfg.Log.Warn("transaction aborted, reading its events again", "error", err)
		try = kgo.TryAbort
		s.trouble = err
	}
	ok, err := s.txn.End(kgo.PreTxnCommitFnContext(ctx, commitContext(names.Activity, parts, owned, s.metadata)), try)
	defer s.tally.reset()
	if err != nil {
		s.metrics.transactions.WithLabelValues("failed").Inc()
		return false, fmt.Errorf("end transaction: %w", kafka.Explain(err, kafka.Right{Operation: "Read", Resource: "group", Name: names.RouterGroup}))
	}
	if !ok {
		s.metrics.transactions.WithLabelValues("aborted").Inc()
		return false, s.aborted(outer)
	}
	for _, p := range parts {
		src := owned[p]
		src.begin()
		src.committed, src.settled = src.base, src.from
	}
	s.learned(s.end())
	s.aborts = 0
	s.metrics.committed(&s.tally, s.cfg.Counts)
	s.trouble = nil
	return true, nil
}

// aborted goes back to what was committed.
func (s *session) aborted(ctx context.Context) error {
	s.sources.rollback()
	if err := s.verify(ctx); err != nil {
		return err
	}
	if s.trouble == nil { // a rebalance
		return nil
	}
	if s.aborts++; s.aborts >= abortsInRow {
		return fmt.Errorf("%d transactions in a row were aborted: %w", s.aborts, s.trouble)
	}
	t := time.NewTimer(abortPause << (s.aborts - 1))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return nil
}

func (s *session) produce(ctx context.Context, r *kgo.Record) {
	s.txn.Produce(ctx, r, func(r *kgo.Record, err error) {
		switch {
		case err != nil:
			s.abort(fmt.Errorf("write to %s: %w", r.Topic, kafka.Explain(err, kafka.Right{Operation: "Write", Resource: "topic", Name: r.Topic})))
		case r.Topic == s.cfg.Layout.Names.Keyed && r.Partition == 0:
			s.wrote(r.Offset + 1)
		}
	})
}

// hold reports what is wrong with the broker; "" means nothing.
func (s *session) hold(reason string) { s.cfg.Status.Hold("broker", reason) }

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
		low = min(low, owned[p].now.Watermark(s.stream.LatenessMS))
	}
	s.metrics.lag.Set(float64(lag))
	s.metrics.idle.Set(float64(idle))
	s.metrics.owned.Set(float64(len(parts)))
	if low != window.NoTime && low != window.EndOfTime {
		s.metrics.watermark.Set(float64(low) / 1000)
	}
	s.reportStalled(parts, owned)
	switch {
	case len(parts) == 0: // it has said why, or waits for the group
	case s.trouble != nil && lag > 0:
		s.cfg.Status.NotReady("transactions are being aborted, so their events are waiting: " + s.trouble.Error())
	default:
		s.cfg.Status.Ready()
	}
}

// tellNothing takes back what the session has told about itself.
func (s *session) tellNothing() {
	s.cfg.Status.Hold("standing", "")
	s.cfg.Status.Hold("transaction", "")
	s.cfg.Status.Note("transaction", "")
	s.cfg.Status.Note("input", "")
}
