package rule

import (
	"cmp"
	"math/big"
	"math/bits"
	"strings"
)

// int128 is the unscaled value of a DECIMAL, which has up to 38 digits. Most values fit into 64 bits; what does not is left to math/big.
type int128 struct {
	hi int64
	lo uint64
}

func small(n int64) int128 { return int128{n >> 63, uint64(n)} }

// fits64 returns the value as an int64, if it is one.
func (a int128) fits64() (int64, bool) { return int64(a.lo), a.hi == int64(a.lo)>>63 }

func (a int128) negative() bool { return a.hi < 0 }

func (a int128) add(b int128) (int128, bool) {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, _ := bits.Add64(uint64(a.hi), uint64(b.hi), carry)
	sum := int128{int64(hi), lo}
	return sum, a.negative() != b.negative() || sum.negative() == a.negative()
}

func (a int128) neg() int128 {
	lo, borrow := bits.Sub64(0, a.lo, 0)
	hi, _ := bits.Sub64(0, uint64(a.hi), borrow)
	return int128{int64(hi), lo}
}

func (a int128) cmp(b int128) int {
	return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(a.lo, b.lo))
}

func (a int128) big() *big.Int {
	if n, ok := a.fits64(); ok {
		return big.NewInt(n)
	}
	b := new(big.Int).Lsh(big.NewInt(a.hi), 64)
	return b.Add(b, new(big.Int).SetUint64(a.lo))
}

// fromBig returns b, and whether it has no more digits than a DECIMAL of that precision.
func fromBig(b *big.Int, precision int) (int128, bool) {
	if b.CmpAbs(powers[precision]) >= 0 {
		return int128{}, false
	}
	lo := new(big.Int).And(b, mask64)
	hi := new(big.Int).Rsh(b, 64)
	return int128{hi.Int64(), lo.Uint64()}, true
}

var (
	mask64 = new(big.Int).SetUint64(1<<64 - 1)
	powers = func() (p [2*maxPrecision + 2]*big.Int) {
		for i := range p {
			p[i] = new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(i)), nil)
		}
		return p
	}()
	powers128 = func() (p [maxPrecision + 1]int128) {
		for i := range p {
			p[i], _ = fromBig(powers[i], i+1)
		}
		return p
	}()
)

// within reports whether a has at most precision digits.
func (a int128) within(precision int) bool {
	if a.negative() {
		a = a.neg()
	}
	return !a.negative() && a.cmp(powers128[precision]) < 0
}

// roundQuo returns a / b, rounded half away from zero. b is positive.
func roundQuo(a, b *big.Int) *big.Int {
	q, r := new(big.Int).QuoRem(a, b, new(big.Int))
	if r.Lsh(r.Abs(r), 1).Cmp(b) >= 0 {
		q.Add(q, big.NewInt(int64(a.Sign())))
	}
	return q
}

// rescale returns the number a·10^-from as a DECIMAL(precision, to), rounded half away from zero, and whether it fits.
func (a int128) rescale(from, to, precision int) (int128, bool) {
	if from == to {
		return a, a.within(precision)
	}
	if n, ok := a.fits64(); ok && to > from && to-from < len(small10) {
		if hi, lo := bits.Mul64(magnitude(n), uint64(small10[to-from])); hi == 0 && lo < 1<<63 {
			out := int128{0, lo}
			if n < 0 {
				out = out.neg()
			}
			return out, out.within(precision)
		}
	}
	b := a.big()
	if to > from {
		b.Mul(b, powers[to-from])
	} else {
		b = roundQuo(b, powers[from-to])
	}
	return fromBig(b, precision)
}

var small10 = [...]int64{1, 10, 100, 1000, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18}

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

// text writes a·10^-scale with all its digits.
func (a int128) text(scale int) string {
	digits := a.big().String()
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	if scale == 0 {
		return sign + digits
	}
	if len(digits) <= scale {
		digits = strings.Repeat("0", scale-len(digits)+1) + digits
	}
	return sign + digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
}

// parseDecimal reads a number, rounded half away from zero to scale digits, and reports whether it is one that fits.
func parseDecimal(text string, precision, scale int) (int128, bool) {
	mantissa, exp, ok := splitNumber(text)
	if !ok {
		return int128{}, false
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(strings.TrimLeft(whole, "+-")+fraction, "0")
	point := exp - len(fraction) // the number is digits·10^point
	if digits == "" {
		return int128{}, true
	}
	if len(digits)+point > precision-scale {
		return int128{}, false
	}
	if len(digits)+point < -scale {
		return int128{}, true
	}
	b, _ := new(big.Int).SetString(digits, 10)
	if shift := point + scale; shift >= 0 {
		b.Mul(b, powers[min(shift, len(powers)-1)])
	} else {
		b = roundQuo(b, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(-shift)), nil))
	}
	if strings.HasPrefix(mantissa, "-") {
		b.Neg(b)
	}
	return fromBig(b, precision)
}

// exactDecimal reports whether text is a number of at most so many digits after the point, so that parseDecimal need not round it.
func exactDecimal(text string, scale int) bool {
	mantissa, exp, ok := splitNumber(text)
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole, "+-") + fraction
	significant := strings.TrimRight(digits, "0")
	return ok && (significant == "" || len(fraction)-exp-(len(digits)-len(significant)) <= scale)
}

// splitNumber splits a decimal number into mantissa and exponent, and reports whether it is one.
func splitNumber(text string) (mantissa string, exp int, ok bool) {
	mantissa = text
	if at := strings.IndexAny(text, "eE"); at >= 0 {
		mantissa = text[:at]
		digits := strings.TrimPrefix(text[at+1:], "+")
		negative := strings.HasPrefix(digits, "-")
		digits = strings.TrimPrefix(digits, "-")
		if digits == "" || len(digits) > 9 {
			return "", 0, false
		}
		for _, c := range []byte(digits) {
			if c < '0' || c > '9' {
				return "", 0, false
			}
			exp = exp*10 + int(c-'0')
		}
		if negative {
			exp = -exp
		}
	}
	points, digits := 0, 0
	for i, c := range []byte(mantissa) {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c == '.':
			points++
		case (c == '-' || c == '+') && i == 0:
		default:
			return "", 0, false
		}
	}
	return mantissa, exp, digits > 0 && points <= 1
}
