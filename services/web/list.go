package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/store"
)

// cursor is where a page of a list begins: behind the first n rows at a time.
type cursor struct {
	ms int64
	n  int
}

func parseCursor(text string) (c cursor, err error) {
	if text == "" {
		return c, nil
	}
	ms, n, ok := strings.Cut(text, "-")
	c.ms, err = strconv.ParseInt(ms, 10, 64)
	if ok && err == nil {
		c.n, err = strconv.Atoi(n)
	}
	if !ok || err != nil || c.n < 0 || c.n > 1_000_000 || c.ms < 0 || c.ms > 253402300799999 {
		return c, fmt.Errorf("after: %.40q is not a page of this list; start again without this parameter", text)
	}
	return c, nil
}

func (c cursor) String() string {
	if c == (cursor{}) {
		return ""
	}
	return fmt.Sprintf("%d-%d", c.ms, c.n)
}

// paged returns a page of a list that has its newest rows first, and where the next page begins. list returns rows whose time is before until, if that is not zero.
func paged[T any](c cursor, limit int, list func(until time.Time, limit int) iter.Seq2[T, error], of func(T) time.Time) (rows []T, next cursor, err error) {
	var until time.Time
	if c.ms > 0 {
		until = time.UnixMilli(c.ms + 1)
	}
	skip := c.n
	for x, err := range list(until, skip+limit+1) {
		if err != nil {
			return nil, next, err
		}
		if skip > 0 && of(x).UnixMilli() == c.ms {
			skip--
			continue
		}
		if len(rows) == limit {
			return rows, next, nil
		}
		rows = append(rows, x)
		if ms := of(x).UnixMilli(); ms == next.ms {
			next.n++
		} else {
			next = cursor{ms, 1}
		}
		if next.ms == c.ms && len(rows) == 1 {
			next.n = c.n + 1
		}
	}
	return rows, cursor{}, nil
}

// incidentQuery are the filters of a list of incidents.
type incidentQuery struct {
	Rule, Key, State, Severity, Mark, Since string
	After                                   cursor
}

func incidentQueryOf(q url.Values) (iq incidentQuery, err error) {
	iq = incidentQuery{Rule: q.Get("rule"), Key: q.Get("key"), State: q.Get("state"), Severity: q.Get("severity"), Mark: q.Get("mark"), Since: q.Get("since")}
	iq.After, err = parseCursor(q.Get("after"))
	return iq, err
}

func (q incidentQuery) filter(now time.Time) (store.IncidentFilter, error) {
	f := store.IncidentFilter{Rule: q.Rule, State: incident.State(q.State), MinSeverity: alert.Severity(q.Severity), Mark: incident.Mark(q.Mark), Newest: true}
	var err error
	f.Since, err = since(q.Since, now)
	return f, errors.Join(err, f.Validate())
}

// since parses the time that a list begins at; it is zero if the text is empty.
func since(text string, now time.Time) (t time.Time, err error) {
	if text == "" {
		return t, nil
	}
	if t, err = instantOf(text, now); err != nil {
		err = fmt.Errorf("since: %w", err)
	}
	return t, err
}

func instantOf(text string, now time.Time) (time.Time, error) {
	t, ok := activity.Moment(text, now)
	if !ok {
		return t, fmt.Errorf("%.40q is neither a time nor an age; use, for example, 2026-11-24T09:30:00Z, 2h or 7d", text)
	}
	return t, nil
}

// keyObjects are the keys that a text may mean, as the store has them: 42 can be a number and a text.
func keyObjects(text, column string) ([]string, error) {
	if text == "" {
		return []string{""}, nil
	}
	key, err := parseKey([]string{text}, nil, column)
	if err != nil {
		return nil, err
	}
	var out []string
	for name, value := range key {
		column, _ := json.Marshal(name) // it is text
		for _, token := range activity.UserToken(*value) {
			out = append(out, fmt.Sprintf(`{%s:%s}`, column, token))
		}
	}
	return out, nil
}

// incidents returns a page of incidents, the newest first.
func (s *Server) incidents(ctx context.Context, q incidentQuery) (rows []incident.Incident, next cursor, err error) {
	f, err := q.filter(time.Now())
	if err != nil {
		return nil, next, &badRequest{err}
	}
	keys, err := keyObjects(q.Key, s.column(ctx))
	if err != nil {
		return nil, next, &badRequest{err}
	}
	st, err := s.store(ctx)
	if err != nil {
		return nil, next, err
	}
	return paged(q.After, pageSize, func(until time.Time, limit int) iter.Seq2[incident.Incident, error] {
		f.Until, f.Limit = until, limit
		var lists []iter.Seq2[incident.Incident, error]
		for _, key := range keys {
			f.Key = key
			lists = append(lists, st.Incidents(ctx, f))
		}
		return joined(limit, func(i incident.Incident) time.Time { return i.FirstWindowStart }, lists...)
	}, func(i incident.Incident) time.Time { return i.FirstWindowStart })
}

// joined merges lists that have the newest first.
func joined[T any](limit int, of func(T) time.Time, lists ...iter.Seq2[T, error]) iter.Seq2[T, error] {
	if len(lists) == 1 {
		return lists[0]
	}
	return func(yield func(T, error) bool) {
		var all []T
		for _, l := range lists {
			for x, err := range l {
				if err != nil {
					yield(x, err)
					return
				}
				all = append(all, x)
			}
		}
		slices.SortStableFunc(all, func(a, b T) int { return of(b).Compare(of(a)) })
		for i, x := range all {
			if i == limit || !yield(x, nil) {
				return
			}
		}
	}
}

// alertQuery are the filters of a list of alerts.
type alertQuery struct {
	Rule, User, State, Severity, Incident, Since string
	After                                        cursor
}

func alertQueryOf(q url.Values) (aq alertQuery, err error) {
	aq = alertQuery{Rule: q.Get("rule"), User: q.Get("user"), State: q.Get("state"), Severity: q.Get("severity"), Incident: q.Get("incident"), Since: q.Get("since")}
	aq.After, err = parseCursor(q.Get("after"))
	return aq, err
}

// alerts returns a page of alerts, the newest first.
func (s *Server) alerts(ctx context.Context, q alertQuery) (rows []store.Alert, next cursor, err error) {
	f := store.Filter{Rule: q.Rule, State: alert.State(q.State), MinSeverity: alert.Severity(q.Severity), Incident: q.Incident, Newest: true}
	f.Since, err = since(q.Since, time.Now())
	if err = errors.Join(err, f.Validate()); err != nil {
		return nil, next, &badRequest{err}
	}
	st, err := s.store(ctx)
	if err != nil {
		return nil, next, err
	}
	users := []string{""}
	if q.User != "" {
		users = activity.UserToken(q.User)
	}
	of := func(a store.Alert) time.Time { return a.WindowStart }
	return paged(q.After, pageSize, func(until time.Time, limit int) iter.Seq2[store.Alert, error] {
		f.Until, f.Limit = until, limit
		var lists []iter.Seq2[store.Alert, error]
		for _, user := range users {
			f.User = user
			lists = append(lists, st.Alerts(ctx, f))
		}
		return joined(limit, of, lists...)
	}, of)
}
