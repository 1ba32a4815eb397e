package rule

import (
	"fmt"
	"math"

	"spate/shared/rule/syntax"
)

// Opening early is a promise: a window whose condition is TRUE before it has ended must have an alert when it has. So a condition opens early
// only if it stays TRUE whatever events follow: counts only grow, maxima only rise, and neither becomes NULL by an overflow, or NaN. That is decided here,
// once for a rule.

// trend is how a value can change while events are added to a window.
type trend uint8

const (
	fixed trend = iota
	rises
	falls
	unknown
)

func (t trend) reverse() trend {
	switch t {
	case rises:
		return falls
	case falls:
		return rises
	}
	return t
}

// with is the trend of a sum.
func (t trend) with(o trend) trend {
	switch {
	case t == fixed:
		return o
	case o == fixed || o == t:
		return t
	}
	return unknown
}

// course is what a value can be, and how it can change while events are added to a window.
type course struct {
	trend trend
	extent
	// null is how the value can be lost: that it becomes NULL after it was a value. toNaN is how it becomes NaN after it was a number. They are nil if it cannot.
	// (It can be NULL, or NaN, before it is a number for good.)
	null, toNaN *loss
}

// loss is how a condition that was TRUE may no longer be.
type loss struct{ text, fix string }

func (l *loss) or(o *loss) *loss {
	if l != nil {
		return l
	}
	return o
}

// lost is what is said of operations of which nothing is known.
var lost = &loss{text: "it can become NULL"}

// courseOf decides how a value can change. Its operands are those of a window's row, or, within an aggregate, those of an event, of which the facts are
// known; then its trend means nothing.
func (r *Rule) courseOf(n *node, f *facts) course {
	c := r.courseWithout(n, f)
	if f == nil || !n.typ.numeric() {
		return c
	}
	key := same(n).key
	if known, ok := f.spans[key]; ok {
		if s := c.and(known); !s.empty() {
			c.span = s
		}
	}
	c.nan = c.nan && !f.numbers[key]
	return c
}

// courseWithout is courseOf as if nothing was known of the value itself.
func (r *Rule) courseWithout(n *node, f *facts) course {
	switch n.op {
	case opConst:
		return course{extent: constantExtent(n)}
	case opInput:
		return course{trend: unknown, extent: extent{rangeOf(n.typ), false}}
	case opKey:
		if k := r.Keys[n.index].node; k != nil && n.typ.numeric() {
			return course{extent: r.courseOf(k, r.given(r.where)).extent}
		}
		return course{extent: extent{anyNumber, n.typ.floating()}}
	case opAggregate:
		return r.aggregateCourse(n)
	}
	args := make([]course, len(n.args))
	extents := make([]extent, len(n.args))
	is := fixed
	for i, a := range n.args {
		args[i] = r.courseOf(a, f)
		extents[i] = args[i].extent
		if args[i].trend != fixed {
			is = unknown
		}
	}
	out := course{trend: is, extent: extent{anyNumber, n.typ.floating()}}
	if is != fixed {
		out.null = lost
	}
	switch n.op {
	case opCast:
		from := n.args[0].typ
		switch {
		case !n.typ.numeric():
		case from.numeric():
			out = castCourse(n, args[0])
		default:
			out.extent = extent{rangeOf(n.typ), false}
			if from.Kind == Boolean {
				out.span = span{0, 1}
			}
		}
	case opCall:
		switch n.name {
		case "NEGATE":
			zero := course{extent: extent{span{}, false}}
			out = arithmeticCourse(n, "-", zero, args[0])
		case "+", "-", "*", "/", "%":
			if out = arithmeticCourse(n, n.name, args[0], args[1]); n.name == "*" && n.args[0].key == n.args[1].key {
				out.lo = max(out.lo, 0)
			}
		case "GREATEST", "LEAST":
			out.trend, out.null = fixed, nil
			for _, a := range args {
				out.trend = out.trend.with(a.trend)
				out.null, out.toNaN = out.null.or(a.null), out.toNaN.or(a.toNaN)
			}
			out.extent = functionExtent(n, extents)
		default:
			out.extent = functionExtent(n, extents)
			out.span = out.within(n.typ)
		}
	case opCase:
		var values []extent
		for i, a := range n.args {
			if (i%2 == 1 || i == len(args)-1) && !(a.op == opConst && a.value.IsNull()) {
				values = append(values, extents[i])
			}
		}
		out.extent = anyOf(values)
	case opCoalesce:
		out.extent = anyOf(extents)
	}
	return out
}

