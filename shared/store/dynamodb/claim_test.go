package dynamodb

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/aws/awstest"
	"spate/shared/notify"
	"spate/shared/store"
)

// TestClosedEndpoint: while an endpoint takes no calls, what is due for it is not claimed in vain. When it does, all is delivered.
func TestClosedEndpoint(t *testing.T) {
	const workers, n = 3, 20
	table, err := New(sdk.NewFromConfig(awstest.Config(awstest.DynamoDB(t))), Config{Table: "closed"})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	for i := range n {
		d := &delivery{Delivery: store.Delivery{WebhookID: fmt.Sprintf("%d_opened", i), Endpoint: "a", State: store.Pending, CreatedAt: at, BegunAt: at, NextAt: at}}
		if done, err := table.transact(t.Context(), []types.TransactWriteItem{table.putDelivery(at, d), table.putDue(at, d, 0, "")}); !done || err != nil {
			t.Fatal(done, err)
		}
	}
	var calls, done atomic.Int64
	var open atomic.Bool
	w := &worker{t: table, Queue: store.Queue{Endpoint: "a", Workers: workers}, log: slog.New(slog.DiscardHandler), busy: make(map[Key]bool), bell: make(chan struct{}, 1)}
	w.do = func(ctx context.Context, id, endpoint string) (time.Time, error) {
		calls.Add(1)
		if !open.Load() {
			return time.Now().Add(time.Hour), nil
		}
		done.Add(1)
		_, err := table.Record(ctx, store.Try{WebhookID: id, Endpoint: endpoint, At: time.Now(), Outcome: notify.Delivered}, true)
		return time.Time{}, err
	}
	rounds := func() {
		t.Helper()
		for range n {
			if _, err := w.round(t.Context(), t.Context()); err != nil {
				t.Fatal(err)
			}
			w.wg.Wait()
		}
	}
	rounds()
	if got := calls.Load(); got < 1 || got > workers {
		t.Errorf("%d calls while it is closed", got)
	}
	open.Store(true)
	w.closed = time.Now() // the hour is over
	rounds()
	if got, want := done.Load(), n-calls.Load()+done.Load(); got != want || got < n-workers {
		t.Errorf("%d of %d were delivered when it is open again", got, want)
	}
}

// TestClaim: a delivery is somebody's until the claim expires. Whoever lost it cannot give it back, nor take it out of the index.
func TestClaim(t *testing.T) {
	table, err := New(sdk.NewFromConfig(awstest.Config(awstest.DynamoDB(t))), Config{Table: "claims"})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	d := &delivery{Delivery: store.Delivery{WebhookID: "1_opened", Endpoint: "a", State: store.Pending, CreatedAt: at, NextAt: at}}
	if done, err := table.transact(t.Context(), append(table.move(at, d, store.Pending, at, newExpression())[1:], table.putDelivery(at, d))); !done || err != nil {
		t.Fatal(done, err)
	}
	ready := func(now time.Time) []due {
		t.Helper()
		list, err := table.ready(t.Context(), "a", now, 10)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if got := ready(at.Add(-time.Millisecond)); len(got) != 0 {
		t.Errorf("due too early: %+v", got)
	}
	list := ready(at)
	if len(list) != 1 {
		t.Fatalf("due: %+v", list)
	}
	claim := func(who string, now time.Time, want bool) {
		t.Helper()
		if got, err := table.claim(t.Context(), list[0], who, now); got != want || err != nil {
			t.Errorf("%s at %v: %v, %v", who, now.Sub(at), got, err)
		}
	}
	release := func(who string, again time.Time, want bool) {
		t.Helper()
		if got, err := table.release(t.Context(), list[0], who, again); got != want || err != nil {
			t.Errorf("%s: %v, %v", who, got, err)
		}
	}
	claim("one", at, true)
	claim("two", at.Add(claimFor-time.Millisecond), false)
	if got := ready(at.Add(claimFor - time.Millisecond)); len(got) != 0 {
		t.Errorf("due, but claimed: %+v", got)
	}
	claim("two", at.Add(claimFor), true)
	release("one", time.Time{}, false)
	release("one", at, false)
	claim("three", at.Add(claimFor), false)
	release("two", at.Add(time.Hour), true)
	if got := ready(at.Add(time.Hour)); len(got) != 0 {
		t.Errorf("due again too early: %+v", got)
	}
	if got := ready(at.Add(time.Hour + time.Millisecond)); len(got) != 1 {
		t.Errorf("due again: %+v", got)
	}
	// What was recorded moved it: whoever made the try has nothing to give back.
	claim("three", at.Add(2*time.Hour), true)
	if _, err := table.Record(t.Context(), store.Try{WebhookID: "1_opened", Endpoint: "a", At: at, Outcome: "failed", NextAt: at.Add(3 * time.Hour)}, true); err != nil {
		t.Fatal(err)
	}
	release("three", time.Time{}, false)
	claim("four", at.Add(9*time.Hour), false) // where it was
	if got := ready(at.Add(3 * time.Hour)); len(got) != 1 {
		t.Errorf("the next try: %+v", got)
	}
}
