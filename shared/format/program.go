package format

// program reads the values at the paths of a layout from what a schema describes.
type program struct {
	schema *schema
	paths  [][]string

	avro     *avroType
	plan     *avroPlan
	messages map[string]*protoMessage // by their indexes
}

type protoMessage struct {
	plan *protoPlan
	none bool // the file has no such message
}

func newProgram(s *schema, paths [][]string) *program {
	p := &program{schema: s, paths: paths}
	switch {
	case s.avro != nil:
		p.avro = s.types
		p.plan = p.avro.plan(left(paths), 0)
	case s.proto != nil:
		p.messages = make(map[string]*protoMessage)
	}
	return p
}

// left are paths of which nothing has been gone.
func left(paths [][]string) map[int][]string {
	out := make(map[int][]string, len(paths))
	for i, p := range paths {
		out[i] = p
	}
	return out
}

// maxMessages is how many messages of a file are remembered: what comes in decides which.
const maxMessages = 1000

// read puts the values in values; they are in buf, which is returned as it has become. It reports whether body is what the schema says, to its end.
func (p *program) read(body []byte, values []value, buf []byte) ([]byte, bool) {
	if p.avro != nil {
		r := avroReader{b: body, values: values, buf: buf}
		r.read(p.avro, p.plan, 0)
		return r.buf, r.at == len(body)
	}
	index, rest, ok := message(body)
	if !ok {
		return buf, false
	}
	m := p.messages[string(index)]
	if m == nil {
		m = &protoMessage{}
		if d, err := descriptor(p.schema.proto, index); err != nil {
			m.none = true
		} else {
			m.plan = planMessage(d, left(p.paths), 0)
		}
		if len(p.messages) < maxMessages {
			p.messages[string(index)] = m
		}
	}
	if m.none {
		return buf, false
	}
	return m.plan.read(rest, values, buf)
}
