package dynamodb

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/incident"
	"spate/shared/notify"
)

// openParts is how many partitions the index of open incidents has, so that none of them gets more writes than DynamoDB takes. Another number would
// lose sight of what is open.
const openParts = 8

// The attributes of an item of the index. It says where an incident is, and when it is over at the earliest.
const (
	attrPartitionOf = "incident_partition_key"
	attrDue         = "due_ms"
)

// pointer is an item of the index.
type pointer struct {
	key Key
	of  Key
	due int64
}

func (c Config) openKey(id string) Key {
	sum := sha256.Sum256([]byte(id))
	return Key{Partition: c.openPart(int(sum[0]) % openParts), Sort: strconv.FormatUint(binary.BigEndian.Uint64(sum[:]), 10)}
}

func (c Config) openPart(n int) string { return fmt.Sprintf("open#%d#appserver#%s", n, c.server()) }

// writeOpen puts an incident into the index.
func (t *Table) writeOpen(k kept) types.TransactWriteItem {
	item := t.cfg.openKey(k.ID).attributes()
	item[attrKind], item[attrIncident] = text(kindOpen), text(k.ID)
	item[attrPartitionOf], item[attrSortOf], item[attrDue] = text(k.key.Partition), decimal(k.key.Sort), number(k.Due().UnixMilli())
	return types.TransactWriteItem{Put: &types.Put{TableName: &t.cfg.Table, Item: item}}
}

// Ending says which incidents [Table.Resolve] ends, and which endpoints it notifies.
type Ending struct {
	Now time.Time
	// UpTo is an event time: every alert of a window that ends by then is stored.
	UpTo time.Time
	// Limit is how many incidents are ended at most; 0 means any number.
	Limit int
	// To are those to notify, as for [Table.Apply].
	To []notify.Endpoint
	// Publish publishes messages to the topic. If it fails, they stay pending, and the next call publishes them; nil leaves them pending.
	Publish func(context.Context, []Notice) error
	// Failed, if not nil, is called with each error, so that one incident does not hold up the others; if it is nil, the first error ends Resolve.
	Failed func(error)
}

// Open reports whether there may be incidents that are due by an event time; for the zero time, whether any are open.
func (t *Table) Open(ctx context.Context, upTo time.Time) (bool, error) {
	for n := range openParts {
		found, err := t.pointers(ctx, n, upTo, 1)
		if err != nil || len(found) > 0 {
			return err == nil, err
		}
	}
	return false, nil
}

// Resolve ends the incidents that are due, and returns their transitions. It also publishes messages that an earlier call left pending.
func (t *Table) Resolve(ctx context.Context, by Ending) (ended []incident.Event, err error) {
	topic, ledger := topical(by.To)
	if err := t.register(ctx, ledger); err != nil {
		return nil, fmt.Errorf("resolve incidents: %w", err)
	}
	by.To = topic
	for n := range openParts {
		found, err := t.pointers(ctx, n, by.UpTo, 0)
		if err != nil {
			return ended, fmt.Errorf("resolve incidents: %w", err)
		}
		for _, p := range found {
			e, err := t.end(ctx, by, ledger, p)
			if e != nil {
				ended = append(ended, *e)
				t.bells.ring(ledger)
			}
			switch {
			case err != nil && (by.Failed == nil || ctx.Err() != nil):
				return ended, fmt.Errorf("resolve incidents: %w", err)
			case err != nil:
				by.Failed(fmt.Errorf("resolve incidents: %w", err))
			case by.Limit > 0 && len(ended) == by.Limit:
				return ended, nil
			}
		}
	}
	return ended, nil
}

