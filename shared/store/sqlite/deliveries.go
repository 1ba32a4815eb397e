package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/store"
	"spate/shared/store/jobs"
)

const (
	// insertDelivery writes a delivery. One that is there stays as it is.
	insertDelivery = `INSERT INTO delivery (webhook_id, endpoint, alert_id, incident_id, type, state, created_at, begun_at, next_at, digest, data)
VALUES (?, ?, nullif(?, ''), nullif(?, ''), ?, ?, ?, ?, ?, nullif(?, ''), nullif(?, '')) ON CONFLICT (webhook_id, endpoint) DO NOTHING`

	// countOrdinary counts messages of a minute and returns how many there were before; no row if the minute's digest is made already.
	countOrdinary = `INSERT INTO digest (webhook_id, since, ordinary) VALUES (?1, ?2, ?3)
ON CONFLICT (webhook_id) DO UPDATE SET ordinary = digest.ordinary + excluded.ordinary WHERE NOT digest.sealed
RETURNING ordinary - ?3`

	selectDelivery = `SELECT webhook_id, endpoint, coalesce(alert_id, ''), coalesce(incident_id, ''), type, state, tries, counted, created_at, begun_at, next_at, coalesce(digest, ''), coalesce(data, ''),
  ` + store.SelectRef + ` FROM delivery`

	moveDelivery = `UPDATE delivery SET tries = tries + 1, counted = counted + ?3,
  state = CASE state WHEN 'pending' THEN ?4 ELSE state END,
  next_at = CASE state WHEN 'pending' THEN ?5 ELSE next_at END,
  ref = coalesce(nullif(?6, ''), ref)
WHERE webhook_id = ?1 AND endpoint = ?2 RETURNING tries, state`

	insertTry = `INSERT INTO delivery_try (webhook_id, endpoint, n, at, status, outcome, reason, took_ms, next_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`

	disableEndpoint = `INSERT INTO endpoint (name, disabled_at, reason) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET disabled_at = excluded.disabled_at, reason = excluded.reason WHERE endpoint.disabled_at IS NULL`

	// selectHeld are the alerts of a digest's messages, selectHeldIncidents its incidents.
	selectHeld = `SELECT alert.id, alert.rule, user_id, type, severity, count, threshold,
  window_start_ms, window_end_ms, first_event_ms, last_event_ms, evidence, key, columns, at_least, rule_revision, mode, summary, runbook
FROM delivery JOIN alert ON alert.id = delivery.alert_id WHERE delivery.digest = ? AND delivery.endpoint = ? ORDER BY alert.id, type DESC`

	selectHeldIncidents = `SELECT type, ` + incidentColumns + `
FROM delivery JOIN incident ON incident.id = delivery.incident_id WHERE delivery.digest = ? AND delivery.endpoint = ? ORDER BY incident.id, type`

	selectEndpoints = `SELECT name, max(disabled_at), max(reason), sum(pending), sum(exhausted), sum(dropped), max(config), max(configured_at) FROM (
  SELECT endpoint AS name, NULL AS disabled_at, '' AS reason, NULL AS config, NULL AS configured_at, state = 'pending' AS pending, state = 'exhausted' AS exhausted, state = 'disabled' AS dropped
  FROM delivery WHERE state IN ('pending', 'exhausted', 'disabled')
  UNION ALL SELECT name, disabled_at, CASE WHEN disabled_at IS NULL THEN '' ELSE reason END, config, configured_at, 0, 0, 0 FROM endpoint
) AS e GROUP BY name ORDER BY name`
)

// send writes the deliveries of records that changed something and of what became of incidents, and the jobs that send them.
func (s *Store) send(ctx context.Context, tx *sql.Tx, now time.Time, changed []alert.Record, events []incident.Event, to []notify.Endpoint) error {
	outgoing, err := store.Address(now, changed, events, to)
	if err != nil {
		return err
	}
	for _, o := range outgoing {
		all := o.Deliveries
		if len(o.Ordinary) > 0 {
			digest, before, err := countMinute(ctx, tx, now, o)
			if err != nil {
				return err
			}
			if o.Hold(digest, before) {
				all = append(all, digest)
			}
		}
		if err := s.put(ctx, tx, all); err != nil {
			return err
		}
	}
	return nil
}

