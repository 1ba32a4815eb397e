package format

import (
	"context"
	"errors"
	"fmt"
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
	const name = "schema.proto"
	files := map[string]string{name: text}
	for _, r := range refs {
		files[r.name] = r.text
	}
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(files)}), MaxParallelism: 1}
	compiled, err := c.Compile(ctx, name)
	if err != nil {
		return nil, err
	}
	if compiled[0].Messages().Len() == 0 {
		return nil, errors.New("it has no message")
	}
	return compiled[0], nil
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
	if n < 1 || n > maxDepth {
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
			return nil, fmt.Errorf("has no message %d of %d", i, in.Len())
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
	enum   protoreflect.EnumValueDescriptors
	path   int        // whose end this is, -1 if it is none
	below  *protoPlan // of a message that paths lead into
	time   bool       // it is a google.protobuf.Timestamp, and the end of a path
}

// planMessage returns what has to be read of a message, for paths of which these names are left. Nil is nothing.
func planMessage(m protoreflect.MessageDescriptor, left map[int][]string, depth int) *protoPlan {
	if depth > maxDepth {
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
		out := protoField{number: f.Number(), kind: f.Kind(), path: path}
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
	return p
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
		if wire != protowire.BytesType || n < 0 {
			return buf, wire != protowire.BytesType // a field of another type is unknown, as in every reader
		}
		if f.time {
			return f.instant(inside, values, buf)
		}
		return f.below.read(inside, values, buf)
	case f.path < 0:
		return buf, true
	}
	v, from := value{token: other}, len(buf)
	number := func() {
		v = value{token: buf[from:len(buf):len(buf)]}
	}
	switch wire {
	case protowire.VarintType:
		x, _ := protowire.ConsumeVarint(b)
		switch f.kind {
		case protoreflect.Int32Kind:
			buf = strconv.AppendInt(buf, int64(int32(x)), 10)
			number()
		case protoreflect.Int64Kind:
			buf = strconv.AppendInt(buf, int64(x), 10)
			number()
		case protoreflect.Uint32Kind:
			buf = strconv.AppendUint(buf, uint64(uint32(x)), 10)
			number()
		case protoreflect.Uint64Kind:
			buf = strconv.AppendUint(buf, x, 10)
			number()
		case protoreflect.Sint32Kind:
			buf = strconv.AppendInt(buf, int64(int32(protowire.DecodeZigZag(x&math.MaxUint32))), 10)
			number()
		case protoreflect.Sint64Kind:
			buf = strconv.AppendInt(buf, protowire.DecodeZigZag(x), 10)
			number()
		case protoreflect.EnumKind:
			if e := f.enum.ByNumber(protoreflect.EnumNumber(int32(x))); e != nil {
				buf, v = textValue(buf, []byte(e.Name()))
			} else {
				buf = strconv.AppendInt(buf, int64(int32(x)), 10)
				number()
			}
		}
	case protowire.Fixed32Type:
		x, _ := protowire.ConsumeFixed32(b)
		switch f.kind {
		case protoreflect.Fixed32Kind:
			buf = strconv.AppendUint(buf, uint64(x), 10)
			number()
		case protoreflect.Sfixed32Kind:
			buf = strconv.AppendInt(buf, int64(int32(x)), 10)
			number()
		case protoreflect.FloatKind:
			buf, v = floatValue(buf, float64(math.Float32frombits(x)), 32)
		}
	case protowire.Fixed64Type:
		x, _ := protowire.ConsumeFixed64(b)
		switch f.kind {
		case protoreflect.Fixed64Kind:
			buf = strconv.AppendUint(buf, x, 10)
			number()
		case protoreflect.Sfixed64Kind:
			buf = strconv.AppendInt(buf, int64(x), 10)
			number()
		case protoreflect.DoubleKind:
			buf, v = floatValue(buf, math.Float64frombits(x), 64)
		}
	case protowire.BytesType:
		if f.kind == protoreflect.StringKind {
			text, _ := protowire.ConsumeBytes(b)
			buf, v = textValue(buf, text)
		}
	}
	values[f.path] = v
	return buf, true
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
