package evidence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/aws/stream"
)

// kept is what a stream still has, by shard. The sequence number of a record is its index, from first on.
type kept map[string]struct {
	first   int
	records []string
	err     string // code of the error of every read
	hangs   bool
}

func (k kept) ListShards(context.Context, *kinesis.ListShardsInput, ...func(*kinesis.Options)) (*kinesis.ListShardsOutput, error) {
	out := &kinesis.ListShardsOutput{}
	for id := range k {
		out.Shards = append(out.Shards, types.Shard{ShardId: aws.String(id)})
	}
	return out, nil
}

// GetShardIterator returns one that is the shard and the next sequence number.
func (k kept) GetShardIterator(_ context.Context, in *kinesis.GetShardIteratorInput, _ ...func(*kinesis.Options)) (*kinesis.GetShardIteratorOutput, error) {
	shard, ok := k[*in.ShardId]
	if !ok {
		return nil, &smithy.GenericAPIError{Code: "ResourceNotFoundException"}
	}
	next := shard.first
	if in.StartingSequenceNumber != nil {
		var err error
		if next, err = strconv.Atoi(*in.StartingSequenceNumber); err != nil || next < shard.first {
			return nil, &smithy.GenericAPIError{Code: "InvalidArgumentException"}
		}
	}
	return &kinesis.GetShardIteratorOutput{ShardIterator: aws.String(fmt.Sprintf("%s %d", *in.ShardId, next))}, nil
}

// GetRecords returns one record a call.
func (k kept) GetRecords(ctx context.Context, in *kinesis.GetRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error) {
	id, text, _ := strings.Cut(*in.ShardIterator, " ")
	next, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	shard := k[id]
	switch {
	case shard.err != "":
		return nil, &smithy.GenericAPIError{Code: shard.err}
	case shard.hangs:
		<-ctx.Done()
		return nil, ctx.Err()
	case next == shard.first+len(shard.records):
		return &kinesis.GetRecordsOutput{NextShardIterator: in.ShardIterator, MillisBehindLatest: aws.Int64(0)}, nil
	}
	return &kinesis.GetRecordsOutput{
		Records:           []types.Record{{SequenceNumber: aws.String(text), Data: []byte(shard.records[next-shard.first])}},
		NextShardIterator: aws.String(fmt.Sprintf("%s %d", id, next+1)), MillisBehindLatest: aws.Int64(1),
	}, nil
}

func (k kept) reader() *stream.Reader {
	return &stream.Reader{API: k, Stream: "s", Log: slog.New(slog.DiscardHandler)}
}

// TestKinesis: everything that the stream still has between the sequence numbers is read, of every shard.
func TestKinesis(t *testing.T) {
	event := func(i int) string { return fmt.Sprintf(`{"u":7,"t":"2019-11-01T00:00:01Z","i":%d}`, i) }
	many := strings.Repeat(event(9), activity.MaxTexts)
	for _, c := range []struct {
		name   string
		kept   kept
		ranges map[string]alert.SequenceRange
		want   []string
		note   string
	}{
		{
			"between, in two shards", kept{"a": {records: []string{event(0), event(1), "no event", event(2) + "\n" + event(3) + "{", event(4)}}, "b": {records: []string{event(5)}}},
			map[string]alert.SequenceRange{"a": {First: "1", Last: "3"}, "b": {First: "0", Last: "0"}}, []string{"a 1: 1", "a 3: 2", "a 3: 3", "b 0: 5"}, "",
		},
		{
			"a record of too many", kept{"a": {records: []string{event(0), many}}}, map[string]alert.SequenceRange{"a": {First: "0", Last: "1"}}, []string{"a 0: 0"}, "",
		},
		{
			"the stream ends before", kept{"a": {records: []string{event(0)}}}, map[string]alert.SequenceRange{"a": {First: "0", Last: "9"}}, []string{"a 0: 0"}, "",
		},
		{
			"the last one is missing", kept{"a": {first: 4, records: []string{event(0)}}}, map[string]alert.SequenceRange{"a": {First: "1", Last: "3"}}, nil, "a: the oldest events have expired",
		},
		{
			"the oldest have expired", kept{"a": {first: 4, records: []string{event(0), event(1)}}}, map[string]alert.SequenceRange{"a": {First: "1", Last: "4"}}, []string{"a 4: 0"}, "a: the oldest events have expired",
		},
		{
			"a shard has expired", kept{"b": {records: []string{event(0)}}}, map[string]alert.SequenceRange{"a": {First: "0", Last: "0"}, "b": {First: "0", Last: "0"}}, []string{"b 0: 0"}, "a: the oldest events have expired",
		},
		{
			"a shard is forbidden", kept{"a": {err: "AccessDeniedException"}, "b": {records: []string{event(0)}}}, map[string]alert.SequenceRange{"a": {First: "0", Last: "0"}, "b": {First: "0", Last: "0"}},
			[]string{"b 0: 0"}, "a: read shard a of stream s: api error AccessDeniedException: ",
		},
		{
			"no response", kept{"a": {records: []string{event(0)}}, "b": {hangs: true}}, map[string]alert.SequenceRange{"a": {First: "0", Last: "0"}, "b": {First: "0", Last: "0"}}, []string{"a 0: 0"},
			"some events were not read: reading took longer than 30s",
		},
		{"of another program", nil, nil, nil, "the alert has no evidence, because it was written by another program"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := alerted(int64(len(c.want)), 1000, 1000)
				a.Evidence = alert.Evidence{Stream: "s", Shards: c.ranges}
				found := Kinesis(t.Context(), a, config("u", "t"), 10, c.kept.reader())
				var got []string
				for _, e := range found.Events {
					got = append(got, fmt.Sprintf("%s: %s", e.Place, Values(e.Value)["i"]))
				}
				if diff := cmp.Diff(c.want, got); diff != "" || found.Note != c.note {
					t.Errorf("note %q, want %q %s", found.Note, c.note, diff)
				}
			})
		})
	}
}

// TestTakeEndsReadingOfShards: after an error no record is handed over, of no shard.
func TestTakeEndsReadingOfShards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := alert.SequenceRange{First: "0", Last: "1"}
		k := kept{"a": {records: []string{"x", "y"}}, "b": {records: []string{"z"}}}
		s := shards{reader: k.reader(), evidence: alert.Evidence{Shards: map[string]alert.SequenceRange{"a": all, "b": all}}}
		failed := errors.New("registry away")
		var taken []string
		err := s.read(t.Context(), &Found{}, func(_ context.Context, at Place, value []byte, _ []kgo.RecordHeader) error {
			taken = append(taken, string(value))
			return failed
		})
		if !errors.Is(err, failed) || !slices.Equal(taken, []string{"x"}) {
			t.Errorf("%v after %q", err, taken)
		}
	})
}
