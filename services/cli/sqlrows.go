package cli

import (
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"spate/services/query"
	"spate/shared/activity"
	"spate/shared/terminal"
)

// sqlRows prints the rows of a statement: a table for people, JSON or CSV.
type sqlRows struct {
	o     *out
	json  bool
	csv   *csv.Writer
	plain bool // CSV goes to a terminal, which it must not control
	names []string
	text  []bool // columns that have text: the others are aligned right
	pages *pages
	cells []any
	line  []byte
}

// rows returns a printer; people reports whether it prints to a terminal.
func (c *sqlCommand) rows(o *out, people bool) *sqlRows {
	r := &sqlRows{o: o, json: c.JSON}
	if c.CSV {
		r.csv, r.plain = csv.NewWriter(o), people
	}
	return r
}

// output takes a result; each: every row is printed at once.
func (r *sqlRows) output(each bool) query.Output {
	return query.Output{Columns: r.columns, Row: func(values []any) error {
		if err := r.row(values); err != nil || !each {
			return err
		}
		if r.pages != nil {
			r.pages.flush()
		}
		if r.csv != nil {
			r.csv.Flush()
		}
		return r.o.Flush()
	}}
}

func (r *sqlRows) columns(names []string) error {
	r.names = slices.Clone(names)
	switch {
	case r.json:
		for i, n := range r.names { // an object has a member once
			for k := 2; slices.Contains(r.names[:i], r.names[i]); k++ {
				r.names[i] = fmt.Sprintf("%s_%d", n, k)
			}
		}
	case r.csv != nil:
		return r.csv.Write(r.escaped(r.names))
	default:
		columns := make([]terminal.Column, len(names))
		for i, n := range names {
			columns[i] = terminal.Column{Head: strings.ToUpper(n), Floor: 8}
		}
		r.pages, r.text = newPages(r.o, columns), make([]bool, len(names))
	}
	return nil
}

func (r *sqlRows) escaped(fields []string) []string {
	if !r.plain {
		return fields
	}
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = terminal.Text(f)
	}
	return out
}

func (r *sqlRows) row(values []any) error {
	if r.json {
		r.line = append(r.line[:0], '{')
		for i, v := range values {
			if i > 0 {
				r.line = append(r.line, ',')
			}
			r.line = appendSQLJSON(append(activity.AppendString(r.line, r.names[i]), ':'), v)
		}
		return r.o.json(json.RawMessage(append(r.line, '}')))
	}
	if r.csv != nil {
		fields := make([]string, len(values))
		for i, v := range values {
			if v != nil {
				fields[i] = sqlText(v)
			}
		}
		return r.csv.Write(r.escaped(fields))
	}
	r.cells = r.cells[:0]
	for i, v := range values {
		switch v.(type) {
		case int64, float64:
			r.pages.table.Columns[i].Right = !r.text[i]
		case string, []byte:
			r.pages.table.Columns[i].Right, r.text[i] = false, true
		}
		r.cells = append(r.cells, sqlText(v))
	}
	r.pages.row(r.cells)
	return nil
}

// end prints what waits.
func (r *sqlRows) end() error {
	if r.csv != nil {
		r.csv.Flush()
		return r.csv.Error()
	}
	if r.pages != nil {
		if r.pages.printed == 0 && len(r.pages.table.Rows) == 0 && len(r.names) > 0 {
			r.o.lines(r.pages.table.Lines(r.o.width)) // the head alone
		}
		r.pages.flush()
	}
	return nil
}

// sqlText is a value for people.
func sqlText(v any) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return doubleText(v)
	case string:
		return v
	case []byte:
		return "X'" + strings.ToUpper(hex.EncodeToString(v)) + "'"
	}
	return fmt.Sprint(v)
}

// doubleText is a floating-point number as SQLite writes it, with all of its digits.
func doubleText(f float64) string {
	form := byte('f')
	if m := math.Abs(f); m != 0 && (m < 1e-4 || m >= 1e15) {
		form = 'e'
	}
	text := strconv.FormatFloat(f, form, -1, 64)
	if form == 'f' && !strings.ContainsAny(text, ".IN") {
		text += ".0"
	}
	return text
}

func appendSQLJSON(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return activity.AppendString(b, doubleText(v))
		}
		return append(b, doubleText(v)...)
	}
	return activity.AppendString(b, strings.ToValidUTF8(sqlText(v), "\ufffd"))
}
