package kinesis

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	diffs "github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/decision"
	"spate/shared/incident"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
	"spate/shared/store/storetest"
)

func TestBatch(t *testing.T) {
	w := newWorld(t)
	warned, critical := closed("1", 0, 7), closed("2", 0, 23)
	batch := records(t, opened("1", 0), warned, critical, critical)
	for range 2 { // delivered again, it changes nothing
		if res := w.handle(batch); len(res.Failed()) != 0 {
			t.Fatalf("%v", res.Errs)
		}
	}
	got := w.alerts()
	if len(got) != 2 || got[warned.ID].Count != 7 || got[critical.ID].Count != 23 {
		t.Errorf("%+v", got)
	}
	if got[warned.ID].Delivery.State != store.None || got[critical.ID].Delivery.State != store.Delivered {
		t.Errorf("deliveries: %+v, %+v", got[warned.ID].Delivery, got[critical.ID].Delivery)
	}
	if diff := diffs.Diff(map[string]int{opening(critical): 1}, w.topic.count()); diff != "" {
		t.Errorf("published: %s", diff)
	}
}

// TestBadRecordDoesNotStopOthers: it is the first that is reported, and what follows it is done.
func TestBadRecordDoesNotStopOthers(t *testing.T) {
	w := newWorld(t)
	contradiction := closed("1", 0, 8)
	res := w.handle(records(t, closed("1", 0, 7), "{", closed("2", 0, 7), contradiction, closed("1", 1, 7)))
	if diff := diffs.Diff([]int{1, 3}, res.Failed()); diff != "" {
		t.Errorf("failed: %s", diff)
	}
	if i, failed := res.First(); !failed || i != 1 {
		t.Errorf("first: %d, %v", i, failed)
	}
	if !errors.Is(res.Errs[1], ErrMalformed) || !errors.Is(res.Errs[3], store.ErrConflict) || !Permanent(res.Errs[1]) || !Permanent(res.Errs[3]) {
		t.Errorf("%v", res.Errs)
	}
	if got := w.alerts(); len(got) != 3 || got[contradiction.ID].Count != 7 {
		t.Errorf("%+v", got)
	}
}

// TestRowOfFlinkIsOurAlert: whoever finds the alert, it is one item.
func TestRowOfFlinkIsOurAlert(t *testing.T) {
	w := newWorld(t)
	ours := closed("5", 0, 23)
	row := `{"user_id":5,"num_actions_per_watermark":23,"window_start":"2023-11-14T22:13:10","window_end":"2023-11-14T22:13:20"}`
	if res := w.handle(records(t, row, ours, opened("5", 0), row)); len(res.Failed()) != 0 {
		t.Fatalf("%v", res.Errs)
	}
	if got := w.alerts(); len(got) != 1 || got[ours.ID].Count != 23 {
		t.Errorf("%+v", got)
	}
	if diff := diffs.Diff(map[string]int{opening(ours): 1}, w.topic.count()); diff != "" {
		t.Errorf("published: %s", diff)
	}
}

// TestTableFailsForNow: what comes after is not tried, and the next delivery does the rest.
func TestTableFailsForNow(t *testing.T) {
	w := newWorld(t)
	down := true
	w.gate.before = func(key string, _ bool) error {
		if down && strings.Contains(key, "#15#") {
			return &types.ProvisionedThroughputExceededException{}
		}
		return nil
	}
	var data []any
	for user := range 60 {
		data = append(data, closed(fmt.Sprint(user), 0, 23))
	}
	data = append(data, closed("15", 1, 23))
	batch := records(t, data...)
	res := w.handle(batch)
	if i, failed := res.First(); !failed || i != 15 || Permanent(res.Errs[15]) || errors.Is(res.Errs[15], ErrNotTried) {
		t.Fatalf("first: %d, %v, %v", i, failed, res.Errs[15])
	}
	if last := res.Errs[60]; !errors.Is(last, ErrNotTried) {
		t.Errorf("the same user's next record was tried: %v", last)
	}
	done := w.alerts()
	for i := range 60 {
		_, there := done[closed(fmt.Sprint(i), 0, 23).ID]
		if there != (res.Errs[i] == nil) {
			t.Errorf("record %d: %v, and in the table: %v", i, res.Errs[i], there)
		}
	}
	down = false
	i, _ := res.First()
	if res := w.handle(batch[i:]); len(res.Failed()) != 0 {
		t.Fatalf("%v", res.Errs)
	}
	if got := w.alerts(); len(got) != 61 {
		t.Errorf("%d alerts", len(got))
	}
	for id, n := range w.topic.count() {
		if n != 1 {
			t.Errorf("%s: published %d times", id, n)
		}
	}
}

