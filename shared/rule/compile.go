package rule

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"slices"
)

// evaluator is a compiled node: a function of a row.
type evaluator func(row []Value) Value

// compiler turns nodes into functions.
type compiler struct {
	// faults counts what would have failed a Flink job: nil if nobody counts.
	faults *int64
	// Where keys, aggregates and bounds are in a window's row.
	aggregates, bounds int
}

// fault is the NULL in place of an impossible result.
func (c *compiler) fault() Value {
	if c.faults != nil {
		*c.faults++
	}
	return Value{}
}

func (c *compiler) list(nodes []*node) []evaluator {
	out := make([]evaluator, len(nodes))
	for i, n := range nodes {
		out[i] = c.compile(n)
	}
	return out
}

func (c *compiler) compile(n *node) evaluator {
	i := n.index
	switch n.op {
	case opConst:
		v := n.value
		return func([]Value) Value { return v }
	case opInput, opKey, opAggregate:
		i, _ = c.place(n)
		return func(row []Value) Value { return row[i] }
	case opBound:
		if i == boundLast {
			i = c.bounds + boundEnd
			return func(row []Value) Value { return TimeValue(row[i].n-1, 0) }
		}
		i += c.bounds
		return func(row []Value) Value { return row[i] }
	}
	args := c.list(n.args)
	switch n.op {
	case opCall:
		return c.call(n, args)
	case opCast:
		x, convert := args[0], c.conversion(n.args[0].typ, n.typ)
		return func(row []Value) Value {
			v := x(row)
			if v.IsNull() {
				return v
			}
			return convert(v)
		}
	case opCompare:
		if is := columnIs(n); is != nil {
			return is
		}
		if compares := c.numberCompares(n); compares != nil {
			return compares
		}
		return comparison(n.name, n.args[0].typ.Kind, args[0], args[1])
	case opAnd:
		return conjunction(args[0], args[1], false)
	case opOr:
		return conjunction(args[0], args[1], true)
	case opNot:
		x := args[0]
		return func(row []Value) Value {
			v := x(row)
			if v.set {
				v.n ^= 1
			}
			return v
		}
	case opIsNull:
		x := args[0]
		return func(row []Value) Value { return BoolValue(!x(row).set) }
	case opIsTrue:
		x := args[0]
		return func(row []Value) Value { return BoolValue(x(row).IsTrue()) }
	case opIsFalse:
		x := args[0]
		return func(row []Value) Value { v := x(row); return BoolValue(v.set && v.n == 0) }
	case opDistinct:
		x, y, k := args[0], args[1], n.args[0].typ.Kind
		return func(row []Value) Value {
			a, b := x(row), y(row)
			if a.set != b.set {
				return BoolValue(true)
			}
			return BoolValue(a.set && !equal(k, a, b))
		}
	case opIn:
		return c.in(n, args)
	case opLike, opSimilar:
		return c.like(n, args)
	case opCase:
		return func(row []Value) Value {
			for i := 0; i+1 < len(args); i += 2 {
				if args[i](row).IsTrue() {
					return args[i+1](row)
				}
			}
			return args[len(args)-1](row)
		}
	case opCoalesce:
		return func(row []Value) Value {
			for _, x := range args[:len(args)-1] {
				if v := x(row); v.set {
					return v
				}
			}
			return args[len(args)-1](row)
		}
	}
	panic(fmt.Sprintf("unknown operation %d", n.op))
}

// conjunction is AND, and OR if decided is true: the operand that decides the result.
func conjunction(x, y evaluator, decided bool) evaluator {
	var d int64
	if decided {
		d = 1
	}
	return func(row []Value) Value {
		a := x(row)
		if a.set && a.n == d {
			return a
		}
		b := y(row)
		if b.set && b.n == d || a.set {
			return b
		}
		return a // NULL
	}
}

// equal reports whether = holds. NaN equals nothing.
func equal(k Kind, a, b Value) bool {
	switch k {
	case String:
		return bytes.Equal(a.text, b.text)
	case Float, Double:
		return a.Double() == b.Double()
	case Decimal, Timestamp:
		return a.n == b.n && a.hi == b.hi
	}
	return a.n == b.n
}

// comparison compares two operands of a kind.
func comparison(op string, k Kind, x, y evaluator) evaluator {
	var holds func(a, b Value) bool
	switch {
	case op == "=":
		holds = func(a, b Value) bool { return equal(k, a, b) }
	case op == "<>":
		holds = func(a, b Value) bool { return !equal(k, a, b) }
	case k == Float || k == Double:
		holds = map[string]func(a, b Value) bool{
			"<":  func(a, b Value) bool { return a.Double() < b.Double() },
			"<=": func(a, b Value) bool { return a.Double() <= b.Double() },
			">":  func(a, b Value) bool { return a.Double() > b.Double() },
			">=": func(a, b Value) bool { return a.Double() >= b.Double() },
		}[op]
	default:
		holds = map[string]func(a, b Value) bool{
			"<":  func(a, b Value) bool { return compare(k, a, b) < 0 },
			"<=": func(a, b Value) bool { return compare(k, a, b) <= 0 },
			">":  func(a, b Value) bool { return compare(k, a, b) > 0 },
			">=": func(a, b Value) bool { return compare(k, a, b) >= 0 },
		}[op]
	}
	return func(row []Value) Value {
		a, b := x(row), y(row)
		if !a.set || !b.set {
			return Value{}
		}
		return BoolValue(holds(a, b))
	}
}

