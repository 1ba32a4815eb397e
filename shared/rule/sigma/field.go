package sigma

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"spate/shared/rule"
	"spate/shared/rule/syntax"
)

// field is a field of the events, and how it is used: that decides the type of its column.
type field struct {
	at                     *yaml.Node // where it is used first
	path                   []string
	sql                    string // its name
	text, number, fraction bool
	typ                    string // of its column: STRING, BIGINT or DOUBLE
}

// maxFields bounds the columns of a table.
const maxFields = 1000

// use returns the field of a name.
func (c *converter) use(at *yaml.Node, name string) *field {
	f := c.fields[name]
	if f != nil {
		return f
	}
	f = &field{at: at, path: strings.Split(name, ".")}
	if len(c.fields) == maxFields {
		c.fail(at, "", "the rules have more than %d fields", maxFields)
		return f
	}
	if slices.Contains(f.path, "") || len(f.path) > 20 || strings.ContainsFunc(name, unicode.IsControl) || !utf8.ValidString(name) {
		c.fail(at, "", "%q is not the name of a field", name)
		f.path = []string{"x"}
	}
	for _, other := range c.fields {
		if n := min(len(f.path), len(other.path)); slices.Equal(f.path[:n], other.path[:n]) {
			c.fail(at, "", "%s and %s cannot both be fields: one is part of the other", strings.Join(f.path, "."), strings.Join(other.path, "."))
			break
		}
	}
	var parts []string
	for _, p := range f.path {
		parts = append(parts, syntax.Name{Text: p}.SQL())
	}
	f.sql = strings.Join(parts, ".")
	c.fields[name] = f
	return f
}

// asText is the field as a STRING, in small letters unless case matters.
func (f *field) asText(cased bool) string {
	text := f.sql
	if f.typ != "STRING" {
		text = "CAST(" + text + " AS STRING)"
	}
	if cased {
		return text
	}
	return "LOWER(" + text + ")"
}

// numeric is the field as a number.
func (f *field) numeric() string {
	if f.typ == "STRING" {
		return "TRY_CAST(" + f.sql + " AS DOUBLE)"
	}
	return f.sql
}

// alias is how the field is called in an alert, which has names of its own.
func (f *field) alias(taken string) string {
	name := strings.Join(f.path, "_")
	if rule.ReservedColumn(name) || name == taken {
		name += "_value"
	}
	return name
}

// table decides the types of all fields. It returns the table that has them, and the statement that declares it: none for the built-in table.
func (c *converter) table() (name, create string) {
	builtin := rule.Activity()
	missing := false
	for name, f := range c.fields {
		switch i := slices.IndexFunc(builtin.Columns, func(col rule.Column) bool { return col.Name == name }); {
		case i < 0 || i == builtin.Time:
			missing = true
		default:
			f.typ = builtin.Columns[i].Type.String()
			f.typ = strings.TrimSuffix(f.typ, " NOT NULL")
		}
	}
	if !missing {
		return builtin.Name, ""
	}
	root := &row{}
	var names []string
	for name, f := range c.fields {
		names = append(names, name)
		switch {
		case f.text || !f.number:
			f.typ = "STRING"
		case f.fraction:
			f.typ = "DOUBLE"
		default:
			f.typ = "BIGINT"
		}
	}
	slices.Sort(names)
	for _, name := range names {
		root.add(c.fields[name].path, c.fields[name].typ)
	}
	var b strings.Builder
	b.WriteString("-- This table has the fields that the rules read. Put the topic or stream of your events in WITH.\nCREATE TABLE events (\n")
	for _, m := range root.members {
		fmt.Fprintf(&b, "  %s,\n", m)
	}
	at := syntax.Name{Text: c.TimeColumn}.SQL()
	for _, f := range c.fields {
		if f.path[0] == c.TimeColumn {
			c.fail(f.at, "the event time needs a column of its own", "%s cannot be both a field and the time", f.path[0])
		}
	}
	fmt.Fprintf(&b, "  %s TIMESTAMP(3),\n  WATERMARK FOR %s AS %s - INTERVAL '10' SECOND\n) WITH ('connector' = 'kafka', 'topic' = 'activity', 'format' = 'json');\n", at, at, at)
	return "events", b.String()
}

// timeColumn is the column with the event time.
func (c *converter) timeColumn(table string) string {
	if builtin := rule.Activity(); table == builtin.Name {
		return builtin.Columns[builtin.Time].Name
	}
	return c.TimeColumn
}

// row is the columns of a table, or the fields of a ROW, in order.
type row struct {
	name    string
	typ     string // of a column that is not a ROW
	members []*row
}

func (r *row) add(path []string, typ string) {
	for _, name := range path {
		i := slices.IndexFunc(r.members, func(m *row) bool { return m.name == name })
		if i < 0 {
			i = len(r.members)
			r.members = append(r.members, &row{name: name})
		}
		r = r.members[i]
	}
	r.typ = typ
}

func (r *row) String() string {
	if r.typ != "" {
		return syntax.Name{Text: r.name}.SQL() + " " + r.typ
	}
	var members []string
	for _, m := range r.members {
		members = append(members, m.String())
	}
	return syntax.Name{Text: r.name}.SQL() + " ROW<" + strings.Join(members, ", ") + ">"
}
