package web

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"spate/services/explainer"
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
	Types              []explainer.TypeCount // of the events in it
	OtherTypes         int
	Revision           int64 // of the rule; 0 is none
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
		optional    bool // not every source knows it
	}{
		{"Events", "a second", func(x Sample) float64 { return x.Rate }, false},
		{"Alert records", "in the last minute", func(x Sample) float64 { return x.AlertRate }, false},
		{"Events not counted yet", "events", func(x Sample) float64 { return known(x.Lag()) }, true},
		{"Reading is behind", "s", func(x Sample) float64 { return known(x.Behind()) }, true},
		{"Windows are closed up to", "s ago", func(x Sample) float64 { return x.Delay }, false},
	} {
		if c.optional && !slices.ContainsFunc(samples, func(x Sample) bool { return !math.IsNaN(c.of(x)) }) {
			continue
		}
		out := chart{Title: c.title, Value: "not known", SVG: line(c.title, c.unit, samples, c.of)}
		if len(samples) > 0 {
			if n := c.of(samples[len(samples)-1]); !math.IsNaN(n) {
				out.Value, out.Unit = figure(math.Round(n)), c.unit
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
	if err == nil && !s.cfg.Scans {
		// Of those that ended last, the ones that matter most: floods of small ones must not hide them.
		const looked, shown = 200, 10
		v.Ended, err = store.Collect(st.Incidents(ctx, store.IncidentFilter{State: incident.StateResolved, Newest: true, Limit: looked}))
		slices.SortStableFunc(v.Ended, func(a, b incident.Incident) int { return cmp.Or(rank(a)-rank(b), cmp.Compare(b.Events, a.Events)) })
		v.Ended = v.Ended[:min(len(v.Ended), shown)]
	}
	v.StoreErr = err
	return v
}

// known is a figure, or NaN if it is not known.
func known[N int64 | float64](v *N) float64 {
	if v == nil {
		return math.NaN()
	}
	return float64(*v)
}

// openIncidents returns the open incidents that matter most: those of live rules, critical ones first, then the newest. more reports that there are others.
func openIncidents(ctx context.Context, st Store) (list []incident.Incident, more bool, err error) {
	const looked = 500
	seen := make(map[string]bool)
	for _, f := range []store.IncidentFilter{{MinSeverity: alert.Critical, Limit: looked}, {Limit: looked}} {
		f.State, f.Newest = incident.StateOpen, true
		part, err := store.Collect(st.Incidents(ctx, f))
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

// delivery is a message to an endpoint, with its last try.
type delivery struct {
	store.Delivery
	Last *store.Try
}

func (s *Server) deliveries(ctx context.Context, st Store, f store.DeliveryFilter) ([]delivery, error) {
	list, err := store.Collect(st.ListDeliveries(ctx, f))
	if err != nil {
		return nil, err
	}
	out := make([]delivery, len(list))
	for i, d := range list {
		out[i].Delivery = d
		if d.Tries == 0 {
			continue
		}
		tries, err := store.Collect(st.ListTries(ctx, store.TryFilter{WebhookID: d.WebhookID, Endpoint: d.Endpoint, Newest: true, Limit: 1}))
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
		return incident.Incident{}, fmt.Errorf("%w: %.64q is neither the ID of an incident nor the first digits of one (at least 4)", errUnknown, id)
	}
	list, err := store.Collect(st.Incidents(ctx, f))
	switch {
	case err != nil:
		return incident.Incident{}, err
	case len(list) == 0:
		return incident.Incident{}, fmt.Errorf("%w: no incident has the ID %.64s", errUnknown, id)
	case len(list) > 1:
		return incident.Incident{}, fmt.Errorf("%w: the IDs of several incidents begin with %.64s; enter more digits", errUnknown, id)
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
	if v.Alerts, err = store.Collect(st.Alerts(ctx, store.Filter{Incident: v.ID, Newest: true, Limit: pageSize + 1})); err != nil {
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
	list = slices.DeleteFunc(list, func(w *explainer.Windows) bool { return len(w.Windows) == 0 })
	if len(list) == 0 {
		return "", "", nil
	}
	slices.SortStableFunc(list, func(a, b *explainer.Windows) int { return a.Windows[0].Start.Compare(b.Windows[0].Start) })
	what := list[len(list)-1].What
	if slices.ContainsFunc(list, func(w *explainer.Windows) bool { return w.What != what }) {
		what = "by the rule in force at the time"
	}
	return bars(mark, end, list...), what, nil
}

type rulesView struct {
	Rules     []Rule
	Revisions []Revision
	Bounded   bool // some begin or end later
	StoreErr  error
}

func (s *Server) rules(ctx context.Context) (v rulesView, err error) {
	if s.cfg.Rules == nil {
		return v, errors.New("the console has no access to the rules log")
	}
	if v.Rules, v.Revisions, err = s.cfg.Rules.List(ctx); err != nil {
		return v, err
	}
	v.Bounded = slices.ContainsFunc(v.Rules, func(r Rule) bool { return r.Pending() || !r.Until.IsZero() })
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
