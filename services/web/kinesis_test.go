package web

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/aws/lease"
)

// items are those of a table of states, by key.
type items map[string]map[string]types.AttributeValue

func (i items) GetItem(_ context.Context, in *dynamodb.GetItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	if i == nil {
		return nil, &types.ResourceNotFoundException{}
	}
	return &dynamodb.GetItemOutput{Item: i[in.Key["pk"].(*types.AttributeValueMemberS).Value]}, nil
}

func (items) UpdateItem(context.Context, *dynamodb.UpdateItemInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	panic("a console writes nothing here")
}

func held(state string) map[string]types.AttributeValue {
	number := func(n int) types.AttributeValue { return &types.AttributeValueMemberN{Value: fmt.Sprint(n)} }
	return map[string]types.AttributeValue{
		"epoch": number(3), "beat": number(7), "lease_ms": number(4000), "owner": &types.AttributeValueMemberS{Value: "w1"}, "state": &types.AttributeValueMemberB{Value: []byte(state)},
	}
}

// TestKinesis: what the worker and the alerter have saved is what is known, and nothing else.
func TestKinesis(t *testing.T) {
	const worker = `{"version":1,"closed":1796083200000,"written":{"shardId-7":"49","shardId-8":"5"},"alerts":4,"saved_ms":1796083210000,"tally":{"in":100,"late":2,"idle":1,"invalid":5},
		"shards":{"shardId-2":{"after":"10","cut":"12","seen":{"newest":1796083205000,"behind_ms":2500}},"shardId-1":{"after":"3"},"shardId-0":{"ended":true}}}`
	read := func(i items, noted string) (Reading, error) {
		l := func(key string) lease.Lease { return lease.Lease{API: i, Table: "spate-state", Key: key} }
		k := Kinesis{Worker: l("worker"), Alerter: l("alerter"), Stored: func(_ context.Context, shard string) (string, error) {
			if shard != "shardId-7" {
				t.Errorf("asked for shard %s", shard)
			}
			return noted, nil
		}}
		return k.Read(t.Context())
	}
	if _, err := read(nil, ""); err == nil || !strings.Contains(err.Error(), "table spate-state does not exist; create it") {
		t.Errorf("no table: %v", err)
	}
	if r, err := read(items{}, ""); err != nil || r.Begun || r.Lag() != nil || r.Behind() != nil || !r.Of.IsZero() {
		t.Errorf("no worker: %+v, %v", r, err)
	}
	r, err := read(items{"worker": held(worker)}, "")
	if err != nil {
		t.Fatal(err)
	}
	if !r.Begun || r.Events != 100 || r.Late != 3 || r.Invalid != 5 || r.Alerts != 4 || r.Of.UnixMilli() != 1796083210000 || r.Counted.UnixMilli() != 1796083200000 || r.Holder.Name != "w1" || r.Holder.Lease != 4*time.Second {
		t.Errorf("%+v", r)
	}
	if len(r.Partitions) != 2 || r.Partitions[0].Behind != nil || r.Partitions[1].Next != "12" || *r.Partitions[1].Behind != 2.5 || r.Lag() != nil || *r.Behind() != 2.5 {
		t.Errorf("shards: %+v", r.Partitions)
	}
	for name, c := range map[string]struct{ process, function, at string }{
		"no alerter":                     {"", "", ""},
		"the function stores it":         {"", "49", "all"},
		"the function is behind":         {"", "48", "48"},
		"the process stores it":          {`{"shardId-7":{"after":"49"}}`, "", "all"},
		"the process is behind":          {`{"shardId-7":{"after":"47"}}`, "", "47"},
		"the function after the process": {`{"shardId-7":{"after":"47"}}`, "49", "all"},
		"the process is done with it":    {`{"shardId-7":{"after":"40","closed":true}}`, "", "all"},
		"the process does not say":       {`{"shardId-9":{}}`, "", "all"},
	} {
		i := items{"worker": held(worker)}
		if c.process != "" {
			i["alerter"] = held(c.process)
		}
		r, err := read(i, c.function)
		if err != nil || (r.Unstored == "") != (c.at == "all") || r.Unstored != "" && r.Stored != c.at {
			t.Errorf("%s: %q stored up to %q, %v", name, r.Unstored, r.Stored, err)
		}
	}
	for name, i := range map[string]items{"worker": {"worker": held("{")}, "alerter": {"worker": held(worker), "alerter": held("{")}} {
		if _, err := read(i, ""); err == nil {
			t.Errorf("%s: a broken state is read", name)
		}
	}
}
