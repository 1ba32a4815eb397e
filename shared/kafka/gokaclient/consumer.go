package gokaclient

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
)

// Consumer implements sarama.Consumer as far as goka needs it: it reads single partitions, for the recovery of tables. Unlike sarama's
// it outlives a restart of the broker.
type Consumer struct {
	cfg kafka.Config
	log *slog.Logger
}

var _ sarama.Consumer = (*Consumer)(nil)

// ConsumerBuilder returns the builder for goka.WithConsumerSaramaBuilder.
func ConsumerBuilder(cfg kafka.Config, log *slog.Logger) func(brokers []string, clientID string) (sarama.Consumer, error) {
	return func([]string, string) (sarama.Consumer, error) { return &Consumer{cfg: cfg, log: log}, nil }
}

// ConsumePartition reads a partition from offset on, which may be sarama.OffsetOldest or sarama.OffsetNewest.
func (c *Consumer) ConsumePartition(topic string, partition int32, offset int64) (sarama.PartitionConsumer, error) {
	at := kgo.NewOffset().At(offset)
	switch offset {
	case sarama.OffsetOldest:
		at = kgo.NewOffset().AtStart()
	case sarama.OffsetNewest:
		at = kgo.NewOffset().AtEnd()
	}
	cl, err := kgo.NewClient(c.cfg.Options(
		kgo.WithLogger(kafka.Logger(c.log)),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: at}}),
		kgo.FetchMaxPartitionBytes(8<<20), kgo.FetchMaxBytes(16<<20),
	)...)
	if err != nil {
		return nil, fmt.Errorf("read %s/%d: %w", topic, partition, err)
	}
	p := &partitionConsumer{cl: cl, topic: topic, partition: partition, messages: make(chan *sarama.ConsumerMessage, 1024), errs: make(chan *sarama.ConsumerError, 1)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	go p.run()
	return p, nil
}

// Topics, Partitions, HighWaterMarks, Pause, Resume, PauseAll and ResumeAll are part of sarama.Consumer; goka uses the third for a
// figure in its statistics only.
func (c *Consumer) Topics() ([]string, error)                  { return nil, nil }
func (c *Consumer) Partitions(string) ([]int32, error)         { return nil, nil }
func (c *Consumer) HighWaterMarks() map[string]map[int32]int64 { return nil }
func (c *Consumer) Pause(map[string][]int32)                   {}
func (c *Consumer) Resume(map[string][]int32)                  {}
func (c *Consumer) PauseAll()                                  {}
func (c *Consumer) ResumeAll()                                 {}

// Close is part of sarama.Consumer. Each partition consumer is closed by whoever asked for it.
func (c *Consumer) Close() error { return nil }

type partitionConsumer struct {
	cl        *kgo.Client
	topic     string
	partition int32
	messages  chan *sarama.ConsumerMessage
	errs      chan *sarama.ConsumerError
	ctx       context.Context
	cancel    context.CancelFunc
	high      atomic.Int64
}

// run ends when the consumer is closed; whoever closes it drains both channels until they are closed, which is the sign of the end.
func (p *partitionConsumer) run() {
	defer close(p.errs)
	defer close(p.messages)
	defer p.cl.Close()
	for {
		f := p.cl.PollFetches(p.ctx)
		if p.ctx.Err() != nil || f.IsClientClosed() {
			return
		}
		if err := f.Err(); err != nil {
			select {
			case p.errs <- &sarama.ConsumerError{Topic: p.topic, Partition: p.partition, Err: err}:
			case <-p.ctx.Done():
			}
			return
		}
		f.EachPartition(func(fp kgo.FetchTopicPartition) { p.high.Store(fp.HighWatermark) })
		for it := f.RecordIter(); !it.Done(); {
			select {
			case p.messages <- message(it.Next()):
			case <-p.ctx.Done():
				return
			}
		}
	}
}

// AsyncClose makes both channels close soon.
func (p *partitionConsumer) AsyncClose() { p.cancel() }

// Close closes and drains.
func (p *partitionConsumer) Close() error {
	p.cancel()
	for range p.messages {
	}
	for range p.errs {
	}
	return nil
}

func (p *partitionConsumer) Messages() <-chan *sarama.ConsumerMessage { return p.messages }
func (p *partitionConsumer) Errors() <-chan *sarama.ConsumerError     { return p.errs }
func (p *partitionConsumer) HighWaterMarkOffset() int64               { return p.high.Load() }
func (p *partitionConsumer) Pause()                                   {}
func (p *partitionConsumer) Resume()                                  {}
func (p *partitionConsumer) IsPaused() bool                           { return false }
