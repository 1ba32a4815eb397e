package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/store"
	"spate/shared/store/jobs"
)

// insertDeliveries takes deliveries as arrays and returns which are new. One that is there stays as it is.
const insertDeliveries = `INSERT INTO delivery (webhook_id, endpoint, alert_id, type, state, created_at, begun_at, next_at, digest, data, incident_id)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::timestamptz[], $9::text[], $10::text[], $11::text[])
ON CONFLICT (webhook_id, endpoint) DO NOTHING RETURNING webhook_id`

// countOrdinary counts messages of a minute and returns how many there were before; no row if the minute's digest is made already. The row
// stays locked until the end of the transaction, so whoever makes the digest waits for what is held for it.
const countOrdinary = `INSERT INTO digest (webhook_id, since, ordinary) VALUES ($1, $2, $3)
ON CONFLICT (webhook_id) DO UPDATE SET ordinary = digest.ordinary + excluded.ordinary WHERE NOT digest.sealed
RETURNING ordinary - $3`

// send writes the deliveries of records that changed something and of what became of incidents, and the jobs that send them.
func (s *Store) send(ctx context.Context, tx pgx.Tx, now time.Time, changed []alert.Record, events []incident.Event, to []notify.Endpoint) error {
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

// put writes deliveries to one endpoint that are not there, and their jobs.
func (s *Store) put(ctx context.Context, tx pgx.Tx, all []store.Delivery) error {
	made, err := insert(ctx, tx, all)
	if err != nil {
		return err
	}
	return s.queue.Add(ctx, tx, jobs.Of(made))
}

// insert writes deliveries to one endpoint and returns those that were not there.
func insert(ctx context.Context, tx pgx.Tx, ds []store.Delivery) ([]store.Delivery, error) {
	rows, err := tx.Query(ctx, insertDeliveries, append([]any{planned}, deliveryArrays(ds)...)...)
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(ids) == len(ds) {
		return ds, err
	}
	made := make(map[string]bool, len(ids))
	for _, id := range ids {
		made[id] = true
	}
	return slices.DeleteFunc(ds, func(d store.Delivery) bool { return !made[d.WebhookID] }), nil
}

func countMinute(ctx context.Context, tx pgx.Tx, now time.Time, o store.Outgoing) (digest store.Delivery, before int64, err error) {
	for n := 0; ; n++ {
		digest = o.Digest(now, n)
		err = tx.QueryRow(ctx, countOrdinary, planned, digest.WebhookID, digest.CreatedAt, len(o.Ordinary)).Scan(&before)
		if !errors.Is(err, pgx.ErrNoRows) {
			return digest, before, err
		}
	}
}

func deliveryArrays(ds []store.Delivery) []any {
	n := len(ds)
	ids, endpoints, types, states := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	alerts, incidents, digests, data := make([]*string, n), make([]*string, n), make([]*string, n), make([]*string, n)
	created, begun, next := make([]time.Time, n), make([]time.Time, n), make([]*time.Time, n)
	for i, d := range ds {
		ids[i], endpoints[i], types[i], states[i] = d.WebhookID, d.Endpoint, d.Type, string(d.State)
		alerts[i], incidents[i], digests[i], data[i] = orNull(d.AlertID), orNull(d.Incident), orNull(d.Digest), orNull(string(d.Data))
		created[i], begun[i], next[i] = d.CreatedAt, d.BegunAt, timeOrNull(d.NextAt)
	}
	return []any{ids, endpoints, alerts, types, states, created, begun, next, digests, data, incidents}
}

func orNull(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// Work implements store.Deliveries. The queue has connections of its own, so a busy one does not hold up Apply, nor the other way round.
func (s *Store) Work(ctx context.Context, queues []store.Queue, log *slog.Logger, do store.Do) error {
	cfg := forQueue(s.pool.Config())
	var line cutter
	line.dial, cfg.ConnConfig.DialFunc = cfg.ConnConfig.DialFunc, line.Dial
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("process deliveries: %w", s.translate(ctx, err))
	}
	closed := make(chan struct{})
	defer close(closed)
	defer pool.Close()
	defer context.AfterFunc(ctx, func() {
		t := time.NewTimer(jobs.EndAfter)
		defer t.Stop()
		select {
		case <-t.C:
			line.cut()
		case <-closed:
		}
	})()
	queue, err := jobs.New(riverpgxv5.New(pool), poll)
	if err != nil {
		return err
	}
	if err := queue.Work(ctx, queues, log, s.Delivery, do); err != nil {
		return s.translate(ctx, err)
	}
	return nil
}

const selectDelivery = `SELECT webhook_id, endpoint, coalesce(alert_id, ''), coalesce(incident_id, ''), type, state, tries, counted, created_at, begun_at, next_at, coalesce(digest, ''), coalesce(data, ''), ` + store.SelectRef + ` FROM delivery`

// Delivery implements store.Deliveries.
func (s *Store) Delivery(ctx context.Context, webhookID, endpoint string) (store.Delivery, error) {
	d, err := one(ctx, s.pool, scanDelivery, selectDelivery+" WHERE webhook_id = $1 AND endpoint = $2", text(webhookID), text(endpoint))
	if errors.Is(err, pgx.ErrNoRows) {
		return store.Delivery{}, noDelivery(webhookID, endpoint)
	} else if err != nil {
		return store.Delivery{}, fmt.Errorf("read delivery %s to %s: %w", webhookID, endpoint, s.translate(ctx, err))
	}
	return d, nil
}

func noDelivery(webhookID, endpoint string) error {
	return fmt.Errorf("%w: message %q to endpoint %q", store.ErrNoDelivery, webhookID, endpoint)
}

// text is s as the database can compare it: it has no NUL.
func text(s string) string { return strings.ReplaceAll(s, "\x00", "\ufffd") }

func one[T any](ctx context.Context, q querier, scan pgx.RowToFunc[T], query string, args ...any) (T, error) {
	rows, err := q.Query(ctx, query, append([]any{planned}, args...)...)
	if err != nil {
		var none T
		return none, err
	}
	return pgx.CollectExactlyOneRow(rows, scan)
}

const moveDelivery = `UPDATE delivery SET tries = tries + 1, counted = counted + CASE WHEN $3::boolean THEN 1 ELSE 0 END,
  state = CASE state WHEN 'pending' THEN $4 ELSE state END,
  next_at = CASE state WHEN 'pending' THEN $5::timestamptz ELSE next_at END,
  ref = coalesce(nullif($6, ''), ref)
WHERE webhook_id = $1 AND endpoint = $2 RETURNING tries, state`

const insertTry = `INSERT INTO delivery_try (webhook_id, endpoint, n, at, status, outcome, reason, took_ms, next_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`

const disableEndpoint = `INSERT INTO endpoint (name, disabled_at, reason) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET disabled_at = excluded.disabled_at, reason = excluded.reason WHERE endpoint.disabled_at IS NULL`

// Record implements store.Deliveries.
func (s *Store) Record(ctx context.Context, t store.Try, counts bool) (state store.DeliveryState, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var n int
		at, next := time.UnixMilli(t.At.UnixMilli()), timeOrNull(t.NextAt.Truncate(time.Millisecond))
		err := tx.QueryRow(ctx, moveDelivery, planned, text(t.WebhookID), text(t.Endpoint), counts, string(store.Next(t.Outcome)), next, text(t.Ref)).Scan(&n, &state)
		if errors.Is(err, pgx.ErrNoRows) {
			return noDelivery(t.WebhookID, t.Endpoint)
		} else if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, insertTry, planned, t.WebhookID, t.Endpoint, n, at, t.Status, string(t.Outcome), text(t.Reason), t.Took.Milliseconds(), next); err != nil {
			return err
		}
		if t.Outcome == notify.Gone {
			_, err = tx.Exec(ctx, disableEndpoint, planned, t.Endpoint, at, text(t.Reason))
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("record attempt of %s at %s: %w", t.WebhookID, t.Endpoint, s.translate(ctx, err))
	}
	return state, nil
}

