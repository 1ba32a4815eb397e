package rule

import (
	"fmt"
	"math"
	"slices"
)

// span is the range of numbers that a value can be.
type span struct{ lo, hi float64 }

var anyNumber = span{math.Inf(-1), math.Inf(1)}

func (s span) and(o span) span { return span{max(s.lo, o.lo), min(s.hi, o.hi)} }

func (s span) empty() bool { return s.lo > s.hi }

// facts are what is known of values while a condition is TRUE: numbers by their range, and others by the constant that they are equal to.
type facts struct {
	spans  map[string]span
	equals map[string]string
	// numbers are values that are not NaN, since a comparison with it is not TRUE.
	numbers map[string]bool
	// contradict is set if no row can have all of it.
	contradict bool
}

// assume adds what follows from a condition that is TRUE.
func (f *facts) assume(n *node) {
	for _, c := range n.conjuncts() {
		if c.op != opCompare {
			continue
		}
		op, x, y := c.name, c.args[0], c.args[1]
		if x.op == opConst {
			x, y, op = y, x, mirrored[op]
		}
		if y.op != opConst || y.value.IsNull() {
			continue
		}
		x = same(x)
		if y.typ.numeric() {
			old, ok := f.spans[x.key]
			if !ok {
				old = anyNumber
			}
			f.spans[x.key] = old.and(limit(op, x.typ.whole(), number(y)))
			f.numbers[x.key] = f.numbers[x.key] || op != "<>"
			f.contradict = f.contradict || f.spans[x.key].empty()
		} else if op == "=" {
			old, ok := f.equals[x.key]
			f.contradict = f.contradict || ok && old != y.key
			f.equals[x.key] = y.key
		}
	}
}

func (r *Rule) given(conditions ...*node) *facts {
	f := &facts{spans: map[string]span{}, equals: map[string]string{}, numbers: map[string]bool{}}
	for _, c := range conditions {
		f.assume(c)
	}
	return f
}

