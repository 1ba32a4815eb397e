package verifier

import "fmt"

// convert brings a value to the type that it takes beside others.
func (q *query) convert(x term, t typ) string {
	switch {
	case x.typ.kind == t.kind && (t.kind != kDecimal || x.typ.precision == t.precision && x.typ.scale == t.scale), x.typ.kind == kNull:
		return x.sql
	case t.kind == kDouble && x.typ.kind == kInt:
		return "CAST(" + x.sql + " AS REAL)"
	case t.kind == kDouble:
		return "f_double(" + x.sql + ")"
	case t.kind == kDecimal:
		return fmt.Sprintf("f_decimal(%s, %d, %d)", x.sql, t.precision, t.scale)
	}
	return x.sql
}

// together brings values to one type.
func (q *query) together(list []term) (out []string) {
	t := list[0].typ
	for _, x := range list[1:] {
		t = common(t, x.typ)
	}
	for _, x := range list {
		out = append(out, q.convert(x, t))
	}
	return out
}

// comparable brings two operands to one type. A number or time and a constant string compare as numbers and times; but = between a whole
// number and a string is nothing that Flink knows.
func (q *query) comparable(op string, x, y term) (term, term) {
	literal := func(s, other term) term {
		if s.typ.kind != kString || s.constant == nil {
			return s
		}
		switch {
		case other.typ.kind == kTime:
			if t, ok := canonicalTime(*s.constant); ok {
				return term{sql: quoteSQL(t), typ: other.typ}
			}
		case other.typ.kind == kDecimal:
			return term{sql: fmt.Sprintf("f_decimal(%s, %d, %d)", s.sql, other.typ.precision, other.typ.scale), typ: other.typ}
		case other.typ.kind == kDouble, other.typ.kind == kInt && op != "=" && op != "<>" && op != "IS":
			return term{sql: "f_double(" + s.sql + ")", typ: typ{kind: kDouble}}
		}
		return s
	}
	x, y = literal(x, y), literal(y, x)
	t := common(beside(x.typ, y.typ), beside(y.typ, x.typ))
	return term{sql: q.convert(x, t), typ: t}, term{sql: q.convert(y, t), typ: t}
}

// beside is the type of a whole number beside a DECIMAL: it has 64 bits, for SUM of an INT has them.
func beside(t, other typ) typ {
	if t.kind == kInt && other.kind == kDecimal {
		t.bits = 64
	}
	return t
}

func (q *query) compare(op string, x, y term) term {
	x, y = q.comparable(op, x, y)
	if x.typ.kind == kDecimal && op != "=" && op != "<>" {
		return boolean("f_order(%s, %s) %s 0", x, y, op)
	}
	return boolean("%s %s %s", x, op, y)
}

// cast translates CAST.
func (q *query) cast(x term, to typ) term {
	from := x.typ
	out := term{typ: to}
	switch {
	case from.kind == kNull:
		out.sql = "NULL"
	case to.kind == kString:
		out.sql = fmt.Sprintf("f_text(%s, %d)", x.sql, from.kind)
		if to.precision > 0 {
			out.sql = fmt.Sprintf("substr(%s, 1, %d)", out.sql, to.precision)
		}
		if to.fixed {
			refuse("the reference does not support CAST to CHAR")
		}
	case from.kind == kString:
		out.sql = fmt.Sprintf("f_parse(%s, %d, %d, %d, %d)", x.sql, to.kind, to.bits, to.precision, to.scale)
	case to.kind == kBool && from.kind == kDecimal:
		out.sql = fmt.Sprintf("(f_order(%s, '0') <> 0)", x.sql)
	case to.kind == kBool && from.kind != kBool:
		out.sql = "(" + x.sql + " <> 0)"
	case to.kind == from.kind && to.kind != kInt, to.kind == kDouble, to.kind == kDecimal:
		if from.kind == kBool || from.kind == kTime {
			if to.kind != from.kind {
				x.typ.kind, x.typ.bits = kInt, 32
			}
		}
		out.sql = q.convert(x, to)
	case to.kind == kInt && from.kind != kTime:
		out.sql = fmt.Sprintf("f_int(%s, %d)", x.sql, to.bits)
	default:
		refuse("the reference does not support this CAST")
	}
	if to.kind == kTime && from.kind != kTime && from.kind != kString || from.kind == kTime && to.kind != kTime && to.kind != kString {
		refuse("the reference does not support this CAST")
	}
	return out
}
