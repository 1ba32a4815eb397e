package verifier

import (
	"fmt"
	"strings"
)

var aggregates = []string{"COUNT", "SUM", "AVG", "MIN", "MAX"}

func (q *query) aggregate(name string) term {
	count := typ{kind: kInt, bits: 64}
	if q.accept("*") {
		q.expect(")")
		return term{sql: "count(*)", typ: count}
	}
	distinct := ""
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
		return term{sql: "count(" + distinct + key(x) + ")", typ: count}
	case name == "MIN" || name == "MAX":
		switch t.kind {
		case kDouble:
			x.sql += " + 0.0" // -0.0 equals 0.0
		case kTime:
			x.sql = "substr(" + x.sql + ", 1, 23) || '000000'" // cut to milliseconds, as in Flink
		case kDecimal:
			return term{sql: "f_" + strings.ToLower(name) + "_decimal(" + x.sql + ")", typ: t}
		}
		return term{sql: strings.ToLower(name) + "(" + x.sql + ")", typ: t}
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
	return term{sql: fmt.Sprintf("f_%s_%s(%s%s)", strings.ToLower(name), function, distinct, x.sql), typ: t}
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
