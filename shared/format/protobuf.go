package format

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"spate/shared/activity"
)

// parseProtobuf compiles a file, with those that it imports. Google's own are known.
func parseProtobuf(ctx context.Context, text string, refs []reference) (protoreflect.FileDescriptor, error) {
	files := maps.Clone(known)
	for _, r := range refs {
		files[r.name] = r.text
	}
	name := "schema.proto"
	for _, taken := files[name]; taken; _, taken = files[name] {
		name = "_" + name // until no other file has it
	}
	files[name] = text
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(files)}), MaxParallelism: 1}
	compiled, err := c.Compile(ctx, name)
	if err != nil {
		return nil, err
	}
	if compiled[0].Messages().Len() == 0 {
		return nil, errors.New("it defines no message type")
	}
	return compiled[0], nil
}

// known are files that Confluent's serializers know, and so do not register. Google's own are known to the compiler.
var known = map[string]string{
	"confluent/meta.proto": `syntax = "proto3"; package confluent; import "google/protobuf/descriptor.proto";
		message Meta { string doc = 1; map<string, string> params = 2; repeated string tags = 3; }
		extend google.protobuf.FileOptions { Meta file_meta = 1088; }
		extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
		extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
		extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
		extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }`,
	"confluent/type/decimal.proto":      `syntax = "proto3"; package confluent.type; message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }`,
	"google/type/calendar_period.proto": `syntax = "proto3"; package google.type; enum CalendarPeriod { CALENDAR_PERIOD_UNSPECIFIED = 0; DAY = 1; WEEK = 2; FORTNIGHT = 3; MONTH = 4; QUARTER = 5; HALF = 6; YEAR = 7; }`,
	"google/type/color.proto":           `syntax = "proto3"; package google.type; import "google/protobuf/wrappers.proto"; message Color { float red = 1; float green = 2; float blue = 3; google.protobuf.FloatValue alpha = 4; }`,
	"google/type/date.proto":            `syntax = "proto3"; package google.type; message Date { int32 year = 1; int32 month = 2; int32 day = 3; }`,
	"google/type/datetime.proto":        `syntax = "proto3"; package google.type; import "google/protobuf/duration.proto"; message DateTime { int32 year = 1; int32 month = 2; int32 day = 3; int32 hours = 4; int32 minutes = 5; int32 seconds = 6; int32 nanos = 7; oneof time_offset { google.protobuf.Duration utc_offset = 8; TimeZone time_zone = 9; } } message TimeZone { string id = 1; string version = 2; }`,
	"google/type/dayofweek.proto":       `syntax = "proto3"; package google.type; enum DayOfWeek { DAY_OF_WEEK_UNSPECIFIED = 0; MONDAY = 1; TUESDAY = 2; WEDNESDAY = 3; THURSDAY = 4; FRIDAY = 5; SATURDAY = 6; SUNDAY = 7; }`,
	"google/type/expr.proto":            `syntax = "proto3"; package google.type; message Expr { string expression = 1; string title = 2; string description = 3; string location = 4; }`,
	"google/type/fraction.proto":        `syntax = "proto3"; package google.type; message Fraction { int64 numerator = 1; int64 denominator = 2; }`,
	"google/type/latlng.proto":          `syntax = "proto3"; package google.type; message LatLng { double latitude = 1; double longitude = 2; }`,
	"google/type/money.proto":           `syntax = "proto3"; package google.type; message Money { string currency_code = 1; int64 units = 2; int32 nanos = 3; }`,
	"google/type/month.proto":           `syntax = "proto3"; package google.type; enum Month { MONTH_UNSPECIFIED = 0; JANUARY = 1; FEBRUARY = 2; MARCH = 3; APRIL = 4; MAY = 5; JUNE = 6; JULY = 7; AUGUST = 8; SEPTEMBER = 9; OCTOBER = 10; NOVEMBER = 11; DECEMBER = 12; }`,
	"google/type/postal_address.proto":  `syntax = "proto3"; package google.type; message PostalAddress { int32 revision = 1; string region_code = 2; string language_code = 3; string postal_code = 4; string sorting_code = 5; string administrative_area = 6; string locality = 7; string sublocality = 8; repeated string address_lines = 9; repeated string recipients = 10; string organization = 11; }`,
	"google/type/quaternion.proto":      `syntax = "proto3"; package google.type; message Quaternion { double x = 1; double y = 2; double z = 3; double w = 4; }`,
	"google/type/timeofday.proto":       `syntax = "proto3"; package google.type; message TimeOfDay { int32 hours = 1; int32 minutes = 2; int32 seconds = 3; int32 nanos = 4; }`,
}

