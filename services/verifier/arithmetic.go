package verifier

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// fit is a whole number that must fit into its type, else it is NULL.
func fit(bits int, sql string) term {
	return term{sql: fmt.Sprintf("f_fit(%s, %d)", sql, bits), typ: typ{kind: kInt, bits: bits}}
}

func (q *query) negate(x term) term {
	if x.constant != nil && x.typ.numeric() && !strings.HasPrefix(*x.constant, "-") {
		return numeric("-" + *x.constant)
	}
	switch x.typ.kind {
	case kInt:
		return fit(x.typ.bits, "- "+x.sql)
	case kDouble:
		return term{sql: "f_negate(" + x.sql + ")", typ: x.typ}
	case kDecimal:
		return term{sql: fmt.Sprintf("f_arithmetic('-', '0', %s, %d, %d)", x.sql, x.typ.precision, x.typ.scale), typ: x.typ}
	}
	refuse("- needs a number")
	return x
}

func (q *query) arithmetic(op string, x, y term) term {
	if x.typ.kind == kTime && y.typ.kind == kInterval && (op == "+" || op == "-") {
		return term{sql: fmt.Sprintf("f_shift(%s, %s%d)", x.sql, op, y.ms), typ: x.typ}
	}
	switch {
	case !x.typ.numeric() || !y.typ.numeric():
		refuse("%s needs numbers", op)
	case x.typ.kind == kInt && y.typ.kind == kInt:
		if op == "%" {
			return term{sql: "(" + x.sql + " % " + y.sql + ")", typ: y.typ}
		}
		return fit(max(x.typ.bits, y.typ.bits), x.sql+" "+op+" "+y.sql)
	case x.typ.kind == kDouble || y.typ.kind == kDouble:
		if op == "%" {
			refuse("%% needs exact numbers")
		}
		t := typ{kind: kDouble}
		a, b := q.convert(x, t), q.convert(y, t)
		if op == "/" {
			return term{sql: "f_divide(" + a + ", " + b + ")", typ: t} // by zero it is infinite
		}
		return term{sql: "(" + a + " " + op + " " + b + ")", typ: t}
	}
	a, b := x.typ.exact(), y.typ.exact()
	s := max(a.scale, b.scale)
	var t typ
	switch op {
	case "+", "-":
		t = bounded(max(a.precision-a.scale, b.precision-b.scale)+s+1, s)
	case "*":
		t = bounded(a.precision+b.precision+1, a.scale+b.scale)
	case "/":
		s = max(6, a.scale+b.precision+1)
		t = bounded(a.precision-a.scale+b.scale+s, s)
	case "%":
		t = bounded(min(a.precision-a.scale, b.precision-b.scale)+s, s)
	}
	return term{sql: fmt.Sprintf("f_arithmetic('%s', %s, %s, %d, %d)", op, x.sql, y.sql, t.precision, t.scale), typ: t}
}

// numeric is a number as it is written, with its sign.
func numeric(s string) term {
	x := term{constant: &s}
	if strings.ContainsAny(s, "eE") {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			refuse("%s is too large", s)
		}
		x.sql, x.typ = realSQL(f), typ{kind: kDouble}
		return x
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		x.sql, x.typ = s, typ{kind: kInt, bits: 64}
		if n == int64(int32(n)) {
			x.typ.bits = 32
		}
		return x
	}
	r := rational(s)
	whole, fraction, _ := strings.Cut(strings.TrimPrefix(s, "-"), ".")
	if r == nil || len(whole)+len(fraction) > maxDigits {
		refuse("%s has too many digits", s)
	}
	x.typ = typ{kind: kDecimal, precision: len(whole) + len(fraction), scale: len(fraction)}
	x.sql = quoteSQL(digits(new(big.Int).Mul(r.Num(), new(big.Int).Quo(ten(x.typ.scale), r.Denom())), x.typ.scale))
	return x
}

// realSQL writes a number as SQLite reads a REAL.
func realSQL(f float64) string {
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s
}

// round translates FLOOR, CEIL and ROUND.
func (q *query) round(name string, args []term) term {
	x, n := args[0], 0
	if len(args) > 1 {
		if args[1].constant == nil || name != "ROUND" {
			refuse("%s needs a constant number of digits", name)
		}
		n, _ = strconv.Atoi(*args[1].constant)
	}
	t := x.typ
	switch {
	case !t.numeric():
		refuse("%s needs a number", name)
	case t.kind == kDecimal && name == "ROUND":
		s := max(0, min(n, t.scale))
		whole := t.precision - t.scale
		if s < t.scale {
			whole++
		}
		t.precision, t.scale = max(1, min(maxDigits, whole+s)), s
	case t.kind == kDecimal:
		t.precision, t.scale = max(1, min(maxDigits, t.precision-t.scale+1)), 0
	case t.kind == kInt && name == "ROUND":
		return fit(t.bits, fmt.Sprintf("f_round('ROUND', %s, %d, 38, 0)", x.sql, n))
	case t.kind == kInt:
		return x
	}
	return term{sql: fmt.Sprintf("f_round(%s, %s, %d, %d, %d)", quoteSQL(strings.TrimSuffix(name, "ING")), x.sql, n, t.precision, t.scale), typ: t}
}
