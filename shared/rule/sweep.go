package rule

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"spate/shared/rule/syntax"
)

// Sweep shows how many windows a rule would find with another limit.
type Sweep struct {
	// Rule is the rule with half the limit. It has two more columns: the value that is compared with the limit, and whether HAVING is TRUE with the limit as it is.
	Rule  *Rule
	What  string // what is compared, as it is written
	Op    string // > or >=
	Limit float64
	// Whole reports whether the limit is a whole number.
	Whole bool
}

// Sweep returns the sweep over the first comparison of HAVING, among those that AND joins, that demands more than a number above 0. ok is false if there is none.
func (r *Rule) Sweep() (s Sweep, ok bool) {
	parts := r.having.conjuncts()
	for i, n := range parts { // 5 < COUNT(*) is COUNT(*) > 5; BETWEEN has it, too
		if op, mirrored := map[string]string{"<": ">", "<=": ">="}[n.name]; n.op == opCompare && mirrored && n.args[0].op == opConst {
			parts[i] = newNode(opCompare, op, n.typ, n.at, n.args[1], n.args[0])
		}
	}
	i := slices.IndexFunc(parts, func(n *node) bool {
		return n.op == opCompare && (n.name == ">" || n.name == ">=") && n.args[0].varies && madeOf(n.args[0]) != nil && n.args[1].op == opConst && n.args[1].typ.numeric()
	})
	if i < 0 {
		return s, false
	}
	n := parts[i]
	limit := n.args[1]
	text := strings.Trim(string(AppendJSON(nil, limit.typ, limit.value)), `"`)
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || !(value > 0) || value > 1<<53 {
		return s, false
	}
	var half Value
	switch limit.typ.Kind {
	case Decimal: // rounded down: both sides of a comparison have one scale
		unit := math.Pow10(limit.typ.Scale)
		d, _ := parseDecimal(strconv.FormatFloat(math.Floor(value/2*unit)/unit, 'f', limit.typ.Scale, 64), limit.typ.Precision, limit.typ.Scale)
		half = decimalValue(d)
	case Double, Float:
		half = DoubleValue(value / 2)
	default:
		half, s.Whole = IntValue(int64(value/2)), true
	}
	swept := *r
	parts[i] = newNode(opCompare, n.name, n.typ, n.at, n.args[0], constant(half, limit.typ, limit.at))
	swept.having = nil
	for _, part := range slices.Backward(parts) {
		swept.having = and(part, swept.having)
	}
	swept.Columns = append(slices.Clone(r.Columns), OutputColumn{Type: n.args[0].typ, node: n.args[0]}, OutputColumn{Type: r.having.typ, node: r.having})
	s.Rule, s.What, s.Op, s.Limit = &swept, syntax.Print(madeOf(n.args[0])), n.name, value
	return s, true
}

// madeOf is what a node was made of, without the casts around it that nobody wrote.
func madeOf(n *node) syntax.Expr {
	for n.from == nil && n.op == opCast {
		n = n.args[0]
	}
	return n.from
}
