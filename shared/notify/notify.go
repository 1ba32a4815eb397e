// Package notify is the port to the endpoints that are notified of alerts. It defines messages, which endpoint gets which message, the
// possible outcomes of a try, and when the next try is due. The adapters are in subpackages. Recording tries, and making sure that none is
// lost, is left to the store and the alerter.
package notify

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"spate/shared/alert"
)

// The types of messages.
const (
	TypeOpened = "alert.opened"
	TypeRaised = "alert.raised"
	TypeClosed = "alert.closed"
	TypeDigest = "alert.digest"  // many alerts in one message: flood control
	TypeTest   = "endpoint.test" // somebody tries out an endpoint; no alert
)

// Message is what an endpoint is told.
type Message struct {
	// ID is the message's identity: the same on every try and for every endpoint, so whoever gets it twice can tell.
	ID   string
	Type string
	// At is when what the message tells happened. It does not change from try to try.
	At   time.Time
	Data json.RawMessage
}

// IDOf is the identity of the message about a record: the alert's id and what became of it. It has no dot, which separates what
// Standard Webhooks sign.
func IDOf(r alert.Record) string { return r.ID + "_" + string(r.State) }

// TypeOf is the type of the message about a record.
func TypeOf(r alert.Record) string { return "alert." + string(r.State) }

// ErrUnsendable: a message is at fault, not an endpoint. It cannot be made into a request, now or ever.
var ErrUnsendable = errors.New("message cannot be sent")

// Notifier tells one endpoint. It is safe for concurrent use.
type Notifier interface {
	// Check returns nil if m can be made into a request, and else why not, as an error that wraps ErrUnsendable and has no secret in it.
	// It does no I/O: whoever has many messages finds out before one of them waits for its turn at the endpoint.
	Check(m Message) error

	// Notify tries once, within a time that the adapter bounds. Whatever happens is a Result, never a panic; what it says has no
	// secret in it. If ctx ends first, the outcome is Failed, and the endpoint may have got the message.
	Notify(ctx context.Context, m Message) Result
}

// Outcome is what a try came to.
type Outcome string

// The outcomes.
const (
	Delivered Outcome = "delivered" // the endpoint has it
	Failed    Outcome = "failed"    // the next try is due by the schedule
	Throttled Outcome = "throttled" // the endpoint says when to come again
	Gone      Outcome = "gone"      // the endpoint wants no more messages, ever
	Exhausted Outcome = "exhausted" // it failed, and was the last try
	// Unsendable says nothing about the endpoint: the message cannot become a request. It is not tried again, as if it were Exhausted.
	Unsendable Outcome = "unsendable"
)

// Result of a try.
type Result struct {
	Outcome Outcome // Delivered, Failed, Throttled, Gone or Unsendable
	// Status is the endpoint's answer, an HTTP status; 0 means no answer.
	Status int
	// After is how long the endpoint wants to be left alone. It is set with Throttled only.
	After time.Duration
	// Reason says in a few words why it is not Delivered.
	Reason string
}

// Step returns what a result comes to for a message with tries before it, of which counted went by the schedule, and when the next
// try is due; the time is zero if there is none. first is when the message came to be, now is after the try. key spreads the tries of
// many messages: the same one always gives the same times.
func Step(r Result, counted int, first, now time.Time, key string) (Outcome, time.Time) {
	switch r.Outcome {
	case Delivered, Gone:
		return r.Outcome, time.Time{}
	case Unsendable:
		return Exhausted, time.Time{}
	case Throttled:
		// A promise to take it later costs no try, but is not believed for ever, and less and less.
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
