package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"time"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/store"
)

const (
	incidentColumns = `incident.id, incident.rule, incident.mode, incident.key, incident.severity, incident.summary, incident.runbook, incident.opened_at, escalated_at, resolved_at,
  first_window_start_ms, last_window_end_ms, windows, events, peak, escalations, incident.alert_id, quiet_ms, longest_ms, silenced, told, mark`

	selectIncident = `SELECT ` + incidentColumns + ` FROM incident`

	// selectMembers are the memberships of alerts.
	selectMembers = `SELECT alert_id, incident_id, counted FROM incident_alert WHERE alert_id IN (SELECT value FROM json_each(?))`

	// selectCandidates are the incidents that alerts belong to or may belong to: those of ids, and those near the spans.
	selectCandidates = selectIncident + ` WHERE incident.id IN (
  SELECT value FROM json_each(?1)
  UNION SELECT i.id FROM json_each(?2) AS s CROSS JOIN incident i
  WHERE i.key = s.value ->> 'key' AND i.rule = s.value ->> 'rule' AND i.mode = s.value ->> 'mode' AND i.last_window_end_ms >= s.value ->> 'far'
    AND i.last_window_end_ms + i.quiet_ms >= s.value ->> 'from' AND i.first_window_start_ms - i.quiet_ms <= s.value ->> 'to')`

	putIncident = `INSERT INTO incident (id, rule, mode, key, severity, summary, runbook, opened_at, escalated_at, resolved_at, first_window_start_ms, last_window_end_ms, windows, events, peak, escalations,
  alert_id, quiet_ms, longest_ms, due_ms, silenced, told) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET severity = excluded.severity, summary = excluded.summary, runbook = excluded.runbook, escalated_at = excluded.escalated_at, resolved_at = excluded.resolved_at,
  first_window_start_ms = excluded.first_window_start_ms, last_window_end_ms = excluded.last_window_end_ms, windows = excluded.windows, events = excluded.events, peak = excluded.peak,
  escalations = excluded.escalations, quiet_ms = excluded.quiet_ms, longest_ms = excluded.longest_ms, due_ms = excluded.due_ms,
  silenced = excluded.silenced, told = excluded.told`

	putMember = `INSERT INTO incident_alert (alert_id, incident_id, counted) VALUES (?, ?, ?)
ON CONFLICT (alert_id) DO UPDATE SET incident_id = excluded.incident_id, counted = excluded.counted`
)

// fold applies records that changed their alerts to incidents and returns what is to be told.
func (s *Store) fold(ctx context.Context, tx *sql.Tx, now time.Time, changed []alert.Record) ([]incident.Event, error) {
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
	stored, err := incidents(ctx, tx, selectCandidates, array(known), string(spans))
	if err != nil {
		return nil, err
	}
	silences, err := silences(ctx, tx, now)
	if err != nil {
		return nil, err
	}
	f := incident.NewFold(now, silences, stored, members)
	for i := range changed {
		f.Apply(&changed[i])
	}
	if err := s.writeIncidents(ctx, tx, f.Incidents()); err != nil {
		return nil, err
	}
	put := tx.StmtContext(ctx, s.member) //nolint:sqlclosecheck // the end of the transaction closes it
	for id, m := range f.Members() {
		if _, err := put.ExecContext(ctx, id, m.Incident, m.Counted); err != nil {
			return nil, err
		}
	}
	return f.Events(), nil
}

// array is a JSON array of texts.
func array(texts []string) string {
	b, _ := json.Marshal(texts) // texts are always encoded
	return string(b)
}

// membersOf returns the memberships of alerts, and the incidents in them.
func membersOf(ctx context.Context, tx queryer, ids []string) (members map[string]incident.Member, known []string, err error) {
	rows, err := tx.QueryContext(ctx, selectMembers, array(ids))
	if err != nil {
		return nil, nil, err
	}
	members, known = make(map[string]incident.Member, len(ids)), []string{}
	type member struct {
		alert string
		incident.Member
	}
	each(rows, func(r row) (m member, err error) {
		return m, r.Scan(&m.alert, &m.Incident, &m.Counted)
	}, func(m member, e error) bool {
		members[m.alert], known, err = m.Member, append(known, m.Incident), e
		return true
	})
	return members, known, err
}

