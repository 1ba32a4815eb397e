package dynamodb

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"spate/shared/store"
)

const (
	// maxRun bounds what a delivery may take: waiting for its turn at the endpoint, the try, and writing it down.
	maxRun = 40 * time.Second
	// claimFor is when whoever claimed a delivery is taken for dead.
	claimFor = maxRun + 5*time.Second
	// lookEvery is how often the index is checked for what this process has not queued itself.
	lookEvery = 2 * time.Second
	// lookAtOnce is how many due deliveries of an endpoint are considered at once.
	lookAtOnce = 100
	// closedFrom is how far off the time must be at which a delivery is due again for the endpoint to count as closed until then; what waits for another message waits for less.
	closedFrom = time.Second
	// errorWait is when a delivery that could not be worked on is due again.
	errorWait = 2 * time.Second
	// grace is what deliveries under way get when the process ends, and leaveAfter is when they are not waited for any more.
	grace      = 2 * time.Second
	leaveAfter = 5 * time.Second
	// complainEvery bounds how often the log says that the table does not answer.
	complainEvery = 10 * time.Second
)

// Work implements store.Deliveries. A delivery is claimed with a conditional write, which others respect until it expires.
func (t *Table) Work(ctx context.Context, queues []store.Queue, log *slog.Logger, do store.Do) error {
	// What is under way when ctx ends has the grace period.
	under, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })()
	var all sync.WaitGroup
	for _, q := range queues {
		w := &worker{t: t, Queue: q, log: log.With("endpoint", q.Endpoint), do: do, busy: make(map[Key]bool), bell: t.bells.of(q.Endpoint)}
		all.Go(func() { w.run(ctx, under) })
	}
	ended := make(chan struct{})
	go func() {
		all.Wait()
		close(ended)
	}()
	<-ctx.Done()
	leave := time.NewTimer(leaveAfter)
	defer leave.Stop()
	select {
	case <-ended:
	case <-leave.C:
		log.Warn("deliveries in progress did not finish in time; other processes will take them over", "after", leaveAfter, "claimed_for", claimFor)
	}
	return nil
}

// worker works off the deliveries to one endpoint.
type worker struct {
	store.Queue
	t    *Table
	log  *slog.Logger
	do   store.Do
	bell chan struct{}

	// What the last look has found and is not begun yet; whether it has held messages for a digest, and whether there was more than it considered.
	found      []due
	looked     time.Time
	held, more bool

	mu     sync.Mutex
	busy   map[Key]bool // what this process works on
	closed time.Time    // nothing is begun before it: a delivery that was begun came back without a try, as the endpoint wants no calls until then
	wg     sync.WaitGroup
}

func (w *worker) run(ctx, under context.Context) {
	defer w.wg.Wait()
	var complained time.Time
	for ctx.Err() == nil {
		more, err := w.round(ctx, under)
		if err != nil && ctx.Err() == nil && time.Since(complained) >= complainEvery {
			complained = time.Now()
			w.log.Error("cannot read or claim the deliveries that are due, retrying", "error", err)
		}
		if more && err == nil {
			continue
		}
		timer := time.NewTimer(lookEvery)
		select {
		case <-ctx.Done():
		case <-w.bell:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// round begins as many deliveries as there are free workers. It reports whether to go on at once.
func (w *worker) round(ctx, under context.Context) (more bool, err error) {
	if now := time.Now(); len(w.found) == 0 || now.Sub(w.looked) >= lookEvery {
		if err := w.look(ctx, now); err != nil {
			return false, err
		}
	}
	for ; len(w.found) > 0; w.found = w.found[1:] {
		if w.begin(under, w.found[0]) {
			continue
		}
		if w.held { // flood control has made room in the index: there may be more for it
			w.found = nil
			return true, nil
		}
		return false, nil // whoever ends rings the bell
	}
	return w.more, nil
}

// look finds what is due, and settles what flood control wants of it.
func (w *worker) look(ctx context.Context, now time.Time) error {
	ready, err := w.t.ready(ctx, w.Endpoint, now, lookAtOnce)
	if err != nil {
		return err
	}
	w.looked, w.found, w.held, w.more = now, nil, false, len(ready) == lookAtOnce
	var flood []due
	for _, d := range ready {
		if d.above > 0 {
			flood = append(flood, d)
		} else if !w.isBusy(d.key) {
			w.found = append(w.found, d)
		}
	}
	if len(flood) == 0 {
		return nil
	}
	alone, err := w.t.flood(ctx, now, flood)
	w.held = len(alone) < len(flood)
	w.found = append(w.found, alone...)
	slices.SortStableFunc(w.found, func(a, b due) int { return a.key.time().Compare(b.key.time()) })
	return err
}

func (w *worker) isBusy(k Key) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.busy[k]
}

// begin works on a delivery, if a worker is free.
func (w *worker) begin(under context.Context, d due) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.busy) >= w.Workers || time.Now().Before(w.closed) {
		return false
	}
	w.busy[d.key] = true
	w.wg.Go(func() {
		defer func() {
			w.mu.Lock()
			delete(w.busy, d.key)
			w.mu.Unlock()
			ring(w.bell)
		}()
		w.work(under, d)
	})
	return true
}

