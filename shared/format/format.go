package format

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/rule"
)

// Name is a format.
type Name string

// Formats of events.
const (
	// Auto is CloudEvents if the headers say so, Confluent's wire format if the first byte is 0, else JSON.
	Auto Name = "auto"
	// JSON is JSON text, also after the five bytes that name a JSON Schema.
	JSON Name = "json"
	// Avro and Protobuf are Confluent's wire format with a schema of that kind.
	Avro     Name = "avro"
	Protobuf Name = "protobuf"
	// CloudEvents is version 1.0 in binary or in structured mode; without headers it is structured.
	CloudEvents Name = "cloudevents"
	// Debezium is a change of a row; JSON, with or without its schema, or Confluent's wire format.
	Debezium Name = "debezium"
)

var names = []Name{Auto, JSON, Avro, Protobuf, CloudEvents, Debezium}

// Config says how events are written.
type Config struct {
	Format Name // empty is Auto
	Fields activity.Fields
	// ID is the path of what tells an event from all others (see [activity.Mark]); empty is none.
	ID string
	// Registry has the schemas; nil is none.
	Registry *Registry
	// Columns are what rules read of events, beyond the user and the time.
	Columns []rule.Input
}

// Validate reports every problem at once; it does no I/O.
func (c Config) Validate() error {
	var errs []error
	switch {
	case c.Format != "" && !slices.Contains(names, c.Format):
		errs = append(errs, fmt.Errorf("format: %.40q is not one of %s (SPATE_FORMAT)", string(c.Format), list(names)))
	case (c.Format == Avro || c.Format == Protobuf) && c.Registry == nil:
		errs = append(errs, fmt.Errorf("schema-registry-url: missing; format %s requires a schema registry (SPATE_SCHEMA_REGISTRY_URL)", c.Format))
	}
	if c.ID != "" {
		if _, err := activity.Path(c.ID); err != nil {
			errs = append(errs, fmt.Errorf("dedupe-field: %w (SPATE_DEDUPE_FIELD)", err))
		}
		if slices.Contains(c.Fields.User, c.ID) || slices.Contains(c.Fields.Time, c.ID) {
			errs = append(errs, fmt.Errorf("dedupe-field: %q is also a user or time field, so different events would count as one (SPATE_DEDUPE_FIELD)", c.ID))
		}
	}
	return errors.Join(append(errs, c.Fields.Validate())...)
}

func list(names []Name) string {
	text := make([]string, len(names))
	for i, n := range names {
		text[i] = string(n)
	}
	return strings.Join(text, ", ")
}

// Reader reads events. It is not safe for concurrent use.
type Reader struct {
	format   Name
	registry *Registry
	scanner  *activity.Scanner // of JSON without an envelope, which is most of what there is

	plain              *layout
	binary, structured *layout // of CloudEvents

	changes                    *layout // of Debezium
	plainChange, wrappedChange change

	values []value // scratch: those of the paths of a layout
	places []activity.Place
	buf    []byte // scratch: what values are written in

	columns columns
}

// New returns a reader, or the error of c's Validate.
func New(c Config) (*Reader, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	scanner, err := activity.NewScanner(c.Fields)
	if err != nil {
		return nil, err
	}
	r := &Reader{format: c.Format, registry: c.Registry, scanner: scanner}
	if r.format == "" {
		r.format = Auto
	}
	f := fields{users: parsed(c.Fields.User), times: parsed(c.Fields.Time), format: c.Fields.TimeFormat}
	if c.ID != "" {
		f.ids = parsed([]string{c.ID})
	}
	f.columns = r.columns.read(c.Columns)
	r.plain, r.binary, r.structured = newPlain(f), newBinary(f), newStructured(f)
	r.changes, r.plainChange, r.wrappedChange = newChanges(f)
	most := 0
	for _, l := range []*layout{r.plain, r.binary, r.structured, r.changes} {
		most = max(most, len(l.paths))
	}
	r.values, r.places = make([]value, most), make([]activity.Place, most)
	return r, nil
}

