package simulator

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"spate/shared/activity"
)

// NullWords are what exports write for "nothing".
var NullWords = []string{`\N`, "NULL", "null", "NaN", "nan", "None", "<NA>", "undefined"}

// normal is a column's name as it is compared: eventTime, "Event Time" and event_time are one.
func normal(name string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(strings.TrimSpace(name)))
}

// named looks like the name of a column.
var named = regexp.MustCompile(`^ *[A-Za-z_][A-Za-z0-9_ .:/-]{0,63} *$`)

// mapping says which column of a file is what.
type mapping struct {
	index [len(columns)]int // of each of columns; -1 is none
	user  int
	times []int // the first one that is not empty counts
	count int   // columns of the file; 0 is not known yet
	last  int   // the last of the user's and the times' columns
	// names are the members of what is sent, for a file that has other columns than the data set.
	names []string
	paths [][]string // of the members that the settings name, by column; nil is for the column's name to say
	sent  tree       // the members of the object
}

// byPosition is the mapping of a file of the data set without a header.
func byPosition(count int) mapping {
	m := mapping{user: 7, times: []int{9, 0}, count: count, last: 9}
	for i := range m.index {
		m.index[i] = i
	}
	if count < len(columns) {
		m.index[9], m.times, m.last = -1, []int{0}, 7
	}
	return m
}

// readHeader returns the mapping of a record that names columns; ok is false if it names none that matters.
func (c *CSV) readHeader(parts []string) (m mapping, ok bool, err error) {
	at := func(name string) int {
		n := normal(name)
		return slices.IndexFunc(parts, func(p string) bool { return normal(p) == n })
	}
	m = mapping{user: -1, count: len(parts)}
	for i, name := range columns {
		m.index[i] = at(name)
	}
	if c.custom {
		m.names, m.paths = make([]string, len(parts)), make([][]string, len(parts))
		for i, p := range parts {
			if name := strings.TrimSpace(p); !slices.Contains(m.names[:i], name) { // of two columns with one name the first counts, as everywhere
				m.names[i] = name
			}
		}
	}
	for _, path := range c.fields.User {
		if i := c.column(path, at, &m); i >= 0 && m.user < 0 {
			m.user = i
		}
	}
	for _, path := range c.fields.Time {
		if i := c.column(path, at, &m); i >= 0 {
			m.times = append(m.times, i)
		}
	}
	if len(m.times) == 0 && slices.Equal(c.fields.Time, activity.DefaultFields().Time) {
		c.timeByName(parts, &m)
	}
	if m.user < 0 && len(m.times) == 0 {
		return mapping{}, false, nil
	}
	if m.user < 0 {
		return mapping{}, false, fmt.Errorf("the header has no column %s for the user, only %s: set the column with --user-field", either(c.fields.User), listed(parts))
	}
	if len(m.times) == 0 {
		return mapping{}, false, fmt.Errorf("the header has no column %s for the time, only %s: %w", either(c.fields.Time), listed(parts), ErrTimeColumn)
	}
	m.last = max(m.user, slices.Max(m.times))
	if c.custom {
		m.sent = c.layOut(m)
	}
	return m, true, nil
}

// ErrTimeColumn means that a file has no column of the name that the event time should have.
var ErrTimeColumn = errors.New("set the column with --time-field")

// timeNames are what columns of times are called by most who do not call them as the data set does.
var timeNames = []string{"timestamp", "time", "datetime", "created_at", "created", "occurred_at", "ts", "date"}

// timeByName takes the one column that has a name of a time for the event time, if nobody says which it is. Of several none is taken.
func (c *CSV) timeByName(parts []string, m *mapping) {
	found := -1
	for i, p := range parts {
		if slices.ContainsFunc(timeNames, func(name string) bool { return normal(p) == normal(name) }) {
			if found >= 0 {
				return
			}
			found = i
		}
	}
	if found < 0 {
		return
	}
	m.times, m.index[0] = []int{found}, found
	if c.custom {
		m.paths[found] = []string{columns[0]}
	}
}

// column finds the column of a field, and notes where its value goes.
func (c *CSV) column(path string, at func(string) int, m *mapping) int {
	name, plain := activity.TopLevel(path)
	if !plain {
		name = path
	}
	i := at(name)
	if i >= 0 && c.custom {
		m.paths[i] = []string{name}
		if !plain {
			m.paths[i] = strings.Split(path, ".") // such a column comes from an object that was laid flat
		}
	}
	return i
}

// noHeader is the error of a first line that names columns, none of which is known.
func (c *CSV) noHeader(parts []string) error {
	if len(parts) < 2 || slices.ContainsFunc(parts, func(p string) bool { return !named.MatchString(p) }) {
		if c.custom {
			return fmt.Errorf("the first line is not a header, but columns are set with --user-field, --time-field or --dedupe-field; add a line with the names of the columns. The first line is: %s",
				activity.Example([]byte(strings.Join(parts, string(c.comma)))))
		}
		return nil
	}
	return fmt.Errorf("the columns are %s: set the columns for the user and the time with --user-field and --time-field", listed(parts))
}

