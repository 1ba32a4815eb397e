package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
)

const (
	columns = `id, rule, user_id, state, severity, count, threshold, window_start_ms, window_end_ms, first_event_ms, last_event_ms, evidence, opened_at, closed_at,
  key, columns, at_least, rule_revision, mode, summary, runbook`

	selectAlert = `SELECT ` + columns + `, coalesce((SELECT incident_id FROM incident_alert WHERE alert_id = alert.id), ''),
  (SELECT ` + store.WorstState + store.OfAlert + `), (SELECT ` + store.AllTries + `)
FROM alert`

	// selectIdentity is what tells a repetition from a contradiction.
	selectIdentity = `SELECT rule, user_id, state, count, window_start_ms, window_end_ms, columns FROM alert WHERE id = ?`

	// upsert changes one row or none. What moves is decided here, in the statement, so no other process can come between.
	upsert = `INSERT INTO alert (` + columns + `) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, CASE ?4 WHEN 'closed' THEN ?13 END,
  ?14, ?15, ?16, ?17, ?18, ?19, ?20)
ON CONFLICT (id) DO UPDATE SET
  state = excluded.state, severity = excluded.severity, count = excluded.count, threshold = excluded.threshold,
  first_event_ms = excluded.first_event_ms, last_event_ms = excluded.last_event_ms, evidence = excluded.evidence, closed_at = excluded.closed_at,
  columns = excluded.columns, at_least = excluded.at_least, rule_revision = excluded.rule_revision, mode = excluded.mode, summary = excluded.summary, runbook = excluded.runbook
WHERE (alert.state = 'opened' AND excluded.state <> 'opened' OR alert.state = 'raised' AND excluded.state = 'closed')
  AND alert.rule = excluded.rule AND alert.user_id = excluded.user_id
  AND alert.window_start_ms = excluded.window_start_ms AND alert.window_end_ms = excluded.window_end_ms`
)

// Apply implements store.Store.
func (s *Store) Apply(ctx context.Context, now time.Time, records []alert.Record, to ...notify.Endpoint) (store.Applied, error) {
	applied := store.Applied{Changed: make([]bool, len(records))}
	if len(records) == 0 {
		return applied, nil
	}
	err := s.in(ctx, func(tx *sql.Tx) error {
		var changed []alert.Record
		put, get := tx.StmtContext(ctx, s.upsert), tx.StmtContext(ctx, s.get)
		for i, r := range records {
			r, moved, refusal, err := apply(ctx, put, get, now.UnixMilli(), r)
			switch {
			case err != nil:
				return err
			case refusal != nil:
				applied.Rejected = append(applied.Rejected, store.Rejection{Index: i, Err: refusal})
			case moved:
				changed = append(changed, r)
			}
			applied.Changed[i] = moved
		}
		var err error
		if applied.Events, err = s.fold(ctx, tx, now, changed); err != nil {
			return err
		}
		return s.send(ctx, tx, now, changed, applied.Events, to)
	})
	if err != nil {
		return store.Applied{}, fmt.Errorf("store %d alerts: %w", len(records), s.translate(err))
	}
	return applied, nil
}

// apply returns r as it is stored, and reports whether it changed its alert, or why it never will. err is the database's.
func apply(ctx context.Context, put, get *sql.Stmt, nowMS int64, r alert.Record) (_ alert.Record, changed bool, refusal, err error) {
	if r, refusal = store.Prepare(r); refusal != nil {
		return r, false, refusal, nil
	}
	evidence, err := json.Marshal(r.Evidence)
	if err != nil {
		return r, false, fmt.Errorf("%w: %s: evidence: %w", store.ErrInvalid, r.ID, err), nil
	}
	res, err := put.ExecContext(ctx, r.ID, r.Rule, string(r.UserID), string(r.State), string(r.Severity), r.Count, r.Threshold,
		r.WindowStart.UnixMilli(), r.WindowEnd.UnixMilli(), r.FirstEventAt.UnixMilli(), r.LastEventAt.UnixMilli(), string(evidence), nowMS,
		textOrNull(r.Key), textOrNull(r.Columns), r.AtLeast, r.RuleRevision, r.Mode, r.Summary, r.Runbook)
	if constraint(err) { // undoes the statement only; the transaction goes on
		return r, false, fmt.Errorf("%w: %s: %w", store.ErrInvalid, r.ID, err), nil
	} else if err != nil {
		return r, false, nil, err
	}
	n, err := res.RowsAffected()
	if err != nil || n > 0 {
		return r, n > 0, nil, err
	}
	var stored alert.Record
	var user string
	var start, end int64
	var columns sql.NullString
	if err := get.QueryRowContext(ctx, r.ID).Scan(&stored.Rule, &user, &stored.State, &stored.Count, &start, &end, &columns); err != nil {
		return r, false, nil, err
	}
	stored.UserID, stored.Columns = json.RawMessage(user), rawOrNil(columns)
	stored.WindowStart, stored.WindowEnd = time.UnixMilli(start).UTC(), time.UnixMilli(end).UTC()
	return r, false, store.Contradiction(stored, r), nil
}

