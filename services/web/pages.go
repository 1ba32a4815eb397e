package web

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"spate/services/explainer"
	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/rule/syntax"
	"spate/shared/store"
)

const (
	// answerTime bounds the work for one answer.
	answerTime = 30 * time.Second
	// maxForm bounds what a form sends, in bytes, and maxRulesForm that of the rules: the longest text, of which a form writes some characters as three.
	maxForm, maxRulesForm = 1 << 20, 3*syntax.MaxScript + 64<<10
	// fragmentHeader asks for the live part of a page only.
	fragmentHeader = "Spate-Fragment"
)

//go:embed assets
var assets embed.FS

// page is what a template gets.
type page struct {
	Title string
	View  string // of the navigation
	Name  string
	Data  any
	Err   error
	Note  string // what a form did
	Bare  bool   // without navigation
	Still bool   // it does not update by itself
	Login bool   // somebody has logged in
	Has   map[string]bool
	User  string // whom the proxy in front has let in
}

var functions = template.FuncMap{
	"at": at, "ago": ago, "words": func(r explainer.Reason) string { return strings.ReplaceAll(string(r), "_", " ") }, "span": span, "grouped": grouped, "cell": cell, "visible": visible, "key": keyLabel, "keyURL": keyURL, "indented": indented, "figure": figure, "limit": limit, "message": message, "sentence": sentence, "capital": capital, "share": share,
	"num":     func(n int) string { return grouped(int64(n)) },
	"iso":     func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
	"full":    func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") },
	"short":   func(id string) string { return id[:min(len(id), 12)] },
	"percent": func(x float64) string { return strconv.Itoa(int(x*100+0.5)) + "%" },
	"lasted":  func(i incident.Incident) string { return span(i.LastWindowEnd.Sub(i.FirstWindowStart)) },
	"join":    strings.Join,
	"rows":    func() template.HTML { return rowsGoHere },
	"ending":  func() template.HTML { return endGoesHere },
	"marked": func(i incident.Incident) string {
		if i.Marked == nil {
			return ""
		}
		return string(i.Mark)
	},
	"critical": func(s alert.Severity) bool { return s == alert.Critical },
	"marks":    func() []incident.Mark { return []incident.Mark{incident.Attack, incident.Benign, incident.Unsure} },
	"states": func() []store.DeliveryState {
		return []store.DeliveryState{store.Pending, store.Held, store.Delivered, store.Exhausted, store.Disabled}
	},
	"raw":      func(v json.RawMessage) string { return string(v) },
	"userText": func(v json.RawMessage) string { return plain(v) },
	"deref":    func(b *bool) bool { return *b },
	"setting": func(q url.Values, name, value string) template.URL {
		q = cloneValues(q)
		if q.Del(name); value != "" {
			q.Set(name, value)
		}
		return template.URL("?" + q.Encode())
	},
}

func cloneValues(q url.Values) url.Values {
	out := make(url.Values, len(q))
	for k, v := range q {
		out[k] = slices.Clone(v)
	}
	return out
}

// views are the pages by name, each with the frame around it.
var views = func() map[string]*template.Template {
	out := make(map[string]*template.Template)
	files, err := fs.Glob(assets, "assets/pages/*.html")
	if err != nil {
		panic(err) // the pattern is constant
	}
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(file, "assets/pages/"), ".html")
		out[name] = template.Must(template.New(name).Funcs(functions).ParseFS(assets, "assets/frame.html", "assets/parts.html", file))
	}
	return out
}()

// BadRequest marks an error of whoever asks.
func BadRequest(err error) error { return &badRequest{err} }

// badRequest is an error of whoever asks.
type badRequest struct{ error }

// Unwrap returns what is wrong.
func (e *badRequest) Unwrap() error { return e.error }

