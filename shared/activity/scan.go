package activity

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// Reason says why a value is not an event. The texts are part of the dead letter topic's contract and of metric labels.
type Reason string

// The reasons. If several apply, the first of this list counts.
const (
	ReasonNone      Reason = ""                  // it is an event
	ReasonEmpty     Reason = "empty"             // no value, or white space only
	ReasonNotJSON   Reason = "not_json"          // refused by encoding/json
	ReasonNotObject Reason = "not_object"        // JSON, but no object
	ReasonNoUser    Reason = "no_user"           // every user field absent, null or ""
	ReasonBadUser   Reason = "bad_user"          // user is not a number or string, is longer than 256 bytes, or its string is not valid Unicode
	ReasonNoTime    Reason = "no_time"           // every time field absent or null
	ReasonBadTime   Reason = "bad_time"          // time is not written as TimeFormat says, or auto cannot determine its unit or format
	ReasonTimeRange Reason = "time_out_of_range" // time before 1970 or after year 9999
	ReasonTimeAhead Reason = "time_ahead"        // time too far ahead of the broker's; set by the router, never by Scan

	ReasonNoSchema    Reason = "no_schema"    // the schema that the value names is unknown or cannot be used; set by package format
	ReasonBadEncoding Reason = "bad_encoding" // the value is not encoded as its format or its schema says; set by package format
)

// What was sent on purpose and is not an event: it is skipped, and neither counted nor invalid. Package format finds it.
const (
	ReasonTombstone Reason = "tombstone"    // a record without a value, among changes of a database
	ReasonNoChange  Reason = "not_a_change" // a heartbeat, a transaction's begin or end, a change of a schema, a truncated table
	ReasonSnapshot  Reason = "snapshot"     // a row that was there before, without a time of its own
)

// Skipped reports whether r is one of what was sent on purpose.
func (r Reason) Skipped() bool {
	return r == ReasonTombstone || r == ReasonNoChange || r == ReasonSnapshot
}

const (
	maxUser   = 256             // bytes of a user token, quotes included
	maxTimeMS = 253402300799999 // 9999-12-31T23:59:59.999Z
)

// Mark is what the pipeline needs of an event.
type Mark struct {
	// User is the canonical JSON token of the user, at most 256 bytes: a number exactly as it was written, or a
	// string, quotes included, in the form that encoding/json writes without HTML escapes. It aliases the scanned
	// value whenever that has this form already, so it lives only as long as the value's bytes do.
	User []byte
	// TimeMS is the event time in epoch milliseconds, 0 to the end of year 9999.
	TimeMS int64
	// ID tells the event from all others, in the form of a user's token; nil if it has none, or none is looked for. Scan sets none.
	ID []byte
}

// Scanner finds the user and the event time of events. It is immutable and safe for concurrent use.
type Scanner struct {
	find   *Finder
	users  int // of the fields, the first ones; the others are times
	fields int
	format TimeFormat
	paths  []string // of the fields
}

// NewScanner returns a scanner for the given fields, or the error of their Validate.
func NewScanner(f Fields) (*Scanner, error) {
	if err := f.Validate(); err != nil {
		return nil, fmt.Errorf("check event fields: %w", err)
	}
	s := &Scanner{users: len(f.User), fields: len(f.User) + len(f.Time), format: f.TimeFormat}
	s.paths = slices.Concat(f.User, f.Time)
	paths := make([][]string, len(s.paths))
	for i, path := range s.paths {
		names, err := Path(path)
		if err != nil {
			return nil, fmt.Errorf("check event fields: %w", err)
		}
		paths[i] = names
	}
	s.find = NewFinder(paths)
	return s, nil
}

// Scan validates value as a whole and returns the user and the event time, or why it is not an event. It accepts as JSON
// exactly what json.Valid accepts. Of members with the same name the last one counts, as if the value were decoded
// into a map. It allocates for a user that has escapes or is not ASCII and for long names and times that have escapes,
// else nothing.
func (s *Scanner) Scan(value []byte) (Mark, Reason) {
	var found places
	mark, _, reason := s.scan(value, found[:s.fields])
	return mark, reason
}

// places are those of the fields, by their index.
type places [2 * maxAlternatives]Place

// Locate is Scan, and tells where the time lies. It tells the user of an event without a time, too.
func (s *Scanner) Locate(value []byte) (Mark, Place, Reason) {
	var found places
	mark, at, reason := s.scan(value, found[:s.fields])
	if mark.User == nil {
		for _, u := range found[:s.users] {
			if user, r := CanonicalUser(value[u.Start:u.End]); r == ReasonNone {
				mark.User = user
				break
			}
		}
	}
	return mark, at, reason
}

func (s *Scanner) scan(value []byte, found []Place) (Mark, Place, Reason) {
	if reason := s.find.Find(value, found); reason != ReasonNone {
		return Mark{}, Place{}, reason
	}
	var user []byte
	reason := ReasonNoUser
	for _, at := range found[:s.users] {
		if user, reason = CanonicalUser(value[at.Start:at.End]); reason != ReasonNoUser {
			break
		}
	}
	if reason != ReasonNone {
		return Mark{}, Place{}, reason
	}
	for _, at := range found[s.users:] {
		if token := value[at.Start:at.End]; !Absent(token) {
			ms, reason := s.format.Instant(token)
			if reason != ReasonNone {
				return Mark{}, at, reason
			}
			return Mark{User: user, TimeMS: ms}, at, ReasonNone
		}
	}
	return Mark{}, Place{}, ReasonNoTime
}

// Absent reports whether a member is missing, which null means too.
func Absent(token []byte) bool {
	return len(token) == 0 || token[0] == 'n'
}

// CanonicalUser returns the canonical form of the user's JSON token (see [Mark]), or why it is not a user.
func CanonicalUser(token []byte) ([]byte, Reason) {
	switch {
	case Absent(token) || string(token) == `""`:
		return nil, ReasonNoUser
	case len(token) > len(`\u0000`)*maxUser: // too long however it is written
		return nil, ReasonBadUser
	case token[0] == '"':
		if !plain(token) {
			text, exact := appendUnquoted(nil, token[1:len(token)-1])
			if !exact {
				return nil, ReasonBadUser
			}
			token = appendQuoted(nil, text)
		}
	case token[0] != '-' && token[0]-'0' > 9:
		return nil, ReasonBadUser
	}
	if len(token) > maxUser {
		return nil, ReasonBadUser
	}
	return token, ReasonNone
}

// plain reports whether a JSON string is ASCII without escapes, and so in canonical form already.
func plain(token []byte) bool {
	for _, c := range token {
		if c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