// message splits the indexes that lead to the message of a file from a value, as Confluent writes them.
func message(body []byte) (index, rest []byte, ok bool) {
	if len(body) > 0 && body[0] == 0 { // most files have one
		return body[:1], body[1:], true
	}
	at := 0
	next := func() int64 {
		v, n := protowire.ConsumeVarint(body[at:])
		if n < 0 {
			return -1
		}
		at += n
		return protowire.DecodeZigZag(v)
	}
	n := next()
	if n < 1 || n > maxPlanDepth {
		return nil, nil, false
	}
	for range n {
		if next() < 0 {
			return nil, nil, false
		}
	}
	return body[:at], body[at:], true
}

// descriptor returns the message that indexes lead to.
func descriptor(file protoreflect.FileDescriptor, index []byte) (protoreflect.MessageDescriptor, error) {
	if len(index) == 1 && index[0] == 0 {
		return file.Messages().Get(0), nil
	}
	_, n := protowire.ConsumeVarint(index)
	var m protoreflect.MessageDescriptor
	for in := file.Messages(); n < len(index); {
		v, size := protowire.ConsumeVarint(index[n:])
		i := int(protowire.DecodeZigZag(v))
		if i >= in.Len() {
			return nil, fmt.Errorf("it has no message with index %d; the number of messages is %d", i, in.Len())
		}
		m = in.Get(i)
		in = m.Messages()
		n += size
	}
	return m, nil
}

// protoPlan says which fields of a message are read; the others are skipped.
type protoPlan struct {
	fields []protoField
}

type protoField struct {
	number protowire.Number
	kind   protoreflect.Kind
	wire   protowire.Type
	others []int // paths of the other members of its oneof: the last one on the wire counts
	enum   protoreflect.EnumValueDescriptors
	path   int        // whose end this is, -1 if it is none
	below  *protoPlan // of a message that paths lead into
	time   bool       // it is a google.protobuf.Timestamp, and the end of a path
}

// planMessage returns what has to be read of a message, for paths of which these names are left. Nil is nothing.
func planMessage(m protoreflect.MessageDescriptor, left map[int][]string, depth int) *protoPlan {
	if depth > maxPlanDepth {
		return nil
	}
	p := &protoPlan{}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		under, path := make(map[int][]string), -1
		for at, names := range left {
			if len(names) == 0 || names[0] != string(f.Name()) && names[0] != f.JSONName() {
				continue
			}
			if under[at] = names[1:]; len(names) == 1 {
				path = at
			}
		}
		if len(under) == 0 || f.IsList() || f.IsMap() {
			continue
		}
		out := protoField{number: f.Number(), kind: f.Kind(), wire: wireOf(f.Kind()), path: path}
		switch f.Kind() {
		case protoreflect.EnumKind:
			out.enum = f.Enum().Values()
		case protoreflect.MessageKind, protoreflect.GroupKind:
			name := f.Message().FullName()
			switch {
			case name == "google.protobuf.Timestamp" && path >= 0:
				out.time = true
			case strings.HasPrefix(string(name), "google.protobuf.") && strings.HasSuffix(string(name), "Value") && path >= 0 && f.Message().Fields().ByName("value") != nil:
				out.path, out.below = -1, planMessage(f.Message(), map[int][]string{path: {"value"}}, depth+1) // Int64Value and its like
			default:
				out.below = planMessage(f.Message(), under, depth+1)
			}
		}
		p.fields = append(p.fields, out)
	}
	if len(p.fields) == 0 {
		return nil
	}
	for i := range p.fields {
		if one := m.Fields().ByNumber(p.fields[i].number).ContainingOneof(); one != nil {
			for j := range p.fields {
				if j != i && m.Fields().ByNumber(p.fields[j].number).ContainingOneof() == one {
					p.fields[i].others = p.fields[j].paths(p.fields[i].others)
				}
			}
		}
	}
	return p
}

// paths appends the ends of paths that are at a field or below it.
func (f *protoField) paths(out []int) []int {
	if f.path >= 0 {
		out = append(out, f.path)
	}
	if f.below != nil {
		for i := range f.below.fields {
			out = f.below.fields[i].paths(out)
		}
	}
	return out
}

// wireOf is how values of a kind are written.
func wireOf(k protoreflect.Kind) protowire.Type {
	switch k {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return protowire.BytesType
	case protoreflect.GroupKind:
		return protowire.StartGroupType
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type
	}
	return protowire.VarintType
}