// status is the HTTP status of an error.
func status(err error) int {
	var bad *badRequest
	switch {
	case err == nil:
		return http.StatusOK
	case errors.As(err, &bad):
		return http.StatusBadRequest
	case errors.Is(err, errUnknown), errors.Is(err, store.ErrNoIncident), errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrNoSilence):
		return http.StatusNotFound
	case errors.Is(err, store.ErrNoTest):
		return http.StatusConflict
	}
	return http.StatusServiceUnavailable
}

// render writes a page.
func (s *Server) render(w http.ResponseWriter, r *http.Request, name string, p page) {
	s.renderStatus(w, r, name, p, status(p.Err))
}

func (s *Server) renderStatus(w http.ResponseWriter, r *http.Request, name string, p page, code int) {
	body, err := s.execute(name, "frame", s.framed(r, p))
	if err != nil {
		s.cfg.Log.Error("cannot render a console page", "page", name, "error", err)
		http.Error(w, "The page cannot be shown; see the console's log for the reason.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if code != http.StatusOK {
		w.WriteHeader(code)
	}
	_, _ = w.Write(body) // an error here is the visitor's going away
}

// framed adds what the frame around a page shows.
func (s *Server) framed(r *http.Request, p page) page {
	p.Name, p.Still = s.cfg.Name, s.cfg.Scans && p.View != "now" && p.View != "health"
	p.Has = map[string]bool{"rules": s.cfg.Rules != nil, "studio": s.cfg.Query != nil || s.cfg.Rules != nil, "store": s.cfg.Store != nil}
	if _, err := r.Cookie(cookie); err == nil && s.cfg.TrustedHeader == "" {
		p.Login = true
	}
	if s.cfg.TrustedHeader != "" {
		p.User = r.Header.Get(s.cfg.TrustedHeader)
	}
	return p
}

func (s *Server) execute(name, part string, data any) ([]byte, error) {
	var b bytes.Buffer
	err := views[name].ExecuteTemplate(&b, part, data)
	return b.Bytes(), err
}

// refuse says why a request is not answered, as the visitor reads it.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, code int, text string) {
	if strings.HasPrefix(r.URL.Path, "/api/") || r.Header.Get(fragmentHeader) != "" {
		writeJSON(w, code, map[string]string{"message": text})
		return
	}
	s.renderStatus(w, r, "error", page{Title: http.StatusText(code), Data: text, Bare: code == http.StatusForbidden}, code)
}

// routes are the console's addresses.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	static, _ := fs.Sub(assets, "assets/static") // it is there
	files := http.StripPrefix("/assets/", http.FileServerFS(static))
	mux.Handle("GET /assets/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache") // a new version of the program has new ones
		files.ServeHTTP(w, r)
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /login", s.login)
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /logout", s.logout)
	s.live(mux, "GET /{$}", "now", "Now", func(ctx context.Context, _ *http.Request, _ bool) (any, error) { return s.now(ctx), nil })
	s.live(mux, "GET /incidents", "incidents", "Incidents", func(ctx context.Context, r *http.Request, _ bool) (any, error) {
		q, err := incidentQueryOf(r.URL.Query())
		if err != nil {
			return nil, &badRequest{err}
		}
		rows, next, err := s.incidents(ctx, q)
		return listView[incident.Incident]{rows, next, r.URL.Query(), q}, err
	})
	s.live(mux, "GET /alerts", "alerts", "Alerts", func(ctx context.Context, r *http.Request, _ bool) (any, error) {
		q, err := alertQueryOf(r.URL.Query())
		if err != nil {
			return nil, &badRequest{err}
		}
		rows, next, err := s.alerts(ctx, q)
		return listView[store.Alert]{rows, next, r.URL.Query(), q}, err
	})
	s.live(mux, "GET /incidents/{id}", "incident", "Incident", func(ctx context.Context, r *http.Request, whole bool) (any, error) {
		v, err := s.incidentPage(ctx, r.PathValue("id"), whole)
		return v, err
	})
	s.live(mux, "GET /alerts/{id}", "alert", "Alert", func(ctx context.Context, r *http.Request, whole bool) (any, error) {
		return s.alertPage(ctx, r.PathValue("id"), whole)
	})
	s.live(mux, "GET /keys", "key", "Key", func(ctx context.Context, r *http.Request, _ bool) (any, error) { return s.key(ctx, r.URL.Query()) })
	s.live(mux, "GET /rules", "rules", "Rules", func(ctx context.Context, _ *http.Request, _ bool) (any, error) { return s.rules(ctx) })
	s.live(mux, "GET /deliveries", "deliveries", "Deliveries", func(ctx context.Context, r *http.Request, _ bool) (any, error) {
		return s.deliveriesPage(ctx, r.URL.Query())
	})
	s.live(mux, "GET /health", "health", "Health", func(ctx context.Context, _ *http.Request, whole bool) (any, error) { return s.health(ctx, whole), nil })
	mux.HandleFunc("GET /search", s.search)
	mux.HandleFunc("GET "+rulesPath, s.edit)
	mux.HandleFunc("POST "+rulesPath, s.edit)
	mux.HandleFunc("GET /studio", s.studio)
	mux.HandleFunc("POST /studio", s.studio)
	s.form(mux, "POST /incidents/{id}/mark", s.mark)
	s.form(mux, "POST /incidents/{id}/silence", s.silence)
	s.form(mux, "POST /silences/{id}/end", s.endSilence)
	s.form(mux, "POST /deliveries/resend", s.resend)
	s.form(mux, "POST /endpoints/{name}", s.endpoint)
	s.form(mux, "POST /endpoints/{name}/test", s.testEndpoint)
	s.api(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, http.StatusNotFound, "This page does not exist.")
	})
	return mux
}

