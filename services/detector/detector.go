package detector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
	"spate/shared/kafka/gokaclient"
	"spate/shared/ops"
	"spate/shared/rule"
	"spate/shared/verdict"
	"spate/shared/window"
)

// Detector is a detector that can be asked while it runs.
type Detector struct {
	old        oldBatches
	cfg        Config
	initial    *rule.Set
	metrics    *metrics
	rules      atomic.Pointer[rules] // those of the session
	partitions atomic.Pointer[keyedPartitions]
	keyed      atomic.Int32
	events     atomic.Pointer[events]
}

// events is what a session knows of the topic of events.
type events struct {
	cl         *kgo.Client
	topic      string
	id         uint64 // its incarnation
	partitions atomic.Int32
}

// New makes a detector; it does no I/O.
func New(cfg Config) (*Detector, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("detector: %w", err)
	}
	cfg.MaxOpenWindows = cmp.Or(cfg.MaxOpenWindows, DefaultMaxOpenWindows)
	initial, err := cfg.initial()
	if err != nil {
		return nil, fmt.Errorf("detector: %w", err)
	}
	d := &Detector{cfg: cfg, initial: initial, metrics: newMetrics(cfg.Registry)}
	d.metrics.limit.Set(float64(cfg.MaxOpenWindows))
	cfg.Registry.MustRegister(tables{&d.partitions, &d.rules})
	return d, nil
}

// Run detects until ctx ends. A broken session is rebuilt for ever; only a setting that cannot work is an error.
func (d *Detector) Run(ctx context.Context) error {
	fatal := func(err error) bool { return errors.Is(err, kafka.ErrLayout) }
	if err := ops.Keep(ctx, d.cfg.Log, d.cfg.Status, fatal, d.session); err != nil {
		return fmt.Errorf("detector: %w", err)
	}
	return nil
}

// session is one life of a goka processor, which can be run only once.
func (d *Detector) session(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cfg, names := d.cfg, d.cfg.Layout.Names
	cfg.Status.NotReady("waiting for the broker")
	plain, err := kgo.NewClient(cfg.Kafka.Options()...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer plain.Close()
	hold := func(reason string) { cfg.Status.Hold("broker", reason) }
	topics, err := cfg.Layout.EnsureWhenReady(ctx, plain, cfg.Kafka.Brokers, cfg.Log, hold)
	if err != nil {
		return err
	}
	keyed := topics.Keyed
	d.keyed.Store(keyed)
	ev := &events{cl: plain, topic: names.Activity, id: topics.Incarnation(names.Activity)}
	ev.partitions.Store(topics.Sources)
	d.events.Store(ev)
	rules, err := newRules(ctx, plain, cfg.Kafka, names, d.initial, d.metrics.rules)
	if err != nil {
		return err
	}
	d.rules.Store(rules)
	producer, err := gokaclient.NewProducer(cfg.Kafka, keyed, cfg.Log)
	if err != nil {
		return err
	}
	partitions := newKeyedPartitions(cfg, rules, topics.Incarnation(names.Keyed), d.metrics)
	d.partitions.Store(partitions)
	member := cfg.Kafka
	member.ClientID = clientID(cfg.Address, cfg.TLS)
	graph := goka.DefineGroup(goka.Group(names.DetectorGroup),
		goka.Input(goka.Stream(names.Keyed), raw{}, d.apply),
		goka.Output(goka.Stream(names.Alerts), raw{}),
		goka.Persist(raw{}))
	processor, err := goka.NewProcessor(cfg.Kafka.Brokers, graph,
		goka.WithLogger(gokaLogger{cfg.Log}),
		goka.WithHasher(func() hash.Hash32 { return kafka.NewHasher() }),
		goka.WithStorageBuilder(partitions.build),
		goka.WithTopicManagerBuilder(gokaclient.TopicManagerBuilder(cfg.Kafka)),
		goka.WithProducerBuilder(producer.Builder()),
		goka.WithConsumerSaramaBuilder(gokaclient.ConsumerBuilder()),
		goka.WithConsumerGroupBuilder(gokaclient.GroupBuilder(gokaclient.GroupConfig{
			Kafka: member, Topic: names.Keyed, Positions: partitions, Full: partitions.full, Every: commitEvery, Log: cfg.Log,
			Assigned: func(n int) {
				cfg.Log.Info("partitions assigned", "count", n)
				if n == 0 {
					partitions.forget()
					cfg.Status.Ready() // a stand-by: it has nothing to take over
				}
			},
			Lag:        partitions.lag,
			Stalled:    func(what string) { cfg.Status.Hold("standing", what) },
			Unreadable: func(kafka.Gap) { d.metrics.batches.WithLabelValues("unreadable").Inc() },
			Deleted:    partitions.deleted,
		})))
	if err != nil {
		return errors.Join(fmt.Errorf("define processor: %w", err), producer.Close())
	}
	cfg.Log.Info("detector started", "topic", names.Keyed, "partitions", keyed, "revision", rules.now().plan.Revision, "rules", rules.names())

	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		if err := cfg.Layout.Watch(ctx, plain, topics, cfg.Log, func(reason string) { cfg.Status.Hold("broker", reason) }); err != nil {
			cancel(err)
		}
	})
	wg.Go(func() { d.checkpoint(ctx, partitions, producer, names.Table()) })
	wg.Go(func() {
		// Without a broker, alerts are never acknowledged, and goka would wait for them for a minute.
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		producer.AbortAfter(grace)
	})
	err = processor.Run(ctx)
	_ = producer.Close() // of no use any more, and goka has closed it unless it failed before
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("run processor: %w", err)
	}
	return nil
}

