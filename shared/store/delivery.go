package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"time"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
)

// DeliveryState is how far the telling of a message to one endpoint is.
//
//	            ┌──────────── again ────────────┐
//	(nothing) ──┴─► pending ──2xx──► delivered   │
//	    │              ├────────────► exhausted ─┤
//	    │              └────────────► disabled ──┘
//	    └─────────► held (its state is that of its digest)
//
// A store that decides about digests only when a message is due has it pending first, then held.
type DeliveryState string

const (
	// None: nobody is notified of it.
	None DeliveryState = "none"
	// Pending: it is due at a time.
	Pending DeliveryState = "pending"
	// Held: it is part of a digest, with others.
	Held DeliveryState = "held"
	// Delivered: the endpoint has it.
	Delivered DeliveryState = "delivered"
	// Exhausted: all tries of the schedule failed, or the message can be sent to nobody.
	Exhausted DeliveryState = "exhausted"
	// Disabled: its turn came when the endpoint was disabled.
	Disabled DeliveryState = "disabled"
)

// Delivery is a message to one endpoint, and how far that is. Its times are UTC, to the millisecond.
type Delivery struct {
	WebhookID string          `json:"webhook_id"`
	Endpoint  string          `json:"endpoint"`
	Incident  string          `json:"incident_id,omitempty"` // what it is about: an incident,
	AlertID   string          `json:"alert_id,omitempty"`    // or an alert; neither: a digest or a test
	Type      string          `json:"type"`
	State     DeliveryState   `json:"state"`
	Tries     int             `json:"attempts"`
	Counted   int             `json:"-"` // tries that went by the schedule since BegunAt
	CreatedAt time.Time       `json:"created_at"`
	BegunAt   time.Time       `json:"-"`                // when the schedule began
	NextAt    time.Time       `json:"next_at,omitzero"` // when it is due, if it is pending
	Digest    string          `json:"digest,omitempty"` // webhook id of the digest, if it is held
	Data      json.RawMessage `json:"data,omitempty"`   // none: held, or a digest that is not sealed
	// Ref is how the endpoint names what it made of an earlier message about the same incident; empty if there is none.
	Ref string `json:"-"`
}

// Try is one try of a delivery.
type Try struct {
	WebhookID string
	Endpoint  string
	N         int       // of the delivery's tries, from 1
	At        time.Time // when it began
	Took      time.Duration
	Status    int // HTTP status of the answer; 0 is none
	Outcome   notify.Outcome
	Reason    string    // why it was not delivered
	Ref       string    // how the endpoint names what it made of the message; not listed
	NextAt    time.Time // when the next one is due; zero is never
}

// Summary is how far the telling of an alert is, all its messages to all endpoints together.
type Summary struct {
	// State is the one that needs most attention: pending, exhausted, disabled, delivered; none without messages. A digest counts for
	// the messages that it holds.
	State DeliveryState `json:"state"`
	// Attempts is how many tries there were.
	Attempts int `json:"attempts"`
}

var (
	// ErrNoDelivery: the store has no delivery of this message to this endpoint.
	ErrNoDelivery = errors.New("delivery not found")
	// ErrNoTest: an endpoint cannot be tested now.
	ErrNoTest = errors.New("no test was added")
)

// Queue is where the deliveries to one endpoint wait.
type Queue struct {
	Endpoint string
	Workers  int // deliveries under way at once
}

// Do does what is due of a delivery, within 40 s. It returns when the delivery is due again, or the zero time if it is settled; with an
// error it is due again soon.
type Do func(ctx context.Context, webhookID, endpoint string) (again time.Time, err error)

