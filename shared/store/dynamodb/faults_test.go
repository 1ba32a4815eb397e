package dynamodb_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/alert"
	"spate/shared/aws/awstest"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
)

// faulty comes between a table and the emulator, and does what the emulator never does.
type faulty struct {
	dynamodb.API
	write func(n int64, do func() (*sdk.TransactWriteItemsOutput, error)) (*sdk.TransactWriteItemsOutput, error)
	get   func(n int64, do func() (*sdk.GetItemOutput, error)) (*sdk.GetItemOutput, error)
	n, g  atomic.Int64
}

func (f *faulty) TransactWriteItems(ctx context.Context, in *sdk.TransactWriteItemsInput, opts ...func(*sdk.Options)) (*sdk.TransactWriteItemsOutput, error) {
	do := func() (*sdk.TransactWriteItemsOutput, error) { return f.API.TransactWriteItems(ctx, in, opts...) }
	if f.write == nil {
		return do()
	}
	return f.write(f.n.Add(1), do)
}

func (f *faulty) GetItem(ctx context.Context, in *sdk.GetItemInput, opts ...func(*sdk.Options)) (*sdk.GetItemOutput, error) {
	do := func() (*sdk.GetItemOutput, error) { return f.API.GetItem(ctx, in, opts...) }
	if f.get == nil {
		return do()
	}
	return f.get(f.g.Add(1), do)
}

func TestLostAnswerIsKnownAgain(t *testing.T) {
	lost := errors.New("connection reset")
	table := newTable(t, dynamodb.Config{}, func(api dynamodb.API) dynamodb.API {
		return &faulty{API: api, write: func(n int64, do func() (*sdk.TransactWriteItemsOutput, error)) (*sdk.TransactWriteItemsOutput, error) {
			out, err := do()
			if n == 1 {
				return nil, lost
			}
			return out, err
		}}
	})
	it := item(t, table, record("1", 0, alert.Closed, 12))
	if _, err := table.Apply(t.Context(), noon, it, topic); !errors.Is(err, lost) || errors.Is(err, store.ErrInvalid) || errors.Is(err, store.ErrConflict) {
		t.Fatalf("%v", err)
	}
	out, err := table.Apply(t.Context(), noon, it, topic)
	if err != nil || out.Made || out.Moved || len(out.Untold) != 1 {
		t.Errorf("%+v, %v", out, err)
	}
}

// TestItemExpiresInBetween: the write finds an item of which the read that asks why finds nothing; DynamoDB has deleted it in between.
func TestItemExpiresInBetween(t *testing.T) {
	table := newTable(t, dynamodb.Config{Retain: time.Hour}, func(api dynamodb.API) dynamodb.API {
		return &faulty{API: api, get: func(n int64, do func() (*sdk.GetItemOutput, error)) (*sdk.GetItemOutput, error) {
			if n == 1 {
				return &sdk.GetItemOutput{}, nil
			}
			return do()
		}}
	})
	r := record("1", 0, alert.Closed, 12)
	apply(t, table, noon, r)
	// An item that has expired and is not deleted yet is still known, so that no message is repeated for it.
	if out := apply(t, table, noon.Add(48*time.Hour), r, topic); out.Made || out.Moved || len(out.Events) > 0 {
		t.Errorf("%+v", out)
	}
}

func canceled(codes ...string) error {
	e := &types.TransactionCanceledException{}
	for _, c := range codes {
		e.CancellationReasons = append(e.CancellationReasons, types.CancellationReason{Code: &c})
	}
	return e
}

// TestOthersComeBetween: a transaction that is canceled because of others is tried again, with what they left, and not for ever.
func TestOthersComeBetween(t *testing.T) {
	for _, code := range []string{"ConditionalCheckFailed", "TransactionConflict"} {
		always := false
		table := newTable(t, dynamodb.Config{}, func(api dynamodb.API) dynamodb.API {
			return &faulty{API: api, write: func(n int64, do func() (*sdk.TransactWriteItemsOutput, error)) (*sdk.TransactWriteItemsOutput, error) {
				if n <= 2 || always {
					return nil, canceled("None", code)
				}
				return do()
			}}
		})
		if out := apply(t, table, noon, record("1", 0, alert.Opened, 6)); !out.Made || len(out.Events) != 1 {
			t.Errorf("%s: %+v", code, out)
		}
		always = true
		_, err := table.Apply(t.Context(), noon, item(t, table, record("1", 0, alert.Closed, 6)))
		if err == nil || errors.Is(err, store.ErrInvalid) || errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: %v", code, err)
		}
	}
}