// read reads a message, and reports whether it is one. A nil plan checks only that it is.
func (p *protoPlan) read(b []byte, values []value, buf []byte) ([]byte, bool) {
	for len(b) > 0 {
		number, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return buf, false
		}
		var f *protoField
		if p != nil {
			for i := range p.fields {
				if p.fields[i].number == number {
					f = &p.fields[i]
					break
				}
			}
		}
		size := protowire.ConsumeFieldValue(number, wire, b[n:])
		if size < 0 {
			return buf, false
		}
		content := b[n : n+size]
		b = b[n+size:]
		if f == nil {
			continue
		}
		if wire != f.wire {
			continue // a field of another type is unknown, as in every reader
		}
		for _, path := range f.others {
			values[path] = value{}
		}
		var ok bool
		if buf, ok = f.read(wire, content, values, buf); !ok {
			return buf, false
		}
	}
	return buf, true
}

// read reads the field from what follows its tag.
func (f *protoField) read(wire protowire.Type, b []byte, values []value, buf []byte) ([]byte, bool) {
	switch {
	case wire == protowire.StartGroupType:
		if f.below == nil {
			return buf, true
		}
		inside, n := protowire.ConsumeGroup(f.number, b)
		if n < 0 {
			return buf, false
		}
		return f.below.read(inside, values, buf)
	case f.below != nil || f.time:
		inside, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return buf, false
		}
		if f.time {
			return f.instant(inside, values, buf)
		}
		return f.below.read(inside, values, buf)
	case f.path < 0:
		return buf, true
	}
	from := len(buf)
	switch x := bits(wire, b); f.kind {
	case protoreflect.StringKind:
		text, _ := protowire.ConsumeBytes(b)
		buf, values[f.path] = textValue(buf, text)
		return buf, true
	case protoreflect.FloatKind:
		buf, values[f.path] = floatValue(buf, float64(math.Float32frombits(uint32(x))), 32)
		return buf, true
	case protoreflect.DoubleKind:
		buf, values[f.path] = floatValue(buf, math.Float64frombits(x), 64)
		return buf, true
	case protoreflect.EnumKind:
		if e := f.enum.ByNumber(protoreflect.EnumNumber(int32(x))); e != nil {
			buf, values[f.path] = textValue(buf, []byte(e.Name()))
			return buf, true
		}
		buf = strconv.AppendInt(buf, int64(int32(x)), 10)
	case protoreflect.Int32Kind, protoreflect.Sfixed32Kind:
		buf = strconv.AppendInt(buf, int64(int32(x)), 10)
	case protoreflect.Int64Kind, protoreflect.Sfixed64Kind:
		buf = strconv.AppendInt(buf, int64(x), 10)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		buf = strconv.AppendUint(buf, uint64(uint32(x)), 10)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		buf = strconv.AppendUint(buf, x, 10)
	case protoreflect.Sint32Kind:
		buf = strconv.AppendInt(buf, int64(int32(protowire.DecodeZigZag(x&math.MaxUint32))), 10)
	case protoreflect.Sint64Kind:
		buf = strconv.AppendInt(buf, protowire.DecodeZigZag(x), 10)
	default:
		values[f.path] = value{token: other}
		return buf, true
	}
	values[f.path] = value{token: buf[from:len(buf):len(buf)]}
	return buf, true
}

// bits returns a number as it is written, 0 for what is not one.
func bits(wire protowire.Type, b []byte) (x uint64) {
	switch wire {
	case protowire.VarintType:
		x, _ = protowire.ConsumeVarint(b)
	case protowire.Fixed32Type:
		low, _ := protowire.ConsumeFixed32(b)
		x = uint64(low)
	case protowire.Fixed64Type:
		x, _ = protowire.ConsumeFixed64(b)
	}
	return x
}

// instant reads a google.protobuf.Timestamp: seconds and nanoseconds since 1970.
func (f *protoField) instant(b []byte, values []value, buf []byte) ([]byte, bool) {
	var seconds, nanos int64
	for len(b) > 0 {
		number, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return buf, false
		}
		size := protowire.ConsumeFieldValue(number, wire, b[n:])
		if size < 0 {
			return buf, false
		}
		if wire == protowire.VarintType {
			x, _ := protowire.ConsumeVarint(b[n:])
			switch number {
			case 1:
				seconds = int64(x)
			case 2:
				nanos = int64(int32(x))
			}
		}
		b = b[n+size:]
	}
	from := len(buf)
	if seconds < -1<<40 || seconds > 1<<40 || nanos < 0 || nanos > 999_999_999 { // years that no time has
		values[f.path] = value{token: other}
		return buf, true
	}
	buf = strconv.AppendInt(buf, seconds*1000+nanos/1_000_000, 10)
	values[f.path] = value{buf[from:len(buf):len(buf)], activity.TimeMS}
	return buf, true
}
