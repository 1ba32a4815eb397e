package dynamodb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"spate/shared/alert"
	"spate/shared/store"
)

// Alerts yields the alerts that match f, ordered by window start, then user (bytewise), then id, or in the opposite order. An alert whose window
// is unknown counts as one whose window started when its record arrived. After an error, Alerts yields nothing more.
//
// Alerts reads the whole table, with the cost of a scan, and keeps all matches in memory, because the table is ordered only by user.
func (t *Table) Alerts(ctx context.Context, f store.Filter) iter.Seq2[store.Alert, error] {
	return func(yield func(store.Alert, error) bool) {
		if err := f.Validate(); err != nil {
			yield(store.Alert{}, fmt.Errorf("list alerts: %w", err))
			return
		}
		var found []Item
		told := newTelling()
		err := t.scanAll(ctx, &sdk.ScanInput{}, func(a attributes) (bool, error) {
			it, err := readItem(a)
			switch {
			case err != nil:
				return false, err
			case it.ID == "": // an incident, or what something else wrote
				k, err := readIncident(a)
				if k.ID != "" {
					told.topic[k.ID] = k.summary()
				}
				return true, errors.Join(err, told.add(a))
			case fits(f, it):
				found = append(found, it)
			}
			return true, nil
		})
		if err != nil {
			yield(store.Alert{}, fmt.Errorf("list alerts: %w", err))
			return
		}
		slices.SortFunc(found, func(a, b Item) int {
			order := cmp.Or(a.at().Compare(b.at()), cmp.Compare(string(a.UserID), string(b.UserID)), cmp.Compare(a.ID, b.ID))
			if f.Newest {
				return -order
			}
			return order
		})
		if f.Limit > 0 {
			found = found[:min(f.Limit, len(found))]
		}
		for _, it := range found {
			a := it.Alert()
			a.Delivery = told.of(&a)
			if !yield(a, nil) {
				return
			}
		}
	}
}

func fits(f store.Filter, it Item) bool {
	return strings.HasPrefix(it.ID, f.ID) &&
		(f.User == "" || it.IsUser() && f.User == string(it.UserID)) &&
		(f.State == "" || f.State == it.State) &&
		(f.Rule == "" || f.Rule == it.Rule) &&
		(f.Incident == "" || f.Incident == it.Incident) &&
		(f.MinSeverity != alert.Critical || it.Severity == alert.Critical) &&
		(f.Since.IsZero() || !it.at().Before(f.Since)) &&
		(f.Until.IsZero() || it.at().Before(f.Until))
}

// Alert returns the alert with the id, or store.ErrNotFound. It reads the table until it finds it.
func (t *Table) Alert(ctx context.Context, id string) (store.Alert, error) {
	var found Item
	err := t.scanAll(ctx, &sdk.ScanInput{
		FilterExpression: aws.String("#id = :id"), ExpressionAttributeNames: map[string]string{"#id": attrID}, ExpressionAttributeValues: attributes{":id": text(id)},
	}, func(a attributes) (bool, error) {
		var err error
		found, err = readItem(a)
		return false, err
	})
	switch {
	case err != nil:
		return store.Alert{}, fmt.Errorf("read alert %q: %w", id, err)
	case found.ID == "":
		return store.Alert{}, fmt.Errorf("%w: id %q", store.ErrNotFound, id)
	}
	out := found.Alert()
	if out.Delivery, err = t.told(ctx, &found, &out); err != nil {
		return store.Alert{}, fmt.Errorf("read alert %q: %w", id, err)
	}
	return out, nil
}

// told returns how far the telling of an alert is.
func (t *Table) told(ctx context.Context, it *Item, a *store.Alert) (store.Summary, error) {
	told := newTelling()
	subjects := []string{it.ID}
	if it.Incident != "" {
		k, err := t.incidentAt(ctx, Key{Partition: t.cfg.incidents(&it.Record), Sort: it.SortOf})
		if err != nil {
			return store.Summary{}, err
		}
		if k != nil {
			told.topic[k.ID] = k.summary()
		}
		subjects = append(subjects, it.Incident)
	}
	for _, subject := range subjects {
		for d, err := range t.about(ctx, subject) {
			if err != nil {
				return store.Summary{}, err
			}
			told.put(&delivery{Delivery: d})
			if d.Digest == "" {
				continue
			}
			digest, err := t.deliveryAt(ctx, d.Digest, d.Endpoint)
			if err == nil {
				told.put(digest)
			} else if !isNoDelivery(err) {
				return store.Summary{}, err
			}
		}
	}
	return told.of(a), nil
}

// telling is what is known of messages about alerts and incidents.
type telling struct {
	topic      map[string]store.Summary // by incident
	deliveries map[string][]*delivery   // by alert or incident
	digests    map[[2]string]*delivery  // by webhook id and endpoint
}

func newTelling() *telling {
	return &telling{topic: make(map[string]store.Summary), deliveries: make(map[string][]*delivery), digests: make(map[[2]string]*delivery)}
}

func (t *telling) add(a attributes) error {
	r := &reader{attributes: a}
	if r.text(attrKind) != kindDelivery {
		return r.err
	}
	d, err := readDelivery(a)
	if err == nil {
		t.put(d)
	}
	return err
}

func (t *telling) put(d *delivery) {
	if about := cmp.Or(d.AlertID, d.Incident); about != "" {
		t.deliveries[about] = append(t.deliveries[about], d)
	} else {
		t.digests[[2]string{d.WebhookID, d.Endpoint}] = d
	}
}

// of is how far the telling of an alert is: the state that needs most attention, and all tries, those of a digest once.
func (t *telling) of(a *store.Alert) store.Summary {
	order := []store.DeliveryState{store.Pending, store.Exhausted, store.Disabled, store.Delivered}
	worst, attempts := len(order), 0
	count := func(state store.DeliveryState, tries int) {
		if n := slices.Index(order, state); n >= 0 {
			worst, attempts = min(worst, n), attempts+tries
		}
	}
	count(a.Delivery.State, a.Delivery.Attempts) // of the alert itself
	s := t.topic[a.Incident]
	count(s.State, s.Attempts)
	counted := make(map[*delivery]bool)
	for _, d := range slices.Concat(t.deliveries[a.ID], t.deliveries[a.Incident]) {
		if digest := t.digests[[2]string{d.Digest, d.Endpoint}]; digest != nil {
			d = digest
		}
		tries := d.Tries
		if counted[d] {
			tries = 0
		}
		counted[d] = true
		count(d.State, tries)
	}
	if worst == len(order) {
		return store.Summary{State: store.None}
	}
	return store.Summary{State: order[worst], Attempts: attempts}
}

// summary is how far the telling of an incident to the topic is.
func (k *kept) summary() store.Summary {
	s := store.Summary{State: store.None, Attempts: len(k.toldAt)} // at least: how many there were is not kept
	switch {
	case len(k.untold) > 0:
		s.State = store.Pending
	case len(k.toldAt) > 0:
		s.State = store.Delivered
	}
	return s
}
