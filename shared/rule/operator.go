package rule

import (
	"strings"

	"spate/shared/rule/syntax"
)

func (c *checker) unary(e *syntax.Unary) *node {
	x := c.expr(e.X)
	if x == nil {
		return nil
	}
	if e.Op == "NOT" {
		if x = c.boolean(x); x == nil {
			return nil
		}
		return fold(newNode(opNot, "", x.typ, e.Pos, x))
	}
	if !x.typ.numeric() {
		return c.fail(e.Pos, "", "- needs a number, but this is %s", x.typ.nullable())
	}
	return fold(newNode(opCall, "NEGATE", x.typ, e.Pos, x))
}

func (c *checker) binary(e *syntax.Binary) *node {
	args := c.all([]syntax.Expr{e.X, e.Y})
	if args == nil {
		return nil
	}
	x, y := args[0], args[1]
	notNull := x.typ.NotNull && y.typ.NotNull
	switch e.Op {
	case "AND", "OR":
		if x, y = c.boolean(x), c.boolean(y); x == nil || y == nil {
			return nil
		}
		o := opAnd
		if e.Op == "OR" {
			o = opOr
		}
		return fold(newNode(o, "", Type{Kind: Boolean, NotNull: notNull}, syntax.At(e), x, y))
	case "+", "-", "*", "/", "%":
		return c.arithmetic(e.Op, x, y, e.Pos)
	case "||":
		for _, a := range args {
			if a.typ.Kind != String && a.typ.Kind != Null {
				return c.fail(a.at, "write CAST(x AS STRING)", "|| needs text, but this is %s", a.typ.nullable())
			}
		}
		t := Type{Kind: String, NotNull: notNull}
		if x.typ.Precision > 0 && y.typ.Precision > 0 {
			t.Precision, t.Fixed = x.typ.Precision+y.typ.Precision, x.typ.Fixed && y.typ.Fixed
		}
		return fold(newNode(opCall, "CONCAT", t, syntax.At(e), x, y))
	}
	if x, y = c.comparable(e.Op, x, y, e.Pos); x == nil {
		return nil
	}
	switch e.Op {
	case "IS DISTINCT FROM":
		return fold(newNode(opDistinct, kindNames[x.typ.Kind], Type{Kind: Boolean, NotNull: true}, syntax.At(e), x, y))
	case "IS NOT DISTINCT FROM":
		return fold(newNode(opNot, "", Type{Kind: Boolean, NotNull: true}, syntax.At(e), newNode(opDistinct, kindNames[x.typ.Kind], Type{Kind: Boolean, NotNull: true}, syntax.At(e), x, y)))
	}
	return fold(newNode(opCompare, e.Op, Type{Kind: Boolean, NotNull: notNull}, syntax.At(e), x, y))
}

// comparable brings two operands to the type in which they are compared.
func (c *checker) comparable(op string, x, y *node, at syntax.Pos) (*node, *node) {
	convert := func(text, other *node) *node {
		if text.op == opConst && (other.typ.Kind == Timestamp || other.typ.numeric() && (other.typ.Kind != BigInt && other.typ.Kind != Int || op != "=" && op != "<>" && !strings.HasPrefix(op, "IS"))) {
			to := other.typ
			if other.typ.whole() {
				to = Type{Kind: Double}
			}
			if n := castTo(text, to); n.op == opConst && !n.value.IsNull() {
				return n
			}
		}
		return nil
	}
	switch {
	case x.typ.Kind == String && y.typ.Kind != String && y.typ.Kind != Null:
		if n := convert(x, y); n != nil {
			x = n
		}
	case y.typ.Kind == String && x.typ.Kind != String && x.typ.Kind != Null:
		if n := convert(y, x); n != nil {
			y = n
		}
	}
	t, ok := common(x.typ.beside(y.typ), y.typ.beside(x.typ))
	if !ok || t.Kind == interval {
		fix := "convert one of them: CAST(x AS " + y.typ.nullable().String() + ")"
		if y.op == opConst && y.typ.Kind == String && x.typ.numeric() {
			fix = "write the number without quotes"
		} else if y.op == opConst && x.typ.Kind == String && y.typ.numeric() {
			fix = "write the number in quotes"
		}
		c.fail(at, fix, "%s cannot be compared with %s", x.typ.nullable(), y.typ.nullable())
		return nil, nil
	}
	if t.whole() && (c.isSum(x) && x.typ.Kind < t.Kind || c.isSum(y) && y.typ.Kind < t.Kind) {
		t.Kind = BigInt // which it has anyway
	}
	return castTo(x, t), castTo(y, t)
}

