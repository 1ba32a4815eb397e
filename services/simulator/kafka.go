package simulator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/kafka"
)

const (
	maxBufferedRecords = 50_000
	maxBufferedBytes   = 128 << 20
	slabSize           = 64 << 10
	stallEvery         = 3 * time.Second // between log lines about a broker that does not answer
	// brokerWait is how long a run waits at the start for its broker, or Kinesis. A broker and its topics take a few seconds to come up in a process, half a
	// minute in containers that a cold machine starts; who waits longer has most likely given the wrong address.
	brokerWait = time.Minute
)

// ErrNoTopic says that the topic to send to does not exist.
var ErrNoTopic = errors.New("topic does not exist")

// Partition returns the partition, of n, that a record goes to: that of its key as the Java client chooses it, or, without a
// key, the partitions in turn. row is the record's number among all sent, from 0.
func Partition(key []byte, row int64, n int32) int32 {
	if len(key) == 0 {
		return int32(row % int64(n))
	}
	return kafka.PartitionFor(key, n)
}

// kafkaSink writes JSON records to a topic. What the client holds is bounded: send blocks beyond that.
type kafkaSink struct {
	client     *kgo.Client
	log        *slog.Logger
	key        string
	partitions int32
	onSent     func(Row, int32, int64)
	count      *counters

	// ctx is that of the records. It ends flushTimeout after that of the run; see outlive.
	ctx     context.Context
	release func()

	slab   []byte // records share it, and free it together
	failed atomic.Pointer[error]

	quit    chan struct{}
	watcher sync.WaitGroup
}

func newKafkaSink(ctx context.Context, cfg *Config, count *counters) (*kafkaSink, error) {
	s := &kafkaSink{log: cfg.Log, key: cfg.Key, onSent: cfg.OnSent, count: count, quit: make(chan struct{})}
	var err error
	if s.partitions, err = s.findTopic(ctx, cfg); err != nil {
		return nil, err
	}
	s.client, err = kgo.NewClient(cfg.Kafka.Options(
		// The broker has answered, so one that drops a connection at once is not misconfigured: it restarts, behind something that
		// takes connections all the same.
		kgo.AlwaysRetryEOF(),
		kgo.DefaultProduceTopic(cfg.Topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()), // idempotent and retried without end by default
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(cfg.BatchMaxBytes),
		kgo.MaxBufferedRecords(maxBufferedRecords),
		kgo.MaxBufferedBytes(maxBufferedBytes),
	)...)
	if err != nil {
		return nil, fmt.Errorf("create Kafka client: %w", err)
	}

	s.ctx, s.release = outlive(ctx, flushTimeout)
	s.watcher.Go(s.watch)
	return s, nil
}

// findTopic returns the number of partitions of the topic. It waits for a broker for brokerWait, so that the stack may still be starting.
func (s *kafkaSink) findTopic(ctx context.Context, cfg *Config) (int32, error) {
	client, err := kgo.NewClient(cfg.Kafka.Options()...)
	if err != nil {
		return 0, fmt.Errorf("create Kafka client: %w", err)
	}
	defer client.Close()
	brokers := strings.Join(cfg.Kafka.Brokers, ",")
	for until := time.Now().Add(brokerWait); ; {
		n, err := countPartitions(ctx, client, cfg.Topic)
		switch {
		case err == nil:
			return n, nil
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			return 0, fmt.Errorf("%w: topic %s does not exist on %s; start `spate up` or `spate route` first, or create it", ErrNoTopic, cfg.Topic, brokers)
		case permanent(err):
			return 0, fmt.Errorf("look up topic %s on %s: %w", cfg.Topic, brokers, kafka.Explain(err, kafka.Right{Operation: "Write", Resource: "topic", Name: cfg.Topic}))
		}
		err = kafka.Explain(err, kafka.Right{})
		left := time.Until(until).Round(time.Second)
		if left <= 0 {
			return 0, fmt.Errorf("brokers: waited %.0f s for a broker at %s: %w", brokerWait.Seconds(), brokers, err)
		}
		s.log.Warn("waiting for the broker", "brokers", brokers, "gives_up_in", left.String(), "error", err)
	}
}

