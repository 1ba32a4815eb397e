package dynamodb

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"spate/shared/notify"
	"spate/shared/store"
)

// about yields the deliveries of all messages about a subject.
func (t *Table) about(ctx context.Context, subject string) iter.Seq2[store.Delivery, error] {
	return func(yield func(store.Delivery, error) bool) {
		g := newGathered()
		err := t.query(ctx, &sdk.QueryInput{
			KeyConditionExpression: aws.String("#pk = :pk"), FilterExpression: aws.String("#kind <> :try"), ExpressionAttributeNames: map[string]string{"#pk": partitionKey, "#kind": attrKind},
			ExpressionAttributeValues: attributes{":pk": text(t.cfg.subject(subject)), ":try": text(kindTry)},
		}, g.add)
		if err != nil {
			yield(store.Delivery{}, err)
			return
		}
		for _, d := range g.all() {
			if !yield(d, nil) {
				return
			}
		}
	}
}

// gathered are items of deliveries and of their messages, in any order.
type gathered struct {
	deliveries []*delivery
	data       map[string]json.RawMessage // by webhook id
	refs       map[[2]string]*delivery    // by incident and endpoint: the first that has a reference
}

func newGathered() *gathered {
	return &gathered{data: make(map[string]json.RawMessage), refs: make(map[[2]string]*delivery)}
}

func (g *gathered) add(a attributes) error {
	r := &reader{attributes: a}
	switch r.text(attrKind) {
	case kindMessage:
		g.data[r.text(attrWebhook)] = json.RawMessage(r.text(attrData))
		return r.err
	case kindDelivery:
		d, err := readDelivery(a)
		if err == nil {
			g.deliveries = append(g.deliveries, d)
			g.refer(d)
		}
		return err
	}
	return r.err
}

func (g *gathered) refer(d *delivery) {
	of := [2]string{d.Incident, d.Endpoint}
	if first := g.refs[of]; d.Ref != "" && d.Incident != "" && (first == nil || cmp.Or(d.CreatedAt.Compare(first.CreatedAt), cmp.Compare(d.WebhookID, first.WebhookID)) < 0) {
		g.refs[of] = d
	}
}

// all returns the deliveries with their data and with what the endpoint made of earlier messages.
func (g *gathered) all() []store.Delivery {
	out := make([]store.Delivery, len(g.deliveries))
	for n, d := range g.deliveries {
		out[n] = d.Delivery
		if out[n].Ref = ""; d.Incident != "" {
			if first := g.refs[[2]string{d.Incident, d.Endpoint}]; first != nil {
				out[n].Ref = first.Ref
			}
		}
		if d.State != store.Held && d.Data == nil {
			out[n].Data = g.data[d.WebhookID]
		}
	}
	return out
}

// ListDeliveries implements store.Deliveries; it also yields the messages to the topic, as those to an endpoint with the name [Endpoint]. For these, the number of tries is not
// stored, and neither is a message that was published. Messages of one id, alert or incident are read by it, those that are pending, exhausted or disabled by an
// index; otherwise the whole table is read, as [Table.Alerts] does.
func (t *Table) ListDeliveries(ctx context.Context, f store.DeliveryFilter) iter.Seq2[store.Delivery, error] {
	return func(yield func(store.Delivery, error) bool) {
		list, err := t.listDeliveries(ctx, f)
		if err != nil {
			yield(store.Delivery{}, fmt.Errorf("list deliveries: %w", err))
			return
		}
		for _, d := range list {
			if !yield(d, nil) {
				return
			}
		}
	}
}

