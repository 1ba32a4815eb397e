package explainer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"spate/shared/alert"
	"spate/shared/aws/stream"
	"spate/shared/evidence"
	"spate/shared/format"
)

// Kinesis reads the stream of events of mode aws. It explains alerts only: nothing there says where the events of another window are, and what became of each.
type Kinesis struct {
	Reader *stream.Reader // its stream is that of the evidence
	Events format.Config
}

// Of implements [Log].
func (k *Kinesis) Of(ctx context.Context, ev alert.Evidence, from, until time.Time, a about) (*Facts, error) {
	if len(ev.Shards) == 0 {
		return &Facts{Notes: []string{"the alert has no evidence, because it was written by another program"}}, nil
	}
	events, err := format.New(k.Events)
	if err != nil {
		return nil, err
	}
	f := &Facts{}
	p := &picker{events: events, about: a, from: from.UnixMilli(), until: until.UnixMilli(), facts: f}
	k.Reader.Stream = ev.Stream
	note, err := evidence.ScanStream(ctx, ev, k.Reader, p.take)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if note != "" {
		f.Notes = append(f.Notes, note)
	}
	if err != nil {
		f.Notes = append(f.Notes, fmt.Sprintf("some events were not read: %v", err))
	}
	f.sort()
	return f, nil
}

// ErrAlertsOnly is returned for a key without an alert by a log that can explain only alerts.
var ErrAlertsOnly = errors.New("the key has no alert in this period; spate why cannot give the reason, because mode aws does not record what became of each event")

// Between implements [Log].
func (k *Kinesis) Between(context.Context, time.Time, time.Time, about) (*Facts, error) {
	return nil, ErrAlertsOnly
}
