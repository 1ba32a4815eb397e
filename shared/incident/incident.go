package incident

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"spate/shared/alert"
)

// DefaultQuiet is how far apart the windows of one incident are at most, unless the rule says otherwise.
const DefaultQuiet = time.Minute

// State of an incident.
type State string

// The states, of which the second is final.
const (
	StateOpen     State = "open"
	StateResolved State = "resolved"
)

// Mark is a person's verdict on an incident.
type Mark string

// The marks.
const (
	Attack Mark = "attack" // it was an attack
	Benign Mark = "benign" // it was not an attack
	Unsure Mark = "unsure"
)

// ParseMark returns the mark with a name.
func ParseMark(name string) (Mark, error) {
	m := Mark(name)
	if m != Attack && m != Benign && m != Unsure {
		return "", errors.New("mark: is not one of attack, benign, unsure")
	}
	return m, nil
}

// Incident is a run of alerts. Its times are UTC, to the millisecond. Its JSON is the data of messages about it.
type Incident struct {
	ID       string         `json:"id"`
	Rule     string         `json:"rule"`
	State    State          `json:"state"`
	Severity alert.Severity `json:"severity"` // the worst of its alerts
	// Mode is the mode of its alerts: alert.Shadow or empty.
	Mode string `json:"mode,omitempty"`
	// Summary and Runbook come from the alert that changed the incident last.
	Summary string `json:"summary,omitempty"`
	Runbook string `json:"runbook,omitempty"`
	// Key is the JSON object of the key columns.
	Key json.RawMessage `json:"key"`

	OpenedAt    time.Time `json:"opened_at"` // when the first alert was stored
	EscalatedAt time.Time `json:"escalated_at,omitzero"`
	ResolvedAt  time.Time `json:"resolved_at,omitzero"` // when the store found that it had ended

	FirstWindowStart time.Time `json:"first_window_start"`
	LastWindowEnd    time.Time `json:"last_window_end"`
	// Windows is how many there are. Events is the sum of their counts, and Peak the highest: exact when all are closed, lower bounds before. An
	// event that is in two windows, because they overlap, is in the sum twice.
	Windows int64 `json:"windows"`
	Events  int64 `json:"events"`
	Peak    int64 `json:"peak"`
	// Escalations is how often its severity rose.
	Escalations int `json:"escalations,omitempty"`
	// AlertID is the alert that opened it.
	AlertID string `json:"alert_id"`

	// Silenced is the first silence that suppressed a message about it; empty if none did.
	Silenced string `json:"silenced,omitempty"`
	// Told is the severity in the last notification about it; empty if a silence has suppressed all notifications.
	Told alert.Severity `json:"-"`

	// Marked is the verdict of a person; nil if the incident is unmarked.
	*Marked

	// Quiet is how far apart its windows may be, and Longest the length of the longest of them.
	Quiet   time.Duration `json:"-"`
	Longest time.Duration `json:"-"`
}

// Marked is a mark with its note, its author and its time.
type Marked struct {
	Mark Mark      `json:"mark,omitempty"`
	Note string    `json:"mark_note,omitempty"`
	By   string    `json:"marked_by,omitempty"`
	At   time.Time `json:"marked_at,omitzero"`
}

// ID identifies the incident that a window opens. It depends only on the arguments. key is the JSON object of the key columns.
func ID(rule string, key json.RawMessage, start, end time.Time) string {
	s := append([]byte(nil), "spate/incident/1\x00"...)
	s = append(append(s, rule...), 0)
	s = append(append(s, key...), 0)
	s = append(strconv.AppendInt(s, start.UnixMilli(), 10), 0)
	s = strconv.AppendInt(s, end.Sub(start).Milliseconds(), 10)
	sum := sha256.Sum256(s)
	return hex.EncodeToString(sum[:16])
}

// Due returns the event time at which the incident ends: by then, no window that could belong to it is still open.
func (i *Incident) Due() time.Time { return i.LastWindowEnd.Add(i.Quiet + i.Longest) }

// near reports whether a window is at most quiet apart from the incident's.
func (i *Incident) near(start, end time.Time) bool {
	return start.Sub(i.LastWindowEnd) <= i.Quiet && i.FirstWindowStart.Sub(end) <= i.Quiet
}

// KeyOf returns the JSON object of an alert's key columns.
func KeyOf(r *alert.Record) json.RawMessage {
	if r.Key != nil {
		return r.Key
	}
	return json.RawMessage(`{"user_id":` + string(r.UserID) + `}`)
}

// Transition is a change of an incident's state or severity.
type Transition string

// The transitions.
const (
	Opened    Transition = "opened"
	Escalated Transition = "escalated" // its severity rose
	Resolved  Transition = "resolved"
)

