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

// noConsumer implements sarama.Consumer. goka asks it for high-water marks, for its statistics, and closes it.
type noConsumer struct{}

var errNoChangelog = errors.New("reading a table's changelog is not supported; tables are rebuilt from the input")

func (noConsumer) ConsumePartition(string, int32, int64) (sarama.PartitionConsumer, error) {
	return nil, errNoChangelog
}
func (noConsumer) Topics() ([]string, error)                  { return nil, errNoChangelog }
func (noConsumer) Partitions(string) ([]int32, error)         { return nil, errNoChangelog }
func (noConsumer) HighWaterMarks() map[string]map[int32]int64 { return nil }
func (noConsumer) Pause(map[string][]int32)                   {}
func (noConsumer) Resume(map[string][]int32)                  {}
func (noConsumer) PauseAll()                                  {}
func (noConsumer) ResumeAll()                                 {}
func (noConsumer) Close() error                               { return nil }
