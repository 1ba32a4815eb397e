package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"spate/services/explainer"
	"spate/shared/incident"
	"spate/shared/store"
)

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // an error here is the client's going away
}

// list is a page of a list.
type list[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"` // value of after for the next page
}

// api adds the addresses for programs; assets/static/openapi.yaml describes them.
func (s *Server) api(mux *http.ServeMux) {
	s.answer(mux, "GET /api/incidents", func(ctx context.Context, r *http.Request) (any, error) {
		q, err := incidentQueryOf(r.URL.Query())
		if err != nil {
			return nil, &badRequest{err}
		}
		rows, next, err := s.incidents(ctx, q)
		return list[incident.Incident]{append([]incident.Incident{}, rows...), next.String()}, err
	})
	s.answer(mux, "GET /api/incidents/{id}", func(ctx context.Context, r *http.Request) (any, error) { return s.incident(ctx, r.PathValue("id")) })
	s.answer(mux, "GET /api/alerts", func(ctx context.Context, r *http.Request) (any, error) {
		q, err := alertQueryOf(r.URL.Query())
		if err != nil {
			return nil, &badRequest{err}
		}
		rows, next, err := s.alerts(ctx, q)
		out := list[store.Alert]{append([]store.Alert{}, rows...), next.String()}
		for i := range out.Items {
			out.Items[i].Record = out.Items[i].Written()
		}
		return out, err
	})
	s.answer(mux, "GET /api/why", func(ctx context.Context, r *http.Request) (any, error) { return s.why(ctx, r.URL.Query()) })
	s.answer(mux, "GET /api/keys/{column}/{value}", func(ctx context.Context, r *http.Request) (any, error) {
		q := r.URL.Query()
		q.Add("key", r.PathValue("column")+"="+r.PathValue("value"))
		return s.keyAPI(ctx, q)
	})
	s.answer(mux, "GET /api/rules", func(ctx context.Context, _ *http.Request) (any, error) {
		v, err := s.rules(ctx)
		return struct {
			Rules     []Rule     `json:"rules"`
			Revisions []Revision `json:"revisions"`
		}{append([]Rule{}, v.Rules...), append([]Revision{}, v.Revisions...)}, err
	})
	s.answer(mux, "GET /api/health", func(ctx context.Context, _ *http.Request) (any, error) { return s.health(ctx, true), nil })
	s.answer(mux, "POST /api/check", func(ctx context.Context, r *http.Request) (any, error) {
		if s.cfg.Rules == nil {
			return nil, &badRequest{fmt.Errorf("this console has no access to the rules log")}
		}
		return struct {
			Faults []Fault `json:"faults"`
		}{append([]Fault{}, s.cfg.Rules.Check(ctx, r.FormValue("statement"))...)}, nil
	})
	mux.HandleFunc("GET /api/stream", s.stream)
}

// answer adds an address that answers with JSON.
func (s *Server) answer(mux *http.ServeMux, pattern string, of func(ctx context.Context, r *http.Request) (any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), answerTime)
		defer cancel()
		var v any
		err := r.ParseForm()
		if err != nil {
			err = &badRequest{fmt.Errorf("the form cannot be read: %w", err)}
		} else {
			v, err = of(ctx, r)
		}
		if err != nil {
			writeJSON(w, status(err), map[string]string{"message": strings.TrimPrefix(err.Error(), errUnknown.Error()+": ")})
			return
		}
		writeJSON(w, http.StatusOK, v)
	})
}

// why answers GET /api/why: id=, or key= (repeatable) with rule= and at=.
func (s *Server) why(ctx context.Context, q url.Values) (any, error) {
	if s.cfg.Why == nil {
		return nil, fmt.Errorf("this console cannot read the log")
	}
	if id := q.Get("id"); id != "" {
		if _, err := s.store(ctx); err != nil {
			return nil, err
		}
		a, err := s.cfg.Why.OfID(ctx, id)
		if err != nil {
			return nil, err
		}
		return []*Answer{a}, nil
	}
	key, err := parseKey(q["key"], q["null"], s.column(ctx))
	if err != nil {
		return nil, &badRequest{err}
	}
	var when time.Time
	if text := q.Get("at"); text != "" {
		if when, err = instantOf(text, time.Now()); err != nil {
			return nil, &badRequest{fmt.Errorf("at: %w", err)}
		}
	}
	list, err := s.cfg.Why.OfKey(ctx, key, q.Get("rule"), when)
	return append([]*Answer{}, list...), err
}

// keyAPI answers GET /api/keys/{column}/{value}.
func (s *Server) keyAPI(ctx context.Context, q url.Values) (any, error) {
	key, err := parseKey(q["key"], q["null"], s.column(ctx))
	if err != nil {
		return nil, &badRequest{err}
	}
	out := struct {
		Incidents []incident.Incident  `json:"incidents"`
		Windows   []*explainer.Windows `json:"windows"`
	}{[]incident.Incident{}, []*explainer.Windows{}}
	st, err := s.store(ctx)
	if err != nil {
		return nil, err
	}
	incidents, err := keyIncidents(ctx, st, key, q.Get("rule"))
	if err != nil {
		return nil, err
	}
	out.Incidents = append(out.Incidents, incidents...)
	if s.cfg.Why != nil {
		windows, err := s.cfg.Why.Windows(ctx, key, q.Get("rule"), time.Time{}, time.Time{})
		if err != nil {
			return nil, err
		}
		out.Windows = append(out.Windows, windows...)
	}
	return out, nil
}