// TestWriteWasDone: the answer of the table is lost, the write was not.
func TestWriteWasDone(t *testing.T) {
	w := newWorld(t)
	failed := false
	w.gate.after = func(_ string, sent bool) error {
		if sent || failed {
			return nil
		}
		failed = true
		return context.DeadlineExceeded
	}
	batch := records(t, closed("1", 0, 23))
	if res := w.handle(batch); len(res.Failed()) != 1 || Permanent(res.Errs[0]) || len(w.topic.count()) != 0 {
		t.Fatalf("%v, published %v", res.Errs, w.topic.count())
	}
	w.checkOneMessage(batch)
}

// checkOneMessage delivers a batch of one alert twice, and holds that it is told of once.
func (w *world) checkOneMessage(batch []Record) {
	w.t.Helper()
	for range 2 {
		if res := w.handle(batch); len(res.Failed()) != 0 {
			w.t.Fatalf("%v", res.Errs)
		}
	}
	want := closed("1", 0, 23)
	if got := w.alerts(); len(got) != 1 || got[want.ID].Delivery.State != store.Delivered {
		w.t.Errorf("%+v", got)
	}
	if diff := diffs.Diff(map[string]int{opening(want): 1}, w.topic.count()); diff != "" {
		w.t.Errorf("published: %s", diff)
	}
}

// TestTopicFailsForNow: the alert stays pending until it is told of.
func TestTopicFailsForNow(t *testing.T) {
	w := newWorld(t)
	down := true
	w.topic.fail = func() error {
		if down {
			return errInjected
		}
		return nil
	}
	batch := records(t, closed("1", 0, 23))
	if res := w.handle(batch); !errors.Is(res.Errs[0], errInjected) || Permanent(res.Errs[0]) {
		t.Fatalf("%v", res.Errs)
	}
	if got := w.alerts()[closed("1", 0, 23).ID]; got.Delivery.State != store.Pending {
		t.Errorf("%+v", got.Delivery)
	}
	down = false
	w.checkOneMessage(batch)
}

// TestPendingIsToldByWhoeverComes: what could not be told is told by whichever record comes next, as it was when it happened, in order.
func TestPendingIsToldByWhoeverComes(t *testing.T) {
	w := newWorld(t)
	w.cfg.MinSeverity = alert.Warning
	w.handler = newHandler(t, w.cfg)
	w.topic.fail = func() error { return errInjected }
	w.handle(records(t, opened("1", 0)))
	w.handle(records(t, closed("1", 0, 23)))
	w.topic.fail = nil
	if res := w.handle(records(t, opened("1", 0), closed("1", 0, 23))); len(res.Failed()) != 0 {
		t.Fatalf("%v", res.Errs)
	}
	if diff := diffs.Diff([]string{opening(opened("1", 0)), escalation(opened("1", 0))}, w.topic.published); diff != "" {
		t.Error(diff)
	}
}

// TestMinSeverity: a warning is not told before it escalates.
func TestMinSeverity(t *testing.T) {
	w := newWorld(t)
	first := opened("1", 0)
	raised := closed("1", 0, 11)
	raised.State = alert.Raised
	w.handle(records(t, first))
	if n := len(w.topic.count()); n != 0 {
		t.Errorf("%d messages", n)
	}
	w.handle(records(t, raised, closed("1", 0, 23), closed("1", 1, 23)))
	if diff := diffs.Diff([]string{escalation(first)}, w.topic.published); diff != "" {
		t.Error(diff)
	}
}

// TestShadow: nobody is told of what a rule in shadow finds.
func TestShadow(t *testing.T) {
	w := newWorld(t)
	r := storetest.Row("cards", []string{"ip"}, `"10.0.0.1"`, 0, alert.Raised)
	r.Mode = alert.Shadow
	if res := w.handle(records(t, r)); len(res.Failed()) != 0 || len(w.topic.count()) != 0 {
		t.Errorf("%v, %v", res.Errs, w.topic.count())
	}
}