func TestErrorsAreTranslated(t *testing.T) {
	answer := make(chan error, 1)
	table := newTable(t, dynamodb.Config{}, func(api dynamodb.API) dynamodb.API {
		return &faulty{API: api, write: func(int64, func() (*sdk.TransactWriteItemsOutput, error)) (*sdk.TransactWriteItemsOutput, error) {
			return nil, <-answer
		}}
	})
	for _, c := range []struct {
		err  error
		want error
	}{
		{&types.ProvisionedThroughputExceededException{}, nil},
		{&types.InternalServerError{}, nil},
		{&types.ResourceNotFoundException{}, dynamodb.ErrNoTable},
		{&types.ItemCollectionSizeLimitExceededException{}, store.ErrInvalid},
		{canceled("None", "ThrottlingError"), nil},
		{canceled("ConditionalCheckFailed", "ProvisionedThroughputExceeded"), nil},
		{canceled("None", "ValidationError"), store.ErrInvalid},
		{context.DeadlineExceeded, context.DeadlineExceeded},
	} {
		answer <- c.err
		_, err := table.Apply(t.Context(), noon, item(t, table, record("1", 0, alert.Opened, 6)))
		if err == nil || c.want != nil && !errors.Is(err, c.want) || errors.Is(c.want, store.ErrInvalid) != errors.Is(err, store.ErrInvalid) {
			t.Errorf("%v: %v", c.err, err)
		}
		if !errors.Is(err, c.err) {
			t.Errorf("%v: the cause is not wrapped: %v", c.err, err)
		}
	}
}

// TestWrongTable: a table with other keys is the table's fault and never the alert's, or every alert would be given up.
func TestWrongTable(t *testing.T) {
	c := client(t)
	name := fmt.Sprintf("wrong-%d", names.Add(1))
	if _, err := c.CreateTable(t.Context(), &sdk.CreateTableInput{TableName: &name, BillingMode: types.BillingModePayPerRequest,
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("id"), KeyType: types.KeyTypeHash}},
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("id"), AttributeType: types.ScalarAttributeTypeS}}}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{name: dynamodb.ErrSchema, "not-there": dynamodb.ErrNoTable} {
		table, err := dynamodb.New(c, dynamodb.Config{Table: name})
		if err != nil {
			t.Fatal(err)
		}
		if errors.Is(want, dynamodb.ErrSchema) {
			if err := table.Create(t.Context()); !errors.Is(err, want) { // it waits for the table, too
				t.Errorf("create: %v", err)
			}
		}
		_, err = table.Apply(t.Context(), noon, item(t, table, record("1", 0, alert.Opened, 6)))
		if !errors.Is(err, want) || errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInvalidRecords(t *testing.T) {
	cfg := dynamodb.Config{Table: "alerts"}
	for name, change := range map[string]func(*alert.Record){
		"empty user": func(r *alert.Record) { r.UserID = json.RawMessage(`""`) },
		"no user":    func(r *alert.Record) { r.UserID = nil },
		"long user":  func(r *alert.Record) { r.UserID = json.RawMessage(`"` + strings.Repeat("u", 2048) + `"`) },
		"no window":  func(r *alert.Record) { r.WindowEnd = r.WindowStart },
		"count":      func(r *alert.Record) { r.Count = 0 },
	} {
		r := record("1", 0, alert.Opened, 6)
		change(&r)
		if _, err := cfg.Item(r); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	err := dynamodb.Config{Table: "a b", Retain: -1, Server: strings.Repeat("s", 256)}.Validate()
	for _, want := range []string{"table: ", "retain: ", "server: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of %s", err, want)
		}
	}
	if err := (dynamodb.Config{Table: "ddb-ecommerce-tab-1"}).Validate(); err != nil {
		t.Error(err)
	}
}

// TestTimeToLive: Create turns it on if items expire, once.
func TestTimeToLive(t *testing.T) {
	c := sdk.NewFromConfig(awstest.Config(awstest.Moto(t)))
	name := fmt.Sprintf("expiring-%d", names.Add(1))
	table, err := dynamodb.New(c, dynamodb.Config{Table: name, Retain: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := table.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
		res, err := c.DescribeTimeToLive(t.Context(), &sdk.DescribeTimeToLiveInput{TableName: &name})
		if err != nil || res.TimeToLiveDescription.TimeToLiveStatus != types.TimeToLiveStatusEnabled || *res.TimeToLiveDescription.AttributeName != "expires_at" {
			t.Errorf("%+v, %v", res, err)
		}
	}
}
