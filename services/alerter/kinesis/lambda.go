package kinesis

import (
	"context"
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

// Lambda makes a handler a Lambda function for an event source mapping with ReportBatchItemFailures: it answers with the first record that
// is not done, from which the mapping delivers again. An error would make it deliver all of the batch again, so there is none.
//
// A record that no further try can work off goes to the dead letters and is done, so that it holds up nothing behind it. Without them the mapping has to
// give it up, after all its tries.
func Lambda(h *Handler) func(context.Context, events.KinesisEvent) (events.KinesisEventResponse, error) {
	return func(ctx context.Context, e events.KinesisEvent) (events.KinesisEventResponse, error) {
		records := make([]Record, len(e.Records))
		for i, r := range e.Records {
			shard, _, _ := strings.Cut(r.EventID, ":") // shardId-000000000000:sequence number
			records[i] = Record{Data: r.Kinesis.Data, ShardID: shard, SequenceNumber: r.Kinesis.SequenceNumber, ArrivedAt: r.Kinesis.ApproximateArrivalTimestamp.UTC()}
		}
		out := events.KinesisEventResponse{BatchItemFailures: []events.KinesisBatchItemFailure{}}
		result := h.Handle(ctx, records)
		h.setAside(ctx, records, result)
		if i, failed := result.First(); failed {
			out.BatchItemFailures = append(out.BatchItemFailures, events.KinesisBatchItemFailure{ItemIdentifier: records[i].SequenceNumber})
		}
		return out, nil
	}
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
