package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/alert"
)

// API is what a Table needs of *dynamodb.Client. The alerter calls UpdateItem and GetItem only.
type API interface {
	UpdateItem(ctx context.Context, in *sdk.UpdateItemInput, opts ...func(*sdk.Options)) (*sdk.UpdateItemOutput, error)
	GetItem(ctx context.Context, in *sdk.GetItemInput, opts ...func(*sdk.Options)) (*sdk.GetItemOutput, error)
	Scan(ctx context.Context, in *sdk.ScanInput, opts ...func(*sdk.Options)) (*sdk.ScanOutput, error)
	CreateTable(ctx context.Context, in *sdk.CreateTableInput, opts ...func(*sdk.Options)) (*sdk.CreateTableOutput, error)
	DescribeTable(ctx context.Context, in *sdk.DescribeTableInput, opts ...func(*sdk.Options)) (*sdk.DescribeTableOutput, error)
	DescribeTimeToLive(ctx context.Context, in *sdk.DescribeTimeToLiveInput, opts ...func(*sdk.Options)) (*sdk.DescribeTimeToLiveOutput, error)
	UpdateTimeToLive(ctx context.Context, in *sdk.UpdateTimeToLiveInput, opts ...func(*sdk.Options)) (*sdk.UpdateTimeToLiveOutput, error)
}

var _ API = (*sdk.Client)(nil)

// Table keeps alerts. It is safe for concurrent use, also by several processes.
type Table struct {
	api API
	cfg Config
}

// New returns the table. It asks nobody whether it is there.
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

// Outcome is what became of a record.
type Outcome struct {
	// Made tells that it made the alert, Moved that it moved one forward that was there. Neither: it was known already.
	Made, Moved bool
	// Item is the alert as the table has it now. If its Notification is Pending, it must still be notified.
	Item Item
}

// applyTries bounds how often an item may vanish between the write that found it and the read that asks why: it has a time to live.
const applyTries = 3

// Apply makes a record move its alert forward, or change nothing. notify makes the alert pending, unless it is pending or sent already.
// now is when the table hears of the record.
//
// An error that wraps store.ErrConflict or store.ErrInvalid is the record's, and no further try helps; the table is as it was. With any
// other, the record may have been applied, and only the answer was lost: trying again finds it known.
func (t *Table) Apply(ctx context.Context, now time.Time, it Item, notify bool) (Outcome, error) {
	for range applyTries {
		out, done, err := t.apply(ctx, now, it, notify)
		if err != nil {
			return Outcome{}, fmt.Errorf("store alert %s: %w", it.ID, err)
		}
		if done {
			return out, nil
		}
	}
	return Outcome{}, fmt.Errorf("store alert %s: the item was repeatedly created and deleted by another writer", it.ID)
}

func (t *Table) apply(ctx context.Context, now time.Time, it Item, notify bool) (out Outcome, done bool, err error) {
	in, err := t.update(now, it, notify)
	if err != nil {
		return Outcome{}, false, err
	}
	res, err := t.api.UpdateItem(ctx, in)
	switch {
	case conditionFailed(err):
		stored, err := t.get(ctx, it.Key)
		if err != nil || stored == nil {
			return Outcome{}, false, err
		}
		return Outcome{Item: *stored}, true, contradiction(*stored, it)
	case err != nil:
		return Outcome{}, false, t.translate(err)
	}
	before, err := readItem(res.Attributes) // all that it was; what it is follows
	if err != nil {
		return Outcome{}, false, err
	}
	out = Outcome{Made: before.ID == "", Moved: before.ID != "", Item: it}
	out.Item.OpenedAt, out.Item.Notification, out.Item.NotifiedAt = before.OpenedAt, before.Notification, before.NotifiedAt
	if out.Made {
		out.Item.OpenedAt, out.Item.Notification = milli(now), None
	}
	if it.State == alert.Closed {
		out.Item.ClosedAt = milli(now)
	}
	if notify && out.Item.Notification == None {
		out.Item.Notification = Pending
	}
	return out, true, nil
}

// update is the one write. What of it applies is decided by DynamoDB, so that no other writer can come between.
func (t *Table) update(now time.Time, it Item, notify bool) (*sdk.UpdateItemInput, error) {
	values, err := it.recordAttributes()
	if err != nil {
		return nil, err
	}
	if it.State == alert.Closed {
		values[attrClosed] = instant(milli(now))
	}
	if t.cfg.Retain > 0 {
		values[attrExpires] = number(now.Add(t.cfg.Retain).Unix())
	}
	once := attributes{attrOpened: instant(milli(now))}
	if notify {
		once[attrNotification] = text(string(Pending))
	}
	e := newExpression()
	for name, v := range values {
		e.set(name, v)
	}
	for name, v := range once {
		e.setOnce(name, v)
	}
	return &sdk.UpdateItemInput{
		TableName: &t.cfg.Table, Key: it.Key.attributes(),
		UpdateExpression:          aws.String(e.update()),
		ConditionExpression:       aws.String("attribute_not_exists(#pk) OR (" + e.name(attrID) + " = " + e.value(attrID) + " AND " + e.name(attrRank) + " < " + e.value(attrRank) + ")"),
		ExpressionAttributeNames:  e.withName("#pk", partitionKey),
		ExpressionAttributeValues: e.values,
		ReturnValues:              types.ReturnValueAllOld,
	}, nil
}

// get returns the item as the last write left it, or nil if there is none.
func (t *Table) get(ctx context.Context, key Key) (*Item, error) {
	res, err := t.api.GetItem(ctx, &sdk.GetItemInput{TableName: &t.cfg.Table, Key: key.attributes(), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return nil, t.translate(err)
	}
	if len(res.Item) == 0 {
		return nil, nil
	}
	it, err := readItem(res.Item)
	if err != nil {
		return nil, err
	}
	return &it, nil
}

// Sent notes that an alert, which was pending, has been notified. It is fine if somebody else has noted that, or if the alert is gone. With
// an error it may have been noted.
func (t *Table) Sent(ctx context.Context, now time.Time, it Item) error {
	_, err := t.api.UpdateItem(ctx, &sdk.UpdateItemInput{
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

func milli(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()).UTC() }
