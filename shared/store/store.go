// Package store is the port to the alert database. It keeps the state of every alert under its id, however often and in whatever order its
// records arrive, and its deliveries to endpoints. The adapters are in subpackages and are tested with package storetest. Reading the topic
// and deciding when an offset may be committed is left to the alerter.
//
// # States
//
//	(nothing) ──opened──► opened ──raised──► raised ──closed──► closed
//	    ├──────────────raised──────────────────┘               │
//	    └──────────────closed───────────────────────────────────┘
//
// An opened alert that is not raised is closed as it is.
//
// A record whose state is not ahead of the stored one changes nothing, so records may be applied again and in any order: the
// same set of records gives the same alerts. A closed alert is final; a record that contradicts it is a [Rejection], never an update.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
)

var (
	// ErrNotFound: the store has no alert with this id.
	ErrNotFound = errors.New("alert not found")
	// ErrConflict: a record contradicts what is stored under its id. One of the two is wrong; the stored one is kept.
	ErrConflict = errors.New("alert conflicts with the stored one")
	// ErrInvalid: a record is none that a store can keep, whatever it holds.
	ErrInvalid = errors.New("alert is invalid")
)

// Store keeps alerts. It is safe for concurrent use, also by several processes.
type Store interface {
	Deliveries
	Incidents
	Silences

	// Apply makes each record move its alert forward, or change nothing, in the order given and in one transaction, which also has what that
	// does to incidents, and the deliveries to those endpoints that are told of what changed. With an error nothing is changed, or all of it is and only the
	// answer was lost; the caller may try the same again, for what is there already changes nothing. Records that no further try can
	// help with do not stop the others: they change nothing and are in the result. now is when the store hears of the records.
	Apply(ctx context.Context, now time.Time, records []alert.Record, to ...notify.Endpoint) (Applied, error)

	// Alerts yields what fits f, ordered by window start, then user (bytewise), then id, or in the opposite order. An error is the last
	// thing it yields. The loop may use the store; what it changes may or may not be yielded.
	Alerts(ctx context.Context, f Filter) iter.Seq2[Alert, error]

	// Alert returns the alert with the id, or ErrNotFound.
	Alert(ctx context.Context, id string) (Alert, error)

	// Count returns how many alerts there are.
	Count(ctx context.Context) (Counts, error)

	// Close releases the store. Whoever opened it closes it, once, after the last call.
	Close() error
}

// Applied is what became of the records of one Apply.
type Applied struct {
	// Changed tells for each record whether it made an alert or moved one forward.
	Changed []bool
	// Events are what became of incidents, in order.
	Events []incident.Event
	// Rejected are the records that cannot be stored, in the order of the records.
	Rejected []Rejection
}

// Rejection is a record that changed nothing, and should have.
type Rejection struct {
	Index int   // in the records applied
	Err   error // wraps ErrConflict or ErrInvalid, and names the alert
}

// Alert is an alert as it is stored. Its times are UTC, to the millisecond.
type Alert struct {
	alert.Record
	OpenedAt time.Time `json:"opened_at"`          // when the store first heard of it
	ClosedAt time.Time `json:"closed_at,omitzero"` // when it heard of the final count; zero while open
	Incident string    `json:"incident,omitempty"` // that it is part of; empty if it was closed before there were any
	Delivery Summary   `json:"delivery"`           // how far telling of it is
}

// MarshalJSON implements json.Marshaler: the members of the record, then those of the store.
func (a Alert) MarshalJSON() ([]byte, error) {
	record, err := a.Record.MarshalJSON()
	if err != nil {
		return nil, err
	}
	return alert.Join(record, struct {
		OpenedAt time.Time `json:"opened_at"`
		ClosedAt time.Time `json:"closed_at,omitzero"`
		Incident string    `json:"incident,omitempty"`
		Delivery Summary   `json:"delivery"`
	}{a.OpenedAt, a.ClosedAt, a.Incident, a.Delivery})
}

// Filter chooses alerts; the zero value chooses all.
type Filter struct {
	ID    string      // what the id begins with, hexadecimal digits; empty is any
	User  string      // canonical JSON token, as [User] returns it; alerts whose key is another than the user's are left out; empty is any
	State alert.State // empty is any
	Rule  string      // empty is any
	// Incident is one that they are part of; empty is any.
	Incident string
	// MinSeverity is this or worse; empty is any.
	MinSeverity alert.Severity
	Since       time.Time // windows that start at or after it; zero is any
	Until       time.Time // windows that start before it; zero is any
	Limit       int       // at most so many, from the first; 0 is all
	// Newest turns the order around: the newest windows come first.
	Newest bool
}

// Validate reports every problem at once.
func (f Filter) Validate() error {
	var errs []error
	if f.State != "" && f.State.Rank() == 0 {
		errs = append(errs, fmt.Errorf("state: %q is not one of opened, raised, closed", f.State))
	}
	if s := f.MinSeverity; s != "" && s != alert.Warning && s != alert.Critical {
		errs = append(errs, fmt.Errorf("severity: %q is neither warning nor critical", s))
	}
	if strings.Trim(f.ID, "0123456789abcdef") != "" {
		errs = append(errs, fmt.Errorf("id: %.40q does not consist of hexadecimal digits", f.ID))
	}
	if f.Limit < 0 {
		errs = append(errs, fmt.Errorf("limit: %d is negative (use 0 for all)", f.Limit))
	}
	return errors.Join(errs...)
}

// UserKey is the key of the alerts of a user, who is a canonical JSON token, of rules that have one.
func UserKey(token string) string { return `{"user_id":` + token + `}` }

// PastID is the upper bound, exclusive, of the ids that begin with f.ID: the lower one is f.ID itself.
func (f Filter) PastID() string { return f.ID + "g" }

// Counts are numbers of alerts by state.
type Counts struct {
	Opened int64 `json:"opened"` // not closed yet
	Closed int64 `json:"closed"`
}

// Total of all states.
func (c Counts) Total() int64 { return c.Opened + c.Closed }
