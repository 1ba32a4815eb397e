package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/store"
)

const incidentColumns = `incident.id, incident.rule, incident.mode, incident.key, incident.severity, incident.summary, incident.runbook, incident.opened_at, escalated_at, resolved_at,
  first_window_start, last_window_end, windows, events, peak, escalations, incident.alert_id, quiet_ms, longest_ms, silenced, told, mark::text`

const selectIncident = `SELECT ` + incidentColumns + ` FROM incident`

// selectMembers are the memberships of alerts.
const selectMembers = `SELECT alert_id, incident_id, counted FROM incident_alert WHERE alert_id = ANY ($1::text[])`

// selectCandidates are the incidents that alerts belong to or may belong to: those of ids, and those near the spans. They stay as they are until the
// end of the transaction.
const selectCandidates = selectIncident + ` WHERE incident.id IN (
  SELECT unnest($1::text[])
  UNION SELECT i.id FROM json_to_recordset($2::json) AS s (rule text, mode text, key text, "from" bigint, "to" bigint, far bigint)
    JOIN incident i ON md5(i.key) = md5(s.key) AND i.key = s.key AND i.rule = s.rule AND i.mode = s.mode
    AND i.last_window_end >= to_timestamp(s.far / 1000.0)
    AND i.last_window_end >= to_timestamp((s."from" - i.quiet_ms) / 1000.0)
    AND i.first_window_start <= to_timestamp((s."to" + i.quiet_ms) / 1000.0)
) ORDER BY incident.id FOR UPDATE`

const putIncidents = `INSERT INTO incident (id, rule, mode, key, severity, summary, runbook, opened_at, escalated_at, resolved_at, first_window_start, last_window_end, windows, events, peak, escalations,
  alert_id, quiet_ms, longest_ms, due, silenced, told)
SELECT id, rule, mode, key, severity, summary, runbook, opened_at, escalated_at, resolved_at, first_window_start, last_window_end, windows, events, peak, escalations, alert_id, quiet_ms, longest_ms, due, silenced, told
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[],
  $13::bigint[], $14::bigint[], $15::bigint[], $16::int[], $17::text[], $18::bigint[], $19::bigint[], $20::timestamptz[], $21::text[], $22::text[])
AS n (id, rule, mode, key, severity, summary, runbook, opened_at, escalated_at, resolved_at, first_window_start, last_window_end, windows, events, peak, escalations, alert_id, quiet_ms, longest_ms, due, silenced, told)
ON CONFLICT (id) DO UPDATE SET severity = excluded.severity, summary = excluded.summary, runbook = excluded.runbook, escalated_at = excluded.escalated_at, resolved_at = excluded.resolved_at,
  first_window_start = excluded.first_window_start, last_window_end = excluded.last_window_end, windows = excluded.windows, events = excluded.events, peak = excluded.peak,
  escalations = excluded.escalations, quiet_ms = excluded.quiet_ms, longest_ms = excluded.longest_ms, due = excluded.due,
  silenced = excluded.silenced, told = excluded.told`

const putMembers = `INSERT INTO incident_alert (alert_id, incident_id, counted) SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])
ON CONFLICT (alert_id) DO UPDATE SET incident_id = excluded.incident_id, counted = excluded.counted`

