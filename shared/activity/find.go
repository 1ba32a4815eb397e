package activity

import "slices"

// Place is where something lies in a value; the zero value is nowhere.
type Place struct{ Start, End int }

// Finder finds members of JSON objects along paths. It is immutable and safe for concurrent use.
type Finder struct {
	top *level
}

// NewFinder returns a finder for paths, each the names of the members that it leads through.
func NewFinder(paths [][]string) *Finder {
	f := &Finder{top: &level{}}
	for i, names := range paths {
		f.top.add(names, i)
	}
	return f
}

// Find validates value as a whole, and puts where the values lie in found, which has one zero Place for each path; those that are absent stay so, as no
// value begins at 0. It accepts as JSON exactly what json.Valid accepts. Of members with the same name the last one counts, as if the value were decoded
// into a map. It allocates nothing. The reason is empty, not JSON, not an object, or none.
func (f *Finder) Find(value []byte, found []Place) Reason {
	i := skipSpace(value, 0)
	if i == len(value) {
		return ReasonEmpty
	}
	object := value[i] == '{'
	if object {
		i = f.top.scan(value, i+1, 1, found)
	} else {
		i = skipValue(value, i, 0)
	}
	switch {
	case i < 0 || skipSpace(value, i) != len(value):
		return ReasonNotJSON
	case !object:
		return ReasonNotObject
	}
	return ReasonNone
}

// MaxTexts is more texts than a value may consist of: what comes in must not decide how much work one record is.
const MaxTexts = 10_000

// Texts returns what may be the events of a record, as Firehose and others put several into one: the JSON texts that value consists of, one after
// the other with white space between them or nothing, and then what follows them and is none. A value that does not begin with JSON, or has
// MaxTexts of them, is returned as it is.
func Texts(value []byte) [][]byte {
	var texts [][]byte
	for rest := value; len(texts) < MaxTexts; {
		rest = rest[skipSpace(rest, 0):]
		end := skipValue(rest, 0, 0)
		switch {
		case end < 0 && len(texts) == 0:
			return [][]byte{value}
		case end < 0 && len(rest) > 0:
			return append(texts, rest)
		case end < 0:
			return texts
		}
		texts, rest = append(texts, rest[:end]), rest[end:]
	}
	return [][]byte{value}
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

// add makes the level look for a path along names.
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

// scan skips the rest of an object at a depth, whose opening brace is the byte before i, and notes where the values of fields lie.
func (l *level) scan(b []byte, i, depth int, found []Place) int {
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
				found[f] = Place{} // of a member of the same name before
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
			found[m.field] = Place{value, i}
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
