// Package decision defines the decision: what a shop's own code is to do with an account, an address or another key, and until when. Alerts of rules
// with the directive decision make decisions; people can make them, too. A topic keeps the newest decision of each rule about each key, so a reader of the
// topic has all decisions in force.
package decision

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"spate/shared/alert"
)

// Decision is the decision of one rule, or of a person, about one value of a scope.
type Decision struct {
	Scope string `json:"scope"` // what Value is: username, ip, ...
	Value string `json:"value"`
	Level string `json:"level"` // what to do: challenge, block, ...
	// Rule is the rule that made the decision; empty if a person made it.
	Rule     string    `json:"rule,omitempty"`
	Until    time.Time `json:"until"`
	Since    time.Time `json:"since"` // when it was made, or last prolonged
	Incident string    `json:"incident,omitempty"`
	Alert    string    `json:"alert,omitempty"`
	Author   string    `json:"author,omitempty"`
	Reason   string    `json:"reason,omitempty"`
}

// Written is a decision, or the end of one, in a log that is ordered by the time of writing.
type Written struct {
	Decision // of an end, Since is when it was made
	Ended    bool
	// Sort is its place in the log, which no other has: a decimal number. WrittenAt is the time in it, by the clock of whoever wrote it.
	Sort      string
	WrittenAt time.Time
}

// Bounds of a decision, and its scope if it is about a user.
const (
	MinFor = time.Second
	MaxFor = 31 * 24 * time.Hour
	// maxText bounds each text, in bytes.
	maxText = 2000
	// ScopeUser is the scope of users, as CrowdSec calls it.
	ScopeUser = "username"
)

var levelForm = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)

// IsLevel reports whether a text can be a level.
func IsLevel(text string) bool { return levelForm.MatchString(text) }

// Of returns the decision that an alert makes at a time, and whether it makes one: alerts of rules in shadow, and of rules without a key, make none.
func Of(r *alert.Record, at time.Time, incident string) (Decision, bool) {
	if r.Decision == nil || r.Mode == alert.Shadow {
		return Decision{}, false
	}
	scope, value, ok := About(r)
	if !ok {
		return Decision{}, false
	}
	at = time.UnixMilli(at.UnixMilli()).UTC()
	return Decision{
		Scope: scope, Value: value, Level: r.Decision.Level, Rule: r.Rule, Until: at.Add(time.Duration(r.Decision.ForMS) * time.Millisecond), Since: at,
		Incident: incident, Alert: r.ID, Reason: r.Summary,
	}, true
}

// About returns the scope and value of an alert's key. For one column, these are its name (username for user_id) and its value; for several columns, their
// names separated by commas, and the JSON array of their values.
func About(r *alert.Record) (scope, value string, ok bool) {
	if r.IsUser() {
		return ScopeUser, r.KeyText(), true
	}
	names, err := alert.KeyNames(r.Key)
	if err != nil || len(names) == 0 {
		return "", "", false
	}
	return ScopeOf(names), r.KeyText(), true
}

// ScopeOf returns the scope of a key with these columns.
func ScopeOf(names []string) string {
	if len(names) == 1 && names[0] == "user_id" {
		return ScopeUser
	}
	return strings.Join(names, ",")
}

// Key returns the key of the decision's record in the topic.
func (d Decision) Key() []byte {
	b, _ := marshal([]string{d.Scope, d.Value, d.Rule}) // texts are always encoded
	return b
}

// ID returns a number derived from scope, value and rule, for clients that need a numeric id.
func (d Decision) ID() int64 {
	id := uint64(14695981039346656037) // FNV-1a
	for _, text := range [...]string{d.Scope, d.Value, d.Rule} {
		for i := range len(text) {
			id = (id ^ uint64(text[i])) * 1099511628211
		}
		id *= 1099511628211 // a zero byte between them
	}
	return int64(id >> 1)
}

// Active reports whether the decision is in force at a time.
func (d Decision) Active(now time.Time) bool { return now.Before(d.Until) }

// Encode returns the decision as it is written to the topic.
func (d Decision) Encode() ([]byte, error) { return marshal(d) }

// marshal is json.Marshal without HTML escapes.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode decision: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Parse decodes a record of the topic. A record without a value ends the decision with the key; end reports that.
func Parse(key, value []byte) (d Decision, end bool, err error) {
	var of []string
	if err := json.Unmarshal(key, &of); err != nil || len(of) != 3 {
		return d, false, fmt.Errorf("decode decision: the key %.100q is not [scope, value, rule]", key)
	}
	if len(value) == 0 {
		return Decision{Scope: of[0], Value: of[1], Rule: of[2]}, true, nil
	}
	if err := json.Unmarshal(value, &d); err != nil {
		return d, false, fmt.Errorf("decode decision: %.200s", err.Error())
	}
	if d.Scope != of[0] || d.Value != of[1] || d.Rule != of[2] {
		return d, false, fmt.Errorf("check decision: it is about %.100q, but has the key %.100q", d.Key(), key)
	}
	return d, false, d.Validate()
}

// Validate reports every problem at once.
func (d Decision) Validate() error {
	var errs []error
	if d.Scope == "" {
		errs = append(errs, errors.New("scope: missing; use username for users, or the name of a rule's key column, such as ip"))
	}
	if d.Value == "" {
		errs = append(errs, errors.New("value: missing"))
	}
	if !IsLevel(d.Level) {
		errs = append(errs, fmt.Errorf("level: %.80q is not a valid level; use a lower-case letter followed by up to 62 lower-case letters, digits, dashes or underscores (for example, challenge)", d.Level))
	}
	if d.Rule != "" && !alert.IsRule(d.Rule) {
		errs = append(errs, fmt.Errorf("rule: %.80q is not a valid rule name", d.Rule))
	}
	for name, text := range map[string]string{"scope": d.Scope, "value": d.Value, "author": d.Author, "reason": d.Reason} {
		if len(text) > maxText || !utf8.ValidString(text) {
			errs = append(errs, fmt.Errorf("%s: %.40q is longer than %d bytes or is not UTF-8", name, text, maxText))
		}
	}
	if f := d.Until.Sub(d.Since); f < MinFor || f > MaxFor {
		errs = append(errs, fmt.Errorf("for: %v is not between %v and %v", f, MinFor, MaxFor))
	}
	return errors.Join(errs...)
}
