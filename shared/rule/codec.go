package rule

import (
	"encoding/binary"
	"errors"
	"math"
)

// ErrCell is the error of bytes that are not cells.
var ErrCell = errors.New("corrupt cell")

// A cell is written as: what it has, in bits; then, in this order, as far as it has them: the number of values, the sum (or extreme) as three
// numbers, the exact sum of floating-point numbers (flags, first digit, digits), text with its length, distinct values (their number, 8
// bytes each), and floating-point numbers whose sum is the exact one (one or two, 8 bytes each). It says itself what it has, so it can be checked, passed over and
// merged without the rule.
const (
	hasN = 1 << iota
	hasSum
	hasDigits
	hasText
	hasDistinct
	hasDouble
	hasTwoDoubles
	hasMore
)

// Append writes the cells.
func (c Cells) Append(b []byte) []byte {
	for i := range c.List {
		b = c.Spill.append(b, &c.List[i])
	}
	return b
}

func (s *Spill) append(b []byte, c *Cell) []byte {
	at := len(b)
	b = append(b, 0)
	if c.n != 0 {
		b[at] |= hasN
		b = binary.AppendUvarint(b, uint64(c.n))
	}
	switch c.kind {
	case ofDoubles:
		if b[at] |= hasDouble; c.sum.hi == 0 {
			return binary.LittleEndian.AppendUint64(b, c.sum.lo)
		}
		b[at] |= hasTwoDoubles
		return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, c.sum.lo), c.sum.hi)
	case ofMembers:
		b[at] |= hasDistinct
		b = append(b, c.few)
		for _, m := range c.members() {
			b = binary.LittleEndian.AppendUint64(b, m)
		}
		return b
	}
	if c.sum != (wide{}) {
		b[at] |= hasSum
		b = binary.AppendVarint(b, int64(c.sum.lo))
		b = binary.AppendVarint(b, int64(c.sum.hi))
		b = binary.AppendVarint(b, c.sum.top)
	}
	m := s.of(c)
	if m == nil {
		return b
	}
	if d := &m.double; len(d.digits) > 0 || d.nan || d.plus || d.minus {
		b[at] |= hasDigits
		d.normalize()
		b = append(b, flag(d.nan, 1)|flag(d.plus, 2)|flag(d.minus, 4))
		b = binary.AppendUvarint(b, uint64(d.base))
		b = binary.AppendUvarint(b, uint64(len(d.digits)))
		for _, digit := range d.digits {
			b = binary.AppendVarint(b, digit)
		}
	}
	if len(m.text) > 0 {
		b[at] |= hasText
		b = binary.AppendUvarint(b, uint64(len(m.text)))
		b = append(b, m.text...)
	}
	if m.distinct.n > 0 {
		b[at] |= hasDistinct
		b = binary.AppendUvarint(b, uint64(m.distinct.n))
		m.distinct.each(func(member uint64) { b = binary.LittleEndian.AppendUint64(b, member) })
	}
	return b
}

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}

// reader reads numbers off a slice. The first thing that does not fit makes it fail.
type reader struct {
	b    []byte
	fail bool
}

func (r *reader) uint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 { // most numbers are small
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// int reads a number that is written with its sign in the lowest bit.
func (r *reader) int() int64 {
	v := r.uint()
	return int64(v>>1) ^ -int64(v&1)
}

// take returns the next n units of size bytes.
func (r *reader) take(n uint64, size int) []byte {
	if n > uint64(len(r.b)/size) {
		r.fail, r.b = true, nil
		return nil
	}
	out := r.b[:int(n)*size]
	r.b = r.b[int(n)*size:]
	return out
}

// maxValues bounds the number of values of a cell that is read, so that sums of them do not overflow.
const maxValues = 1 << 62

// Read reads the cells, which are those of no events, and returns the bytes behind them. The cells share no memory with b.
func (c Cells) Read(b []byte) (rest []byte, err error) {
	r := reader{b: b}
	for i := range c.List {
		r.cell(&c.List[i], c.Spill)
	}
	return r.rest()
}

// PassCells returns the bytes behind n cells.
func PassCells(b []byte, n int) (rest []byte, err error) {
	r := reader{b: b}
	var c Cell
	for range n {
		r.cell(&c, nil)
	}
	return r.rest()
}

func (r *reader) rest() ([]byte, error) {
	if r.fail {
		return nil, ErrCell
	}
	return r.b, nil
}

// cell reads a cell; without a spill, it only checks that there is one.
func (r *reader) cell(c *Cell, s *Spill) {
	has := r.take(1, 1)
	if r.fail || has[0] >= hasMore || has[0]&(hasDouble|hasTwoDoubles) == hasTwoDoubles {
		r.fail = true
		return
	}
	if has[0]&hasN != 0 {
		n := r.uint()
		if c.n = int64(n); n == 0 || n > maxValues {
			r.fail = true
		}
	}
	if has[0]&hasSum != 0 {
		c.sum.lo, c.sum.hi, c.sum.top = uint64(r.int()), uint64(r.int()), r.int()
	}
	if has[0]&hasDigits != 0 {
		r.digits(c, s)
	}
	if has[0]&hasText != 0 {
		if text := r.take(r.uint(), 1); s != nil {
			s.more(c).text = append([]byte(nil), text...)
		}
	}
	if has[0]&hasDistinct != 0 {
		n := r.uint()
		if n == 0 || n > MaxDistinct+1 {
			r.fail = true
		}
		for m := r.take(n, 8); len(m) > 0 && s != nil; m = m[8:] {
			s.addMember(c, binary.LittleEndian.Uint64(m))
		}
	}
	if has[0]&hasDouble != 0 {
		r.double(c, s)
	}
	if has[0]&hasTwoDoubles != 0 {
		r.double(c, s)
	}
}

// double reads a part of a sum.
func (r *reader) double(c *Cell, s *Spill) {
	if b := r.take(1, 8); len(b) > 0 && s != nil {
		s.addDouble(c, math.Float64frombits(binary.LittleEndian.Uint64(b)))
	}
}

// digits reads an exact sum.
func (r *reader) digits(c *Cell, s *Spill) {
	flags := r.take(1, 1)
	base, n := r.uint(), r.uint()
	if r.fail || flags[0] > 7 || base > maxDigits || n > maxDigits {
		r.fail = true
		return
	}
	e := exact{nan: flags[0]&1 != 0, plus: flags[0]&2 != 0, minus: flags[0]&4 != 0, base: int(base), adds: 1}
	for range n {
		d := r.int()
		if d < -1<<33 || d > 1<<33 { // normalized
			r.fail = true
		}
		if s != nil {
			e.digits = append(e.digits, d)
		}
	}
	if s != nil {
		s.more(c).double = e
	}
}