// put writes deliveries that are not there, and their jobs.
func (s *Store) put(ctx context.Context, tx *sql.Tx, all []store.Delivery) error {
	put := tx.StmtContext(ctx, s.deliver) //nolint:sqlclosecheck // the end of the transaction closes it
	made := make([]store.Delivery, 0, len(all))
	for _, d := range all {
		res, err := put.ExecContext(ctx, d.WebhookID, d.Endpoint, d.AlertID, d.Incident, d.Type, string(d.State), d.CreatedAt.UnixMilli(), d.BegunAt.UnixMilli(), milliOrNull(d.NextAt), d.Digest, string(d.Data))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n > 0 {
			made = append(made, d)
		}
	}
	return s.queue.Add(ctx, tx, jobs.Of(made))
}

func countMinute(ctx context.Context, tx *sql.Tx, now time.Time, o store.Outgoing) (digest store.Delivery, before int64, err error) {
	for n := 0; ; n++ {
		digest = o.Digest(now, n)
		err = tx.QueryRowContext(ctx, countOrdinary, digest.WebhookID, digest.CreatedAt.UnixMilli(), len(o.Ordinary)).Scan(&before)
		if !errors.Is(err, sql.ErrNoRows) {
			return digest, before, err
		}
	}
}

func milliOrNull(t time.Time) sql.NullInt64 {
	if t.IsZero() {
		return sql.NullInt64{}
	}
	return sql.NullInt64{Int64: t.UnixMilli(), Valid: true}
}

func milliOrZero(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return time.UnixMilli(ms.Int64).UTC()
}

// Work implements store.Deliveries.
func (s *Store) Work(ctx context.Context, queues []store.Queue, log *slog.Logger, do store.Do) error {
	if err := s.queue.Work(ctx, queues, log, s.Delivery, do); err != nil {
		return s.translate(err)
	}
	return nil
}

// Delivery implements store.Deliveries.
func (s *Store) Delivery(ctx context.Context, webhookID, endpoint string) (store.Delivery, error) {
	d, err := scanDelivery(s.read.QueryRowContext(ctx, selectDelivery+" WHERE webhook_id = ? AND endpoint = ?", webhookID, endpoint))
	if errors.Is(err, sql.ErrNoRows) {
		return store.Delivery{}, noDelivery(webhookID, endpoint)
	} else if err != nil {
		return store.Delivery{}, fmt.Errorf("read delivery %s to %s: %w", webhookID, endpoint, s.translate(err))
	}
	return d, nil
}

func noDelivery(webhookID, endpoint string) error {
	return fmt.Errorf("%w: message %q to endpoint %q", store.ErrNoDelivery, webhookID, endpoint)
}

// in makes changes in a transaction, in the file that is at the path before and after.
func (s *Store) in(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing; otherwise the first error counts
	if err := f(tx); err != nil {
		return err
	}
	if err := s.inPlace(); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	return s.inPlace()
}

