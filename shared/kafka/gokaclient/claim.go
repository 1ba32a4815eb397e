package gokaclient

import (
	"context"
	"sync"
	"sync/atomic"

	"spate/shared/fault"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
)

// claim implements sarama.ConsumerGroupClaim.
type claim struct {
	topic     string
	partition int32
	from      int64
	position  atomic.Int64 // of the next record
	probe     atomic.Bool  // it stands still: the next batch is to be looked at
	messages  chan *sarama.ConsumerMessage
	tracker   *tracker

	mu   sync.Mutex
	high int64
	why  error // what came of a look at the next batch, when it stood still
}

func (c *claim) setWhy(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.why = err
}

func (c *claim) whyStands() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why
}

var _ sarama.ConsumerGroupClaim = (*claim)(nil)

// Topic is part of sarama.ConsumerGroupClaim.
func (c *claim) Topic() string { return c.topic }

// Partition is part of sarama.ConsumerGroupClaim.
func (c *claim) Partition() int32 { return c.partition }

// InitialOffset is part of sarama.ConsumerGroupClaim.
func (c *claim) InitialOffset() int64 { return c.from }

// HighWaterMarkOffset is the end of the log as the last fetch told it.
func (c *claim) HighWaterMarkOffset() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.high
}

// Messages is part of sarama.ConsumerGroupClaim.
func (c *claim) Messages() <-chan *sarama.ConsumerMessage { return c.messages }

// deliver hands records over; it blocks while goka is behind, and drops what is left when the session ends.
func (c *claim) deliver(ctx context.Context, p kgo.FetchTopicPartition) {
	c.mu.Lock()
	c.high = p.HighWatermark
	c.mu.Unlock()
	for _, r := range p.Records {
		if r.Attrs.IsControl() {
			c.tracker.pass(r.Offset + 1)
		} else {
			c.tracker.deliver(r.Offset)
			select {
			case c.messages <- message(r):
			case <-ctx.Done():
				return
			}
		}
		c.position.Store(r.Offset + 1)
	}
}

func isolation() kgo.IsolationLevel {
	if fault.ReadUncommitted {
		return kgo.ReadUncommitted()
	}
	return kgo.ReadCommitted()
}

func message(r *kgo.Record) *sarama.ConsumerMessage {
	return &sarama.ConsumerMessage{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
}
