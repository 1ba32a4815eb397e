package gokaclient

import (
	"context"
	"fmt"

	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
)

// TopicManager implements goka.TopicManager. It makes no topic: kafka.Layout does, with the settings that they need. And it says of every
// table that it has nothing to recover: whoever uses this package rebuilds tables from the input, from the offset that Positions.Resume
// tells.
type TopicManager struct {
	cl  *kgo.Client
	adm *kadm.Client
}

var _ goka.TopicManager = (*TopicManager)(nil)

// TopicManagerBuilder returns the builder for goka.WithTopicManagerBuilder.
func TopicManagerBuilder(cfg kafka.Config) goka.TopicManagerBuilder {
	return func([]string) (goka.TopicManager, error) {
		cl, err := kgo.NewClient(cfg.Options()...)
		if err != nil {
			return nil, fmt.Errorf("connect topic manager: %w", err)
		}
		return &TopicManager{cl: cl, adm: kadm.NewClient(cl)}, nil
	}
}

// EnsureTableExists checks that the table's topic is there with npar partitions.
func (m *TopicManager) EnsureTableExists(topic string, npar int) error { return m.check(topic, npar) }

// EnsureStreamExists checks that the topic is there with npar partitions.
func (m *TopicManager) EnsureStreamExists(topic string, npar int) error { return m.check(topic, npar) }

// EnsureTopicExists checks that the topic is there with npar partitions.
func (m *TopicManager) EnsureTopicExists(topic string, npar, _ int, _ map[string]string) error {
	return m.check(topic, npar)
}

func (m *TopicManager) check(topic string, npar int) error {
	got, err := m.Partitions(topic)
	if err != nil {
		return err
	}
	if len(got) != npar {
		return fmt.Errorf("%w: the number of partitions of %s is %d, but must be %d", kafka.ErrLayout, topic, len(got), npar)
	}
	return nil
}

// Partitions returns the partitions of a topic in ascending order.
func (m *TopicManager) Partitions(topic string) ([]int32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	found, err := m.adm.ListTopics(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("list topic %s: %w", topic, err)
	}
	if err := found[topic].Err; err != nil {
		return nil, fmt.Errorf("list topic %s: %w", topic, err)
	}
	return found[topic].Partitions.Numbers(), nil
}

// GetOffset returns the offset after the last of a table's partition, which is also what goka is told to be the first.
func (m *TopicManager) GetOffset(topic string, partition int32, _ int64) (int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	offsets, err := m.adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("list offsets of %s: %w", topic, err)
	}
	o, ok := offsets.Lookup(topic, partition)
	if !ok || o.Err != nil {
		return 0, fmt.Errorf("offset of %s/%d is unknown: %w", topic, partition, o.Err)
	}
	return o.Offset, nil
}

// Close disconnects.
func (m *TopicManager) Close() error {
	m.cl.Close()
	return nil
}
