package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
)

// page is how many alerts are read at once. No connection is held between two pages, so a slow loop holds up nobody, and one that uses
// the store cannot run out of connections.
const page = 1000

const selectAlert = `SELECT id, rule, user_id, state, severity, count, threshold, window_start, window_end, first_event_at, last_event_at, evidence, opened_at, closed_at,
  key, columns, at_least, rule_revision, mode, summary, runbook, coalesce((SELECT incident_id FROM incident_alert WHERE alert_id = alert.id), ''), (SELECT ` + store.WorstState + store.OfAlert + `), (SELECT ` + store.AllTries + `)
FROM alert`

// Alerts implements store.Store.
func (s *Store) Alerts(ctx context.Context, f store.Filter) iter.Seq2[store.Alert, error] {
	if err := f.Validate(); err != nil {
		return failed[store.Alert](fmt.Errorf("list alerts: %w", err))
	}
	return pages(f.Limit, func(after *store.Alert, size int) ([]store.Alert, error) {
		query, args := list(f, after, size)
		rows, err := s.pool.Query(ctx, query, append([]any{planned}, args...)...)
		if err == nil {
			var alerts []store.Alert
			if alerts, err = pgx.CollectRows(rows, scan); err == nil {
				return alerts, nil
			}
		}
		return nil, fmt.Errorf("list alerts: %w", s.translate(ctx, err))
	}, ctx.Err)
}

// failed yields an error.
func failed[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		yield(none, err)
	}
}

// pages yields what read returns, page by page, each after the last of the one before, up to a limit if that is not 0. ended is asked
// before each.
func pages[T any](limit int, read func(after *T, size int) ([]T, error), ended func() error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		left := limit
		var after *T
		for {
			size := page
			if limit > 0 {
				size = min(size, left)
			}
			got, err := read(after, size)
			for i := range got {
				if err = ended(); err != nil {
					break
				}
				if !yield(got[i], nil) {
					return
				}
			}
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			left -= len(got)
			if len(got) < size || limit > 0 && left == 0 {
				return
			}
			after = &got[len(got)-1]
		}
	}
}

// list returns the query for the alerts of f that come after another. The beginning of the user is what the indexes have.
func list(f store.Filter, after *store.Alert, size int) (query string, args []any) {
	var w where
	if f.ID != "" {
		w.only("id >= ? AND id < ?", f.ID, f.PastID())
	}
	if f.User != "" {
		w.only("left(user_id, 100) = left(?::text, 100) AND user_id = ?::text AND (key IS NULL OR key::text = ?::text)", f.User, f.User, store.UserKey(f.User))
	}
	if f.State != "" {
		w.only("state = ?", string(f.State))
	}
	if f.Rule != "" {
		w.only("rule = ?", text(f.Rule))
	}
	if f.Incident != "" {
		w.only("id IN (SELECT alert_id FROM incident_alert WHERE incident_id = ?)", text(f.Incident))
	}
	if f.MinSeverity == alert.Critical {
		w.only("severity = ?", string(f.MinSeverity))
	}
	if !f.Since.IsZero() {
		w.only("window_start >= ?", store.CeilMilli(f.Since))
	}
	if !f.Until.IsZero() {
		w.only("window_start < ?", store.CeilMilli(f.Until))
	}
	order, beyond := direction(f.Newest)
	if after != nil {
		w.only("(window_start, left(user_id, 100), user_id, id) "+beyond+" (?, left(?::text, 100), ?::text, ?)", after.WindowStart, string(after.UserID), string(after.UserID), after.ID)
	}
	query = fmt.Sprintf("%s%s ORDER BY window_start%[3]s, left(user_id, 100)%[3]s, user_id%[3]s, id%[3]s LIMIT %d", selectAlert, w.String(), order, size)
	return query, w.args
}

// Alert implements store.Store.
func (s *Store) Alert(ctx context.Context, id string) (store.Alert, error) {
	if strings.ContainsRune(id, 0) {
		return store.Alert{}, fmt.Errorf("%w: id %q", store.ErrNotFound, id)
	}
	rows, err := s.pool.Query(ctx, selectAlert+" WHERE id = $1", planned, id)
	var a store.Alert
	if err == nil {
		a, err = pgx.CollectExactlyOneRow(rows, scan)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return store.Alert{}, fmt.Errorf("%w: id %q", store.ErrNotFound, id)
	} else if err != nil {
		return store.Alert{}, fmt.Errorf("read alert %q: %w", id, s.translate(ctx, err))
	}
	return a, nil
}

// Count implements store.Store.
func (s *Store) Count(ctx context.Context) (store.Counts, error) {
	var c store.Counts
	err := s.pool.QueryRow(ctx, `SELECT count(*) - count(closed_at), count(closed_at) FROM alert`, planned).Scan(&c.Opened, &c.Closed)
	if err != nil {
		return store.Counts{}, fmt.Errorf("count alerts: %w", s.translate(ctx, err))
	}
	return c, nil
}

// scan reads the columns of selectAlert.
func scan(row pgx.CollectableRow) (store.Alert, error) {
	var a store.Alert
	var user string
	var evidence []byte
	var closed *time.Time
	err := row.Scan(&a.ID, &a.Rule, &user, &a.State, &a.Severity, &a.Count, &a.Threshold, &a.WindowStart, &a.WindowEnd, &a.FirstEventAt, &a.LastEventAt, &evidence, &a.OpenedAt, &closed,
		(*[]byte)(&a.Key), (*[]byte)(&a.Columns), &a.AtLeast, &a.RuleRevision, &a.Mode, &a.Summary, &a.Runbook, &a.Incident, &a.Delivery.State, &a.Delivery.Attempts)
	if err != nil {
		return store.Alert{}, err
	}
	if err := json.Unmarshal(evidence, &a.Evidence); err != nil {
		return store.Alert{}, fmt.Errorf("evidence of alert %s: %w", a.ID, err)
	}
	a.UserID = json.RawMessage(user)
	for _, t := range []*time.Time{&a.WindowStart, &a.WindowEnd, &a.FirstEventAt, &a.LastEventAt, &a.OpenedAt} {
		*t = t.UTC()
	}
	a.ClosedAt = orZero(closed)
	return a, nil
}

// scanHeld reads the columns of selectHeld.
func scanHeld(row pgx.CollectableRow) (notify.Held, error) {
	var r alert.Record
	var user, messageType string
	var evidence []byte
	err := row.Scan(&r.ID, &r.Rule, &user, &messageType, &r.Severity, &r.Count, &r.Threshold, &r.WindowStart, &r.WindowEnd, &r.FirstEventAt, &r.LastEventAt, &evidence,
		(*[]byte)(&r.Key), (*[]byte)(&r.Columns), &r.AtLeast, &r.RuleRevision, &r.Mode, &r.Summary, &r.Runbook)
	if err != nil {
		return notify.Held{}, err
	}
	r.UserID = json.RawMessage(user)
	for _, t := range []*time.Time{&r.WindowStart, &r.WindowEnd, &r.FirstEventAt, &r.LastEventAt} {
		*t = t.UTC()
	}
	if err := json.Unmarshal(evidence, &r.Evidence); err != nil {
		return notify.Held{}, fmt.Errorf("evidence of alert %s: %w", r.ID, err)
	}
	return store.HeldRecord(messageType, r), nil
}
