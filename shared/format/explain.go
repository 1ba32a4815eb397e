package format

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"spate/shared/activity"
)

// Text returns a record's value as JSON, for people; what cannot be decoded stays as it is. It asks no registry: only schemas that were needed before
// are known.
func (r *Reader) Text(data []byte) []byte {
	id, body, ok := header(data)
	if !ok {
		return data
	}
	s := r.registry.known(id)
	switch {
	case s == nil:
		if r.registry == nil && (r.format == JSON || r.format == CloudEvents) { // as decode: its schema is not needed
			return body
		}
	case s.json:
		return body
	case s.avro != nil:
		var v any
		if rest, err := s.avro.Decode(body, &v); err == nil && len(rest) == 0 {
			if text, err := s.avro.EncodeJSON(v); err == nil {
				return text
			}
		}
	case s.proto != nil:
		if index, rest, ok := message(body); ok {
			if d, err := descriptor(s.proto, index); err == nil {
				m := dynamicpb.NewMessage(d)
				if proto.Unmarshal(rest, m) == nil {
					if text, err := (protojson.MarshalOptions{UseProtoNames: true}).Marshal(m); err == nil {
						return text
					}
				}
			}
		}
	}
	return data
}

// known returns a schema that was asked for before, nil if there is none.
func (r *Registry) known(id int) *schema {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.schemas[id]
}

// Explain says in a few words why a record is not an event for a reason, and which setting makes it one, if there is any. It is for people.
func (r *Reader) Explain(data []byte, headers []kgo.RecordHeader, reason activity.Reason) string {
	id, _, encoded := header(data)
	s := r.registry.known(id)
	switch reason {
	case activity.ReasonNoSchema:
		switch {
		case r.registry == nil:
			return fmt.Sprintf("it is encoded with schema %d of a schema registry: set SPATE_SCHEMA_REGISTRY_URL (--schema-registry-url)", id)
		case s != nil && s.err != nil:
			return s.err.Error()
		}
		return fmt.Sprintf("schema %d is unusable", id)
	case activity.ReasonBadEncoding:
		switch {
		case !encoded && len(data) > 0 && data[0] == magic:
			return "it ends within its five-byte schema ID prefix"
		case !encoded:
			return fmt.Sprintf("it does not begin with a schema ID (a zero byte and four more), but SPATE_FORMAT is %s; auto also accepts JSON", r.format)
		case s != nil && (r.format == Avro && s.avro == nil || r.format == Protobuf && s.proto == nil || r.format == JSON && !s.json):
			return fmt.Sprintf("schema %d is not of the type that SPATE_FORMAT specifies, %s; auto accepts all types", id, r.format)
		}
		return fmt.Sprintf("it does not match schema %d", id)
	}
	text := r.Text(data)
	absent := reason == activity.ReasonNoUser || reason == activity.ReasonNoTime
	switch {
	case r.format == Debezium:
		if absent && !has(text, "op", "before", "after", "payload.op", "payload.before", "payload.after") {
			return "it is not a change in the Debezium format: it has none of op, before and after; if it is a plain event, or a row whose envelope the connector has removed, set SPATE_FORMAT (--format) to auto"
		}
		text = inside(text, "after", "before", "payload.after", "payload.before")
	case (r.format == CloudEvents || r.format == Auto && len(headers) > 0) && r.mode(headers) == modeStructured:
		if absent && !has(text, "specversion", "data") {
			if r.format == Auto {
				return "it has neither specversion nor data, so it is not a CloudEvent, although its content-type header says that it is one: correct the header, or set SPATE_FORMAT (--format) to json"
			}
			return "it is not a CloudEvent: it has neither specversion nor data, and no ce_specversion header; if it is a plain event, set SPATE_FORMAT (--format) to auto"
		}
		text = inside(text, "data")
	}
	return r.scanner.Explain(text, reason)
}

// Inside returns the JSON object that has the fields, of a text from [Reader.Text]: that in the envelope, if there is one.
func (r *Reader) Inside(text []byte, headers []kgo.RecordHeader) []byte {
	switch {
	case r.format == Debezium:
		return inside(text, "after", "before", "payload.after", "payload.before")
	case (r.format == CloudEvents || r.format == Auto && len(headers) > 0) && r.mode(headers) == modeStructured:
		return inside(text, "data")
	}
	return text
}

// has reports whether a JSON text has a member at one of the paths, null or not.
func has(text []byte, paths ...string) bool {
	found := make([]activity.Place, len(paths))
	if activity.NewFinder(parsed(paths)).Find(text, found) != activity.ReasonNone {
		return false
	}
	return slices.ContainsFunc(found, func(p activity.Place) bool { return p.End > 0 })
}

// inside returns the first object at one of the paths of a JSON text, or else the text.
func inside(text []byte, paths ...string) []byte {
	for _, p := range paths {
		found := make([]activity.Place, 1)
		if activity.NewFinder(parsed([]string{p})).Find(text, found) != activity.ReasonNone {
			continue
		}
		if at := text[found[0].Start:found[0].End]; len(at) > 0 && at[0] == '{' && json.Valid(at) {
			return at
		}
	}
	return text
}
