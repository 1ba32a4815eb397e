package web

import (
	"context"
	"errors"
	"fmt"
	"time"

	"spate/services/alerter/kinesis"
	"spate/services/worker"
	"spate/shared/aws/lease"
	"spate/shared/aws/stream"
)

// Kinesis reads the figures of a pipeline in mode aws from the items in which the worker and the alerter save how far they are. The streams are not read: what Kinesis knows
// of them, their readers have saved.
type Kinesis struct {
	Worker, Alerter lease.Lease
	// Stored returns up to which sequence number a Lambda function has stored a shard of the stream of alerts; empty if there is none.
	Stored func(ctx context.Context, shard string) (string, error)
}

// Close implements Source.
func (*Kinesis) Close() {}

// Read implements Source.
func (k *Kinesis) Read(ctx context.Context) (Reading, error) {
	r := Reading{At: time.Now().UTC(), Part: "shard", Counter: "spate work"}
	held, err := k.Worker.Look(ctx)
	if errors.Is(err, lease.ErrNoTable) {
		return r, fmt.Errorf("table %s does not exist; create it with spate aws setup (for trials) or deploy/aws/template.yaml (for production)", k.Worker.Table)
	}
	if err != nil {
		return r, err
	}
	if held.State == nil {
		return r, nil
	}
	r.Begun = true
	r.Holder = &Holder{Name: held.Owner, Beat: fmt.Sprint(held.Epoch, ".", held.Beat), Lease: held.Duration, Released: held.Released}
	said, err := worker.ReadReport(held.State)
	if err != nil {
		return r, err
	}
	r.Of, r.Counted = said.Saved, moment(said.Closed)
	r.Events, r.Late, r.Invalid, r.Alerts = said.In, said.Late, said.Invalid, said.Alerts
	for _, s := range said.Shards {
		p := Partition{Name: s.ID, Next: s.After}
		if s.Known {
			behind := s.Behind.Seconds()
			p.Newest, p.Behind, p.Silent, p.Since = moment(s.Newest), &behind, !s.Silent.IsZero(), s.Silent
		}
		r.Partitions = append(r.Partitions, p)
	}
	shard, last := said.Newest()
	if shard == "" {
		return r, nil
	}
	at, known, err := k.stored(ctx, shard, last)
	if known && stream.Before(at, last) {
		r.Unstored, r.Stored = "the newest alerts", at
	}
	return r, err
}

// stored returns up to where a shard of the stream of alerts is stored, by a process or by a Lambda function, and whether that can be known.
func (k *Kinesis) stored(ctx context.Context, shard, last string) (at string, known bool, err error) {
	held, err := k.Alerter.Look(ctx)
	if err != nil {
		return "", false, err
	}
	known = held.State == nil
	if !known {
		if at, known, err = kinesis.StoredUpTo(held.State, shard); err != nil || !known || !stream.Before(at, last) {
			return at, known, err
		}
	}
	noted, err := k.Stored(ctx, shard)
	if stream.Before(at, noted) {
		at = noted
	}
	return at, known && err == nil, err
}