// castCourse is that of a number as a number of another type.
func castCourse(n *node, x course) course {
	from, to := n.args[0].typ, n.typ
	out := x
	out.extent = castExtent(from, to, x.extent)
	switch {
	case to.whole() && x.nan && x.trend != fixed:
		out.trend, out.toNaN = unknown, nil // NaN is 0
	case to.Kind == Decimal:
		out.null, out.toNaN = out.null.or(x.toNaN), nil // NaN is NULL
	}
	if !(from.floating() && to.whole()) && !to.holds(out.span) && !(to.includes(from) && out.and(rangeOf(to)) == out.span) {
		if x.trend != fixed {
			fix := "leave the CAST out"
			if _, ok := n.from.(*syntax.Cast); !ok { // it is implied by the comparison
				fix = "write CAST(" + printed(n.args[0]) + " AS DOUBLE)"
			}
			out.null = out.null.or(overflow(n, fix))
		}
		out.span = out.within(to)
	}
	return out
}

// overflow says that a value can be too large for its type.
func overflow(n *node, fix string) *loss {
	return &loss{fmt.Sprintf("%s becomes NULL if it exceeds %s", printed(n), n.typ.nullable()), fix}
}

// textOf is an expression as it was written.
func printed(n *node) string {
	for n.from == nil && n.op == opCast {
		n = n.args[0]
	}
	if n.from == nil {
		return "an operand"
	}
	return syntax.Print(n.from)
}

// arithmeticCourse is that of an operator.
func arithmeticCourse(n *node, op string, x, y course) course {
	out := course{extent: arithmeticExtent(op, n.typ, x.extent, y.extent), null: x.null.or(y.null), toNaN: x.toNaN.or(y.toNaN)}
	switch op {
	case "+":
		out.trend = x.trend.with(y.trend)
	case "-":
		out.trend = x.trend.with(y.trend.reverse())
	case "*", "/":
		out.trend = scaled(n, x, y)
	default:
		if out.trend = fixed; x.trend != fixed || y.trend != fixed {
			out.trend = unknown
		}
	}
	if out.trend == fixed || !n.typ.numeric() {
		out.span = out.within(n.typ)
		return out
	}
	if (op == "/" || op == "%") && !n.typ.floating() && y.trend != fixed && y.has(0) {
		out.null = out.null.or(&loss{text: fmt.Sprintf("%s becomes NULL if its divisor is 0", printed(n))})
	}
	if !n.typ.holds(out.span) {
		out.null = out.null.or(overflow(n, widerOperand(n)))
		out.span = out.within(n.typ)
	}
	if out.nan && !x.nan && !y.nan {
		out.toNaN = out.toNaN.or(&loss{text: fmt.Sprintf("%s becomes NaN if its operands are infinite or 0", printed(n))})
	}
	return out
}

// widerOperand is a fix for an operator whose result overflows: one of its operands as a type that has more numbers.
func widerOperand(n *node) string {
	b, ok := n.from.(*syntax.Binary)
	if !ok || !n.typ.numeric() {
		return ""
	}
	to := Type{Kind: BigInt}
	switch n.typ.Kind {
	case BigInt:
		to = to.asDecimal()
	case Decimal:
		to = Type{Kind: Double}
	}
	wider := *b
	wider.X = &syntax.Cast{Pos: b.Pos, X: b.X, To: written(to)}
	return "write " + syntax.Print(&wider)
}

// scaled is the trend of a product or quotient: known if one operand is a constant.
func scaled(n *node, x, y course) trend {
	of := n.args[1]
	if n.args[0].op == opConst && n.name == "*" {
		x, y, of = y, x, n.args[0]
	}
	switch {
	case x.trend == fixed && y.trend == fixed:
		return fixed
	case of.op != opConst || of.value.IsNull() || y.nan || n.name == "/" && y.has(0):
		return unknown
	case sign(of.typ, of.value) < 0:
		return x.trend.reverse()
	}
	return x.trend
}

// aggregateCourse is that of an aggregate.
func (r *Rule) aggregateCourse(n *node) course {
	a := r.Aggregates[n.index]
	if r.bounded && !a.countsDistinct() {
		return course{extent: extent{anyNumber, n.typ.floating()}}
	}
	if a.Function == Count {
		out := course{trend: rises, extent: extent{span{0, MaxEvents}, false}}
		if a.all() { // a group has events
			out.lo = 1
		}
		if a.Distinct && !r.bounded {
			out.hi = MaxDistinct
		}
		return out
	}
	x := extent{anyNumber, false}
	if a.arg.typ.numeric() {
		x = r.courseOf(a.arg, r.given(r.where, a.filter)).extent
	}
	switch a.Function {
	case Min: // NaN is above all numbers, so it is none for good once there is one
		return course{trend: falls, extent: x}
	case Max:
		out := course{trend: rises, extent: x}
		if x.nan {
			out.toNaN = notANumber(n)
		}
		return out
	}
	return r.totalCourse(n, a, x)
}