// work claims a delivery, has it done, and notes when it is due again.
func (w *worker) work(under context.Context, d due) {
	ctx, cancel := context.WithTimeout(under, maxRun)
	defer cancel()
	claim := rand.Text()
	claimed, err := w.t.claim(ctx, d, claim, time.Now())
	if err != nil {
		if under.Err() == nil {
			w.log.Warn("cannot claim a delivery, retrying", "webhook_id", d.webhookID, "error", err)
		}
		return
	} else if !claimed {
		return // somebody else has it, or it is settled
	}
	again, err := w.safely(ctx, d)
	now := time.Now()
	if err != nil {
		again = now.Add(errorWait)
		if under.Err() != nil {
			again = now // the process ends: whoever is next need not wait
		} else {
			w.log.Warn("delivery could not be processed, retrying soon", "webhook_id", d.webhookID, "error", err)
		}
	}
	// That this is noted matters more than the end of the time: without it, the delivery waits until the claim expires.
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer stop()
	untried, rerr := w.t.release(ctx, d, claim, again)
	if rerr != nil {
		w.log.Warn("cannot release a delivery; it is due again when its claim expires", "webhook_id", d.webhookID, "error", rerr)
	}
	if rerr == nil && err == nil {
		w.close(untried, again, now)
	}
}

// close notes whether the endpoint takes calls. If it does not, to claim everything that is due would only cost: a backlog of thousands would be written again and again.
func (w *worker) close(untried bool, again, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !untried:
		w.closed = time.Time{}
	case again.Sub(now) >= closedFrom:
		w.closed = again
	}
}

// safely has a delivery done. A panic is an error.
func (w *worker) safely(ctx context.Context, d due) (again time.Time, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return w.do(ctx, d.webhookID, d.endpoint)
}

// ready returns deliveries to an endpoint that are due and that nobody works on, the oldest first, at most so many.
func (t *Table) ready(ctx context.Context, endpoint string, now time.Time, limit int) (out []due, err error) {
	for part := range dueParts {
		n := 0
		err := t.query(ctx, &sdk.QueryInput{
			Limit:                    aws.Int32(int32(limit)),
			KeyConditionExpression:   aws.String("#pk = :pk AND #sort < :later"),
			FilterExpression:         aws.String("attribute_not_exists(#not) OR #not <= :now"),
			ExpressionAttributeNames: map[string]string{"#pk": partitionKey, "#sort": sortKey, "#not": attrNotBefore},
			ExpressionAttributeValues: attributes{
				":pk": text(t.cfg.duePartition(endpoint, part)), ":later": decimal(seconds(now.Add(time.Millisecond), "")), ":now": number(now.UnixMilli()),
			},
		}, func(a attributes) error {
			d, err := readDue(a)
			if err != nil {
				return err
			}
			out = append(out, d)
			if n++; n == limit {
				return errEnough
			}
			return nil
		})
		if err != nil && err != errEnough { //nolint:errorlint // it is ours, and nobody wraps it
			return nil, err
		}
	}
	slices.SortStableFunc(out, func(a, b due) int { return a.key.time().Compare(b.key.time()) })
	return out[:min(len(out), limit)], nil
}

// claim makes a delivery that is due the caller's, until the claim expires. It reports false if the delivery is somebody else's, or not due any more.
func (t *Table) claim(ctx context.Context, d due, claim string, now time.Time) (bool, error) {
	e := newExpression()
	e.set(attrClaim, text(claim))
	e.set(attrNotBefore, number(now.Add(claimFor).UnixMilli()))
	e.values[":now"] = number(now.UnixMilli())
	err := t.touch(ctx, t.updateOf(d.key, e, "attribute_exists(#pk) AND (attribute_not_exists(#"+attrNotBefore+") OR #"+attrNotBefore+" <= :now)"))
	if conditionFailed(err) {
		return false, nil
	} else if err != nil {
		return false, t.translate(err)
	}
	return true, nil
}

// release gives a delivery back: it is due again at a time or, if that is zero, not any more. It does nothing, and reports false, if the delivery is not the caller's any more, be it
// that what was recorded has moved it.
func (t *Table) release(ctx context.Context, d due, claim string, at time.Time) (released bool, err error) {
	err = again(ctx, func() (done bool, err error) {
		if at.IsZero() {
			_, err = t.api.DeleteItem(ctx, &sdk.DeleteItemInput{
				TableName: &t.cfg.Table, Key: d.key.attributes(), ConditionExpression: aws.String("#claim = :claim"), ExpressionAttributeNames: map[string]string{"#claim": attrClaim},
				ExpressionAttributeValues: attributes{":claim": text(claim)},
			})
		} else {
			e := newExpression()
			e.set(attrNotBefore, number(at.UnixMilli()+1)) // cut to the millisecond, it would be too early
			e.remove(attrClaim)
			e.values[":claim"] = text(claim)
			_, err = t.api.UpdateItem(ctx, t.updateOf(d.key, e, "#"+attrClaim+" = :claim"))
		}
		if transactionConflict(err) {
			return false, nil
		}
		return err == nil, err
	})
	if conditionFailed(err) {
		return false, nil
	} else if err != nil {
		return false, t.translate(err)
	}
	return true, nil
}