// Record implements store.Deliveries.
func (s *Store) Record(ctx context.Context, t store.Try, counts bool) (state store.DeliveryState, err error) {
	err = s.in(ctx, func(tx *sql.Tx) error {
		var n int
		next := milliOrNull(t.NextAt)
		err := tx.QueryRowContext(ctx, moveDelivery, t.WebhookID, t.Endpoint, counts, string(store.Next(t.Outcome)), next, t.Ref).Scan(&n, &state)
		if errors.Is(err, sql.ErrNoRows) {
			return noDelivery(t.WebhookID, t.Endpoint)
		} else if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, insertTry, t.WebhookID, t.Endpoint, n, t.At.UnixMilli(), t.Status, string(t.Outcome), t.Reason, t.Took.Milliseconds(), next); err != nil {
			return err
		}
		if t.Outcome == notify.Gone {
			_, err = tx.ExecContext(ctx, disableEndpoint, t.Endpoint, t.At.UnixMilli(), t.Reason)
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("record attempt of %s at %s: %w", t.WebhookID, t.Endpoint, s.translate(err))
	}
	return state, nil
}

// Disable implements store.Deliveries.
func (s *Store) Disable(ctx context.Context, webhookID, endpoint string) error {
	_, err := s.write.ExecContext(ctx, `UPDATE delivery SET state = 'disabled', next_at = NULL WHERE webhook_id = ? AND endpoint = ? AND state = 'pending'`, webhookID, endpoint)
	if err != nil {
		return fmt.Errorf("settle %s to %s: %w", webhookID, endpoint, s.translate(err))
	}
	return nil
}

// Seal implements store.Deliveries.
func (s *Store) Seal(ctx context.Context, webhookID, endpoint string, data func(iter.Seq2[notify.Held, error]) (json.RawMessage, error)) (d store.Delivery, err error) {
	err = s.in(ctx, func(tx *sql.Tx) (err error) {
		d, err = scanDelivery(tx.QueryRowContext(ctx, selectDelivery+" WHERE webhook_id = ? AND endpoint = ?", webhookID, endpoint))
		if errors.Is(err, sql.ErrNoRows) {
			return noDelivery(webhookID, endpoint)
		} else if err != nil || d.Data != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE digest SET sealed = 1 WHERE webhook_id = ?`, webhookID); err != nil {
			return err
		}
		if d.Data, err = data(func(yield func(notify.Held, error) bool) {
			if heldOf(ctx, tx, selectHeld, webhookID, endpoint, scanHeld, yield) {
				heldOf(ctx, tx, selectHeldIncidents, webhookID, endpoint, scanHeldIncident, yield)
			}
		}); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE delivery SET data = ? WHERE webhook_id = ? AND endpoint = ?`, string(d.Data), webhookID, endpoint)
		return err
	})
	if err != nil {
		return store.Delivery{}, fmt.Errorf("make digest %s: %w", webhookID, s.translate(err))
	}
	return d, nil
}

// heldOf yields messages of a digest, and reports whether more are wanted.
func heldOf(ctx context.Context, tx *sql.Tx, query, webhookID, endpoint string, scan func(row) (notify.Held, error), yield func(notify.Held, error) bool) bool {
	rows, err := tx.QueryContext(ctx, query, webhookID, endpoint)
	if err != nil {
		yield(notify.Held{}, err)
		return false
	}
	more := true
	each(rows, scan, func(h notify.Held, err error) bool {
		more = yield(h, err) && err == nil
		return more
	})
	return more
}

// where gathers conditions.
type where struct {
	conditions []string
	args       []any
}

func (w *where) only(condition string, args ...any) {
	w.conditions, w.args = append(w.conditions, condition), append(w.args, args...)
}

func (w *where) String() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}

// order returns an ORDER BY, and the limit.
func order(newest bool, limit int, columns ...string) string {
	direction := ""
	if newest {
		direction = " DESC"
	}
	out := " ORDER BY " + strings.Join(columns, direction+", ") + direction
	if limit > 0 {
		out += fmt.Sprintf(" LIMIT %d", limit)
	}
	return out
}

func (w *where) deliveries(f store.DeliveryFilter) {
	if f.WebhookID != "" {
		w.only("webhook_id = ?", f.WebhookID)
	}
	if f.Endpoint != "" {
		w.only("endpoint = ?", f.Endpoint)
	}
	if f.AlertID != "" {
		w.only("alert_id = ?", f.AlertID)
	}
	if f.Incident != "" {
		w.only("incident_id = ?", f.Incident)
	}
	if len(f.States) > 0 {
		args := make([]any, len(f.States))
		for i, s := range f.States {
			args[i] = string(s)
		}
		w.only("state IN (?"+strings.Repeat(", ?", len(args)-1)+")", args...)
	}
	if !f.Since.IsZero() {
		w.only("created_at >= ?", store.CeilMilli(f.Since).UnixMilli())
	}
}

// ListDeliveries implements store.Deliveries.
func (s *Store) ListDeliveries(ctx context.Context, f store.DeliveryFilter) iter.Seq2[store.Delivery, error] {
	var w where
	w.deliveries(f)
	return list(ctx, s, "deliveries", f.Validate(), selectDelivery+w.String()+order(f.Newest, f.Limit, "created_at", "webhook_id", "endpoint"), w.args, scanDelivery)
}

