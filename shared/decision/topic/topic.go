// Package topic keeps decisions in a compacted topic: the newest record of a key is the decision in force, and a record without a value ends it.
package topic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/decision"
	"spate/shared/kafka"
)

const (
	// tick bounds a poll, and lookEvery is how often the broker is asked where partitions end.
	tick      = 250 * time.Millisecond
	lookEvery = time.Second
	maxBatch  = 10_000
	// writeTime bounds how long a write may take.
	writeTime = 20 * time.Second
)

// ErrMissing means that the topic does not exist.
var ErrMissing = errors.New("there are no decisions: the topic does not exist")

// Ensure creates the topic if it is missing.
func Ensure(ctx context.Context, adm *kadm.Client, name string, partitions int32, replication int16) error {
	if replication == 0 {
		replication = -1
	}
	ms := func(d time.Duration) *string { return kadm.StringPtr(strconv.FormatInt(d.Milliseconds(), 10)) }
	_, err := adm.CreateTopic(ctx, partitions, replication, map[string]*string{
		"cleanup.policy": kadm.StringPtr("compact"), "min.cleanable.dirty.ratio": kadm.StringPtr("0.1"), "segment.ms": ms(time.Hour), "delete.retention.ms": ms(24 * time.Hour),
	}, name)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", name, kafka.Explain(err, kafka.Right{Operation: "Create", Resource: "topic", Name: name}))
	}
	return nil
}

// Exists reports whether the topic exists.
func Exists(ctx context.Context, adm *kadm.Client, name string) (bool, error) {
	found, err := kafka.Fresh(ctx, adm, name)
	if err != nil {
		return false, fmt.Errorf("describe topic %s: %w", name, kafka.Explain(err, kafka.Right{Operation: "Read", Resource: "topic", Name: name}))
	}
	d := found[name]
	if errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
		return false, nil
	}
	return d.Err == nil, kafka.Explain(d.Err, kafka.Right{Operation: "Read", Resource: "topic", Name: name})
}

// Writer writes decisions.
type Writer struct {
	cl    *kgo.Client
	topic string
}

// NewWriter returns a writer to an existing topic. The caller closes it.
func NewWriter(cfg kafka.Config, name string, log *slog.Logger) (*Writer, error) {
	cl, err := kgo.NewClient(cfg.Options(kgo.WithLogger(kafka.Logger(log)), kgo.DefaultProduceTopic(name), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordDeliveryTimeout(writeTime),
		kgo.ProducerLinger(0))...)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &Writer{cl, name}, nil
}

// Close closes the writer.
func (w *Writer) Close() { w.cl.Close() }

// Put writes decisions in order. If it returns an error, any number of them may have been written; the caller can write them again.
func (w *Writer) Put(ctx context.Context, ds ...decision.Decision) error {
	records := make([]*kgo.Record, len(ds))
	for i, d := range ds {
		value, err := d.Encode()
		if err != nil {
			return err
		}
		records[i] = &kgo.Record{Key: d.Key(), Value: value}
	}
	return w.write(ctx, records)
}

// End writes the ends of decisions.
func (w *Writer) End(ctx context.Context, ds ...decision.Decision) error {
	records := make([]*kgo.Record, len(ds))
	for i, d := range ds {
		records[i] = &kgo.Record{Key: d.Key()}
	}
	return w.write(ctx, records)
}

func (w *Writer) write(ctx context.Context, records []*kgo.Record) error {
	if err := w.cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("write decisions to topic %s: %w", w.topic, kafka.Explain(err, kafka.Right{Operation: "Write", Resource: "topic", Name: w.topic}))
	}
	return nil
}

// Follower keeps a view up to date with the topic.
type Follower struct {
	Kafka kafka.Config
	Topic string
	View  *decision.View
	Log   *slog.Logger
	Now   func() time.Time
	// Malformed, if not nil, is called for each record that is not a decision; the record is skipped.
	Malformed func(error)

	mu    sync.Mutex
	fresh time.Time // the view had all that the topic had then; zero: never
}

// Fresh returns when the view last had all records of the topic; zero if it never had.
func (f *Follower) Fresh() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fresh
}

func (f *Follower) freshAt(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fresh = at
}

// Nothing records that there are no decisions because the topic does not exist. It reports false if the view has decisions: the topic was lost, or a broker that has
// just started does not know it yet.
func (f *Follower) Nothing() bool {
	if f.View.Len() > 0 {
		return false
	}
	f.freshAt(f.Now())
	return true
}

