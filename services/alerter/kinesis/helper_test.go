package kinesis

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	snssdk "github.com/aws/aws-sdk-go-v2/service/sns"

	"spate/shared/alert"
	"spate/shared/aws/awstest"
	"spate/shared/incident"
	"spate/shared/notify/sns"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
)

var (
	start  = time.Date(2023, 11, 14, 22, 13, 10, 0, time.UTC)
	noon   = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	tables atomic.Int64

	errInjected = errors.New("injected")
)

// gate comes between the table and the emulator. before and after, if not nil, may fail a write before it is made or after it was; they see
// the partition key of the alert or incident, and whether the call notes that a message was sent.
type gate struct {
	dynamodb.API
	mu            sync.Mutex
	before, after func(key string, sent bool) error
	forget        func() error // before an incident is taken out of the index
}

func (g *gate) DeleteItem(ctx context.Context, in *sdk.DeleteItemInput, opts ...func(*sdk.Options)) (*sdk.DeleteItemOutput, error) {
	if g.forget != nil {
		if err := g.forget(); err != nil {
			return nil, err
		}
	}
	return g.API.DeleteItem(ctx, in, opts...)
}

func (g *gate) UpdateItem(ctx context.Context, in *sdk.UpdateItemInput, opts ...func(*sdk.Options)) (*sdk.UpdateItemOutput, error) {
	key := in.Key["ddb_partition_key"].(*types.AttributeValueMemberS).Value
	if err := g.ask(g.before, key, true); err != nil {
		return nil, err
	}
	out, err := g.API.UpdateItem(ctx, in, opts...)
	if err != nil {
		return nil, err
	}
	return out, g.ask(g.after, key, true)
}

func (g *gate) TransactWriteItems(ctx context.Context, in *sdk.TransactWriteItemsInput, opts ...func(*sdk.Options)) (*sdk.TransactWriteItemsOutput, error) {
	key := in.TransactItems[0].Update.Key["ddb_partition_key"].(*types.AttributeValueMemberS).Value
	if err := g.ask(g.before, key, false); err != nil {
		return nil, err
	}
	out, err := g.API.TransactWriteItems(ctx, in, opts...)
	if err != nil {
		return nil, err
	}
	return out, g.ask(g.after, key, false)
}

func (g *gate) ask(f func(string, bool) error, key string, sent bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(key, sent)
}

// topic stands for SNS: it keeps what is published, and fails where fail says so, before it has taken the message or after.
type topic struct {
	mu        sync.Mutex
	fail      func() error
	lost      bool // the failing call is taken, and only its answer is lost
	published []string
}

func (p *topic) Publish(_ context.Context, in *snssdk.PublishInput, _ ...func(*snssdk.Options)) (*snssdk.PublishOutput, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	if p.fail != nil {
		err = p.fail()
	}
	if err == nil || p.lost {
		p.published = append(p.published, *in.MessageAttributes["id"].StringValue)
	}
	return &snssdk.PublishOutput{}, err
}

// count returns how often each message was published.
func (p *topic) count() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[string]int)
	for _, id := range p.published {
		out[id]++
	}
	return out
}

// world is a handler with what is around it.
type world struct {
	t       *testing.T
	gate    *gate
	topic   *topic
	cfg     Config
	handler *Handler
}

func newWorld(t *testing.T) *world {
	t.Helper()
	api := sdk.NewFromConfig(awstest.Config(awstest.DynamoDB(t)), func(o *sdk.Options) { o.Retryer = awstest.Retryer() })
	w := &world{t: t, gate: &gate{API: api}, topic: &topic{}}
	table, err := dynamodb.New(w.gate, dynamodb.Config{Table: fmt.Sprintf("alerts-%d", tables.Add(1))})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.cfg = testConfig(t, table, w.topic)
	w.handler = newHandler(t, w.cfg)
	return w
}

