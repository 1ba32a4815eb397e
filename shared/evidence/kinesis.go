package evidence

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/aws/stream"
	"spate/shared/format"
)

// Kinesis returns the events of an alert, the first most of them, from the stream that reader reads.
func Kinesis(ctx context.Context, a alert.Record, events format.Config, most int, reader *stream.Reader) *Found {
	if len(a.Evidence.Shards) == 0 {
		return &Found{Note: "the alert has no evidence, because it was written by another program"}
	}
	s := shards{reader: reader, evidence: a.Evidence}
	return search(ctx, a, events, most, s.read)
}

// ScanStream is [Scan] for a stream of Kinesis. Every event of a record is handed over by itself.
func ScanStream(ctx context.Context, ev alert.Evidence, reader *stream.Reader, take Take) (note string, err error) {
	f := &Found{}
	err = shards{reader: reader, evidence: ev}.read(ctx, f, take)
	return f.Note, err
}

type shards struct {
	reader   *stream.Reader
	evidence alert.Evidence
}

// errDone ends the reading of a shard.
var errDone = errors.New("all events have been read")

// read is a source.
func (s shards) read(ctx context.Context, f *Found, take Take) error {
	f.Events = []Event{}
	var packed [][]byte
	var failed error
	for _, id := range slices.Sorted(maps.Keys(s.evidence.Shards)) {
		r := s.evidence.Shards[id]
		err := s.reader.Read(ctx, id, stream.Position{After: r.First, Include: true}, func(_ context.Context, fetch stream.Fetch) error {
			if fetch.Lost {
				f.note("%s: the oldest events have expired", id)
			}
			for _, record := range fetch.Records {
				seq := aws.ToString(record.SequenceNumber)
				if stream.Before(r.Last, seq) {
					return errDone
				}
				packed, _ = stream.Unpack(record.Data, packed[:0]) // what cannot be unpacked is not an event
				for _, value := range packed {
					for _, text := range activity.Texts(value) {
						if failed = take(ctx, Place{Shard: id, Sequence: seq}, text, nil); failed != nil {
							return failed
						}
					}
				}
				if seq == r.Last {
					return errDone
				}
			}
			if fetch.AtEnd {
				return errDone
			}
			return nil
		})
		switch {
		case failed != nil:
			return failed
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !errors.Is(err, errDone):
			f.note("%s: %v", id, err)
		}
	}
	return nil
}