// mirrored are the operators for operands in the other order.
var mirrored = map[string]string{"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "<>": "<>"}

// negated are the operators that hold where others do not.
var negated = map[string]string{"<": ">=", "<=": ">", ">": "<=", ">=": "<", "=": "<>", "<>": "="}

// limit is the range of x while x op v is TRUE.
func limit(op string, whole bool, v span) span {
	above, below := math.Nextafter(v.lo, math.Inf(1)), math.Nextafter(v.hi, math.Inf(-1))
	if whole {
		above, below = math.Floor(v.lo)+1, math.Ceil(v.hi)-1
	}
	switch op {
	case ">":
		return span{above, math.Inf(1)}
	case ">=":
		return span{v.lo, math.Inf(1)}
	case "<":
		return span{math.Inf(-1), below}
	case "<=":
		return span{math.Inf(-1), v.hi}
	case "=":
		return v
	}
	return anyNumber
}

// number is a numeric constant.
func number(n *node) span {
	v := toDouble(n.typ, Type{Kind: Double})(n.value).Double()
	if math.IsNaN(v) || math.Abs(v) >= 1<<53 { // not exact
		return anyNumber
	}
	return span{v, v}
}

// same is a node without the casts around it that change no number.
func same(n *node) *node {
	for n.op == opCast {
		from, to := n.args[0].typ, n.typ
		if !from.numeric() || !to.numeric() || to.Kind < from.Kind || from.Kind == Decimal && to.Kind == Decimal && to.Scale < from.Scale || from.floating() != to.floating() && !from.whole() && from.Kind != Decimal {
			break
		}
		n = n.args[0]
	}
	return n
}

// spanOf is what a number over a window's row can be, if it is not NULL.
func (r *Rule) spanOf(n *node, f *facts) span {
	n = same(n)
	s := r.natural(n, f)
	if known, ok := f.spans[n.key]; ok {
		s = s.and(known)
	}
	return s
}

func (r *Rule) natural(n *node, f *facts) span {
	switch n.op {
	case opConst:
		if n.typ.numeric() && !n.value.IsNull() {
			return number(n)
		}
	case opAggregate:
		a := r.Aggregates[n.index]
		switch {
		case a.Function == Count && a.arg == nil && a.filter == nil: // a group has events
			return span{1, math.Inf(1)}
		case a.countsDistinct():
			return span{0, MaxDistinct}
		case a.Function == Count, a.arg.typ.numeric() && r.notNegative(a.arg, a):
			return span{0, math.Inf(1)}
		}
	case opCall:
		switch n.name {
		case "NEGATE":
			x := r.spanOf(n.args[0], f)
			return span{-x.hi, -x.lo}
		case "+":
			x, y := r.spanOf(n.args[0], f), r.spanOf(n.args[1], f)
			return span{x.lo + y.lo, x.hi + y.hi}
		case "-":
			x, y := r.spanOf(n.args[0], f), r.spanOf(n.args[1], f)
			return span{x.lo - y.hi, x.hi - y.lo}
		}
	}
	if n.typ.numeric() && r.courseOf(n, nil).lo >= 0 {
		return span{0, math.Inf(1)}
	}
	return anyNumber
}

// neverTrue reports whether a condition can be seen not to be TRUE for any row that the facts allow.
func (r *Rule) neverTrue(n *node, f *facts) bool {
	switch n.op {
	case opConst:
		return !n.value.IsTrue()
	case opAnd:
		return r.given(n).contradict || slices.ContainsFunc(n.conjuncts(), func(c *node) bool { return r.neverTrue(c, f) })
	case opOr:
		return r.neverTrue(n.args[0], f) && r.neverTrue(n.args[1], f)
	case opNot:
		return r.neverFalse(n.args[0], f)
	case opIsTrue:
		return r.neverTrue(n.args[0], f)
	case opIsNull:
		return n.args[0].typ.NotNull && !r.canBeNull(n.args[0])
	case opCompare:
		return r.neverHolds(n, n.name, f)
	}
	return false
}

// neverFalse is as neverTrue for FALSE.
func (r *Rule) neverFalse(n *node, f *facts) bool {
	switch n.op {
	case opConst:
		return n.value.IsNull() || n.value.IsTrue()
	case opAnd:
		return r.neverFalse(n.args[0], f) && r.neverFalse(n.args[1], f)
	case opOr:
		return r.neverFalse(n.args[0], f) || r.neverFalse(n.args[1], f)
	case opNot:
		return r.neverTrue(n.args[0], f)
	case opCompare:
		return r.neverHolds(n, negated[n.name], f)
	}
	return false
}

// neverHolds reports whether a comparison, with another operator in its place, holds for no row.
func (r *Rule) neverHolds(n *node, op string, f *facts) bool {
	x, y := n.args[0], n.args[1]
	if !x.typ.numeric() || !y.typ.numeric() {
		return false
	}
	if op == "<" || op == "<=" {
		x, y, op = y, x, mirrored[op]
	}
	a, b := r.spanOf(x, f), r.spanOf(y, f)
	switch op {
	case ">":
		return a.hi <= b.lo
	case ">=":
		return a.hi < b.lo
	case "=":
		return a.and(b).empty()
	}
	return a.lo == a.hi && a == b
}

// Warnings are what is allowed in a rule and probably not meant.
func (r *Rule) Warnings() []string {
	var list []string
	warn := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	nothing := r.given()
	if r.where != nil && r.neverTrue(r.where, nothing) {
		warn("WHERE can never be TRUE")
	}
	switch {
	case r.having == nil:
		warn("without HAVING, every window with an event raises an alert")
	case r.neverTrue(r.having, nothing):
		warn("HAVING can never be TRUE%s", r.countsUpTo(r.having))
	case r.neverFalse(r.having, nothing):
		warn("HAVING is never FALSE: every window with an event raises an alert")
	}
	if r.Window.Kind == Session {
		warn("SESSION windows are not evaluated yet: replay, verify and apply refuse the rule; export writes it for Flink")
	}
	if r.Window.Kind == Hop && r.Window.Step > r.Window.Size {
		warn("HOP has a step of %s and windows of %s: events that fall between windows are not counted; the step is the first interval", duration(r.Window.Step), duration(r.Window.Size))
	}
	if r.critical != nil {
		r.warnCritical(warn)
	}
	for _, p := range r.Params {
		if !p.Used {
			warn("parameter %s is not used", p.Name)
		}
	}
	return list
}

// countsUpTo explains a condition that compares a count of distinct values with a number that it never reaches.
func (r *Rule) countsUpTo(n *node) string {
	if n.any(func(n *node) bool { return n.op == opAggregate && r.Aggregates[n.index].countsDistinct() }) {
		return fmt.Sprintf(" (COUNT(DISTINCT …) counts up to %d)", MaxDistinct)
	}
	return ""
}

func (r *Rule) warnCritical(warn func(string, ...any)) {
	early, _ := r.Early()
	now, because := r.EarlyCritical()
	switch alert := r.given(r.having); {
	case r.neverTrue(r.critical, alert) || r.given(r.having, r.critical).contradict:
		warn("critical can never be TRUE for an alert: HAVING excludes it")
	case r.neverFalse(r.critical, alert):
		warn("critical is TRUE for every alert: HAVING implies it")
	case early && !now:
		warn("an alert becomes critical only when its window has ended: %s", because)
	}
}
