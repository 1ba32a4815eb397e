package activity

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxTimeFields bounds Fields.Time.
const maxTimeFields = 8

// Fields names the top-level JSON members that hold the user and the event time. Names are case-sensitive.
type Fields struct {
	User string
	Time []string // alternatives: the first one that is present and not null counts. 1 to 8
}

// DefaultFields returns the names of Event's JSON form: the transaction time if there is one, else the event time.
func DefaultFields() Fields {
	return Fields{User: "user_id", Time: []string{"txn_timestamp", "event_time"}}
}

// Validate reports every problem at once: names that are empty, given twice or could never match (a decoded JSON name
// is valid UTF-8, and U+FFFD in it stands for whatever was not), no time field or more than 8.
func (f Fields) Validate() error {
	var problems []error
	problem := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf(format, args...))
	}
	name := func(setting, name string) {
		switch {
		case name == "":
			problem("%s is empty", setting)
		case !utf8.ValidString(name) || strings.ContainsRune(name, utf8.RuneError):
			problem("%s %q is not valid UTF-8 or contains U+FFFD", setting, name)
		}
	}
	name("user field", f.User)
	if n := len(f.Time); n < 1 || n > maxTimeFields {
		problem("time field: %d names given, want 1 to %d", n, maxTimeFields)
	}
	for i, t := range f.Time {
		name(fmt.Sprintf("time field %d", i+1), t)
		switch {
		case t == "":
		case t == f.User:
			problem("time field %d %q is the user field too", i+1, t)
		case slices.Contains(f.Time[:i], t):
			problem("time field %d %q is given twice", i+1, t)
		}
	}
	return errors.Join(problems...)
}
