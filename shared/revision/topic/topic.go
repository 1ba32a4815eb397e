// Package topic keeps the revisions of a pipeline's rules in a Kafka topic.
package topic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
	"spate/shared/revision"
	"spate/shared/rule"
)

// lookTime bounds a look at the topic.
const lookTime = 15 * time.Second

// writeTime bounds the write of a revision.
var writeTime = revision.Margin / 2

// Reader reads the topic as far as it is asked to. It is not safe for concurrent use.
type Reader struct {
	*revision.Log
	cfg   kafka.Config
	adm   *kadm.Client
	names kafka.Names
	topic string
	next  int64
}

// NewReader returns a reader that has read nothing. It asks the brokers by adm. The initial rules are in force until the first revision is.
func NewReader(cfg kafka.Config, adm *kadm.Client, names kafka.Names, initial *rule.Set) *Reader {
	return &Reader{Log: revision.NewLog(initial), cfg: cfg, adm: adm, names: names, topic: names.Rules}
}

// ErrNoTopic means that the topic does not exist: nothing was ever applied, or it was deleted.
var ErrNoTopic = errors.New("the topic does not exist")

// Look reads everything that the topic has when it is called, and reports whether there is a new revision. After an error, part of it may have been
// read; to look again reads the rest.
func (r *Reader) Look(ctx context.Context) (changed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	was := r.Revision()
	end, err := r.end(ctx)
	if errors.Is(err, kerr.UnknownTopicOrPartition) { // or the client remembers that it was so
		if _, err = kafka.Fresh(ctx, r.adm, r.topic); err == nil {
			end, err = r.end(ctx)
		}
	}
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		err = ErrNoTopic
	case err != nil:
		err = kafka.Explain(err, kafka.Right{Operation: "Read", Resource: "topic", Name: r.topic})
	case end < r.next:
		err = fmt.Errorf("it ends at offset %d, but was read up to %d: it was deleted and recreated, or the broker lost records", end, r.next)
	case end > r.next:
		err = r.read(ctx, end)
	}
	if err != nil {
		return false, fmt.Errorf("read the rules from topic %s: %w", r.topic, err)
	}
	return r.Revision() != was, nil
}

// end is where the topic ends for those who read what is committed.
func (r *Reader) end(ctx context.Context) (int64, error) {
	ends, err := r.adm.ListCommittedOffsets(ctx, r.topic)
	if err == nil {
		err = ends.Error()
	}
	end, _ := ends.Lookup(r.topic, 0)
	return end.Offset, err
}

