package gokaclient

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"sync"
	"time"

	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
)

// Producer implements goka.Producer: idempotent, acknowledged by all replicas, retried until it works. A promise fails only for what
// no retry can mend, such as a record that is too large.
type Producer struct {
	cl         *kgo.Client
	partitions int32
	log        *slog.Logger
	once       sync.Once
	closeErr   error
	closed     chan struct{}
}

var _ goka.Producer = (*Producer)(nil)

// NewProducer connects lazily. partitions is how many the topics have that goka emits to.
func NewProducer(cfg kafka.Config, partitions int32, log *slog.Logger) (*Producer, error) {
	cl, err := kgo.NewClient(cfg.Options(
		kgo.WithLogger(kafka.Logger(log)),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		kgo.MaxBufferedRecords(100_000),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	)...)
	if err != nil {
		return nil, fmt.Errorf("connect producer: %w", err)
	}
	return &Producer{cl: cl, partitions: partitions, log: log, closed: make(chan struct{})}, nil
}

// Builder returns p for goka.WithProducerBuilder. goka closes it.
func (p *Producer) Builder() goka.ProducerBuilder {
	return func([]string, string, func() hash.Hash32) (goka.Producer, error) { return p, nil }
}

// Emit is part of goka.Producer.
func (p *Producer) Emit(topic, key string, value []byte) *goka.Promise {
	return p.EmitWithHeaders(topic, key, value, nil)
}

// EmitWithHeaders is part of goka.Producer.
func (p *Producer) EmitWithHeaders(topic, key string, value []byte, headers goka.Headers) *goka.Promise {
	promise, finish := goka.NewPromiseWithFinisher()
	r := &kgo.Record{Topic: topic, Key: []byte(key), Value: value, Partition: kafka.PartitionFor([]byte(key), p.partitions)}
	for k, v := range headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: k, Value: v})
	}
	p.cl.Produce(context.Background(), r, func(_ *kgo.Record, err error) { finish(nil, refused(topic, err)) })
	return promise
}

// refused adds what to do to the error of a write.
func refused(topic string, err error) error {
	return kafka.Explain(err, kafka.Right{Operation: "Write", Resource: "topic", Name: topic})
}

// Write writes to a partition of a table, in the background. What fails is told and dropped: nothing is recovered from a table.
func (p *Producer) Write(table string, partition int32, key string, value []byte) {
	p.cl.Produce(context.Background(), &kgo.Record{Topic: table, Partition: partition, Key: []byte(key), Value: value}, func(_ *kgo.Record, err error) {
		if err != nil && !errors.Is(err, kgo.ErrClientClosed) && !errors.Is(err, kgo.ErrAborting) {
			p.log.Warn("cannot write to the group table; spate is not affected, because it does not read this table", "topic", table, "error", refused(table, err))
		}
	})
}

// AbortAfter waits for the producer to be closed. When ctx ends first, it fails everything that is not acknowledged by then, and what is emitted later:
// without a broker, nothing else would end the waiting. The broker may have some of it; whoever reads the log next emits it again.
func (p *Producer) AbortAfter(ctx context.Context) {
	select {
	case <-p.closed:
		return
	case <-ctx.Done():
	}
	again := time.NewTicker(abortEvery)
	defer again.Stop()
	for {
		p.cl.UnsafeAbortBufferedRecords() // the other way waits until the broker has answered what it was sent
		select {
		case <-p.closed:
			return
		case <-again.C:
		}
	}
}

// abortEvery is how often what is still emitted is failed.
const abortEvery = 100 * time.Millisecond

// Close waits for what is under way and disconnects. It can be called again: goka closes the producer only if it got as far as to use it.
func (p *Producer) Close() error {
	p.once.Do(func() { p.closeErr = p.close() })
	return p.closeErr
}

func (p *Producer) close() error {
	defer close(p.closed)
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout/2)
	defer cancel()
	err := p.cl.Flush(ctx)
	p.cl.Close()
	if err != nil {
		return fmt.Errorf("flush producer: %w", err)
	}
	return nil
}
