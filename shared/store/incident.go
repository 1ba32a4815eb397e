package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
)

// ErrNoIncident: the store has no incident with this id.
var ErrNoIncident = errors.New("incident not found")

// Incidents is the part of a store that keeps incidents. Apply opens and changes them, in the transaction of their alerts.
type Incidents interface {
	// Resolve ends the incidents that are over when event time is upTo, at most so many, with the messages to those endpoints that are told of
	// it, in one transaction. Every alert of a window that ends by then must be stored already. It returns what it ended, by id.
	Resolve(ctx context.Context, now, upTo time.Time, limit int, to ...notify.Endpoint) ([]incident.Event, error)

	// Incidents yields what fits f, ordered by first window, then id, or in the opposite order. An error is the last thing it yields.
	Incidents(ctx context.Context, f IncidentFilter) iter.Seq2[incident.Incident, error]

	// IncidentsOf returns the incidents that alerts are part of, by alert.
	IncidentsOf(ctx context.Context, alerts []string) (map[string]string, error)

	// Mark notes what somebody found out about an incident, in place of what was noted before; a zero mark takes it away. ErrNoIncident.
	Mark(ctx context.Context, id string, m incident.Marked) error
}

// ErrNoSilence: the store has no silence with this id.
var ErrNoSilence = errors.New("silence not found")

// Silences is the part of a store that keeps silences. Apply heeds those that hold when it is called.
type Silences interface {
	// AddSilence stores a new silence.
	AddSilence(ctx context.Context, s incident.Silence) error

	// Silences returns those that end after a time, by their beginning, then id; the zero time is all.
	Silences(ctx context.Context, endAfter time.Time) ([]incident.Silence, error)

	// EndSilence has a silence end at a time, if it would end later. ErrNoSilence.
	EndSilence(ctx context.Context, id string, at time.Time) error
}

// IncidentFilter chooses incidents; the zero value chooses all.
type IncidentFilter struct {
	ID    string         // what the id begins with, hexadecimal digits; empty is any
	Key   string         // JSON object of the key columns; empty is any
	Rule  string         // empty is any
	State incident.State // empty is any
	// MinSeverity is this or worse; empty is any.
	MinSeverity alert.Severity
	Mark        incident.Mark // empty is any
	Silenced    string        // the silence that kept them; empty is any
	OpenedSince time.Time     // those that the store heard of at or after it; zero is any
	Since       time.Time     // those whose last window ends after it; zero is any
	Until       time.Time     // those whose first window starts before it; zero is any
	Limit       int           // at most so many, from the first; 0 is all
	// Newest turns the order around.
	Newest bool
}

// Validate reports every problem at once.
func (f IncidentFilter) Validate() error {
	var errs []error
	if f.State != "" && f.State != incident.StateOpen && f.State != incident.StateResolved {
		errs = append(errs, fmt.Errorf("state: %q is neither open nor resolved", f.State))
	}
	if s := f.MinSeverity; s != "" && s != alert.Warning && s != alert.Critical {
		errs = append(errs, fmt.Errorf("severity: %q is neither warning nor critical", s))
	}
	if f.Mark != "" {
		if _, err := incident.ParseMark(string(f.Mark)); err != nil {
			errs = append(errs, err)
		}
	}
	if strings.Trim(f.ID, "0123456789abcdef") != "" {
		errs = append(errs, fmt.Errorf("id: %.40q does not consist of hexadecimal digits", f.ID))
	}
	if f.Limit < 0 {
		errs = append(errs, fmt.Errorf("limit: %d is negative (use 0 for all)", f.Limit))
	}
	return errors.Join(errs...)
}

// PastID is the upper bound, exclusive, of the ids that begin with f.ID.
func (f IncidentFilter) PastID() string { return f.ID + "g" }

// SpanRow is an incident.Span as adapters hand it to the database, as an element of a JSON array. Far is how far from an incident's windows another
// may be at most, whatever the incident says.
type SpanRow struct {
	Rule    string `json:"rule"`
	Mode    string `json:"mode"`
	Key     string `json:"key"`
	FromMS  int64  `json:"from"`
	ToMS    int64  `json:"to"`
	FarFrom int64  `json:"far"`
}

// maxQuiet is the longest that an incident can be quiet, as package alert allows it.
const maxQuiet = 24 * time.Hour

// SpanRows returns where the incidents of records may lie.
func SpanRows(records []alert.Record) []SpanRow {
	var out []SpanRow
	for _, s := range incident.Spans(records) {
		out = append(out, SpanRow{
			Rule: s.Rule, Mode: s.Mode, Key: string(s.Key), FromMS: s.From.UnixMilli(), ToMS: s.To.UnixMilli(), FarFrom: s.From.Add(-maxQuiet).UnixMilli(),
		})
	}
	return out
}

// HeldRecord returns a record of a digest as its message told it: the alert as it is now, in the state of the message.
func HeldRecord(messageType string, r alert.Record) notify.Held {
	r.State = alert.State(strings.TrimPrefix(messageType, "alert."))
	return notify.Held{Type: messageType, Alert: &r}
}

// MarkText and its inverse are how adapters keep a mark: as JSON, or not at all.
func MarkText(m *incident.Marked) (*string, error) {
	if m == nil || m.Mark == "" {
		return nil, nil
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode mark: %w", err)
	}
	text := string(b)
	return &text, nil
}

// ParseMark is the inverse of [MarkText].
func ParseMark(text *string) (*incident.Marked, error) {
	if text == nil {
		return nil, nil
	}
	var m incident.Marked
	if err := json.Unmarshal([]byte(*text), &m); err != nil {
		return nil, fmt.Errorf("decode mark: %w", err)
	}
	return &m, nil
}
