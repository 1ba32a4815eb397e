package notify

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"

	"spate/shared/alert"
	"spate/shared/incident"
)

// Endpoint says what a receiver is notified of, and how much at most. How it is notified is the Notifier's concern.
type Endpoint struct {
	// Name is unique and is stored with the messages, so a renamed endpoint is another endpoint. It has up to 60 lower-case letters, digits,
	// and single dashes between them.
	Name   string
	Filter Filter
	// DigestAbove is how many messages a minute are sent one by one. Messages above it that are not critical are sent in one digest at
	// the end of the minute. 0 means no limit.
	DigestAbove int
	// Rate is the maximum number of tries a second; 0 means no limit.
	Rate float64
}

// Filter chooses what an endpoint is notified of: incidents, or, if it has transitions, alerts. The zero value chooses all incidents.
type Filter struct {
	Rules       []string       // one of these; empty means any
	MinSeverity alert.Severity // this severity or a higher one; empty means any
	Transitions []alert.State  // alerts that reach one of these states; empty means incidents
}

// Alerts returns the filter that matches every alert.
func Alerts() Filter { return Filter{Transitions: alert.States()} }

var nameForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

const maxName = 60

// Validate reports every problem at once.
func (e Endpoint) Validate() error {
	var errs []error
	problem := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("endpoint %q: "+format, append([]any{e.Name}, args...)...))
	}
	if !nameForm.MatchString(e.Name) || len(e.Name) > maxName {
		problem("name: must consist of lower-case letters, digits, and single dashes between them, and have at most %d characters", maxName)
	}
	for _, r := range e.Filter.Rules {
		if !alert.IsRule(r) {
			problem("rules: %q is not a valid rule name", r)
		}
	}
	if s := e.Filter.MinSeverity; s != "" && rank(s) == 0 {
		problem("min_severity: %q is neither warning nor critical", s)
	}
	for _, s := range e.Filter.Transitions {
		if s.Rank() == 0 {
			problem("transitions: %q is not one of opened, raised, closed", s)
		}
	}
	if e.DigestAbove < 0 {
		problem("digest_above: %d is negative; use a number of messages per minute, or 0 for no limit", e.DigestAbove)
	}
	if e.Rate != 0 && !(e.Rate >= MinRate) || math.IsInf(e.Rate, 1) { // NaN is not at least anything
		problem("rate: %v attempts per second is neither 0 (no limit) nor at least %v", e.Rate, MinRate)
	}
	return errors.Join(errs...)
}

// DigestType returns the type of the endpoint's digests.
func (e Endpoint) DigestType() string {
	if len(e.Filter.Transitions) > 0 {
		return TypeDigest
	}
	return TypeIncidentDigest
}

// MinRate is the lowest rate that can be set, in tries a second.
const MinRate = 0.01

// Match reports whether the filter matches a record. Records of rules in shadow never match.
func (f Filter) Match(r alert.Record) bool {
	return slices.Contains(f.Transitions, r.State) && f.match(r.Mode, r.Rule, r.Severity)
}

// MatchEvent reports whether the filter matches a transition of an incident, by the severity in the notification. That severity only rises, so an endpoint that is notified of one
// transition is notified of all that follow.
func (f Filter) MatchEvent(e incident.Event) bool {
	return len(f.Transitions) == 0 && f.match(e.Incident.Mode, e.Incident.Rule, e.Incident.Told)
}

func (f Filter) match(mode, rule string, s alert.Severity) bool {
	return mode != alert.Shadow && (len(f.Rules) == 0 || slices.Contains(f.Rules, rule)) && rank(s) >= rank(f.MinSeverity)
}
