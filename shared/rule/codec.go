package rule

import (
	"encoding/binary"
	"errors"
	"math"
)

// ErrCell is the error of bytes that are not a cell.
var ErrCell = errors.New("corrupt cell")

// A cell is written as: what it has, in bits; then, in this order, as far as it has them: the number of values, the sum (or extreme) as three
// numbers, the exact sum of floating-point numbers (flags, first digit, digits), text with its length, distinct values (their number, 8
// bytes each), and a sum that is exactly one floating-point number (its 8 bytes). It says itself what it has, so it can be checked, passed over and merged without the rule.
const (
	hasN = 1 << iota
	hasSum
	hasDouble
	hasText
	hasDistinct
	hasOneDouble
)

// Append writes the cell.
func (c *Cell) Append(b []byte) []byte {
	at := len(b)
	b = append(b, 0)
	if c.n != 0 {
		b[at] |= hasN
		b = binary.AppendUvarint(b, uint64(c.n))
	}
	m := c.more
	switch m {
	case oneDouble:
		b[at] |= hasOneDouble
		return binary.LittleEndian.AppendUint64(b, c.sum.lo)
	case oneMember:
		b[at] |= hasDistinct
		return binary.LittleEndian.AppendUint64(append(b, 1), c.sum.lo)
	}
	if c.sum != (wide{}) {
		b[at] |= hasSum
		b = binary.AppendVarint(b, int64(c.sum.lo))
		b = binary.AppendVarint(b, int64(c.sum.hi))
		b = binary.AppendVarint(b, c.sum.top)
	}
	if m == nil {
		return b
	}
	if d := &m.double; len(d.digits) > 0 || d.nan || d.plus || d.minus {
		b[at] |= hasDouble
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

// ReadCell reads a cell and returns the bytes behind it. The cell shares no memory with b. Without a cell, it checks that there is one.
func ReadCell(b []byte, c *Cell) ([]byte, error) {
	r := reader{b: b}
	kind := r.take(1, 1)
	if r.fail || kind[0] >= 2*hasOneDouble {
		return nil, ErrCell
	}
	check := c == nil
	if check {
		c = &Cell{}
	}
	*c = Cell{}
	if kind[0]&hasN != 0 {
		n := r.uint()
		if c.n = int64(n); n == 0 || n > maxValues {
			r.fail = true
		}
	}
	if kind[0]&hasSum != 0 {
		c.sum.lo, c.sum.hi, c.sum.top = uint64(r.int()), uint64(r.int()), r.int()
	}
	if kind[0]&hasDouble != 0 {
		r.double(c, check)
	}
	if kind[0]&hasText != 0 {
		if text := r.take(r.uint(), 1); !check {
			c.rest().text = append([]byte(nil), text...)
		}
	}
	if kind[0]&hasDistinct != 0 {
		n := r.uint()
		if n == 0 || n > MaxDistinct {
			r.fail = true
		}
		for m := r.take(n, 8); len(m) > 0 && !check; m = m[8:] {
			c.addMember(binary.LittleEndian.Uint64(m))
		}
	}
	if kind[0]&hasOneDouble != 0 {
		if f := r.take(1, 8); len(f) > 0 && !check {
			c.addDouble(math.Float64frombits(binary.LittleEndian.Uint64(f)))
		}
	}
	if r.fail {
		return nil, ErrCell
	}
	return r.b, nil
}

func (r *reader) double(c *Cell, check bool) {
	flags := r.take(1, 1)
	base, n := r.uint(), r.uint()
	if r.fail || flags[0] > 7 || base > maxDigits || n > maxDigits {
		r.fail = true
		return
	}
	var e exact
	e.nan, e.plus, e.minus = flags[0]&1 != 0, flags[0]&2 != 0, flags[0]&4 != 0
	e.base, e.adds = int(base), 1
	for range n {
		d := r.int()
		if d < -1<<33 || d > 1<<33 { // normalized
			r.fail = true
		}
		if !check {
			e.digits = append(e.digits, d)
		}
	}
	if !check {
		c.rest().double = e
	}
}
