package web

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"iter"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"spate/services/doctor"
	"spate/services/explainer"
	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/evidence"
	"spate/shared/incident"
	"spate/shared/store"
)

// pageSize is how many rows a list has.
const pageSize = 50

// errNoStore is why a page without a database has no alerts.
var errNoStore = errors.New("the console runs without a database")

func (s *Server) store(ctx context.Context) (Store, error) {
	if s.cfg.Store == nil {
		return nil, errNoStore
	}
	return s.cfg.Store(ctx)
}

// chart is a chart with its newest value.
type chart struct {
	Title, Value, Unit string
	SVG                template.HTML
}

type nowView struct {
	Charts    []chart
	Troubles  []string
	SourceErr error
	StoreErr  error
	Open      []incident.Incident
	More      bool // there are more open ones
	Ended     []incident.Incident
	Measured  bool
	Counted   time.Time
}

func (s *Server) now(ctx context.Context) (v nowView) {
	samples, err := s.sampler.now()
	v.SourceErr, v.Measured = err, s.cfg.Source != nil
	v.Troubles = Troubles(samples)
	for _, c := range []struct {
		title, unit string
		of          func(Sample) float64
	}{
		{"Events", "a second", func(x Sample) float64 { return x.Rate }},
		{"Alert records", "in the last minute", func(x Sample) float64 { return x.AlertRate }},
		{"Events not counted yet", "events", func(x Sample) float64 { return float64(x.Lag()) }},
		{"Windows are closed up to", "s ago", func(x Sample) float64 { return x.Delay }},
	} {
		out := chart{Title: c.title, Unit: c.unit, Value: "–", SVG: line(c.title, c.unit, samples, c.of)}
		if len(samples) > 0 {
			if n := c.of(samples[len(samples)-1]); !math.IsNaN(n) {
				out.Value = figure(math.Round(n))
			}
		}
		v.Charts = append(v.Charts, out)
	}
	if len(samples) > 0 {
		v.Counted = samples[len(samples)-1].Counted
	}
	st, err := s.store(ctx)
	if err == nil {
		v.Open, v.More, err = openIncidents(ctx, st)
	}
	if err == nil {
		// Of those that ended last, the ones that matter most: floods of small ones must not hide them.
		const looked, shown = 200, 10
		v.Ended, err = take(st.Incidents(ctx, store.IncidentFilter{State: incident.StateResolved, Newest: true, Limit: looked}))
		slices.SortStableFunc(v.Ended, func(a, b incident.Incident) int { return cmp.Or(rank(a)-rank(b), cmp.Compare(b.Events, a.Events)) })
		v.Ended = v.Ended[:min(len(v.Ended), shown)]
	}
	v.StoreErr = err
	return v
}

