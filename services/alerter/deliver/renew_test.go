package deliver

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/store/storetest"
)

// forgetting is an endpoint that has to hear again and again of what is open.
type forgetting struct {
	notifier
	renew func(ms []notify.Message) notify.Result
}

func (f forgetting) Renew(_ context.Context, ms []notify.Message) notify.Result { return f.renew(ms) }

// TestRenew: what is open, and was told, is told again every minute; what has ended since is told once more; an endpoint that was away hears of it in the
// next round.
func TestRenew(t *testing.T) {
	if testing.Short() {
		t.Skip("minutes in a bubble, in which the queue is polled: slow with the race detector; -short is set")
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var rounds [][]string
		away := false
		e := Endpoint{Endpoint: notify.Endpoint{Name: "am", Filter: notify.Filter{MinSeverity: alert.Critical}}, Notifier: forgetting{
			notifier: func(notify.Message) notify.Result { return notify.Result{Outcome: notify.Delivered} },
			renew: func(ms []notify.Message) notify.Result {
				mu.Lock()
				defer mu.Unlock()
				if away {
					return notify.Result{Outcome: notify.Failed, Reason: "away"}
				}
				var ids []string
				for _, m := range ms {
					ids = append(ids, m.ID)
				}
				slices.Sort(ids)
				rounds = append(rounds, ids)
				return notify.Result{Outcome: notify.Delivered}
			},
		}}
		got := func() [][]string {
			mu.Lock()
			defer mu.Unlock()
			out := rounds
			rounds = nil
			return out
		}
		s := newStore(t)
		_, stop := deliver(t, s, io.Discard, e)
		id := func(user string) string {
			r := storetest.Record(user, 0, alert.Opened)
			return incident.ID(r.Rule, incident.KeyOf(&r), r.WindowStart, r.WindowEnd)
		}
		apply := func(r alert.Record) {
			t.Helper()
			if _, err := s.Apply(t.Context(), time.Now(), []alert.Record{r}, e.Endpoint); err != nil {
				t.Fatal(err)
			}
		}
		silence := incident.Silence{ID: "s1", Key: map[string]string{"user_id": "9"}, From: time.Now(), Until: time.Now().Add(time.Hour), Author: "a", Reason: "b", CreatedAt: time.Now()}
		if err := s.AddSilence(t.Context(), silence); err != nil {
			t.Fatal(err)
		}
		apply(storetest.Record("7", 0, alert.Opened)) // a warning: not for this endpoint
		for _, user := range []string{"8", "9", "10"} {
			apply(storetest.Record(user, 0, alert.Opened))
			apply(storetest.Record(user, 0, alert.Raised))
		}
		time.Sleep(2*notify.RenewEvery + time.Second)
		want := []string{id("10") + "_escalated_1", id("8") + "_escalated_1"}
		slices.Sort(want)
		if diff := cmp.Diff([][]string{want, want}, got()); diff != "" {
			t.Fatal(diff)
		}

		mu.Lock()
		away = true
		mu.Unlock()
		time.Sleep(2 * notify.RenewEvery)
		mu.Lock()
		away = false
		mu.Unlock()
		time.Sleep(notify.RenewEvery)
		if diff := cmp.Diff([][]string{want}, got()); diff != "" {
			t.Fatal(diff)
		}

		r := storetest.Record("8", 0, alert.Closed)
		if _, err := s.Resolve(t.Context(), time.Now(), r.WindowEnd.Add(time.Hour), 10, e.Endpoint); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * notify.RenewEvery)
		ended := []string{id("10") + "_resolved", id("8") + "_resolved"}
		slices.Sort(ended)
		if diff := cmp.Diff([][]string{ended}, got()); diff != "" {
			t.Fatal(diff)
		}
		if err := s.SetEnabled(t.Context(), time.Now(), "am", false, "test"); err != nil {
			t.Fatal(err)
		}
		apply(storetest.Record("11", 3600, alert.Opened))
		apply(storetest.Record("11", 3600, alert.Raised))
		time.Sleep(2 * notify.RenewEvery)
		if n := len(got()); n != 0 {
			t.Errorf("a disabled endpoint was asked %d times", n)
		}
		stop()
	})
}

// TestRenewWhileBusy: an endpoint with a rate that has much to hear still hears every minute of what is open, or it would take that for over.
func TestRenewWhileBusy(t *testing.T) {
	if testing.Short() {
		t.Skip("minutes in a bubble, in which the queue is polled: slow with the race detector; -short is set")
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var at []time.Duration
		delivered := 0
		began := time.Now()
		e := Endpoint{Endpoint: notify.Endpoint{Name: "am", Rate: 1, Filter: notify.Filter{MinSeverity: alert.Warning}}, Notifier: forgetting{
			notifier: func(notify.Message) notify.Result {
				mu.Lock()
				delivered++
				mu.Unlock()
				return notify.Result{Outcome: notify.Delivered}
			},
			renew: func([]notify.Message) notify.Result {
				mu.Lock()
				at = append(at, time.Since(began))
				mu.Unlock()
				return notify.Result{Outcome: notify.Delivered}
			},
		}}
		s := newStore(t)
		var records []alert.Record
		for n := range 300 {
			records = append(records, storetest.Record(fmt.Sprint(n), 0, alert.Opened))
		}
		if _, err := s.Apply(t.Context(), time.Now(), records, e.Endpoint); err != nil {
			t.Fatal(err)
		}
		_, stop := deliver(t, s, io.Discard, e)
		time.Sleep(5*time.Minute + 10*time.Second)
		stop()
		mu.Lock()
		defer mu.Unlock()
		for n, last := 0, time.Duration(0); n <= len(at); n++ {
			next := 5*time.Minute + 10*time.Second
			if n < len(at) {
				next = at[n]
			}
			if next-last > notify.RenewEvery+patience {
				t.Errorf("nothing from %v to %v", last, next)
			}
			last = next
		}
		if delivered < 250 {
			t.Errorf("%d delivered", delivered)
		}
	})
}
