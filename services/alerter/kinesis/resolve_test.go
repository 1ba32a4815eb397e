package kinesis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	kinesissdk "github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	diffs "github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/aws/horizon"
	"spate/shared/aws/stream"
	"spate/shared/incident"
)

// worked is a resolver for which the worker has written everything up to so many windows from start, and the last alert of a shard at a sequence number.
func (w *world) resolver(windows *int, last string, stored func(shard, last string) bool) *Resolver {
	return &Resolver{
		Handler: w.handler,
		State: func(context.Context) ([]byte, error) {
			at := start.Add(time.Duration(*windows) * 10 * time.Second).UnixMilli()
			return json.Marshal(horizon.Horizon{Closed: at - 1, Written: map[string]string{"a": last}})
		},
		Stored: func(_ context.Context, shard, last string) (bool, error) { return stored(shard, last), nil },
	}
}

// look fails the test on an error.
func look(t *testing.T, r *Resolver) int {
	t.Helper()
	n, err := r.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestResolve: an incident ends when event time has passed all that could belong to it, and the alerts up to there are stored, and not before.
func TestResolve(t *testing.T) {
	w := newWorld(t)
	r := closed("1", 0, 23)
	w.handle(records(t, r, closed("2", 5, 23)))
	windows, stored := 7, false
	res := w.resolver(&windows, "17", func(shard, last string) bool { return stored && shard == "a" && last == "17" })
	if n := look(t, res); n != 0 {
		t.Errorf("%d ended before their alerts are stored", n)
	}
	stored = true
	if n := look(t, res); n != 0 {
		t.Errorf("%d ended that are not over", n)
	}
	windows = 8 // its window, six of quiet, and the one that could begin then
	if n := look(t, res); n != 1 {
		t.Errorf("%d ended", n)
	}
	for range 2 {
		if n := look(t, res); n != 0 {
			t.Errorf("%d ended again", n)
		}
	}
	if diff := diffs.Diff(map[string]int{opening(r): 1, resolution(r): 1, opening(closed("2", 5, 23)): 1}, w.topic.count()); diff != "" {
		t.Error(diff)
	}
	got := w.incidents()
	if i := got[incidentOf(r)]; i.State != incident.StateResolved || !i.ResolvedAt.Equal(noon) {
		t.Errorf("%+v", i)
	}
	if i := got[incidentOf(closed("2", 5, 23))]; i.State != incident.StateOpen {
		t.Errorf("%+v", i)
	}
}

// TestResolveWithoutHorizon: without a worker, or with one of before, incidents stay open.
func TestResolveWithoutHorizon(t *testing.T) {
	w := newWorld(t)
	w.handle(records(t, closed("1", 0, 23)))
	for _, state := range []string{"", `{"version":1,"closed":9000000000000,"pending":1}`} {
		res := &Resolver{Handler: w.handler, State: func(context.Context) ([]byte, error) { return []byte(state), nil }}
		if n := look(t, res); n != 0 {
			t.Errorf("%s: %d ended", state, n)
		}
	}
	res := &Resolver{Handler: w.handler, State: func(context.Context) ([]byte, error) { return nil, errInjected }}
	if _, err := res.Look(t.Context()); !errors.Is(err, errInjected) {
		t.Errorf("%v", err)
	}
}

// TestTimeGoesBack: event time has walked on while the input was silent, and then there are events that are older. Their incident ends when it is over, without a restart.
func TestTimeGoesBack(t *testing.T) {
	w := newWorld(t)
	windows := 100
	res := w.resolver(&windows, "1", func(string, string) bool { return true })
	look(t, res)
	r := closed("1", 20, 23)
	w.handle(records(t, r))
	windows = 27
	if n := look(t, res); n != 0 {
		t.Errorf("%d ended that are not over", n)
	}
	windows = 28
	if n := look(t, res); n != 1 {
		t.Errorf("%d ended", n)
	}
}

// TestTopicIsTakenAway: what was to be told when there was a topic waits for one, and keeps nothing from its end.
func TestTopicIsTakenAway(t *testing.T) {
	w := newWorld(t)
	w.topic.fail = func() error { return errInjected }
	w.handle(records(t, closed("1", 0, 23)))
	cfg := w.cfg
	cfg.Publisher = nil
	windows := 100
	all := func(string, string) bool { return true }
	without := w.resolver(&windows, "1", all)
	without.Handler = newHandler(t, cfg)
	if n := look(t, without); n != 1 {
		t.Errorf("%d ended", n)
	}
	w.topic.fail = nil
	look(t, w.resolver(&windows, "1", all))
	if diff := diffs.Diff(map[string]int{opening(closed("1", 0, 23)): 1}, w.topic.count()); diff != "" {
		t.Error(diff)
	}
}

// TestEndsThatNobodyHears: who was not told of an incident is not told of its end.
func TestEndsThatNobodyHears(t *testing.T) {
	w := newWorld(t)
	warned := closed("1", 0, 7)
	shadow := closed("2", 0, 23)
	shadow.Mode = alert.Shadow
	w.handle(records(t, warned, shadow))
	windows := 100
	if n := look(t, w.resolver(&windows, "1", func(string, string) bool { return true })); n != 2 || len(w.topic.count()) != 0 {
		t.Errorf("%d ended, published %v", n, w.topic.count())
	}
}

// TestCrashWhileResolving stops before and after each step of an end, and goes on with another process.
func TestCrashWhileResolving(t *testing.T) {
	for _, step := range []string{"before the transaction", "after the transaction", "before the message", "after the message", "before it is noted", "after it is noted", "before it is forgotten"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			r := closed("1", 0, 23)
			w.handle(records(t, r))
			w.crashAt(step)
			windows, all := 100, func(string, string) bool { return true }
			if _, err := w.resolver(&windows, "1", all).Look(t.Context()); !errors.Is(err, errInjected) {
				t.Fatalf("%v", err)
			}
			next := w.resolver(&windows, "1", all)
			look(t, next)
			if open, err := w.cfg.Table.Open(t.Context(), time.Time{}); open || err != nil {
				t.Errorf("still in the index: %v, %v", open, err)
			}
			times := 1
			if step == "after the message" || step == "before it is noted" {
				times = 2
			}
			if diff := diffs.Diff(map[string]int{opening(r): 1, resolution(r): times}, w.topic.count()); diff != "" {
				t.Error(diff)
			}
			if i := w.incidents()[incidentOf(r)]; i.State != incident.StateResolved {
				t.Errorf("%+v", i)
			}
		})
	}
}

