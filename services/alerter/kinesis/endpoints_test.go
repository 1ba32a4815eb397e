package kinesis

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spate/services/alerter/deliver"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
)

// receiver is an endpoint that counts what it gets.
type receiver struct {
	mu  sync.Mutex
	got map[string]int
}

func (r *receiver) Check(notify.Message) error { return nil }

func (r *receiver) Notify(_ context.Context, m notify.Message) notify.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got[m.ID]++
	return notify.Result{Outcome: notify.Delivered}
}

// queued counts the deliveries of the ledger by endpoint.
func (w *world) queued() map[string]int {
	w.t.Helper()
	out := map[string]int{}
	for d, err := range w.cfg.Table.ListDeliveries(w.t.Context(), store.DeliveryFilter{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		out[d.Endpoint]++
	}
	return out
}

func (w *world) same(what string, got, want map[string]int) {
	w.t.Helper()
	if !maps.Equal(got, want) {
		w.t.Errorf("%s: %v, not %v", what, got, want)
	}
}

// TestEndpointsWithoutTopic: endpoints are told of incidents from beginning to end, each once, though the stream is read again, and of nothing that is silenced.
func TestEndpointsWithoutTopic(t *testing.T) {
	w := newWorld(t)
	all, alerts := &receiver{got: map[string]int{}}, &receiver{got: map[string]int{}}
	endpoints := []deliver.Endpoint{
		{Endpoint: notify.Endpoint{Name: "all"}, Notifier: all}, {Endpoint: notify.Endpoint{Name: "alerts", Filter: notify.Alerts()}, Notifier: alerts},
	}
	now := time.Now()
	w.cfg.Publisher, w.cfg.Endpoints, w.cfg.Now = nil, deliver.Told(endpoints), func() time.Time { return now }
	w.handler = newHandler(t, w.cfg)
	quiet := incident.Silence{ID: "s", Key: map[string]string{"user_id": "2"}, From: now.Add(-time.Hour), Until: now.Add(time.Hour), Author: "ana", Reason: "test", CreatedAt: now}
	if err := w.cfg.Table.AddSilence(t.Context(), quiet); err != nil {
		t.Fatal(err)
	}
	read := records(t, closed("1", 0, 23), closed("2", 0, 23))
	w.handle(read)
	w.same("queued", w.queued(), map[string]int{"all": 1, "alerts": 2})
	windows := 100
	look(t, w.resolver(&windows, "1", func(string, string) bool { return true }))
	w.same("queued after the end", w.queued(), map[string]int{"all": 2, "alerts": 2})
	w.handle(read) // from the beginning again
	w.same("queued after the stream was read again", w.queued(), map[string]int{"all": 2, "alerts": 2})

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- deliver.Run(ctx, deliver.Config{Store: w.cfg.Table, Endpoints: endpoints, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(), Now: time.Now})
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		states, err := w.cfg.Table.Endpoints(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		left := int64(0)
		for _, s := range states {
			left += s.Pending
		}
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still pending: %+v", states)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	one, two := closed("1", 0, 23), closed("2", 0, 23)
	id := incident.ID(one.Rule, incident.KeyOf(&one), one.WindowStart, one.WindowEnd)
	w.same("all", all.got, map[string]int{id + "_opened": 1, id + "_resolved": 1})
	w.same("alerts", alerts.got, map[string]int{notify.IDOf(one): 1, notify.IDOf(two): 1})
}

// TestTopicFailsEndpointsDoNot: a topic that takes nothing holds up the stream, as ever, but not the messages to endpoints, which are stored once.
func TestTopicFailsEndpointsDoNot(t *testing.T) {
	w := newWorld(t)
	w.cfg.Endpoints = []notify.Endpoint{{Name: "all"}}
	w.handler = newHandler(t, w.cfg)
	w.topic.fail = func() error { return errInjected }
	read := records(t, closed("1", 0, 23))
	for range 3 {
		if r := w.handler.Handle(t.Context(), read); len(r.Failed()) != 1 {
			t.Fatalf("%+v", r)
		}
		w.same("queued", w.queued(), map[string]int{"all": 1, dynamodb.Endpoint: 1})
	}
	w.topic.fail = nil
	w.handle(read)
	if n := len(w.topic.count()); n != 1 {
		t.Errorf("%d messages were published", n)
	}
	w.same("queued", w.queued(), map[string]int{"all": 1, dynamodb.Endpoint: 1})
}

// TestOfAnEndpoint: a test that somebody has added to the table, as the console does, is sent once.
func TestOfAnEndpoint(t *testing.T) {
	w := newWorld(t)
	all := &receiver{got: map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- deliver.Run(ctx, deliver.Config{
			Store: w.cfg.Table, Endpoints: []deliver.Endpoint{{Endpoint: notify.Endpoint{Name: "all"}, Notifier: all}}, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(), Now: time.Now,
		})
	}()
	eventually := func(what string, ok func() bool) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
			if time.Now().After(deadline) {
				t.Fatalf("not within a minute: %s", what)
			}
		}
	}
	var test store.Delivery
	eventually("the alerter has said that it has the endpoint", func() (ok bool) {
		var err error
		if test, err = w.cfg.Table.AddTest(t.Context(), time.Now(), "all"); err != nil && !errors.Is(err, store.ErrNoTest) {
			t.Fatal(err)
		}
		return err == nil
	})
	eventually("the test is delivered", func() bool {
		d, err := w.cfg.Table.Delivery(t.Context(), test.WebhookID, "all")
		if err != nil {
			t.Fatal(err)
		}
		return d.State == store.Delivered
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	w.same("all", all.got, map[string]int{test.WebhookID: 1})
	w.same("queued", w.queued(), map[string]int{"all": 1})
}