// columnIs compiles that a text column equals a constant, as most conditions on events do; nil for other comparisons.
func columnIs(n *node) evaluator {
	column, constant := n.args[0], n.args[1]
	if column.op == opConst {
		column, constant = constant, column
	}
	if n.name != "=" || column.op != opInput || column.typ.Kind != String || constant.op != opConst || constant.value.IsNull() {
		return nil
	}
	i, text := column.index, string(constant.value.text)
	return func(row []Value) Value {
		if v := &row[i]; v.set {
			return BoolValue(string(v.text) == text)
		}
		return Value{}
	}
}

// place is where a node's value is in the row, if it is there as it is.
func (c *compiler) place(n *node) (at int, ok bool) {
	switch n.op {
	case opInput, opKey:
		return n.index, true
	case opAggregate:
		return c.aggregates + n.index, true
	}
	return 0, false
}

// numberCompares compiles that a number of the row is above or below a constant, as most conditions on windows have it; nil for other comparisons.
func (c *compiler) numberCompares(n *node) evaluator {
	x, constant, k := n.args[0], n.args[1], n.args[0].typ.Kind
	at, ok := c.place(x)
	if !ok || constant.op != opConst || constant.value.IsNull() {
		return nil
	}
	whole := x.typ.whole() && constant.typ.whole()
	double := (k == Float || k == Double) && constant.typ.floating()
	if !whole && !double {
		return nil
	}
	var below, equal, above bool // for which order of the two it is TRUE
	switch n.name {
	case "<":
		below = true
	case "<=":
		below, equal = true, true
	case ">":
		above = true
	case ">=":
		equal, above = true, true
	default:
		return nil
	}
	if whole {
		than := constant.value.n
		return func(row []Value) Value {
			v := &row[at]
			if !v.set {
				return Value{}
			}
			return BoolValue(below && v.n < than || equal && v.n == than || above && v.n > than)
		}
	}
	than := constant.value.Double()
	return func(row []Value) Value {
		v := &row[at]
		if !v.set {
			return Value{}
		}
		d := v.Double()
		return BoolValue(below && d < than || equal && d == than || above && d > than)
	}
}

// in compiles IN. Long lists of constants become a set.
func (c *compiler) in(n *node, args []evaluator) evaluator {
	k := n.args[0].typ.Kind
	x, list := args[0], args[1:]
	constants := !slices.ContainsFunc(n.args[1:], func(a *node) bool { return a.op != opConst })
	if k == String && constants {
		set, null := map[string]bool{}, false
		for _, a := range n.args[1:] {
			if a.value.IsNull() {
				null = true
			} else {
				set[string(a.value.text)] = true
			}
		}
		return func(row []Value) Value {
			v := x(row)
			switch {
			case !v.set:
				return v
			case set[string(v.text)]:
				return BoolValue(true)
			case null:
				return Value{}
			}
			return BoolValue(false)
		}
	}
	return func(row []Value) Value {
		v := x(row)
		if !v.set {
			return v
		}
		null := false
		for _, e := range list {
			w := e(row)
			if null = null || !w.set; w.set && equal(k, v, w) {
				return BoolValue(true)
			}
		}
		if null {
			return Value{}
		}
		return BoolValue(false)
	}
}

func (c *compiler) like(n *node, args []evaluator) evaluator {
	x, p := args[0], n.like
	match := p.match
	if p.regexp != nil {
		match = p.regexp.Match
	}
	if !p.dynamic {
		if n.args[1].value.IsNull() {
			return func([]Value) Value { return Value{} }
		}
		return func(row []Value) Value {
			v := x(row)
			if !v.set {
				return v
			}
			return BoolValue(match(v.text))
		}
	}
	y := args[1]
	return func(row []Value) Value {
		v, w := x(row), y(row)
		if !v.set || !w.set {
			return Value{}
		}
		p, problem := likePattern(string(w.text), p.escape, false)
		if problem != "" {
			return c.fault()
		}
		return BoolValue(p.match(v.text))
	}
}

// call compiles a function or operator that is NULL if an operand is.
func (c *compiler) call(n *node, args []evaluator) evaluator {
	f := c.function(n)
	in := make([]Value, len(args))
	if len(args) == 2 { // arithmetic, mostly
		x, y := args[0], args[1]
		return func(row []Value) Value {
			if in[0] = x(row); !in[0].set {
				return Value{}
			}
			if in[1] = y(row); !in[1].set {
				return Value{}
			}
			return f(in)
		}
	}
	return func(row []Value) Value {
		for i, x := range args {
			if in[i] = x(row); !in[i].set {
				return Value{}
			}
		}
		return f(in)
	}
}

