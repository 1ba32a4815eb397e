package rule

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
)

// Cell is what an aggregate knows of the events that were added to it. Its zero value is that of no events. Cells can be merged in any
// order, with the same result.
type Cell struct {
	n int64 // values that are not NULL
	// sum is that of whole numbers and decimals; for MIN and MAX, it holds the number of the extreme; beside oneDouble and oneMember, the number.
	sum  wide
	more *more // nil while nothing needs it
}

// more is what only some aggregates need.
type more struct {
	double   exact  // SUM and AVG of DOUBLE
	text     []byte // MIN and MAX of text
	distinct set
}

// Most keys have one event in a slice. These stand for what one number tells, so that such a cell needs no memory of its own.
var (
	oneDouble = &more{} // the sum is exactly this floating-point number
	oneMember = &more{} // the only distinct value is this one
)

// rest is what only some aggregates need, to be changed.
func (c *Cell) rest() *more {
	switch c.more {
	case nil:
		c.more = &more{}
	case oneDouble:
		f := math.Float64frombits(c.sum.lo)
		c.sum, c.more = wide{}, &more{}
		c.more.double.add(f)
	case oneMember:
		member := c.sum.lo
		c.sum, c.more = wide{}, &more{}
		c.more.distinct.add(member)
	}
	return c.more
}

// addDouble adds a floating-point number to the sum.
func (c *Cell) addDouble(f float64) {
	if sum, ok := c.double(); ok && !math.IsNaN(f) {
		if exactly, ok := addExactly(sum, f); ok {
			c.sum.lo, c.more = math.Float64bits(exactly), oneDouble
			return
		}
	}
	c.rest().double.add(f)
}

// double is the sum, if it is exactly one floating-point number.
func (c *Cell) double() (sum float64, ok bool) {
	switch {
	case c.more == oneDouble:
		return math.Float64frombits(c.sum.lo), true
	case c.more == nil:
		return 0, c.sum == wide{}
	}
	return 0, false
}

// addMember adds a distinct value.
func (c *Cell) addMember(member uint64) {
	switch {
	case c.more == nil && c.sum == wide{}:
		c.sum.lo, c.more = member, oneMember
	case c.more != oneMember || c.sum.lo != member:
		c.rest().distinct.add(member)
	}
}

// members calls f for each distinct value.
func (c *Cell) members(f func(uint64)) {
	switch c.more {
	case nil, oneDouble:
	case oneMember:
		f(c.sum.lo)
	default:
		c.more.distinct.each(f)
	}
}

// Distinct is the number of distinct values that the cell holds.
func (c *Cell) Distinct() int {
	switch c.more {
	case nil, oneDouble:
		return 0
	case oneMember:
		return 1
	}
	return c.more.distinct.n
}

// AtLeast reports whether the aggregate reached [MaxDistinct], so its result is a lower bound.
func (c *Cell) AtLeast() bool { return c.Distinct() >= MaxDistinct }

// Accumulator is a compiled [Aggregate].
type Accumulator struct {
	*Aggregate
	value, condition evaluator // nil without
	kind             Kind      // of the argument
	compiler         *compiler
}

func (c *compiler) accumulator(a *Aggregate) Accumulator {
	out := Accumulator{Aggregate: a, compiler: c}
	if a.arg != nil {
		out.value, out.kind = c.compile(a.arg), a.arg.typ.Kind
	}
	if a.filter != nil {
		out.condition = c.compile(a.filter)
	}
	return out
}

// Add adds an event to a cell.
func (a *Accumulator) Add(c *Cell, row []Value) {
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
		c.addMember(a.member(v))
		return
	}
	switch a.Function {
	case Sum, Avg:
		a.sum(c, v)
	case Min, Max:
		a.extreme(c, v)
	}
	c.n++
}

// member is what a set of distinct values holds of a value: its 64 bits, if it has no more.
func (a *Accumulator) member(v Value) uint64 {
	switch {
	case a.kind == String, a.kind == Token:
		h := sha256.Sum256(v.text)
		return binary.LittleEndian.Uint64(h[:])
	case a.kind == Timestamp && v.hi != 0, a.kind == Decimal && v.hi != v.n>>63:
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], uint64(v.n))
		binary.LittleEndian.PutUint64(b[8:], uint64(v.hi))
		h := sha256.Sum256(b[:])
		return binary.LittleEndian.Uint64(h[:])
	}
	return uint64(v.n)
}

func (a *Accumulator) sum(c *Cell, v Value) {
	switch a.kind {
	case Double:
		c.addDouble(v.Double())
	case Decimal:
		c.sum.add(v.decimal())
	default:
		c.sum.add(small(v.n))
	}
}

