package worker

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamotypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protowire"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/aws/awstest"
	"spate/shared/aws/lease"
	"spate/shared/aws/stream"
	"spate/shared/format"
	"spate/shared/ops"
)

// patience is how long a test waits for what has to come. Nothing is concluded from how long it took.
const patience = 60 * time.Second

// rig is a stream of events with what a worker needs beside it.
type rig struct {
	t       *testing.T
	kinesis *kinesis.Client
	dynamo  *dynamodb.Client

	events, alerts, aside, table string
	log                          *logs
	arrive                       func(shard string, out *kinesis.GetRecordsOutput) // what faults do after a read, if nothing else is said
}

func newRig(t *testing.T, shards int) *rig {
	t.Helper()
	name := fmt.Sprintf("w%d", time.Now().UnixNano())
	r := &rig{
		t: t, kinesis: kinesis.NewFromConfig(awstest.Config(awstest.Kinesis(t))), dynamo: dynamodb.NewFromConfig(awstest.Config(awstest.DynamoDB(t))),
		events: name + "-events", alerts: name + "-alerts", aside: name + "-aside", log: &logs{},
	}
	r.table = awstest.StateTable(t, r.dynamo)
	r.makeStream(r.events, shards)
	r.makeStream(r.alerts, 2)
	r.makeStream(r.aside, 1)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the worker:\n%s", r.log)
		}
	})
	return r
}

func (r *rig) makeStream(name string, shards int) {
	r.t.Helper()
	if _, err := r.kinesis.CreateStream(r.t.Context(), &kinesis.CreateStreamInput{StreamName: aws.String(name), ShardCount: aws.Int32(int32(shards))}); err != nil {
		r.t.Fatal(err)
	}
	r.active(name)
}

func (r *rig) active(name string) {
	r.t.Helper()
	r.eventually("stream "+name+" is active", func() bool {
		out, err := r.kinesis.DescribeStreamSummary(r.t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String(name)})
		return err == nil && out.StreamDescriptionSummary.StreamStatus == types.StreamStatusActive
	})
}

// eventually polls until ok, or fails the test.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

// config of a worker with windows of 4 s, a lateness of 2 s and alerts above 2 events; silence is not looked at. The lease is not lost on a
// machine that is busy: a test in which workers die without giving it back sets a shorter one.
func (r *rig) config() Config {
	return Config{
		Kinesis: r.kinesis,
		Lease:   lease.Lease{API: r.dynamo, Table: r.table, Key: "worker", Owner: "test", Duration: time.Minute, Log: slog.New(slog.NewTextHandler(r.log, nil))},
		Stream:  r.events, AlertsStream: r.alerts, Events: format.Config{Fields: activity.DefaultFields()},
		Window: 4 * time.Second, Lateness: 2 * time.Second, Threshold: 2, Critical: 10,
		Transitions: []alert.State{alert.Opened, alert.Closed},
		Poll:        10 * time.Millisecond, Log: slog.New(slog.NewTextHandler(r.log, nil)), Status: &ops.Status{},
	}
}

// run runs a worker until it ends.
func (r *rig) run(ctx context.Context, cfg Config) error {
	cfg.Registry = prometheus.NewRegistry()
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the worker does not end"))
	defer cancel()
	err := Run(ctx, cfg)
	if err == nil && cfg.Drain && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

// drain runs a worker that reads what is there, closes all windows and ends.
func (r *rig) drain(cfg Config) {
	r.t.Helper()
	cfg.Drain = true
	if err := r.run(r.t.Context(), cfg); err != nil {
		r.t.Fatal(err)
	}
}

// start runs a worker beside the test; stop ends it in good order. It is ended with the test in any case.
func (r *rig) start(cfg Config) (stop func()) {
	cfg.Drain = false
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.run(ctx, cfg) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				r.t.Errorf("worker: %v", err)
			}
		})
	}
	r.t.Cleanup(stop)
	return stop
}

