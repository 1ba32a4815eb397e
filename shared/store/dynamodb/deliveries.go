package dynamodb

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/notify"
	"spate/shared/store"
)

func noDelivery(webhookID, endpoint string) error {
	return fmt.Errorf("%w: message %q to endpoint %q", store.ErrNoDelivery, webhookID, endpoint)
}

// deliveryAt returns a delivery without its message, or store.ErrNoDelivery.
func (t *Table) deliveryAt(ctx context.Context, webhookID, endpoint string) (*delivery, error) {
	a, err := t.attributesAt(ctx, t.cfg.deliveryKey(webhookID, endpoint))
	if err != nil {
		return nil, err
	}
	if a == nil {
		return nil, noDelivery(webhookID, endpoint)
	}
	return readDelivery(a)
}

// Delivery implements store.Deliveries.
func (t *Table) Delivery(ctx context.Context, webhookID, endpoint string) (store.Delivery, error) {
	for d, err := range t.about(ctx, subjectOf(webhookID)) {
		if err != nil {
			return store.Delivery{}, fmt.Errorf("read delivery %s to %s: %w", webhookID, endpoint, err)
		}
		if d.WebhookID == webhookID && d.Endpoint == endpoint {
			return d, nil
		}
	}
	return store.Delivery{}, noDelivery(webhookID, endpoint)
}

// changed is an update of a delivery that was read, if nobody else has changed it since.
func (t *Table) changed(d *delivery, e *expression) types.TransactWriteItem {
	e.set(attrChange, number(d.change+1))
	e.values[":before"] = number(d.change)
	return t.writeOf(t.cfg.deliveryKey(d.WebhookID, d.Endpoint), e, "#"+attrChange+" = :before")
}

// move brings a delivery that was read to a state, and adds the writes that keep the indexes in line. A state that is not pending has no next time.
func (t *Table) move(now time.Time, d *delivery, to store.DeliveryState, next time.Time, e *expression) []types.TransactWriteItem {
	after := *d
	after.State, after.NextAt = to, next
	e.set(attrState, text(string(to)))
	if to == store.Pending {
		e.set(attrNext, instant(next))
	} else {
		e.remove(attrNext)
	}
	writes := []types.TransactWriteItem{t.changed(d, e)}
	was, is := t.cfg.dueKey(d.WebhookID, d.Endpoint, d.NextAt), t.cfg.dueKey(d.WebhookID, d.Endpoint, next)
	if d.State == store.Pending && (to != store.Pending || was != is) {
		writes = append(writes, t.deleteItem(was))
	}
	if to == store.Pending {
		writes = append(writes, t.putDue(now, &after, 0, ""))
	}
	undelivered := func(s store.DeliveryState) bool { return s == store.Exhausted || s == store.Disabled }
	switch {
	case undelivered(to):
		writes = append(writes, t.putItem(t.cfg.undeliveredKey(d), kindUndelivered, now, attributes{attrWebhook: text(d.WebhookID), attrEndpoint: text(d.Endpoint), attrState: text(string(to))}))
	case undelivered(d.State):
		writes = append(writes, t.deleteItem(t.cfg.undeliveredKey(d)))
	}
	return writes
}

// Record implements store.Deliveries.
func (t *Table) Record(ctx context.Context, try store.Try, counts bool) (state store.DeliveryState, err error) {
	try.At = milli(try.At)
	if !try.NextAt.IsZero() {
		try.NextAt = milli(try.NextAt)
	}
	err = again(ctx, func() (bool, error) {
		d, err := t.deliveryAt(ctx, try.WebhookID, try.Endpoint)
		if err != nil {
			return false, err
		}
		e := newExpression()
		e.set(attrTries, number(int64(d.Tries)+1))
		if counts {
			e.set(attrCounting, number(int64(d.Counted)+1))
		}
		if try.Ref != "" {
			e.set(attrRef, text(try.Ref))
		}
		state = d.State
		var writes []types.TransactWriteItem
		if d.State == store.Pending {
			state = store.Next(try.Outcome)
			writes = t.move(try.At, d, state, try.NextAt, e)
		} else {
			writes = append(writes, t.changed(d, e))
		}
		writes = append(writes, t.putTry(d.Tries+1, try))
		if try.Outcome == notify.Gone {
			x := t.endpointUpdate(try.Endpoint)
			x.setOnce(attrDisabled, instant(try.At))
			if try.Reason != "" {
				x.setOnce(attrReason, text(try.Reason))
			}
			writes = append(writes, t.writeOf(t.cfg.endpointKey(try.Endpoint), x, ""))
		}
		return t.transact(ctx, writes)
	})
	if err != nil {
		return "", fmt.Errorf("record attempt of %s at %s: %w", try.WebhookID, try.Endpoint, err)
	}
	return state, nil
}

func (t *Table) putTry(n int, try store.Try) types.TransactWriteItem {
	values := attributes{
		attrWebhook: text(try.WebhookID), attrEndpoint: text(try.Endpoint), attrN: number(int64(n)), attrAt: instant(try.At), attrTook: number(try.Took.Milliseconds()),
		attrStatus: number(int64(try.Status)), attrOutcome: text(string(try.Outcome)),
	}
	if try.Reason != "" {
		values[attrReason] = text(try.Reason)
	}
	if !try.NextAt.IsZero() {
		values[attrNext] = instant(try.NextAt)
	}
	return t.putItem(t.cfg.tryKey(try.WebhookID, try.Endpoint, n), kindTry, try.At, values)
}

// Disable implements store.Deliveries.
func (t *Table) Disable(ctx context.Context, webhookID, endpoint string) error {
	err := again(ctx, func() (bool, error) {
		d, err := t.deliveryAt(ctx, webhookID, endpoint)
		if isNoDelivery(err) || err == nil && d.State != store.Pending {
			return true, nil
		} else if err != nil {
			return false, err
		}
		return t.transact(ctx, t.move(time.Now(), d, store.Disabled, time.Time{}, newExpression()))
	})
	if err != nil {
		return fmt.Errorf("settle %s to %s: %w", webhookID, endpoint, err)
	}
	return nil
}

// Resend implements store.Deliveries.
func (t *Table) Resend(ctx context.Context, now time.Time, f store.DeliveryFilter) (n int, err error) {
	if err := f.Validate(); err != nil {
		return 0, fmt.Errorf("resend: %w", err)
	}
	f.Limit = 0
	found, err := t.listDeliveries(ctx, f)
	if err != nil {
		return 0, fmt.Errorf("resend: %w", err)
	}
	now = milli(now)
	for _, one := range found {
		if one.Endpoint == Endpoint { // of the topic, which has no ledger
			continue
		}
		sent := false
		err := again(ctx, func() (bool, error) {
			d, err := t.deliveryAt(ctx, one.WebhookID, one.Endpoint)
			if isNoDelivery(err) {
				return true, nil
			} else if err != nil {
				return false, err
			}
			waits := d.State == store.Pending && d.NextAt.After(now) && (d.subject.Partition != "" || d.Data != nil)
			if !fitsDelivery(f, &d.Delivery) || d.State == store.Held || d.State == store.Pending && !waits {
				return true, nil
			}
			e := newExpression()
			e.set(attrBegun, instant(now))
			e.set(attrCounting, number(0))
			sent, err = t.transact(ctx, t.move(now, d, store.Pending, now, e))
			return sent, err
		})
		if err != nil {
			return n, fmt.Errorf("resend: %w", err)
		}
		if sent {
			n++
			ring(t.bells.of(one.Endpoint))
		}
	}
	return n, nil
}