func testConfig(t *testing.T, table *dynamodb.Table, api sns.API) Config {
	t.Helper()
	publisher, err := sns.New(api, "arn:aws:sns:us-east-1:123456789012:alerts")
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Table: table, Publisher: publisher, MinSeverity: alert.Critical, Threshold: 5, Critical: 10, Window: 10 * time.Second,
		Metrics: io.Discard, Namespace: "test", AlertsMetric: "alerts", Now: func() time.Time { return noon },
	}
}

func newHandler(t *testing.T, cfg Config) *Handler {
	t.Helper()
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (w *world) handle(records []Record) Result {
	w.t.Helper()
	return w.handler.Handle(w.t.Context(), records)
}

// alerts returns all alerts of the table by id.
func (w *world) alerts() map[string]store.Alert {
	w.t.Helper()
	out := make(map[string]store.Alert)
	for a, err := range w.cfg.Table.Alerts(w.t.Context(), store.Filter{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		out[a.ID] = a
	}
	return out
}

// incidents returns all incidents of the table by id.
func (w *world) incidents() map[string]incident.Incident {
	w.t.Helper()
	out := make(map[string]incident.Incident)
	for i, err := range w.cfg.Table.Incidents(w.t.Context(), store.IncidentFilter{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		out[i.ID] = i
	}
	return out
}

func closed(user string, window int, count int64) alert.Record {
	at := start.Add(time.Duration(window) * 10 * time.Second)
	return alert.Record{
		ID: alert.ID(alert.Burst, user, at.UnixMilli(), 10_000), Rule: alert.Burst, State: alert.Closed, Severity: alert.SeverityOf(count, 10),
		UserID: json.RawMessage(user), Count: count, Threshold: 5, WindowStart: at, WindowEnd: at.Add(10 * time.Second),
		FirstEventAt: at.Add(time.Millisecond), LastEventAt: at.Add(time.Second),
		Evidence: alert.Evidence{Stream: "raw", Shards: map[string]alert.SequenceRange{"shardId-000000000000": {First: "1", Last: "2"}}},
	}
}

func opened(user string, window int) alert.Record {
	r := closed(user, window, 6)
	r.State = alert.Opened
	return r
}

// opening, escalation and resolution are the ids of the messages about the incident that an alert opens.
func opening(r alert.Record) string    { return incidentOf(r) + "_opened" }
func escalation(r alert.Record) string { return incidentOf(r) + "_escalated_1" }
func resolution(r alert.Record) string { return incidentOf(r) + "_resolved" }

func incidentOf(r alert.Record) string {
	return incident.ID(r.Rule, incident.KeyOf(&r), r.WindowStart, r.WindowEnd)
}

// records makes records of the stream: alerts, or texts as they are.
func records(t *testing.T, data ...any) []Record {
	t.Helper()
	out := make([]Record, len(data))
	for i, d := range data {
		out[i] = Record{ShardID: "shardId-000000000001", SequenceNumber: strconv.Itoa(100 + i), ArrivedAt: start.Add(time.Duration(i) * time.Millisecond)}
		switch d := d.(type) {
		case string:
			out[i].Data = []byte(d)
		case alert.Record:
			b, err := d.Encode()
			if err != nil {
				t.Fatal(err)
			}
			out[i].Data = b
		}
	}
	return out
}

// crashAt stops the process at a step, once.
func (w *world) crashAt(step string) {
	stopped := false
	crash := func(at string) error {
		if at != step || stopped {
			return nil
		}
		stopped = true
		return errInjected
	}
	name := func(noted bool) string {
		if noted {
			return "it is noted"
		}
		return "the transaction"
	}
	w.gate.before = func(_ string, noted bool) error { return crash("before " + name(noted)) }
	w.gate.after = func(_ string, noted bool) error { return crash("after " + name(noted)) }
	w.gate.forget = func() error { return crash("before it is forgotten") }
	w.topic.lost = step == "after the message"
	w.topic.fail = func() error { return cmp.Or(crash("before the message"), crash("after the message")) }
}
