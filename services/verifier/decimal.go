package verifier

import (
	"database/sql/driver"
	"math/big"
	"regexp"
	"strings"
)

// DECIMAL is text with all its digits here: SQLite has no such type. Arithmetic and order are those of math/big.

// maxDigits is the precision of DECIMAL.
const maxDigits = 38

func ten(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }

var rationalText = regexp.MustCompile(`^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?$`)

// rational reads a number that is written with digits. It is nil if it is none.
func rational(s string) *big.Rat {
	if !rationalText.MatchString(s) {
		return nil
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return nil
	}
	return r
}

// roundHalfUp rounds to a whole number, halves away from zero.
func roundHalfUp(r *big.Rat) *big.Int {
	n := new(big.Int).Abs(r.Num())
	n.Add(n.Lsh(n, 1), r.Denom())
	n.Quo(n, new(big.Int).Lsh(r.Denom(), 1))
	if r.Sign() < 0 {
		n.Neg(n)
	}
	return n
}

// decimal writes a number as DECIMAL(p, s), rounded; nil, which is NULL, if it has too many digits.
func decimal(r *big.Rat, p, s int) driver.Value {
	n := roundHalfUp(new(big.Rat).Mul(r, new(big.Rat).SetInt(ten(s))))
	if new(big.Int).Abs(n).Cmp(ten(p)) >= 0 {
		return nil
	}
	return digits(n, s)
}

// digits writes n·10^-s.
func digits(n *big.Int, s int) string {
	t := new(big.Int).Abs(n).String()
	if len(t) <= s {
		t = strings.Repeat("0", s-len(t)+1) + t
	}
	if s > 0 {
		t = t[:len(t)-s] + "." + t[len(t)-s:]
	}
	if n.Sign() < 0 {
		t = "-" + t
	}
	return t
}

// scaleOf is the number of digits behind the point.
func scaleOf(s string) int {
	_, fraction, _ := strings.Cut(s, ".")
	return len(fraction)
}

// decimalArithmetic is a op b as DECIMAL(p, s). NULL if it is not possible.
func decimalArithmetic(op string, a, b *big.Rat, p, s int) driver.Value {
	out := new(big.Rat)
	switch op {
	case "+":
		out.Add(a, b)
	case "-":
		out.Sub(a, b)
	case "*":
		out.Mul(a, b)
	default:
		if b.Sign() == 0 {
			return nil
		}
		out.Quo(a, b)
		if op == "%" { // a minus b as often as it is in it, which has the sign of a
			times := new(big.Int).Quo(out.Num(), out.Denom())
			out.Sub(a, out.Mul(b, new(big.Rat).SetInt(times)))
		}
	}
	return decimal(out, p, s)
}
