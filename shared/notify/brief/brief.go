// Package brief puts a message into words for people: a title, a few facts, a link. Every format that shows messages to people starts from a Brief, so an
// incident reads the same everywhere.
//
// Text from events (keys, summaries, columns) is untrusted. A Brief has each text on one line, with everything escaped that does not show as itself, such
// as control characters and marks that change the direction of writing (package terminal). Each adapter escapes the characters that have a meaning in its
// medium, such as < or *.
package brief

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/terminal"
)

// Phase is what happened to the subject.
type Phase int

// The phases.
const (
	Once   Phase = iota // nothing follows: digests and tests
	Begins              // it was opened
	Grows               // its severity rose
	Ends                // it is over
)

// Kind is the kind of subject.
type Kind string

// The kinds.
const (
	Incident Kind = "incident"
	Alert    Kind = "alert"
	Digest   Kind = "digest"
	Test     Kind = "test"
)

// Brief is a message in words for people.
type Brief struct {
	Kind  Kind
	Phase Phase
	// ID is the id of the incident or alert, or of the message if there is neither.
	ID       string
	Severity alert.Severity // of a digest the worst; of a test none
	Rule     string         // empty if there is none or if there are several
	Key      string         // user 7, or ip=10.0.0.1 product_id=5; empty if there is none
	// Title names the subject and is the same from the first message to the last; Status says what happened to it.
	Title, Status string
	// Summary and Runbook come from the rule; Link is the URL for details. Runbook and Link are http or https URLs.
	Summary, Runbook, Link string
	// At is when the reported change happened. Begin and End are when the subject began and ended, as far as is known: for an alert, event times; for an
	// incident, when it was opened and resolved.
	At, Begin, End time.Time
	Facts          []Fact
	// Lines are the incidents or alerts in a digest, the worst first.
	Lines []string
}

// Fact is a detail of the subject.
type Fact struct{ Name, Text string }

// maxFacts bounds the facts that come from columns, maxLines the lines of a digest, maxText the length of each text, in UTF-16 code units.
const (
	maxFacts = 12
	maxLines = 10
	maxText  = 1000
)

// Of returns the Brief of a message. link, if not empty, is the URL for details, with {since} and {until}. An error wraps notify.ErrUnsendable.
func Of(m notify.Message, link string) (Brief, error) {
	b := Brief{ID: m.ID, At: m.At.UTC()}
	if m.ID == "" || strings.ContainsFunc(m.ID, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Brief{}, fmt.Errorf("%w: its ID is empty, or contains spaces or characters other than printable ASCII", notify.ErrUnsendable)
	}
	if !utf8.Valid(m.Data) || !json.Valid(m.Data) {
		return Brief{}, fmt.Errorf("%w: its data is not JSON in UTF-8", notify.ErrUnsendable)
	}
	var err error
	switch m.Type {
	case notify.TypeIncidentOpened, notify.TypeIncidentEscalated, notify.TypeIncidentResolved:
		err = b.incident(m, link)
	case notify.TypeOpened, notify.TypeRaised, notify.TypeClosed:
		err = b.alert(m, link)
	case notify.TypeIncidentDigest, notify.TypeDigest:
		err = b.digest(m)
	case notify.TypeTest:
		err = b.test(m)
	default:
		err = fmt.Errorf("its type %.60q is unknown", m.Type)
	}
	if err != nil {
		return Brief{}, fmt.Errorf("%w: %w", notify.ErrUnsendable, err)
	}
	return b, nil
}

// errNoSubject: the data has neither an id nor a rule.
var errNoSubject = errors.New("its data does not match its type")

func (b *Brief) incident(m notify.Message, link string) error {
	var i incident.Incident
	if json.Unmarshal(m.Data, &i) != nil || !named(i.ID) || i.Rule == "" {
		return errNoSubject
	}
	b.Kind, b.ID = Incident, i.ID
	b.Phase = map[string]Phase{notify.TypeIncidentOpened: Begins, notify.TypeIncidentEscalated: Grows, notify.TypeIncidentResolved: Ends}[m.Type]
	b.subject(i.Rule, i.Severity, i.Key, i.Summary, i.Runbook)
	b.Begin, b.End = i.OpenedAt.UTC(), i.ResolvedAt.UTC()
	if b.Begin.IsZero() {
		b.Begin = b.At
	}
	if b.Phase == Ends && b.End.IsZero() {
		b.End = b.At
	}
	switch b.Phase {
	case Begins:
		b.Status = "opened: " + string(b.Severity)
	case Grows:
		b.Status = "escalated: " + string(b.Severity)
	default:
		b.Status = "resolved"
	}
	b.fact("events", strconv.FormatInt(i.Events, 10))
	b.fact("windows", strconv.FormatInt(i.Windows, 10))
	b.fact("most in a window", strconv.FormatInt(i.Peak, 10))
	b.fact("event time", span(i.FirstWindowStart, i.LastWindowEnd))
	b.fact("opened", clock(i.OpenedAt))
	b.fact("escalated", clock(i.EscalatedAt))
	b.fact("resolved", clock(i.ResolvedAt))
	if i.Marked != nil {
		b.fact("mark", string(i.Marked.Mark))
	}
	b.fact("incident", i.ID)
	b.Link = linked(link, i.FirstWindowStart, i.LastWindowEnd)
	return nil
}

