package dynamodb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/store"
)

const (
	// holdAtOnce is how many messages one transaction holds for a digest; each takes two writes.
	holdAtOnce = 45
	// readAtOnce is how many items are read at once.
	readAtOnce = 16
	// minuteKept is how long the number of messages of a minute is kept.
	minuteKept = 48 * time.Hour
)

// heldMessage is a message that is held for a digest, and where its alert or incident is.
type heldMessage struct {
	ID        string `json:"id"`
	Type      string `json:"type"`
	Partition string `json:"partition_key"`
	Sort      string `json:"sort_key"`
}

func (c Config) minuteKey(endpoint string, minute time.Time) Key {
	return Key{Partition: c.partitionOf(kindMinute, endpoint), Sort: strconv.FormatInt(minute.Unix(), 10)}
}

// flood settles which messages that are due are sent alone and which are held for a digest. list are due deliveries of one endpoint that are subject to flood control, the oldest
// first. It returns those to send alone. It makes no difference how many do this at the same time: each message is settled by a condition on its item.
func (t *Table) flood(ctx context.Context, now time.Time, list []due) (alone []due, err error) {
	for len(list) > 0 {
		minute, n := list[0].created.Truncate(time.Minute), 1
		for n < len(list) && list[n].created.Truncate(time.Minute).Equal(minute) {
			n++
		}
		rest := list[:n]
		list = list[n:]
		for full := false; !full && len(rest) > 0; {
			free, err := t.alone(ctx, now, minute, rest)
			if err != nil {
				return alone, err
			}
			alone, rest, full = append(alone, rest[:free]...), rest[free:], free == 0
		}
		for len(rest) > 0 {
			n := min(len(rest), holdAtOnce)
			if err := t.hold(ctx, now, minute, rest[:n]); err != nil {
				return alone, err
			}
			rest = rest[n:]
		}
	}
	return alone, nil
}

// alone lets the first messages of a minute be sent alone, as long as the endpoint's limit allows, and returns how many those are.
func (t *Table) alone(ctx context.Context, now, minute time.Time, list []due) (free int, err error) {
	key := t.cfg.minuteKey(list[0].endpoint, minute)
	err = again(ctx, func() (bool, error) {
		a, err := t.attributesAt(ctx, key)
		if err != nil {
			return false, err
		}
		r := &reader{attributes: a}
		sent := r.number(attrSent)
		if free = int(min(max(0, list[0].above-sent), int64(len(list)), 2*holdAtOnce)); free == 0 || r.err != nil {
			return r.err == nil, r.err
		}
		e := newExpression()
		e.set(attrKind, text(kindMinute))
		e.set(attrSent, number(sent+int64(free)))
		e.set(attrExpires, number(now.Add(minuteKept).Unix()))
		condition := "attribute_not_exists(#" + attrSent + ")"
		if sent > 0 {
			e.values[":before"] = number(sent)
			condition = "#" + attrSent + " = :before"
		}
		writes := []types.TransactWriteItem{t.writeOf(key, e, condition)}
		for _, d := range list[:free] {
			x := newExpression()
			x.set(attrAlone, &types.AttributeValueMemberBOOL{Value: true})
			writes = append(writes, t.writeOf(d.key, x, "attribute_exists(#pk) AND attribute_not_exists(#"+attrAlone+")"))
		}
		return t.transact(ctx, writes)
	})
	return free, err
}

// hold holds messages for the digest of their minute or, if that is made already, of one that follows.
func (t *Table) hold(ctx context.Context, now, minute time.Time, list []due) error {
	of := store.Outgoing{Endpoint: notify.Endpoint{Name: list[0].endpoint}}
	n := 0
	return again(ctx, func() (bool, error) {
		digest := delivery{Delivery: of.Digest(minute, n)}
		digest.Type = list[0].digestType
		known, err := t.deliveryAt(ctx, digest.WebhookID, digest.Endpoint)
		for ; err == nil && known.sealed; known, err = t.deliveryAt(ctx, digest.WebhookID, digest.Endpoint) {
			n++
			digest.Delivery = of.Digest(minute, n)
			digest.Type = list[0].digestType
		}
		var writes []types.TransactWriteItem
		switch {
		case isNoDelivery(err):
			put := t.putDelivery(now, &digest)
			put.Put.ConditionExpression, put.Put.ExpressionAttributeNames = aws.String("attribute_not_exists(#pk)"), map[string]string{"#pk": partitionKey}
			writes = append(writes, put, t.putDue(now, &digest, 0, ""))
		case err != nil:
			return false, err
		default:
			writes = append(writes, t.changed(known, newExpression())) // not sealed since
		}
		found, err := t.deliveriesAt(ctx, list)
		if err != nil {
			return false, err
		}
		messages := make([]heldMessage, 0, len(list))
		for n, m := range list {
			d := found[n]
			if d == nil || d.State != store.Pending || t.cfg.dueKey(d.WebhookID, d.Endpoint, d.NextAt) != m.key {
				// Somebody has settled it, sent it again by hand, or it has expired before its item in the index.
				if _, err := t.api.DeleteItem(ctx, &sdk.DeleteItemInput{TableName: &t.cfg.Table, Key: m.key.attributes()}); err != nil {
					return false, t.translate(err)
				}
				continue
			}
			e := newExpression()
			e.set(attrState, text(string(store.Held)))
			e.set(attrDigest, text(digest.WebhookID))
			e.remove(attrNext)
			gone := t.deleteItem(m.key)
			gone.Delete.ConditionExpression = aws.String("attribute_exists(#pk) AND attribute_not_exists(#alone)")
			gone.Delete.ExpressionAttributeNames = map[string]string{"#pk": partitionKey, "#alone": attrAlone}
			writes = append(writes, t.changed(d, e), gone)
			messages = append(messages, heldMessage{ID: d.WebhookID, Type: d.Type, Partition: d.subject.Partition, Sort: d.subject.Sort})
		}
		if len(messages) == 0 {
			return true, nil
		}
		b, err := json.Marshal(messages)
		if err != nil {
			return false, err
		}
		key := Key{Partition: t.cfg.partitionOf(kindHeld, digest.WebhookID), Sort: hashSort(messages[0].ID)}
		return t.transact(ctx, append(writes, t.putItem(key, kindHeld, now, attributes{attrMessages: text(string(b))})))
	})
}

