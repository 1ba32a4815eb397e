package query

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"modernc.org/sqlite/vtab"

	"spate/shared/activity"
	"spate/shared/format"
	"spate/shared/rule"
)

// Column is one of a table, for those who ask what there is.
type Column struct {
	Name string
	// Type is BIGINT, DOUBLE, STRING, BOOLEAN, DECIMAL, JSON, TIME, or, of the user, empty: a number or text.
	Type string
	// Prunes: comparing it narrows what is read.
	Prunes bool
}

// Table is what statements can read.
type Table struct {
	Name    string
	Columns []Column
}

// meta is what a table knows of a record besides its event.
type meta uint8

const (
	none meta = iota
	partition
	offset
	appended
	key
	value
	reason
	sourcePartition
	sourceOffset
	windowStart
	lateBy
	cause
)

// field is a column of a table of events: of the event, or of its record.
type field struct {
	Column
	input rule.Input // of the event
	meta  meta       // none: of the event
	time  bool       // the event time
}

// typeNames are the types of columns; SQLite has only the affinity of them.
var typeNames = map[rule.Kind]string{
	rule.Boolean: "BOOLEAN", rule.TinyInt: "BIGINT", rule.SmallInt: "BIGINT", rule.Int: "BIGINT", rule.BigInt: "BIGINT", rule.Decimal: "DECIMAL", rule.Float: "DOUBLE", rule.Double: "DOUBLE",
	rule.String: "STRING", rule.Timestamp: "TIME", rule.Row: "JSON",
}

// affinities are how SQLite is told of a type: a comparison converts the other side to it.
var affinities = map[string]string{"BIGINT": "INTEGER", "BOOLEAN": "INTEGER", "DOUBLE": "REAL", "STRING": "TEXT", "DECIMAL": "TEXT", "JSON": "TEXT", "TIME": "TEXT"}

// eventFields are the columns of the events of tables: each once, by its name.
func eventFields(tables []*rule.Table, times []string, prunes bool) (out []field) {
	for _, t := range tables {
		for i, c := range t.Columns {
			if slices.ContainsFunc(out, func(f field) bool { return strings.EqualFold(f.Name, c.Name) }) || strings.HasPrefix(c.Name, "_") {
				continue
			}
			f := field{Column: Column{Name: c.Name, Type: typeNames[c.Type.Kind]}, input: rule.Input{Path: []string{c.Name}, Type: c.Type}}
			// The first field that an event has is its time: under each of their names, the table has that time.
			if i == t.Time || c.Type.Kind == rule.String && slices.Contains(times, c.Name) && slices.Contains(times, t.Columns[t.Time].Name) {
				f.time, f.Type, f.Prunes = true, "TIME", prunes
				f.input = rule.Input{Path: f.input.Path, Type: rule.Type{Kind: rule.Timestamp}, Time: true}
			}
			if c.Type.Kind == rule.Row {
				f.input.Type = rule.Type{Kind: rule.String} // as it is written
			}
			out = append(out, f)
		}
	}
	return out
}

// recordFields are the columns of records of a topic.
func recordFields(t Topic, times bool) []field {
	out := []field{
		{Column: Column{"_partition", "BIGINT", times}, meta: partition}, {Column: Column{"_offset", "BIGINT", times}, meta: offset},
		{Column: Column{"_timestamp", "TIME", times}, meta: appended}, {Column: Column{"_key", "STRING", false}, meta: key}, {Column: Column{"_value", "STRING", false}, meta: value},
	}
	if t != Activity {
		out = append(out, field{Column: Column{"_reason", "STRING", false}, meta: reason})
	}
	if t != Activity && times {
		out = append(out, field{Column: Column{"_source_partition", "BIGINT", false}, meta: sourcePartition}, field{Column: Column{"_source_offset", "BIGINT", false}, meta: sourceOffset})
	}
	switch {
	case t == Late:
		out = append(out, field{Column: Column{"_window_start", "TIME", false}, meta: windowStart}, field{Column: Column{"_late_by_ms", "BIGINT", false}, meta: lateBy})
	case t == DLQ && times:
		out = append(out, field{Column: Column{"_error", "STRING", false}, meta: cause})
	}
	return out
}

// headers are what the router has written of a record.
var headers = map[meta]string{
	reason: "spate-reason", sourcePartition: "spate-source-partition", sourceOffset: "spate-source-offset", windowStart: "spate-window-start", lateBy: "spate-late-by-ms", cause: "spate-error",
}

// decoder makes rows of records. It is not safe for concurrent use.
type decoder struct {
	events *format.Reader
	fields []field // those that are used
	inputs []int   // the field's number among the inputs; -1 for those of the record
	event  bool    // some field is of the event
	// valid: rows are events; invalid: rows are records that are not events. Neither: rows are all records.
	valid, invalid bool
	aheadMS        int64
	now            func() time.Time
	invalids       int64
	text           []byte
}