// fold applies records that changed their alerts to incidents and returns what is to be told. The rows of the alerts are locked by now, and whoever
// applies a later record of the same key has applied, or waited for, all earlier ones. So what a statement of its own reads from here on is all there is.
func fold(ctx context.Context, tx pgx.Tx, now time.Time, changed []alert.Record) ([]incident.Event, error) {
	if len(changed) == 0 {
		return nil, nil
	}
	ids := make([]string, len(changed))
	for i, r := range changed {
		ids[i] = r.ID
	}
	members, known, err := membersOf(ctx, tx, ids)
	if err != nil {
		return nil, err
	}
	spans, err := json.Marshal(store.SpanRows(changed))
	if err != nil {
		return nil, fmt.Errorf("encode spans of incidents: %w", err)
	}
	rows, err := tx.Query(ctx, selectCandidates, planned, known, string(spans))
	if err != nil {
		return nil, err
	}
	stored, err := pgx.CollectRows(rows, scanIncident)
	if err != nil {
		return nil, err
	}
	rows, err = tx.Query(ctx, selectSilences, planned, now)
	if err != nil {
		return nil, err
	}
	silences, err := pgx.CollectRows(rows, scanSilence)
	if err != nil {
		return nil, err
	}
	f := incident.NewFold(now, silences, stored, members)
	for i := range changed {
		f.Apply(&changed[i])
	}
	if err := write(ctx, tx, f.Incidents()); err != nil {
		return nil, err
	}
	var alerts, of []string
	var counted []int64
	for id, m := range f.Members() {
		alerts, of, counted = append(alerts, id), append(of, m.Incident), append(counted, m.Counted)
	}
	if _, err := tx.Exec(ctx, putMembers, planned, alerts, of, counted); err != nil {
		return nil, err
	}
	return f.Events(), nil
}

// membersOf returns the memberships of alerts, and the incidents in them.
func membersOf(ctx context.Context, tx pgx.Tx, ids []string) (map[string]incident.Member, []string, error) {
	members, known := make(map[string]incident.Member, len(ids)), []string{}
	rows, err := tx.Query(ctx, selectMembers, planned, ids)
	if err != nil {
		return nil, nil, err
	}
	var id string
	var m incident.Member
	_, err = pgx.ForEachRow(rows, []any{&id, &m.Incident, &m.Counted}, func() error {
		members[id], known = m, append(known, m.Incident)
		return nil
	})
	return members, known, err
}

// write puts incidents.
func write(ctx context.Context, tx pgx.Tx, list []incident.Incident) error {
	n := len(list)
	ids, rules, modes, keys, severities, summaries, runbooks, alerts := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	opened, escalated, resolved, firsts, lasts, dues := make([]time.Time, n), make([]*time.Time, n), make([]*time.Time, n), make([]time.Time, n), make([]time.Time, n), make([]time.Time, n)
	silenced, told := make([]string, n), make([]string, n)
	windows, events, peaks, quiet, longest, escalations := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n), make([]int32, n)
	for j := range list {
		i := &list[j]
		ids[j], rules[j], modes[j], keys[j], severities[j], summaries[j], runbooks[j], alerts[j] = i.ID, i.Rule, i.Mode, string(i.Key), string(i.Severity), i.Summary, i.Runbook, i.AlertID
		opened[j], escalated[j], resolved[j], firsts[j], lasts[j], dues[j] = i.OpenedAt, timeOrNull(i.EscalatedAt), timeOrNull(i.ResolvedAt), i.FirstWindowStart, i.LastWindowEnd, i.Due()
		windows[j], events[j], peaks[j], quiet[j], longest[j], escalations[j] = i.Windows, i.Events, i.Peak, i.Quiet.Milliseconds(), i.Longest.Milliseconds(), int32(i.Escalations)
		silenced[j], told[j] = i.Silenced, string(i.Told)
	}
	_, err := tx.Exec(ctx, putIncidents, planned, ids, rules, modes, keys, severities, summaries, runbooks, opened, escalated, resolved, firsts, lasts, windows, events, peaks, escalations, alerts, quiet, longest, dues, silenced, told)
	return err
}

// Resolve implements store.Incidents.
func (s *Store) Resolve(ctx context.Context, now, upTo time.Time, limit int, to ...notify.Endpoint) (ended []incident.Event, err error) {
	bound, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	now = time.UnixMilli(now.UnixMilli())
	err = pgx.BeginFunc(bound, s.pool, func(tx pgx.Tx) error {
		ended = nil
		rows, err := tx.Query(bound, selectIncident+` WHERE resolved_at IS NULL AND due <= $1 ORDER BY id LIMIT $2 FOR UPDATE`, planned, upTo, limit)
		if err != nil {
			return err
		}
		over, err := pgx.CollectRows(rows, scanIncident)
		if err != nil || len(over) == 0 {
			return err
		}
		for i := range over {
			ended = append(ended, over[i].Resolve(now))
		}
		if err := write(bound, tx, over); err != nil {
			return err
		}
		return s.send(bound, tx, now, nil, ended, to)
	})
	if err != nil {
		return nil, fmt.Errorf("resolve incidents: %w", s.translate(ctx, err))
	}
	return ended, nil
}