// Event is a transition, with the incident as it was right after it.
type Event struct {
	Transition Transition
	Incident   Incident
	// Silent: no notification is sent.
	Silent bool
	// Again: the transition happened earlier, when a silence suppressed its notification.
	Again bool
}

// ID returns the id of the message about the transition: the same for every sender and every try.
func (e Event) ID() string {
	id := e.Incident.ID + "_" + string(e.Transition)
	if e.Transition == Escalated {
		id += "_" + strconv.Itoa(e.Incident.Escalations)
	}
	return id
}

// Member is an alert as part of an incident.
type Member struct {
	Incident string
	Counted  int64 // what it has added to the incident's events
}

// Fold applies records that changed their alerts to incidents.
type Fold struct {
	now      time.Time
	silences []Silence // that hold now
	byID     map[string]*Incident
	byKey    map[identity][]*Incident // by first window, then id
	members  map[string]Member        // by alert
	moved    map[string]bool          // alerts whose membership changed
	changed  map[string]bool
	events   []Event
}

// identity is what the alerts of an incident have in common.
type identity struct{ rule, mode, key string }

// NewFold begins with the stored state: the silences, the incidents to which the alerts of the records belong or may belong ([Spans]), and the
// memberships of these alerts. now is when the store receives the records. The fold keeps members.
func NewFold(now time.Time, silences []Silence, stored []Incident, members map[string]Member) *Fold {
	f := &Fold{
		now: time.UnixMilli(now.UnixMilli()).UTC(), byID: make(map[string]*Incident, len(stored)), byKey: make(map[identity][]*Incident),
		members: members, moved: make(map[string]bool), changed: make(map[string]bool),
	}
	for _, s := range silences {
		if s.Active(f.now) {
			f.silences = append(f.silences, s)
		}
	}
	for i := range stored {
		if f.byID[stored[i].ID] == nil {
			f.know(&stored[i])
		}
	}
	return f
}

func (f *Fold) know(i *Incident) {
	f.byID[i.ID] = i
	of := identity{i.Rule, i.Mode, string(i.Key)}
	f.byKey[of] = append(f.byKey[of], i)
	slices.SortFunc(f.byKey[of], byBegin)
}

func byBegin(a, b *Incident) int {
	return cmp.Or(a.FirstWindowStart.Compare(b.FirstWindowStart), cmp.Compare(a.ID, b.ID))
}

// Apply applies the next record that changed its alert.
func (f *Fold) Apply(r *alert.Record) {
	m, joined := f.members[r.ID]
	i, opens := f.byID[m.Incident], false
	if !joined || i == nil {
		if i = f.find(r); i == nil {
			i, opens = f.open(r), true
		}
		f.join(i, r)
		m = Member{Incident: i.ID}
	}
	f.count(i, r, r.Count-m.Counted)
	m.Counted = r.Count
	f.members[r.ID], f.moved[r.ID] = m, true
	switch {
	case opens:
		f.tell(i, Opened)
	case i.State != StateOpen || i.Told == i.Severity || f.silence(i) != "":
	case i.Told == "":
		f.again(i, Opened) // a suppressed notification is sent when the incident continues after the silence
	default:
		f.again(i, Escalated)
	}
}

// again notes a transition that happened while a silence was active.
func (f *Fold) again(i *Incident, t Transition) {
	f.tell(i, t)
	f.events[len(f.events)-1].Again = true
}

// silence returns the silence that holds for an incident; empty is none.
func (f *Fold) silence(i *Incident) string {
	for _, s := range f.silences {
		if s.Match(i) {
			return s.ID
		}
	}
	return ""
}

// tell notes a transition; a notification about it is sent unless a silence is active.
func (f *Fold) tell(i *Incident, t Transition) {
	by := f.silence(i)
	switch {
	case by == "" && (t == Opened || i.Told != ""):
		i.Told = i.Severity
	case by != "" && i.Silenced == "" && i.Mode != alert.Shadow:
		i.Silenced = by
	}
	f.events = append(f.events, Event{Transition: t, Incident: *i, Silent: by != "" || i.Told == ""})
}

// find returns the incident that a new alert belongs to: one that is open and near, or else one that is over and spans the window, whose alert has
// been deleted since.
func (f *Fold) find(r *alert.Record) (over *Incident) {
	for _, i := range f.byKey[identity{r.Rule, r.Mode, string(KeyOf(r))}] {
		switch {
		case i.State == StateOpen && i.near(r.WindowStart, r.WindowEnd):
			return i
		case i.State == StateResolved && !r.WindowStart.Before(i.FirstWindowStart) && !r.WindowEnd.After(i.LastWindowEnd):
			over = i
		}
	}
	return over
}

