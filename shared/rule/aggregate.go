package rule

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
)

// accumulator is a compiled [Aggregate].
type accumulator struct {
	*Aggregate
	value, condition evaluator // nil without
	kind             Kind      // of the argument
	compiler         *compiler
	recent           *recentMembers // of COUNT(DISTINCT text)
}

func (c *compiler) accumulator(a *Aggregate) accumulator {
	out := accumulator{Aggregate: a, compiler: c}
	if a.arg != nil {
		out.value, out.kind = c.compile(a.arg), a.arg.typ.Kind
	}
	if a.Distinct && (out.kind == String || out.kind == Token) {
		out.recent = &recentMembers{}
	}
	if a.filter != nil {
		out.condition = c.compile(a.filter)
	}
	return out
}

// add adds an event to a cell.
func (a *accumulator) add(c *Cell, s *Spill, row []Value) {
	if a.condition != nil && !a.condition(row).IsTrue() {
		return
	}
	if a.value == nil {
		c.n++
		return
	}
	v := a.value(row)
	if v.IsNull() {
		return
	}
	if a.Distinct {
		s.addMember(c, a.member(v))
		return
	}
	switch a.Function {
	case Sum, Avg:
		a.sum(c, s, v)
	case Min, Max:
		a.extreme(c, s, v)
	}
	c.n++
}

// member is what a set of distinct values holds of a value: its 64 bits, if it has no more.
func (a *accumulator) member(v Value) uint64 {
	switch {
	case a.kind == String, a.kind == Token:
		return a.recent.of(v.text)
	case a.kind == Timestamp && v.hi != 0, a.kind == Decimal && v.hi != v.n>>63:
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], uint64(v.n))
		binary.LittleEndian.PutUint64(b[8:], uint64(v.hi))
		h := sha256.Sum256(b[:])
		return binary.LittleEndian.Uint64(h[:])
	}
	return uint64(v.n)
}

// recentMembers are the members of texts that came lately: most columns of text have few values, or some that come again and again.
type recentMembers [128]struct {
	member uint64
	n      uint8 // 1 + the length of the text; 0 is free
	text   [47]byte
}

var recentSeed = maphash.MakeSeed() // of the places; no result depends on it

// of is the member of a text.
func (r *recentMembers) of(text []byte) uint64 {
	e := &r[maphash.Bytes(recentSeed, text)%uint64(len(r))]
	if len(text) > len(e.text) {
		return textMember(text)
	}
	if int(e.n) != 1+len(text) || string(e.text[:len(text)]) != string(text) {
		e.member, e.n = textMember(text), uint8(1+len(text))
		copy(e.text[:], text)
	}
	return e.member
}

// textMember is written to the log: it is the same in every process and version.
func textMember(text []byte) uint64 {
	h := sha256.Sum256(text)
	return binary.LittleEndian.Uint64(h[:])
}

func (a *accumulator) sum(c *Cell, s *Spill, v Value) {
	switch a.kind {
	case Double:
		s.addDouble(c, v.Double())
	case Decimal:
		c.sum.add(v.decimal())
	default:
		c.sum.add(small(v.n))
	}
}

func (a *accumulator) extreme(c *Cell, s *Spill, v Value) {
	if a.kind == Timestamp {
		v.hi = 0 // Flink cuts it to milliseconds, too
	}
	if a.kind == Double && v.Double() == 0 {
		v = DoubleValue(0) // -0.0 equals 0.0, and which of them came first must not matter
	}
	if c.n > 0 {
		d := compare(a.kind, v, held(c, s, a.kind))
		if d == 0 || d < 0 != (a.Function == Min) {
			return
		}
	}
	if a.kind == String {
		m := s.more(c)
		m.text = append(m.text[:0], v.text...)
		return
	}
	c.sum.lo, c.sum.hi = uint64(v.n), uint64(v.hi)
}

// held is the extreme that the cell holds.
func held(c *Cell, s *Spill, k Kind) Value {
	if k == String {
		if m := s.of(c); m != nil {
			return StringValue(m.text)
		}
		return StringValue(nil)
	}
	return Value{set: true, n: int64(c.sum.lo), hi: int64(c.sum.hi)}
}

// merge adds what another cell of the same aggregate knows.
func (a *accumulator) merge(c *Cell, s *Spill, from *Cell, of *Spill) {
	if from.spill == 0 && c.n == 0 && c.empty() {
		*c = *from // as most are
		return
	}
	m := of.of(from)
	switch {
	case a.Function == Min || a.Function == Max:
		if from.n > 0 {
			a.extreme(c, s, held(from, of, a.kind))
		}
	case from.kind == ofDoubles:
		hi, lo := from.doubles()
		s.addDouble(c, hi)
		s.addDouble(c, lo)
	case from.kind == ofMembers:
		for _, member := range from.members() {
			s.addMember(c, member)
		}
	case m == nil:
		c.sum.sum(from.sum)
	default:
		to := s.more(c)
		c.sum.sum(from.sum)
		to.double.merge(&m.double)
		m.distinct.each(to.distinct.add)
	}
	c.n += from.n
}

// result is the value of the aggregate.
func (a *accumulator) result(c *Cell, s *Spill) Value {
	if a.Distinct {
		return a.distinctResult(c, s)
	}
	switch {
	case a.Function == Count:
		return IntValue(c.n)
	case c.n == 0:
		return Value{}
	case a.Function == Min || a.Function == Max:
		return held(c, s, a.kind)
	}
	return a.total(c, s)
}

// total is SUM or AVG of a cell that has values.
func (a *accumulator) total(c *Cell, s *Spill) Value {
	switch a.kind {
	case Double:
		f := s.double(c)
		if a.Function == Avg {
			f /= float64(c.n)
		}
		return DoubleValue(f)
	case Decimal:
		return a.decimalTotal(c)
	}
	n, ok := c.sum.fits64()
	if !ok {
		return a.compiler.fault()
	}
	if a.Function == Avg {
		n /= c.n
	}
	return IntValue(n)
}

func (a *accumulator) decimalTotal(c *Cell) Value {
	d, ok := c.sum.fits(maxPrecision)
	if !ok {
		return a.compiler.fault()
	}
	if a.Function == Sum {
		return decimalValue(d)
	}
	b := d.big()
	b.Mul(b, powers[a.Type.Scale-a.arg.typ.Scale])
	if d, ok = fromBig(roundQuo(b, small(c.n).big()), maxPrecision); !ok {
		return a.compiler.fault()
	}
	return decimalValue(d)
}

// lowerBound is the high half of a count of distinct values that may be greater than its number.
const lowerBound = 1

// distinctResult is COUNT, SUM or AVG of the distinct values.
func (a *accumulator) distinctResult(c *Cell, s *Spill) Value {
	n := c.distinct(s)
	switch {
	case a.Function == Count && n > MaxDistinct:
		return Value{set: true, n: MaxDistinct, hi: lowerBound}
	case a.Function == Count:
		return IntValue(int64(n))
	case n == 0:
		return Value{}
	case n > MaxDistinct:
		return a.compiler.fault()
	}
	one := NewCells(1)
	sum := &one.List[0]
	s.eachMember(c, func(member uint64) {
		v := Value{set: true, n: int64(member)}
		if a.kind == Decimal {
			v.hi = v.n >> 63
		}
		a.sum(sum, one.Spill, v)
	})
	sum.n = int64(n)
	return a.total(sum, one.Spill)
}