// isSum reports whether a node is a sum of whole numbers, which has 64 bits, whatever its type.
func (c *checker) isSum(n *node) bool {
	return n.op == opAggregate && c.group.aggregates[n.index].Function == Sum && n.typ.whole()
}

func (c *checker) arithmetic(op string, x, y *node, at syntax.Pos) *node {
	notNull := x.typ.NotNull && y.typ.NotNull
	if x.typ.Kind == Timestamp && y.typ.Kind == interval && (op == "+" || op == "-") {
		return fold(newNode(opCall, op, Type{Kind: Timestamp, NotNull: notNull}, x.at, x, y))
	}
	for _, a := range []*node{x, y} {
		if !a.typ.numeric() && a.typ.Kind != Null {
			fix := ""
			if op == "+" && a.typ.Kind == String {
				fix = "write || to join text"
			}
			return c.fail(a.at, fix, "%s needs numbers, but this is %s", op, a.typ.nullable())
		}
	}
	var t Type
	switch {
	case x.typ.Kind == Null || y.typ.Kind == Null:
		return c.fail(at, "leave it out", "arithmetic with NULL is always NULL")
	case op == "%" && (x.typ.floating() || y.typ.floating()):
		return c.fail(at, "cast to DECIMAL first", "%% needs exact numbers, but this is DOUBLE")
	case x.typ.floating() || y.typ.floating():
		t = Type{Kind: Double}
		x, y = castTo(x, t), castTo(y, t)
	case x.typ.Kind == Decimal || y.typ.Kind == Decimal:
		a, b := x.typ.asDecimal(), y.typ.asDecimal()
		x, y = castTo(x, x.typ.beside(b).asDecimal()), castTo(y, y.typ.beside(a).asDecimal())
		switch op {
		case "+", "-":
			s := max(a.Scale, b.Scale)
			t = decimalOf(max(a.Precision-a.Scale, b.Precision-b.Scale)+s+1, s)
		case "*":
			t = decimalOf(a.Precision+b.Precision+1, a.Scale+b.Scale)
		case "/":
			s := max(6, a.Scale+b.Precision+1)
			t = decimalOf(a.Precision-a.Scale+b.Scale+s, s)
		case "%":
			s := max(a.Scale, b.Scale)
			t = decimalOf(min(a.Precision-a.Scale, b.Precision-b.Scale)+s, s)
		}
	default:
		t = Type{Kind: max(x.typ.Kind, y.typ.Kind)}
		if op == "%" {
			t.Kind = y.typ.Kind
		}
	}
	t.NotNull = notNull
	return fold(newNode(opCall, op, t, x.at, x, y))
}

func (c *checker) cases(e *syntax.Case) *node {
	var list []syntax.Expr
	for _, w := range e.Whens {
		cond := w.If
		if e.Operand != nil {
			cond = &syntax.Binary{Pos: syntax.At(w.If), Op: "=", X: e.Operand, Y: w.If}
		}
		list = append(list, cond, w.Then)
	}
	if e.Else != nil {
		list = append(list, e.Else)
	} else {
		list = append(list, &syntax.Literal{Pos: e.Pos, Kind: syntax.Null})
	}
	args := c.all(list)
	if args == nil {
		return nil
	}
	t := args[len(args)-1].typ
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] = c.boolean(args[i]); args[i] == nil {
			return nil
		}
		both, ok := common(t, args[i+1].typ)
		if !ok {
			return c.fail(args[i+1].at, "convert one of them with CAST", "the values of CASE have different types: %s and %s", args[i+1].typ.nullable(), t.nullable())
		}
		t = both
	}
	if t.Kind == Null {
		return c.fail(e.Pos, "", "all values of CASE are NULL")
	}
	for i := 1; i < len(args); i += 2 {
		args[i] = castTo(args[i], t)
	}
	args[len(args)-1] = castTo(args[len(args)-1], t)
	return fold(newNode(opCase, "", t, e.Pos, args...))
}