func parsed(paths []string) [][]string {
	out := make([][]string, len(paths))
	for i, p := range paths {
		out[i], _ = activity.Path(p) // it is valid
	}
	return out
}

// Mark returns the user and the time of a record, or why it is not an event. The user lives as long as the record's value, and until the next call.
// An error means that this cannot be told now, because the registry does not answer.
func (r *Reader) Mark(ctx context.Context, value []byte, headers []kgo.RecordHeader) (activity.Mark, activity.Reason, error) {
	l := r.plain
	switch {
	case r.format == Debezium:
		return r.change(ctx, value)
	case r.format == CloudEvents || r.format == Auto && len(headers) > 0:
		switch r.mode(headers) {
		case modeStructured:
			l = r.structured
		case modeBinary:
			l = r.binary
		}
	}
	switch {
	case len(value) > 0 && value[0] == magic:
		return r.encoded(ctx, l, value, headers)
	case (r.format == Avro || r.format == Protobuf) && len(value) > 0:
		return activity.Mark{}, activity.ReasonBadEncoding, nil
	case l == r.plain && len(l.ids) == 0 && len(l.columns) == 0:
		mark, reason := r.scanner.Scan(value)
		return mark, reason, nil
	}
	mark, reason := r.json(l, value, headers)
	return mark, reason, nil
}

// json reads a value that is JSON in an envelope.
func (r *Reader) json(l *layout, text []byte, headers []kgo.RecordHeader) (activity.Mark, activity.Reason) {
	if reason := r.find(l, text); reason != activity.ReasonNone {
		return activity.Mark{}, reason
	}
	r.buf = r.buf[:0]
	r.columns.from = l
	return l.choose(r.values, headers, &r.buf)
}

// find puts what lies at the paths of a layout in r.values.
func (r *Reader) find(l *layout, text []byte) activity.Reason {
	places := r.places[:len(l.paths)]
	clear(places)
	if reason := l.finder.Find(text, places); reason != activity.ReasonNone {
		return reason
	}
	for i, p := range places {
		r.values[i] = value{token: text[p.Start:p.End]}
	}
	return activity.ReasonNone
}

// encoded reads a value of Confluent's wire format.
func (r *Reader) encoded(ctx context.Context, l *layout, data []byte, headers []kgo.RecordHeader) (activity.Mark, activity.Reason, error) {
	if reason, err := r.decode(ctx, l, data); reason != activity.ReasonNone || err != nil {
		return activity.Mark{}, reason, err
	}
	r.columns.from = l
	mark, reason := l.choose(r.values, headers, &r.buf)
	return mark, reason, nil
}

// decode puts what lies at the paths of a layout in r.values, of a value of Confluent's wire format.
func (r *Reader) decode(ctx context.Context, l *layout, data []byte) (activity.Reason, error) {
	r.buf = r.buf[:0]
	id, body, ok := header(data)
	if !ok {
		return activity.ReasonBadEncoding, nil
	}
	if r.registry == nil {
		if r.format == JSON || r.format == CloudEvents { // its schema is not needed
			return r.find(l, body), nil
		}
		return activity.ReasonNoSchema, nil
	}
	p := l.programs[id]
	if p == nil {
		s, err := r.registry.schema(ctx, id)
		if err != nil {
			return activity.ReasonNone, err
		}
		if s.err != nil { // not remembered: it may be there later
			return activity.ReasonNoSchema, nil
		}
		p = newProgram(s, l.paths)
		l.programs[id] = p
	}
	if r.format == Avro && p.schema.avro == nil || r.format == Protobuf && p.schema.proto == nil || r.format == JSON && !p.schema.json {
		return activity.ReasonBadEncoding, nil
	}
	if p.schema.json {
		return r.find(l, body), nil
	}
	values := r.values[:len(l.paths)]
	clear(values)
	if r.buf, ok = p.read(body, values, r.buf); !ok {
		return activity.ReasonBadEncoding, nil
	}
	return activity.ReasonNone, nil
}
