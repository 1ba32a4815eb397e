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

	"spate/shared/store"
)

// page is how many alerts are read at once. No connection is held between two pages, so a slow loop holds up nobody, and one that uses
// the store cannot run out of connections.
const page = 1000

const selectAlert = `SELECT id, rule, user_id, state, severity, count, threshold, window_start, window_end, first_event_at, last_event_at, evidence, opened_at, closed_at FROM alert`

// Alerts implements store.Store.
func (s *Store) Alerts(ctx context.Context, f store.Filter) iter.Seq2[store.Alert, error] {
	return func(yield func(store.Alert, error) bool) {
		if err := f.Validate(); err != nil {
			yield(store.Alert{}, fmt.Errorf("list alerts: %w", err))
			return
		}
		left := f.Limit
		var after *store.Alert
		for {
			size := page
			if f.Limit > 0 {
				size = min(size, left)
			}
			alerts, err := s.page(ctx, f, after, size)
			for i := range alerts {
				if err = ctx.Err(); err != nil {
					break
				}
				if !yield(alerts[i], nil) {
					return
				}
			}
			if err != nil {
				yield(store.Alert{}, fmt.Errorf("list alerts: %w", s.translate(ctx, err)))
				return
			}
			left -= len(alerts)
			if len(alerts) < size || f.Limit > 0 && left == 0 {
				return
			}
			after = &alerts[len(alerts)-1]
		}
	}
}

func (s *Store) page(ctx context.Context, f store.Filter, after *store.Alert, size int) ([]store.Alert, error) {
	query, args := list(f, after, size)
	rows, err := s.pool.Query(ctx, query, append([]any{planned}, args...)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}

// list returns the query for the alerts of f that come after another. The beginning of the user is what the indexes have.
func list(f store.Filter, after *store.Alert, size int) (query string, args []any) {
	var where []string
	only := func(condition string, values ...any) {
		for _, v := range values {
			args = append(args, v)
			condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(args)), 1)
		}
		where = append(where, condition)
	}
	if f.User != "" {
		only("left(user_id, 100) = left(?::text, 100) AND user_id = ?::text", f.User, f.User)
	}
	if f.State != "" {
		only("state = ?", string(f.State))
	}
	if !f.Since.IsZero() {
		only("window_start >= ?", store.CeilMilli(f.Since))
	}
	if !f.Until.IsZero() {
		only("window_start < ?", store.CeilMilli(f.Until))
	}
	if after != nil {
		only("(window_start, left(user_id, 100), user_id, id) > (?, left(?::text, 100), ?::text, ?)", after.WindowStart, string(after.UserID), string(after.UserID), after.ID)
	}
	query = selectAlert
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	return query + fmt.Sprintf(" ORDER BY window_start, left(user_id, 100), user_id, id LIMIT %d", size), args
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
	err := row.Scan(&a.ID, &a.Rule, &user, &a.State, &a.Severity, &a.Count, &a.Threshold, &a.WindowStart, &a.WindowEnd, &a.FirstEventAt, &a.LastEventAt, &evidence, &a.OpenedAt, &closed)
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
	if closed != nil {
		a.ClosedAt = closed.UTC()
	}
	return a, nil
}