// apply is goka's callback: one batch of the keyed log.
func (d *Detector) apply(ctx goka.Context, msg any) {
	kp := d.partitions.Load().get(ctx.Partition())
	if kp == nil {
		ctx.Fail(fmt.Errorf("partition %d is not assigned", ctx.Partition()))
		return
	}
	fail := func(err error) {
		kp.fail(ctx.Offset())
		ctx.Fail(err)
	}
	if kp.hasFailed() {
		fail(fmt.Errorf("partition %d: a batch before offset %d was not applied", ctx.Partition(), ctx.Offset()))
		return
	}
	batch := msg.([]byte)
	var h window.Header
	var verdicts []window.Verdict
	var repeated int64
	var known known
	err := window.ParseHeader(batch, &h)
	if err == nil {
		sources, serr := d.sourcesOf(ctx.Context(), &h)
		if serr != nil {
			fail(serr) // it is not known whether the batch counts: it is read again
			return
		}
		err = window.Guard{Sources: sources, LatestMS: ctx.Timestamp().Add(maxAhead).UnixMilli(), Drains: d.cfg.Drains}.Check(&h)
	}
	if err == nil {
		if known, err = d.rules.Load().upTo(ctx.Context(), h.Revision); err != nil {
			fail(fmt.Errorf("batch at offset %d of partition %d: %w", ctx.Offset(), ctx.Partition(), err)) // nor this
			return
		}
		verdicts, repeated, err = kp.apply(ctx.Offset(), batch, known.plan)
	}
	switch {
	case errors.Is(err, window.ErrOld):
		d.metrics.batches.WithLabelValues("old").Inc()
		d.metrics.lost.Inc()
		d.old.add(ctx.Partition(), ctx.Offset())
	case err != nil:
		// No router has written that. It counts for nothing.
		d.metrics.batches.WithLabelValues("corrupt").Inc()
		d.cfg.Log.Error("skipping an invalid record in the keyed log", "partition", ctx.Partition(), "offset", ctx.Offset(), "error", err)
	default:
		d.metrics.batches.WithLabelValues("applied").Inc()
	}
	for _, v := range verdicts {
		d.emit(ctx, known.teller, v)
	}
	if c := d.cfg.Counts; c != nil {
		c.Batches.Add(1)
		c.Repeated.Add(repeated)
	}
}