// Run reads the topic from its beginning and follows it until ctx ends or an error occurs. The view keeps its contents. caught, if not nil, is called when the
// view has caught up with the topic as it was when Run began; an error that it returns ends Run.
func (f *Follower) Run(ctx context.Context, caught func() error) error {
	plain, err := kgo.NewClient(f.Kafka.Options(kgo.WithLogger(kafka.Logger(f.Log)))...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer plain.Close()
	adm := kadm.NewClient(plain)
	if ok, err := Exists(ctx, adm, f.Topic); err != nil || !ok {
		return errors.Join(err, missing(ok, err, f.Topic))
	}
	bounds, err := kafka.ListBounds(ctx, adm, f.Topic)
	if err != nil {
		return err
	}
	s := &reading{f: f, adm: adm, position: make(map[int32]int64, len(bounds))}
	from := make(map[int32]kgo.Offset, len(bounds))
	for p, b := range bounds {
		s.position[p], from[p] = b.Start, kgo.NewOffset().At(b.Start)
	}
	s.reader, err = f.Kafka.NewReader(f.Topic, f.Log, s.at, kgo.NewClient,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{f.Topic: from}), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		return err
	}
	defer s.reader.Client().Close()
	f.View.Begin()
	for ctx.Err() == nil {
		if err := s.poll(ctx); err != nil {
			return err
		}
		done, err := s.look(ctx)
		if err != nil {
			return err
		}
		if done && !s.complete {
			s.complete = true
			f.View.Complete()
			if caught != nil {
				if err := caught(); err != nil {
					return err
				}
			}
		}
	}
	return ctx.Err()
}

func missing(ok bool, err error, name string) error {
	if ok || err != nil {
		return nil
	}
	return fmt.Errorf("%w (%s)", ErrMissing, name)
}

// reading is one life of the client.
type reading struct {
	f        *Follower
	adm      *kadm.Client
	reader   *kafka.Reader
	looked   time.Time
	complete bool

	mu       sync.Mutex
	position map[int32]int64
}

func (s *reading) at(partition int32) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.position[partition]; ok {
		return at
	}
	return -1
}

func (s *reading) move(partition int32, to int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position[partition] = max(s.position[partition], to)
}

// poll takes what has been fetched.
func (s *reading) poll(ctx context.Context) error {
	pctx, cancel := context.WithTimeout(ctx, tick)
	defer cancel()
	fetched, gaps, err := s.reader.Poll(pctx, maxBatch)
	if err != nil {
		return err
	}
	now := s.f.Now()
	fetched.EachRecord(func(r *kgo.Record) {
		if !r.Attrs.IsControl() {
			d, end, err := decision.Parse(r.Key, r.Value)
			if err == nil {
				s.f.View.Take(d, end, now)
			} else if s.f.Malformed != nil {
				s.f.Malformed(fmt.Errorf("topic %s, partition %d, offset %d: %w", r.Topic, r.Partition, r.Offset, err))
			}
		}
		s.move(r.Partition, r.Offset+1)
	})
	for _, g := range gaps {
		if !g.Passed && !g.Deleted && !g.Aborted {
			s.reader.Skip(g)
		}
		s.move(g.Partition, g.To)
	}
	return nil
}

// look asks the broker where partitions end, once a second, and until everything is read each time. It reports whether the view has all of it.
func (s *reading) look(ctx context.Context) (bool, error) {
	if s.complete && time.Since(s.looked) < lookEvery {
		return false, nil
	}
	s.looked = time.Now()
	asked := s.f.Now()
	lctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	bounds, err := kafka.ListBounds(lctx, s.adm, s.f.Topic)
	if err != nil {
		return false, err
	}
	s.reader.Begins(bounds)
	s.mu.Lock()
	at := maps.Clone(s.position)
	s.mu.Unlock()
	if len(at) != len(bounds) {
		return false, fmt.Errorf("%w: %s has %d partitions; it had %d before", kafka.ErrTopicChanged, s.f.Topic, len(bounds), len(at))
	}
	for p, b := range bounds {
		if b.End < at[p] {
			return false, fmt.Errorf("%w: partition %d of %s ends at offset %d, but was read up to %d", kafka.ErrTopicChanged, p, s.f.Topic, b.End, at[p])
		}
		if at[p] < b.Stable && b.Stable > b.Start {
			return false, nil
		}
	}
	s.f.freshAt(asked)
	return true, nil
}