// pointers returns what a part of the index has, at most so many; 0 is all.
func (t *Table) pointers(ctx context.Context, n int, upTo time.Time, limit int) (out []pointer, err error) {
	in := &sdk.QueryInput{
		KeyConditionExpression: aws.String("#pk = :pk"), ExpressionAttributeNames: map[string]string{"#pk": partitionKey},
		ExpressionAttributeValues: attributes{":pk": text(t.cfg.openPart(n))},
	}
	if !upTo.IsZero() {
		in.FilterExpression = aws.String("#due <= :due")
		in.ExpressionAttributeNames["#due"], in.ExpressionAttributeValues[":due"] = attrDue, number(upTo.UnixMilli())
	}
	err = t.query(ctx, in, func(a attributes) error {
		r := &reader{attributes: a}
		out = append(out, pointer{
			key: Key{Partition: r.text(partitionKey), Sort: r.decimal(sortKey)}, of: Key{Partition: r.text(attrPartitionOf), Sort: r.decimal(attrSortOf)}, due: r.number(attrDue),
		})
		if r.err == nil && limit > 0 && len(out) == limit {
			return errEnough
		}
		return r.err
	})
	if err == errEnough { //nolint:errorlint // it is ours, and nobody wraps it
		err = nil
	}
	return out, err
}

// errEnough ends a query.
var errEnough = fmt.Errorf("enough")

// end ends an incident that is due. The incident leaves the index when all messages about it are published.
func (t *Table) end(ctx context.Context, by Ending, ledger []notify.Endpoint, p pointer) (ended *incident.Event, err error) {
	var k *kept
	err = again(ctx, func() (bool, error) {
		h, err := t.head(ctx, p.of.Partition) // before the incident, so that a later change is noticed
		if err != nil {
			return false, err
		}
		if k, err = t.incidentAt(ctx, p.of); err != nil || k == nil || k.State != incident.StateOpen {
			return err == nil, err
		}
		if k.Due().After(by.UpTo) {
			due := k.Due()
			k = nil
			return t.later(ctx, p, due)
		}
		e := k.Resolve(by.Now)
		waiting := len(k.untold)
		if err := k.tell([]incident.Event{e}, by.Now, by.To); err != nil {
			return false, err
		}
		writes := []types.TransactWriteItem{t.writeIncident(by.Now, *k, waiting), t.writeHead(by.Now, p.of.Partition, h, *k)}
		if len(k.untold) == 0 {
			writes = append(writes, types.TransactWriteItem{Delete: &types.Delete{TableName: &t.cfg.Table, Key: p.key.attributes()}})
		}
		queued, err := t.address(by.Now, nil, []incident.Event{e}, k.key, ledger)
		if err != nil {
			return false, err
		}
		done, err := t.transact(ctx, append(writes, queued...))
		if done {
			ended = &e
		}
		return done, err
	})
	if err != nil {
		return nil, err
	}
	switch {
	case k == nil: // it is not over, or is gone
		if it, err := t.incidentAt(ctx, p.of); err != nil || it != nil {
			return nil, err
		}
		return nil, t.forget(ctx, p)
	case len(k.untold) == 0:
		if ended != nil {
			return ended, nil
		}
		return nil, t.forget(ctx, p)
	case by.Publish == nil:
		return ended, nil
	}
	if err := by.Publish(ctx, k.untold); err != nil {
		return ended, err
	}
	if err := t.Told(ctx, by.Now, k.untold...); err != nil {
		return ended, err
	}
	return ended, t.forget(ctx, p)
}

// later notes that an incident is not over before a time.
func (t *Table) later(ctx context.Context, p pointer, due time.Time) (bool, error) {
	_, err := t.api.UpdateItem(ctx, &sdk.UpdateItemInput{
		TableName: &t.cfg.Table, Key: p.key.attributes(), UpdateExpression: aws.String("SET #due = :due"), ConditionExpression: aws.String("#due = :before"),
		ExpressionAttributeNames: map[string]string{"#due": attrDue}, ExpressionAttributeValues: attributes{":due": number(due.UnixMilli()), ":before": number(p.due)},
	})
	switch {
	case transactionConflict(err):
		return false, nil
	case err != nil && !conditionFailed(err):
		return false, t.translate(err)
	}
	return true, nil
}

// forget takes an incident out of the index.
func (t *Table) forget(ctx context.Context, p pointer) error {
	_, err := t.api.DeleteItem(ctx, &sdk.DeleteItemInput{TableName: &t.cfg.Table, Key: p.key.attributes()})
	if err != nil {
		return t.translate(err)
	}
	return nil
}