// openIncidents returns the open incidents that matter most: those of live rules, critical ones first, then the newest. more reports that there are others.
func openIncidents(ctx context.Context, st Store) (list []incident.Incident, more bool, err error) {
	const looked = 500
	seen := make(map[string]bool)
	for _, f := range []store.IncidentFilter{{MinSeverity: alert.Critical, Limit: looked}, {Limit: looked}} {
		f.State, f.Newest = incident.StateOpen, true
		part, err := take(st.Incidents(ctx, f))
		if err != nil {
			return nil, false, err
		}
		more = more || len(part) == looked
		for _, i := range part {
			if !seen[i.ID] {
				seen[i.ID] = true
				list = append(list, i)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b incident.Incident) int {
		return cmp.Or(rank(a)-rank(b), b.FirstWindowStart.Compare(a.FirstWindowStart))
	})
	if len(list) > pageSize {
		list, more = list[:pageSize], true
	}
	return list, more, nil
}

// rank orders incidents by how much they matter: 0 is the most.
func rank(i incident.Incident) (n int) {
	if i.Mode == alert.Shadow {
		n += 2
	}
	if i.Severity != alert.Critical {
		n++
	}
	return n
}

// take reads a list to its end.
func take[T any](list iter.Seq2[T, error]) (out []T, err error) {
	for x, err := range list {
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

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
		return c, fmt.Errorf("after: %.40q is none of this list's pages; begin again without it", text)
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

// since reads a time, or how long ago it is.
func since(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 100_000 {
			return now.Add(-time.Duration(n) * 24 * time.Hour), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := instantOf(text)
	if err != nil {
		return t, fmt.Errorf("since: %.40q is neither a time, such as 2026-11-24T09:30:00Z, nor an age, such as 2h or 7d", text)
	}
	return t, nil
}

// instantOf reads a time in UTC, with or without its seconds.
func instantOf(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%.40q is not a time, such as 2026-11-24T09:30:00Z", text)
}

// keyObjects are the keys that a text may mean, as the store has them: 42 can be a number and a text.
func keyObjects(text string) ([]string, error) {
	if text == "" {
		return []string{""}, nil
	}
	key, err := parseKey([]string{text}, nil)
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
	keys, err := keyObjects(q.Key)
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

// delivery is a message to an endpoint, with its last try.
type delivery struct {
	store.Delivery
	Last *store.Try
}

func (s *Server) deliveries(ctx context.Context, st Store, f store.DeliveryFilter) ([]delivery, error) {
	list, err := take(st.ListDeliveries(ctx, f))
	if err != nil {
		return nil, err
	}
	out := make([]delivery, len(list))
	for i, d := range list {
		out[i].Delivery = d
		if d.Tries == 0 {
			continue
		}
		tries, err := take(st.ListTries(ctx, store.TryFilter{WebhookID: d.WebhookID, Endpoint: d.Endpoint, Newest: true, Limit: 1}))
		if err != nil {
			return nil, err
		}
		if len(tries) > 0 {
			out[i].Last = &tries[0]
		}
	}
	return out, nil
}

// answerView is an answer as a page shows it.
type answerView struct {
	*Answer
	Fields []string      // of the events, those that differ
	Bars   template.HTML // of the windows around it, and what they count
	What   string
	Text   string
	Tally  string // what became of the events
	Rows   []eventRow
	Title  string
}

type eventRow struct {
	At, Fate, Why string
	Place         string
	Values        []string
	Raw           string
}

// maxFields bounds the columns of a table of events.
const maxFields = 5

func viewOf(a *Answer) answerView {
	v := answerView{Answer: a, Title: "Not flagged", Tally: tally(a.Numbers)}
	v.Text = strings.Replace(a.Text, "use --at or --since for another time", "enter another time above", 1)
	if a.Verdict == "flagged" {
		v.Title = "Flagged"
	}
	texts := make([][]byte, len(a.Events))
	for i, e := range a.Events {
		texts[i] = e.Value
	}
	for _, f := range evidence.Fields(texts...) {
		if (f.Values > 1 || f.Events < len(a.Events)) && len(v.Fields) < maxFields && !strings.Contains(f.Name, "time") {
			v.Fields = append(v.Fields, f.Name)
		}
	}
	for _, e := range a.Events {
		row := eventRow{Fate: string(e.Fate), Raw: indented(e.Value)}
		if !e.At.IsZero() {
			row.At = e.At.Format("15:04:05.000")
		}
		switch {
		case e.LateByMS > 0 && (e.Fate == explainer.Late || e.Fate == explainer.Idle):
			row.Why = fmt.Sprintf("by %d ms", e.LateByMS)
		case e.Reason != "":
			row.Why = e.Reason
		}
		if e.Shard != "" {
			row.Place = e.Shard + " " + e.Sequence
		} else if e.Partition != nil && e.Offset != nil {
			row.Place = fmt.Sprintf("%d:%d", *e.Partition, *e.Offset)
		}
		values := evidence.Values(e.Value)
		for _, name := range v.Fields {
			row.Values = append(row.Values, plain(values[name]))
		}
		v.Rows = append(v.Rows, row)
	}
	return v
}

// tally says what became of the events.
func tally(n explainer.Numbers) string {
	var out []string
	for _, part := range []struct {
		n    int
		what string
	}{
		{n.Counted, "counted"}, {n.Filtered, "filtered"}, {n.Late, "late"}, {n.Idle, "closed as idle"}, {n.Invalid, "invalid"}, {n.Waiting, "not counted yet"}, {n.Repeated, "sent again"},
	} {
		if part.n > 0 || part.what == "counted" {
			out = append(out, grouped(int64(part.n))+" "+part.what)
		}
	}
	return "Events: " + strings.Join(out, ", ")
}

type incidentView struct {
	incident.Incident
	Alerts     []store.Alert
	AlertsMore bool
	Deliveries []delivery
	Silence    *incident.Silence
	Answer     *answerView
	AnswerErr  error
	BarsErr    error
}

// errUnknown is what is asked of nothing that is known.
var errUnknown = errors.New("unknown")

// incident returns an incident by its id or the beginning of it.
func (s *Server) incident(ctx context.Context, id string) (incident.Incident, error) {
	st, err := s.store(ctx)
	if err != nil {
		return incident.Incident{}, err
	}
	f := store.IncidentFilter{ID: strings.ToLower(id), Limit: 2}
	if len(id) < 4 || f.Validate() != nil {
		return incident.Incident{}, fmt.Errorf("%w: %.64q is not the id of an incident, or at least the first 4 digits of it", errUnknown, id)
	}
	list, err := take(st.Incidents(ctx, f))
	switch {
	case err != nil:
		return incident.Incident{}, err
	case len(list) == 0:
		return incident.Incident{}, fmt.Errorf("%w: no incident has the id %.64s", errUnknown, id)
	case len(list) > 1:
		return incident.Incident{}, fmt.Errorf("%w: the ids of several incidents begin with %.64s; add digits", errUnknown, id)
	}
	return list[0], nil
}

// incidentPage returns what the page of an incident shows; whole reports whether its slow part is wanted, too: why, and its windows.
func (s *Server) incidentPage(ctx context.Context, id string, whole bool) (v incidentView, err error) {
	if v.Incident, err = s.incident(ctx, id); err != nil {
		return v, err
	}
	st, err := s.store(ctx)
	if err != nil {
		return v, err
	}
	if v.Alerts, err = take(st.Alerts(ctx, store.Filter{Incident: v.ID, Newest: true, Limit: pageSize + 1})); err != nil {
		return v, err
	}
	if v.AlertsMore = len(v.Alerts) > pageSize; v.AlertsMore {
		v.Alerts = v.Alerts[:pageSize]
	}
	if v.Deliveries, err = s.deliveries(ctx, st, store.DeliveryFilter{Incident: v.ID, Limit: pageSize}); err != nil {
		return v, err
	}
	if v.Silence, err = silenceOf(ctx, st, v.Incident, time.Now()); err != nil {
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
	// Some windows before and after, so that what is usual is seen beside it.
	margin := max(6*v.Longest, time.Minute)
	from, until := v.FirstWindowStart.Add(-margin), v.LastWindowEnd.Add(margin)
	if most := maxBars * max(v.Longest, time.Second); until.Sub(from) > most {
		from = until.Add(-most)
	}
	chart, what, err := s.barsOf(ctx, v.Key, v.Rule, from, until, v.FirstWindowStart, v.LastWindowEnd)
	if v.BarsErr = err; v.Answer != nil {
		v.Answer.Bars, v.Answer.What = chart, what
	}
	return v, nil
}

// silenceOf returns the silence that kept an incident from being told, or one that keeps what comes of it from being told; nil is none.
func silenceOf(ctx context.Context, st Store, i incident.Incident, now time.Time) (*incident.Silence, error) {
	list, err := st.Silences(ctx, time.Time{})
	if err != nil {
		return nil, err
	}
	n := slices.IndexFunc(list, func(x incident.Silence) bool { return x.ID == i.Silenced })
	if n < 0 {
		n = slices.IndexFunc(list, func(x incident.Silence) bool { return x.Active(now) && x.Match(&i) })
	}
	if n < 0 {
		return nil, nil
	}
	return &list[n], nil
}

// maxBars bounds the windows that a chart shows.
const maxBars = 240

func (s *Server) barsOf(ctx context.Context, object json.RawMessage, rule string, from, until, mark, end time.Time) (template.HTML, string, error) {
	key, _ := keyOf(object)
	list, err := s.cfg.Why.Windows(ctx, key, rule, from, until)
	if err != nil {
		return "", "", err
	}
	for _, w := range list {
		if len(w.Windows) > 0 {
			return bars(*w, mark, end), w.What, nil
		}
	}
	return "", "", nil
}

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
	v.Key, err = parseKey(q["key"], q["null"])
	if err != nil {
		return v, &badRequest{err}
	}
	v.Rule, v.At, v.Nulls = q.Get("rule"), q.Get("at"), q["null"]
	var when time.Time
	if v.At != "" {
		if when, err = instantOf(v.At); err != nil {
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
			v.Charts = append(v.Charts, chart{Title: w.Rule, Unit: w.What, SVG: bars(*w, time.Time{}, time.Time{})})
		}
	}
	return v, nil
}

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
				part, err := take(st.Incidents(ctx, store.IncidentFilter{Rule: rule, Key: fmt.Sprintf(`{%s:%s}`, column, token), Newest: true, Limit: pageSize}))
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

type rulesView struct {
	Rules     []Rule
	Revisions []Revision
	StoreErr  error
}

func (s *Server) rules(ctx context.Context) (v rulesView, err error) {
	if s.cfg.Rules == nil {
		return v, errors.New("the console runs without the log of the rules")
	}
	if v.Rules, v.Revisions, err = s.cfg.Rules.List(ctx); err != nil {
		return v, err
	}
	st, err := s.store(ctx)
	if err == nil {
		err = addStats(ctx, st, v.Rules, time.Now())
	}
	v.StoreErr = err
	return v, nil
}

// statIncidents bounds the incidents of a rule that its figures are made of.
const statIncidents = 20_000

func addStats(ctx context.Context, st Store, rules []Rule, now time.Time) error {
	for n := range rules {
		r := &rules[n]
		stats := &RuleStats{Precision: -1}
		keys := make(map[string]bool)
		for i, err := range st.Incidents(ctx, store.IncidentFilter{Rule: r.Name, Since: now.Add(-7 * 24 * time.Hour), Newest: true, Limit: statIncidents}) {
			if err != nil {
				return err
			}
			stats.Incidents++
			keys[string(i.Key)] = true
			if i.State == incident.StateOpen {
				stats.Open++
			}
			if i.LastWindowEnd.After(now.Add(-24 * time.Hour)) {
				stats.Windows24h += int(i.Windows)
			}
			if i.Marked != nil {
				switch i.Mark {
				case incident.Attack:
					stats.Attack++
				case incident.Benign:
					stats.Benign++
				case incident.Unsure:
				}
			}
		}
		stats.Keys = len(keys)
		if marked := stats.Attack + stats.Benign; marked > 0 {
			stats.Precision = float64(stats.Attack) / float64(marked)
		}
		r.Stats = stats
	}
	return nil
}

type deliveriesView struct {
	Endpoints  []store.EndpointState
	Deliveries []delivery
	State      string
	Endpoint   string
	Silences   []incident.Silence
}

func (s *Server) deliveriesPage(ctx context.Context, q url.Values) (v deliveriesView, err error) {
	v.State, v.Endpoint = q.Get("state"), q.Get("endpoint")
	f := store.DeliveryFilter{Endpoint: v.Endpoint, Newest: true, Limit: pageSize}
	switch d := store.DeliveryState(v.State); d {
	case "":
	case store.Pending, store.Held, store.Delivered, store.Exhausted, store.Disabled:
		f.States = []store.DeliveryState{d}
	default:
		return v, &badRequest{fmt.Errorf("state: %.40q is not one of pending, held, delivered, exhausted, disabled", v.State)}
	}
	st, err := s.store(ctx)
	if err != nil {
		return v, err
	}
	if v.Endpoints, err = st.Endpoints(ctx); err != nil {
		return v, err
	}
	if v.Silences, err = st.Silences(ctx, time.Now()); err != nil {
		return v, err
	}
	v.Deliveries, err = s.deliveries(ctx, st, f)
	return v, err
}

// Health is what is known of the pipeline's parts.
type Health struct {
	OK         bool             `json:"ok"` // nothing has failed
	Findings   []doctor.Finding `json:"findings"`
	Troubles   []string         `json:"troubles"`
	Partitions []Partition      `json:"partitions"`
	Rate       *float64         `json:"events_per_second"` // null: not known
	Lag        *int64           `json:"lag"`
	ClosedTo   *time.Time       `json:"closed_up_to"`
	Samples    []Sample         `json:"-"`
}

// checkedFor is how long what was checked is not checked again.
const checkedFor = 30 * time.Second

// checks are what the last look at the pipeline's parts has found.
type checks struct {
	mu       sync.Mutex
	at       time.Time
	findings []doctor.Finding
}

func (s *Server) check(ctx context.Context) []doctor.Finding {
	if s.cfg.Doctor == nil {
		return nil
	}
	s.checks.mu.Lock()
	defer s.checks.mu.Unlock()
	if time.Since(s.checks.at) > checkedFor {
		s.checks.findings = s.cfg.Doctor(ctx)
		if ctx.Err() == nil { // otherwise it is not complete
			s.checks.at = time.Now()
		}
	}
	return s.checks.findings
}

// health returns what is known of the pipeline; whole reports whether its parts are to be checked, too.
func (s *Server) health(ctx context.Context, whole bool) (h Health) {
	h.OK, h.Findings, h.Partitions = true, []doctor.Finding{}, []Partition{}
	samples, err := s.sampler.now()
	h.Troubles = append([]string{}, Troubles(samples)...)
	if err != nil {
		h.OK, h.Troubles = false, append(h.Troubles, sentence(err))
	}
	if h.Samples = samples; len(samples) > 0 {
		now := samples[len(samples)-1]
		lag := now.Lag()
		h.Partitions, h.Lag = now.Partitions, &lag
		if !math.IsNaN(now.Rate) {
			h.Rate = &now.Rate
		}
		if !now.Counted.IsZero() {
			h.ClosedTo = &now.Counted
		}
	}
	if _, err := s.store(ctx); err != nil {
		h.OK, h.Troubles = false, append(h.Troubles, "The database is away: "+message(err))
	}
	if whole {
		h.Findings = append(h.Findings, s.check(ctx)...)
	}
	for _, f := range h.Findings {
		h.OK = h.OK && f.Level != doctor.Failed
	}
	return h
}
