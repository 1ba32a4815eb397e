package kinesis

import (
	"context"
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

// Lambda makes a handler a Lambda function for an event source mapping with ReportBatchItemFailures: it answers with the first record that
// is not done, from which the mapping delivers again. An error would make it deliver all of the batch again, so there is none.
func Lambda(h *Handler) func(context.Context, events.KinesisEvent) (events.KinesisEventResponse, error) {
	return func(ctx context.Context, e events.KinesisEvent) (events.KinesisEventResponse, error) {
		records := make([]Record, len(e.Records))
		for i, r := range e.Records {
			shard, _, _ := strings.Cut(r.EventID, ":") // shardId-000000000000:sequence number
			records[i] = Record{Data: r.Kinesis.Data, ShardID: shard, SequenceNumber: r.Kinesis.SequenceNumber, ArrivedAt: r.Kinesis.ApproximateArrivalTimestamp.UTC()}
		}
		out := events.KinesisEventResponse{BatchItemFailures: []events.KinesisBatchItemFailure{}}
		if i, failed := h.Handle(ctx, records).First(); failed {
			out.BatchItemFailures = append(out.BatchItemFailures, events.KinesisBatchItemFailure{ItemIdentifier: records[i].SequenceNumber})
		}
		return out, nil
	}
}
