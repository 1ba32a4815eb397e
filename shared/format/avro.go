package format

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/twmb/avro"

	"spate/shared/activity"
)

const (
	// maxDepth is how deep a value may be in itself, as a list is whose items have the next one: schemas can refer to themselves.
	maxDepth = 1000
	// maxPlanDepth is how deep a path may lead: it has fewer names, and unions between them.
	maxPlanDepth = 64
)

// parseAvro returns the schema of a text, with those that it refers to.
func parseAvro(text string, refs []reference) (*avro.Schema, error) {
	var cache avro.SchemaCache
	for _, r := range refs {
		if _, err := cache.Parse(r.text); err != nil {
			return nil, err
		}
	}
	return cache.Parse(text)
}

// kind is that of an Avro type.
type kind byte

const (
	kindNull kind = iota
	kindBool
	kindInt // and long
	kindFloat
	kindDouble
	kindBytes
	kindString
	kindEnum
	kindFixed
	kindRecord
	kindArray
	kindMap
	kindUnion
)

var kinds = map[string]kind{
	"null": kindNull, "boolean": kindBool, "int": kindInt, "long": kindInt, "float": kindFloat, "double": kindDouble, "bytes": kindBytes,
	"string": kindString, "enum": kindEnum, "fixed": kindFixed, "record": kindRecord, "error": kindRecord, "array": kindArray, "map": kindMap, "union": kindUnion,
}

// avroType is a type of a schema. Types that refer to themselves are circles.
type avroType struct {
	kind    kind
	size    int         // fixed
	names   []string    // of a record's fields
	parts   []*avroType // of a record's fields, a union's branches, or the one of an array or map
	symbols []string    // enum
	unit    activity.TimeFormat
	empty   bool // its values take no bytes
}

// avroTypes makes types.
type avroTypes map[string]*avroType

func (ts avroTypes) make(n *avro.SchemaNode, space string) (*avroType, error) {
	k, known := kinds[n.Type]
	if !known { // a reference
		name := n.Type
		if space != "" && !strings.Contains(name, ".") {
			if t := ts[space+"."+name]; t != nil { // a name without a dot is of the namespace around it
				return t, nil
			}
		}
		if t := ts[strings.TrimPrefix(name, ".")]; t != nil {
			return t, nil
		}
		return nil, errors.New("it references an undefined type: " + n.Type)
	}
	t := &avroType{kind: k, size: n.Size, symbols: n.Symbols, unit: avroUnit(n)}
	if k == kindRecord || k == kindEnum || k == kindFixed {
		name := n.Name
		if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
			space = name[:dot]
		} else {
			if space = n.Namespace; space != "" {
				name = space + "." + name
			}
		}
		ts[name] = t
	}
	var below []*avro.SchemaNode
	switch k {
	case kindRecord:
		for i := range n.Fields {
			t.names = append(t.names, n.Fields[i].Name)
			below = append(below, &n.Fields[i].Type)
		}
	case kindArray:
		below = append(below, n.Items)
	case kindMap:
		below = append(below, n.Values)
	case kindUnion:
		for i := range n.Branches {
			below = append(below, &n.Branches[i])
		}
	}
	for _, b := range below {
		part, err := ts.make(b, space)
		if err != nil {
			return nil, err
		}
		t.parts = append(t.parts, part)
	}
	t.empty = k == kindNull || k == kindFixed && t.size == 0 || k == kindRecord && !slices.ContainsFunc(t.parts, func(p *avroType) bool { return !p.empty })
	return t, nil
}

// avroUnit returns how a type counts time, if it does.
func avroUnit(n *avro.SchemaNode) activity.TimeFormat {
	switch n.LogicalType {
	case "timestamp-millis", "local-timestamp-millis":
		return activity.TimeMS
	case "timestamp-micros", "local-timestamp-micros":
		return activity.TimeUS
	case "timestamp-nanos", "local-timestamp-nanos":
		return activity.TimeNS
	}
	switch n.Props["connect.name"] {
	case "org.apache.kafka.connect.data.Timestamp", "io.debezium.time.Timestamp":
		return activity.TimeMS
	case "io.debezium.time.MicroTimestamp":
		return activity.TimeUS
	case "io.debezium.time.NanoTimestamp":
		return activity.TimeNS
	}
	return ""
}

// avroPlan says which parts of a value of a type are read. A nil plan skips it.
type avroPlan struct {
	path  int         // whose end this is, -1 if it is none
	parts []*avroPlan // of a record's fields, or a union's branches
	keys  []string    // of a map, those that are read
	value []*avroPlan // of these keys
}

// plan returns what has to be read of a type, for paths: those that begin with the names that led here have these left. Nil is nothing.
func (t *avroType) plan(left map[int][]string, depth int) *avroPlan {
	if len(left) == 0 || depth > maxPlanDepth {
		return nil
	}
	p := &avroPlan{path: -1}
	for i, names := range left {
		if len(names) == 0 && t.kind != kindUnion { // the union's branch is it
			p.path = i
		}
	}
	under := func(name string) map[int][]string {
		out := make(map[int][]string)
		for i, names := range left {
			if len(names) > 0 && names[0] == name {
				out[i] = names[1:]
			}
		}
		return out
	}
	reads := p.path >= 0
	switch t.kind {
	case kindRecord:
		p.parts = make([]*avroPlan, len(t.parts))
		for i, part := range t.parts {
			p.parts[i] = part.plan(under(t.names[i]), depth+1)
			reads = reads || p.parts[i] != nil
		}
	case kindUnion:
		p.parts = make([]*avroPlan, len(t.parts))
		for i, part := range t.parts {
			p.parts[i] = part.plan(left, depth+1)
			reads = reads || p.parts[i] != nil
		}
	case kindMap:
		for _, names := range left {
			if len(names) > 0 && !slices.Contains(p.keys, names[0]) {
				if v := t.parts[0].plan(under(names[0]), depth+1); v != nil {
					p.keys, p.value = append(p.keys, names[0]), append(p.value, v)
					reads = true
				}
			}
		}
	}
	if !reads {
		return nil
	}
	return p
}

