package dynamodb

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/store"
)

// MaxEndpoints is how many endpoints, without the topic, are notified at most: a message needs two writes for each, and a transaction of DynamoDB has room for
// 100, of which the alert and its incident need up to seven.
const MaxEndpoints = 40

// dueParts is how many partitions the due deliveries of one endpoint are spread over, so that none gets more writes than DynamoDB takes. Another number would lose
// sight of what is due.
const dueParts = 4

// The kinds of items of the ledger.
const (
	kindDelivery    = "delivery"
	kindMessage     = "message"
	kindTry         = "try"
	kindDue         = "due"
	kindUndelivered = "undelivered"
	kindEndpoint    = "endpoint"
	kindMinute      = "minute"
	kindHeld        = "held"
)

// The attributes of items of the ledger.
const (
	attrWebhook  = "webhook_id"
	attrEndpoint = "endpoint"
	attrType     = "type"
	attrTries    = "tries"
	attrCounting = "counted"
	attrCreated  = "created_at"
	attrBegun    = "begun_at"
	attrNext     = "next_at"
	attrDigest   = "digest"
	attrData     = "data"
	attrRef      = "ref"
	attrChange   = "change" // of a delivery: the number of its changes
	attrSealed   = "sealed" // of a digest: nothing more is held for it
	// Of a delivery: where its alert or incident is.
	attrSubject     = "subject_partition_key"
	attrSubjectSort = "subject_sort_key"

	// Of a try.
	attrN       = "n"
	attrAt      = "at"
	attrTook    = "took_ms"
	attrStatus  = "status"
	attrOutcome = "outcome"
	attrReason  = "reason"

	// Of a due delivery: who works on it, and until when nobody else does; how many messages of a minute are sent alone, and whether this is one of them.
	attrClaim     = "claim"
	attrNotBefore = "not_before_ms"
	attrAbove     = "above"
	attrDigests   = "digest_type"
	attrAlone     = "alone"

	// Of an endpoint.
	attrDisabled   = "disabled_at"
	attrConfig     = "config" // JSON
	attrConfigured = "configured_at"
	attrOnce       = "disabled_before"
	attrTest       = "test" // webhook id of the newest test

	attrSent     = "sent_alone" // of a minute of an endpoint
	attrMessages = "messages"   // of what is held for a digest: JSON
)

var _ store.Deliveries = (*Table)(nil)

// ofSubject is the end of the id of a message about an alert or an incident.
var ofSubject = regexp.MustCompile(`_(opened|raised|closed|escalated_[0-9]{1,9}|resolved)$`)

// subjectOf is what a message is about: the id of an alert or an incident, or the message itself. Messages about one incident have one subject.
func subjectOf(webhookID string) string { return ofSubject.ReplaceAllString(webhookID, "") }

// partitionOf is a partition of the ledger.
func (c Config) partitionOf(what, name string) string {
	before, after := what+"#", "#appserver#"+c.server()
	if len(before)+len(name)+len(after) > maxPartition {
		sum := sha256.Sum256([]byte(name))
		name = "sha256:" + hex.EncodeToString(sum[:])
	}
	return before + name + after
}

// hashSort is a sort key made of texts.
func hashSort(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		_ = binary.Write(h, binary.BigEndian, int64(len(p))) // a hash takes everything
		h.Write([]byte(p))
	}
	return strconv.FormatUint(binary.BigEndian.Uint64(h.Sum(nil)), 10)
}

// subject is the partition of the deliveries, messages and tries about an alert, an incident or a digest.
func (c Config) subject(id string) string { return c.partitionOf(kindDelivery, id) }

func (c Config) deliveryKey(webhookID, endpoint string) Key {
	return Key{Partition: c.subject(subjectOf(webhookID)), Sort: hashSort(kindDelivery, webhookID, endpoint)}
}

func (c Config) messageKey(webhookID string) Key {
	return Key{Partition: c.subject(subjectOf(webhookID)), Sort: hashSort(kindMessage, webhookID)}
}

func (c Config) tryKey(webhookID, endpoint string, n int) Key {
	return Key{Partition: c.subject(subjectOf(webhookID)), Sort: hashSort(kindTry, webhookID, endpoint, strconv.Itoa(n))}
}

func (c Config) duePartition(endpoint string, part int) string {
	return c.partitionOf(kindDue, endpoint+"#"+strconv.Itoa(part))
}

func (c Config) dueKey(webhookID, endpoint string, at time.Time) Key {
	sum := sha256.Sum256([]byte(webhookID))
	return Key{Partition: c.duePartition(endpoint, int(sum[0])%dueParts), Sort: seconds(at, idDigits(webhookID))}
}