// listView is a page of a list.
type listView[T any] struct {
	Rows   []T
	Next   cursor
	Values url.Values
	Query  any
}

// live adds a page whose live part is fetched again when something changes; show gets whether the whole page is wanted.
func (s *Server) live(mux *http.ServeMux, pattern, name, title string, show func(ctx context.Context, r *http.Request, whole bool) (any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(fragmentHeader) == "" {
			ctx, cancel := context.WithTimeout(r.Context(), answerTime)
			defer cancel()
			data, err := show(ctx, r, true)
			title := title
			if t, ok := data.(titled); ok && err == nil {
				title = t.PageTitle()
			}
			s.render(w, r, name, page{Title: title, View: name, Data: data, Err: err, Note: noteOf(r)})
			return
		}
		body, code := s.fragments.of(s.hub.now(), r.URL.RequestURI(), func() ([]byte, int) {
			// Others wait for it too, so it does not end with the page that asked first.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), answerTime)
			defer cancel()
			data, err := show(ctx, r, false)
			body, rerr := s.execute(name, "live", page{Title: title, View: name, Data: data, Err: err})
			if rerr != nil {
				s.cfg.Log.Error("cannot render a console page", "page", name, "error", rerr)
				return nil, http.StatusInternalServerError
			}
			return body, status(err)
		})
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(code)
		_, _ = w.Write(body) // an error here is the visitor's going away
	})
}

// titled is data that gives its page a title.
type titled interface{ PageTitle() string }

// notes are what forms have done, by their sign in the address.
var notes = map[string]string{
	"marked": "The mark has been saved.", "unmarked": "The mark has been removed.", "silenced": "The silence is active: nobody is notified until it ends.", "ended": "The silence has ended.",
	"resent": "The message is due now.", "enabled": "The endpoint is enabled.", "disabled": "The endpoint is disabled: its messages are dropped until it is enabled.", "tested": "The test message has been stored, and spate alert (or spate up) will send it. Its row will show the response.", "applied": "The rules have been applied. If a rule takes effect later, the table shows when.", "saved": "The rule has been saved in shadow mode: nobody is notified. The table shows when it takes effect; from then on, its incidents are counted.",
}

func noteOf(r *http.Request) string { return notes[r.URL.Query().Get("done")] }

