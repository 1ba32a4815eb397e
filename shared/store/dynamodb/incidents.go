package dynamodb

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"golang.org/x/sync/errgroup"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/store"
)

// Endpoint is the name under which deliveries to the topic are listed.
const Endpoint = "sns"

// Incidents yields the incidents that match f, as store.Incidents does. Those that are open are read by their index, and the one with a whole id by the messages about it, if there
// are any in the ledger; otherwise, like [Table.Alerts], it reads the whole table.
func (t *Table) Incidents(ctx context.Context, f store.IncidentFilter) iter.Seq2[incident.Incident, error] {
	return func(yield func(incident.Incident, error) bool) {
		list, err := t.listIncidents(ctx, f)
		if err != nil {
			yield(incident.Incident{}, fmt.Errorf("list incidents: %w", err))
			return
		}
		for _, k := range list {
			if !yield(k.Incident, nil) {
				return
			}
		}
	}
}

func (t *Table) listIncidents(ctx context.Context, f store.IncidentFilter) (found []kept, err error) {
	if err := f.Validate(); err != nil {
		return nil, err
	}
	known, err := t.indexed(ctx, f)
	if err != nil {
		return nil, err
	}
	for _, k := range known {
		if k != nil && fitsIncident(f, &k.Incident) {
			found = append(found, *k)
		}
	}
	if known == nil {
		err = t.scanAll(ctx, &sdk.ScanInput{
			FilterExpression: aws.String("#kind = :incident"), ExpressionAttributeNames: map[string]string{"#kind": attrKind}, ExpressionAttributeValues: attributes{":incident": text(kindIncident)},
		}, func(a attributes) (bool, error) {
			k, err := readIncident(a)
			if err == nil && fitsIncident(f, &k.Incident) {
				found = append(found, k)
			}
			return true, err
		})
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b kept) int {
		order := cmp.Or(a.FirstWindowStart.Compare(b.FirstWindowStart), cmp.Compare(a.ID, b.ID))
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

// idLength is how many digits the id of an incident has.
const idLength = 32

// indexed returns incidents that may match f, and others, without reading the whole table; nil if that is not possible.
func (t *Table) indexed(ctx context.Context, f store.IncidentFilter) (out []*kept, err error) {
	var keys []Key
	switch {
	case len(f.ID) == idLength:
		err = t.query(ctx, &sdk.QueryInput{
			KeyConditionExpression: aws.String("#pk = :pk"), FilterExpression: aws.String("#kind = :delivery"), ExpressionAttributeNames: map[string]string{"#pk": partitionKey, "#kind": attrKind},
			ExpressionAttributeValues: attributes{":pk": text(t.cfg.subject(f.ID)), ":delivery": text(kindDelivery)},
		}, func(a attributes) error {
			d, err := readDelivery(a)
			if err != nil || d.Incident == "" {
				return err
			}
			keys = append(keys, d.subject)
			return errEnough
		})
		if err != nil && err != errEnough { //nolint:errorlint // it is ours, and nobody wraps it
			return nil, err
		}
		if keys == nil {
			return nil, nil
		}
	case f.State == incident.StateOpen:
		return t.unfinished(ctx)
	default:
		return nil, nil
	}
	return t.incidentsAt(ctx, keys)
}

// unfinished returns the incidents of the index: those that are open, and those about which the topic is still to be told.
func (t *Table) unfinished(ctx context.Context) ([]*kept, error) {
	var keys []Key
	for n := range openParts {
		found, err := t.pointers(ctx, n, time.Time{}, 0)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			keys = append(keys, p.of)
		}
	}
	return t.incidentsAt(ctx, keys)
}

// incidentsAt returns the incidents at keys; nil where there is none.
func (t *Table) incidentsAt(ctx context.Context, keys []Key) ([]*kept, error) {
	out := make([]*kept, len(keys))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readAtOnce)
	for n, key := range keys {
		g.Go(func() (err error) {
			out[n], err = t.incidentAt(ctx, key)
			return err
		})
	}
	return out, g.Wait()
}