// Deliveries is the part of a store that remembers what is told to whom. Apply writes deliveries, together with the alerts; the
// deliveries that are due are worked off by one of those who Work at the same time.
type Deliveries interface {
	// Work gives each delivery of the queues that is due to do, until ctx ends, and then waits for those under way, which it cancels
	// after a grace period. do may be called for a delivery that is settled already, and, after a crash or a long pause, for one that
	// somebody else does at the same time. An error means that it could not begin.
	Work(ctx context.Context, queues []Queue, log *slog.Logger, do Do) error

	// Delivery returns one delivery, or ErrNoDelivery.
	Delivery(ctx context.Context, webhookID, endpoint string) (Delivery, error)

	// Record writes a try, whose N it sets and whose times it cuts to the millisecond, and moves its delivery on: to delivered, exhausted, or disabled if the outcome
	// is gone; else it is pending until NextAt. counts reports whether the try goes by the schedule. If the outcome is gone, the
	// endpoint is disabled, too. A delivery that is not pending any more keeps its state. It returns the delivery's state.
	Record(ctx context.Context, t Try, counts bool) (DeliveryState, error)

	// Disable settles a pending delivery of an endpoint that is disabled.
	Disable(ctx context.Context, webhookID, endpoint string) error

	// Seal makes the data of a digest, if it has none yet, of the records that it stands for, as they are now; from then on none is held
	// for it. It returns the delivery with its data.
	Seal(ctx context.Context, webhookID, endpoint string, data func(iter.Seq2[notify.Held, error]) (json.RawMessage, error)) (Delivery, error)

	// ListDeliveries yields what fits f, by creation, then webhook id and endpoint. ListTries yields tries by time, then webhook id,
	// endpoint and number. An error is the last thing they yield.
	ListDeliveries(ctx context.Context, f DeliveryFilter) iter.Seq2[Delivery, error]
	ListTries(ctx context.Context, f TryFilter) iter.Seq2[Try, error]

	// Resend makes what fits f due at once, with a schedule that begins anew, and returns how many those are. It leaves out what is
	// due or under way already, what is held, and a digest whose minute has not ended; a filter's limit does not count. A delivery that waits for its next try is brought
	// forward; the job that waited finds it settled.
	Resend(ctx context.Context, now time.Time, f DeliveryFilter) (int, error)

	// AddTest adds a test of an endpoint, due at once: from then on, it is a message like any other, except that flood control does not count it. The error is that of
	// [NewTest], which wraps ErrNoTest, if the endpoint cannot be tested now.
	AddTest(ctx context.Context, now time.Time, endpoint string) (Delivery, error)

	// Configure notes how a process that delivers has its endpoints, by name, for whoever looks. What was noted of others stays.
	Configure(ctx context.Context, now time.Time, endpoints map[string]EndpointConfig) error

	// Endpoints returns what is known of endpoints, by name: of all that were ever configured or disabled, or have deliveries which did not get there.
	Endpoints(ctx context.Context) ([]EndpointState, error)

	// SetEnabled enables or disables an endpoint. An endpoint that is disabled already keeps its time and reason.
	SetEnabled(ctx context.Context, now time.Time, endpoint string, enabled bool, reason string) error

	// DisabledAt returns since when an endpoint is disabled, or the zero time.
	DisabledAt(ctx context.Context, endpoint string) (time.Time, error)
}

// EndpointConfig is how an endpoint is configured, as far as that may be shown.
type EndpointConfig struct {
	Host        string         `json:"host,omitempty"` // scheme://host[:port]
	Format      string         `json:"format,omitempty"`
	Rules       []string       `json:"rules,omitempty"`
	MinSeverity alert.Severity `json:"min_severity,omitempty"`
	Transitions []alert.State  `json:"transitions,omitempty"`
	Rate        float64        `json:"rate,omitempty"`
	DigestAbove int            `json:"digest_above,omitempty"`
}

// Text is the form in which adapters keep it.
func (c EndpointConfig) Text() (string, error) {
	b, err := json.Marshal(c)
	return string(b), err
}

// ParseEndpointConfig is the inverse of [EndpointConfig.Text].
func ParseEndpointConfig(text string) (*EndpointConfig, error) {
	var c EndpointConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return nil, fmt.Errorf("decode configuration of an endpoint: %w", err)
	}
	return &c, nil
}

// EndpointState is what is known of an endpoint.
type EndpointState struct {
	Name string `json:"name"`
	// Config is how a process that delivers has it, and ConfiguredAt when it said so; nil: none has.
	Config       *EndpointConfig `json:"config,omitempty"`
	ConfiguredAt time.Time       `json:"configured_at,omitzero"`

	DisabledAt time.Time `json:"disabled_at,omitzero"` // zero: enabled
	Reason     string    `json:"reason,omitempty"`     // why it is disabled
	// Pending, Exhausted and Dropped are numbers of deliveries in the states pending, exhausted and disabled.
	Pending   int64 `json:"pending"`
	Exhausted int64 `json:"exhausted"`
	Dropped   int64 `json:"dropped"`
}

