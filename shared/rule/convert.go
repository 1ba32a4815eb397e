package rule

import (
	"slices"

	"spate/shared/rule/syntax"
)

func (c *checker) cast(e *syntax.Cast) *node {
	t, ok := c.typ(e.To)
	x := c.expr(e.X)
	if x == nil || !ok {
		return nil
	}
	if t.Kind == Row || x.typ.Kind == interval || !castable(x.typ.Kind, t.Kind) {
		return c.fail(e.Pos, "", "CAST from %s to %s is not possible", x.typ.nullable(), t)
	}
	t.NotNull = x.typ.NotNull && !e.Try
	n := newNode(opCast, "", t, e.Pos, x)
	return fold(n)
}

// castTo converts a node to a type; constants at once.
func castTo(n *node, t Type) *node {
	if n.typ.Kind == t.Kind && (t.Kind != Decimal || n.typ.Precision == t.Precision && n.typ.Scale == t.Scale) || n.typ.Kind == Null && n.op == opConst {
		if n.typ.Kind == Null {
			return constant(Value{}, t, n.at)
		}
		return n
	}
	t.NotNull = n.typ.NotNull
	if t.Kind == String { // implicit conversion between lengths changes no text
		t.Precision, t.Fixed = 0, false
	}
	return fold(newNode(opCast, "", t, n.at, n))
}

// typ resolves a type as written.
func (c *checker) typ(t syntax.Type) (Type, bool) {
	args := func(most int, defaults ...int) []int {
		if len(t.Args) > most {
			c.fail(t.Pos, "", "too many numbers in %s; the maximum is %d", t.Name, most)
			return nil
		}
		return append(slices.Clone(t.Args), defaults[len(t.Args):]...)
	}
	switch t.Name {
	case "BOOLEAN":
		return Type{Kind: Boolean}, true
	case "TINYINT":
		return Type{Kind: TinyInt}, true
	case "SMALLINT":
		return Type{Kind: SmallInt}, true
	case "INT", "INTEGER":
		return Type{Kind: Int}, true
	case "BIGINT":
		return Type{Kind: BigInt}, true
	case "FLOAT":
		return Type{Kind: Float}, true
	case "DOUBLE":
		return Type{Kind: Double}, true
	case "STRING":
		return Type{Kind: String}, true
	case "CHAR", "VARCHAR":
		n := args(1, 1)
		if n == nil || n[0] < 1 || n[0] > 1<<31-1 {
			c.fail(t.Pos, "use STRING", "the length of %s must be at least 1", t.Name)
			return Type{}, false
		}
		if n[0] == 1<<31-1 {
			n[0] = 0
		}
		return Type{Kind: String, Precision: n[0], Fixed: t.Name == "CHAR"}, true
	case "DECIMAL", "DEC", "NUMERIC":
		n := args(2, 10, 0)
		if n == nil || n[0] < 1 || n[0] > maxPrecision || n[1] < 0 || n[1] > n[0] {
			c.fail(t.Pos, "write DECIMAL(10, 2)", "DECIMAL needs between 1 and %d digits, and no more digits after the decimal point than in total", maxPrecision)
			return Type{}, false
		}
		return Type{Kind: Decimal, Precision: n[0], Scale: n[1]}, true
	case "TIMESTAMP", "TIMESTAMP_LTZ":
		if n := args(1, 6); n == nil || n[0] > 9 {
			c.fail(t.Pos, "write TIMESTAMP(3)", "TIMESTAMP can have at most 9 digits after the decimal point")
			return Type{}, false
		}
		return Type{Kind: Timestamp}, true
	case "ROW":
		out := Type{Kind: Row}
		for _, f := range t.Fields {
			ft, ok := c.typ(f.Type)
			if !ok {
				return Type{}, false
			}
			ft.NotNull = f.NotNull
			out.Fields = append(out.Fields, Column{f.Name.Text, ft})
		}
		return out, true
	}
	c.fail(t.Pos, "use STRING, BIGINT, INT, DOUBLE, DECIMAL(p, s), BOOLEAN, TIMESTAMP(3) or ROW<…>", "the type %s is not supported", t.Name)
	return Type{}, false
}