// TestTwoResolveAndStoreAtOnce: two alerters end what is over, and two more store what goes on. No incident takes a window after its end, and none loses one.
func TestTwoResolveAndStoreAtOnce(t *testing.T) {
	w := newWorld(t)
	windows := 0
	var mu sync.Mutex
	state := func(context.Context) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		return json.Marshal(horizon.Horizon{Closed: start.Add(time.Duration(windows)*10*time.Second).UnixMilli() - 1, Written: map[string]string{}})
	}
	const users, last = 4, 40
	var data []any
	var events int64
	for window := range last {
		for user := range users {
			if (window/3+user)%4 == 0 || window%9 == user { // runs, with gaps that are longer than quiet and such that are not
				data = append(data, closed(fmt.Sprint(user), window, 23))
				events += 23
			}
		}
	}
	batch := records(t, data...)
	var wg sync.WaitGroup
	stored := make([]int, 2)
	for n := range 2 {
		wg.Go(func() {
			for i := range batch {
				if res := w.handle(batch[i : i+1]); res.Errs[0] != nil {
					t.Error(res.Errs[0])
				}
				mu.Lock()
				stored[n] = i + 1
				if done := min(stored[0], stored[1]); done == len(batch) { // all before that are stored
					windows = last + 100
				} else {
					windows = max(windows, int(data[done].(alert.Record).WindowStart.Sub(start)/(10*time.Second)))
				}
				mu.Unlock()
			}
		})
	}
	done := make(chan struct{})
	var ends sync.WaitGroup
	for range 2 {
		ends.Go(func() {
			r := &Resolver{Handler: w.handler, State: state, Stored: func(context.Context, string, string) (bool, error) { return true, nil }}
			for {
				if _, err := r.Look(context.Background()); err != nil {
					t.Error(err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	wg.Wait()
	close(done)
	ends.Wait()
	look(t, &Resolver{Handler: w.handler, State: state, Stored: func(context.Context, string, string) (bool, error) { return true, nil }})
	published := w.topic.count()
	for id, i := range w.incidents() {
		events -= i.Events
		if i.State != incident.StateResolved || published[id+"_opened"] == 0 || published[id+"_resolved"] == 0 {
			t.Errorf("%+v, told %d and %d times", i, published[id+"_opened"], published[id+"_resolved"])
		}
	}
	if events != 0 {
		t.Errorf("%d events are missing", events)
	}
	// They are those that one alerter makes of the same, with nobody beside it.
	plain := newWorld(t)
	plain.handle(batch)
	want, got := plain.incidents(), w.incidents()
	for id, i := range want {
		if g := got[id]; g.Windows != i.Windows || g.Events != i.Events || !g.LastWindowEnd.Equal(i.LastWindowEnd) {
			t.Errorf("%+v, want %+v", g, i)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d incidents, want %d", len(got), len(want))
	}
}

// listing is a stream with shards.
type listing struct {
	stream.GetAPI
	shards []types.Shard
}

func (l listing) ListShards(context.Context, *kinesissdk.ListShardsInput, ...func(*kinesissdk.Options)) (*kinesissdk.ListShardsOutput, error) {
	return &kinesissdk.ListShardsOutput{Shards: l.shards}, nil
}

func shard(id, parent string) types.Shard {
	s := types.Shard{ShardId: &id, SequenceNumberRange: &types.SequenceNumberRange{StartingSequenceNumber: &id}}
	if parent != "" {
		s.ParentShardId = &parent
	}
	return s
}

// TestSchedule: a function notes how far it has stored what came, and ends incidents by that when a schedule calls it.
func TestSchedule(t *testing.T) {
	w := newWorld(t)
	reader := &stream.Reader{API: listing{shards: []types.Shard{shard("shardId-000000000001", ""), shard("shardId-000000000002", "shardId-000000000001")}}, Stream: "alerts", Log: slog.New(slog.DiscardHandler)}
	function := func() Function { // as it starts anew
		notes := &Notes{Table: w.cfg.Table, Reader: reader}
		return Function{Handler: w.handler, Notes: notes, Resolver: &Resolver{Handler: w.handler, Stored: notes.Stored, State: func(context.Context) ([]byte, error) {
			return json.Marshal(horizon.Horizon{Closed: start.Add(time.Hour).UnixMilli(), Written: map[string]string{"shardId-000000000001": "102", "shardId-000000000000": "7"}})
		}}}
	}
	call := func(f Function, event any) string {
		t.Helper()
		in, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		out, err := f.Handle(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	event := func(batch []Record) (out events.KinesisEvent) {
		for _, r := range batch {
			var er events.KinesisEventRecord
			er.EventID, er.Kinesis.Data, er.Kinesis.SequenceNumber = r.ShardID+":"+r.SequenceNumber, r.Data, r.SequenceNumber
			er.Kinesis.ApproximateArrivalTimestamp.Time = r.ArrivedAt
			out.Records = append(out.Records, er)
		}
		return out
	}
	schedule := map[string]any{"version": "0", "source": "aws.events", "detail-type": "Scheduled Event", "detail": map[string]any{}}
	batch := records(t, closed("1", 0, 23), closed("1", 1, 23), closed("2", 0, 23))
	call(function(), event(batch[:2]))
	if got := call(function(), schedule); got != `{"resolved":0}` {
		t.Errorf("before the last alert is stored: %s", got)
	}
	w.gate.before = func(key string, _ bool) error {
		if key == "alerter#alerts#shardId-000000000001#appserver#app-server-tomcat-123" {
			return errInjected
		}
		return nil
	}
	if got := call(function(), event(batch[2:])); got != `{"batchItemFailures":[{"itemIdentifier":"102"}]}` {
		t.Errorf("what is not noted has to come again: %s", got)
	}
	w.gate.before = nil
	call(function(), event(batch[2:]))
	call(function(), event(batch[:1])) // a batch that comes again takes nothing back
	if got := call(function(), schedule); got != `{"resolved":2}` {
		t.Errorf("%s", got)
	}
	if got := call(Function{Handler: w.handler}, schedule); got != `{"resolved":0}` {
		t.Errorf("without a resolver: %s", got)
	}
}

// TestConsumerStored: what a process knows of its shards.
func TestConsumerStored(t *testing.T) {
	reader := &stream.Reader{API: listing{shards: []types.Shard{shard("old", ""), shard("half", "old"), shard("done", ""), shard("new", "half"), shard("newer", "new")}}, Stream: "alerts", Log: slog.New(slog.DiscardHandler)}
	c := &consumer{cfg: ConsumerConfig{Reader: reader}, places: map[string]*place{
		"half": {Position: stream.Position{After: "100"}}, "drained": {Position: stream.Position{After: "5"}, Closed: true}, "waits": {Waits: true},
	}}
	for _, x := range []struct {
		shard, last string
		want        bool
	}{
		{"half", "99", true}, {"half", "100", true}, {"half", "101", false}, {"half", "1000", false}, {"drained", "9", true}, {"waits", "1", false},
		{"old", "1", true}, {"done", "1", true}, // forgotten
		{"new", "1", false}, {"newer", "1", false}, // not begun
		{"gone", "1", true}, // the stream does not keep it
	} {
		if got, err := c.stored(t.Context(), x.shard, x.last); err != nil || got != x.want {
			t.Errorf("%s up to %s: %v, %v", x.shard, x.last, got, err)
		}
	}
}
