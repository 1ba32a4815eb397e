package cases

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"spate/shared/activity"
	"spate/shared/rule"
	"spate/shared/rule/syntax"
	"spate/shared/window"
)

// source is an entry of a list of events, or a row of a file: one event, or several that differ by their number.
type source struct {
	repeat   int
	numbered bool  // # is the number of the event
	ms       int64 // of the first
	everyMS  int64
	part     int32
	tokens   [][]byte // JSON by input; nil is NULL
}

// all are the events of the case, in order.
func (c *Case) all() iter.Seq[*window.Event] {
	return func(yield func(*window.Event) bool) {
		inputs := c.set.Inputs
		e := window.Event{Values: make([]rule.Value, len(inputs))}
		var room []byte
		for _, s := range c.events {
			for k := range s.repeat {
				e.MS, e.Partition = s.ms+int64(k)*s.everyMS, s.part
				room = room[:0]
				for i, in := range inputs {
					token := s.tokens[i]
					if s.numbered {
						token = numbered(token, k+1)
					}
					switch {
					case in.Time:
						e.Values[i] = rule.TimeValue(e.MS, 0)
					case activity.Absent(token):
						e.Values[i] = rule.Value{}
					case in.Type.Kind == rule.Token:
						e.Values[i] = rule.TokenValue(token)
					default:
						e.Values[i], room = rule.FromJSON(in.Type, token, room)
					}
				}
				if !yield(&e) {
					return
				}
				e.Offset++
			}
		}
	}
}

// numbered puts the number of an event in place of each # of a text; "#" alone becomes a number.
func numbered(token []byte, n int) []byte {
	switch {
	case len(token) == 0 || token[0] != '"':
		return token
	case string(token) == `"#"`:
		return strconv.AppendInt(nil, int64(n), 10)
	}
	return []byte(strings.ReplaceAll(string(token), "#", strconv.Itoa(n)))
}

// events reads the events of a case.
func (l *loader) events(c *Case, m map[string]*yaml.Node) {
	switch {
	case m["events"] != nil:
		l.inline(c, m["events"])
	case m["csv"] != nil:
		n := m["csv"]
		if line, err := l.csv(c, l.text(n)); err != nil {
			at := *n
			if n.Style&yaml.LiteralStyle != 0 { // its text begins in the next line
				at.Line, at.Column = n.Line+line, 1
			}
			l.fail(&at, "", "%v", err)
		}
	default:
		path := l.beside(l.text(m["file"]))
		text, ok := l.read(m["file"], path, maxEventsFile, "")
		if !ok {
			return
		}
		if line, err := l.csv(c, text); err != nil {
			at := 0
			for range line - 1 {
				at += strings.IndexByte(text[at:], '\n') + 1
			}
			l.others = append(l.others, Source{path, text, syntax.Errors{{Pos: syntax.Pos(at), Message: err.Error()}}})
		}
	}
}

// clocks are the names of the event time, the first that an event has counts.
func clocks(set *rule.Set) []string {
	_, clock, _ := set.Stream() // it was asked before
	if times := activity.DefaultFields().Time; clock == "" || slices.Contains(times, clock) {
		return times
	}
	return []string{clock}
}

