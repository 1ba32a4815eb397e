// Package notify is the port to the endpoints that are notified of incidents or alerts. It defines messages, which endpoint gets which message, the
// possible outcomes of a try, and when the next try is due. The adapters are in subpackages. The store and the alerter record tries and make sure that
// none is lost.
package notify

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"spate/shared/alert"
	"spate/shared/incident"
)

// The types of messages. Messages about incidents are for people, messages about alerts for programs.
const (
	TypeIncidentOpened    = "incident.opened"
	TypeIncidentEscalated = "incident.escalated"
	TypeIncidentResolved  = "incident.resolved"
	TypeIncidentDigest    = "incident.digest" // many of the above in one message: flood control

	TypeOpened = "alert.opened"
	TypeRaised = "alert.raised"
	TypeClosed = "alert.closed"
	TypeDigest = "alert.digest"

	TypeTest = "endpoint.test" // a test of an endpoint; not about an incident
)

// Rank orders the messages about one incident; it is 0 for other types.
func Rank(messageType string) int {
	return 1 + slices.Index([]string{TypeIncidentOpened, TypeIncidentEscalated, TypeIncidentResolved}, messageType)
}

// IsDigest reports whether messages of a type are digests.
func IsDigest(messageType string) bool {
	return messageType == TypeDigest || messageType == TypeIncidentDigest
}

// Message is sent to endpoints.
type Message struct {
	// ID identifies the message. It is the same on every try and for every endpoint, so a receiver can detect repetitions.
	ID   string
	Type string
	// At is when the reported change happened. It is the same on every try.
	At time.Time
	// Data is a JSON object: an incident, an alert, a [Digest], or the text of a test.
	Data json.RawMessage
	// Ref is the [Result.Ref] of an earlier message about the same incident, for endpoints that can edit what they show; empty if there is none.
	Ref string
}

// IDOf returns the id of the message about a record: the alert's id and its state. It contains no dot, because a dot separates the parts that
// Standard Webhooks sign.
func IDOf(r alert.Record) string { return r.ID + "_" + string(r.State) }

// TypeOf returns the type of the message about a record.
func TypeOf(r alert.Record) string { return "alert." + string(r.State) }

// TypeOfEvent returns the type of the message about a transition of an incident. The message's id is the event's.
func TypeOfEvent(e incident.Event) string { return "incident." + string(e.Transition) }

// NewTest returns a message that tests an endpoint. Each one has an id of its own.
func NewTest(now time.Time, endpoint string) (Message, error) {
	data, err := json.Marshal(struct {
		Endpoint string `json:"endpoint"`
		Text     string `json:"text"`
	}{endpoint, "test message from spate: the endpoint works; this is not an alert"})
	return Message{ID: "test_" + strings.ToLower(rand.Text()), Type: TypeTest, At: now, Data: data}, err
}

// ErrUnsendable means that a message, not an endpoint, is at fault: it can never become a request.
var ErrUnsendable = errors.New("message cannot be sent")

// Notifier sends messages to one endpoint. It is safe for concurrent use.
type Notifier interface {
	// Check returns nil if m can become a request, and otherwise an error that wraps ErrUnsendable, says why not, and contains no secret.
	// Check does no I/O, so an unsendable message is found before it waits for its turn at the endpoint.
	Check(m Message) error

	// Notify tries once, within a time that the adapter bounds. It always returns a Result and never panics; the Result contains no
	// secret. If ctx ends first, the outcome is Failed, and the endpoint may have received the message.
	Notify(ctx context.Context, m Message) Result
}

// Renewer is a Notifier whose endpoint considers an incident resolved if it receives nothing about it for a while.
type Renewer interface {
	// Renew sends the current state of incidents in one try: those that are open, and those that have ended since they were last renewed, so that
	// a renewal that overtook the message about the end does not leave an incident open.
	Renew(ctx context.Context, ms []Message) Result
}

// RenewEvery is the interval of renewals ([Renewer]).
const RenewEvery = time.Minute

// Outcome is the outcome of a try.
type Outcome string

// The outcomes.
const (
	Delivered Outcome = "delivered" // the endpoint has the message
	Failed    Outcome = "failed"    // the next try is due by the schedule
	Throttled Outcome = "throttled" // the endpoint says when to come again
	Gone      Outcome = "gone"      // the endpoint wants no more messages, ever
	Exhausted Outcome = "exhausted" // it failed, and was the last try
	// Unsendable says nothing about the endpoint: the message cannot become a request. As with Exhausted, it is not tried again.
	Unsendable Outcome = "unsendable"
)

// Result is the result of a try.
type Result struct {
	Outcome Outcome // Delivered, Failed, Throttled, Gone or Unsendable
	// Status is the endpoint's answer, an HTTP status; 0 means no answer.
	Status int
	// After is how long the endpoint asks to wait. It is set only with Throttled.
	After time.Duration
	// Reason says in a few words why the outcome is not Delivered.
	Reason string
	// Ref is the endpoint's name for the message, if later messages about the same incident need it: up to 200 bytes, no secret.
	Ref string
}

// Step returns the outcome of a message after a try with this result, and when the next try is due; the time is zero if there is none.
// counted is how many earlier tries counted towards the schedule, first is when the message was created, and now is after the try. key
// spreads the tries of many messages: the same key always gives the same times.
func Step(r Result, counted int, first, now time.Time, key string) (Outcome, time.Time) {
	switch r.Outcome {
	case Delivered, Gone:
		return r.Outcome, time.Time{}
	case Unsendable:
		return Exhausted, time.Time{}
	case Throttled:
		// A promise to accept the message later costs no try, but is believed less and less, and not forever.
		waited := now.Sub(first)
		if waited > patience {
			return Exhausted, time.Time{}
		}
		return Throttled, now.Add(min(max(r.After, waited/20), maxAfter))
	}
	wait, ok := Wait(counted+1, key)
	if !ok {
		return Exhausted, time.Time{}
	}
	return Failed, now.Add(wait)
}

// rank orders severities, the worst highest; 0 is none.
func rank(s alert.Severity) int {
	switch s {
	case alert.Warning:
		return 1
	case alert.Critical:
		return 2
	}
	return 0
}