// TestSilence: what happens while a silence holds is stored and not told; what goes on after its end is.
func TestSilence(t *testing.T) {
	w := newWorld(t)
	now := noon
	w.cfg.Now = func() time.Time { return now }
	w.handler = newHandler(t, w.cfg)
	s := incident.Silence{ID: "s1", Rule: alert.Burst, From: noon, Until: noon.Add(time.Hour), Author: "ana", Reason: "load test", CreatedAt: noon}
	if err := w.cfg.Table.AddSilence(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	w.handle(records(t, closed("1", 0, 23), closed("2", 0, 23)))
	now = noon.Add(time.Hour)
	w.handle(records(t, closed("1", 1, 7)))
	if diff := diffs.Diff([]string{opening(closed("1", 0, 23))}, w.topic.published); diff != "" {
		t.Error(diff)
	}
}

// TestDecision: a record that changes its alert decides, from its arrival on; one that comes again neither prolongs that nor revives what somebody has ended.
func TestDecision(t *testing.T) {
	w := newWorld(t)
	w.cfg.Now = func() time.Time { return start.Add(time.Minute) }
	w.handler = newHandler(t, w.cfg)
	decided := func() []decision.Written {
		t.Helper()
		list, err := w.cfg.Table.Decisions(t.Context(), time.Time{}, func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	r := opened("1", 0)
	r.Decision = &alert.Decision{Level: "challenge", ForMS: 600_000}
	late := opened("2", 0)
	late.Decision = &alert.Decision{Level: "challenge", ForMS: 1000} // it would have expired by now
	shadow := closed("3", 0, 23)
	shadow.Decision, shadow.Mode = r.Decision, alert.Shadow
	batch := records(t, r, late, shadow)
	for range 2 {
		if res := w.handle(batch); len(res.Failed()) != 0 {
			t.Fatalf("%v", res.Errs)
		}
	}
	got := decided()
	want := decision.Decision{
		Scope: "username", Value: "1", Level: "challenge", Rule: alert.Burst, Since: start, Until: start.Add(10 * time.Minute), Incident: incidentOf(r), Alert: r.ID,
	}
	if len(got) != 1 || got[0].Decision != want || got[0].Ended {
		t.Fatalf("%+v", got)
	}
	next := closed("1", 0, 7)
	next.Decision = r.Decision
	w.handle(records(t, "{", next)) // it arrived a millisecond later
	if got = decided(); len(got) != 2 || !got[1].Since.Equal(start.Add(time.Millisecond)) && !got[0].Since.Equal(start.Add(time.Millisecond)) {
		t.Errorf("%+v", got)
	}
}

// TestCrashBetweenAnySteps stops after each of the steps of a record, and before each, and goes on with another process: the alert counts once, and its message is
// told, twice if it was told already.
func TestCrashBetweenAnySteps(t *testing.T) {
	for _, step := range []string{"before the transaction", "after the transaction", "before the message", "after the message", "before it is noted", "after it is noted"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			w.crashAt(step)
			r := closed("1", 0, 23)
			if res := w.handle(records(t, r)); !errors.Is(res.Errs[0], errInjected) || Permanent(res.Errs[0]) {
				t.Fatalf("%v", res.Errs)
			}
			w.handler = newHandler(t, w.cfg)
			for range 2 {
				if res := w.handle(records(t, r)); len(res.Failed()) != 0 {
					t.Fatalf("%v", res.Errs)
				}
			}
			times := 1
			if step == "after the message" || step == "before it is noted" {
				times = 2
			}
			if diff := diffs.Diff(map[string]int{opening(r): times}, w.topic.count()); diff != "" {
				t.Error(diff)
			}
			got := w.incidents()
			if len(got) != 1 || got[incidentOf(r)].Windows != 1 || got[incidentOf(r)].Events != 23 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestCrashBeforeItIsNoted: a process that published and then stopped leaves the alert pending. The next one repeats the message.
func TestCrashBeforeItIsNoted(t *testing.T) {
	w := newWorld(t)
	stopped := true
	w.gate.before = func(_ string, sent bool) error {
		if stopped && sent {
			return errInjected
		}
		return nil
	}
	batch, id := records(t, closed("1", 0, 23)), closed("1", 0, 23).ID
	message := opening(closed("1", 0, 23))
	if res := w.handle(batch); !errors.Is(res.Errs[0], errInjected) {
		t.Fatalf("%v", res.Errs)
	}
	stopped = false
	for range 2 {
		if res := w.handle(batch); len(res.Failed()) != 0 {
			t.Fatalf("%v", res.Errs)
		}
	}
	if n := w.topic.count()[message]; n != 2 {
		t.Errorf("published %d times, want one repetition", n)
	}
	if got := w.alerts()[id]; got.Delivery.State != store.Delivered {
		t.Errorf("%+v", got.Delivery)
	}
}

// TestNobodyIsTold: without a topic alerts are stored, and none waits to be told of.
func TestNobodyIsTold(t *testing.T) {
	w := newWorld(t)
	w.cfg.Publisher = nil
	w.handler = newHandler(t, w.cfg)
	r := closed("1", 0, 23)
	if res := w.handle(records(t, r)); len(res.Failed()) != 0 {
		t.Fatalf("%v", res.Errs)
	}
	if got := w.alerts()[r.ID]; got.Delivery.State != store.None {
		t.Errorf("%+v", got.Delivery)
	}
}

// TestFaultsAtRandom: calls fail before and after they are made, answers are lost, several handlers have the same batch. In the end each
// alert is there once, with its final count, incidents count each once, and are told of if they are critical, and only then.
func TestFaultsAtRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t)
	faults := func(string, bool) error { // within the gate's lock
		if rng.IntN(6) == 0 {
			return errInjected
		}
		return nil
	}
	w.gate.before, w.gate.after = faults, faults
	topicRNG := rand.New(rand.NewPCG(seed, 1))
	w.topic.fail = func() error {
		if w.topic.lost = topicRNG.IntN(2) == 0; topicRNG.IntN(6) == 0 {
			return errInjected
		}
		return nil
	}
	want := make(map[string]int64)
	var data []any
	for i := range 120 {
		user, window := fmt.Sprint(i%17), i/17
		r := closed(user, window, int64(6+i%10))
		want[r.ID] = r.Count
		data = append(data, opened(user, window), r)
	}
	rng.Shuffle(len(data), reflect.Swapper(data))
	all := records(t, data...)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			batch := all
			for range 10_000 {
				first, failed := w.handler.Handle(context.Background(), batch).First()
				if !failed {
					return
				}
				batch = batch[first:]
			}
			t.Error("it does not end")
		})
	}
	wg.Wait()
	got := make(map[string]int64)
	published := w.topic.count()
	for id, a := range w.alerts() {
		got[id] = a.Count
		if a.State != alert.Closed {
			t.Errorf("%s: %s", id, a.State)
		}
	}
	if diff := diffs.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var events, windows int64
	for id, i := range w.incidents() {
		events, windows = events+i.Events, windows+i.Windows
		told := published[id+"_opened"] + published[id+"_escalated_1"]
		if (told > 0) != (i.Severity == alert.Critical) {
			t.Errorf("%s is %s, and told %d times", id, i.Severity, told)
		}
	}
	for _, n := range want {
		events -= n
	}
	if events != 0 || windows != int64(len(want)) {
		t.Errorf("incidents have %d events too many, and %d windows of %d", events, windows, len(want))
	}
}