// row is what is read of an alert, leniently: it may have been written by another version.
type row struct {
	ID          string          `json:"id"`
	Rule        string          `json:"rule"`
	Severity    alert.Severity  `json:"severity"`
	Summary     string          `json:"summary"`
	Runbook     string          `json:"runbook"`
	UserID      json.RawMessage `json:"user_id"`
	Key         json.RawMessage `json:"key"`
	Count       int64           `json:"num_actions_per_watermark"`
	EventCount  int64           `json:"event_count"`
	Threshold   int64           `json:"threshold"`
	WindowStart time.Time       `json:"window_start"`
	WindowEnd   time.Time       `json:"window_end"`
}

func (r row) key() json.RawMessage {
	if len(r.Key) > 0 || len(r.UserID) == 0 {
		return r.Key
	}
	return slices.Concat([]byte(`{"user_id":`), r.UserID, []byte(`}`))
}

func (b *Brief) alert(m notify.Message, link string) error {
	var r row
	if json.Unmarshal(m.Data, &r) != nil || !named(r.ID) || r.Rule == "" {
		return errNoSubject
	}
	b.Kind, b.ID = Alert, r.ID
	b.Phase = map[string]Phase{notify.TypeOpened: Begins, notify.TypeRaised: Grows, notify.TypeClosed: Ends}[m.Type]
	b.subject(r.Rule, r.Severity, r.key(), r.Summary, r.Runbook)
	b.Begin, b.End = r.WindowStart.UTC(), r.WindowEnd.UTC()
	b.Status = map[Phase]string{Begins: "opened: ", Grows: "raised: ", Ends: "closed: "}[b.Phase] + string(b.Severity)
	b.fact("events", strconv.FormatInt(max(r.Count, r.EventCount), 10))
	if r.Threshold > 0 {
		b.fact("more than", strconv.FormatInt(r.Threshold, 10))
	}
	b.fact("window", span(r.WindowStart, r.WindowEnd))
	if len(r.Key) > 0 {
		b.columns(m.Data)
	}
	b.fact("alert", r.ID)
	b.Link = linked(link, r.WindowStart, r.WindowEnd)
	return nil
}

// columns adds the columns of the SELECT list: what no alert has by itself.
func (b *Brief) columns(data []byte) {
	members, err := ordered(data)
	if err != nil {
		return
	}
	for _, m := range members {
		if alert.Reserved(m.name) || m.name == "user_id" || len(b.Facts) >= maxFacts {
			continue
		}
		b.fact(m.name, textOf(m.value))
	}
}

func (b *Brief) digest(m notify.Message) error {
	var d struct {
		Since, Until               time.Time
		Messages, Opened, Resolved int
		Escalated, Raised, Closed  int
		Users                      int
		Events                     int64
		BySeverity                 map[alert.Severity]int `json:"by_severity"`
		ByRule                     map[string]int         `json:"by_rule"`
		Incidents                  []incident.Incident    `json:"incidents"`
		Top                        []row                  `json:"top"`
		Link                       string
	}
	if json.Unmarshal(m.Data, &d) != nil || d.Messages < 1 {
		return errNoSubject
	}
	b.Kind, b.Severity = Digest, alert.Warning
	if d.BySeverity[alert.Critical] > 0 {
		b.Severity = alert.Critical
	}
	what := "incidents"
	if m.Type == notify.TypeDigest {
		what = "alerts"
	}
	b.Title = fmt.Sprintf("digest of %d messages about %s", d.Messages, what)
	b.Status = string(b.Severity)
	b.Begin, b.End = d.Since.UTC(), d.Until.UTC()
	for _, c := range []struct {
		name string
		n    int
	}{{"opened", d.Opened}, {"escalated", d.Escalated}, {"resolved", d.Resolved}, {"raised", d.Raised}, {"closed", d.Closed}, {"users", d.Users}} {
		if c.n > 0 {
			b.fact(c.name, strconv.Itoa(c.n))
		}
	}
	b.fact("events", strconv.FormatInt(d.Events, 10))
	b.fact("time", span(d.Since, d.Until))
	rules := slices.SortedFunc(maps.Keys(d.ByRule), func(x, y string) int {
		if n := d.ByRule[y] - d.ByRule[x]; n != 0 {
			return n
		}
		return strings.Compare(x, y)
	})
	var by []string
	for _, r := range rules[:min(len(rules), 5)] {
		by = append(by, fmt.Sprintf("%s %d", plain(r), d.ByRule[r]))
	}
	if len(rules) > len(by) {
		by = append(by, fmt.Sprintf("%d more", len(rules)-len(by)))
	}
	b.fact("by rule", strings.Join(by, ", "))
	for _, i := range d.Incidents {
		b.Lines = append(b.Lines, Cut(fmt.Sprintf("%s, %s, %s, %d events", subject(i.Rule, label(i.Key)), plain(string(i.Severity)), plain(string(i.State)), i.Events), maxText))
	}
	for _, r := range d.Top {
		b.Lines = append(b.Lines, Cut(fmt.Sprintf("%s, %s, %d events", subject(r.Rule, label(r.key())), plain(string(r.Severity)), max(r.Count, r.EventCount)), maxText))
	}
	b.Lines = b.Lines[:min(len(b.Lines), maxLines)]
	b.Link = address(d.Link)
	return nil
}

