package detector

import (
	"context"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
	"spate/shared/revision/topic"
	"spate/shared/rule"
	"spate/shared/verdict"
)

// rules are those that a session knows. They are safe for concurrent use.
type rules struct {
	topic    string
	revision prometheus.Gauge

	mu     sync.Mutex
	reader *topic.Reader
	known  known
}

// known are the rules up to a revision. The numbers of rules in a plan stay what they are, so a newer one can read the verdicts of an older one.
type known struct {
	plan   *rule.Plan
	teller verdict.Teller
}

func (r *rules) learn(plan *rule.Plan) {
	r.known = known{plan, verdict.New(plan)}
	r.revision.Set(float64(plan.Revision))
}

// newRules reads the rules.
func newRules(ctx context.Context, cl *kgo.Client, cfg kafka.Config, names kafka.Names, initial *rule.Set, revision prometheus.Gauge) (*rules, error) {
	r := &rules{topic: names.Rules, revision: revision, reader: topic.NewReader(cfg, kadm.NewClient(cl), names, initial)}
	if _, err := r.reader.Look(ctx); err != nil {
		return nil, err
	}
	r.learn(r.reader.Plan())
	return r, nil
}

// upTo returns the rules, which include a revision that events were judged by.
func (r *rules) upTo(ctx context.Context, revision int64) (known, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if revision <= r.known.plan.Revision {
		return r.known, nil
	}
	if _, err := r.reader.Look(ctx); err != nil {
		return r.known, err
	}
	if plan := r.reader.Plan(); plan.Origin != r.known.plan.Origin {
		return r.known, fmt.Errorf("revision %d of the rules is in force from the beginning; starting over with it", plan.Origin)
	} else if plan.Revision > r.known.plan.Revision {
		r.learn(plan)
	}
	switch {
	case revision <= r.known.plan.Revision:
		return r.known, nil
	case r.reader.Unreadable() != nil:
		return r.known, r.reader.Unreadable()
	}
	return r.known, fmt.Errorf("events were judged by revision %d of the rules, but topic %s has only revisions up to %d: the topic was deleted, or its broker lost records; restore it, or start over",
		revision, r.topic, r.known.plan.Revision)
}

// now returns the rules that are known.
func (r *rules) now() known {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known
}

// names are those of the rules in force, for people.
func (r *rules) names() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reader.Names()
}
