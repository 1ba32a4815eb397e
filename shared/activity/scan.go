package activity

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Reason says why a value is no event. The texts are part of the dead letter topic's contract and of metric labels.
type Reason string

// The reasons. If several apply, the first of this list counts.
const (
	ReasonNone      Reason = ""                  // it is an event
	ReasonEmpty     Reason = "empty"             // no value, or white space only
	ReasonNotJSON   Reason = "not_json"          // refused by encoding/json
	ReasonNotObject Reason = "not_object"        // JSON, but no object
	ReasonNoUser    Reason = "no_user"           // user absent, null or ""
	ReasonBadUser   Reason = "bad_user"          // user is no number or string, is longer than 256 bytes, or its string is not valid Unicode
	ReasonNoTime    Reason = "no_time"           // every time field absent or null
	ReasonBadTime   Reason = "bad_time"          // time is neither a string that ParseTime accepts nor an integer that fits 64 bits
	ReasonTimeRange Reason = "time_out_of_range" // time before 1970 or after year 9999
	ReasonTimeAhead Reason = "time_ahead"        // time too far ahead of the broker's; set by the router, never by Scan
)

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
}

// Scanner finds the user and the event time of events. It is immutable and safe for concurrent use.
type Scanner struct {
	names   []string // the user field, then the time fields
	lengths uint64   // bit n: there is a name of n bytes; bit 63: of 63 or more
	longest int
}

// NewScanner returns a scanner for the given fields, or the error of their Validate.
func NewScanner(f Fields) (*Scanner, error) {
	if err := f.Validate(); err != nil {
		return nil, fmt.Errorf("check event fields: %w", err)
	}
	s := &Scanner{names: slices.Concat([]string{f.User}, f.Time)}
	for _, name := range s.names {
		s.lengths |= 1 << min(len(name), 63)
		s.longest = max(s.longest, len(name))
	}
	return s, nil
}

// span is where a member's value lies; the zero span means that there is none, since no value begins at 0.
type span struct{ start, end int }

// Scan validates value as a whole and returns the user and the event time, or why it is no event. It accepts as JSON
// exactly what json.Valid accepts. Of members with the same name the last one counts, as if the value were decoded
// into a map. It allocates for a user that has escapes or is not ASCII and for long names and times that have escapes,
// else nothing.
func (s *Scanner) Scan(value []byte) (Mark, Reason) {
	i := skipSpace(value, 0)
	if i == len(value) {
		return Mark{}, ReasonEmpty
	}
	var found [1 + maxTimeFields]span // by index of s.names
	object := value[i] == '{'
	if object {
		i = s.members(value, i+1, &found)
	} else {
		i = skipValue(value, i, 0)
	}
	switch {
	case i < 0 || skipSpace(value, i) != len(value):
		return Mark{}, ReasonNotJSON
	case !object:
		return Mark{}, ReasonNotObject
	}

	user, reason := userToken(value[found[0].start:found[0].end])
	if reason != ReasonNone {
		return Mark{}, reason
	}
	for _, at := range found[1:len(s.names)] {
		if token := value[at.start:at.end]; !absent(token) {
			ms, reason := eventTime(token)
			if reason != ReasonNone {
				return Mark{}, reason
			}
			return Mark{User: user, TimeMS: ms}, ReasonNone
		}
	}
	return Mark{}, ReasonNoTime
}

// members skips the rest of the top-level object, whose opening brace is the byte before i, and notes where the values
// of the scanner's fields lie.
func (s *Scanner) members(b []byte, i int, found *[1 + maxTimeFields]span) int {
	i = skipSpace(b, i)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	for {
		if i >= len(b) || b[i] != '"' {
			return -1
		}
		name := i + 1
		end, escaped := skipString(b, name)
		if end < 0 {
			return -1
		}
		value := skipColon(b, end)
		if value < 0 {
			return -1
		}
		if i = skipValue(b, value, 1); i < 0 {
			return -1
		}
		if field := s.field(b[name:end-1], escaped); field >= 0 {
			found[field] = span{value, i}
		}
		i = skipSpace(b, i)
		if i >= len(b) {
			return -1
		}
		switch b[i] {
		case ',':
			i = skipSpace(b, i+1)
		case '}':
			return i + 1
		default:
			return -1
		}
	}
}

// field returns the index in s.names of the name that is written like this, or -1.
func (s *Scanner) field(inside []byte, escaped bool) int {
	if escaped {
		return s.escapedField(inside)
	}
	// Invalid UTF-8 needs no care: it would decode to U+FFFD, which no field's name contains.
	if s.lengths>>min(len(inside), 63)&1 != 0 {
		for i, name := range s.names {
			if string(inside) == name {
				return i
			}
		}
	}
	return -1
}

func (s *Scanner) escapedField(inside []byte) int {
	if len(inside) > len(`\u0000`)*s.longest { // the longest way to write a byte
		return -1
	}
	var room [64]byte
	name, _ := appendUnquoted(room[:0], inside)
	return s.field(name, false)
}

// absent tells whether a member is missing, which null means too.
func absent(token []byte) bool {
	return len(token) == 0 || token[0] == 'n'
}

// userToken returns the canonical form of the user's JSON token.
func userToken(token []byte) ([]byte, Reason) {
	switch {
	case absent(token) || string(token) == `""`:
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

// plain tells whether a JSON string is ASCII without escapes, and so in canonical form already.
func plain(token []byte) bool {
	for _, c := range token {
		if c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// eventTime returns the epoch milliseconds that a JSON token stands for.
func eventTime(token []byte) (int64, Reason) {
	var ms int64
	var ok bool
	switch c := token[0]; {
	case c == '"':
		inside := token[1 : len(token)-1]
		ms, ok = ParseTime(inside)
		if !ok && bytes.IndexByte(inside, '\\') >= 0 {
			var room [64]byte
			text, _ := appendUnquoted(room[:0], inside)
			ms, ok = ParseTime(text)
		}
	case (c == '-' || c-'0' <= 9) && len(token) <= len("-9223372036854775808"):
		n, err := strconv.ParseInt(string(token), 10, 64)
		ms, ok = n, err == nil
	}
	switch {
	case !ok:
		return 0, ReasonBadTime
	case ms < 0 || ms > maxTimeMS:
		return 0, ReasonTimeRange
	}
	return ms, ReasonNone
}