// ListTries implements store.Deliveries.
func (s *Store) ListTries(ctx context.Context, f store.TryFilter) iter.Seq2[store.Try, error] {
	var w where
	if f.WebhookID != "" {
		w.only("webhook_id = ?", f.WebhookID)
	}
	if f.Endpoint != "" {
		w.only("endpoint = ?", f.Endpoint)
	}
	if f.Outcome != "" {
		w.only("outcome = ?", string(f.Outcome))
	}
	if !f.Since.IsZero() {
		w.only("at >= ?", store.CeilMilli(f.Since).UnixMilli())
	}
	query := `SELECT webhook_id, endpoint, n, at, took_ms, status, outcome, reason, next_at FROM delivery_try` + w.String() + order(f.Newest, f.Limit, "at", "webhook_id", "endpoint", "n")
	return list(ctx, s, "tries", f.Validate(), query, w.args, scanTry)
}

// list yields what a query finds, unless the filter is invalid.
func list[T any](ctx context.Context, s *Store, what string, invalid error, query string, args []any, scan func(row) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		fail := func(err error) {
			var none T
			yield(none, fmt.Errorf("list %s: %w", what, s.translate(err)))
		}
		if invalid != nil {
			fail(invalid)
			return
		}
		rows, err := s.read.QueryContext(ctx, query, args...)
		if err != nil {
			fail(err)
			return
		}
		each(rows, scan, func(v T, err error) bool {
			if err != nil {
				fail(err)
				return false
			}
			return yield(v, nil)
		})
	}
}

// each yields the rows, and closes them. An error is the last thing it yields.
func each[T any](rows *sql.Rows, scan func(row) (T, error), yield func(T, error) bool) {
	defer rows.Close()
	for rows.Next() {
		v, err := scan(rows)
		if !yield(v, err) || err != nil {
			return
		}
	}
	if err := rows.Err(); err != nil {
		var none T
		yield(none, err)
	}
}

// Resend implements store.Deliveries.
func (s *Store) Resend(ctx context.Context, now time.Time, f store.DeliveryFilter) (n int, err error) {
	if err := f.Validate(); err != nil {
		return 0, fmt.Errorf("resend: %w", err)
	}
	var w where
	w.deliveries(f)
	at := now.UnixMilli()
	w.only("state <> 'held' AND (state <> 'pending' OR next_at > ? AND data IS NOT NULL)", at)
	err = s.in(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, "UPDATE delivery SET state = 'pending', next_at = ?, begun_at = ?, counted = 0"+w.String()+" RETURNING webhook_id, endpoint", append([]any{at, at}, w.args...)...)
		if err != nil {
			return err
		}
		var due []jobs.Job
		each(rows, func(r row) (j jobs.Job, err error) {
			j.At, j.BegunMS = time.UnixMilli(at), at
			return j, r.Scan(&j.WebhookID, &j.Endpoint)
		}, func(j jobs.Job, e error) bool {
			due, err = append(due, j), e
			return true
		})
		if err != nil {
			return err
		}
		n = len(due)
		return s.queue.Add(ctx, tx, due)
	})
	if err != nil {
		return 0, fmt.Errorf("resend: %w", s.translate(err))
	}
	return n, nil
}

// AddTest implements store.Deliveries.
func (s *Store) AddTest(ctx context.Context, now time.Time, endpoint string) (d store.Delivery, err error) {
	err = s.in(ctx, func(tx *sql.Tx) error {
		var configured, disabled sql.NullInt64
		err := tx.QueryRowContext(ctx, `SELECT configured_at, disabled_at FROM endpoint WHERE name = ?`, endpoint).Scan(&configured, &disabled)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		e := store.EndpointState{Name: endpoint, ConfiguredAt: milliOrZero(configured), DisabledAt: milliOrZero(disabled)}
		var pending *store.Delivery
		if p, err := scanDelivery(tx.QueryRowContext(ctx, selectDelivery+" WHERE endpoint = ? AND state = 'pending' AND type = ? LIMIT 1", endpoint, notify.TypeTest)); err == nil {
			pending = &p
		} else if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if d, err = store.NewTest(now, e, pending); err != nil {
			return err
		}
		return s.put(ctx, tx, []store.Delivery{d})
	})
	if errors.Is(err, store.ErrNoTest) {
		return store.Delivery{}, err
	} else if err != nil {
		return store.Delivery{}, fmt.Errorf("test endpoint %s: %w", endpoint, s.translate(err))
	}
	return d, nil
}