// maxAhead is how far a watermark may lie past the time at which its batch was appended: it does not, but for clocks of brokers and routers that
// differ.
const maxAhead = kafka.MaxClockSkew

// sourcesOf returns how many source partitions a batch may claim: those that the topic of events has. A batch of a topic that was deleted and
// made anew since may claim as many as are possible. One of a topic without an id may not: the table takes it for the same topic.
func (d *Detector) sourcesOf(ctx context.Context, h *window.Header) (int32, error) {
	ev := d.events.Load()
	if !window.SameIncarnation(h.Topic, ev.id) {
		return kafka.MaxSources, nil
	}
	if n := ev.partitions.Load(); h.Sources <= n {
		return n, nil
	}
	// Partitions may have been added a moment ago, and the batch counts.
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	n, err := kafka.Partitions(ctx, ev.cl, ev.topic)
	if err == nil {
		ev.partitions.Store(n)
	}
	return n, err
}

func (d *Detector) emit(ctx goka.Context, t verdict.Teller, v window.Verdict) {
	key, value, state, err := d.message(t, v)
	if err != nil {
		// No router has seen such a user or window: somebody else wrote them. It would be the same in every try.
		d.metrics.alerts.WithLabelValues(t.Rule(v), "refused").Inc()
		d.cfg.Log.Error("skipping an alert that cannot be written", "partition", ctx.Partition(), "offset", ctx.Offset(), "error", err)
		return
	}
	if value == nil {
		return
	}
	d.metrics.alerts.WithLabelValues(t.Rule(v), string(state)).Inc()
	if c := d.cfg.Counts; c != nil {
		switch v.State {
		case window.Opened:
			c.Opened.Add(1)
		case window.Closed:
			c.Closed.Add(1)
		}
	}
	ctx.Emit(goka.Stream(d.cfg.Layout.Names.Alerts), key, value)
}

// checkpoint writes what changed in the tables to the changelog, for whoever reads it, until ctx ends.
func (d *Detector) checkpoint(ctx context.Context, partitions *keyedPartitions, producer *gokaclient.Producer, table string) {
	t := time.NewTicker(checkpointEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			d.old.report(d.cfg.Log)
			return
		case <-t.C:
		}
		d.old.report(d.cfg.Log)
		for _, kp := range partitions.all() {
			for more := true; more && ctx.Err() == nil; {
				kp.mu.Lock()
				if !kp.ready {
					kp.mu.Unlock()
					break
				}
				var keys []string
				var values [][]byte
				more = kp.table.Checkpoint(checkpointPanes, func(key string, value []byte) {
					keys = append(keys, key)
					if value != nil {
						value = append(make([]byte, 0, len(value)), value...)
					}
					values = append(values, value)
				})
				kp.mu.Unlock()
				for i := range keys {
					producer.Write(table, kp.partition, keys[i], values[i])
				}
			}
		}
	}
}

// raw passes bytes through goka.
type raw struct{}

func (raw) Encode(v any) ([]byte, error) { return v.([]byte), nil }
func (raw) Decode(b []byte) (any, error) { return b, nil }

// gokaLogger passes what goka says on as debugging output; what it cannot mend comes back from Run.
type gokaLogger struct{ log *slog.Logger }

func (l gokaLogger) Debugf(s string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("goka: " + fmt.Sprintf(s, args...))
	}
}
func (l gokaLogger) Printf(s string, args ...any) { l.Debugf(s, args...) }
func (l gokaLogger) Print(args ...any)            { l.Debugf("%s", fmt.Sprint(args...)) }
func (l gokaLogger) Println(args ...any)          { l.Debugf("%s", fmt.Sprint(args...)) }
