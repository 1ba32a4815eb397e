package lease_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/aws/awstest"
	"spate/shared/aws/lease"
)

// patience is how long a test waits for what has to come. Nothing is concluded from how long it took.
const patience = 60 * time.Second

// table makes a table and returns a lease in it.
func table(t *testing.T) lease.Lease {
	t.Helper()
	client := dynamodb.NewFromConfig(awstest.Config(awstest.DynamoDB(t)))
	return lease.Lease{API: client, Table: awstest.StateTable(t, client), Key: "key", Owner: "test", Duration: 2 * time.Second, Log: slog.New(slog.DiscardHandler)}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

func acquire(t *testing.T, l lease.Lease) *lease.Held {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	h, err := l.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// keep renews a lease beside the test, until stop, which returns what Keep has.
func keep(t *testing.T, h *lease.Held) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Keep(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	return stop
}

// faults stands between a lease and the real client. A hook that is nil does nothing; an error of before keeps the call from being made,
// one of after takes its answer away.
type faults struct {
	lease.API
	before func(ctx context.Context, what string, in *dynamodb.UpdateItemInput) error // what is take, beat, save or release
	after  func(what string) error
	read   func(ctx context.Context) error
}

var errAnswer = errors.New("the answer is lost, for the test")

func (f *faults) GetItem(ctx context.Context, in *dynamodb.GetItemInput, opts ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	if f.read != nil {
		if err := f.read(ctx); err != nil {
			return nil, err
		}
	}
	return f.API.GetItem(ctx, in, opts...)
}

func (f *faults) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput, opts ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	what := "beat"
	switch {
	case in.ExpressionAttributeValues[":state"] != nil:
		what = "save"
	case in.ExpressionAttributeValues[":owner"] != nil:
		what = "take"
	case in.ExpressionAttributeValues[":yes"] != nil:
		what = "release"
	}
	if f.before != nil {
		if err := f.before(ctx, what, in); err != nil {
			return nil, err
		}
	}
	out, err := f.API.UpdateItem(ctx, in, opts...)
	if err == nil && f.after != nil {
		if err = f.after(what); err != nil {
			return nil, err
		}
	}
	return out, err
}

// stored returns an attribute of the item as text, "" if it is not there.
func stored(t *testing.T, l lease.Lease, name string) string {
	t.Helper()
	out, err := l.API.GetItem(t.Context(), &dynamodb.GetItemInput{
		TableName: aws.String(l.Table), ConsistentRead: aws.Bool(true), Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: l.Key}},
	})
	if err != nil {
		t.Fatal(err)
	}
	switch v := out.Item[name].(type) {
	case *types.AttributeValueMemberN:
		return v.Value
	case *types.AttributeValueMemberS:
		return v.Value
	case *types.AttributeValueMemberB:
		return string(v.Value)
	}
	return ""
}