// Disable implements store.Deliveries.
func (s *Store) Disable(ctx context.Context, webhookID, endpoint string) error {
	_, err := s.pool.Exec(ctx, `UPDATE delivery SET state = 'disabled', next_at = NULL WHERE webhook_id = $1 AND endpoint = $2 AND state = 'pending'`, planned, text(webhookID), text(endpoint))
	if err != nil {
		return fmt.Errorf("settle %s to %s: %w", webhookID, endpoint, s.translate(ctx, err))
	}
	return nil
}

// selectHeld are the alerts of a digest's messages, selectHeldIncidents its incidents.
const selectHeld = `SELECT alert.id, alert.rule, user_id, type, severity, count, threshold,
  window_start, window_end, first_event_at, last_event_at, evidence, key, columns, at_least, rule_revision, mode, summary, runbook
FROM delivery JOIN alert ON alert.id = delivery.alert_id WHERE delivery.digest = $1 AND delivery.endpoint = $2 ORDER BY alert.id, type DESC`

const selectHeldIncidents = `SELECT type, ` + incidentColumns + `
FROM delivery JOIN incident ON incident.id = delivery.incident_id WHERE delivery.digest = $1 AND delivery.endpoint = $2 ORDER BY incident.id, type`

// Seal implements store.Deliveries.
func (s *Store) Seal(ctx context.Context, webhookID, endpoint string, data func(iter.Seq2[notify.Held, error]) (json.RawMessage, error)) (d store.Delivery, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) (err error) {
		d, err = one(ctx, tx, scanDelivery, selectDelivery+" WHERE webhook_id = $1 AND endpoint = $2 FOR UPDATE", text(webhookID), text(endpoint))
		if errors.Is(err, pgx.ErrNoRows) {
			return noDelivery(webhookID, endpoint)
		} else if err != nil || d.Data != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE digest SET sealed = true WHERE webhook_id = $1`, planned, webhookID); err != nil {
			return err
		}
		if d.Data, err = data(func(yield func(notify.Held, error) bool) {
			if heldOf(ctx, tx, selectHeld, webhookID, endpoint, scanHeld, yield) {
				heldOf(ctx, tx, selectHeldIncidents, webhookID, endpoint, scanHeldIncident, yield)
			}
		}); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE delivery SET data = $3 WHERE webhook_id = $1 AND endpoint = $2`, planned, webhookID, endpoint, string(d.Data))
		return err
	})
	if err != nil {
		return store.Delivery{}, fmt.Errorf("make digest %s: %w", webhookID, s.translate(ctx, err))
	}
	return d, nil
}

