package rule

import "math"

// MaxEvents is how many events one key has in one window at most: 2^32 - 1, which is more than a million a second for an hour. What is said of windows
// that have not ended yet relies on it.
const MaxEvents = 1<<32 - 1

// extent is what a number can be if it is not NULL: the numbers of a range, and NaN.
type extent struct {
	span
	nan bool
}

// slack is what bounds of exact numbers are widened by, in relation to them, because they are computed in floating point.
const slack = 1e-12

// rangeOf are the numbers of a type. Those of DOUBLE and FLOAT columns are finite: what is not a number, or too large for one, is NULL ([Parse]).
func rangeOf(t Type) span {
	switch {
	case t.whole():
		low, high := intRange(t.Kind)
		return span{float64(low), float64(high)}
	case t.Kind == Decimal:
		limit := math.Pow10(t.Precision - t.Scale)
		return span{-limit, limit}
	case t.Kind == Float:
		return span{-math.MaxFloat32, math.MaxFloat32}
	case t.Kind == Double:
		return span{-math.MaxFloat64, math.MaxFloat64}
	}
	return anyNumber
}

// holds reports whether a type has all numbers of a range, so that none of them overflows.
func (t Type) holds(s span) bool {
	if t.whole() || t.Kind == Decimal {
		r := rangeOf(t)
		if t.Kind == BigInt || t.Kind == Decimal {
			r.lo, r.hi = r.lo*(1-slack), r.hi*(1-slack)
		}
		return s.lo >= r.lo && s.hi <= r.hi
	}
	return true
}

// includes reports whether every number of another exact type is one of the type's, without rounding.
func (t Type) includes(o Type) bool {
	if t.whole() || t.floating() {
		return t.Kind >= o.Kind
	}
	t, o = t.asDecimal(), o.asDecimal()
	return t.Precision-t.Scale >= o.Precision-o.Scale && t.Scale >= o.Scale
}

// within cuts a range to the numbers of a type, since others are NULL. DOUBLE and FLOAT also have infinities.
func (s span) within(t Type) span {
	if t.whole() || t.Kind == Decimal {
		if s = s.and(rangeOf(t)); s.empty() {
			s = rangeOf(t)
		}
	}
	return s
}

// widened is a range of results that exact arithmetic can have, though the bounds were rounded. size is that of the operands.
func (s span) widened(t Type, size float64) span {
	if t.floating() || t.whole() && size < 1<<52 && max(math.Abs(s.lo), math.Abs(s.hi)) < 1<<52 {
		return s // floating-point bounds are rounded as the results are
	}
	return span{s.lo - size*slack, s.hi + size*slack}
}

func (s span) size() float64 { return max(math.Abs(s.lo), math.Abs(s.hi)) }

func (s span) has(f float64) bool { return s.lo <= f && f <= s.hi }

func (s span) infinite() bool { return math.IsInf(s.lo, 0) || math.IsInf(s.hi, 0) }

func (s span) or(o span) span { return span{min(s.lo, o.lo), max(s.hi, o.hi)} }

// anyOf is that of one of several numbers; of none, if all are NULL.
func anyOf(list []extent) extent {
	if len(list) == 0 {
		return extent{anyNumber, false}
	}
	out := list[0]
	for _, e := range list[1:] {
		out = extent{out.or(e.span), out.nan || e.nan}
	}
	return out
}

// constantExtent is that of a constant.
func constantExtent(n *node) extent {
	if n.value.IsNull() || !n.typ.numeric() {
		return extent{anyNumber, false}
	}
	v := toDouble(n.typ, Type{Kind: Double})(n.value).Double()
	switch {
	case math.IsNaN(v):
		return extent{anyNumber, true}
	case n.typ.floating() || n.typ.whole() && math.Abs(v) < 1<<53:
		return extent{span{v, v}, false}
	}
	return extent{span{v - math.Abs(v)*slack, v + math.Abs(v)*slack}, false}
}

// castExtent is that of a number as a number of another type.
func castExtent(from, to Type, x extent) extent {
	s := x.span
	switch {
	case to.Kind == Double && !from.floating():
		s = s.widened(Type{Kind: Decimal}, s.size())
	case to.Kind == Float:
		s = span{float64(float32(s.lo)), float64(float32(s.hi))}
	case to.whole():
		s = span{math.Trunc(s.lo), math.Trunc(s.hi)}
		if x.nan {
			s = s.or(span{})
		}
		if from.floating() { // it is clamped
			r := rangeOf(to)
			s = span{max(r.lo, min(s.lo, r.hi)), max(r.lo, min(s.hi, r.hi))}
		}
	case to.Kind == Decimal && !(from.Kind == Decimal && from.Scale <= to.Scale) && !from.whole():
		s = rounded(s, math.Pow10(-to.Scale)) // half away from zero
	}
	return extent{s, x.nan && to.floating()}
}

// rounded is a range of numbers that were rounded to multiples of a unit: a number changes by less than the unit, and not its sign.
func rounded(s span, unit float64) span {
	out := span{s.lo - unit, s.hi + unit}
	if s.lo >= 0 {
		out.lo = 0
	}
	if s.hi <= 0 {
		out.hi = 0
	}
	return out
}

