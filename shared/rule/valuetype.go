package rule

import "slices"

// ValueType is the type of what a column really has. That of its expression is Flink's: there a sum of INT is an INT, which wraps, and what fails the job is not NULL.
func (r *Rule) ValueType(column OutputColumn) Type {
	t := column.Type
	if n := column.node; n != nil {
		t.NotNull = t.NotNull && !r.canBeNull(n)
		if t.whole() && r.hasSum(n) {
			t.Kind = BigInt
		}
	}
	return t
}

// hasSum reports whether a value can be a sum of whole numbers as it is.
func (r *Rule) hasSum(n *node) bool {
	switch n.op {
	case opAggregate:
		return r.Aggregates[n.index].Function == Sum
	case opCall:
		return (n.name == "GREATEST" || n.name == "LEAST") && slices.ContainsFunc(n.args, r.hasSum)
	case opCase, opCoalesce:
		return slices.ContainsFunc(n.args, r.hasSum)
	}
	return false
}

// canBeNull reports whether an expression whose operands are not NULL can be: by an overflow, a division by zero, or text that is not a number.
func (r *Rule) canBeNull(n *node) bool {
	return n.any(func(n *node) bool {
		switch n.op {
		case opConst:
			return n.value.IsNull() && n.typ.NotNull // what was computed already
		case opKey:
			k := r.Keys[n.index].node
			return k != nil && k.op != opInput && r.canBeNull(k)
		case opAggregate:
			a := r.Aggregates[n.index]
			if a.Function == Count {
				return false
			}
			return a.arg.op != opInput && r.canBeNull(a.arg) || a.Function != Min && a.Function != Max && r.aggregateCourse(n).null != nil
		case opCast:
			from, to := n.args[0].typ, n.typ
			c := r.courseOf(n.args[0], nil)
			return !to.numeric() && from.Kind == String && to.Kind != String || to.numeric() && (!from.numeric() && from.Kind != Boolean ||
				to.Kind == Decimal && c.nan || !to.floating() && !(from.floating() && to.whole()) && !to.includes(from) && !to.holds(castExtent(from, to, c.extent).span))
		case opCall:
			return r.callCanBeNull(n)
		}
		return false
	})
}

func (r *Rule) callCanBeNull(n *node) bool {
	switch {
	case n.name == "SUBSTRING":
		return len(n.args) == 3
	case !n.typ.numeric() || n.typ.floating():
		return false
	}
	x := r.courseOf(n.args[0], nil)
	y := course{extent: x.extent}
	op := n.name
	switch op {
	case "NEGATE":
		x, op = course{}, "-"
	case "+", "-", "*", "/", "%":
		y = r.courseOf(n.args[1], nil)
	case "ABS", "FLOOR", "CEIL", "CEILING", "ROUND":
		return !n.typ.holds(functionExtent(n, []extent{x.extent}).span)
	default:
		return false
	}
	return (op == "/" || op == "%") && y.has(0) || !n.typ.holds(arithmeticExtent(op, n.typ, x.extent, y.extent).span)
}