// heldOf yields messages of a digest, and reports whether more are wanted.
func heldOf(ctx context.Context, tx pgx.Tx, query, webhookID, endpoint string, scan func(pgx.CollectableRow) (notify.Held, error), yield func(notify.Held, error) bool) bool {
	rows, err := tx.Query(ctx, query, planned, webhookID, endpoint)
	if err != nil {
		yield(notify.Held{}, err)
		return false
	}
	defer rows.Close()
	for rows.Next() {
		h, err := scan(rows)
		if !yield(h, err) || err != nil {
			return false
		}
	}
	if err := rows.Err(); err != nil {
		yield(notify.Held{}, err)
		return false
	}
	return true
}

// where gathers conditions; each ? becomes a parameter.
type where struct {
	conditions []string
	args       []any
}

func (w *where) only(condition string, values ...any) {
	for _, v := range values {
		w.args = append(w.args, v)
		condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(w.args)), 1)
	}
	w.conditions = append(w.conditions, condition)
}

func (w *where) String() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}

func direction(newest bool) (order, after string) {
	if newest {
		return " DESC", "<"
	}
	return "", ">"
}

func (w *where) deliveries(f store.DeliveryFilter) {
	if f.WebhookID != "" {
		w.only("webhook_id = ?", text(f.WebhookID))
	}
	if f.Endpoint != "" {
		w.only("endpoint = ?", text(f.Endpoint))
	}
	if f.AlertID != "" {
		w.only("alert_id = ?", text(f.AlertID))
	}
	if f.Incident != "" {
		w.only("incident_id = ?", text(f.Incident))
	}
	if len(f.States) > 0 {
		w.only("state = ANY (?::text[])", f.States)
	}
	if !f.Since.IsZero() {
		w.only("created_at >= ?", store.CeilMilli(f.Since))
	}
}

// ListDeliveries implements store.Deliveries.
func (s *Store) ListDeliveries(ctx context.Context, f store.DeliveryFilter) iter.Seq2[store.Delivery, error] {
	if err := f.Validate(); err != nil {
		return failed[store.Delivery](fmt.Errorf("list deliveries: %w", err))
	}
	return pages(f.Limit, func(after *store.Delivery, size int) ([]store.Delivery, error) {
		var w where
		w.deliveries(f)
		order, beyond := direction(f.Newest)
		if after != nil {
			w.only("(created_at, webhook_id, endpoint) "+beyond+" (?, ?, ?)", after.CreatedAt, after.WebhookID, after.Endpoint)
		}
		query := fmt.Sprintf("%s%s ORDER BY created_at%[3]s, webhook_id%[3]s, endpoint%[3]s LIMIT %d", selectDelivery, w.String(), order, size)
		rows, err := s.pool.Query(ctx, query, append([]any{planned}, w.args...)...)
		if err == nil {
			var ds []store.Delivery
			if ds, err = pgx.CollectRows(rows, scanDelivery); err == nil {
				return ds, nil
			}
		}
		return nil, fmt.Errorf("list deliveries: %w", s.translate(ctx, err))
	}, ctx.Err)
}