// row is an event to write, or what is none.
type row struct {
	at   int64 // milliseconds from base
	user int
	id   string
	hash float64 // where between the lowest and the highest hash key its shard lies
	raw  []byte  // instead of an event
}

// base is the time of a row at 0.
const base = 1_700_000_000_000

func (e row) data() []byte {
	if e.raw != nil {
		return e.raw
	}
	ev := activity.Event{UserID: fmt.Sprint(e.user), TxnTimestamp: string(activity.AppendTime(nil, base+e.at)), EventID: e.id}
	return ev.AppendJSON(nil)
}

var keys = new(big.Int).Lsh(big.NewInt(1), 128)

func hashKey(part float64) *big.Int {
	out, _ := new(big.Float).Mul(new(big.Float).SetInt(keys), big.NewFloat(part)).Int(nil)
	return out
}

// put writes rows in their order.
func (r *rig) put(rows ...row) {
	r.t.Helper()
	var entries []stream.Entry
	for _, e := range rows {
		entries = append(entries, stream.Entry{Key: "k", HashKey: hashKey(e.hash).String(), Data: e.data()})
	}
	if _, err := (&stream.Producer{API: r.kinesis, Stream: r.events}).Put(r.t.Context(), entries); err != nil {
		r.t.Fatal(err)
	}
}

// split cuts the shard at a place of the hash keys in two, there.
func (r *rig) split(part float64) {
	r.t.Helper()
	key := hashKey(part)
	for _, s := range r.open() {
		if number(s.HashKeyRange.StartingHashKey).Cmp(key) < 0 && number(s.HashKeyRange.EndingHashKey).Cmp(key) >= 0 {
			in := &kinesis.SplitShardInput{StreamName: aws.String(r.events), ShardToSplit: s.ShardId, NewStartingHashKey: aws.String(key.String())}
			if _, err := r.kinesis.SplitShard(r.t.Context(), in); err != nil {
				r.t.Fatal(err)
			}
			r.active(r.events)
			return
		}
	}
	r.t.Fatalf("no open shard has the key at %v", part)
}

// merge makes one of the open shards at i and i+1, by their hash keys.
func (r *rig) merge(i int) {
	r.t.Helper()
	open := r.open()
	in := &kinesis.MergeShardsInput{StreamName: aws.String(r.events), ShardToMerge: open[i].ShardId, AdjacentShardToMerge: open[i+1].ShardId}
	if _, err := r.kinesis.MergeShards(r.t.Context(), in); err != nil {
		r.t.Fatal(err)
	}
	r.active(r.events)
}

func number(s *string) *big.Int {
	n, _ := new(big.Int).SetString(*s, 10)
	return n
}

// open returns the shards that are not closed, by their hash keys.
func (r *rig) open() []types.Shard {
	r.t.Helper()
	out, err := r.kinesis.ListShards(r.t.Context(), &kinesis.ListShardsInput{StreamName: aws.String(r.events)})
	if err != nil {
		r.t.Fatal(err)
	}
	shards := slices.DeleteFunc(out.Shards, func(s types.Shard) bool { return s.SequenceNumberRange.EndingSequenceNumber != nil })
	slices.SortFunc(shards, func(x, y types.Shard) int {
		return number(x.HashKeyRange.StartingHashKey).Cmp(number(y.HashKeyRange.StartingHashKey))
	})
	return shards
}

