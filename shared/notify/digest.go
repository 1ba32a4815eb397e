package notify

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"spate/shared/alert"
	"spate/shared/incident"
)

// Digest is the data of a message that stands for other messages.
type Digest struct {
	// Since and Until bound the time in which the messages were created.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Messages is how many messages this one stands for. The next five are how many of each kind: Escalated and Resolved of incidents, Raised and
	// Closed of alerts.
	Messages  int `json:"messages"`
	Opened    int `json:"opened"`
	Escalated int `json:"escalated,omitempty"`
	Resolved  int `json:"resolved,omitempty"`
	Raised    int `json:"raised,omitempty"`
	Closed    int `json:"closed,omitempty"`
	// Users is how many different users they are about (rules may have other keys). Events is the sum of the counts: for each incident, the count when
	// the digest is made; for each alert, the highest count in a message.
	Users  int   `json:"users"`
	Events int64 `json:"events"`
	// BySeverity and ByRule are numbers of messages.
	BySeverity map[alert.Severity]int `json:"by_severity"`
	ByRule     map[string]int         `json:"by_rule"`
	// Incidents are those with the most events, the most first; Top are the alerts with the highest counts, the highest first.
	Incidents []incident.Incident `json:"incidents,omitempty"`
	Top       []alert.Record      `json:"top,omitempty"`
	// Link is the URL for details, if one is configured.
	Link string `json:"link,omitempty"`
}

// maxTop is how many incidents, or alerts, a digest names.
const maxTop = 10

// Digester makes a digest of messages, one by one.
type Digester struct {
	d      Digest
	users  map[string]struct{}
	counts map[string]int64 // by incident or alert
}

// NewDigester begins a digest of the messages from since to until.
func NewDigester(since, until time.Time) *Digester {
	return &Digester{
		d:     Digest{Since: since.UTC(), Until: until.UTC(), BySeverity: make(map[alert.Severity]int), ByRule: make(map[string]int)},
		users: make(map[string]struct{}), counts: make(map[string]int64),
	}
}

// Held is a message that a digest stands for.
type Held struct {
	Type string
	// Incident or Alert is the subject: an incident as it is now, or an alert as it is now, in the state of the message.
	Incident *incident.Incident
	Alert    *alert.Record
}

// Add adds a message.
func (b *Digester) Add(h Held) {
	b.d.Messages++
	switch h.Type {
	case TypeOpened, TypeIncidentOpened:
		b.d.Opened++
	case TypeIncidentEscalated:
		b.d.Escalated++
	case TypeIncidentResolved:
		b.d.Resolved++
	case TypeRaised:
		b.d.Raised++
	case TypeClosed:
		b.d.Closed++
	}
	if h.Incident != nil {
		b.incident(*h.Incident)
	} else {
		b.alert(*h.Alert)
	}
}

// count notes what has become known of an incident or alert, and reports whether it was known before.
func (b *Digester) count(id, rule string, severity alert.Severity, user string, events int64) (again bool) {
	b.d.BySeverity[severity]++
	b.d.ByRule[rule]++
	if user != "" {
		b.users[user] = struct{}{}
	}
	known, again := b.counts[id]
	if events > known {
		b.d.Events += events - known
		b.counts[id] = events
	}
	return again
}

func (b *Digester) incident(i incident.Incident) {
	if b.count(i.ID, i.Rule, i.Severity, i.User(), i.Events) {
		return // it is the same one, as it is now
	}
	at, _ := slices.BinarySearchFunc(b.d.Incidents, i, func(a, b incident.Incident) int {
		return cmp.Or(cmp.Compare(b.Events, a.Events), cmp.Compare(a.ID, b.ID))
	})
	b.d.Incidents = top(b.d.Incidents, at, i)
}

func (b *Digester) alert(r alert.Record) {
	user := ""
	if r.IsUser() {
		user = string(r.UserID)
	}
	if b.count(r.ID, r.Rule, r.Severity, user, r.Count) {
		if i := slices.IndexFunc(b.d.Top, func(t alert.Record) bool { return t.ID == r.ID }); i >= 0 {
			if r.State.Rank() <= b.d.Top[i].State.Rank() {
				return
			}
			b.d.Top = slices.Delete(b.d.Top, i, i+1)
		}
	}
	at, _ := slices.BinarySearchFunc(b.d.Top, r, func(a, b alert.Record) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.ID, b.ID))
	})
	b.d.Top = top(b.d.Top, at, r.Written())
}

// top inserts what belongs to the first of a list.
func top[T any](list []T, at int, v T) []T {
	if at >= maxTop {
		return list
	}
	list = slices.Insert(list, at, v)
	return list[:min(len(list), maxTop)]
}

// Data returns the digest as JSON. link, if not nil, returns its link. An error wraps ErrUnsendable.
func (b *Digester) Data(link func(Digest) string) (json.RawMessage, error) {
	b.d.Users = len(b.users)
	if link != nil {
		b.d.Link = link(b.d)
	}
	var data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetEscapeHTML(false) // keeps users unchanged
	if err := enc.Encode(b.d); err != nil {
		return nil, fmt.Errorf("%w: encode digest: %w", ErrUnsendable, err)
	}
	return bytes.TrimSuffix(data.Bytes(), []byte("\n")), nil
}