// ListTries implements store.Deliveries.
func (s *Store) ListTries(ctx context.Context, f store.TryFilter) iter.Seq2[store.Try, error] {
	if err := f.Validate(); err != nil {
		return failed[store.Try](fmt.Errorf("list tries: %w", err))
	}
	return pages(f.Limit, func(after *store.Try, size int) ([]store.Try, error) {
		var w where
		if f.WebhookID != "" {
			w.only("webhook_id = ?", text(f.WebhookID))
		}
		if f.Endpoint != "" {
			w.only("endpoint = ?", text(f.Endpoint))
		}
		if f.Outcome != "" {
			w.only("outcome = ?", string(f.Outcome))
		}
		if !f.Since.IsZero() {
			w.only("at >= ?", store.CeilMilli(f.Since))
		}
		order, beyond := direction(f.Newest)
		if after != nil {
			w.only("(at, webhook_id, endpoint, n) "+beyond+" (?, ?, ?, ?)", after.At, after.WebhookID, after.Endpoint, after.N)
		}
		query := fmt.Sprintf(`SELECT webhook_id, endpoint, n, at, took_ms, status, outcome, reason, next_at FROM delivery_try%s ORDER BY at%[2]s, webhook_id%[2]s, endpoint%[2]s, n%[2]s LIMIT %[3]d`,
			w.String(), order, size)
		rows, err := s.pool.Query(ctx, query, append([]any{planned}, w.args...)...)
		if err == nil {
			var ts []store.Try
			if ts, err = pgx.CollectRows(rows, scanTry); err == nil {
				return ts, nil
			}
		}
		return nil, fmt.Errorf("list tries: %w", s.translate(ctx, err))
	}, ctx.Err)
}

// Resend implements store.Deliveries.
func (s *Store) Resend(ctx context.Context, now time.Time, f store.DeliveryFilter) (n int, err error) {
	if err := f.Validate(); err != nil {
		return 0, fmt.Errorf("resend: %w", err)
	}
	now = time.UnixMilli(now.UnixMilli()).UTC()
	var w where
	w.deliveries(f)
	w.only("state <> 'held' AND (state <> 'pending' OR next_at > ? AND data IS NOT NULL)", now)
	w.args = append(w.args, now)
	query := fmt.Sprintf("UPDATE delivery SET state = 'pending', next_at = $%[1]d, begun_at = $%[1]d, counted = 0%s RETURNING webhook_id, endpoint", len(w.args), w.String())
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, query, append([]any{planned}, w.args...)...)
		if err != nil {
			return err
		}
		due, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (j jobs.Job, err error) {
			j.At, j.BegunMS = now, now.UnixMilli()
			return j, row.Scan(&j.WebhookID, &j.Endpoint)
		})
		if err != nil {
			return err
		}
		n = len(due)
		return s.queue.Add(ctx, tx, due)
	})
	if err != nil {
		return 0, fmt.Errorf("resend: %w", s.translate(ctx, err))
	}
	return n, nil
}

// AddTest implements store.Deliveries. Who adds tests of one endpoint at the same time waits for the other.
func (s *Store) AddTest(ctx context.Context, now time.Time, endpoint string) (d store.Delivery, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var configured, disabled *time.Time
		err := tx.QueryRow(ctx, `SELECT configured_at, disabled_at FROM endpoint WHERE name = $1 FOR UPDATE`, planned, text(endpoint)).Scan(&configured, &disabled)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		e := store.EndpointState{Name: endpoint, ConfiguredAt: orZero(configured), DisabledAt: orZero(disabled)}
		var pending *store.Delivery
		if p, err := one(ctx, tx, scanDelivery, selectDelivery+" WHERE endpoint = $1 AND state = 'pending' AND type = $2 LIMIT 1", text(endpoint), notify.TypeTest); err == nil {
			pending = &p
		} else if !errors.Is(err, pgx.ErrNoRows) {
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
		return store.Delivery{}, fmt.Errorf("test endpoint %s: %w", endpoint, s.translate(ctx, err))
	}
	return d, nil
}

