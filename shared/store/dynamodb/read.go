package dynamodb

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"spate/shared/alert"
	"spate/shared/store"
)

// Alerts yields what fits f, ordered by window start, then user (bytewise), then id, or in the opposite order. An alert of which the window
// is not known counts as one whose window started when its record arrived. An error is the last thing it yields.
//
// It reads the whole table, which costs what that costs, and holds what fits in memory: the table has no other order than by user.
func (t *Table) Alerts(ctx context.Context, f store.Filter) iter.Seq2[store.Alert, error] {
	return func(yield func(store.Alert, error) bool) {
		if err := f.Validate(); err != nil {
			yield(store.Alert{}, fmt.Errorf("list alerts: %w", err))
			return
		}
		var found []Item
		err := t.scan(ctx, &sdk.ScanInput{TableName: &t.cfg.Table}, func(it Item) bool {
			if fits(f, it) {
				found = append(found, it)
			}
			return true
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
			if !yield(it.Alert(), nil) {
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
		(f.MinSeverity != alert.Critical || it.Severity == alert.Critical) &&
		(f.Since.IsZero() || !it.at().Before(f.Since)) &&
		(f.Until.IsZero() || it.at().Before(f.Until))
}

// Alert returns the alert with the id, or store.ErrNotFound. It reads the table until it finds it.
func (t *Table) Alert(ctx context.Context, id string) (store.Alert, error) {
	var found *Item
	err := t.scan(ctx, &sdk.ScanInput{
		TableName: &t.cfg.Table, FilterExpression: aws.String("#id = :id"),
		ExpressionAttributeNames: map[string]string{"#id": attrID}, ExpressionAttributeValues: attributes{":id": text(id)},
	}, func(it Item) bool {
		found = &it
		return false
	})
	switch {
	case err != nil:
		return store.Alert{}, fmt.Errorf("read alert %q: %w", id, err)
	case found == nil:
		return store.Alert{}, fmt.Errorf("%w: id %q", store.ErrNotFound, id)
	}
	return found.Alert(), nil
}

// scan reads pages until f has enough. What is not an alert of ours, because something else writes to the table as well, is left out.
func (t *Table) scan(ctx context.Context, in *sdk.ScanInput, f func(Item) bool) error {
	for {
		res, err := t.api.Scan(ctx, in)
		if err != nil {
			return t.translate(err)
		}
		for _, a := range res.Items {
			it, err := readItem(a)
			if err != nil {
				return err
			}
			if it.ID != "" && !f(it) {
				return nil
			}
		}
		if len(res.LastEvaluatedKey) == 0 {
			return nil
		}
		in.ExclusiveStartKey = res.LastEvaluatedKey
	}
}
