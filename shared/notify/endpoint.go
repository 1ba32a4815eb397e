package notify

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"

	"spate/shared/alert"
)

// Endpoint says which alerts a receiver is notified of, and how many at most. How it is notified is the Notifier's concern.
type Endpoint struct {
	// Name is unique, and stays with the messages: one that is renamed is another endpoint. Lower-case letters, digits, and single
	// dashes between them, up to 60.
	Name   string
	Filter Filter
	// DigestAbove is how many messages a minute go one by one. What is above it and not critical goes together, in one message at
	// the end of the minute. 0 is any number.
	DigestAbove int
	// Rate is how many tries a second are made at most; 0 is any number.
	Rate float64
}

// Filter chooses alerts; the zero value chooses all.
type Filter struct {
	Rules       []string       // one of these; empty is any
	MinSeverity alert.Severity // this or worse; empty is any
	Transitions []alert.State  // what became of the alert is one of these; empty is any
}

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
			problem("rules: %q is not the name of a rule", r)
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
		problem("digest_above: %d messages per minute is negative (0 means no limit)", e.DigestAbove)
	}
	if e.Rate != 0 && !(e.Rate >= MinRate) || math.IsInf(e.Rate, 1) { // NaN is not at least anything
		problem("rate: %v tries per second is neither 0 (no limit) nor at least %v", e.Rate, MinRate)
	}
	return errors.Join(errs...)
}

// MinRate is the lowest rate that can be asked for, in tries a second.
const MinRate = 0.01

// Match reports whether the filter lets a record through. Nobody is notified of an alert of a rule that is in shadow.
func (f Filter) Match(r alert.Record) bool {
	return r.Mode != alert.Shadow && (len(f.Rules) == 0 || slices.Contains(f.Rules, r.Rule)) &&
		rank(r.Severity) >= rank(f.MinSeverity) &&
		(len(f.Transitions) == 0 || slices.Contains(f.Transitions, r.State))
}