func (c Config) undeliveredPartition(endpoint string) string {
	return c.partitionOf(kindUndelivered, endpoint)
}

func (c Config) undeliveredKey(d *delivery) Key {
	return Key{Partition: c.undeliveredPartition(d.Endpoint), Sort: seconds(d.CreatedAt, idDigits(d.WebhookID))}
}

// delivery is a delivery as the table has it.
type delivery struct {
	store.Delivery
	change  int64
	subject Key // where its alert or incident is; empty: it is a digest or a test
	sealed  bool
}

// due is an item of the index of due deliveries.
type due struct {
	key                 Key
	webhookID, endpoint string
	created             time.Time
	above               int64  // more than so many of a minute are held for a digest; 0: this is sent alone
	digestType          string // of that digest
}

// putItem writes an item of the ledger, whatever is there. Such items are kept for a month longer than alerts: some are still to be worked off.
func (t *Table) putItem(key Key, kind string, now time.Time, values attributes) types.TransactWriteItem {
	for name, v := range key.attributes() {
		values[name] = v
	}
	values[attrKind] = text(kind)
	t.cfg.expire(values, now.Add(openKept))
	return types.TransactWriteItem{Put: &types.Put{TableName: &t.cfg.Table, Item: values}}
}

func (t *Table) deleteItem(key Key) types.TransactWriteItem {
	return types.TransactWriteItem{Delete: &types.Delete{TableName: &t.cfg.Table, Key: key.attributes()}}
}

// putDelivery writes a new delivery.
func (t *Table) putDelivery(now time.Time, d *delivery) types.TransactWriteItem {
	values := attributes{
		attrWebhook: text(d.WebhookID), attrEndpoint: text(d.Endpoint), attrType: text(d.Type), attrState: text(string(d.State)), attrTries: number(0), attrCounting: number(0),
		attrCreated: instant(d.CreatedAt), attrBegun: instant(d.BegunAt), attrNext: instant(d.NextAt), attrChange: number(0),
	}
	for name, value := range map[string]string{attrIncident: d.Incident, attrAlert: d.AlertID, attrSubject: d.subject.Partition} {
		if value != "" {
			values[name] = text(value)
		}
	}
	if d.subject.Sort != "" {
		values[attrSubjectSort] = decimal(d.subject.Sort)
	}
	return t.putItem(t.cfg.deliveryKey(d.WebhookID, d.Endpoint), kindDelivery, now, values)
}

// putDue makes a delivery due at its time.
func (t *Table) putDue(now time.Time, d *delivery, above int, digestType string) types.TransactWriteItem {
	values := attributes{attrWebhook: text(d.WebhookID), attrEndpoint: text(d.Endpoint), attrCreated: instant(d.CreatedAt)}
	if above > 0 {
		values[attrAbove], values[attrDigests] = number(int64(above)), text(digestType)
	}
	return t.putItem(t.cfg.dueKey(d.WebhookID, d.Endpoint, d.NextAt), kindDue, now, values)
}

// topical are the endpoints whose messages wait in the incident itself, to be published to the topic; those of the rest wait in the ledger.
func topical(to []notify.Endpoint) (topic, ledger []notify.Endpoint) {
	for _, e := range to {
		if e.Name == Endpoint {
			topic = append(topic, e)
		} else {
			ledger = append(ledger, e)
		}
	}
	return topic, ledger
}

// address returns the writes that queue messages about an alert that moved, and about what became of its incident, for those who are notified of them.
func (t *Table) address(now time.Time, moved []Item, events []incident.Event, of Key, to []notify.Endpoint) ([]types.TransactWriteItem, error) {
	if len(to) == 0 {
		return nil, nil
	}
	if len(to) > MaxEndpoints {
		return nil, fmt.Errorf("there are %d endpoints; the maximum is %d", len(to), MaxEndpoints)
	}
	var records []alert.Record
	for _, it := range moved {
		records = append(records, it.Record)
	}
	outgoing, err := store.Address(now, records, events, to)
	if err != nil {
		return nil, err
	}
	var out []types.TransactWriteItem
	written := make(map[string]bool) // messages: all endpoints have the same data
	for _, o := range outgoing {
		for n, d := range o.Deliveries {
			k := &delivery{Delivery: d, subject: of}
			if d.AlertID != "" {
				k.subject = moved[0].Key
			}
			above := 0
			if slices.Contains(o.Ordinary, n) {
				above = o.Endpoint.DigestAbove
			}
			if !written[d.WebhookID] {
				written[d.WebhookID] = true
				out = append(out, t.putItem(t.cfg.messageKey(d.WebhookID), kindMessage, now, attributes{attrWebhook: text(d.WebhookID), attrData: text(string(d.Data))}))
			}
			out = append(out, t.putDelivery(now, k), t.putDue(now, k, above, o.Endpoint.DigestType()))
		}
	}
	return out, nil
}

