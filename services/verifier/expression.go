package verifier

import (
	"fmt"
	"slices"
	"strings"
)

// term is an expression in SQLite's words.
type term struct {
	sql string
	typ typ
	// constant is the text of a string or number literal, and ms the length of an interval.
	constant *string
	ms       int64
	token    string // what COUNT takes of a column that is a token
}

// binary operators, by how tight they bind.
var levels = map[string]int{"=": 4, "<>": 4, "<": 4, "<=": 4, ">": 4, ">=": 4, "+": 6, "-": 6, "*": 7, "/": 7, "%": 7, "||": 7}

const (
	orLevel, andLevel, notLevel, isLevel, betweenLevel, additiveLevel = 0, 1, 2, 3, 5, 6
	unaryLevel                                                        = 8
	maxDepth                                                          = 100
)

// expr translates the expression that comes next, as far as its operators bind as tight as level.
func (q *query) expr(level int) term {
	if q.depth++; q.depth > maxDepth {
		refuse("an expression is nested more than %d levels deep", maxDepth)
	}
	defer func() { q.depth-- }()
	var x term
	switch {
	case level <= notLevel && q.accept("NOT"):
		x = boolean("NOT (%s)", q.condition(q.expr(notLevel)))
	case q.accept("+"):
		x = q.expr(unaryLevel)
	case q.accept("-"):
		x = q.negate(q.expr(unaryLevel))
	default:
		x = q.primary()
	}
	for {
		if len(x.sql) > maxScript {
			refuse("an expression is too long")
		}
		next, ok := q.operator(x, level)
		if !ok {
			return x
		}
		x = next
	}
}

// String is the expression, for boolean.
func (t term) String() string { return t.sql }

// boolean is a BOOLEAN in SQLite's words.
func boolean(format string, args ...any) term {
	return term{sql: "(" + fmt.Sprintf(format, args...) + ")", typ: typ{kind: kBool}}
}

func (q *query) condition(x term) term {
	if x.typ.kind != kBool && x.typ.kind != kNull {
		refuse("a condition is not a BOOLEAN: %s", x.sql)
	}
	return x
}

// operator translates what follows x.
func (q *query) operator(x term, level int) (term, bool) {
	if op := q.ahead(0); op.kind == symbol {
		l, ok := levels[op.text]
		if !ok || l < level {
			return x, false
		}
		q.take()
		y := q.expr(l + 1)
		switch {
		case op.text == "||":
			return term{sql: "(" + x.sql + " || " + y.sql + ")", typ: typ{kind: kString}}, true
		case l == 4:
			return q.compare(op.text, x, y), true
		}
		return q.arithmetic(op.text, x, y), true
	}
	switch {
	case level <= orLevel && q.accept("OR"):
		return boolean("%s OR %s", q.condition(x), q.condition(q.expr(andLevel))), true
	case level <= andLevel && q.accept("AND"):
		return boolean("%s AND %s", q.condition(x), q.condition(q.expr(notLevel))), true
	case level <= isLevel && q.accept("IS"):
		return q.isWhat(x), true
	case level <= betweenLevel && q.is("NOT") && slices.ContainsFunc([]string{"BETWEEN", "IN", "LIKE", "SIMILAR"}, func(w string) bool { return q.is("NOT", w) }):
		q.take()
		y, _ := q.predicate(x)
		return boolean("NOT %s", y), true
	case level <= betweenLevel:
		return q.predicate(x)
	}
	return x, false
}

func (q *query) isWhat(x term) term {
	not := ""
	if q.accept("NOT") {
		not = "NOT "
	}
	switch {
	case q.accept("NULL"), q.accept("UNKNOWN"):
		return boolean("%s IS %sNULL", x, not)
	case q.accept("TRUE"):
		return boolean("%s IS %sTRUE", q.condition(x), not)
	case q.accept("FALSE"):
		return boolean("%s IS %sFALSE", q.condition(x), not)
	}
	q.expect("DISTINCT", "FROM")
	y := q.expr(betweenLevel)
	x, y = q.comparable("IS", x, y)
	return boolean("%s IS %sDISTINCT FROM %s", x, not, y)
}

// predicate translates BETWEEN, IN, LIKE and SIMILAR TO.
func (q *query) predicate(x term) (term, bool) {
	switch {
	case q.accept("BETWEEN"):
		symmetric := q.accept("SYMMETRIC")
		q.accept("ASYMMETRIC")
		low := q.expr(additiveLevel)
		q.expect("AND")
		high := q.expr(additiveLevel)
		in := boolean("%s AND %s", q.compare(">=", x, low), q.compare("<=", x, high))
		if symmetric {
			in = boolean("%s OR %s AND %s", in, q.compare(">=", x, high), q.compare("<=", x, low))
		}
		return in, true
	case q.accept("IN"):
		q.expect("(")
		if q.is("SELECT") {
			refuse("the reference does not support a subquery after IN")
		}
		list := append([]term{x}, q.list()...)
		q.expect(")")
		all := q.together(list)
		return boolean("%s IN (%s)", all[0], strings.Join(all[1:], ", ")), true
	case q.accept("LIKE"):
		before := q.references
		p := q.expr(additiveLevel)
		literal := "0"
		if q.references == before { // Flink's planner makes a literal of what has no columns
			literal = "1"
		}
		return boolean("f_like(%s, %s, %s, %s)", x, p, q.escape(), literal), true
	case q.accept("SIMILAR", "TO"):
		p := q.expr(additiveLevel)
		return boolean("f_similar(%s, %s, %s)", x, p, q.escape()), true
	}
	return x, false
}

func (q *query) escape() string {
	if !q.accept("ESCAPE") {
		return "NULL"
	}
	return q.expr(additiveLevel).sql
}

func (q *query) list() (list []term) {
	for {
		list = append(list, q.expr(0))
		if !q.accept(",") {
			return list
		}
	}
}

// quoteSQL writes a string.
func quoteSQL(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
