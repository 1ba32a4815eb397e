package alerter

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"spate/services/alerter/deliver"
	"spate/shared/notify"
	"spate/shared/store"
)

// receiver is an endpoint that takes everything.
type receiver struct {
	mu   sync.Mutex
	list []notify.Message
}

func (r *receiver) Check(notify.Message) error { return nil }

func (r *receiver) Notify(_ context.Context, m notify.Message) notify.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, m)
	return notify.Result{Outcome: notify.Delivered}
}

func (r *receiver) got() []notify.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list
}

func (r *receiver) endpoint() deliver.Endpoint {
	return deliver.Endpoint{Endpoint: notify.Endpoint{Name: "ops", Filter: notify.Alerts()}, Notifier: r}
}

// TestAlertsAreTold runs the whole alerter: topic to store to endpoint, twice over the same topic.
func TestAlertsAreTold(t *testing.T) {
	b := newBed(t)
	b.topics()
	var r receiver
	b.produce(0, pair("5", 0)...)
	b.produce(1, pair(`"<a&b>"`, 1)...)
	told := func(c *Config) { c.Endpoints = []deliver.Endpoint{r.endpoint()} }
	l := b.start(told)
	delivered := func() (n int) {
		for d, err := range b.store.ListDeliveries(t.Context(), store.DeliveryFilter{States: []store.DeliveryState{store.Delivered}}) {
			if err != nil {
				t.Fatal(d, err)
			}
			n++
		}
		return n
	}
	l.wait("four messages", func() bool { return len(r.got()) == 4 && delivered() == 4 })
	for _, m := range r.got() {
		id, transition, ok := strings.Cut(m.ID, "_")
		if !ok || m.Type != "alert."+transition || !strings.Contains(string(m.Data), `"id":"`+id+`"`) {
			t.Errorf("%+v", m)
		}
	}
	l.stop()
	// From the beginning again: nothing is new.
	b.names.AlerterGroup += "-again"
	l = b.start(told)
	l.wait("all read", func() bool { return b.committed() == 4 })
	l.stop()
	if got := b.count(); got.Total() != 2 || delivered() != 4 || len(r.got()) != 4 {
		t.Errorf("%+v alerts, %d delivered, %d messages", got, delivered(), len(r.got()))
	}
}

func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(d)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", d, what)
		}
		<-tick.C
	}
}
