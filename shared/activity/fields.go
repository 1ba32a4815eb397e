package activity

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxAlternatives = 8 // of Fields.User and of Fields.Time
	maxSegments     = 8 // of a path
)

// Fields says where in an event's JSON the user and the event time are. A path is the name of a top-level member, or names with a dot between them
// that lead into objects: actor.id. A dot in a name is written \., a backslash \\. Names are case-sensitive.
type Fields struct {
	User []string // alternatives: the first one that is present, not null and not "" counts. 1 to 8
	Time []string // alternatives: the first one that is present and not null counts. 1 to 8
	// TimeFormat says how times are written; empty is TimeAuto.
	TimeFormat TimeFormat
}

// TimeFormat is how times are written: one of the constants, or a layout of Go's package time, whose times are UTC unless it has a zone.
type TimeFormat string

// Formats of times.
const (
	// TimeAuto takes texts that ParseTime accepts, and numbers of milliseconds since 1970 from 1973 on. It refuses smaller numbers, which may be
	// seconds, and larger ones, which may be micro- or nanoseconds.
	TimeAuto    TimeFormat = "auto"
	TimeRFC3339 TimeFormat = "rfc3339" // texts that ParseTime accepts
	TimeS       TimeFormat = "s"       // numbers of seconds since 1970
	TimeMS      TimeFormat = "ms"
	TimeUS      TimeFormat = "us"
	TimeNS      TimeFormat = "ns"
)

// numeric reports whether the times are numbers only.
func (f TimeFormat) numeric() bool { return f == TimeS || f == TimeMS || f == TimeUS || f == TimeNS }

// layout returns the layout of package time, if it is one.
func (f TimeFormat) layout() (string, bool) {
	switch f {
	case "", TimeAuto, TimeRFC3339, TimeS, TimeMS, TimeUS, TimeNS:
		return "", false
	}
	return string(f), true
}

// Validate reports what is wrong with f.
func (f TimeFormat) Validate() error {
	layout, ok := f.layout()
	if !ok {
		return nil
	}
	// What it writes of a time it must read as that time, to the second.
	at := time.Date(2019, 12, 31, 21, 43, 57, 0, time.UTC)
	if got, err := time.Parse(layout, at.Format(layout)); err != nil || !got.Equal(at) {
		return fmt.Errorf("time format: %q is not valid; use auto, rfc3339, s, ms, us, ns, or a Go layout with a full date and time, such as 02.01.2006 15:04:05 (SPATE_TIME_FORMAT)", f)
	}
	return nil
}

// DefaultFields returns the names of Event's JSON form: the transaction time if there is one, else the event time.
func DefaultFields() Fields {
	return Fields{User: []string{"user_id"}, Time: []string{"txn_timestamp", "event_time"}}
}

// Validate reports every problem at once: paths that are empty, given twice or could never match (a decoded JSON name is valid UTF-8, and U+FFFD
// in it stands for whatever was not), none or more than 8, and a format that is none.
func (f Fields) Validate() error {
	var problems []error
	problem := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf(format, args...))
	}
	check := func(setting string, paths []string) {
		if n := len(paths); n < 1 || n > maxAlternatives {
			problem("%s field: %d names given, expected 1 to %d", setting, n, maxAlternatives)
		}
		for i, p := range paths {
			if _, err := Path(p); err != nil {
				problem("%s field %d %w", setting, i+1, err)
			} else if slices.Contains(paths[:i], p) {
				problem("%s field %d %q is a duplicate", setting, i+1, p)
			}
		}
	}
	check("user", f.User)
	check("time", f.Time)
	for i, t := range f.Time {
		if t != "" && slices.Contains(f.User, t) {
			problem("time field %d %q is also a user field", i+1, t)
		}
	}
	return errors.Join(append(problems, f.TimeFormat.Validate())...)
}

// TopLevel returns the name that a path consists of, if it leads into no object.
func TopLevel(path string) (name string, ok bool) {
	names, err := Path(path)
	if err != nil || len(names) != 1 {
		return "", false
	}
	return names[0], true
}

// Path returns the names of the members that a path leads through.
func Path(path string) ([]string, error) {
	if path == "" {
		return nil, errors.New("is empty")
	}
	if !utf8.ValidString(path) || strings.ContainsRune(path, utf8.RuneError) {
		return nil, fmt.Errorf("%q is not valid UTF-8 or contains U+FFFD", path)
	}
	var names []string
	var name strings.Builder
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\' && i+1 < len(path) && (path[i+1] == '.' || path[i+1] == '\\'):
			i++
			name.WriteByte(path[i])
		case c == '\\':
			return nil, fmt.Errorf(`%q: a backslash must be followed by a dot or a backslash`, path)
		case c == '.':
			names = append(names, name.String())
			name.Reset()
		default:
			name.WriteByte(c)
		}
	}
	names = append(names, name.String())
	if slices.Contains(names, "") {
		return nil, fmt.Errorf(`%q: a name is empty; write \. for a dot in a name`, path)
	}
	if len(names) > maxSegments {
		return nil, fmt.Errorf("%q has %d levels, but the maximum is %d", path, len(names), maxSegments)
	}
	return names, nil
}

var escapeName = strings.NewReplacer(`\`, `\\`, `.`, `\.`)

// PathText writes a path along names as the settings have it, as [Path] reads it.
func PathText(names []string) string {
	escaped := make([]string, len(names))
	for i, name := range names {
		escaped[i] = escapeName.Replace(name)
	}
	return strings.Join(escaped, ".")
}