func (t *Table) listDeliveries(ctx context.Context, f store.DeliveryFilter) (found []store.Delivery, err error) {
	if err := f.Validate(); err != nil {
		return nil, err
	}
	add := func(list []store.Delivery) {
		for _, d := range list {
			if fitsDelivery(f, &d) {
				found = append(found, d)
			}
		}
	}
	if f.Endpoint != Endpoint {
		list, err := t.ledger(ctx, f)
		if err != nil {
			return nil, err
		}
		add(list)
	}
	if f.AlertID == "" && (f.Endpoint == "" || f.Endpoint == Endpoint) {
		list, err := t.toTopic(ctx, f)
		if err != nil {
			return nil, err
		}
		add(list)
	}
	slices.SortFunc(found, func(a, b store.Delivery) int {
		order := cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.WebhookID, b.WebhookID), cmp.Compare(a.Endpoint, b.Endpoint))
		if f.Newest {
			return -order
		}
		return order
	})
	if f.Limit > 0 {
		found = found[:min(f.Limit, len(found))]
	}
	return found, nil
}

// ledger returns the deliveries that may match, and others.
func (t *Table) ledger(ctx context.Context, f store.DeliveryFilter) ([]store.Delivery, error) {
	subject := ""
	switch {
	case f.WebhookID != "":
		subject = subjectOf(f.WebhookID)
	case f.Incident != "":
		subject = f.Incident
	case f.AlertID != "":
		subject = f.AlertID
	}
	if subject != "" {
		var out []store.Delivery
		for d, err := range t.about(ctx, subject) {
			if err != nil {
				return nil, err
			}
			out = append(out, d)
		}
		return out, nil
	}
	indexed := len(f.States) > 0 && !slices.ContainsFunc(f.States, func(s store.DeliveryState) bool {
		return s != store.Pending && s != store.Exhausted && s != store.Disabled
	})
	if indexed {
		return t.unsettled(ctx, f)
	}
	g := newGathered()
	err := t.scanAll(ctx, &sdk.ScanInput{
		FilterExpression: aws.String("#kind IN (:delivery, :message)"), ExpressionAttributeNames: map[string]string{"#kind": attrKind},
		ExpressionAttributeValues: attributes{":delivery": text(kindDelivery), ":message": text(kindMessage)},
	}, func(a attributes) (bool, error) { return true, g.add(a) })
	return g.all(), err
}

// toTopic returns the messages to the topic that may match, and others.
func (t *Table) toTopic(ctx context.Context, f store.DeliveryFilter) (out []store.Delivery, err error) {
	id := f.Incident
	if id == "" && f.WebhookID != "" {
		if id = subjectOf(f.WebhookID); !isHex(id) {
			return nil, nil // it is of a digest
		}
	}
	if id == "" && indexed(f) {
		list, err := t.unfinished(ctx)
		for _, k := range list {
			if k != nil {
				out = append(out, k.deliveries()...)
			}
		}
		return out, err
	}
	list, err := t.listIncidents(ctx, store.IncidentFilter{ID: id})
	for _, k := range list {
		out = append(out, k.deliveries()...)
	}
	return out, err
}

// indexed reports whether there is an index of all that can match.
func indexed(f store.DeliveryFilter) bool {
	return len(f.States) > 0 && !slices.ContainsFunc(f.States, func(s store.DeliveryState) bool {
		return s != store.Pending && s != store.Exhausted && s != store.Disabled
	})
}

// unsettled returns the deliveries that are not delivered, by the indexes.
func (t *Table) unsettled(ctx context.Context, f store.DeliveryFilter) (out []store.Delivery, err error) {
	names := []string{f.Endpoint}
	if f.Endpoint == "" {
		known, err := t.knownEndpoints(ctx)
		if err != nil {
			return nil, err
		}
		names = names[:0]
		for _, e := range known {
			names = append(names, e.Name)
		}
	}
	for _, name := range names {
		partitions := []string{t.cfg.undeliveredPartition(name)}
		for part := range dueParts {
			partitions = append(partitions, t.cfg.duePartition(name, part))
		}
		for _, p := range partitions {
			var ids []string
			err := t.query(ctx, &sdk.QueryInput{
				KeyConditionExpression: aws.String("#pk = :pk"), ExpressionAttributeNames: map[string]string{"#pk": partitionKey}, ExpressionAttributeValues: attributes{":pk": text(p)},
			}, func(a attributes) error {
				r := &reader{attributes: a}
				ids = append(ids, r.text(attrWebhook))
				return r.err
			})
			if err != nil {
				return nil, err
			}
			for _, id := range ids {
				d, err := t.Delivery(ctx, id, name)
				if isNoDelivery(err) || err == nil && slices.ContainsFunc(out, func(o store.Delivery) bool { return o.WebhookID == id && o.Endpoint == name }) {
					continue // it has expired, or moved from one index to the other meanwhile
				} else if err != nil {
					return nil, err
				}
				out = append(out, d)
			}
		}
	}
	return out, nil
}

