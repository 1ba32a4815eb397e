package console

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"time"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	dynamodbsdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	kinesissdk "github.com/aws/aws-sdk-go-v2/service/kinesis"

	"spate/shared/activity"
	"spate/shared/aws/cloud"
	"spate/shared/aws/stream"
	"spate/shared/format"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
)

// alertReader is what keeps alerts, for those who look at them.
type alertReader interface {
	Alerts(context.Context, store.Filter) iter.Seq2[store.Alert, error]
}

// tableFlags say where alerts are kept in mode aws.
type tableFlags struct {
	Table string `env:"SPATE_TABLE,dynamodb_control_table" default:"ddb-ecommerce-tab-1" help:"In mode aws: the DynamoDB table that keeps the alerts."`
}

func (f tableFlags) table(ctx context.Context) (*dynamodb.Table, error) {
	cfg, err := cloud.Load(ctx)
	if err != nil {
		return nil, err
	}
	return dynamodb.New(dynamodbsdk.NewFromConfig(cfg), dynamodb.Config{Table: f.Table})
}

// fromTable reads what the table has of an alert, and returns what reads its events.
func (f tableFlags) fromTable(ctx context.Context, s *story, id string, events *format.Reader) (read func(), err error) {
	table, err := f.table(ctx)
	if err != nil {
		return nil, usage(err)
	}
	if s.Alert, err = table.Alert(ctx, id); err != nil {
		return nil, err
	}
	cfg, err := cloud.Load(ctx)
	if err != nil {
		return nil, usage(err)
	}
	reader := &stream.Reader{API: kinesissdk.NewFromConfig(cfg), Stream: s.Evidence.Stream, Log: slog.New(slog.DiscardHandler)}
	return func() { s.readShards(ctx, reader, events) }, nil
}

// errRead ends the reading of a shard.
var errRead = errors.New("all is read")

// readShards reads the alert's events from the stream. What keeps it from that is a note, not an error.
func (s *story) readShards(ctx context.Context, reader *stream.Reader, events *format.Reader) {
	if len(s.Evidence.Shards) == 0 {
		s.Note = "the alert does not say where they are: it is not of spate"
		return
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	note := func(format string, args ...any) {
		if s.Note != "" {
			s.Note += "; "
		}
		s.Note += fmt.Sprintf(format, args...)
	}
	s.Events = []event{}
	var packed [][]byte
	for _, id := range slices.Sorted(maps.Keys(s.Evidence.Shards)) {
		r := s.Evidence.Shards[id]
		err := reader.Read(ctx, id, stream.Position{After: r.First, Include: true}, func(_ context.Context, f stream.Fetch) error {
			if f.Lost {
				note("%s: the oldest events are not kept any more", id)
			}
			for _, record := range f.Records {
				seq := sdkaws.ToString(record.SequenceNumber)
				if stream.Before(r.Last, seq) {
					return errRead
				}
				packed, _ = stream.Unpack(record.Data, packed[:0]) // what cannot be unpacked is not an event
				for _, value := range packed {
					texts, rest := activity.Split(value)
					if len(rest) > 0 { // another format, or an event and something else
						texts = append(texts, rest)
					}
					for _, text := range texts {
						if err := s.take(ctx, place{Shard: id, Sequence: seq}, text, nil, events); err != nil {
							return err
						}
					}
				}
				if seq == r.Last {
					return errRead
				}
			}
			if f.AtEnd {
				return errRead
			}
			return nil
		})
		switch {
		case errors.Is(err, errRead), err == nil:
		case ctx.Err() != nil:
			note("not all was read: that took longer than %v", readTime/time.Second*time.Second)
			return
		default:
			note("%s: %v", id, brief(err))
		}
	}
}
