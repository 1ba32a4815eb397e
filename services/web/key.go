package web

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"spate/services/explainer"
	"spate/shared/activity"
	"spate/shared/incident"
	"spate/shared/store"
)

type keyView struct {
	Label     string
	Key       Key
	Texts     []string // column=value
	Nulls     []string
	Rule, At  string
	Answers   []answerView
	AnswerErr error
	Charts    []chart
	Incidents []incident.Incident
	StoreErr  error
}

// PageTitle implements titled.
func (v keyView) PageTitle() string { return cell(v.Label) }

// key returns what the page of a key shows.
func (s *Server) key(ctx context.Context, q url.Values) (v keyView, err error) {
	v.Key, err = parseKey(q["key"], q["null"], s.column(ctx))
	if err != nil {
		return v, &badRequest{err}
	}
	v.Rule, v.At, v.Nulls = q.Get("rule"), q.Get("at"), q["null"]
	var when time.Time
	if v.At != "" {
		if when, err = instantOf(v.At, time.Now()); err != nil {
			return v, &badRequest{fmt.Errorf("at: %w", err)}
		}
	}
	for name, value := range v.Key {
		if value != nil {
			v.Texts = append(v.Texts, name+"="+*value)
		}
	}
	slices.Sort(v.Texts)
	v.Label = strings.Join(v.Texts, ", ")
	if st, err := s.store(ctx); err != nil {
		v.StoreErr = err
	} else {
		v.Incidents, v.StoreErr = keyIncidents(ctx, st, v.Key, v.Rule)
	}
	if s.cfg.Why == nil {
		return v, nil
	}
	answers, err := s.cfg.Why.OfKey(ctx, v.Key, v.Rule, when)
	v.AnswerErr = err
	for _, a := range answers {
		v.Answers = append(v.Answers, viewOf(a))
	}
	from, until := time.Time{}, time.Time{}
	if !when.IsZero() {
		from, until = when.Add(-2*time.Minute), when.Add(2*time.Minute)
	}
	list, err := s.cfg.Why.Windows(ctx, v.Key, v.Rule, from, until)
	if err != nil {
		v.AnswerErr = cmp.Or(v.AnswerErr, err)
		return v, nil
	}
	for _, w := range list {
		if len(w.Windows) > 0 {
			narrow(w)
			v.Charts = append(v.Charts, chart{Title: w.Rule, Unit: w.What, SVG: bars(time.Time{}, time.Time{}, w), Types: w.Types, OtherTypes: w.OtherTypes, Revision: w.Revision})
		}
	}
	return v, nil
}

// column is the key column of a value that names none: user_id or, if no rule has it as its key, the first that a rule has by itself.
func (s *Server) column(ctx context.Context) string {
	column := ""
	if s.cfg.Rules != nil {
		rules, _, err := s.cfg.Rules.List(ctx)
		if err != nil {
			return userColumn
		}
		for _, r := range rules {
			switch {
			case len(r.Key) != 1:
			case r.Key[0] == userColumn:
				return userColumn
			case column == "":
				column = r.Key[0]
			}
		}
	}
	return cmp.Or(column, userColumn)
}

// userColumn is what the key of most rules is.
const userColumn = "user_id"

// narrow leaves out the time before the first and behind the last window, so that few windows are not lost in an hour.
func narrow(w *explainer.Windows) {
	first, last := w.Windows[0], w.Windows[len(w.Windows)-1]
	size := first.End.Sub(first.Start)
	w.From, w.Until = later(w.From, first.Start.Add(-3*size)), earlier(w.Until, last.End.Add(3*size))
	if most := maxBars * size; w.Until.Sub(w.From) > most {
		w.From = w.Until.Add(-most)
		w.Windows = slices.DeleteFunc(w.Windows, func(x explainer.Window) bool { return x.End.Before(w.From) })
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// keyIncidents returns the newest incidents of a key.
func keyIncidents(ctx context.Context, st Store, key Key, rule string) (list []incident.Incident, err error) {
	if len(key) == 1 {
		for name, value := range key {
			column, _ := json.Marshal(name) // it is text
			tokens := []string{"null"}
			if value != nil {
				tokens = activity.UserToken(*value)
			}
			for _, token := range tokens {
				part, err := store.Collect(st.Incidents(ctx, store.IncidentFilter{Rule: rule, Key: fmt.Sprintf(`{%s:%s}`, column, token), Newest: true, Limit: pageSize}))
				if err != nil {
					return nil, err
				}
				list = append(list, part...)
			}
		}
		return list, nil
	}
	// Of a key with several columns, the types are not known: the newest incidents of the rule are looked through.
	const looked = 5000
	for i, err := range st.Incidents(ctx, store.IncidentFilter{Rule: rule, Newest: true, Limit: looked}) {
		if err != nil {
			return nil, err
		}
		of, _ := keyOf(i.Key)
		if len(list) < pageSize && len(of) == len(key) && sameKey(of, key) {
			list = append(list, i)
		}
	}
	return list, nil
}

func sameKey(a, b Key) bool {
	for name, v := range b {
		w, ok := a[name]
		if !ok || (v == nil) != (w == nil) || v != nil && *v != *w {
			return false
		}
	}
	return true
}