// open makes an incident of a new alert.
func (f *Fold) open(r *alert.Record) *Incident {
	key := KeyOf(r)
	i := &Incident{
		ID: ID(r.Rule, key, r.WindowStart, r.WindowEnd), Rule: r.Rule, State: StateOpen, Severity: r.Severity, Mode: r.Mode, Key: key,
		OpenedAt: f.now, FirstWindowStart: r.WindowStart, LastWindowEnd: r.WindowEnd, AlertID: r.ID,
	}
	f.know(i)
	return i
}

// join makes a new alert one of an incident's.
func (f *Fold) join(i *Incident, r *alert.Record) {
	i.Windows++
	if r.WindowStart.Before(i.FirstWindowStart) {
		i.FirstWindowStart = r.WindowStart
		slices.SortFunc(f.byKey[identity{i.Rule, i.Mode, string(i.Key)}], byBegin)
	}
	if r.WindowEnd.After(i.LastWindowEnd) {
		i.LastWindowEnd = r.WindowEnd
	}
	i.Quiet, i.Longest = QuietOf(r), max(i.Longest, r.WindowEnd.Sub(r.WindowStart))
}

// count adds what has become known of an alert.
func (f *Fold) count(i *Incident, r *alert.Record, more int64) {
	f.changed[i.ID] = true
	i.Events += more
	i.Peak = max(i.Peak, r.Count)
	i.Summary, i.Runbook = r.Summary, r.Runbook
	if i.Severity == alert.Warning && r.Severity == alert.Critical {
		i.Severity = alert.Critical
		if i.State == StateOpen {
			i.Escalations++
			i.EscalatedAt = f.now
			f.tell(i, Escalated)
		}
	}
}

// QuietOf returns the maximum time between the windows of an alert's incident.
func QuietOf(r *alert.Record) time.Duration {
	if r.QuietMS > 0 {
		return time.Duration(r.QuietMS) * time.Millisecond
	}
	return DefaultQuiet
}

// Incidents returns the incidents that are new or have changed, ordered by id.
func (f *Fold) Incidents() []Incident {
	var out []Incident
	for _, id := range slices.Sorted(maps.Keys(f.changed)) {
		out = append(out, *f.byID[id])
	}
	return out
}

// Members returns the memberships that have changed, ordered by alert.
func (f *Fold) Members() map[string]Member {
	out := make(map[string]Member, len(f.moved))
	for id := range f.moved {
		out[id] = f.members[id]
	}
	return out
}

// Events returns the transitions, in order.
func (f *Fold) Events() []Event { return f.events }

// User returns the JSON token of the user that the incident is about; empty if its rule has another key.
func (i *Incident) User() string {
	const before = `{"user_id":`
	if len(i.Key) <= len(before) || string(i.Key[:len(before)]) != before {
		return ""
	}
	token := i.Key[len(before) : len(i.Key)-1]
	if !json.Valid(token) || token[0] != '"' && token[0] != '-' && (token[0] < '0' || token[0] > '9') {
		return ""
	}
	return string(token)
}

// Encode returns the incident's JSON. Unlike json.Marshal, it does not escape <, > and &, so a key stays unchanged.
func (i *Incident) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(i); err != nil {
		return nil, fmt.Errorf("encode incident %s: %w", i.ID, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Span selects the incidents to which records may belong: those of its rule, mode and key that are near the time from From to To, which is in
// whole milliseconds.
type Span struct {
	Rule, Mode string
	Key        json.RawMessage
	From, To   time.Time
}

// Spans returns a span for the incidents of each record, in the order of the records.
func Spans(records []alert.Record) []Span {
	var out []Span
	at := make(map[identity]int, len(records))
	for i := range records {
		r := &records[i]
		of := identity{r.Rule, r.Mode, string(KeyOf(r))}
		n, ok := at[of]
		if !ok {
			at[of] = len(out)
			out = append(out, Span{Rule: r.Rule, Mode: r.Mode, Key: KeyOf(r), From: r.WindowStart, To: r.WindowEnd})
			continue
		}
		if r.WindowStart.Before(out[n].From) {
			out[n].From = r.WindowStart
		}
		if r.WindowEnd.After(out[n].To) {
			out[n].To = r.WindowEnd
		}
	}
	return out
}

// Resolve ends an incident that is due. now is when the store finds it due. If a notification about the incident was sent, its end is sent, too, even if a
// silence is active by then.
func (i *Incident) Resolve(now time.Time) Event {
	i.State, i.ResolvedAt = StateResolved, time.UnixMilli(now.UnixMilli()).UTC()
	return Event{Transition: Resolved, Incident: *i, Silent: i.Told == ""}
}