// Configure implements store.Deliveries.
func (s *Store) Configure(ctx context.Context, now time.Time, endpoints map[string]store.EndpointConfig) error {
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		config, err := endpoints[name].Text()
		if err == nil {
			_, err = s.write.ExecContext(ctx, `INSERT INTO endpoint (name, reason, config, configured_at) VALUES (?, '', ?, ?)
ON CONFLICT (name) DO UPDATE SET config = excluded.config, configured_at = excluded.configured_at`, name, config, now.UnixMilli())
		}
		if err != nil {
			return fmt.Errorf("record configuration of endpoint %s: %w", name, s.translate(err))
		}
	}
	return nil
}

// Endpoints implements store.Deliveries.
func (s *Store) Endpoints(ctx context.Context) (out []store.EndpointState, err error) {
	for e, err := range list(ctx, s, "endpoints", nil, selectEndpoints, nil, func(r row) (e store.EndpointState, err error) {
		var disabled, configured sql.NullInt64
		var config sql.NullString
		if err = r.Scan(&e.Name, &disabled, &e.Reason, &e.Pending, &e.Exhausted, &e.Dropped, &config, &configured); err != nil {
			return e, err
		}
		e.DisabledAt, e.ConfiguredAt = milliOrZero(disabled), milliOrZero(configured)
		if config.Valid {
			e.Config, err = store.ParseEndpointConfig(config.String)
		}
		return e, err
	}) {
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// SetEnabled implements store.Deliveries.
func (s *Store) SetEnabled(ctx context.Context, now time.Time, endpoint string, enabled bool, reason string) (err error) {
	if enabled {
		_, err = s.write.ExecContext(ctx, `UPDATE endpoint SET disabled_at = NULL WHERE name = ?`, endpoint)
	} else {
		_, err = s.write.ExecContext(ctx, disableEndpoint, endpoint, now.UnixMilli(), reason)
	}
	if err != nil {
		return fmt.Errorf("change endpoint %s: %w", endpoint, s.translate(err))
	}
	return nil
}

// DisabledAt implements store.Deliveries.
func (s *Store) DisabledAt(ctx context.Context, endpoint string) (time.Time, error) {
	var at sql.NullInt64
	err := s.read.QueryRowContext(ctx, `SELECT disabled_at FROM endpoint WHERE name = ?`, endpoint).Scan(&at)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, fmt.Errorf("read endpoint %s: %w", endpoint, s.translate(err))
	}
	return milliOrZero(at), nil
}

// row is a row of a result.
type row interface{ Scan(...any) error }

// scanDelivery reads the columns of selectDelivery.
func scanDelivery(r row) (d store.Delivery, err error) {
	var created, begun int64
	var next sql.NullInt64
	var data string
	err = r.Scan(&d.WebhookID, &d.Endpoint, &d.AlertID, &d.Incident, &d.Type, &d.State, &d.Tries, &d.Counted, &created, &begun, &next, &d.Digest, &data, &d.Ref)
	d.CreatedAt, d.BegunAt, d.NextAt = time.UnixMilli(created).UTC(), time.UnixMilli(begun).UTC(), milliOrZero(next)
	if data != "" {
		d.Data = json.RawMessage(data)
	}
	return d, err
}

func scanTry(r row) (t store.Try, err error) {
	var at, ms int64
	var next sql.NullInt64
	err = r.Scan(&t.WebhookID, &t.Endpoint, &t.N, &at, &ms, &t.Status, &t.Outcome, &t.Reason, &next)
	t.At, t.NextAt, t.Took = time.UnixMilli(at).UTC(), milliOrZero(next), time.Duration(ms)*time.Millisecond
	return t, err
}
