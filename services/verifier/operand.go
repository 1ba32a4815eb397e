package verifier

import (
	"fmt"
	"strings"
)

// primary translates an operand.
func (q *query) primary() term {
	t := q.ahead(0)
	switch {
	case t.kind == number:
		q.take()
		return numeric(t.text)
	case t.kind == text:
		q.take()
		return term{sql: quoteSQL(t.text), typ: typ{kind: kString}, constant: &t.text}
	case q.accept("("):
		if q.is("SELECT") {
			refuse("the reference does not support a query within a query")
		}
		x := q.expr(0)
		q.expect(")")
		return x
	case q.accept("NULL"), q.accept("UNKNOWN"):
		return term{sql: "NULL"}
	case q.accept("TRUE"):
		return term{sql: "TRUE", typ: typ{kind: kBool}}
	case q.accept("FALSE"):
		return term{sql: "FALSE", typ: typ{kind: kBool}}
	case q.is("INTERVAL"):
		return term{typ: typ{kind: kInterval}, ms: q.interval()}
	case q.is("TIMESTAMP") && q.ahead(1).kind == text:
		q.take()
		at, ok := canonicalTime(q.take().text)
		if !ok {
			refuse("the reference does not support this TIMESTAMP")
		}
		return term{sql: quoteSQL(at), typ: typ{kind: kTime}}
	case q.accept("CASE"):
		return q.cases()
	case t.kind == word && q.ahead(1) == token{symbol, "("}:
		return q.call()
	case t.kind == word || t.kind == quoted:
		return q.column()
	}
	refuse("expected an expression, found %s", q.found())
	return term{}
}

func (q *query) cases() term {
	var operand *term
	if !q.is("WHEN") {
		x := q.expr(0)
		operand = &x
	}
	var conditions []string
	var values []term
	for q.accept("WHEN") {
		x := q.expr(0)
		if operand != nil {
			x = q.compare("=", *operand, x)
		}
		conditions = append(conditions, q.condition(x).sql)
		q.expect("THEN")
		values = append(values, q.expr(0))
	}
	otherwise := term{sql: "NULL"}
	if q.accept("ELSE") {
		otherwise = q.expr(0)
	}
	q.expect("END")
	return q.choose(conditions, append(values, otherwise))
}

// choose is the value of the first condition that is TRUE, or the last value.
func (q *query) choose(conditions []string, values []term) term {
	t := values[0].typ
	for _, v := range values[1:] {
		t = common(t, v.typ)
	}
	var b strings.Builder
	b.WriteString("CASE")
	for i, c := range conditions {
		fmt.Fprintf(&b, " WHEN %s THEN %s", c, q.convert(values[i], t))
	}
	fmt.Fprintf(&b, " ELSE %s END", q.convert(values[len(values)-1], t))
	return term{sql: b.String(), typ: t}
}

// column translates a column, or a field of one.
func (q *query) column() term {
	q.references++
	name := q.name()
	columns := q.table.columns
	find := func() (column, bool) {
		for _, c := range columns {
			if c.name == name {
				return c, true
			}
		}
		return column{}, false
	}
	c, ok := find()
	if !ok && name == q.alias && q.accept(".") {
		name = q.name()
		c, ok = find()
	}
	if bound, window := map[string]string{"window_start": "e.ws", "window_end": "e.we", "window_time": "e.we - 1"}[name]; window && q.tvf {
		return term{sql: "f_time(" + bound + ")", typ: typ{kind: kTime}}
	}
	path := []string{name}
	for ok && q.accept(".") {
		name = q.name()
		path = append(path, name)
		columns = c.fields
		c, ok = find()
	}
	if !ok || c.typ.kind == kRow {
		refuse("unknown column %s", strings.Join(path, "."))
	}
	if c.token {
		path = []string{userPath}
	}
	x := term{sql: fmt.Sprintf("e.c%d", q.inputs.of(path, c.typ)), typ: c.typ}
	if c.token {
		x.token = fmt.Sprintf("e.c%d", q.inputs.of(path, typ{kind: kUser}))
	}
	return x
}