// arithmeticExtent is that of an operator.
func arithmeticExtent(op string, t Type, x, y extent) extent {
	out := extent{nan: x.nan || y.nan}
	double := t.floating()
	switch op {
	case "-":
		y.span = span{-y.hi, -y.lo}
		fallthrough
	case "+":
		out.nan = out.nan || double && (math.IsInf(x.hi, 1) && math.IsInf(y.lo, -1) || math.IsInf(x.lo, -1) && math.IsInf(y.hi, 1))
		lo, hi := x.lo+y.lo, x.hi+y.hi
		if math.IsNaN(lo) {
			lo = math.Inf(-1)
		}
		if math.IsNaN(hi) {
			hi = math.Inf(1)
		}
		out.span = span{lo, hi}
		if x.size() != 0 && y.size() != 0 {
			out.span = out.widened(t, max(x.size(), y.size()))
		}
	case "*":
		out.nan = out.nan || double && (x.has(0) && y.infinite() || y.has(0) && x.infinite())
		out.span = corners(x.span, y.span, func(a, b float64) float64 { return a * b })
		if !double {
			out.span = span{out.lo - math.Abs(out.lo)*slack, out.hi + math.Abs(out.hi)*slack}
		}
		if t.Kind == Decimal { // it may be rounded
			out.span = rounded(out.span, math.Pow10(-t.Scale))
		}
	case "/":
		switch {
		case y.has(0):
			out.span, out.nan = anyNumber, out.nan || double && (x.has(0) || y.infinite() && x.infinite())
			if t.whole() { // |y| is at least 1
				out.span = span{-x.size(), x.size()}
			}
			if x.lo >= 0 && y.lo >= 0 && !double { // with -0.0 it is not so
				out.lo = 0
			}
		case x.infinite() && y.infinite():
			out.span, out.nan = anyNumber, out.nan || double
		default:
			out.span = corners(x.span, y.span, func(a, b float64) float64 { return a / b })
			if !double {
				out.span = rounded(span{out.lo - math.Abs(out.lo)*slack, out.hi + math.Abs(out.hi)*slack}, math.Pow10(-t.Scale))
			}
		}
	default: // %, whose sign is that of x
		out.span = span{-x.size(), x.size()}
		if x.lo >= 0 {
			out.lo = 0
		}
		if x.hi <= 0 {
			out.hi = 0
		}
	}
	return out
}

// corners is the range of a function that is monotone in both operands.
func corners(x, y span, f func(a, b float64) float64) span {
	out := span{math.Inf(1), math.Inf(-1)}
	for _, a := range []float64{x.lo, x.hi} {
		for _, b := range []float64{y.lo, y.hi} {
			v := f(a, b)
			if math.IsNaN(v) { // 0 · ∞
				v = 0
			}
			out = out.or(span{v, v})
		}
	}
	return out
}

// functionExtent is that of a function.
func functionExtent(n *node, args []extent) (out extent) {
	x := extent{anyNumber, true}
	if len(args) > 0 {
		x = args[0]
	}
	switch n.name {
	case "ABS":
		out = extent{span{0, x.size()}, x.nan}
		if x.lo > 0 {
			out.lo = x.lo
		} else if x.hi < 0 {
			out.lo = -x.hi
		}
		return out
	case "FLOOR", "CEIL", "CEILING":
		return extent{rounded(x.span, 1), x.nan}
	case "ROUND":
		unit := 1.0
		if len(n.args) == 2 {
			unit = math.Pow10(-int(max(-40, min(n.args[1].value.n, 40))))
		}
		s := rounded(x.span, unit)
		if n.typ.floating() && s.size() > 1e300 {
			s = rounded(s, math.Inf(1))
		}
		return extent{s, x.nan}
	case "SQRT":
		return extent{span{0, math.Inf(1)}, x.nan || x.lo < 0}
	case "LN":
		return extent{anyNumber, x.nan || x.lo < 0}
	case "EXP":
		return extent{span{0, math.Inf(1)}, x.nan}
	case "POWER":
		switch nan := x.nan || args[1].nan; {
		case x.lo > 0:
			return extent{span{0, math.Inf(1)}, nan}
		case x.lo == 0: // -0.0 to the -1 is an infinity
			return extent{anyNumber, nan}
		}
		return extent{anyNumber, true}
	case "GREATEST", "LEAST":
		out = x
		for _, a := range args[1:] {
			if out.nan = out.nan || a.nan; n.name == "GREATEST" {
				out.span = span{max(out.lo, a.lo), max(out.hi, a.hi)}
			} else {
				out.span = span{min(out.lo, a.lo), min(out.hi, a.hi)}
			}
			if a.nan || x.nan { // it is above all numbers
				out.span = out.or(a.span).or(x.span)
			}
		}
		return out
	case "CHAR_LENGTH", "CHARACTER_LENGTH", "POSITION":
		return extent{span{0, math.MaxInt32}, false}
	case "EXTRACT YEAR":
		return extent{span{-1e9, 1e9}, false}
	case "EXTRACT MONTH", "EXTRACT DAY", "EXTRACT HOUR", "EXTRACT MINUTE", "EXTRACT SECOND", "EXTRACT DOW", "EXTRACT DOY":
		return extent{span{0, 366}, false}
	}
	return extent{anyNumber, n.typ.floating()}
}
