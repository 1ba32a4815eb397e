package gokaclient

import (
	"errors"

	"github.com/IBM/sarama"
)

// ConsumerBuilder returns the builder for goka.WithConsumerSaramaBuilder. goka reads changelogs with it, and there is none to be read
// ([TopicManager]).
func ConsumerBuilder() func(brokers []string, clientID string) (sarama.Consumer, error) {
	return func([]string, string) (sarama.Consumer, error) { return noConsumer{}, nil }
}

type noConsumer struct{ sarama.Consumer }

func (noConsumer) ConsumePartition(string, int32, int64) (sarama.PartitionConsumer, error) {
	return nil, errors.New("tables are rebuilt from the input, not read from their changelog")
}

func (noConsumer) Close() error { return nil }
