package format

import (
	"bytes"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
)

// layout says where the fields of events lie in an envelope.
type layout struct {
	paths             [][]string // in the value
	users, times, ids []source   // the alternatives, in their order
	columns           []source   // what rules read

	finder   *activity.Finder
	programs map[int]*program // by the id of their schema
}

// source is where an alternative is: at a path, or in a header.
type source struct {
	path   int
	header string              // if it is not at a path
	format activity.TimeFormat // of a time
}

// value is what was found at a path.
type value struct {
	token []byte              // as JSON writes it; nil if it is absent
	unit  activity.TimeFormat // of a time that has one by its schema, in place of the source's format
}

// fields are what is looked for: the names that lead to each alternative.
type fields struct {
	users, times, ids [][]string
	columns           [][]string
	format            activity.TimeFormat // of the times
}

// add adds all fields, each where at puts it.
func (l *layout) add(f fields, at func(to *[]source, format activity.TimeFormat, names []string)) {
	for _, p := range f.users {
		at(&l.users, "", p)
	}
	for _, p := range f.times {
		at(&l.times, f.format, p)
	}
	for _, p := range f.ids {
		at(&l.ids, "", p)
	}
	for _, p := range f.columns {
		at(&l.columns, "", p)
	}
}

// at adds the alternative that is at a path.
func (l *layout) at(to *[]source, format activity.TimeFormat, names []string) {
	i := slices.IndexFunc(l.paths, func(p []string) bool { return slices.Equal(p, names) })
	if i < 0 {
		i = len(l.paths)
		l.paths = append(l.paths, names)
	}
	*to = append(*to, source{path: i, format: format})
}

// done ends the making of a layout.
func (l *layout) done() *layout {
	l.finder, l.programs = activity.NewFinder(l.paths), make(map[int]*program)
	return l
}

// newPlain is without an envelope.
func newPlain(f fields) *layout {
	l := &layout{}
	l.add(f, l.at)
	return l.done()
}

// choose returns the first user, the first time and the first id that are there. It may write what is in headers into buf.
func (l *layout) choose(values []value, headers []kgo.RecordHeader, buf *[]byte) (activity.Mark, activity.Reason) {
	var user []byte
	reason := activity.ReasonNoUser
	for i := range l.users {
		if user, reason = activity.CanonicalUser(l.users[i].of(values, headers, buf).token); reason != activity.ReasonNoUser {
			break
		}
	}
	if reason != activity.ReasonNone {
		return activity.Mark{}, reason
	}
	for i := range l.times {
		v := l.times[i].of(values, headers, buf)
		if activity.Absent(v.token) {
			continue
		}
		unit := v.unit
		if unit == "" {
			unit = l.times[i].format
		}
		ms, reason := unit.Instant(v.token)
		if reason != activity.ReasonNone {
			return activity.Mark{}, reason
		}
		mark := activity.Mark{User: user, TimeMS: ms}
		for _, s := range l.ids {
			if id, reason := activity.CanonicalUser(s.of(values, headers, buf).token); reason == activity.ReasonNone {
				mark.ID = id
				break
			}
		}
		return mark, activity.ReasonNone
	}
	return activity.Mark{}, activity.ReasonNoTime
}

// of returns what an alternative holds.
func (s *source) of(values []value, headers []kgo.RecordHeader, buf *[]byte) (v value) {
	if s.header == "" {
		return values[s.path]
	}
	for _, h := range headers {
		if h.Key == s.header {
			*buf, v = textValue(*buf, h.Value)
			return v
		}
	}
	return value{}
}

// Modes of CloudEvents.
type mode int

const (
	modeNone mode = iota
	modeStructured
	modeBinary
)

// attribute is what names of CloudEvents' attributes begin with in Kafka's headers, and in the fields that are looked for.
const attribute = "ce_"

// structuredType is what the content type of structured CloudEvents begins with.
var structuredType = []byte("application/cloudevents")

// mode tells by the headers how a record is a CloudEvent.
func (r *Reader) mode(headers []kgo.RecordHeader) mode {
	m := modeNone
	if r.format == CloudEvents {
		m = modeStructured // senders without headers have no other way
	}
	for _, h := range headers {
		switch {
		case h.Key == attribute+"specversion":
			m = modeBinary
		case len(h.Value) >= len(structuredType) && strings.EqualFold(h.Key, "content-type") && bytes.EqualFold(h.Value[:len(structuredType)], structuredType):
			return modeStructured
		}
	}
	return m
}

// newBinary is that of CloudEvents whose value is the data, and whose attributes are headers. The time may be an attribute.
func newBinary(f fields) *layout {
	l := &layout{}
	at := func(to *[]source, format activity.TimeFormat, path []string) {
		if name, ok := isAttribute(path); ok {
			*to = append(*to, source{header: attribute + name, format: format})
		} else {
			l.at(to, format, path)
		}
	}
	l.add(f, at)
	at(&l.times, activity.TimeRFC3339, []string{attribute + "time"})
	return l.done()
}

// newStructured is that of CloudEvents whose value has the attributes, and the data as the member data.
func newStructured(f fields) *layout {
	l := &layout{}
	at := func(to *[]source, format activity.TimeFormat, path []string) {
		if name, ok := isAttribute(path); ok {
			l.at(to, format, []string{name})
		} else {
			l.at(to, format, slices.Concat([]string{"data"}, path))
		}
	}
	l.add(f, at)
	at(&l.times, activity.TimeRFC3339, []string{attribute + "time"})
	return l.done()
}

// isAttribute returns the name of the attribute that a path leads to.
func isAttribute(path []string) (string, bool) {
	if len(path) != 1 {
		return "", false
	}
	return strings.CutPrefix(path[0], attribute)
}