// incidents returns what a query within a transaction finds.
func incidents(ctx context.Context, tx *sql.Tx, query string, args ...any) (list []incident.Incident, err error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	each(rows, scanIncident, func(i incident.Incident, e error) bool {
		list, err = append(list, i), e
		return true
	})
	return list, err
}

func (s *Store) writeIncidents(ctx context.Context, tx *sql.Tx, list []incident.Incident) error {
	put := tx.StmtContext(ctx, s.incident) //nolint:sqlclosecheck // the end of the transaction closes it
	for j := range list {
		i := &list[j]
		if _, err := put.ExecContext(ctx, i.ID, i.Rule, i.Mode, string(i.Key), string(i.Severity), i.Summary, i.Runbook, i.OpenedAt.UnixMilli(), milliOrNull(i.EscalatedAt), milliOrNull(i.ResolvedAt),
			i.FirstWindowStart.UnixMilli(), i.LastWindowEnd.UnixMilli(), i.Windows, i.Events, i.Peak, i.Escalations, i.AlertID, i.Quiet.Milliseconds(), i.Longest.Milliseconds(), i.Due().UnixMilli(), i.Silenced, string(i.Told)); err != nil {
			return err
		}
	}
	return nil
}

// Resolve implements store.Incidents.
func (s *Store) Resolve(ctx context.Context, now, upTo time.Time, limit int, to ...notify.Endpoint) (ended []incident.Event, err error) {
	err = s.in(ctx, func(tx *sql.Tx) error {
		ended = nil
		over, err := incidents(ctx, tx, selectIncident+` WHERE resolved_at IS NULL AND due_ms <= ? ORDER BY id LIMIT ?`, upTo.UnixMilli(), limit)
		if err != nil || len(over) == 0 {
			return err
		}
		for i := range over {
			ended = append(ended, over[i].Resolve(now))
		}
		if err := s.writeIncidents(ctx, tx, over); err != nil {
			return err
		}
		return s.send(ctx, tx, now, nil, ended, to)
	})
	if err != nil {
		return nil, fmt.Errorf("resolve incidents: %w", s.translate(err))
	}
	return ended, nil
}

// Incidents implements store.Incidents.
func (s *Store) Incidents(ctx context.Context, f store.IncidentFilter) iter.Seq2[incident.Incident, error] {
	var w where
	if f.ID != "" {
		w.only("id >= ? AND id < ?", f.ID, f.PastID())
	}
	if f.Key != "" {
		w.only("key = ?", f.Key)
	}
	if f.Rule != "" {
		w.only("rule = ?", f.Rule)
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
		w.only("opened_at >= ?", store.CeilMilli(f.OpenedSince).UnixMilli())
	}
	if f.Silenced != "" {
		w.only("silenced = ?", f.Silenced)
	}
	if !f.Since.IsZero() {
		w.only("last_window_end_ms > ?", f.Since.UnixMilli())
	}
	if !f.Until.IsZero() {
		w.only("first_window_start_ms < ?", store.CeilMilli(f.Until).UnixMilli())
	}
	return list(ctx, s, "incidents", f.Validate(), selectIncident+w.String()+order(f.Newest, f.Limit, "first_window_start_ms", "id"), w.args, scanIncident)
}

// IncidentsOf implements store.Incidents.
func (s *Store) IncidentsOf(ctx context.Context, alerts []string) (map[string]string, error) {
	members, _, err := membersOf(ctx, s.read, alerts)
	if err != nil {
		return nil, fmt.Errorf("read incidents of alerts: %w", s.translate(err))
	}
	out := make(map[string]string, len(members))
	for id, m := range members {
		out[id] = m.Incident
	}
	return out, nil
}

// Mark implements store.Incidents.
func (s *Store) Mark(ctx context.Context, id string, m incident.Marked) error {
	mark, err := store.MarkText(&m)
	if err != nil {
		return err
	}
	res, err := s.write.ExecContext(ctx, `UPDATE incident SET mark = ? WHERE id = ?`, mark, id)
	if err != nil {
		return fmt.Errorf("mark incident %q: %w", id, s.translate(err))
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return fmt.Errorf("%w: id %q", store.ErrNoIncident, id)
	}
	return nil
}