// Incidents implements store.Incidents.
func (s *Store) Incidents(ctx context.Context, f store.IncidentFilter) iter.Seq2[incident.Incident, error] {
	if err := f.Validate(); err != nil {
		return failed[incident.Incident](fmt.Errorf("list incidents: %w", err))
	}
	return pages(f.Limit, func(after *incident.Incident, size int) ([]incident.Incident, error) {
		query, args := listIncidents(f, after, size)
		rows, err := s.pool.Query(ctx, query, append([]any{planned}, args...)...)
		if err == nil {
			var list []incident.Incident
			if list, err = pgx.CollectRows(rows, scanIncident); err == nil {
				return list, nil
			}
		}
		return nil, fmt.Errorf("list incidents: %w", s.translate(ctx, err))
	}, ctx.Err)
}

func listIncidents(f store.IncidentFilter, after *incident.Incident, size int) (query string, args []any) {
	var w where
	if f.ID != "" {
		w.only("id >= ? AND id < ?", f.ID, f.PastID())
	}
	if f.Key != "" {
		w.only("md5(key) = md5(?::text) AND key = ?::text", text(f.Key), text(f.Key))
	}
	if f.Rule != "" {
		w.only("rule = ?", text(f.Rule))
	}
	switch f.State {
	case incident.StateOpen:
		w.only("resolved_at IS NULL")
	case incident.StateResolved:
		w.only("resolved_at IS NOT NULL")
	}
	if f.MinSeverity == alert.Critical {
		w.only("severity = ?", string(f.MinSeverity))
	}
	if f.Mark != "" {
		w.only("mark ->> 'mark' = ?", string(f.Mark))
	}
	if !f.OpenedSince.IsZero() {
		w.only("opened_at >= ?", store.CeilMilli(f.OpenedSince))
	}
	if f.Silenced != "" {
		w.only("silenced = ?", text(f.Silenced))
	}
	if !f.Since.IsZero() {
		w.only("last_window_end > ?", f.Since.Truncate(time.Millisecond))
	}
	if !f.Until.IsZero() {
		w.only("first_window_start < ?", store.CeilMilli(f.Until))
	}
	order, beyond := direction(f.Newest)
	if after != nil {
		w.only("(first_window_start, id) "+beyond+" (?, ?)", after.FirstWindowStart, after.ID)
	}
	return fmt.Sprintf("%s%s ORDER BY first_window_start%[3]s, id%[3]s LIMIT %d", selectIncident, w.String(), order, size), w.args
}

// IncidentsOf implements store.Incidents.
func (s *Store) IncidentsOf(ctx context.Context, alerts []string) (map[string]string, error) {
	rows, err := s.pool.Query(ctx, selectMembers, planned, alerts)
	if err != nil {
		return nil, fmt.Errorf("read incidents of alerts: %w", s.translate(ctx, err))
	}
	out := make(map[string]string, len(alerts))
	var id, of string
	var counted int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &of, &counted}, func() error { out[id] = of; return nil }); err != nil {
		return nil, fmt.Errorf("read incidents of alerts: %w", s.translate(ctx, err))
	}
	return out, nil
}

// Mark implements store.Incidents.
func (s *Store) Mark(ctx context.Context, id string, m incident.Marked) error {
	mark, err := store.MarkText(&m)
	if err != nil {
		return err
	}
	tag, err := s.pool.Exec(ctx, `UPDATE incident SET mark = $2::json WHERE id = $1`, planned, text(id), mark)
	if err != nil {
		return fmt.Errorf("mark incident %q: %w", id, s.translate(ctx, err))
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("%w: id %q", store.ErrNoIncident, id)
	}
	return nil
}

