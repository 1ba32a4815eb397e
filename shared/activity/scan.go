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
	ReasonBadTime   Reason = "bad_time"          // time is not written as TimeFormat says, or auto cannot tell what it means
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
	top    *level
	users  int // of the fields, the first ones; the others are times
	fields int
	format TimeFormat
	paths  []string // of the fields
}

// level is what is looked for among the members of an object.
type level struct {
	names   []string
	members []member
	lengths uint64 // bit n: there is a name of n bytes; bit 63: of 63 or more
	longest int
}

// member is one that is looked for, or looked into.
type member struct {
	field int    // -1 if it is only looked into
	below *level // nil if it is not
	under []int  // the fields below
}

// NewScanner returns a scanner for the given fields, or the error of their Validate.
func NewScanner(f Fields) (*Scanner, error) {
	if err := f.Validate(); err != nil {
		return nil, fmt.Errorf("check event fields: %w", err)
	}
	s := &Scanner{top: &level{}, users: len(f.User), fields: len(f.User) + len(f.Time), format: f.TimeFormat}
	s.paths = slices.Concat(f.User, f.Time)
	for i, path := range s.paths {
		names, err := parsePath(path)
		if err != nil {
			return nil, fmt.Errorf("check event fields: %w", err)
		}
		s.top.add(names, i)
	}
	return s, nil
}

// add makes the level look for a field along names.
func (l *level) add(names []string, field int) {
	i := slices.Index(l.names, names[0])
	if i < 0 {
		i = len(l.names)
		l.names = append(l.names, names[0])
		l.members = append(l.members, member{field: -1})
		l.lengths |= 1 << min(len(names[0]), 63)
		l.longest = max(l.longest, len(names[0]))
	}
	m := &l.members[i]
	if len(names) == 1 {
		m.field = field
		return
	}
	if m.below == nil {
		m.below = &level{}
	}
	m.under = append(m.under, field)
	m.below.add(names[1:], field)
}

// span is where a member's value lies; the zero span means that there is none, since no value begins at 0.
type span struct{ start, end int }

// spans are where the fields lie, by their index.
type spans [2 * maxAlternatives]span

// Scan validates value as a whole and returns the user and the event time, or why it is not an event. It accepts as JSON
// exactly what json.Valid accepts. Of members with the same name the last one counts, as if the value were decoded
// into a map. It allocates for a user that has escapes or is not ASCII and for long names and times that have escapes,
// else nothing.
func (s *Scanner) Scan(value []byte) (Mark, Reason) {
	var found spans
	mark, _, reason := s.scan(value, &found)
	return mark, reason
}

// Place is where something lies in a value; the zero value is nowhere.
type Place struct{ Start, End int }

// Locate is Scan, and tells where the time lies. It tells the user of an event without a time, too.
func (s *Scanner) Locate(value []byte) (Mark, Place, Reason) {
	var found spans
	mark, at, reason := s.scan(value, &found)
	if mark.User == nil {
		for _, u := range found[:s.users] {
			if user, r := userToken(value[u.start:u.end]); r == ReasonNone {
				mark.User = user
				break
			}
		}
	}
	return mark, Place{at.start, at.end}, reason
}

func (s *Scanner) scan(value []byte, found *spans) (Mark, span, Reason) {
	i := skipSpace(value, 0)
	if i == len(value) {
		return Mark{}, span{}, ReasonEmpty
	}
	object := value[i] == '{'
	if object {
		i = s.top.scan(value, i+1, 1, found)
	} else {
		i = skipValue(value, i, 0)
	}
	switch {
	case i < 0 || skipSpace(value, i) != len(value):
		return Mark{}, span{}, ReasonNotJSON
	case !object:
		return Mark{}, span{}, ReasonNotObject
	}

	var user []byte
	reason := ReasonNoUser
	for _, at := range found[:s.users] {
		if user, reason = userToken(value[at.start:at.end]); reason != ReasonNoUser {
			break
		}
	}
	if reason != ReasonNone {
		return Mark{}, span{}, reason
	}
	for _, at := range found[s.users:s.fields] {
		if token := value[at.start:at.end]; !absent(token) {
			ms, reason := s.format.eventTime(token)
			if reason != ReasonNone {
				return Mark{}, at, reason
			}
			return Mark{User: user, TimeMS: ms}, at, ReasonNone
		}
	}
	return Mark{}, span{}, ReasonNoTime
}

// scan skips the rest of an object at a depth, whose opening brace is the byte before i, and notes where the values of fields lie.
func (l *level) scan(b []byte, i, depth int, found *spans) int {
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
		m := l.find(b[name:end-1], escaped)
		if m == nil || m.below == nil {
			i = skipValue(b, value, depth)
		} else {
			for _, f := range m.under {
				found[f] = span{} // of a member of the same name before
			}
			if value < len(b) && b[value] == '{' {
				i = m.below.scan(b, value+1, depth+1, found)
			} else {
				i = skipValue(b, value, depth)
			}
		}
		if i < 0 {
			return -1
		}
		if m != nil && m.field >= 0 {
			found[m.field] = span{value, i}
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

// find returns the member whose name is written like this, or nil.
func (l *level) find(inside []byte, escaped bool) *member {
	if escaped {
		return l.findEscaped(inside)
	}
	// Invalid UTF-8 needs no care: it would decode to U+FFFD, which no field's name contains.
	if l.lengths>>min(len(inside), 63)&1 != 0 {
		for i, name := range l.names {
			if string(inside) == name {
				return &l.members[i]
			}
		}
	}
	return nil
}

func (l *level) findEscaped(inside []byte) *member {
	if len(inside) > len(`\u0000`)*l.longest { // the longest way to write a byte
		return nil
	}
	var room [64]byte
	name, _ := appendUnquoted(room[:0], inside)
	return l.find(name, false)
}

// absent reports whether a member is missing, which null means too.
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

// plain reports whether a JSON string is ASCII without escapes, and so in canonical form already.
func plain(token []byte) bool {
	for _, c := range token {
		if c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