// read takes the records up to an offset.
func (r *Reader) read(ctx context.Context, end int64) error {
	cl, err := kgo.NewClient(r.cfg.Options(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{r.topic: {0: kgo.NewOffset().At(r.next)}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(500*time.Millisecond),
	)...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	for r.next < end {
		f := cl.PollFetches(ctx)
		if err := f.Err(); err != nil {
			return kafka.Explain(err, kafka.Right{Operation: "Read", Resource: "topic", Name: r.topic})
		}
		f.EachRecord(func(rec *kgo.Record) {
			if !rec.Attrs.IsControl() {
				r.Take(rec.Timestamp.UnixMilli(), rec.Value)
			}
			r.next = rec.Offset + 1
		})
	}
	return nil
}

// mayRead returns an error if the broker does not let this principal read the topic: who wrote a revision and cannot read it does not know whether it is in
// force.
func (r *Reader) mayRead(ctx context.Context) error {
	cl, err := kgo.NewClient(r.cfg.Options(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{r.topic: {0: kgo.NewOffset().At(r.next)}}), kgo.FetchMaxWait(100*time.Millisecond))...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := cl.PollFetches(ctx).Err(); errors.Is(err, kerr.TopicAuthorizationFailed) {
		return fmt.Errorf("read the rules from topic %s: %w", r.topic, kafka.Explain(err, kafka.Right{Operation: "Read", Resource: "topic", Name: r.topic}))
	}
	return nil // anything else, the write or the look behind it will tell
}

// ErrHeldBack means that somebody has an open transaction in the topic: nobody can read what is behind its first record until it ends. Spate writes no
// transactions there.
var ErrHeldBack = errors.New("a program has an open transaction in the topic, and records written now cannot be read until that transaction ends")

// heldBack reports whether what is written now could not be read. If the broker does not say, the write will tell.
func (r *Reader) heldBack(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	ends, err := r.adm.ListEndOffsets(ctx, r.topic)
	if err != nil || ends.Error() != nil {
		return false
	}
	readable, err := r.end(ctx)
	end, ok := ends.Lookup(r.topic, 0)
	return ok && err == nil && readable < end.Offset
}

// Append writes a revision after those that the reader has read, and returns it as it is in force. To write it a second time is an error, and so is
// to write one when somebody else was faster: the reader has read that one then.
func (r *Reader) Append(ctx context.Context, rec revision.Record) (revision.Entry, error) {
	rec.Revision = r.Revision() + 1
	if err := r.Check(rec); err != nil {
		return revision.Entry{}, err
	}
	value, err := rec.Encode()
	if err != nil {
		return revision.Entry{}, err
	}
	cl, err := kgo.NewClient(r.cfg.Options(kgo.ProducerBatchMaxBytes(kafka.ProducerBatchMaxBytes), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProduceRequestTimeout(revision.Margin/3), kgo.RecordDeliveryTimeout(writeTime),
		// To be written twice does a record no harm: the second is not the next revision. An idempotent producer would wait for an answer for ever, and a
		// broker that does not let it write would say that of the cluster, not of the topic.
		kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.MaxProduceRequestsInflightPerBroker(1))...)
	if err != nil {
		return revision.Entry{}, fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	if err := r.mayRead(ctx); err != nil {
		return revision.Entry{}, err
	}
	if r.heldBack(ctx) { // it would be in force, but by the time that it can be read, events may have been judged without it
		return revision.Entry{}, fmt.Errorf("revision %d was not written to topic %s: %w; apply the revision again once the transaction has ended", rec.Revision, r.topic, ErrHeldBack)
	}
	wrote := cl.ProduceSync(ctx, &kgo.Record{Topic: r.topic, Key: []byte("rules"), Value: value}).FirstErr()
	if wrote != nil {
		wrote = fmt.Errorf("write revision %d to topic %s: %w", rec.Revision, r.topic, kafka.Explain(wrote, kafka.Right{Operation: "Write", Resource: "topic", Name: r.topic}))
	}
	// It may be there although the broker did not say so, or another one.
	if _, err := r.Look(ctx); err != nil {
		return revision.Entry{}, errors.Join(wrote, fmt.Errorf("it is unknown whether revision %d is in force; to find out, run spate rules history: %w", rec.Revision, err))
	}
	e, err := r.Written(rec)
	if err != nil && wrote != nil {
		return revision.Entry{}, fmt.Errorf("%w; if the revision is written after all, spate rules history lists it", wrote)
	}
	if err != nil && r.Revision() < rec.Revision {
		return revision.Entry{}, fmt.Errorf("revision %d was written to topic %s, but cannot be read yet: %w; once the transaction has ended, spate rules history shows whether the revision is in force", rec.Revision, r.topic, ErrHeldBack)
	}
	return e, err
}

// Begun reports whether the pipeline has counted anything, or has routers that may.
func (r *Reader) Begun(ctx context.Context) (bool, error) {
	names := r.names
	ends, err := r.adm.ListEndOffsets(ctx, names.Keyed)
	if err == nil {
		err = ends.Error()
	}
	if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return false, fmt.Errorf("list the end offsets of topic %s: %w", names.Keyed, kafka.Explain(err, kafka.Right{Operation: "Describe", Resource: "topic", Name: names.Keyed}))
	}
	begun := false
	ends.Each(func(o kadm.ListedOffset) { begun = begun || o.Offset > 0 })
	if begun {
		return true, nil
	}
	members, err := r.routers(ctx)
	for until := time.Now().Add(lookTime); (errors.Is(err, kerr.CoordinatorNotAvailable) || errors.Is(err, kerr.CoordinatorLoadInProgress)) && time.Now().Before(until); {
		// A cluster that never had a group makes the topic of their offsets first.
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return false, err
		}
		members, err = r.routers(ctx)
	}
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return false, fmt.Errorf("describe group %s: %w", names.RouterGroup, kafka.Explain(err, kafka.Right{Operation: "Describe", Resource: "group", Name: names.RouterGroup}))
	}
	return members > 0, nil
}

// routers is the number of members of the routers' group.
func (r *Reader) routers(ctx context.Context) (members int, err error) {
	group := r.names.RouterGroup
	groups, err := r.adm.DescribeGroups(ctx, group)
	if err == nil {
		err = groups[group].Err
	}
	return len(groups[group].Members), err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