// selectSilences are those that end after a time.
const selectSilences = `SELECT id, rule, key, since, until, author, reason, created_at FROM silence WHERE until > $1 ORDER BY since, id`

func scanSilence(row pgx.CollectableRow) (s incident.Silence, err error) {
	err = row.Scan(&s.ID, &s.Rule, &s.Key, &s.From, &s.Until, &s.Author, &s.Reason, &s.CreatedAt)
	s.From, s.Until, s.CreatedAt = s.From.UTC(), s.Until.UTC(), s.CreatedAt.UTC()
	return s, err
}

// AddSilence implements store.Silences.
func (s *Store) AddSilence(ctx context.Context, si incident.Silence) error {
	key := si.Key
	if key == nil {
		key = map[string]string{}
	}
	_, err := s.pool.Exec(ctx, `INSERT INTO silence (id, rule, key, since, until, author, reason, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		planned, si.ID, si.Rule, key, si.From, si.Until, si.Author, si.Reason, si.CreatedAt)
	if err != nil {
		return fmt.Errorf("add silence: %w", s.translate(ctx, err))
	}
	return nil
}

// Silences implements store.Silences.
func (s *Store) Silences(ctx context.Context, endAfter time.Time) ([]incident.Silence, error) {
	rows, err := s.pool.Query(ctx, selectSilences, planned, endAfter)
	if err == nil {
		var list []incident.Silence
		if list, err = pgx.CollectRows(rows, scanSilence); err == nil {
			return list, nil
		}
	}
	return nil, fmt.Errorf("list silences: %w", s.translate(ctx, err))
}

// EndSilence implements store.Silences.
func (s *Store) EndSilence(ctx context.Context, id string, at time.Time) error {
	tag, err := s.pool.Exec(ctx, `UPDATE silence SET since = least(since, $2::timestamptz), until = least(until, $2::timestamptz) WHERE id = $1`, planned, text(id), time.UnixMilli(at.UnixMilli()))
	if err != nil {
		return fmt.Errorf("end silence %q: %w", id, s.translate(ctx, err))
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("%w: id %q", store.ErrNoSilence, id)
	}
	return nil
}

// scanHeldIncident reads the columns of selectHeldIncidents.
func scanHeldIncident(row pgx.CollectableRow) (h notify.Held, err error) {
	i, err := scanIncidentAfter(row, &h.Type)
	h.Incident = &i
	return h, err
}

// scanIncident reads incidentColumns.
func scanIncident(row pgx.CollectableRow) (incident.Incident, error) { return scanIncidentAfter(row) }

// scanIncidentAfter reads columns, and then incidentColumns.
func scanIncidentAfter(row pgx.CollectableRow, columns ...any) (i incident.Incident, err error) {
	var key string
	var escalated, resolved *time.Time
	var quiet, longest int64
	var mark *string
	if err = row.Scan(append(columns, &i.ID, &i.Rule, &i.Mode, &key, &i.Severity, &i.Summary, &i.Runbook, &i.OpenedAt, &escalated, &resolved, &i.FirstWindowStart, &i.LastWindowEnd,
		&i.Windows, &i.Events, &i.Peak, &i.Escalations, &i.AlertID, &quiet, &longest, &i.Silenced, &i.Told, &mark)...); err != nil {
		return i, err
	}
	i.State, i.Key = incident.StateOpen, json.RawMessage(key)
	if resolved != nil {
		i.State = incident.StateResolved
	}
	i.OpenedAt, i.EscalatedAt, i.ResolvedAt, i.FirstWindowStart, i.LastWindowEnd = i.OpenedAt.UTC(), orZero(escalated), orZero(resolved), i.FirstWindowStart.UTC(), i.LastWindowEnd.UTC()
	i.Quiet, i.Longest = time.Duration(quiet)*time.Millisecond, time.Duration(longest)*time.Millisecond
	i.Marked, err = store.ParseMark(mark)
	return i, err
}
