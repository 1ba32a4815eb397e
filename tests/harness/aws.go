package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamodbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"spate/services/verifier"
	"spate/shared/aws/awstest"
	"spate/shared/aws/stream"
)

// AWS is what one test has of the stand-ins: streams, tables and a topic of its own names.
type AWS struct {
	Env          []string // in which spate finds them
	Stream       string
	AlertsStream string
	Table        string
	StateTable   string
	TopicARN     string
	Kinesis      *kinesis.Client
	DynamoDB     *dynamodb.Client

	t *testing.T
}

// OnAWS makes them, by spate aws setup.
func OnAWS(t *testing.T, shards int, env ...string) *AWS {
	t.Helper()
	name := fmt.Sprintf("t%d", time.Now().UnixNano())
	a := &AWS{
		t: t, Stream: name + "-events", AlertsStream: name + "-alerts", Table: name + "-table", StateTable: name + "-state",
		Kinesis: kinesis.NewFromConfig(awstest.Config(awstest.Kinesis(t))), DynamoDB: dynamodb.NewFromConfig(awstest.Config(awstest.DynamoDB(t))),
	}
	a.Env = append(awstest.Env(t), "SPATE_MODE=aws", "SPATE_STREAM="+a.Stream, "SPATE_ALERTS_STREAM="+a.AlertsStream, "SPATE_TABLE="+a.Table,
		"SPATE_STATE_TABLE="+a.StateTable, "SPATE_SNS_TOPIC="+name, "SPATE_POLL=50ms", "SPATE_MIN_SEVERITY=warning")
	a.Env = append(a.Env, env...)
	setup := Spate(t, "setup", a.Env, "aws", "setup", "--shards", fmt.Sprint(shards), "--json").Start()
	if err := setup.Wait(time.Minute); err != nil {
		t.Fatalf("spate aws setup: %v: %s", err, setup.Output())
	}
	var made struct {
		TopicARN string `json:"topic_arn"`
	}
	if err := json.Unmarshal(setup.Output(), &made); err != nil || made.TopicARN == "" {
		t.Fatalf("spate aws setup printed %s: %v", setup.Output(), err)
	}
	a.TopicARN = made.TopicARN
	a.Env = slices.Clip(append(a.Env, "SPATE_TOPIC_ARN="+made.TopicARN)) // tests append to it
	return a
}

// Records reads all records of a stream, shard by shard, parents before their children.
func (a *AWS) Records(name string, each func(shard string, r types.Record)) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, s := range a.shards(ctx, name) {
		a.read(ctx, name, s.ID, func(r types.Record) { each(s.ID, r) })
	}
}

func (a *AWS) read(ctx context.Context, name, shard string, each func(types.Record)) {
	a.t.Helper()
	it, err := a.Kinesis.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{StreamName: aws.String(name), ShardId: aws.String(shard), ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
	if err != nil {
		a.t.Fatal(err)
	}
	for next := it.ShardIterator; next != nil; {
		out, err := a.Kinesis.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: next})
		if err != nil {
			a.t.Fatal(err)
		}
		for _, r := range out.Records {
			each(r)
		}
		if len(out.Records) == 0 {
			return
		}
		next = out.NextShardIterator
	}
}

// shards lists those of a stream, parents first: they are numbered in the order in which they came to be.
func (a *AWS) shards(ctx context.Context, name string) []stream.Shard {
	a.t.Helper()
	out, err := (&stream.Reader{API: a.Kinesis, Stream: name}).Shards(ctx)
	if err != nil {
		a.t.Fatal(err)
	}
	out = stream.Kept(out)
	slices.SortFunc(out, func(x, y stream.Shard) int { return strings.Compare(x.ID, y.ID) })
	return out
}

// Reference counts the stream of events in the plain way.
func (a *AWS) Reference(rule verifier.Rule) *verifier.Reference {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	ref := verifier.NewReference(rule)
	number := map[string]int32{}
	for i, s := range a.shards(ctx, a.Stream) {
		number[s.ID] = int32(i)
		var from []int32
		for _, p := range s.Parents {
			from = append(from, number[p])
		}
		ref.Succeed(int32(i), from...)
		a.read(ctx, a.Stream, s.ID, func(r types.Record) { ref.AddJSON(int32(i), r.Data, *r.ApproximateArrivalTimestamp) })
	}
	return ref
}

// Heir is the user of the events that [AWS.Events] adds; no rule must take them.
const Heir = "-1"

// Events are those of the stream, for [verifier.Rules], which knows nothing of shards that continue others: each of these begins with an event that brings
// its event time to where it begins. Of that event's columns, only the user and the time are not NULL.
func (a *AWS) Events(fields verifier.Rule) (events []verifier.Event) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	newest, number := map[string]int64{}, int32(0)
	for _, s := range a.shards(ctx, a.Stream) {
		from, known := int64(0), len(s.Parents) > 0
		for i, p := range s.Parents {
			ms, heard := newest[p]
			if known = known && heard; i == 0 || ms < from {
				from = ms
			}
		}
		if known {
			newest[s.ID] = from
			events = append(events, verifier.Event{Partition: number, MS: from, Appended: verifier.Unbounded, User: Heir, Column: func(path ...string) (string, bool) {
				return Heir, len(path) == 1 && path[0] == "user_id"
			}})
		}
		a.read(ctx, a.Stream, s.ID, func(r types.Record) {
			e := fields.Event(number, r.Data, *r.ApproximateArrivalTimestamp)
			if was, heard := newest[s.ID]; e.Column != nil && (!heard || min(e.MS, e.Appended) > was) {
				newest[s.ID] = min(e.MS, e.Appended)
			}
			events = append(events, e)
		})
		number++
	}
	return events
}

// State is what a worker has saved last.
type State struct {
	Epoch, Saves int64
	Owner        string
	Closed       int64 `json:"closed"`
	Tally        struct {
		In, Counted, Late, Idle, Invalid, Repeated, Lost int64
	} `json:"tally"`
	Shards map[string]json.RawMessage `json:"shards"`
}

// State returns what the worker has saved; false if there is nothing yet.
func (a *AWS) State() (s State, ok bool) {
	a.t.Helper()
	out, err := a.DynamoDB.GetItem(context.Background(), &dynamodb.GetItemInput{
		TableName: aws.String(a.StateTable), ConsistentRead: aws.Bool(true),
		Key: map[string]dynamodbtypes.AttributeValue{"pk": &dynamodbtypes.AttributeValueMemberS{Value: "worker#" + a.Stream}},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	b, ok := out.Item["state"].(*dynamodbtypes.AttributeValueMemberB)
	if !ok {
		return State{}, false
	}
	if err := json.Unmarshal(b.Value, &s); err != nil {
		a.t.Fatal(err)
	}
	for name, to := range map[string]*int64{"epoch": &s.Epoch, "saves": &s.Saves} {
		if n, ok := out.Item[name].(*dynamodbtypes.AttributeValueMemberN); ok {
			if _, err := fmt.Sscan(n.Value, to); err != nil {
				a.t.Fatal(err)
			}
		}
	}
	if o, ok := out.Item["owner"].(*dynamodbtypes.AttributeValueMemberS); ok {
		s.Owner = o.Value
	}
	return s, true
}