// Alerts implements store.Store.
func (s *Store) Alerts(ctx context.Context, f store.Filter) iter.Seq2[store.Alert, error] {
	var w where
	if f.ID != "" {
		w.only("id >= ? AND id < ?", f.ID, f.PastID())
	}
	if f.User != "" {
		w.only("user_id = ? AND (key IS NULL OR key = ?)", f.User, store.UserKey(f.User))
	}
	if f.State != "" {
		w.only("state = ?", string(f.State))
	}
	if f.Rule != "" {
		w.only("rule = ?", f.Rule)
	}
	if f.Incident != "" {
		w.only("id IN (SELECT alert_id FROM incident_alert WHERE incident_id = ?)", f.Incident)
	}
	if f.MinSeverity == alert.Critical {
		w.only("severity = ?", string(f.MinSeverity))
	}
	if !f.Since.IsZero() {
		w.only("window_start_ms >= ?", store.CeilMilli(f.Since).UnixMilli())
	}
	if !f.Until.IsZero() {
		w.only("window_start_ms < ?", store.CeilMilli(f.Until).UnixMilli())
	}
	return list(ctx, s, "alerts", f.Validate(), selectAlert+w.String()+order(f.Newest, f.Limit, "window_start_ms", "user_id", "id"), w.args, scan)
}

// Alert implements store.Store.
func (s *Store) Alert(ctx context.Context, id string) (store.Alert, error) {
	a, err := scan(s.read.QueryRowContext(ctx, selectAlert+" WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return store.Alert{}, fmt.Errorf("%w: id %q", store.ErrNotFound, id)
	} else if err != nil {
		return store.Alert{}, fmt.Errorf("read alert %q: %w", id, s.translate(err))
	}
	return a, nil
}

// Count implements store.Store.
func (s *Store) Count(ctx context.Context) (store.Counts, error) {
	var c store.Counts
	err := s.read.QueryRowContext(ctx, `SELECT count(*), count(closed_at) FROM alert`).Scan(&c.Opened, &c.Closed)
	if err != nil {
		return store.Counts{}, fmt.Errorf("count alerts: %w", s.translate(err))
	}
	c.Opened -= c.Closed
	return c, nil
}

// scan reads the columns of selectAlert.
func scan(r row) (store.Alert, error) {
	var a store.Alert
	var user, evidence string
	var start, end, first, last, opened int64
	var closed sql.NullInt64
	var key, columns sql.NullString
	if err := r.Scan(&a.ID, &a.Rule, &user, &a.State, &a.Severity, &a.Count, &a.Threshold, &start, &end, &first, &last, &evidence, &opened, &closed,
		&key, &columns, &a.AtLeast, &a.RuleRevision, &a.Mode, &a.Summary, &a.Runbook, &a.Incident, &a.Delivery.State, &a.Delivery.Attempts); err != nil {
		return store.Alert{}, err
	}
	if err := json.Unmarshal([]byte(evidence), &a.Evidence); err != nil {
		return store.Alert{}, fmt.Errorf("evidence of alert %s: %w", a.ID, err)
	}
	at := func(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
	a.UserID, a.Key, a.Columns = json.RawMessage(user), rawOrNil(key), rawOrNil(columns)
	a.WindowStart, a.WindowEnd, a.FirstEventAt, a.LastEventAt = at(start), at(end), at(first), at(last)
	a.OpenedAt = at(opened)
	a.ClosedAt = milliOrZero(closed)
	return a, nil
}

// scanHeld reads the columns of selectHeld.
func scanHeld(r row) (notify.Held, error) {
	var a alert.Record
	var user, evidence, messageType string
	var start, end, first, last int64
	var key, columns sql.NullString
	if err := r.Scan(&a.ID, &a.Rule, &user, &messageType, &a.Severity, &a.Count, &a.Threshold, &start, &end, &first, &last, &evidence,
		&key, &columns, &a.AtLeast, &a.RuleRevision, &a.Mode, &a.Summary, &a.Runbook); err != nil {
		return notify.Held{}, err
	}
	at := func(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
	a.UserID, a.Key, a.Columns = json.RawMessage(user), rawOrNil(key), rawOrNil(columns)
	a.WindowStart, a.WindowEnd, a.FirstEventAt, a.LastEventAt = at(start), at(end), at(first), at(last)
	if err := json.Unmarshal([]byte(evidence), &a.Evidence); err != nil {
		return notify.Held{}, fmt.Errorf("evidence of alert %s: %w", a.ID, err)
	}
	return store.HeldRecord(messageType, a), nil
}

// textOrNull is JSON as it is stored: NULL if there is none.
func textOrNull(v json.RawMessage) sql.NullString {
	return sql.NullString{String: string(v), Valid: v != nil}
}

func rawOrNil(v sql.NullString) json.RawMessage {
	if !v.Valid {
		return nil
	}
	return json.RawMessage(v.String)
}