func fitsIncident(f store.IncidentFilter, i *incident.Incident) bool {
	return strings.HasPrefix(i.ID, f.ID) &&
		(f.Key == "" || f.Key == string(i.Key)) &&
		(f.Rule == "" || f.Rule == i.Rule) &&
		(f.State == "" || f.State == i.State) &&
		(f.MinSeverity != alert.Critical || i.Severity == alert.Critical) &&
		(f.Mark == "" || i.Marked != nil && f.Mark == i.Mark) &&
		(f.Silenced == "" || f.Silenced == i.Silenced) &&
		(f.OpenedSince.IsZero() || !i.OpenedAt.Before(f.OpenedSince)) &&
		(f.Since.IsZero() || i.LastWindowEnd.After(f.Since)) &&
		(f.Until.IsZero() || i.FirstWindowStart.Before(f.Until))
}

// theIncident returns the one with an id, or store.ErrNoIncident. It reads the table until it finds it.
func (t *Table) theIncident(ctx context.Context, id string) (k kept, err error) {
	err = t.scanAll(ctx, &sdk.ScanInput{
		FilterExpression: aws.String("#kind = :incident AND #incident = :id"), ExpressionAttributeNames: map[string]string{"#kind": attrKind, "#incident": attrIncident},
		ExpressionAttributeValues: attributes{":incident": text(kindIncident), ":id": text(id)},
	}, func(a attributes) (bool, error) {
		var err error
		k, err = readIncident(a)
		return false, err
	})
	if err == nil && k.ID == "" {
		err = fmt.Errorf("%w: id %q", store.ErrNoIncident, id)
	}
	return k, err
}

// Mark sets or removes the mark of an incident, as store.Incidents does.
func (t *Table) Mark(ctx context.Context, id string, m incident.Marked) error {
	mark, err := store.MarkText(&m)
	if err != nil {
		return err
	}
	k, err := t.theIncident(ctx, id)
	if err != nil {
		return fmt.Errorf("mark incident %q: %w", id, err)
	}
	e := newExpression()
	e.set(attrIncident, text(id)) // as it is: an update has to set something
	if mark == nil {
		e.remove(attrMark)
	} else {
		e.set(attrMark, text(*mark))
	}
	err = t.touch(ctx, &sdk.UpdateItemInput{
		TableName: &t.cfg.Table, Key: k.key.attributes(), UpdateExpression: aws.String(e.update()), ConditionExpression: aws.String("attribute_exists(#pk)"),
		ExpressionAttributeNames: e.withName("#pk", partitionKey), ExpressionAttributeValues: e.values,
	})
	switch {
	case conditionFailed(err): // its time to live has ended meanwhile
		return fmt.Errorf("%w: id %q", store.ErrNoIncident, id)
	case err != nil:
		return fmt.Errorf("mark incident %q: %w", id, t.translate(err))
	}
	return nil
}

// deliveries are the messages about an incident to the topic.
func (k *kept) deliveries() (out []store.Delivery) {
	add := func(tr incident.Transition, state store.DeliveryState, at time.Time, tries int) {
		e := incident.Event{Transition: tr, Incident: k.Incident}
		out = append(out, store.Delivery{WebhookID: e.ID(), Endpoint: Endpoint, Incident: k.ID, Type: "incident." + string(tr), State: state, Tries: tries, CreatedAt: at})
	}
	for _, tr := range transitions {
		if at := k.toldAt[tr]; !at.IsZero() {
			add(tr, store.Delivered, at, 1)
		}
		for _, n := range k.untold {
			if n.Transition == tr {
				add(tr, store.Pending, n.Message.At, 0)
			}
		}
	}
	return out
}

// scanAll reads pages until f has enough.
func (t *Table) scanAll(ctx context.Context, in *sdk.ScanInput, f func(attributes) (more bool, err error)) error {
	in.TableName = &t.cfg.Table
	for {
		res, err := t.api.Scan(ctx, in)
		if err != nil {
			return t.translate(err)
		}
		for _, a := range res.Items {
			if more, err := f(a); err != nil || !more {
				return err
			}
		}
		if len(res.LastEvaluatedKey) == 0 {
			return nil
		}
		in.ExclusiveStartKey = res.LastEvaluatedKey
	}
}
