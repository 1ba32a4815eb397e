package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
)

// API is the part of *dynamodb.Client that a Table uses. The alerter calls all methods except Scan and those that create a table.
type API interface {
	TransactWriteItems(ctx context.Context, in *sdk.TransactWriteItemsInput, opts ...func(*sdk.Options)) (*sdk.TransactWriteItemsOutput, error)
	UpdateItem(ctx context.Context, in *sdk.UpdateItemInput, opts ...func(*sdk.Options)) (*sdk.UpdateItemOutput, error)
	PutItem(ctx context.Context, in *sdk.PutItemInput, opts ...func(*sdk.Options)) (*sdk.PutItemOutput, error)
	DeleteItem(ctx context.Context, in *sdk.DeleteItemInput, opts ...func(*sdk.Options)) (*sdk.DeleteItemOutput, error)
	GetItem(ctx context.Context, in *sdk.GetItemInput, opts ...func(*sdk.Options)) (*sdk.GetItemOutput, error)
	Query(ctx context.Context, in *sdk.QueryInput, opts ...func(*sdk.Options)) (*sdk.QueryOutput, error)
	Scan(ctx context.Context, in *sdk.ScanInput, opts ...func(*sdk.Options)) (*sdk.ScanOutput, error)
	CreateTable(ctx context.Context, in *sdk.CreateTableInput, opts ...func(*sdk.Options)) (*sdk.CreateTableOutput, error)
	DescribeTable(ctx context.Context, in *sdk.DescribeTableInput, opts ...func(*sdk.Options)) (*sdk.DescribeTableOutput, error)
	DescribeTimeToLive(ctx context.Context, in *sdk.DescribeTimeToLiveInput, opts ...func(*sdk.Options)) (*sdk.DescribeTimeToLiveOutput, error)
	UpdateTimeToLive(ctx context.Context, in *sdk.UpdateTimeToLiveInput, opts ...func(*sdk.Options)) (*sdk.UpdateTimeToLiveOutput, error)
}

var _ API = (*sdk.Client)(nil)

// Table stores alerts, incidents, silences and decisions. It is safe for concurrent use, also by several processes.
type Table struct {
	api API
	cfg Config

	bells      bells
	registered sync.Map // endpoints that this process has made known
}