// inline reads a list of events.
func (l *loader) inline(c *Case, list *yaml.Node) {
	var columns []string
	for _, r := range c.set.Rules {
		for _, col := range r.Table.Columns {
			if !slices.Contains(columns, col.Name) {
				columns = append(columns, col.Name)
			}
		}
	}
	known := append(append([]string{}, columns...), "repeat", "every", "partition")
	times := clocks(c.set)
	last, begun, total := int64(0), false, 0
	for _, n := range l.list(list, "events") {
		m := l.mapping(n, "an event", known...)
		if m == nil {
			continue
		}
		s := source{repeat: 1, tokens: make([][]byte, len(c.set.Inputs))}
		if r := m["repeat"]; r != nil {
			s.repeat, s.numbered = l.number(r, "repeat", 1, maxEvents), true
		}
		if total += s.repeat; total > maxEvents {
			l.fail(n, "", "a case can have at most %d events", maxEvents)
			return
		}
		if p := m["partition"]; p != nil {
			s.part = int32(l.number(p, "partition", 0, c.partitions-1))
		}
		if e := m["every"]; e != nil {
			d, err := time.ParseDuration(l.text(e))
			if err != nil || d%time.Millisecond != 0 || d.Abs() > 24*time.Hour {
				l.fail(e, "write, for example, 1s or 250ms", "the value of every must be a duration in whole milliseconds, at most 24h")
			}
			s.everyMS = d.Milliseconds()
		}
		var clock *yaml.Node
		for _, name := range times {
			if clock == nil {
				clock = m[name]
			}
		}
		switch {
		case clock != nil:
			ms, reason := activity.TimeAuto.Instant(orNull(tokenOf(clock)))
			if reason != activity.ReasonNone {
				l.fail(clock, `write "2024-01-01 00:00:00"`, "%q is not a time", clock.Value)
			}
			s.ms = ms
		case !begun:
			l.fail(n, "", "the first event needs a time: %s", times[0])
		default:
			s.ms = last + s.everyMS
		}
		for i, in := range c.set.Inputs {
			s.tokens[i] = at(m, in.Path)
			if in.Type.Kind != rule.Token {
				continue
			}
			user, reason := activity.CanonicalUser(s.tokens[i])
			if reason != activity.ReasonNone {
				l.fail(n, "", "the event has no valid %s, so it would not be counted: %s", in.Name(), reason)
			}
			s.tokens[i] = user
		}
		last, begun = s.ms+int64(s.repeat-1)*s.everyMS, true
		c.events = append(c.events, s)
	}
}

func orNull(token []byte) []byte {
	if len(token) == 0 {
		return []byte("null")
	}
	return token
}

// at is the value at a path of members; nil if there is none.
func at(m map[string]*yaml.Node, path []string) []byte {
	n := m[path[0]]
	for _, name := range path[1:] {
		if n == nil || n.Kind != yaml.MappingNode {
			return nil
		}
		var inside *yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				inside = resolve(n.Content[i+1])
			}
		}
		n = inside
	}
	if n == nil {
		return nil
	}
	return tokenOf(n)
}

// csv reads events from CSV. An empty field is NULL. The line of an error counts from 1.
func (l *loader) csv(c *Case, text string) (line int, err error) {
	r := csv.NewReader(strings.NewReader(text))
	header, err := r.Read()
	if err != nil {
		return 1, errors.New("the CSV has no header line with column names")
	}
	header = slices.Clone(header)
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	clock := -1
	for _, name := range clocks(c.set) {
		if clock < 0 {
			clock = slices.Index(header, name)
		}
	}
	if clock < 0 {
		return 1, fmt.Errorf("the CSV has no column with the event time (%s)", strings.Join(clocks(c.set), " or "))
	}
	partition := -1
	if c.partitions > 1 { // else it is a column of their own, if any
		partition = slices.Index(header, "partition")
	}
	from := make([]int, len(c.set.Inputs))
	for i, in := range c.set.Inputs {
		from[i] = slices.Index(header, in.Name())
	}
	r.ReuseRecord = true
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return 0, nil
		}
		if p := (*csv.ParseError)(nil); errors.As(err, &p) {
			return p.Line, p.Err
		}
		line, _ = r.FieldPos(0)
		s := source{repeat: 1, tokens: make([][]byte, len(from))}
		ms, reason := activity.TimeAuto.Parse([]byte(row[clock]), true)
		if reason != activity.ReasonNone {
			return line, fmt.Errorf("%q is not a time", row[clock])
		}
		s.ms = ms
		if partition >= 0 {
			p, err := strconv.ParseInt(row[partition], 10, 32)
			if err != nil || p < 0 || p >= int64(c.partitions) || p > math.MaxInt32 {
				return line, fmt.Errorf("partition %q is not a whole number below %d", row[partition], c.partitions)
			}
			s.part = int32(p)
		}
		for i, in := range c.set.Inputs {
			field := ""
			if from[i] >= 0 {
				field = row[from[i]]
			}
			switch {
			case in.Type.Kind == rule.Token:
				user, reason := activity.CanonicalUser([]byte(activity.UserToken(field)[0]))
				if reason != activity.ReasonNone {
					return line, fmt.Errorf("the event has no valid %s, so it would not be counted: %s", in.Name(), reason)
				}
				s.tokens[i] = slices.Clone(user)
			case field != "":
				s.tokens[i] = activity.AppendString(nil, field)
			}
		}
		c.events = append(c.events, s)
	}
}