// avroReader reads a value. Its position becomes -1 if the value is not of its type.
type avroReader struct {
	b      []byte
	at     int
	values []value
	buf    []byte
}

// long reads a number of variable length.
func (r *avroReader) long() int64 {
	if r.at < 0 {
		return 0
	}
	v, n := binary.Varint(r.b[r.at:])
	if n <= 0 {
		r.at = -1
		return 0
	}
	r.at += n
	return v
}

// take reads n bytes.
func (r *avroReader) take(n int64) []byte {
	if r.at < 0 || n < 0 || n > int64(len(r.b)-r.at) {
		r.at = -1
		return nil
	}
	b := r.b[r.at : r.at+int(n)]
	r.at += int(n)
	return b
}

// read reads a value of a type.
func (r *avroReader) read(t *avroType, p *avroPlan, depth int) {
	if depth > maxDepth {
		r.at = -1
	}
	if r.at < 0 || t.empty && p == nil {
		return
	}
	from := r.at
	switch t.kind {
	case kindNull:
		return // it is absent
	case kindBool:
		r.take(1)
	case kindInt:
		v := r.long()
		if p != nil && r.at >= 0 {
			r.number(p, t, v)
		}
		return
	case kindFloat:
		if b := r.take(4); p != nil && b != nil {
			r.float(p, float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 32)
			return
		}
	case kindDouble:
		if b := r.take(8); p != nil && b != nil {
			r.float(p, math.Float64frombits(binary.LittleEndian.Uint64(b)), 64)
			return
		}
	case kindBytes:
		r.take(r.long())
	case kindString:
		if b := r.take(r.long()); p != nil && r.at >= 0 {
			r.text(p, b)
			return
		}
	case kindFixed:
		r.take(int64(t.size))
	case kindEnum:
		v := r.long()
		if v < 0 || v >= int64(len(t.symbols)) {
			r.at = -1
		} else if p != nil {
			r.text(p, []byte(t.symbols[v]))
			return
		}
	case kindRecord:
		for i, part := range t.parts {
			var below *avroPlan
			if p != nil {
				below = p.parts[i]
			}
			r.read(part, below, depth+1)
		}
	case kindUnion:
		v := r.long()
		if v < 0 || v >= int64(len(t.parts)) {
			r.at = -1
			return
		}
		var below *avroPlan
		if p != nil {
			below = p.parts[v]
		}
		r.read(t.parts[v], below, depth+1)
		return
	case kindArray, kindMap:
		r.blocks(t, p, depth)
	}
	if p != nil && p.path >= 0 && r.at > from {
		r.values[p.path] = value{token: other} // there, and neither a user nor a time
	}
}

// other stands for what is neither a number nor a text.
var other = []byte("{}")

// blocks reads the items of an array or a map.
func (r *avroReader) blocks(t *avroType, p *avroPlan, depth int) {
	for r.at >= 0 {
		n := r.long()
		if n == 0 {
			return
		}
		wanted := p != nil && len(p.keys) > 0
		if n < 0 {
			size := r.long() // of the block, so that it can be skipped
			if !wanted {
				r.take(size)
				continue
			}
			if n = -n; n < 0 {
				r.at = -1
				return
			}
		}
		if t.kind == kindArray && t.parts[0].empty {
			continue // any number of these takes no bytes
		}
		for ; n > 0 && r.at >= 0; n-- {
			var below *avroPlan
			if t.kind == kindMap {
				key := r.take(r.long())
				if wanted {
					if i := slices.Index(p.keys, string(key)); i >= 0 {
						below = p.value[i]
					}
				}
			}
			r.read(t.parts[0], below, depth+1)
		}
	}
}

func (r *avroReader) number(p *avroPlan, t *avroType, v int64) {
	if p.path >= 0 {
		from := len(r.buf)
		r.buf = strconv.AppendInt(r.buf, v, 10)
		r.values[p.path] = value{r.buf[from:len(r.buf):len(r.buf)], t.unit}
	}
}

func (r *avroReader) float(p *avroPlan, v float64, bits int) {
	if p.path >= 0 {
		r.buf, r.values[p.path] = floatValue(r.buf, v, bits)
	}
}

func (r *avroReader) text(p *avroPlan, text []byte) {
	if p.path >= 0 {
		r.buf, r.values[p.path] = textValue(r.buf, text)
	}
}

// floatValue writes a number as JSON has it.
func floatValue(buf []byte, v float64, bits int) ([]byte, value) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return buf, value{token: other}
	}
	from := len(buf)
	buf = strconv.AppendFloat(buf, v, 'g', -1, bits)
	if e := slices.Index(buf[from:], 'e'); e < 0 {
		return buf, value{token: buf[from:len(buf):len(buf)]}
	}
	buf = strconv.AppendFloat(buf[:from], v, 'f', -1, bits) // 1e+06 and 1000000 are one user
	return buf, value{token: buf[from:len(buf):len(buf)]}
}

// maxText is how long a text may be that is looked at: neither a user nor a time is longer.
const maxText = 2048

// textValue writes a text as JSON has it.
func textValue(buf, text []byte) ([]byte, value) {
	if len(text) > maxText || !utf8.Valid(text) {
		return buf, value{token: other}
	}
	from := len(buf)
	buf = activity.AppendString(buf, text)
	return buf, value{token: buf[from:len(buf):len(buf)]}
}
