package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	watchEvery    = 2 * time.Second
	watchPatience = 3 * time.Second
	// configsEvery is how many looks at the topics there are for one at their settings.
	configsEvery = 10
	// missing is how often in a row a topic must be missing to be gone: a broker that starts does not know all of them at once.
	missing = 3
)

// Watch looks at the topics every few seconds, until ctx ends. It tells hold what is wrong with the broker, "" if nothing: clients hide that a
// broker is away, for they go on when it comes back; readiness and the log should not. It returns [ErrTopicChanged] when the topics are not as
// the session has them, and [ErrLayout] when they cannot be worked with any more.
func (l Layout) Watch(ctx context.Context, cl *kgo.Client, topics Topics, log *slog.Logger, hold func(reason string)) error {
	away := false
	hold("") // the broker has just told what the topics are; what is held at the end holds until the next session has got as far
	gone := make(map[string]int)
	for looks := 1; pause(ctx, watchEvery) == nil; looks++ {
		err := l.look(ctx, cl, topics, gone, looks%configsEvery == 0)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, ErrTopicChanged), errors.Is(err, ErrLayout):
			return err
		case err != nil:
			away = true
			hold(trouble(err) + ": " + err.Error())
			log.Warn(trouble(err)+", retrying", "error", err)
		case away:
			away = false
			hold("")
			log.Info("broker is responding again")
		}
	}
	return nil
}

func (l Layout) look(ctx context.Context, cl *kgo.Client, was Topics, gone map[string]int, configs bool) error {
	ctx, cancel := context.WithTimeout(ctx, watchPatience)
	defer cancel()
	found, err := describe(ctx, cl, slices.Collect(maps.Keys(was.counts))...)
	if err != nil {
		return Explain(err, Right{})
	}
	for name, t := range found {
		switch {
		case errors.Is(t.err, kerr.UnknownTopicOrPartition):
			if gone[name]++; gone[name] >= missing {
				return &TopicGone{Topic: name}
			}
			continue
		case errors.Is(t.err, kerr.TopicAuthorizationFailed):
			return Explain(t.err, l.right(name))
		case t.err != nil: // the broker will know better in a moment
		case t.id != was.IDs[name] && was.IDs[name] != (kadm.TopicID{}):
			return &TopicGone{Topic: name}
		case t.partitions != was.counts[name]:
			return fmt.Errorf("%w: %s has %d partitions; it had %d before", ErrTopicChanged, name, t.partitions, was.counts[name])
		}
		gone[name] = 0
	}
	if configs {
		_, err = l.checkConfigs(ctx, kadm.NewClient(cl))
	}
	return err
}

type described struct {
	id         kadm.TopicID
	partitions int32
	err        error
}

// describe asks the broker for topics. Admin clients may answer from what they remember.
func describe(ctx context.Context, cl *kgo.Client, names ...string) (map[string]described, error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	out := make(map[string]described, len(names))
	for _, t := range resp.Topics {
		if t.Topic != nil {
			out[*t.Topic] = described{t.TopicID, int32(len(t.Partitions)), kerr.ErrorForCode(t.ErrorCode)}
		}
	}
	return out, nil
}

// Partitions returns how many partitions a topic has at this moment.
func Partitions(ctx context.Context, cl *kgo.Client, topic string) (int32, error) {
	found, err := describe(ctx, cl, topic)
	if err == nil {
		err = found[topic].err
	}
	if err != nil {
		return 0, fmt.Errorf("describe topic %s: %w", topic, err)
	}
	return found[topic].partitions, nil
}