// New returns a Table. It does not check that the table exists.
func New(api API, cfg Config) (*Table, error) {
	if api == nil {
		return nil, errors.New("api: missing")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Table{api: api, cfg: cfg}, nil
}

// Config returns the table's settings, which make items of records.
func (t *Table) Config() Config { return t.cfg }

// Outcome is the result of a record.
type Outcome struct {
	// Made: the record created the alert. Moved: it moved an existing alert forward. Neither: it was a repetition.
	Made, Moved bool
	// Item is the alert as stored now. If its Notification is Pending, a message about the alert itself must still be published: it is not part of an incident.
	Item Item
	// Events are the transitions of its incident, in order.
	Events []incident.Event
	// Untold are the messages about its incident that must still be published, in order, regardless of which record caused them.
	Untold []Notice
}

// An alert and its incident are tried again if another writer was faster, after a pause between nothing and a bound that grows.
const (
	applyTries = 12
	pauseMin   = 5 * time.Millisecond
	pauseMax   = 300 * time.Millisecond
)

// errContended: other writers were faster each time.
var errContended = errors.New("other writers changed the same items on every attempt")

// again calls f until it is done, as long as others come between. f reports false if one did.
func again(ctx context.Context, f func() (done bool, err error)) error {
	limit := pauseMin
	for range applyTries {
		done, err := f()
		if done || err != nil {
			return err
		}
		timer := time.NewTimer(rand.N(limit))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		limit = min(2*limit, pauseMax)
	}
	return errContended
}

// Apply moves an alert forward by its record, together with its incident, or changes nothing. to are those to notify: messages to the topic, which has the name [Endpoint], are
// pending in the table until [Table.Told] or [Table.Sent]; messages to other endpoints, at most [MaxEndpoints], are deliveries for [Table.Work]. now is when the record was received.
//
// An error that wraps store.ErrConflict or store.ErrInvalid means that the record is at fault: no further try helps, and the table is unchanged. After
// any other error, the record may have been applied and only the answer lost; another try then finds a repetition.
func (t *Table) Apply(ctx context.Context, now time.Time, it Item, to ...notify.Endpoint) (out Outcome, err error) {
	topic, ledger := topical(to)
	if err := t.register(ctx, ledger); err != nil {
		return Outcome{}, err
	}
	err = again(ctx, func() (done bool, err error) {
		stored, err := t.get(ctx, it.Key)
		switch {
		case err != nil:
			return false, err
		case stored != nil && (stored.ID != it.ID || stored.State.Rank() >= it.State.Rank()):
			if err := contradiction(*stored, it); err != nil {
				return false, err
			}
			out, err = t.known(ctx, *stored, topic)
			return err == nil, err
		}
		out, done, err = t.forward(ctx, now, it, stored, topic, ledger)
		return done, err
	})
	if err != nil {
		return Outcome{}, fmt.Errorf("store alert %s: %w", it.ID, err)
	}
	if out.Made || out.Moved {
		t.bells.ring(ledger)
	}
	return out, nil
}

// known returns the outcome of a record that changes nothing. Without a topic to notify, it does not read messages.
func (t *Table) known(ctx context.Context, stored Item, topic []notify.Endpoint) (Outcome, error) {
	out := Outcome{Item: stored}
	if stored.Incident == "" || len(topic) == 0 {
		return out, nil
	}
	s, err := t.incidentAt(ctx, Key{Partition: t.cfg.incidents(&stored.Record), Sort: stored.SortOf})
	if err != nil || s == nil {
		return out, err
	}
	out.Untold = s.untold
	return out, nil
}

// forward moves an alert forward from what is stored, which may be nothing. It is not done if another writer came between.
func (t *Table) forward(ctx context.Context, now time.Time, it Item, stored *Item, topic, ledger []notify.Endpoint) (out Outcome, done bool, err error) {
	out = Outcome{Made: stored == nil, Moved: stored != nil, Item: it}
	next := &out.Item
	next.OpenedAt, next.Notification = milli(now), None
	if stored != nil {
		next.OpenedAt, next.Notification, next.NotifiedAt = stored.OpenedAt, stored.Notification, stored.NotifiedAt
		next.Incident, next.SortOf, next.Counted = stored.Incident, stored.SortOf, stored.Counted
	}
	if it.State == alert.Closed {
		next.ClosedAt = milli(now)
	}
	var also []types.TransactWriteItem
	var of *change
	if it.WindowStart.IsZero() { // not part of an incident: the message is about the alert itself
		if next.Notification == None && tells(topic, it.Record) {
			next.Notification = Pending
		}
	} else if of, err = t.fold(ctx, now, next, topic); err != nil {
		return Outcome{}, false, err
	} else {
		also = of.writes
	}
	var told change
	if of != nil {
		told = *of
	}
	queued, err := t.address(now, []Item{*next}, told.events, told.key, ledger)
	if err != nil {
		return Outcome{}, false, err
	}
	also = append(also, queued...)
	write, err := t.update(now, *next, stored)
	if err != nil {
		return Outcome{}, false, err
	}
	decides, err := t.decide(now, next)
	if err != nil {
		return Outcome{}, false, err
	}
	also = append(also, decides...)
	if done, err = t.transact(ctx, append([]types.TransactWriteItem{{Update: write}}, also...)); !done || err != nil {
		return Outcome{}, false, err
	}
	out.Events, out.Untold = told.events, told.untold
	return out, true, nil
}

// tells reports whether the topic is notified of an alert that is not part of an incident.
func tells(to []notify.Endpoint, r alert.Record) bool {
	return slices.ContainsFunc(to, func(e notify.Endpoint) bool {
		f := e.Filter
		f.Transitions = alert.States()
		return f.Match(r)
	})
}

// update is the write of an alert. Its condition is that the alert is as it was read.
func (t *Table) update(now time.Time, it Item, stored *Item) (*types.Update, error) {
	values, err := it.recordAttributes()
	if err != nil {
		return nil, err
	}
	if it.State == alert.Closed {
		values[attrClosed] = instant(milli(now))
	}
	if it.Notification == Pending {
		values[attrNotification] = text(string(Pending))
	}
	if it.Incident != "" {
		values[attrIncident], values[attrSortOf], values[attrCounted] = text(it.Incident), decimal(it.SortOf), number(it.Counted)
	}
	t.cfg.expire(values, now)
	e := newExpression()
	for name, v := range values {
		e.set(name, v)
	}
	e.setOnce(attrOpened, instant(it.OpenedAt))
	condition := "attribute_not_exists(#pk)"
	names := e.withName("#pk", partitionKey)
	if stored != nil {
		condition = e.name(attrID) + " = " + e.value(attrID) + " AND " + e.name(attrRank) + " = :before"
		delete(names, "#pk")
		e.values[":before"] = rank(stored.State)
	}
	return &types.Update{
		TableName: &t.cfg.Table, Key: it.Key.attributes(), UpdateExpression: aws.String(e.update()), ConditionExpression: &condition,
		ExpressionAttributeNames: names, ExpressionAttributeValues: e.values,
	}, nil
}

// expire has an item end with the time to live, if alerts do.
func (c Config) expire(values attributes, now time.Time) {
	if c.Retain > 0 {
		values[attrExpires] = number(now.Add(c.Retain).Unix())
	}
}

// get returns the item as the last write left it, or nil if there is none.
func (t *Table) get(ctx context.Context, key Key) (*Item, error) {
	a, err := t.attributesAt(ctx, key)
	if err != nil || a == nil {
		return nil, err
	}
	it, err := readItem(a)
	if err != nil {
		return nil, err
	}
	return &it, nil
}

// attributesAt are those of an item as the last write left it; nil if there is none.
func (t *Table) attributesAt(ctx context.Context, key Key) (attributes, error) {
	res, err := t.api.GetItem(ctx, &sdk.GetItemInput{TableName: &t.cfg.Table, Key: key.attributes(), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return nil, t.translate(err)
	}
	if len(res.Item) == 0 {
		return nil, nil
	}
	return res.Item, nil
}

// Sent records that the message about a pending alert has been published. It does nothing if that is recorded already, or if the alert is gone.
// After an error, it may have been recorded.
func (t *Table) Sent(ctx context.Context, now time.Time, it Item) error {
	err := t.touch(ctx, &sdk.UpdateItemInput{
		TableName: &t.cfg.Table, Key: it.Key.attributes(),
		UpdateExpression:         aws.String("SET #notification = :sent, #notified = :now"),
		ConditionExpression:      aws.String("#id = :id AND #notification = :pending"),
		ExpressionAttributeNames: map[string]string{"#id": attrID, "#notification": attrNotification, "#notified": attrNotified},
		ExpressionAttributeValues: attributes{
			":id": text(it.ID), ":sent": text(string(Sent)), ":pending": text(string(Pending)), ":now": instant(milli(now)),
		},
	})
	if err != nil && !conditionFailed(err) {
		return fmt.Errorf("record that alert %s was published: %w", it.ID, t.translate(err))
	}
	return nil
}

// touch makes a write of one item, and again while a transaction has it.
func (t *Table) touch(ctx context.Context, in *sdk.UpdateItemInput) error {
	return again(ctx, func() (bool, error) {
		_, err := t.api.UpdateItem(ctx, in)
		if transactionConflict(err) {
			return false, nil
		}
		return err == nil, err
	})
}

// transact makes writes, all or none. It is not done if a condition did not hold, or another transaction was under way.
func (t *Table) transact(ctx context.Context, writes []types.TransactWriteItem) (done bool, err error) {
	_, err = t.api.TransactWriteItems(ctx, &sdk.TransactWriteItemsInput{TransactItems: writes})
	if err == nil {
		return true, nil
	}
	if overtaken(err) {
		return false, nil
	}
	return false, t.translate(err)
}

func milli(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()).UTC() }