// form adds what a form does. do returns where the visitor goes next.
func (s *Server) form(mux *http.ServeMux, pattern string, do func(ctx context.Context, st Store, r *http.Request) (string, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), answerTime)
		defer cancel()
		err := r.ParseForm()
		if err != nil {
			err = &badRequest{fmt.Errorf("the form cannot be read: %w", err)}
		}
		var st Store
		if err == nil {
			st, err = s.store(ctx)
		}
		next := ""
		if err == nil {
			next, err = do(ctx, st, r)
		}
		if err != nil {
			s.renderStatus(w, r, "error", page{Title: "Nothing was changed", Data: message(err)}, status(err))
			return
		}
		s.hub.Changed()
		http.Redirect(w, r, next, http.StatusSeeOther)
	})
}

// maxText bounds a note, a reason and a name, in characters.
const maxText = 1000

func (s *Server) mark(ctx context.Context, st Store, r *http.Request) (string, error) {
	i, err := s.incident(ctx, r.PathValue("id"))
	if err != nil {
		return "", err
	}
	m := incident.Marked{Note: text(r.FormValue("note")), By: text(s.who(r, r.FormValue("by"))), At: time.Now().UTC().Truncate(time.Millisecond)}
	if len([]rune(m.Note)) > maxText || len([]rune(m.By)) > maxText {
		return "", &badRequest{fmt.Errorf("note, by: must be at most %d characters long", maxText)}
	}
	done := "unmarked"
	if mark := r.FormValue("mark"); mark != "none" {
		done = "marked"
		if m.Mark, err = incident.ParseMark(mark); err != nil {
			return "", &badRequest{err}
		}
	}
	return "/incidents/" + i.ID + "?done=" + done, st.Mark(ctx, i.ID, m)
}

// text is what a person has written, without what no database keeps.
func text(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "") }