// totalCourse is that of SUM and AVG of numbers.
func (r *Rule) totalCourse(n *node, a *Aggregate, x extent) course {
	t := a.arg.typ
	values := float64(MaxEvents)
	out := course{trend: unknown, extent: extent{nan: x.nan || math.IsInf(x.lo, -1) && math.IsInf(x.hi, 1)}}
	if a.Distinct {
		if !t.whole() || x.hi-x.lo >= MaxDistinct {
			out.null = &loss{fmt.Sprintf("%s becomes NULL if it has more than %d distinct values", printed(n), MaxDistinct), "compare COUNT(DISTINCT …), or leave DISTINCT out"}
		}
		values = MaxDistinct
	}
	total := span{min(x.lo, x.lo*values), max(x.hi, x.hi*values)}
	switch {
	case t.floating():
		if out.nan {
			out.toNaN = notANumber(n)
		}
	case t.Kind == Decimal && a.Function == Avg && t.Precision-t.Scale+max(6, t.Scale) > maxPrecision:
		out.null = out.null.or(overflow(n, ""))
	case !totalType(t).holds(total):
		out.null = out.null.or(&loss{fmt.Sprintf("%s becomes NULL if it exceeds %s", printed(n), totalType(t)), widerTotal(n, t)})
	}
	if out.span = anyNumber; a.Function == Avg {
		return out
	}
	out.span = total.within(totalType(t))
	switch {
	case x.lo >= 0:
		out.trend = rises
	case x.hi <= 0:
		out.trend = falls
	}
	return out
}

// totalType is the type that a sum of numbers of a type is computed in. That of whole numbers has 64 bits, whatever the type of its node, which is Flink's.
func totalType(t Type) Type {
	switch {
	case t.whole():
		return Type{Kind: BigInt}
	case t.Kind == Decimal:
		return Type{Kind: Decimal, Precision: maxPrecision, Scale: t.Scale}
	}
	return Type{Kind: Double}
}

// widerTotal is a fix for a sum that overflows: one of numbers that are small enough, or whose sum has room.
func widerTotal(n *node, t Type) string {
	call, ok := n.from.(*syntax.Call)
	if !ok || len(call.Args) != 1 || call.Distinct {
		return ""
	}
	column, isColumn := call.Args[0].(*syntax.Ref)
	to, smaller := Type{Kind: BigInt}.asDecimal(), Type{Kind: Int}
	if t.Kind == Decimal {
		to = Type{Kind: Decimal, Precision: maxSummed, Scale: min(t.Scale, maxSummed/2)}
		smaller = to
	}
	wider := *call
	wider.Args = []syntax.Expr{&syntax.Cast{Pos: call.Pos, X: call.Args[0], To: written(to)}}
	fix := "write " + syntax.Print(&wider)
	if isColumn {
		fix = "declare " + syntax.Print(column) + " as " + smaller.String() + " or " + fix
	}
	return fix
}

// written is a number's type as syntax.
func written(t Type) syntax.Type {
	if t.Kind == Decimal {
		return syntax.Type{Name: "DECIMAL", Args: []int{t.Precision, t.Scale}}
	}
	return syntax.Type{Name: t.nullable().String()}
}

// maxSummed is the precision of the widest DECIMALs of which [MaxEvents] can be added up: 10^28 · 2^32 < 10^38.
const maxSummed = 28

// notANumber says that a value of an aggregate can be NaN.
func notANumber(n *node) *loss {
	l := &loss{text: fmt.Sprintf("%s becomes NaN if one of its values is NaN", printed(n))}
	if call, ok := n.from.(*syntax.Call); ok && len(call.Args) == 1 {
		l.text = fmt.Sprintf("%s becomes NaN if %s is", printed(n), syntax.Print(call.Args[0]))
		with := *call
		var positive syntax.Expr = &syntax.Binary{Pos: call.Pos, Op: ">", X: call.Args[0], Y: &syntax.Literal{Pos: call.Pos, Kind: syntax.Numeric, Text: "0"}}
		if with.Filter != nil {
			positive = &syntax.Binary{Pos: call.Pos, Op: "AND", X: with.Filter, Y: positive}
		}
		with.Filter = positive
		l.fix = "if it is meant to be positive, write " + syntax.Print(&with)
	}
	return l
}

// notNegative reports whether no event can add a negative value.
func (r *Rule) notNegative(n *node, a *Aggregate) bool {
	return r.courseOf(n, r.given(r.where, a.filter)).lo >= 0
}