// newDecoder returns a decoder for some fields.
func newDecoder(cfg format.Config, fields []field, now func() time.Time) (*decoder, error) {
	d := &decoder{fields: fields, now: now}
	for _, f := range fields {
		if f.meta != none {
			d.inputs = append(d.inputs, -1)
			continue
		}
		d.event = true
		d.inputs = append(d.inputs, len(cfg.Columns))
		cfg.Columns = append(slices.Clone(cfg.Columns), f.input)
	}
	var err error
	d.events, err = format.New(cfg)
	return d, err
}

// row appends the fields of a record, and reports whether it is a row.
func (d *decoder) row(ctx context.Context, r *Record, row []vtab.Value) ([]vtab.Value, bool, error) {
	why := activity.ReasonNone
	var values []rule.Value
	if d.event || d.valid || d.invalid {
		heads := r.Headers
		if !d.valid && !d.invalid && len(heads) > 0 { // a record that the router wrote: the others are the event's own
			heads = slices.DeleteFunc(slices.Clone(heads), func(h header) bool { return strings.HasPrefix(h.Key, "spate-") })
		}
		mark, found, err := d.events.Mark(ctx, r.Value, heads)
		if err != nil {
			return row, false, err
		}
		if why = found; why == activity.ReasonNone && d.aheadMS > 0 && mark.TimeMS > d.limit(r)+d.aheadMS {
			why = activity.ReasonTimeAhead
		}
		switch {
		case why.Skipped():
			return row, false, nil
		case d.valid && why != activity.ReasonNone:
			d.invalids++
			return row, false, nil
		case d.invalid && why == activity.ReasonNone:
			return row, false, nil
		}
		if d.event && found == activity.ReasonNone {
			values = d.events.Columns(mark, heads)
		}
	}
	for i, f := range d.fields {
		var v vtab.Value
		switch {
		case f.meta != none:
			v = d.ofRecord(f.meta, r, why)
		case values != nil:
			v = d.ofEvent(f.input.Type, values[d.inputs[i]])
		}
		row = append(row, v)
	}
	return row, true, nil
}

// limit is when the record was appended, at the latest, as the router has it.
func (d *decoder) limit(r *Record) int64 {
	if r.AppendedMS == 0 {
		return d.now().UnixMilli()
	}
	if r.Claimed {
		return min(r.AppendedMS, d.now().UnixMilli()) // a record is written before it is read, whatever its producer claims
	}
	return r.AppendedMS
}

func (d *decoder) ofRecord(m meta, r *Record, why activity.Reason) vtab.Value {
	switch m {
	case partition:
		return int64(r.Partition)
	case offset:
		return r.Offset
	case appended:
		if r.AppendedMS == 0 {
			return nil
		}
		return timeText(r.AppendedMS)
	case key:
		if r.Key == nil {
			return nil
		}
		return string(r.Key)
	case value:
		if r.Value == nil {
			return nil
		}
		return string(d.events.Text(r.Value))
	case reason:
		if d.invalid {
			return string(why)
		}
	}
	for _, h := range r.Headers {
		if h.Key != headers[m] {
			continue
		}
		text := string(h.Value)
		n, err := strconv.ParseInt(text, 10, 64)
		switch m {
		case windowStart:
			if err != nil {
				return nil
			}
			return timeText(n)
		case sourcePartition, sourceOffset, lateBy:
			if err != nil {
				return nil
			}
			return n
		}
		return text
	}
	return nil
}

// ofEvent is a value as SQLite has it. Decimals keep their digits as text; what is not a number is NULL.
func (d *decoder) ofEvent(t rule.Type, v rule.Value) vtab.Value {
	if v.IsNull() {
		return nil
	}
	switch t.Kind {
	case rule.Boolean, rule.TinyInt, rule.SmallInt, rule.Int, rule.BigInt:
		return v.Int()
	case rule.Float, rule.Double:
		if math.IsNaN(v.Double()) {
			return nil
		}
		return v.Double()
	case rule.String:
		return string(v.Bytes())
	case rule.Timestamp:
		d.text = rule.AppendJSON(d.text[:0], t, v)
		ms, _ := activity.ParseTime(d.text[1 : len(d.text)-1])
		return string(appendTime(nil, ms, nanos(d.text)))
	case rule.Token:
		return ofToken(v.Bytes())
	}
	d.text = rule.AppendJSON(d.text[:0], t, v)
	return strings.Trim(string(d.text), `"`)
}

// nanos are the nanoseconds within the millisecond of a time in quotes, with three, six or nine digits behind the second.
func nanos(quotedTime []byte) (ns int64) {
	dot := slices.Index(quotedTime, '.')
	digits := quotedTime[dot+1 : len(quotedTime)-1]
	if dot < 0 || len(digits) <= 3 {
		return 0
	}
	for i := 3; i < 9; i++ {
		ns *= 10
		if i < len(digits) {
			ns += int64(digits[i] - '0')
		}
	}
	return ns
}

// ofToken is a JSON number or string: a number that has no 64 bits, or is not whole, stays as it is written.
func ofToken(token []byte) vtab.Value {
	if len(token) > 0 && token[0] == '"' {
		return activity.UserText(token)
	}
	if n, err := strconv.ParseInt(string(token), 10, 64); err == nil {
		return n
	}
	return string(token)
}