// TestOrderOfAUser: a user's records reach the table in their order, whatever others do. Had a closed record come first, its opened one would
// have been a repetition, and the alert would not have moved.
func TestOrderOfAUser(t *testing.T) {
	w := newWorld(t)
	var out bytes.Buffer
	w.cfg.Metrics = &out
	w.handler = newHandler(t, w.cfg)
	var data []any
	for window := range 5 {
		for user := range 40 {
			data = append(data, opened(fmt.Sprint(user), window), closed(fmt.Sprint(user), window, 7))
		}
	}
	if res := w.handle(records(t, data...)); len(res.Failed()) != 0 {
		t.Fatalf("%v", res.Errs)
	}
	if s := out.String(); !strings.Contains(s, `"alerts":200,`) || !strings.Contains(s, `"closed":200,`) || !strings.Contains(s, `"repeated":0,`) {
		t.Error(s)
	}
}

// hanging is a table whose answers come when the caller has given up.
type hanging struct{ dynamodb.API }

func (hanging) GetItem(ctx context.Context, _ *sdk.GetItemInput, _ ...func(*sdk.Options)) (*sdk.GetItemOutput, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestDeadline: a handler tells what it could not do before its time is over, or all of the batch would count as failed.
func TestDeadline(t *testing.T) {
	for _, limit := range []time.Duration{time.Second, 8 * time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			table, err := dynamodb.New(hanging{}, dynamodb.Config{Table: "alerts"})
			if err != nil {
				t.Fatal(err)
			}
			h := newHandler(t, testConfig(t, table, &topic{}))
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			began := time.Now()
			res := h.Handle(ctx, records(t, closed("1", 0, 7), closed("1", 1, 7), closed("2", 0, 7)))
			if ctx.Err() != nil || len(res.Failed()) != 3 {
				t.Errorf("%v: %v, %v", limit, ctx.Err(), res.Errs)
			}
			left := limit - time.Since(began)
			if left < min(margin, limit/10) {
				t.Errorf("%v: %v are left", limit, left)
			}
			for _, err := range res.Errs {
				if Permanent(err) {
					t.Errorf("%v: %v", limit, err)
				}
			}
		})
	}
}