// NewTest returns the delivery of a test of an endpoint. The error wraps ErrNoTest if no process that delivers has ever said how it has the endpoint, if the endpoint is
// disabled, or if another test is pending, of which there is at most one; nil is none. An adapter reads these in the transaction that writes the test.
func NewTest(now time.Time, e EndpointState, pending *Delivery) (Delivery, error) {
	refuse := func(format string, args ...any) (Delivery, error) {
		return Delivery{}, fmt.Errorf("%w: %s", ErrNoTest, fmt.Sprintf(format, args...))
	}
	switch {
	case e.ConfiguredAt.IsZero():
		return refuse("no spate alert process has an endpoint %q; configure it for spate alert, and restart spate alert", e.Name)
	case !e.DisabledAt.IsZero():
		return refuse("endpoint %s is disabled; enable it first", e.Name)
	case pending != nil && pending.Tries == 0:
		return refuse("a test of endpoint %s is already queued but has not been attempted yet; is spate alert running?", e.Name)
	case pending != nil:
		return refuse("a test of endpoint %s is under way, and its next attempt is due at %s; to send it now, resend the message %s", e.Name, pending.NextAt.Format(time.RFC3339), pending.WebhookID)
	}
	now = milli(now)
	m, err := notify.NewTest(now, e.Name)
	return Delivery{WebhookID: m.ID, Endpoint: e.Name, Type: m.Type, State: Pending, CreatedAt: now, BegunAt: now, NextAt: now, Data: m.Data}, err
}

// DeliveryFilter chooses deliveries; the zero value chooses all.
type DeliveryFilter struct {
	WebhookID string          // empty is any
	Endpoint  string          // empty is any
	AlertID   string          // empty is any
	Incident  string          // empty is any
	States    []DeliveryState // one of these; empty is any
	Since     time.Time       // created at or after it; zero is any
	Limit     int             // at most so many; 0 is all
	Newest    bool            // the newest first
}

// TryFilter chooses tries; the zero value chooses all.
type TryFilter struct {
	WebhookID string         // empty is any
	Endpoint  string         // empty is any
	Outcome   notify.Outcome // empty is any
	Since     time.Time      // at or after it; zero is any
	Limit     int            // at most so many; 0 is all
	Newest    bool           // the newest first
}

// Next returns the state that a try brings its delivery to.
func Next(o notify.Outcome) DeliveryState {
	switch o {
	case notify.Delivered:
		return Delivered
	case notify.Exhausted:
		return Exhausted
	case notify.Gone:
		return Disabled
	}
	return Pending
}

// minute is the time that flood control counts in.
const minute = time.Minute

// Outgoing is what the changed records of one Apply make to tell at one endpoint. An adapter makes it with [Address], holds back what
// flood control wants, at once or when it is due, and writes the rest.
type Outgoing struct {
	Endpoint   notify.Endpoint
	Deliveries []Delivery
	// Ordinary are the places in Deliveries of those that flood control counts. It is empty if the endpoint has none.
	Ordinary []int
}

// add adds a message.
func (o *Outgoing) add(now time.Time, d Delivery, s alert.Severity) {
	if o.Endpoint.DigestAbove > 0 && s != alert.Critical {
		o.Ordinary = append(o.Ordinary, len(o.Deliveries))
	}
	d.Endpoint, d.State, d.CreatedAt, d.BegunAt, d.NextAt = o.Endpoint.Name, Pending, now, now, now
	o.Deliveries = append(o.Deliveries, d)
}

// Address returns the messages about records that changed something, and about what became of incidents, for each endpoint that is notified of any of
// them.
func Address(now time.Time, changed []alert.Record, events []incident.Event, to []notify.Endpoint) ([]Outgoing, error) {
	now = milli(now)
	var out []Outgoing
	// In one order, whoever writes: those who count the minutes of several endpoints would wait for each other in a circle.
	for _, e := range slices.SortedFunc(slices.Values(to), func(a, b notify.Endpoint) int { return strings.Compare(a.Name, b.Name) }) {
		o := Outgoing{Endpoint: e}
		for _, ev := range events {
			if ev.Silent || !e.Filter.MatchEvent(ev) {
				continue
			}
			data, err := ev.Incident.Encode()
			if err != nil {
				return nil, err
			}
			o.add(now, Delivery{WebhookID: ev.ID(), Incident: ev.Incident.ID, Type: notify.TypeOfEvent(ev), Data: data}, ev.Incident.Severity)
		}
		for _, r := range changed {
			if !e.Filter.Match(r) {
				continue
			}
			data, err := r.Encode()
			if err != nil {
				return nil, err
			}
			o.add(now, Delivery{WebhookID: notify.IDOf(r), AlertID: r.ID, Type: notify.TypeOf(r), Data: data}, r.Severity)
		}
		if len(o.Deliveries) > 0 {
			out = append(out, o)
		}
	}
	return out, nil
}