// queryer is a database or a transaction.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// silences returns those that end after a time.
func silences(ctx context.Context, q queryer, endAfter time.Time) (list []incident.Silence, err error) {
	ms := endAfter.UnixMilli()
	if endAfter.IsZero() {
		ms = math.MinInt64
	}
	rows, err := q.QueryContext(ctx, `SELECT id, rule, key, since, until, author, reason, created_at FROM silence WHERE until > ? ORDER BY since, id`, ms)
	if err != nil {
		return nil, err
	}
	each(rows, func(r row) (s incident.Silence, err error) {
		var key string
		var since, until, created int64
		if err = r.Scan(&s.ID, &s.Rule, &key, &since, &until, &s.Author, &s.Reason, &created); err != nil {
			return s, err
		}
		s.From, s.Until, s.CreatedAt = time.UnixMilli(since).UTC(), time.UnixMilli(until).UTC(), time.UnixMilli(created).UTC()
		return s, json.Unmarshal([]byte(key), &s.Key)
	}, func(s incident.Silence, e error) bool {
		list, err = append(list, s), e
		return true
	})
	return list, err
}

// AddSilence implements store.Silences.
func (s *Store) AddSilence(ctx context.Context, si incident.Silence) error {
	key := []byte("{}")
	if len(si.Key) > 0 {
		var err error
		if key, err = json.Marshal(si.Key); err != nil {
			return fmt.Errorf("add silence: %w", err)
		}
	}
	_, err := s.write.ExecContext(ctx, `INSERT INTO silence (id, rule, key, since, until, author, reason, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		si.ID, si.Rule, string(key), si.From.UnixMilli(), si.Until.UnixMilli(), si.Author, si.Reason, si.CreatedAt.UnixMilli())
	if err != nil {
		return fmt.Errorf("add silence: %w", s.translate(err))
	}
	return nil
}

// Silences implements store.Silences.
func (s *Store) Silences(ctx context.Context, endAfter time.Time) ([]incident.Silence, error) {
	list, err := silences(ctx, s.read, endAfter)
	if err != nil {
		return nil, fmt.Errorf("list silences: %w", s.translate(err))
	}
	return list, nil
}

// EndSilence implements store.Silences.
func (s *Store) EndSilence(ctx context.Context, id string, at time.Time) error {
	res, err := s.write.ExecContext(ctx, `UPDATE silence SET since = min(since, ?1), until = min(until, ?1) WHERE id = ?2`, at.UnixMilli(), id)
	if err != nil {
		return fmt.Errorf("end silence %q: %w", id, s.translate(err))
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return fmt.Errorf("%w: id %q", store.ErrNoSilence, id)
	}
	return nil
}

// scanHeldIncident reads the columns of selectHeldIncidents.
func scanHeldIncident(r row) (h notify.Held, err error) {
	i, err := scanIncidentAfter(r, &h.Type)
	h.Incident = &i
	return h, err
}

// scanIncident reads incidentColumns.
func scanIncident(r row) (incident.Incident, error) { return scanIncidentAfter(r) }

// scanIncidentAfter reads columns, and then incidentColumns.
func scanIncidentAfter(r row, columns ...any) (i incident.Incident, err error) {
	var key string
	var opened, first, last, quiet, longest int64
	var escalated, resolved sql.NullInt64
	var mark *string
	if err = r.Scan(append(columns, &i.ID, &i.Rule, &i.Mode, &key, &i.Severity, &i.Summary, &i.Runbook, &opened, &escalated, &resolved, &first, &last,
		&i.Windows, &i.Events, &i.Peak, &i.Escalations, &i.AlertID, &quiet, &longest, &i.Silenced, &i.Told, &mark)...); err != nil {
		return i, err
	}
	i.State, i.Key = incident.StateOpen, json.RawMessage(key)
	if resolved.Valid {
		i.State = incident.StateResolved
	}
	at := func(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
	i.OpenedAt, i.EscalatedAt, i.ResolvedAt, i.FirstWindowStart, i.LastWindowEnd = at(opened), milliOrZero(escalated), milliOrZero(resolved), at(first), at(last)
	i.Quiet, i.Longest = time.Duration(quiet)*time.Millisecond, time.Duration(longest)*time.Millisecond
	i.Marked, err = store.ParseMark(mark)
	return i, err
}