func either(names []string) string { return strings.Join(names, " or ") }

func listed(parts []string) string {
	const most = 20
	shown := make([]string, 0, most)
	for i, p := range parts {
		if i == most {
			shown = append(shown, fmt.Sprintf("and %d more", len(parts)-most))
			break
		}
		shown = append(shown, activity.Example([]byte(strings.TrimSpace(p))))
	}
	return strings.Join(shown, ", ")
}

// jsonArray matches the beginning of an array of objects. A column of a CSV file may be called [id].
var jsonArray = regexp.MustCompile(`^\[\s*(\{|$)`)

// sniff looks at the beginning of a file: what divides its columns, or that it has JSON objects, or why it cannot be read.
func (c *CSV) sniff(head []byte) error {
	switch {
	case bytes.HasPrefix(head, []byte{0xff, 0xfe}), bytes.HasPrefix(head, []byte{0xfe, 0xff}), len(head) > 3 && head[1] == 0 && head[3] == 0:
		return errors.New("is UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8 FILE")
	case bytes.IndexByte(head, '\r') >= 0 && bytes.IndexByte(head, '\n') < 0 && len(head) > 1 && bytes.IndexByte(head, '\r') < len(head)-1:
		return errors.New("has lines that end with CR only; convert it: tr '\\r' '\\n' <FILE")
	}
	text := bytes.TrimPrefix(head, []byte("\xef\xbb\xbf"))
	switch begin := bytes.TrimLeft(text, " \t\r\n"); {
	case jsonArray.Match(begin):
		return errors.New("is a JSON array, not one JSON object per line; convert it: jq -c '.[]' FILE")
	case bytes.HasPrefix(begin, []byte("<")):
		return errors.New("is XML or HTML; convert it to CSV or JSON lines")
	default:
		c.jsonl = bytes.HasPrefix(begin, []byte("{"))
	}
	c.comma = ','
	for line := range bytes.Lines(text) {
		line = trimEnd(line)
		if sep, ok := bytes.CutPrefix(line, []byte("sep=")); ok && len(sep) == 1 {
			c.comma = sep[0]
			return nil
		}
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		most, quoted := 0, false
		counts := make(map[byte]int)
		for _, b := range line {
			if b == '"' {
				quoted = !quoted
			} else if !quoted {
				counts[b]++
			}
		}
		for _, b := range []byte(",;\t|") {
			if counts[b] > most {
				c.comma, most = b, counts[b]
			}
		}
		return nil
	}
	return nil
}

// object writes the current record to r as an object whose members are the file's columns.
func (c *CSV) object(r *Row) {
	b := make([]byte, 0, 64+2*len(c.parts)*16)
	b = append(b, '{')
	r.JSON = append(c.appendMembers(b, c.is.sent, r), '}')
}

func (c *CSV) appendMembers(b []byte, list tree, r *Row) []byte {
	for k, m := range list {
		if k > 0 {
			b = append(b, ',')
		}
		b = append(activity.AppendString(b, m.name), ':')
		if m.within != nil {
			b = append(c.appendMembers(append(b, '{'), m.within, r), '}')
			continue
		}
		i, text := m.column, c.parts[m.column]
		isTime := slices.Contains(c.is.times, i)
		if isTime || i == c.is.user {
			text = strings.Trim(text, blanks)
		}
		switch {
		case i == c.is.user && c.null(text), text == "":
			b = append(b, "null"...)
		case isTime:
			from := len(b)
			b = activity.AppendString(b, text)
			if r.TimeAt == (activity.Place{}) {
				r.TimeAt = activity.Place{Start: from, End: len(b)}
			}
		default:
			b = activity.AppendValue(b, text)
		}
	}
	return b
}

// tree are the members of an object that is sent: each has the value of a column, or members of its own.
type tree []branch

type branch struct {
	name   string
	column int
	within tree // nil for a value
}

// layOut returns the members of a file's columns. A name with dots is a path: such a column comes from an object that was laid flat. If a part of the path is a
// column as well, the name is what it is.
func (c *CSV) layOut(m mapping) (list tree) {
	for i, name := range m.names {
		if name == "" {
			continue
		}
		path := m.paths[i]
		if path == nil {
			path = []string{name}
			if names, err := activity.Path(name); err == nil && !slices.Contains(c.literal, name) && !slices.ContainsFunc(m.names, func(o string) bool { return strings.HasPrefix(name, o+".") }) {
				path = names
			}
		}
		list.place(path, i)
	}
	return list
}

// place puts a column at the end of a path.
func (t *tree) place(path []string, column int) {
	if len(path) == 1 {
		*t = append(*t, branch{name: path[0], column: column})
		return
	}
	i := slices.IndexFunc(*t, func(b branch) bool { return b.name == path[0] && b.within != nil })
	if i < 0 {
		i = len(*t)
		*t = append(*t, branch{name: path[0]})
	}
	(*t)[i].within.place(path[1:], column)
}

// null reports whether a text means that there is nothing.
func (c *CSV) null(text string) bool { return text == "" || slices.Contains(c.nulls, text) }