// Digest is the digest of the minute that now is in, or of the n-th after that one.
func (o Outgoing) Digest(now time.Time, n int) Delivery {
	since := milli(now).Truncate(minute).Add(time.Duration(n) * minute)
	end := since.Add(minute)
	return Delivery{
		WebhookID: fmt.Sprintf("digest_%s_%d", o.Endpoint.Name, since.Unix()), Endpoint: o.Endpoint.Name, Type: o.Endpoint.DigestType(),
		State: Pending, CreatedAt: since, BegunAt: end, NextAt: end,
	}
}

// Hold holds for the digest what is too much, if before messages of the minute were counted before these, and reports whether that begins the
// digest: it is to be written with these.
func (o Outgoing) Hold(digest Delivery, before int64) (begins bool) {
	limit := int64(o.Endpoint.DigestAbove)
	free := max(0, limit-before)
	if free >= int64(len(o.Ordinary)) {
		return false
	}
	for _, i := range o.Ordinary[free:] {
		d := &o.Deliveries[i]
		d.State, d.Digest, d.NextAt, d.Data = Held, digest.WebhookID, time.Time{}, nil
	}
	return before <= limit
}

// Validate reports every problem at once.
func (f DeliveryFilter) Validate() error {
	var errs []error
	for _, s := range f.States {
		switch s {
		case Pending, Held, Delivered, Exhausted, Disabled:
		default:
			errs = append(errs, fmt.Errorf("state: %q is not one of pending, held, delivered, exhausted, disabled", s))
		}
	}
	if f.Limit < 0 {
		errs = append(errs, fmt.Errorf("limit: %d is negative (use 0 for all)", f.Limit))
	}
	return errors.Join(errs...)
}

// Validate reports every problem at once.
func (f TryFilter) Validate() error {
	var errs []error
	switch f.Outcome {
	case "", notify.Delivered, notify.Failed, notify.Throttled, notify.Gone, notify.Exhausted:
	default:
		errs = append(errs, fmt.Errorf("outcome: %q is not one of delivered, failed, throttled, gone, exhausted", f.Outcome))
	}
	if f.Limit < 0 {
		errs = append(errs, fmt.Errorf("limit: %d is negative (use 0 for all)", f.Limit))
	}
	return errors.Join(errs...)
}

// The state and number of tries of an alert's Summary, in the SQL that all databases of ours speak: of d, its deliveries, or of g, the digest
// that holds them.
const (
	WorstState = `CASE min(CASE coalesce(g.state, d.state) WHEN 'pending' THEN 1 WHEN 'exhausted' THEN 2 WHEN 'disabled' THEN 3 ELSE 4 END)
    WHEN 1 THEN 'pending' WHEN 2 THEN 'exhausted' WHEN 3 THEN 'disabled' WHEN 4 THEN 'delivered' ELSE 'none' END`
	// AllTries counts the tries of a digest once, however many of the alert's messages it holds.
	AllTries = `coalesce(sum(tries), 0) FROM (SELECT DISTINCT coalesce(g.webhook_id, d.webhook_id) AS webhook_id, d.endpoint, coalesce(g.tries, d.tries) AS tries` + OfAlert + `) AS told`
	OfAlert  = ` FROM delivery d LEFT JOIN delivery g ON g.webhook_id = d.digest AND g.endpoint = d.endpoint
  WHERE d.alert_id = alert.id OR d.incident_id = (SELECT incident_id FROM incident_alert WHERE alert_id = alert.id)`
	// SelectRef is how the endpoint of a delivery names what it made of an earlier message about the same incident; empty if there is none.
	SelectRef = `coalesce((SELECT e.ref FROM delivery e WHERE e.incident_id = delivery.incident_id AND e.endpoint = delivery.endpoint AND e.ref IS NOT NULL ORDER BY e.created_at, e.webhook_id LIMIT 1), '')`
)