func (s *Server) silence(ctx context.Context, st Store, r *http.Request) (string, error) {
	i, err := s.incident(ctx, r.PathValue("id"))
	if err != nil {
		return "", err
	}
	length, err := time.ParseDuration(r.FormValue("for"))
	if err != nil {
		return "", &badRequest{fmt.Errorf("for: %.40q is not a duration; use a number and a unit, such as 2h", r.FormValue("for"))}
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	silence := incident.Silence{ID: incident.NewSilenceID(), Rule: i.Rule, Key: map[string]string{}, From: now, Until: now.Add(length), Author: text(s.who(r, r.FormValue("by"))), Reason: strings.TrimSpace(text(r.FormValue("why"))), CreatedAt: now}
	if r.FormValue("all") != "" {
		silence.Key = nil
	} else {
		key, _ := keyOf(i.Key)
		for name, value := range key {
			if value == nil {
				silence.Key[name] = "null"
			} else {
				silence.Key[name] = *value
			}
		}
	}
	if err := silence.Validate(); err != nil {
		return "", &badRequest{err}
	}
	return "/incidents/" + i.ID + "?done=silenced", st.AddSilence(ctx, silence)
}

func (s *Server) endSilence(ctx context.Context, st Store, r *http.Request) (string, error) {
	return "/deliveries?done=ended", st.EndSilence(ctx, r.PathValue("id"), time.Now().UTC())
}

func (s *Server) resend(ctx context.Context, st Store, r *http.Request) (string, error) {
	f := store.DeliveryFilter{WebhookID: r.FormValue("webhook_id"), Endpoint: r.FormValue("endpoint")}
	if f.WebhookID == "" || f.Endpoint == "" {
		return "", &badRequest{errors.New("webhook_id, endpoint: both are required")}
	}
	n, err := st.Resend(ctx, time.Now(), f)
	if err == nil && n == 0 {
		err = &badRequest{errors.New("the message is already due or being sent, is part of a digest, or is unknown")}
	}
	next := r.FormValue("next")
	if !strings.HasPrefix(next, "/incidents/") {
		next = "/deliveries"
	}
	return next + "?done=resent", err
}

// endpointOf returns the name of the endpoint that a form is about.
func endpointOf(ctx context.Context, st Store, r *http.Request) (string, error) {
	name := r.PathValue("name")
	list, err := st.Endpoints(ctx)
	if err == nil && !slices.ContainsFunc(list, func(e store.EndpointState) bool { return e.Name == name }) {
		err = fmt.Errorf("%w: no endpoint is named %.80q", errUnknown, name)
	}
	return name, err
}

func (s *Server) endpoint(ctx context.Context, st Store, r *http.Request) (string, error) {
	name, err := endpointOf(ctx, st, r)
	if err != nil {
		return "", err
	}
	on := r.FormValue("enable") != ""
	done, reason := "enabled", ""
	if !on {
		done, reason = "disabled", "by "+s.who(r, r.FormValue("by")) // lists say "disabled" before it
	}
	return "/deliveries?done=" + done, st.SetEnabled(ctx, time.Now(), name, on, reason)
}

// testEndpoint leaves a test in the database. The console has neither addresses nor secrets: an alerter sends it, as it sends every message.
func (s *Server) testEndpoint(ctx context.Context, st Store, r *http.Request) (string, error) {
	name, err := endpointOf(ctx, st, r)
	if err == nil {
		_, err = st.AddTest(ctx, time.Now(), name)
	}
	return "/deliveries?done=tested", err
}

// search goes to what a text is: an incident, an alert, or a key.
func (s *Server) search(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	text := strings.TrimSpace(r.FormValue("q"))
	if text == "" {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	id, _, _ := strings.Cut(strings.ToLower(text), "_") // of a message
	if st, err := s.store(ctx); err == nil && len(id) >= 4 && strings.Trim(id, "0123456789abcdef") == "" {
		if i, err := s.incident(ctx, id); err == nil {
			http.Redirect(w, r, "/incidents/"+i.ID, http.StatusSeeOther)
			return
		}
		if list, err := store.Collect(st.Alerts(ctx, store.Filter{ID: id, Limit: 1})); err == nil && len(list) == 1 {
			http.Redirect(w, r, "/alerts/"+list[0].ID, http.StatusSeeOther)
			return
		}
	}
	http.Redirect(w, r, "/keys?"+url.Values{"key": keyTexts(text)}.Encode(), http.StatusSeeOther)
}

// keyTexts are the values of a key that a person writes as ip=10.0.0.1, user_id=7. A comma that no column=value follows is part of the value.
func keyTexts(text string) (list []string) {
	for part := range strings.SplitSeq(text, ",") {
		if n := len(list); n > 0 && !strings.Contains(part, "=") {
			list[n-1] += "," + part
		} else {
			list = append(list, strings.TrimSpace(part))
		}
	}
	return list
}

type alertView struct {
	store.Alert
	Answer     *answerView
	AnswerErr  error
	Deliveries []delivery
}

func (s *Server) alertPage(ctx context.Context, id string, whole bool) (v alertView, err error) {
	st, err := s.store(ctx)
	if err != nil {
		return v, err
	}
	f := store.Filter{ID: strings.ToLower(id), Limit: 2}
	if len(id) < 4 || f.Validate() != nil {
		return v, fmt.Errorf("%w: %.64q is neither the ID of an alert nor the first digits of one (at least 4)", errUnknown, id)
	}
	list, err := store.Collect(st.Alerts(ctx, f))
	switch {
	case err != nil:
		return v, err
	case len(list) != 1:
		return v, fmt.Errorf("%w: no alert, or more than one, has an ID that begins with %.64s", errUnknown, id)
	}
	v.Alert = list[0]
	if v.Deliveries, err = s.deliveries(ctx, st, store.DeliveryFilter{AlertID: v.ID, Limit: pageSize}); err != nil {
		return v, err
	}
	if !whole || s.cfg.Why == nil {
		return v, nil
	}
	a, err := s.cfg.Why.OfID(ctx, v.ID)
	if v.AnswerErr = err; err == nil {
		shown := viewOf(a)
		v.Answer = &shown
	}
	return v, nil
}
