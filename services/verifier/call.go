package verifier

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// call translates a function, an aggregate or a bound of the window.
func (q *query) call() term {
	name := strings.ToUpper(q.take().text)
	q.expect("(")
	if slices.Contains(aggregates, name) {
		q.references++
		return q.aggregate(name)
	}
	if base, bound, found := strings.Cut(name, "_"); found && slices.Contains([]string{"TUMBLE", "HOP", "SESSION"}, base) {
		q.skip() // it repeats the window of GROUP BY
		at := map[string]string{"START": "e.ws", "END": "e.we", "ROWTIME": "e.we - 1"}[bound]
		if at == "" {
			refuse("the reference does not support %s", name)
		}
		return term{sql: "f_time(" + at + ")", typ: typ{kind: kTime}}
	}
	x := q.function(name)
	q.expect(")")
	return x
}

// function translates a call without its closing parenthesis.
func (q *query) function(name string) term {
	str, long := typ{kind: kString}, typ{kind: kInt, bits: 32}
	switch name {
	case "CAST", "TRY_CAST":
		x := q.expr(0)
		q.expect("AS")
		to, _ := q.typ()
		return q.cast(x, to)
	case "EXTRACT":
		unit := strings.ToUpper(q.name())
		q.expect("FROM")
		return q.extract(unit, q.expr(0))
	case "POSITION":
		part := q.expr(additiveLevel)
		q.expect("IN")
		return term{sql: fmt.Sprintf("instr(%s, %s)", q.expr(0).sql, part.sql), typ: long}
	case "SUBSTRING":
		args := []string{q.expr(0).sql}
		for q.accept(",") || q.accept("FROM") || q.accept("FOR") {
			args = append(args, q.expr(0).sql)
		}
		return term{sql: "f_substring(" + strings.Join(args, ", ") + ")", typ: str}
	case "TRIM":
		side := "trim"
		switch {
		case q.accept("LEADING"):
			side = "ltrim"
		case q.accept("TRAILING"):
			side = "rtrim"
		default:
			q.accept("BOTH")
		}
		set := "' '"
		if q.accept("FROM") {
			return term{sql: fmt.Sprintf("%s(%s, %s)", side, q.expr(0).sql, set), typ: str}
		}
		x := q.expr(0)
		if q.accept("FROM") {
			set, x = x.sql, q.expr(0)
		}
		return term{sql: fmt.Sprintf("%s(%s, %s)", side, x.sql, set), typ: str}
	}
	args := q.list()
	sql := make([]string, len(args))
	for i, a := range args {
		sql[i] = a.sql
	}
	joined := strings.Join(sql, ", ")
	need := func(least, most int) {
		if len(args) < least || len(args) > most {
			refuse("%s has the wrong number of arguments: %d", name, len(args))
		}
	}
	switch name {
	case "UPPER", "LOWER":
		need(1, 1)
		return term{sql: "f_" + strings.ToLower(name) + "(" + joined + ")", typ: str}
	case "LTRIM", "RTRIM":
		need(1, 1)
		return term{sql: fmt.Sprintf("%s(%s, ' ')", strings.ToLower(name), joined), typ: str}
	case "CHAR_LENGTH", "CHARACTER_LENGTH":
		need(1, 1)
		return term{sql: "length(" + joined + ")", typ: long}
	case "REPLACE":
		need(3, 3)
		return term{sql: "replace(" + joined + ")", typ: str}
	case "CONCAT":
		return term{sql: "(" + strings.Join(sql, " || ") + ")", typ: str}
	case "REGEXP":
		need(2, 2)
		if args[1].constant != nil {
			if _, err := regexp.Compile(*args[1].constant); err != nil {
				refuse("a regular expression is not valid in RE2: %v", err)
			}
		}
		return boolean("f_regexp(%s)", joined)
	case "MOD":
		need(2, 2)
		return q.arithmetic("%", args[0], args[1])
	case "IF":
		need(3, 3)
		return q.choose([]string{q.condition(args[0]).sql}, args[1:])
	case "NULLIF":
		need(2, 2)
		return q.choose([]string{q.compare("=", args[0], args[1]).sql}, []term{{sql: "NULL"}, args[0]})
	case "COALESCE", "IFNULL":
		all := q.together(args)
		t := args[0].typ
		for _, a := range args[1:] {
			t = common(t, a.typ)
		}
		return term{sql: "coalesce(" + strings.Join(append(all, "NULL"), ", ") + ")", typ: t}
	case "GREATEST", "LEAST":
		return q.extreme(name, args)
	case "ABS":
		need(1, 1)
		x := args[0]
		switch x.typ.kind {
		case kInt:
			return fit(x.typ.bits, fmt.Sprintf("CASE WHEN %s < 0 THEN - %s ELSE %s END", x.sql, x.sql, x.sql))
		case kDouble:
			return term{sql: "(abs(" + x.sql + ") + 0.0)", typ: x.typ} // SQLite leaves -0.0 as it is
		case kDecimal:
			return term{sql: "ltrim(" + x.sql + ", '-')", typ: x.typ}
		}
	case "FLOOR", "CEIL", "CEILING", "ROUND":
		return q.round(name, args)
	case "POWER", "SQRT", "LN", "EXP":
		for i, a := range args {
			sql[i] = q.convert(a, typ{kind: kDouble})
		}
		return term{sql: fmt.Sprintf("%s(%s)", strings.ToLower(name), strings.Join(sql, ", ")), typ: typ{kind: kDouble}}
	case "HOUR", "MINUTE", "SECOND", "MONTH", "YEAR", "DAYOFMONTH", "DAYOFWEEK":
		need(1, 1)
		return q.extract(strings.NewReplacer("DAYOFMONTH", "DAY", "DAYOFWEEK", "DOW").Replace(name), args[0])
	}
	refuse("the reference does not support the function %s", name)
	return term{}
}

func (q *query) extreme(name string, args []term) term {
	all := q.together(args)
	t := args[0].typ
	for _, a := range args[1:] {
		t = common(t, a.typ)
	}
	if t.kind == kDecimal {
		refuse("the reference does not support %s for DECIMAL", name)
	}
	if len(all) == 1 { // with one argument it is an aggregate of SQLite
		return term{sql: all[0], typ: t}
	}
	return term{sql: map[string]string{"GREATEST": "max", "LEAST": "min"}[name] + "(" + strings.Join(all, ", ") + ")", typ: t}
}

var units = []string{"YEAR", "MONTH", "DAY", "DOW", "DOY", "HOUR", "MINUTE", "SECOND"}

func (q *query) extract(unit string, x term) term {
	if x.typ.kind != kTime || !slices.Contains(units, unit) {
		refuse("the reference does not support %s for this value", unit)
	}
	format := map[string]string{"YEAR": "%Y", "MONTH": "%m", "DAY": "%d", "DOW": "%w", "DOY": "%j", "HOUR": "%H", "MINUTE": "%M", "SECOND": "%S"}[unit]
	sql := fmt.Sprintf("CAST(strftime('%s', substr(%s, 1, 23)) AS INTEGER)", format, x.sql)
	if unit == "DOW" {
		sql += " + 1" // Sunday is 1
	}
	return term{sql: "(" + sql + ")", typ: typ{kind: kInt, bits: 64}}
}