func (c *compiler) function(n *node) func([]Value) Value {
	switch n.name {
	case "NEGATE":
		negate := negation(n.typ, c.fault)
		return func(args []Value) Value { return negate(args[0]) }
	case "+", "-", "*", "/", "%":
		return c.arithmetic(n)
	}
	for name := n.name; ; name = name[:len(name)-1] { // the name may have a word behind it
		if f, ok := functions[name]; ok {
			return f.make(n, c.fault)
		}
	}
}

// inRange reports whether a whole number is one of its kind.
func inRange(k Kind, n int64) bool {
	switch k {
	case TinyInt:
		return n == int64(int8(n))
	case SmallInt:
		return n == int64(int16(n))
	case Int:
		return n == int64(int32(n))
	}
	return true
}

func (c *compiler) arithmetic(n *node) func([]Value) Value {
	switch n.typ.Kind {
	case Timestamp:
		sign := int64(1)
		if n.name == "-" {
			sign = -1
		}
		return func(args []Value) Value { return TimeValue(args[0].n+sign*args[1].n, args[0].hi) }
	case Double:
		f := map[string]func(a, b float64) float64{
			"+": func(a, b float64) float64 { return a + b }, "-": func(a, b float64) float64 { return a - b },
			"*": func(a, b float64) float64 { return a * b }, "/": func(a, b float64) float64 { return a / b },
		}[n.name]
		return func(args []Value) Value { return DoubleValue(f(args[0].Double(), args[1].Double())) }
	case Decimal:
		return c.decimalArithmetic(n)
	}
	k := n.typ.Kind
	f := map[string]func(a, b int64) (int64, bool){
		"+": addInt, "-": func(a, b int64) (int64, bool) { s := a - b; return s, (a^b)&(a^s) >= 0 },
		"*": mulInt,
		"/": func(a, b int64) (int64, bool) {
			if b == 0 || a == math.MinInt64 && b == -1 {
				return 0, false
			}
			return a / b, true
		},
		"%": func(a, b int64) (int64, bool) {
			if b == 0 {
				return 0, false
			}
			if b == -1 {
				return 0, true
			}
			return a % b, true
		},
	}[n.name]
	return func(args []Value) Value {
		r, ok := f(args[0].n, args[1].n)
		if !ok || !inRange(k, r) {
			return c.fault()
		}
		return IntValue(r)
	}
}

func addInt(a, b int64) (int64, bool) {
	s := a + b
	return s, (a^s)&(b^s) >= 0
}

func mulInt(a, b int64) (int64, bool) {
	hi, lo := bits.Mul64(magnitude(a), magnitude(b))
	if hi != 0 {
		return 0, false
	}
	if (a < 0) != (b < 0) {
		return -int64(lo), lo <= 1<<63
	}
	return int64(lo), lo < 1<<63
}

func (c *compiler) decimalArithmetic(n *node) func([]Value) Value {
	a, b, t := n.args[0].typ, n.args[1].typ, n.typ
	result := func(d int128, ok bool) Value {
		if !ok {
			return c.fault()
		}
		return decimalValue(d)
	}
	fit := func(x *big.Int, scale int) Value { // x·10^-scale
		if scale > t.Scale {
			x = roundQuo(x, powers[scale-t.Scale])
		} else if scale < t.Scale {
			x.Mul(x, powers[t.Scale-scale])
		}
		return result(fromBig(x, t.Precision))
	}
	scale := max(a.Scale, b.Scale)
	at := func(v Value, from Type) *big.Int { // v with scale digits behind the point
		x := v.decimal().big()
		return x.Mul(x, powers[scale-from.Scale])
	}
	switch n.name {
	case "+", "-":
		negative := n.name == "-"
		return func(args []Value) Value {
			if a.Scale == b.Scale && t.Scale == scale {
				y := args[1].decimal()
				if negative {
					y = y.neg()
				}
				if sum, ok := args[0].decimal().add(y); ok && sum.within(t.Precision) {
					return decimalValue(sum)
				}
			}
			x, y := at(args[0], a), at(args[1], b)
			if negative {
				y.Neg(y)
			}
			return fit(x.Add(x, y), scale)
		}
	case "*":
		return func(args []Value) Value {
			x := args[0].decimal().big()
			return fit(x.Mul(x, args[1].decimal().big()), a.Scale+b.Scale)
		}
	case "/":
		// x·10^-a / (y·10^-b) = x·10^(t - a + b) / y · 10^-t
		return func(args []Value) Value {
			x, y := args[0].decimal().big(), args[1].decimal().big()
			if y.Sign() == 0 {
				return c.fault()
			}
			if y.Sign() < 0 {
				x.Neg(x)
				y.Neg(y)
			}
			shift := t.Scale - a.Scale + b.Scale
			if shift >= 0 {
				x.Mul(x, pow10(shift))
			} else {
				y.Mul(y, pow10(-shift))
			}
			return result(fromBig(roundQuo(x, y), t.Precision))
		}
	default:
		return func(args []Value) Value {
			y := at(args[1], b)
			if y.Sign() == 0 {
				return c.fault()
			}
			return fit(new(big.Int).Rem(at(args[0], a), y), scale)
		}
	}
}

func pow10(n int) *big.Int {
	if n < len(powers) {
		return powers[n]
	}
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}