// read reads all there is of a stream, parents before their children.
func (r *rig) read(name string, each func(s stream.Shard, rec types.Record)) {
	r.t.Helper()
	reader := &stream.Reader{API: r.kinesis, Stream: name, Log: slog.New(slog.DiscardHandler), Interval: time.Millisecond}
	shards, err := reader.Shards(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	slices.SortFunc(shards, func(x, y stream.Shard) int { return strings.Compare(x.ID, y.ID) }) // numbered as they came to be
	done := errors.New("read to the end")
	for _, s := range shards {
		err := reader.Read(r.t.Context(), s.ID, stream.Position{}, func(_ context.Context, f stream.Fetch) error {
			for _, rec := range f.Records {
				each(s, rec)
			}
			if f.AtEnd {
				return done
			}
			return nil
		})
		if err != nil && !errors.Is(err, done) {
			r.t.Fatal(err)
		}
	}
}

// counted are counts by user and window.
type counted map[string]int64

func countKey(user string, startMS int64) string { return fmt.Sprintf("%s@%d", user, startMS-base) }

// closed returns the alerts of windows that are closed. None may have two counts.
func (r *rig) closed() counted {
	r.t.Helper()
	out := counted{}
	for _, a := range r.told() {
		key := countKey(string(a.UserID), a.WindowStart.UnixMilli())
		if a.State != alert.Closed {
			continue
		}
		if n, there := out[key]; there && n != a.Count {
			r.t.Errorf("alert %s has the counts %d and %d", key, n, a.Count)
		}
		out[key] = a.Count
	}
	return out
}

// opened returns the alerts that have opened, with the counts that they had then.
func (r *rig) opened() counted {
	r.t.Helper()
	out := counted{}
	for _, a := range r.told() {
		if a.State == alert.Opened {
			out[countKey(string(a.UserID), a.WindowStart.UnixMilli())] = a.Count
		}
	}
	return out
}

// told returns all that was written to the stream of alerts.
func (r *rig) told() (out []alert.Record) {
	r.t.Helper()
	r.read(r.alerts, func(_ stream.Shard, rec types.Record) {
		a, err := alert.Parse(rec.Data)
		if err != nil {
			r.t.Fatal(err)
		}
		out = append(out, a)
	})
	return out
}

// state returns what the worker has saved, and false before it has.
func (r *rig) state() (st state, ok bool) {
	r.t.Helper()
	out, err := r.dynamo.GetItem(context.Background(), &dynamodb.GetItemInput{
		TableName: aws.String(r.table), ConsistentRead: aws.Bool(true), Key: map[string]dynamotypes.AttributeValue{"pk": &dynamotypes.AttributeValueMemberS{Value: "worker"}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	b, ok := out.Item["state"].(*dynamotypes.AttributeValueMemberB)
	if !ok {
		return state{}, false
	}
	if err := json.Unmarshal(b.Value, &st); err != nil {
		r.t.Fatal(err)
	}
	return st, true
}

// expire makes the lease free, as it is when nobody has renewed it for its duration.
func (r *rig) expire() {
	r.t.Helper()
	_, err := r.dynamo.UpdateItem(r.t.Context(), &dynamodb.UpdateItemInput{
		TableName: aws.String(r.table), Key: map[string]dynamotypes.AttributeValue{"pk": &dynamotypes.AttributeValueMemberS{Value: "worker"}},
		UpdateExpression: aws.String("SET released = :yes"), ExpressionAttributeValues: map[string]dynamotypes.AttributeValue{":yes": &dynamotypes.AttributeValueMemberBOOL{Value: true}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// faults stands between a worker and the real clients, and does what emulators never do. A hook that is nil does nothing; an error of one
// named before keeps the call from being made, of one named after takes its answer away.
type faults struct {
	*kinesis.Client
	dynamo *dynamodb.Client

	limit       int32 // records a call of GetRecords, if not 0
	beforeRead  func(ctx context.Context, shard string) error
	afterRead   func(shard string, out *kinesis.GetRecordsOutput)
	beforeOpen  func(in *kinesis.GetShardIteratorInput) error
	beforeWrite func(ctx context.Context, what string) error // the name of a stream, save, beat or take
	afterWrite  func(what string) error

	shards sync.Map // by iterator
}

func (r *rig) faults(cfg *Config) *faults {
	f := &faults{Client: r.kinesis, dynamo: r.dynamo, afterRead: r.arrive}
	cfg.Kinesis, cfg.Lease.API = f, f
	return f
}

func (f *faults) GetShardIterator(ctx context.Context, in *kinesis.GetShardIteratorInput, opts ...func(*kinesis.Options)) (*kinesis.GetShardIteratorOutput, error) {
	if f.beforeOpen != nil {
		if err := f.beforeOpen(in); err != nil {
			return nil, err
		}
	}
	out, err := f.Client.GetShardIterator(ctx, in, opts...)
	if err == nil {
		f.shards.Store(*out.ShardIterator, *in.ShardId)
	}
	return out, err
}

func (f *faults) GetRecords(ctx context.Context, in *kinesis.GetRecordsInput, opts ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error) {
	at, _ := f.shards.LoadAndDelete(*in.ShardIterator)
	shard, _ := at.(string)
	if f.beforeRead != nil {
		if err := f.beforeRead(ctx, shard); err != nil {
			f.shards.Store(*in.ShardIterator, shard)
			return nil, err
		}
	}
	if f.limit > 0 {
		in.Limit = aws.Int32(f.limit)
	}
	out, err := f.Client.GetRecords(ctx, in, opts...)
	if err != nil {
		f.shards.Store(*in.ShardIterator, shard)
		return nil, err
	}
	if out.NextShardIterator != nil {
		f.shards.Store(*out.NextShardIterator, shard)
	}
	if f.afterRead != nil {
		f.afterRead(shard, out)
	}
	return out, nil
}

func (f *faults) PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, opts ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	return write(ctx, f, *in.StreamName, func() (*kinesis.PutRecordsOutput, error) { return f.Client.PutRecords(ctx, in, opts...) })
}

func (f *faults) GetItem(ctx context.Context, in *dynamodb.GetItemInput, opts ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	return f.dynamo.GetItem(ctx, in, opts...)
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
	return write(ctx, f, what, func() (*dynamodb.UpdateItemOutput, error) { return f.dynamo.UpdateItem(ctx, in, opts...) })
}

func write[T any](ctx context.Context, f *faults, what string, call func() (*T, error)) (*T, error) {
	if f.beforeWrite != nil {
		if err := f.beforeWrite(ctx, what); err != nil {
			return nil, err
		}
	}
	out, err := call()
	if err == nil && f.afterWrite != nil {
		if err = f.afterWrite(what); err != nil {
			return nil, err
		}
	}
	return out, err
}

// gate is closed until it is opened; whoever comes waits.
type gate struct {
	once sync.Once
	c    chan struct{}
}

func newGate() *gate { return &gate{c: make(chan struct{})} }

func (g *gate) open() { g.once.Do(func() { close(g.c) }) }

func (g *gate) wait(ctx context.Context) error {
	select {
	case <-g.c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// clock is the time of now, and what it was set forward by.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// failure is an answer of AWS.
func failure(code string) error { return &smithy.GenericAPIError{Code: code, Message: "for the test"} }

// logs keeps what a worker logs.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logs) has(text string) bool { return strings.Contains(l.String(), text) }

// forget deletes the lease and the state.
func (r *rig) forget() {
	r.t.Helper()
	_, err := r.dynamo.DeleteItem(r.t.Context(), &dynamodb.DeleteItemInput{
		TableName: aws.String(r.table), Key: map[string]dynamotypes.AttributeValue{"pk": &dynamotypes.AttributeValueMemberS{Value: "worker"}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// aggregate packs data into one record as the Kinesis Producer Library does.
func aggregate(data ...[]byte) []byte {
	var body []byte
	body = protowire.AppendTag(body, 1, protowire.BytesType)
	body = protowire.AppendString(body, "key")
	for _, d := range data {
		var rec []byte
		rec = protowire.AppendTag(rec, 1, protowire.VarintType)
		rec = protowire.AppendVarint(rec, 0)
		rec = protowire.AppendTag(rec, 3, protowire.BytesType)
		rec = protowire.AppendBytes(rec, d)
		body = protowire.AppendTag(body, 3, protowire.BytesType)
		body = protowire.AppendBytes(body, rec)
	}
	return seal(body)
}

// seal makes a record of an aggregate's body.
func seal(body []byte) []byte {
	sum := md5.Sum(body)
	return slices.Concat([]byte{0xf3, 0x89, 0x9a, 0xc2}, body, sum[:])
}