// stays reports whether a condition that has become want remains so. If not, because is the part of it that may change, and how the way in which it may, if
// that is not plain.
func (r *Rule) stays(n *node, want bool) (ok bool, because *node, how *loss) {
	switch n.op {
	case opAnd, opOr:
		for _, a := range n.args {
			if ok, because, how := r.stays(a, want); !ok {
				return false, because, how
			}
		}
		return true, nil, nil
	case opNot:
		return r.stays(n.args[0], !want)
	case opCompare:
		ok, how := r.comparisonStays(n, want)
		return ok, n, how
	case opIsNull:
		// An aggregate is NULL until it has a value; after that it has one, unless it overflows.
		if c := r.courseOf(n.args[0], nil); c.trend == fixed || !want && c.null == nil {
			return true, nil, nil
		} else if !want && c.null != lost {
			return false, n, c.null
		}
		return false, n, nil
	case opIsTrue:
		if want {
			return r.stays(n.args[0], true)
		}
	case opIsFalse:
		if want {
			return r.stays(n.args[0], false)
		}
	}
	return !n.any(func(n *node) bool { return n.op == opAggregate }), n, nil
}

func (r *Rule) comparisonStays(n *node, want bool) (bool, *loss) {
	x, y := r.courseOf(n.args[0], nil), r.courseOf(n.args[1], nil)
	op := n.name
	if !want {
		op = negated[op]
	}
	switch difference := x.trend.with(y.trend.reverse()); {
	case x.trend == fixed && y.trend == fixed:
		return true, nil
	case difference == rises && (op == ">" || op == ">="), difference == falls && (op == "<" || op == "<="):
	default:
		return false, nil
	}
	how := x.null.or(y.null).or(x.toNaN).or(y.toNaN)
	if how == nil && !want && (x.nan || y.nan) { // it is FALSE while an operand is NaN
		how = &loss{text: "an operand can first be NaN, and later a number"}
	}
	return how == nil, how
}

// Early reports whether the rule can open an alert before the window has ended, and why it can or cannot.
func (r *Rule) Early() (ok bool, reason string) {
	switch {
	case r.Window.Kind == Session:
		return false, "a session ends when its gap has passed"
	case r.having == nil:
		return false, "without HAVING, every window raises an alert, and its row is known only when the window has ended"
	}
	return early(r, r.having)
}

// EarlyCritical is as Early for the critical condition: an alert can become critical before its window has ended.
func (r *Rule) EarlyCritical() (ok bool, reason string) {
	if ok, reason = r.Early(); !ok || r.critical == nil {
		return false, reason
	}
	return early(r, r.critical)
}

func early(r *Rule, n *node) (bool, string) {
	ok, because, how := r.stays(n, true)
	if ok {
		return true, "once the condition is TRUE, it stays TRUE until the window ends"
	}
	text := "the condition"
	if because.from != nil {
		text = syntax.Print(because.from)
	}
	text += " can become FALSE again before the window ends"
	if how != nil {
		text += ": " + how.text
		if how.fix != "" {
			text += "; " + how.fix
		}
	}
	return false, text
}

// LeastEvents is the number of events below which HAVING cannot be TRUE: it need not be evaluated for fewer.
func (r *Rule) LeastEvents() int64 { return max(1, r.least(r.having)) }

// LeastCritical is as LeastEvents for the critical condition.
func (r *Rule) LeastCritical() int64 { return max(1, r.least(r.critical)) }

func (r *Rule) least(n *node) int64 {
	if n == nil {
		return 1
	}
	switch n.op {
	case opAnd:
		return max(r.least(n.args[0]), r.least(n.args[1]))
	case opOr:
		return min(r.least(n.args[0]), r.least(n.args[1]))
	case opCompare:
		op, x, y := n.name, n.args[0], n.args[1]
		if x.op == opConst {
			x, y, op = y, x, map[string]string{"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "<>": "<>"}[op]
		}
		x = bare(x)
		if x.op != opAggregate || r.Aggregates[x.index].Function != Count || y.op != opConst || y.value.IsNull() || !y.typ.numeric() {
			return 1
		}
		limit := toDouble(y.typ, Type{Kind: Double})(y.value).Double()
		switch {
		case !(limit >= 0 && limit < 1<<52):
			return 1
		case op == ">":
			return int64(math.Floor(limit)) + 1
		case op == ">=" || op == "=":
			return int64(math.Ceil(limit))
		}
	}
	return 1
}

// bare is a node without the casts around it that change no count.
func bare(n *node) *node {
	for n.op == opCast && n.typ.numeric() && n.args[0].typ.numeric() {
		n = n.args[0]
	}
	return n
}