func TestLambda(t *testing.T) {
	w := newWorld(t)
	event := func(batch []Record) (out events.KinesisEvent) {
		for _, r := range batch {
			var er events.KinesisEventRecord
			er.EventID = r.ShardID + ":" + r.SequenceNumber
			er.Kinesis.Data, er.Kinesis.SequenceNumber = r.Data, r.SequenceNumber
			er.Kinesis.ApproximateArrivalTimestamp.Time = r.ArrivedAt
			out.Records = append(out.Records, er)
		}
		return out
	}
	row := `{"user_id":5,"num_actions_per_watermark":23}`
	batch := records(t, closed("1", 0, 7), row, "bad", "worse", closed("2", 0, 7))
	for _, c := range []struct {
		batch []Record
		want  string
	}{
		{batch, `{"batchItemFailures":[{"itemIdentifier":"102"}]}`},
		{batch[:2], `{"batchItemFailures":[]}`},
		{nil, `{"batchItemFailures":[]}`},
	} {
		in, err := json.Marshal(event(c.batch))
		if err != nil {
			t.Fatal(err)
		}
		out, err := Function{Handler: w.handler}.Handle(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(out)
		if err != nil || string(b) != c.want {
			t.Errorf("%s, %v, want %s", b, err, c.want)
		}
	}
	if got := w.alerts(); len(got) != 3 || got[placeID(batch[1].ShardID, batch[1].SequenceNumber)].Count != 23 {
		t.Errorf("%+v", got)
	}
}

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	var out, log bytes.Buffer
	w.cfg.Metrics, w.cfg.Namespace, w.cfg.AlertsMetric = &out, "shop", "ddos"
	w.cfg.Log = slog.New(slog.NewJSONHandler(&log, nil))
	w.handler = newHandler(t, w.cfg)
	w.handle(records(t, opened("1", 0), closed("1", 0, 23), closed("1", 0, 24), closed("1", 0, 23), "{"))
	var got struct {
		AWS struct{ CloudWatchMetrics []json.RawMessage } `json:"_aws"`
		All map[string]any                                `json:"-"`
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%s: %v", out.Bytes(), err)
	}
	if err := json.Unmarshal(out.Bytes(), &got.All); err != nil {
		t.Fatal(err)
	}
	delete(got.All, "_aws")
	want := map[string]any{
		"service": "alerter", "records": 5.0, "ddos": 1.0, "closed": 1.0, "repeated": 1.0, "malformed": 1.0, "conflicts": 1.0,
		"notified": 1.0, "notify_failures": 0.0, "store_errors": 0.0, "not_tried": 0.0, "record_age": []any{float64(noon.Sub(start.Add(4 * time.Millisecond)).Milliseconds())},
	}
	if diff := diffs.Diff(want, got.All); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(out.String(), "user") || strings.Count(out.String(), "\n") != 1 || len(got.AWS.CloudWatchMetrics) != 1 {
		t.Errorf("metrics: %s", out.String())
	}
	if n := strings.Count(log.String(), `"sequence_number":`); n != 2 {
		t.Errorf("%d records in the log: %s", n, log.String())
	}
}

func TestConfigValidate(t *testing.T) {
	_, err := New(Config{Threshold: 0, Critical: -1, Metrics: &bytes.Buffer{}, AlertsMetric: "records"})
	for _, want := range []string{"table: ", "min severity: ", "threshold: ", "critical: ", "window: ", "metrics namespace: ", "alerts metric: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of %s", err, want)
		}
	}
}