func fitsDelivery(f store.DeliveryFilter, d *store.Delivery) bool {
	return (f.WebhookID == "" || f.WebhookID == d.WebhookID) &&
		(f.Endpoint == "" || f.Endpoint == d.Endpoint) &&
		(f.AlertID == "" || f.AlertID == d.AlertID) &&
		(f.Incident == "" || f.Incident == d.Incident) &&
		(len(f.States) == 0 || slices.Contains(f.States, d.State)) &&
		!d.CreatedAt.Before(f.Since)
}

// ListTries implements store.Deliveries. Those of one message are read by its id; otherwise the whole table is read.
func (t *Table) ListTries(ctx context.Context, f store.TryFilter) iter.Seq2[store.Try, error] {
	return func(yield func(store.Try, error) bool) {
		list, err := t.listTries(ctx, f)
		if err != nil {
			yield(store.Try{}, fmt.Errorf("list attempts: %w", err))
			return
		}
		for _, v := range list {
			if !yield(v, nil) {
				return
			}
		}
	}
}

func (t *Table) listTries(ctx context.Context, f store.TryFilter) (found []store.Try, err error) {
	if err := f.Validate(); err != nil {
		return nil, err
	}
	add := func(a attributes) error {
		v, err := readTry(a)
		if err == nil && (f.WebhookID == "" || f.WebhookID == v.WebhookID) && (f.Endpoint == "" || f.Endpoint == v.Endpoint) &&
			(f.Outcome == "" || f.Outcome == v.Outcome) && !v.At.Before(f.Since) {
			found = append(found, v)
		}
		return err
	}
	names, values := map[string]string{"#kind": attrKind}, attributes{":try": text(kindTry)}
	if f.WebhookID != "" {
		names["#pk"], values[":pk"] = partitionKey, text(t.cfg.subject(subjectOf(f.WebhookID)))
		err = t.query(ctx, &sdk.QueryInput{
			KeyConditionExpression: aws.String("#pk = :pk"), FilterExpression: aws.String("#kind = :try"), ExpressionAttributeNames: names, ExpressionAttributeValues: values,
		}, add)
	} else {
		err = t.scanAll(ctx, &sdk.ScanInput{FilterExpression: aws.String("#kind = :try"), ExpressionAttributeNames: names, ExpressionAttributeValues: values},
			func(a attributes) (bool, error) { return true, add(a) })
	}
	slices.SortFunc(found, func(a, b store.Try) int {
		order := cmp.Or(a.At.Compare(b.At), cmp.Compare(a.WebhookID, b.WebhookID), cmp.Compare(a.Endpoint, b.Endpoint), cmp.Compare(a.N, b.N))
		if f.Newest {
			return -order
		}
		return order
	})
	if f.Limit > 0 {
		found = found[:min(f.Limit, len(found))]
	}
	return found, err
}

func readTry(a attributes) (store.Try, error) {
	r := &reader{attributes: a}
	v := store.Try{
		WebhookID: r.text(attrWebhook), Endpoint: r.text(attrEndpoint), N: int(r.number(attrN)), At: r.instant(attrAt), Took: r.duration(attrTook), Status: int(r.number(attrStatus)),
		Outcome: notify.Outcome(r.text(attrOutcome)), Reason: r.text(attrReason), NextAt: r.instant(attrNext),
	}
	if r.err != nil {
		return v, fmt.Errorf("attempt of %s at %s: %w", v.WebhookID, v.Endpoint, r.err)
	}
	return v, nil
}