// countPartitions asks once, and takes stallEvery to fail.
func countPartitions(ctx context.Context, client *kgo.Client, topic string) (int32, error) {
	attempt, cancel := context.WithTimeout(ctx, stallEvery)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(attempt, client)
	if err == nil && len(resp.Topics) == 1 {
		if err = kerr.ErrorForCode(resp.Topics[0].ErrorCode); err == nil && len(resp.Topics[0].Partitions) > 0 {
			return int32(len(resp.Topics[0].Partitions)), nil
		}
	}
	if err == nil {
		err = errors.New("the broker does not list the partitions yet")
	}
	if !permanent(err) {
		<-attempt.Done() // it may fail at once, as when the connection is refused
	}
	return 0, err
}

// permanent reports whether an error is an answer of the broker that waiting does not change.
func permanent(err error) bool {
	return errors.As(err, new(*kerr.Error)) && !kerr.IsRetriable(err) || errors.Is(err, kerr.UnknownTopicOrPartition)
}

func (s *kafkaSink) send(r *Row, index int64) error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	var text string
	switch s.key {
	case KeyCategory:
		text = r.Event.CategoryID
	case KeyUser:
		text = r.Event.UserID
	}
	if cap(s.slab)-len(s.slab) < 4<<10 {
		s.slab = make([]byte, 0, slabSize)
	}
	rec := new(kgo.Record)
	begin := len(s.slab)
	if text != "" {
		s.slab = append(s.slab, text...)
		rec.Key = s.slab[begin:len(s.slab):len(s.slab)]
		begin = len(s.slab)
	}
	s.slab = r.AppendJSON(s.slab)
	rec.Value = s.slab[begin:len(s.slab):len(s.slab)]
	rec.Partition = Partition(rec.Key, index, s.partitions)

	done := s.acked
	if s.onSent != nil {
		row := *r
		done = func(rec *kgo.Record, err error) {
			if err == nil {
				s.onSent(row, rec.Partition, rec.Offset)
			}
			s.acked(rec, err)
		}
	}
	s.client.Produce(s.ctx, rec, done)
	return nil
}

// acked is called by the client for each record.
func (s *kafkaSink) acked(rec *kgo.Record, err error) {
	if err == nil {
		s.count.sent.Add(1)
		return
	}
	err = fmt.Errorf("send to Kafka: %w", kafka.Explain(err, kafka.Right{Operation: "Write", Resource: "topic", Name: rec.Topic}))
	s.failed.CompareAndSwap(nil, &err)
}

// idle does nothing: the client sends by itself after 10 ms.
func (s *kafkaSink) idle() error { return nil }

func (s *kafkaSink) close(ctx context.Context) error {
	err := s.client.Flush(s.ctx)
	close(s.quit)
	s.watcher.Wait()
	lost := s.client.BufferedProduceRecords()
	s.client.Close()
	s.release()
	if err != nil && ctx.Err() != nil {
		s.log.Warn("records were not acknowledged in time; some may have been written", "records", lost, "timeout", flushTimeout)
		return nil
	}
	if failed := s.failed.Load(); failed != nil {
		return *failed
	}
	return err
}

// watch says so when the broker acknowledged nothing between two ticks although records were waiting at both. One record that waits at
// a tick says nothing: rows of a file in real time may come at the very second of the ticks.
func (s *kafkaSink) watch() {
	ticker := time.NewTicker(stallEvery)
	defer ticker.Stop()
	last, before := int64(-1), int64(0)
	for {
		select {
		case <-s.quit:
			return
		case <-ticker.C:
		}
		sent, waiting := s.count.sent.Load(), s.client.BufferedProduceRecords()
		if sent == last && before > 0 && waiting > 0 {
			s.log.Warn("waiting for the broker to acknowledge", "records", waiting)
		}
		last, before = sent, waiting
	}
}
