package rule

import (
	"math"
	"math/big"
	"math/bits"
)

// wide is a sum of DECIMALs or whole numbers that cannot overflow: 192 bits hold 2^64 of the largest ones. So a sum does not depend on the order
// in which its parts are added.
type wide struct {
	top    int64
	hi, lo uint64
}

func (w *wide) add(d int128) { w.sum(wide{d.hi >> 63, uint64(d.hi), d.lo}) }

func (w *wide) sum(v wide) {
	var carry uint64
	w.lo, carry = bits.Add64(w.lo, v.lo, 0)
	w.hi, carry = bits.Add64(w.hi, v.hi, carry)
	w.top += v.top + int64(carry)
}

// fits returns the sum as a DECIMAL of the precision, if it is one.
func (w wide) fits(precision int) (int128, bool) {
	d := int128{int64(w.hi), w.lo}
	return d, w.top == d.hi>>63 && d.within(precision)
}

func (w wide) fits64() (int64, bool) {
	n, ok := int128{int64(w.hi), w.lo}.fits64()
	return n, ok && w.top == int64(w.hi)>>63
}

// exact is the sum of floating-point numbers without any rounding, as a number of base 2^32 whose digits are signed. Only the digits in use are
// kept: prices take four of them. The result is the true sum, rounded once, so it does not depend on the order.
type exact struct {
	base   int // of the first digit: its unit is 2^(32·base - 1074)
	digits []int64
	adds   int // since the digits were last normalized
	// NaN and infinities that were added.
	nan, plus, minus bool
}

const (
	digitBits = 32
	lowest    = 1074 // the smallest floating-point number is 2^-1074
	maxAdds   = 1 << 30
	maxDigits = (1024+lowest)/digitBits + 3 // with room for carries
)

// twoSum returns a + b rounded, and what the rounding has left out. That is NaN if the sum is not finite.
func twoSum(a, b float64) (sum, err float64) {
	sum = a + b
	of := sum - a // what the sum has of b
	return sum, (a - (sum - of)) + (b - of)
}

func (e *exact) add(f float64) {
	switch {
	case math.IsNaN(f):
		e.nan = true
		return
	case math.IsInf(f, 1):
		e.plus = true
		return
	case math.IsInf(f, -1):
		e.minus = true
		return
	case f == 0:
		return
	}
	b := math.Float64bits(f)
	m, exp := b&(1<<52-1), int(b>>52&0x7ff)
	if exp == 0 {
		exp = 1
	} else {
		m |= 1 << 52
	}
	at := exp - 1 // the bit of m's lowest digit, from 2^-1074
	hi, lo := bits.Mul64(m, 1<<(at%digitBits))
	i := e.reach(at/digitBits, 3)
	sign := int64(1)
	if f < 0 {
		sign = -1
	}
	e.digits[i] += sign * int64(lo&0xffffffff)
	e.digits[i+1] += sign * int64(lo>>digitBits)
	e.digits[i+2] += sign * int64(hi)
	if e.adds++; e.adds >= maxAdds {
		e.normalize()
	}
}

// reach makes room for n digits from at on, and returns the index of the first.
func (e *exact) reach(at, n int) int {
	if len(e.digits) == 0 {
		e.base = at
	}
	if at < e.base {
		e.digits = append(make([]int64, e.base-at, e.base-at+len(e.digits)), e.digits...)
		e.base = at
	}
	for len(e.digits) < at-e.base+n {
		e.digits = append(e.digits, 0)
	}
	return at - e.base
}

func (e *exact) merge(o *exact) {
	e.nan, e.plus, e.minus = e.nan || o.nan, e.plus || o.plus, e.minus || o.minus
	if len(o.digits) == 0 {
		return
	}
	i := e.reach(o.base, len(o.digits))
	for k, d := range o.digits {
		e.digits[i+k] += d
	}
	if e.adds += o.adds + 1; e.adds >= maxAdds {
		e.normalize()
	}
}

// normalize carries, so that each digit but the last lies between 0 and 2^32. The last has the sign, and at most one bit more.
func (e *exact) normalize() {
	for i := 0; i < len(e.digits); i++ {
		d := e.digits[i]
		carry := d >> digitBits
		if i == len(e.digits)-1 {
			if carry >= -1 && carry <= 1 {
				break
			}
			e.digits = append(e.digits, 0)
		}
		e.digits[i] = d - carry<<digitBits
		e.digits[i+1] += carry
	}
	e.adds = 1
}

func (e *exact) float() float64 {
	switch {
	case e.nan || e.plus && e.minus:
		return math.NaN()
	case e.plus:
		return math.Inf(1)
	case e.minus:
		return math.Inf(-1)
	}
	sum := new(big.Int)
	for i := len(e.digits) - 1; i >= 0; i-- {
		sum.Add(sum.Lsh(sum, digitBits), big.NewInt(e.digits[i]))
	}
	f := new(big.Float).SetInt(sum) // exact
	out, _ := f.SetMantExp(f, e.base*digitBits-lowest).Float64()
	return out
}