// register makes endpoints known, so that they are listed. It is done once in a process, before the first message to an endpoint is stored.
func (t *Table) register(ctx context.Context, to []notify.Endpoint) error {
	for _, e := range to {
		if _, known := t.registered.Load(e.Name); known {
			continue
		}
		x := t.endpointUpdate(e.Name)
		if err := t.touch(ctx, t.updateOf(t.cfg.endpointKey(e.Name), x, "")); err != nil {
			return fmt.Errorf("record endpoint %s: %w", e.Name, t.translate(err))
		}
		t.registered.Store(e.Name, true)
	}
	return nil
}

// updateOf is an update of one item; condition may be empty.
func (t *Table) updateOf(key Key, e *expression, condition string) *sdk.UpdateItemInput {
	u := t.writeOf(key, e, condition).Update
	return &sdk.UpdateItemInput{
		TableName: u.TableName, Key: u.Key, UpdateExpression: u.UpdateExpression, ConditionExpression: u.ConditionExpression,
		ExpressionAttributeNames: u.ExpressionAttributeNames, ExpressionAttributeValues: u.ExpressionAttributeValues,
	}
}

// writeOf is the same as a part of a transaction. Names in the condition are those of the expression, and #pk.
func (t *Table) writeOf(key Key, e *expression, condition string) types.TransactWriteItem {
	update := e.update()
	u := &types.Update{TableName: &t.cfg.Table, Key: key.attributes(), UpdateExpression: &update, ExpressionAttributeNames: e.names, ExpressionAttributeValues: e.values}
	if condition != "" {
		u.ConditionExpression = &condition
		if strings.Contains(condition, "#pk") { // DynamoDB refuses names that are not used
			u.ExpressionAttributeNames = e.withName("#pk", partitionKey)
		}
	}
	return types.TransactWriteItem{Update: u}
}

// readDelivery reads an item of a delivery. Its message is elsewhere.
func readDelivery(a attributes) (*delivery, error) {
	r := &reader{attributes: a}
	d := &delivery{
		Delivery: store.Delivery{
			WebhookID: r.text(attrWebhook), Endpoint: r.text(attrEndpoint), Incident: r.text(attrIncident), AlertID: r.text(attrAlert), Type: r.text(attrType),
			State: store.DeliveryState(r.text(attrState)), Tries: int(r.number(attrTries)), Counted: int(r.number(attrCounting)),
			CreatedAt: r.instant(attrCreated), BegunAt: r.instant(attrBegun), NextAt: r.instant(attrNext), Digest: r.text(attrDigest), Ref: r.text(attrRef),
		},
		change: r.number(attrChange), subject: Key{Partition: r.text(attrSubject), Sort: r.decimal(attrSubjectSort)}, sealed: r.truth(attrSealed),
	}
	if data := r.text(attrData); data != "" {
		d.Data = json.RawMessage(data)
	}
	if r.err != nil {
		return nil, fmt.Errorf("delivery %s to %s: %w", d.WebhookID, d.Endpoint, r.err)
	}
	return d, nil
}

func readDue(a attributes) (due, error) {
	r := &reader{attributes: a}
	d := due{
		key: Key{Partition: r.text(partitionKey), Sort: r.decimal(sortKey)}, webhookID: r.text(attrWebhook), endpoint: r.text(attrEndpoint), created: r.instant(attrCreated),
		above: r.number(attrAbove), digestType: r.text(attrDigests),
	}
	if r.truth(attrAlone) {
		d.above = 0
	}
	if r.err != nil {
		return d, fmt.Errorf("due delivery %s to %s: %w", d.webhookID, d.endpoint, r.err)
	}
	return d, nil
}

// bells wake those who work on the deliveries of an endpoint in this process.
type bells struct{ m sync.Map }

func (b *bells) of(endpoint string) chan struct{} {
	c, _ := b.m.LoadOrStore(endpoint, make(chan struct{}, 1))
	return c.(chan struct{})
}

func (b *bells) ring(to []notify.Endpoint) {
	for _, e := range to {
		ring(b.of(e.Name))
	}
}

func ring(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
