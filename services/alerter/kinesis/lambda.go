package kinesis

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

// Function is the alerter as a Lambda function.
type Function struct {
	Handler *Handler
	// Notes record how far the stream is stored, and Resolver uses them to end incidents. Set both or neither.
	Notes    *Notes
	Resolver *Resolver
}

// Handle answers an event: a batch of an event source mapping with ReportBatchItemFailures, or a schedule, which has no records.
//
// For a batch, the answer names the first record that is not done, from which the mapping delivers again. Handle returns no error, because an error would make the mapping deliver
// the whole batch again. A record that no further try can process goes to the dead letters and counts as done, so that it does not hold up those behind it. Without dead letters, the
// mapping has to give the record up after all its tries.
func (f Function) Handle(ctx context.Context, event json.RawMessage) (any, error) {
	var kind struct {
		Source string `json:"source"`
	}
	if err := json.Unmarshal(event, &kind); err == nil && kind.Source != "" {
		return f.schedule(ctx)
	}
	var e events.KinesisEvent
	if err := json.Unmarshal(event, &e); err != nil {
		return nil, fmt.Errorf("decode event: %w", err)
	}
	return f.batch(ctx, e), nil
}

// ended is the answer to a schedule.
type ended struct {
	Resolved int `json:"resolved"`
}

// schedule ends the incidents that are due.
func (f Function) schedule(ctx context.Context) (ended, error) {
	if f.Resolver == nil {
		return ended{}, nil
	}
	n, err := f.Resolver.Look(ctx)
	if ferr := f.Handler.metrics.sink.Flush(f.Handler.cfg.Now()); ferr != nil {
		f.Handler.cfg.Log.Warn("cannot write metrics", "error", ferr)
	}
	return ended{n}, err
}

func (f Function) batch(ctx context.Context, e events.KinesisEvent) events.KinesisEventResponse {
	records := make([]Record, len(e.Records))
	for i, r := range e.Records {
		shard, _, _ := strings.Cut(r.EventID, ":") // shardId-000000000000:sequence number
		records[i] = Record{Data: r.Kinesis.Data, ShardID: shard, SequenceNumber: r.Kinesis.SequenceNumber, ArrivedAt: r.Kinesis.ApproximateArrivalTimestamp.UTC()}
	}
	result := f.Handler.Handle(ctx, records)
	f.Handler.setAside(ctx, records, result)
	i, failed := result.First()
	if !failed {
		i = len(records)
	}
	if n, err := f.note(ctx, records[:i]); err != nil {
		f.Handler.cfg.Log.Error("cannot record the position up to which alerts are stored; the last record will be delivered again", "error", err)
		i, failed = n, true
	}
	out := events.KinesisEventResponse{BatchItemFailures: []events.KinesisBatchItemFailure{}}
	if failed {
		out.BatchItemFailures = append(out.BatchItemFailures, events.KinesisBatchItemFailure{ItemIdentifier: records[i].SequenceNumber})
	}
	return out
}

// note notes up to where the shards are stored: the last record of each, for a mapping delivers the next only when these are done or given up. With an
// error it returns a record that has to come again.
func (f Function) note(ctx context.Context, done []Record) (int, error) {
	if f.Notes == nil {
		return 0, nil
	}
	last := make(map[string]int)
	for i, r := range done {
		last[r.ShardID] = i
	}
	for shard, i := range last {
		if err := f.Notes.Note(ctx, shard, done[i].SequenceNumber); err != nil {
			return i, err
		}
	}
	return 0, nil
}

// setAside puts the records that cannot be worked off to the dead letters. What is put there is done.
func (h *Handler) setAside(ctx context.Context, records []Record, result Result) {
	if h.cfg.DeadLetters == nil {
		return
	}
	for i, err := range result.Errs {
		if err == nil {
			continue
		}
		if !Permanent(err) {
			return // all from here on is delivered again
		}
		if perr := h.cfg.DeadLetters.put(ctx, records[i], err); perr != nil {
			h.cfg.Log.Error("cannot send the record to the dead-letter queue; it will be delivered again", "shard", records[i].ShardID, "sequence_number", records[i].SequenceNumber, "error", perr)
			return
		}
		result.Errs[i] = nil
	}
}