const selectEndpoints = `SELECT name, max(disabled_at), max(reason), sum(pending)::bigint, sum(exhausted)::bigint, sum(dropped)::bigint, max(config), max(configured_at) FROM (
  SELECT endpoint AS name, NULL::timestamptz AS disabled_at, '' AS reason, NULL::text AS config, NULL::timestamptz AS configured_at, (state = 'pending')::int AS pending, (state = 'exhausted')::int AS exhausted, (state = 'disabled')::int AS dropped
  FROM delivery WHERE state IN ('pending', 'exhausted', 'disabled')
  UNION ALL SELECT name, disabled_at, CASE WHEN disabled_at IS NULL THEN '' ELSE reason END, config, configured_at, 0, 0, 0 FROM endpoint
) AS e GROUP BY name ORDER BY name`

// Configure implements store.Deliveries.
func (s *Store) Configure(ctx context.Context, now time.Time, endpoints map[string]store.EndpointConfig) error {
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		config, err := endpoints[name].Text()
		if err == nil {
			_, err = s.pool.Exec(ctx, `INSERT INTO endpoint (name, reason, config, configured_at) VALUES ($1, '', $2, $3)
ON CONFLICT (name) DO UPDATE SET config = excluded.config, configured_at = excluded.configured_at`, planned, text(name), text(config), time.UnixMilli(now.UnixMilli()))
		}
		if err != nil {
			return fmt.Errorf("record configuration of endpoint %s: %w", name, s.translate(ctx, err))
		}
	}
	return nil
}

// Endpoints implements store.Deliveries.
func (s *Store) Endpoints(ctx context.Context) ([]store.EndpointState, error) {
	rows, err := s.pool.Query(ctx, selectEndpoints, planned)
	var out []store.EndpointState
	if err == nil {
		out, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (e store.EndpointState, err error) {
			var disabled, configured *time.Time
			var config *string
			if err = row.Scan(&e.Name, &disabled, &e.Reason, &e.Pending, &e.Exhausted, &e.Dropped, &config, &configured); err != nil {
				return e, err
			}
			e.DisabledAt, e.ConfiguredAt = orZero(disabled), orZero(configured)
			if config != nil {
				e.Config, err = store.ParseEndpointConfig(*config)
			}
			return e, err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", s.translate(ctx, err))
	}
	return out, nil
}

// SetEnabled implements store.Deliveries.
func (s *Store) SetEnabled(ctx context.Context, now time.Time, endpoint string, enabled bool, reason string) (err error) {
	if enabled {
		_, err = s.pool.Exec(ctx, `UPDATE endpoint SET disabled_at = NULL WHERE name = $1`, planned, text(endpoint))
	} else {
		_, err = s.pool.Exec(ctx, disableEndpoint, planned, text(endpoint), time.UnixMilli(now.UnixMilli()), text(reason))
	}
	if err != nil {
		return fmt.Errorf("change endpoint %s: %w", endpoint, s.translate(ctx, err))
	}
	return nil
}

// DisabledAt implements store.Deliveries.
func (s *Store) DisabledAt(ctx context.Context, endpoint string) (time.Time, error) {
	var at *time.Time
	err := s.pool.QueryRow(ctx, `SELECT disabled_at FROM endpoint WHERE name = $1`, planned, text(endpoint)).Scan(&at)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, fmt.Errorf("read endpoint %s: %w", endpoint, s.translate(ctx, err))
	}
	return orZero(at), nil
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// scanDelivery reads the columns of selectDelivery.
func scanDelivery(row pgx.CollectableRow) (d store.Delivery, err error) {
	var next *time.Time
	var data string
	err = row.Scan(&d.WebhookID, &d.Endpoint, &d.AlertID, &d.Incident, &d.Type, &d.State, &d.Tries, &d.Counted, &d.CreatedAt, &d.BegunAt, &next, &d.Digest, &data, &d.Ref)
	d.CreatedAt, d.BegunAt, d.NextAt = d.CreatedAt.UTC(), d.BegunAt.UTC(), orZero(next)
	if data != "" {
		d.Data = json.RawMessage(data)
	}
	return d, err
}

func scanTry(row pgx.CollectableRow) (t store.Try, err error) {
	var next *time.Time
	var ms int64
	err = row.Scan(&t.WebhookID, &t.Endpoint, &t.N, &t.At, &ms, &t.Status, &t.Outcome, &t.Reason, &next)
	t.At, t.NextAt, t.Took = t.At.UTC(), orZero(next), time.Duration(ms)*time.Millisecond
	return t, err
}
