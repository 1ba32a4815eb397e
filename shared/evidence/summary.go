package evidence

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"spate/shared/activity"
)

// MaxFields is how many members are summed up; further ones are left out.
const MaxFields = 64

const (
	maxValues = 1000 // different ones that are remembered of a field
	maxDepth  = 4    // of objects that are looked into
	topValues = 3
	maxValue  = 256 // bytes of a value that is kept as it is
)

// Field is what the events of an alert say of one member.
type Field struct {
	Name string `json:"name"` // as in SPATE_USER_FIELD: dots lead into objects
	// Events is how many have it, Values how many different ones there are; with AtLeast there are more.
	Events  int  `json:"events"`
	Values  int  `json:"values"`
	AtLeast bool `json:"at_least,omitempty"`
	// Top are the most frequent values, as JSON, the most frequent first.
	Top []Value `json:"top"`
}

// Value is one value of a Field.
type Value struct {
	Value  json.RawMessage `json:"value"`
	Events int             `json:"events"`
}

// summary counts the values of members.
type summary struct {
	byName map[string]*values
	names  []string // in the order in which they were met
	more   bool     // there are others
}

type values struct {
	events  int
	counts  map[string]int
	atLeast bool
}

// add takes an event. What is not a JSON object says nothing.
func (s *summary) add(event []byte) {
	members(event, nil, func(path []string, value json.RawMessage) {
		name := activity.PathText(path)
		v := s.byName[name]
		if v == nil {
			if len(s.names) == MaxFields {
				s.more = true
				return
			}
			if s.byName == nil {
				s.byName = make(map[string]*values)
			}
			v = &values{counts: make(map[string]int)}
			s.byName[name], s.names = v, append(s.names, name)
		}
		v.events++
		if len(value) > maxValue {
			value = long(value)
		}
		if _, known := v.counts[string(value)]; !known && len(v.counts) == maxValues {
			v.atLeast = true
			return
		}
		v.counts[string(value)]++
	})
}

// long stands for a value that is long: its beginning, and what tells it apart from others.
func long(value []byte) json.RawMessage {
	sum := sha256.Sum256(value)
	text, err := json.Marshal(fmt.Sprintf("%s… (%d bytes, SHA-256 %x…)", strings.ToValidUTF8(string(value[1:33]), ""), len(value), sum[:4]))
	if err != nil { // a text can be encoded
		panic(err)
	}
	return text
}

func (s *summary) fields() []Field {
	out := make([]Field, 0, len(s.names))
	for _, name := range s.names {
		v := s.byName[name]
		f := Field{Name: name, Events: v.events, Values: len(v.counts), AtLeast: v.atLeast}
		for value, n := range v.counts {
			f.Top = append(f.Top, Value{json.RawMessage(value), n})
		}
		slices.SortFunc(f.Top, func(a, b Value) int { return cmp.Or(-cmp.Compare(a.Events, b.Events), bytes.Compare(a.Value, b.Value)) })
		f.Top = slices.Clip(f.Top[:min(len(f.Top), topValues)])
		out = append(out, f)
	}
	return out
}

// Fields are what some events say, by member: the first [MaxFields].
func Fields(events ...[]byte) []Field {
	var s summary
	for _, e := range events {
		s.add(e)
	}
	return s.fields()
}

// members calls f with every member of an object that holds neither an object nor an array, with the path to it, which begins with above.
func members(object []byte, above []string, f func(path []string, value json.RawMessage)) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if begin, err := dec.Token(); err != nil || begin != json.Delim('{') {
		return
	}
	for dec.More() {
		name, err := dec.Token()
		text, ok := name.(string)
		var value json.RawMessage
		if err != nil || !ok || dec.Decode(&value) != nil {
			return
		}
		path := append(slices.Clip(above), text)
		switch {
		case value[0] == '{' && len(path) < maxDepth:
			members(value, path, f)
		case value[0] != '{' && value[0] != '[':
			f(path, value)
		}
	}
}

// Values returns the members of an event that hold neither an object nor an array, by the names that [Field] has.
func Values(event []byte) map[string]json.RawMessage {
	out := make(map[string]json.RawMessage)
	members(event, nil, func(path []string, value json.RawMessage) { out[activity.PathText(path)] = value })
	return out
}
