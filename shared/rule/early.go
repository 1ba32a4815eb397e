package rule

import (
	"fmt"
	"math"

	"spate/shared/rule/syntax"
)

// Opening early is a promise: a window whose condition is TRUE before it has ended must have an alert when it has. So a condition opens early
// only if it stays TRUE whatever events follow: counts only grow, maxima only rise. That is decided here, once for a rule.

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

// trendOf decides how a value over a window's row can change.
func (r *Rule) trendOf(n *node) trend {
	switch n.op {
	case opConst, opKey, opBound:
		return fixed
	case opAggregate:
		return r.aggregateTrend(r.Aggregates[n.index])
	case opCast:
		if n.typ.numeric() && n.args[0].typ.numeric() {
			return r.trendOf(n.args[0])
		}
	case opCall:
		switch n.name {
		case "NEGATE":
			return r.trendOf(n.args[0]).reverse()
		case "+":
			return r.trendOf(n.args[0]).with(r.trendOf(n.args[1]))
		case "-":
			return r.trendOf(n.args[0]).with(r.trendOf(n.args[1]).reverse())
		case "*", "/":
			return r.scaled(n)
		case "GREATEST", "LEAST":
			t := fixed
			for _, a := range n.args {
				t = t.with(r.trendOf(a))
			}
			return t
		}
	}
	if n.any(func(n *node) bool { return n.op == opAggregate }) {
		return unknown
	}
	return fixed
}

// scaled is the trend of a product or quotient: known if one operand is a constant.
func (r *Rule) scaled(n *node) trend {
	x, y := n.args[0], n.args[1]
	if x.op == opConst && n.name == "*" {
		x, y = y, x
	}
	t := r.trendOf(x)
	switch {
	case t == fixed && r.trendOf(y) == fixed:
		return fixed
	case y.op != opConst || y.value.IsNull():
		return unknown
	case sign(y.typ, y.value) < 0:
		return t.reverse()
	}
	return t
}

func (r *Rule) aggregateTrend(a *Aggregate) trend {
	switch a.Function {
	case Count, Max:
		return rises
	case Min:
		return falls
	case Sum:
		if r.notNegative(a.arg, a) {
			return rises
		}
	}
	return unknown
}

// notNegative reports whether no event can add a negative value: by the form of the expression, or because WHERE or FILTER let none pass.
func (r *Rule) notNegative(n *node, a *Aggregate) bool {
	for _, c := range append(r.where.conjuncts(), a.filter.conjuncts()...) {
		if c.op != opCompare {
			continue
		}
		op, x, y := c.name, c.args[0], c.args[1]
		if x.op == opConst {
			x, y, op = y, x, map[string]string{"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "="}[op]
		}
		if bare(x).key == bare(n).key && y.op == opConst && y.typ.numeric() && !y.value.IsNull() && sign(y.typ, y.value) >= 0 && (op == ">" || op == ">=" || op == "=") {
			return true
		}
	}
	return nonNegative(n)
}

// bare is a node without the casts around it that change no sign.
func bare(n *node) *node {
	for n.op == opCast && n.typ.numeric() && n.args[0].typ.numeric() {
		n = n.args[0]
	}
	return n
}

func nonNegative(n *node) bool {
	switch n.op {
	case opConst:
		return n.value.IsNull() || n.typ.numeric() && sign(n.typ, n.value) >= 0
	case opCast:
		return n.args[0].typ.numeric() && nonNegative(n.args[0])
	case opCase:
		for i, a := range n.args {
			if (i%2 == 1 || i == len(n.args)-1) && !nonNegative(a) {
				return false
			}
		}
		return true
	case opCoalesce:
		for _, a := range n.args {
			if !nonNegative(a) {
				return false
			}
		}
		return true
	case opCall:
		switch n.name {
		case "ABS", "CHAR_LENGTH", "CHARACTER_LENGTH", "POSITION", "SQRT", "EXP":
			return true
		case "+", "*", "/":
			return nonNegative(n.args[0]) && nonNegative(n.args[1])
		}
	}
	return false
}

// stays reports whether a condition that has become want remains so. If not, because is the part of it that may change.
func (r *Rule) stays(n *node, want bool) (ok bool, because *node) {
	switch n.op {
	case opAnd, opOr:
		for _, a := range n.args {
			if ok, because := r.stays(a, want); !ok {
				return false, because
			}
		}
		return true, nil
	case opNot:
		return r.stays(n.args[0], !want)
	case opCompare:
		x, y := r.trendOf(n.args[0]), r.trendOf(n.args[1])
		difference := x.with(y.reverse())
		op := n.name
		if !want {
			op = map[string]string{"<": ">=", "<=": ">", ">": "<=", ">=": "<", "=": "<>", "<>": "="}[op]
		}
		if difference == fixed || difference == rises && (op == ">" || op == ">=") || difference == falls && (op == "<" || op == "<=") {
			return true, nil
		}
		return false, n
	case opIsNull:
		// An aggregate is NULL until it has a value; after that it has one for good.
		if a := n.args[0]; !want && a.op == opAggregate || r.trendOf(a) == fixed {
			return true, nil
		}
		return false, n
	case opIsTrue:
		if want {
			return r.stays(n.args[0], true)
		}
	case opIsFalse:
		if want {
			return r.stays(n.args[0], false)
		}
	}
	if r.trendOf(n) == fixed {
		return true, nil
	}
	return false, n
}

// Early reports whether the rule can open an alert before the window has ended, and why it can or cannot.
func (r *Rule) Early() (ok bool, reason string) {
	switch {
	case r.Window.Kind == Session:
		return false, "a session ends when its gap has passed"
	case r.having == nil:
		return false, "without HAVING every window is an alert, and its row is known only when the window has ended"
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
	ok, because := r.stays(n, true)
	if ok {
		return true, "once TRUE, it stays TRUE until the window ends"
	}
	text := "the condition"
	if because.from != nil {
		text = syntax.Print(because.from)
	}
	return false, fmt.Sprintf("%s can become FALSE again before the window ends", text)
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