// deliveriesAt returns deliveries without their messages; nil where there is none.
func (t *Table) deliveriesAt(ctx context.Context, list []due) ([]*delivery, error) {
	out := make([]*delivery, len(list))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readAtOnce)
	for n, m := range list {
		g.Go(func() (err error) {
			if out[n], err = t.deliveryAt(ctx, m.webhookID, m.endpoint); isNoDelivery(err) {
				err = nil
			}
			return err
		})
	}
	return out, g.Wait()
}

// Seal implements store.Deliveries. What the digest holds is settled with the first call, also if data fails. Data for which the item has no room is an error that wraps
// notify.ErrUnsendable.
func (t *Table) Seal(ctx context.Context, webhookID, endpoint string, data func(iter.Seq2[notify.Held, error]) (json.RawMessage, error)) (store.Delivery, error) {
	d, err := t.seal(ctx, webhookID, endpoint, data)
	if err != nil {
		return store.Delivery{}, fmt.Errorf("make digest %s: %w", webhookID, err)
	}
	return d.Delivery, nil
}

func (t *Table) seal(ctx context.Context, webhookID, endpoint string, data func(iter.Seq2[notify.Held, error]) (json.RawMessage, error)) (d *delivery, err error) {
	if err := again(ctx, func() (bool, error) {
		if d, err = t.deliveryAt(ctx, webhookID, endpoint); err != nil || d.sealed {
			return err == nil, err
		}
		e := newExpression()
		e.set(attrSealed, &types.AttributeValueMemberBOOL{Value: true})
		return t.transact(ctx, []types.TransactWriteItem{t.changed(d, e)})
	}); err != nil || d.Data != nil {
		return d, err
	}
	held, err := t.heldFor(ctx, webhookID)
	if err != nil {
		return nil, err
	}
	made, err := data(held)
	if err != nil {
		return nil, err
	}
	err = again(ctx, func() (bool, error) {
		if d, err = t.deliveryAt(ctx, webhookID, endpoint); err != nil || d.Data != nil { // of one who was faster
			return err == nil, err
		}
		e := newExpression()
		e.set(attrData, text(string(made)))
		done, err := t.transact(ctx, []types.TransactWriteItem{t.changed(d, e)})
		d.Data = made
		return done, err
	})
	if errors.Is(err, store.ErrInvalid) { // an item has room for 400 KB
		err = fmt.Errorf("%w: %w", notify.ErrUnsendable, err)
	}
	return d, err
}

// heldFor yields what is held for a digest.
func (t *Table) heldFor(ctx context.Context, webhookID string) (iter.Seq2[notify.Held, error], error) {
	var all []heldMessage
	err := t.query(ctx, &sdk.QueryInput{
		KeyConditionExpression: aws.String("#pk = :pk"), ExpressionAttributeNames: map[string]string{"#pk": partitionKey},
		ExpressionAttributeValues: attributes{":pk": text(t.cfg.partitionOf(kindHeld, webhookID))},
	}, func(a attributes) error {
		r := &reader{attributes: a}
		var some []heldMessage
		if err := json.Unmarshal([]byte(r.text(attrMessages)), &some); err != nil {
			r.wrong(attrMessages, err)
		}
		all = append(all, some...)
		return r.err
	})
	return func(yield func(notify.Held, error) bool) {
		for some := range slices.Chunk(all, readAtOnce) {
			held := make([]notify.Held, len(some))
			g, ctx := errgroup.WithContext(ctx)
			for n, m := range some {
				g.Go(func() (err error) {
					held[n], err = t.heldAt(ctx, m)
					return err
				})
			}
			if err := g.Wait(); err != nil {
				yield(notify.Held{}, err)
				return
			}
			for _, h := range held {
				if !yield(h, nil) {
					return
				}
			}
		}
	}, err
}

// heldAt returns a message of a digest: the incident or alert as it is now. If that has expired, it is the one of the message.
func (t *Table) heldAt(ctx context.Context, m heldMessage) (notify.Held, error) {
	key := Key{Partition: m.Partition, Sort: m.Sort}
	if strings.HasPrefix(m.Type, "incident.") {
		k, err := t.incidentAt(ctx, key)
		if err != nil || k != nil {
			h := notify.Held{Type: m.Type}
			if k != nil {
				h.Incident = &k.Incident
			}
			return h, err
		}
	} else if it, err := t.get(ctx, key); err != nil || it != nil && it.ID != "" {
		if it == nil {
			return notify.Held{}, err
		}
		return store.HeldRecord(m.Type, it.Record), err
	}
	a, err := t.attributesAt(ctx, t.cfg.messageKey(m.ID))
	if err != nil {
		return notify.Held{}, err
	}
	r := &reader{attributes: a}
	data := []byte(r.text(attrData))
	if strings.HasPrefix(m.Type, "incident.") {
		var i incident.Incident
		if err := json.Unmarshal(data, &i); err != nil {
			r.wrong(attrData, err)
		}
		return notify.Held{Type: m.Type, Incident: &i}, r.err
	}
	record, err := alert.Parse(data)
	if err != nil {
		r.wrong(attrData, err)
	}
	return store.HeldRecord(m.Type, record), r.err
}