func (b *Brief) test(m notify.Message) error {
	var t struct{ Endpoint, Text string }
	_ = json.Unmarshal(m.Data, &t) // whatever there is to tell
	b.Kind, b.Title, b.Status = Test, "test message", "this is not an alert"
	b.Summary = Cut(plain(t.Text), maxText)
	if t.Endpoint != "" {
		b.fact("endpoint", t.Endpoint)
	}
	b.Begin, b.End = b.At, b.At
	return nil
}

// subject takes what incidents and alerts have in common.
func (b *Brief) subject(rule string, s alert.Severity, key json.RawMessage, summary, runbook string) {
	b.Rule, b.Severity, b.Key = Cut(plain(rule), maxText), s, Cut(label(key), maxText)
	if s != alert.Warning && s != alert.Critical {
		b.Severity = alert.Critical // not known here: rather too loud than too quiet
	}
	b.Title = subject(b.Rule, b.Key)
	b.Summary, b.Runbook = Cut(plain(summary), 2*maxText), address(runbook)
	b.fact("rule", rule)
	if b.Key != "" {
		b.fact("key", b.Key)
	}
	b.fact("severity", string(b.Severity))
}

func subject(rule, key string) string {
	if key == "" {
		return plain(rule)
	}
	return plain(rule) + ": " + key
}

func (b *Brief) fact(name, text string) {
	if text != "" {
		b.Facts = append(b.Facts, Fact{Cut(plain(name), 100), Cut(plain(text), maxText)})
	}
}

// Headline returns the status and the title on one line.
func (b Brief) Headline() string { return b.Status + ", " + b.Title }

// named reports whether an id is one that can be a key elsewhere.
func named(id string) bool {
	return id != "" && len(id) <= 200 && !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' })
}

// plain returns text in one line with everything escaped that is not shown as itself. It is idempotent but for backslashes, which it leaves alone.
func plain(text string) string { return terminal.Text(text) }

// label is a key, a JSON object, for people.
func label(key json.RawMessage) string {
	members, err := ordered(key)
	if err != nil || len(members) == 0 {
		return ""
	}
	if len(members) == 1 {
		name := members[0].name
		if name == "user_id" {
			name = "user"
		}
		return plain(name + " " + textOf(members[0].value))
	}
	text, err := alert.KeyLabel(key)
	if err != nil {
		return ""
	}
	return plain(text)
}

type member struct {
	name  string
	value json.RawMessage
}

// ordered returns the members of a JSON object.
func ordered(object []byte) ([]member, error) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errNoSubject
	}
	var out []member
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		m := member{name: fmt.Sprint(t)}
		if err := dec.Decode(&m.value); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// textOf returns a JSON value as text: a string without quotes and escapes, any other as it is, so that no number changes.
func textOf(value json.RawMessage) string {
	var text string
	if len(value) > 0 && value[0] == '"' && json.Unmarshal(value, &text) == nil {
		return text
	}
	return string(value)
}

// address returns a URL that may become a link, or nothing.
func address(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || len(text) > 2*maxText {
		return ""
	}
	return u.String() // percent-encoded
}

// linked puts times into a link.
func linked(link string, since, until time.Time) string {
	if link == "" {
		return ""
	}
	return address(Times(link, since, until))
}

// Times replaces {since} and {until} in a link.
func Times(link string, since, until time.Time) string {
	return strings.NewReplacer("{since}", since.UTC().Format(time.RFC3339), "{until}", until.UTC().Format(time.RFC3339)).Replace(link)
}

const layout = "2006-01-02 15:04:05"

func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(layout) + " UTC"
}

func span(from, to time.Time) string {
	if from.IsZero() || to.IsZero() {
		return ""
	}
	end := layout
	if from, to = from.UTC(), to.UTC(); from.Format(time.DateOnly) == to.Format(time.DateOnly) {
		end = time.TimeOnly
	}
	return from.Format(layout) + " to " + to.Format(end) + " UTC"
}

// Cut returns the beginning of a text: up to limit characters, counted in UTF-16 code units, as JavaScript and most vendors do. … replaces the rest. A
// limit below 1 is treated as 1.
func Cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	limit = max(limit, 1)
	n, end := 0, 0 // end is where … could follow
	for i, r := range text {
		if n <= limit-1 {
			end = i
		}
		if n += max(utf16.RuneLen(r), 1); n > limit {
			return text[:end] + "…"
		}
	}
	return text
}