func (a *Accumulator) extreme(c *Cell, v Value) {
	if a.kind == Timestamp {
		v.hi = 0 // Flink cuts it to milliseconds, too
	}
	if a.kind == Double && v.Double() == 0 {
		v = DoubleValue(0) // -0.0 equals 0.0, and which of them came first must not matter
	}
	if c.n > 0 {
		d := compare(a.kind, v, c.held(a.kind))
		if d == 0 || d < 0 != (a.Function == Min) {
			return
		}
	}
	if a.kind == String {
		m := c.rest()
		m.text = append(m.text[:0], v.text...)
		return
	}
	c.sum.lo, c.sum.hi = uint64(v.n), uint64(v.hi)
}

// held is the extreme that the cell holds.
func (c *Cell) held(k Kind) Value {
	if k == String {
		if c.more == nil {
			return StringValue(nil)
		}
		return StringValue(c.more.text)
	}
	return Value{set: true, n: int64(c.sum.lo), hi: int64(c.sum.hi)}
}

// Merge adds what another cell of the same aggregate knows.
func (a *Accumulator) Merge(c, from *Cell) {
	if *c == (Cell{}) && (from.more == nil || from.more == oneDouble || from.more == oneMember) {
		*c = *from // as most are
		return
	}
	switch {
	case a.Function == Min || a.Function == Max:
		if from.n > 0 {
			a.extreme(c, from.held(a.kind))
		}
	case from.more == nil:
		c.sum.sum(from.sum)
	case from.more == oneDouble:
		c.addDouble(math.Float64frombits(from.sum.lo))
	case from.more == oneMember:
		c.addMember(from.sum.lo)
	default:
		m := c.rest()
		c.sum.sum(from.sum)
		m.double.merge(&from.more.double)
		from.more.distinct.each(m.distinct.add)
	}
	c.n += from.n
}

// Result is the value of the aggregate.
func (a *Accumulator) Result(c *Cell) Value {
	if a.Distinct {
		return a.distinctResult(c)
	}
	switch {
	case a.Function == Count:
		return IntValue(c.n)
	case c.n == 0:
		return Value{}
	case a.Function == Min || a.Function == Max:
		return c.held(a.kind)
	}
	return a.total(c)
}

// total is SUM or AVG of a cell that has values.
func (a *Accumulator) total(c *Cell) Value {
	switch a.kind {
	case Double:
		f, one := c.double()
		if !one && c.more != nil {
			f = c.more.double.float()
		}
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

func (a *Accumulator) decimalTotal(c *Cell) Value {
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

// distinctResult is COUNT, SUM or AVG of the distinct values.
func (a *Accumulator) distinctResult(c *Cell) Value {
	if a.Function == Count {
		return IntValue(int64(c.Distinct()))
	}
	if c.Distinct() == 0 {
		return Value{}
	}
	if c.AtLeast() {
		return a.compiler.fault()
	}
	one := Cell{n: int64(c.Distinct())}
	c.members(func(member uint64) {
		v := Value{set: true, n: int64(member)}
		if a.kind == Decimal {
			v.hi = v.n >> 63
		}
		a.sum(&one, v)
	})
	return a.total(&one)
}

// MaxDistinct bounds the distinct values that a cell holds; above it, results are lower bounds.
const MaxDistinct = 1 << 16

// set is a set of 64-bit values: a list while it is small, then a table with open addressing.
type set struct {
	n     int
	list  []uint64 // up to fewMembers in the order in which they came; above, the table, with 0 for free
	table bool
	zero  bool // of a table: 0 is a member
}

const fewMembers = 8

func (s *set) add(member uint64) {
	if !s.table {
		if slices.Contains(s.list, member) {
			return
		}
		if s.n < fewMembers {
			s.list = append(s.list, member)
			s.n++
			return
		}
		s.grow(4 * fewMembers)
	}
	if s.n >= MaxDistinct {
		return
	}
	if member == 0 {
		if !s.zero {
			s.zero = true
			s.n++
		}
		return
	}
	if s.put(member) {
		if s.n++; s.n*4 > len(s.list)*3 {
			s.grow(2 * len(s.list))
		}
	}
}

// put adds a member that is not 0 to the table, and reports whether it is new.
func (s *set) put(member uint64) bool {
	mask := uint64(len(s.list) - 1)
	for at := member * 0x9e3779b97f4a7c15 >> 32 & mask; ; at = (at + 1) & mask {
		switch s.list[at] {
		case member:
			return false
		case 0:
			s.list[at] = member
			return true
		}
	}
}

func (s *set) grow(size int) {
	old := s.list
	s.list, s.table = make([]uint64, size), true
	for _, m := range old {
		if m != 0 {
			s.put(m)
		}
	}
	s.zero = s.zero || slices.Contains(old, 0) && len(old) == fewMembers
}

// each calls f for every member.
func (s *set) each(f func(uint64)) {
	if s.zero {
		f(0)
	}
	for _, m := range s.list {
		if m != 0 || !s.table {
			f(m)
		}
	}
}
