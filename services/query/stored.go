package query

import (
	"context"
	"encoding/json"
	"iter"
	"strings"
	"time"

	"modernc.org/sqlite/vtab"

	"spate/shared/incident"
	"spate/shared/store"
)

// Store has alerts and incidents.
type Store interface {
	Alerts(context.Context, store.Filter) iter.Seq2[store.Alert, error]
	Incidents(context.Context, store.IncidentFilter) iter.Seq2[incident.Incident, error]
}

// columnsOf makes columns of "name type" texts; an asterisk behind it means that the column prunes.
func columnsOf(list string) (out []Column) {
	for text := range strings.SplitSeq(list, ",") {
		name, kind, _ := strings.Cut(strings.TrimSpace(text), " ")
		out = append(out, Column{name, strings.TrimSuffix(kind, "*"), strings.HasSuffix(kind, "*")})
	}
	return out
}

func (db *DB) alerts() *source {
	t := &source{db: db, rows: 10_000, stored: func(ctx context.Context, w wanted, row func([]vtab.Value) bool) error {
		f := store.Filter{}
		since, until, rule, err := filters(w, 3, 1)
		if err != nil {
			return err
		}
		f.Since, f.Until, f.Rule = since, until, rule
		for a, err := range db.cfg.Store.Alerts(ctx, f) {
			if err != nil {
				return err
			}
			key := ""
			if a.Key != nil {
				key = string(a.Key)
			} else if len(a.UserID) > 0 {
				key = store.UserKey(string(a.UserID))
			}
			var user vtab.Value
			if a.IsUser() {
				user = ofToken(a.UserID)
			}
			record, err := a.Record.MarshalJSON()
			if err != nil {
				return err
			}
			if !row([]vtab.Value{a.ID, a.Rule, user, instantOf(a.WindowStart), instantOf(a.WindowEnd), string(a.State), string(a.Severity), orNull(a.Mode), a.Count, orNull(key), jsonOf(a.Columns),
				orNull(a.Summary), instantOf(a.FirstEventAt), instantOf(a.LastEventAt), instantOf(a.OpenedAt), instantOf(a.ClosedAt), orNull(a.Incident), string(record)}) {
				return nil
			}
		}
		return nil
	}}
	t.Table = Table{"alerts", columnsOf("id STRING, rule STRING, user_id , window_start TIME*, window_end TIME, state STRING, severity STRING, mode STRING, event_count BIGINT, key JSON, columns JSON, " +
		"summary STRING, first_event_at TIME, last_event_at TIME, opened_at TIME, closed_at TIME, incident STRING, record JSON")}
	return t
}

func (db *DB) incidents() *source {
	t := &source{db: db, rows: 1_000, stored: func(ctx context.Context, w wanted, row func([]vtab.Value) bool) error {
		_, _, rule, err := filters(w, -1, 1)
		if err != nil {
			return err
		}
		for i, err := range db.cfg.Store.Incidents(ctx, store.IncidentFilter{Rule: rule}) {
			if err != nil {
				return err
			}
			var mark incident.Marked
			if i.Marked != nil {
				mark = *i.Marked
			}
			var user vtab.Value
			if token := i.User(); token != "" {
				user = ofToken([]byte(token))
			}
			if !row([]vtab.Value{i.ID, i.Rule, user, string(i.State), string(i.Severity), orNull(i.Mode), jsonOf(i.Key), instantOf(i.FirstWindowStart), instantOf(i.LastWindowEnd), i.Windows, i.Events, i.Peak,
				instantOf(i.OpenedAt), instantOf(i.EscalatedAt), instantOf(i.ResolvedAt), i.AlertID, orNull(i.Summary), orNull(i.Silenced), orNull(string(mark.Mark)), orNull(mark.Note)}) {
				return nil
			}
		}
		return nil
	}}
	t.Table = Table{"incidents", columnsOf("id STRING, rule STRING, user_id , state STRING, severity STRING, mode STRING, key JSON, first_window_start TIME, last_window_end TIME, windows BIGINT, events BIGINT, " +
		"peak BIGINT, opened_at TIME, escalated_at TIME, resolved_at TIME, alert_id STRING, summary STRING, silenced STRING, mark STRING, mark_note STRING")}
	return t
}

// filters are what conditions say of the window's start and the rule, by the numbers of their columns.
func filters(w wanted, start, rule int) (since, until time.Time, name string, err error) {
	for _, c := range w {
		switch c.column {
		case start:
			if c.value == nil {
				continue
			}
			ms, err := timeOf("window_start", c.value)
			if err != nil {
				return since, until, name, err
			}
			at := time.UnixMilli(ms).UTC()
			if lower(c.op) && at.After(since) {
				since = at
			}
			if end := at.Add(2 * time.Millisecond); upper(c.op) && (until.IsZero() || end.Before(until)) {
				until = end
			}
		case rule:
			if text, ok := c.value.(string); ok && lower(c.op) && upper(c.op) {
				name = text
			}
		}
	}
	return since, until, name, nil
}

func instantOf(t time.Time) vtab.Value {
	if t.IsZero() {
		return nil
	}
	return timeText(t.UnixMilli())
}

func orNull(text string) vtab.Value {
	if text == "" {
		return nil
	}
	return text
}

func jsonOf(b json.RawMessage) vtab.Value {
	if b == nil {
		return nil
	}
	return string(b)
}
