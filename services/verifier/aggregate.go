package verifier

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

var aggregates = []string{"COUNT", "SUM", "AVG", "MIN", "MAX"}

// maxDistinct is how many distinct values of an aggregate spate counts for a key in a window.
const maxDistinct = 65_536

// aggregate translates an aggregate with its FILTER.
func (q *query) aggregate(name string) term {
	x, distinct := q.unfiltered(name)
	filter := ""
	if q.accept("FILTER") {
		q.expect("(")
		q.expect("WHERE")
		filter = " FILTER (WHERE " + q.condition(q.expr(0)).sql + ")"
		q.expect(")")
	}
	x.sql += filter
	if distinct == "" {
		return x
	}
	values := "count(DISTINCT " + distinct + ")" + filter
	if beyond := fmt.Sprintf("%s > %d", values, maxDistinct); !slices.Contains(q.beyond, beyond) {
		q.beyond = append(q.beyond, beyond)
	}
	if name == "COUNT" {
		x.sql = fmt.Sprintf("min(%s, %d)", x.sql, maxDistinct)
	} else {
		x.sql = fmt.Sprintf("CASE WHEN %s <= %d THEN %s END", values, maxDistinct, x.sql)
	}
	return x
}

// unfiltered translates an aggregate up to its FILTER. If it is one of distinct values whose number is bounded, distinct is what they are.
func (q *query) unfiltered(name string) (_ term, distinct string) {
	count := typ{kind: kInt, bits: 64}
	if q.accept("*") {
		q.expect(")")
		return term{sql: "count(*)", typ: count}, ""
	}
	if q.accept("DISTINCT") {
		distinct = "DISTINCT "
	} else {
		q.accept("ALL")
	}
	x := q.expr(0)
	q.expect(")")
	t := x.typ
	function := map[kind]string{kInt: "int", kDouble: "double", kDecimal: "decimal"}[t.kind]
	switch {
	case name == "COUNT":
		counted := cmp.Or(x.token, key(x))
		return term{sql: "count(" + distinct + counted + ")", typ: count}, of(distinct, counted)
	case name == "MIN" || name == "MAX":
		switch t.kind {
		case kDouble:
			x.sql += " + 0.0" // -0.0 equals 0.0
		case kTime:
			x.sql = "substr(" + x.sql + ", 1, 23) || '000000'" // cut to milliseconds, as in Flink
		case kDecimal:
			return term{sql: "f_" + strings.ToLower(name) + "_decimal(" + x.sql + ")", typ: t}, ""
		}
		return term{sql: strings.ToLower(name) + "(" + x.sql + ")", typ: t}, ""
	case function == "":
		refuse("%s needs numbers", name)
	case t.kind == kDouble && distinct != "":
		x.sql, function = key(x), "bits"
	case t.kind == kDecimal:
		t.precision = maxDigits
		if name == "AVG" {
			t.scale = max(6, t.scale)
		}
	}
	return term{sql: fmt.Sprintf("f_%s_%s(%s%s)", strings.ToLower(name), function, distinct, x.sql), typ: t}, of(distinct, x.sql)
}

// of is what an aggregate takes the distinct values of; empty if it takes all.
func of(distinct, sql string) string {
	if distinct == "" {
		return ""
	}
	return sql
}

// key is a value as GROUP BY and DISTINCT see it: by its bits, so that -0.0 is not 0.0. It is never one that SQLite takes for a constant: in GROUP
// BY that would be the number of a column.
func key(x term) string {
	switch x.typ.kind {
	case kDouble:
		return "f_bits(" + x.sql + ")"
	case kInt, kBool:
		return "f_key(" + x.sql + ")"
	}
	return x.sql
}
