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
	"spate/shared/window"
)

// Detector is a detector that can be asked while it runs.
type Detector struct {
	cfg     Config
	metrics *metrics
	shards  atomic.Pointer[shards]
	keyed   atomic.Int32
}

// New makes a detector; it does no I/O.
func New(cfg Config) (*Detector, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("detector: %w", err)
	}
	cfg.MaxOpenWindows = cmp.Or(cfg.MaxOpenWindows, DefaultMaxOpenWindows)
	d := &Detector{cfg: cfg, metrics: newMetrics(cfg.Registry)}
	d.metrics.limit.Set(float64(cfg.MaxOpenWindows))
	cfg.Registry.MustRegister(tables{&d.shards})
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cfg, names := d.cfg, d.cfg.Layout.Names
	cfg.Status.NotReady("waiting for the broker")
	plain, err := kgo.NewClient(cfg.Kafka.Options()...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer plain.Close()
	_, keyed, err := cfg.Layout.EnsureWhenReady(ctx, plain, cfg.Kafka.Brokers, cfg.Log)
	if err != nil {
		return err
	}
	d.keyed.Store(keyed)
	producer, err := gokaclient.NewProducer(cfg.Kafka, keyed, cfg.Log)
	if err != nil {
		return err
	}
	sh := newShards(cfg, func(n int64) { d.metrics.lost.Add(float64(n)) })
	d.shards.Store(sh)
	member := cfg.Kafka
	member.ClientID = clientID(cfg.Address)
	graph := goka.DefineGroup(goka.Group(names.DetectorGroup),
		goka.Input(goka.Stream(names.Keyed), raw{}, d.apply),
		goka.Output(goka.Stream(names.Alerts), raw{}),
		goka.Persist(raw{}))
	processor, err := goka.NewProcessor(cfg.Kafka.Brokers, graph,
		goka.WithLogger(gokaLogger{cfg.Log}),
		goka.WithHasher(func() hash.Hash32 { return kafka.NewHasher() }),
		goka.WithStorageBuilder(sh.build),
		goka.WithTopicManagerBuilder(gokaclient.TopicManagerBuilder(cfg.Kafka)),
		goka.WithProducerBuilder(producer.Builder()),
		goka.WithConsumerSaramaBuilder(gokaclient.ConsumerBuilder()),
		goka.WithConsumerGroupBuilder(gokaclient.GroupBuilder(gokaclient.GroupConfig{
			Kafka: member, Topic: names.Keyed, Positions: sh, Full: sh.full, Every: commitEvery, Log: cfg.Log,
			Assigned: func(n int) {
				cfg.Log.Info("partitions assigned", "count", n)
				if n == 0 {
					sh.forget()
					cfg.Status.Ready() // a stand-by: it has nothing to take over
				}
			},
			Lag: func(p int32, n int64) { d.metrics.lag.WithLabelValues(fmt.Sprint(p)).Set(float64(n)) },
		})))
	if err != nil {
		return errors.Join(fmt.Errorf("define processor: %w", err), producer.Close())
	}
	cfg.Log.Info("detector started", "topic", names.Keyed, "partitions", keyed, "threshold", cfg.Threshold)

	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { kafka.Watch(ctx, plain, cfg.Log, cfg.Status.Hold) })
	wg.Go(func() { d.checkpoint(ctx, sh, producer, names.Table()) })
	wg.Go(func() {
		// Without a broker, alerts are never acknowledged, and goka would wait for them for a minute.
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		producer.AbortAfter(grace)
	})
	if err := processor.Run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("run processor: %w", err)
	}
	return nil
}

// apply is goka's callback: one batch of the keyed log.
func (d *Detector) apply(ctx goka.Context, msg any) {
	sh := d.shards.Load().get(ctx.Partition())
	if sh == nil {
		ctx.Fail(fmt.Errorf("partition %d is not assigned", ctx.Partition()))
		return
	}
	verdicts, err := sh.apply(ctx.Offset(), msg.([]byte), nil)
	if err != nil {
		// Whatever was written there is no batch. It is the same for every reader, so what could be read of it counts.
		d.metrics.batches.WithLabelValues("corrupt").Inc()
		d.cfg.Log.Error("record of the keyed log left out", "partition", ctx.Partition(), "offset", ctx.Offset(), "error", err)
	} else {
		d.metrics.batches.WithLabelValues("applied").Inc()
	}
	for _, v := range verdicts {
		d.emit(ctx, v)
	}
	if c := d.cfg.Counts; c != nil {
		c.Batches.Add(1)
	}
}

func (d *Detector) emit(ctx goka.Context, v window.Verdict) {
	key, value, state, err := d.cfg.message(v)
	if err != nil {
		ctx.Fail(err)
		return
	}
	if value == nil {
		return
	}
	d.metrics.alerts.WithLabelValues(string(state)).Inc()
	if c := d.cfg.Counts; c != nil && v.Final {
		c.Closed.Add(1)
	} else if c != nil {
		c.Opened.Add(1)
	}
	ctx.Emit(goka.Stream(d.cfg.Layout.Names.Alerts), key, value)
}

// checkpoint writes what changed in the tables to the changelog, for whoever reads it, until ctx ends.
func (d *Detector) checkpoint(ctx context.Context, shards *shards, producer *gokaclient.Producer, table string) {
	t := time.NewTicker(checkpointEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, sh := range shards.all() {
			for more := true; more && ctx.Err() == nil; {
				sh.mu.Lock()
				if !sh.ready {
					sh.mu.Unlock()
					break
				}
				var keys []string
				var values [][]byte
				more = sh.table.Checkpoint(checkpointPanes, func(key string, value []byte) {
					keys = append(keys, key)
					if value != nil {
						value = append(make([]byte, 0, len(value)), value...)
					}
					values = append(values, value)
				})
				sh.mu.Unlock()
				for i := range keys {
					producer.Write(table, sh.partition, keys[i], values[i])
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
