package rule

import (
	"fmt"
	"slices"
	"strings"

	"spate/shared/rule/syntax"
)

// call checks a call: of an aggregate, a bound of the window, or a function.
func (c *checker) call(e *syntax.Call) *node {
	if _, ok := aggregateFunctions[e.Name]; ok {
		return c.aggregate(e)
	}
	if base, bound, found := strings.Cut(e.Name, "_"); found && groupWindows[base] > 0 {
		if b, ok := map[string]int{"START": boundStart, "END": boundEnd, "ROWTIME": boundLast}[bound]; ok {
			return c.bound(e, base, b)
		}
	}
	switch {
	case groupWindows[e.Name] > 0:
		return c.fail(e.Pos, "put it in GROUP BY", "%s is not allowed in %s", e.Name, c.clause)
	case e.Filter != nil || e.Distinct || e.Star:
		return c.fail(e.Pos, aggregateNames, "only aggregates can have *, DISTINCT or FILTER, and %s is not an aggregate", e.Name)
	}
	switch e.Name {
	case "IF":
		if len(e.Args) == 3 {
			return c.cases(&syntax.Case{Pos: e.Pos, Whens: []syntax.When{{If: e.Args[0], Then: e.Args[1]}}, Else: e.Args[2]})
		}
	case "NULLIF":
		if len(e.Args) == 2 {
			return c.cases(&syntax.Case{Pos: e.Pos, Whens: []syntax.When{{If: &syntax.Binary{Pos: e.Pos, Op: "=", X: e.Args[0], Y: e.Args[1]}, Then: &syntax.Literal{Pos: e.Pos, Kind: syntax.Null}}}, Else: e.Args[0]})
		}
	case "MOD":
		if args := c.all(e.Args); len(args) == 2 {
			return c.arithmetic("%", args[0], args[1], e.Pos)
		} else if len(e.Args) == 2 {
			return nil
		}
	case "COALESCE", "IFNULL":
		return c.coalesce(e)
	case "HOUR", "MINUTE", "SECOND", "DAYOFMONTH", "DAYOFWEEK", "MONTH", "YEAR":
		unit := map[string]string{"DAYOFMONTH": "DAY", "DAYOFWEEK": "DOW"}[e.Name]
		if unit == "" {
			unit = e.Name
		}
		e = &syntax.Call{Pos: e.Pos, Name: "EXTRACT", Word: unit, Args: e.Args}
	}
	f, ok := functions[e.Name]
	if !ok && slices.Contains(otherAggregates, e.Name) {
		return c.fail(e.Pos, aggregateNames, "the aggregate %s is not supported", e.Name)
	}
	if !ok {
		return c.fail(e.Pos, suggestFunction(e.Name), "unknown function %s", e.Name)
	}
	if len(e.Args) < f.least || len(e.Args) > f.most {
		return c.fail(e.Pos, "write "+f.usage, "the number of arguments of %s cannot be %d", e.Name, len(e.Args))
	}
	args := c.all(e.Args)
	if args == nil && len(e.Args) > 0 {
		return nil
	}
	t, args, problem := f.check(args, e.Word)
	if problem != "" {
		return c.fail(e.Pos, "write "+f.usage, "%s", problem)
	}
	n := newNode(opCall, f.name(e), t, e.Pos, args...)
	if f.regexp {
		if n = c.regexp(n); n == nil {
			return nil
		}
	}
	return fold(n)
}

// name is that of the node: it has the word in it, if the function has one.
func (f function) name(e *syntax.Call) string {
	if e.Word != "" {
		return e.Name + " " + e.Word
	}
	return e.Name
}

func suggestFunction(name string) string {
	known := map[string]string{
		"LEN": "CHAR_LENGTH", "LENGTH": "CHAR_LENGTH", "SUBSTR": "SUBSTRING", "NVL": "COALESCE", "ISNULL": "x IS NULL", "UCASE": "UPPER", "LCASE": "LOWER",
		"REGEXP_LIKE": "REGEXP", "DATE_PART": "EXTRACT", "COUNT_IF": "COUNT(*) FILTER (WHERE …)", "COUNTIF": "COUNT(*) FILTER (WHERE …)",
		"APPROX_COUNT_DISTINCT": "COUNT(DISTINCT x)", "NOW": "the time column", "PROCTIME": "the time column",
	}
	if k, ok := known[name]; ok {
		return "write " + k
	}
	var names []string
	for n := range functions {
		names = append(names, n)
	}
	slices.Sort(names)
	return "the functions are " + strings.Join(names, ", ")
}

func (c *checker) coalesce(e *syntax.Call) *node {
	args := c.all(e.Args)
	if len(args) == 0 {
		return nil
	}
	t := args[0].typ
	notNull := t.NotNull
	for _, a := range args[1:] {
		both, ok := common(t, a.typ)
		if !ok {
			return c.fail(a.at, "convert one of them with CAST", "the values of COALESCE have different types: %s and %s", t.nullable(), a.typ.nullable())
		}
		notNull = notNull || a.typ.NotNull
		t = both
	}
	t.NotNull = notNull
	for i := range args {
		args[i] = castTo(args[i], t)
	}
	return fold(newNode(opCoalesce, "", t, e.Pos, args...))
}

// regexp compiles the pattern of a regular expression, which must be a constant.
func (c *checker) regexp(n *node) *node {
	if n.args[1].op != opConst || n.args[1].value.IsNull() {
		return c.fail(n.args[1].at, "", "the regular expression must be a constant")
	}
	text := string(n.args[1].value.text)
	re, err := c.compileRegexp(text)
	if err != nil {
		return c.fail(n.args[1].at, "use RE2 syntax, which has no backreferences or lookahead", "%v", err)
	}
	if n.like = (&pattern{regexp: re}); text == "" {
		n.like = &pattern{never: true} // as Flink has it
	}
	return n
}

// groupWindows are the windows that GROUP BY can have, and how many intervals they need.
var groupWindows = map[string]int{"TUMBLE": 1, "HOP": 2, "SESSION": 1}

// bound checks TUMBLE_START(t, INTERVAL …), which must repeat the window of GROUP BY.
func (c *checker) bound(e *syntax.Call, base string, bound int) *node {
	if c.group == nil {
		return c.fail(e.Pos, "use it in SELECT or HAVING", "%s is not allowed in %s", e.Name, c.clause)
	}
	w := c.group.window
	if w == nil {
		return c.fail(e.Pos, "write window_start or window_end", "%s needs %s in GROUP BY", e.Name, base)
	}
	if want := windowText(w); w.Name != base || windowText(e) != want {
		return c.fail(e.Pos, fmt.Sprintf("write %s(%s)", e.Name, want), "%s must repeat the window exactly as it is written in GROUP BY", e.Name)
	}
	return indexed(opBound, bound, Type{Kind: Timestamp, NotNull: true}, e.Pos)
}

// windowText is how the arguments of a group window are written.
func windowText(e *syntax.Call) string {
	var parts []string
	for _, a := range e.Args {
		switch a := a.(type) {
		case *syntax.Ref:
			parts = append(parts, a.Parts[len(a.Parts)-1].Text)
		case *syntax.Interval:
			parts = append(parts, "INTERVAL "+a.Text)
		default:
			parts = append(parts, "?")
		}
	}
	return strings.Join(parts, ", ")
}

// Aggregate is an aggregate function of a rule.
type Aggregate struct {
	Function AggregateFunction
	Distinct bool
	Type     Type // of its result

	arg    *node // nil for COUNT(*)
	filter *node // nil without FILTER
	key    string
}

// AggregateFunction is what an aggregate does.
type AggregateFunction uint8

// The aggregate functions.
const (
	Count AggregateFunction = iota
	Sum
	Min
	Max
	Avg
)

// aggregateNames is a fix for what is not one of them.
const aggregateNames = "the aggregates are COUNT, SUM, MIN, MAX and AVG"

// otherAggregates are those that Flink, or whoever writes rules, knows besides.
var otherAggregates = []string{
	"ARRAY_AGG", "COLLECT", "CUME_DIST", "DENSE_RANK", "FIRST", "FIRST_VALUE", "JSON_ARRAYAGG", "JSON_OBJECTAGG", "LAG", "LAST", "LAST_VALUE", "LEAD", "LISTAGG", "MEDIAN", "MODE",
	"NTILE", "PERCENTILE", "PERCENTILE_CONT", "PERCENTILE_DISC", "PERCENT_RANK", "RANK", "ROW_NUMBER", "STDDEV", "STDDEV_POP", "STDDEV_SAMP", "STDEV", "STRING_AGG", "VARIANCE", "VAR_POP", "VAR_SAMP",
}

var aggregateFunctions = map[string]AggregateFunction{"COUNT": Count, "SUM": Sum, "MIN": Min, "MAX": Max, "AVG": Avg}

func (f AggregateFunction) String() string {
	return [...]string{"COUNT", "SUM", "MIN", "MAX", "AVG"}[f]
}

func (c *checker) aggregate(e *syntax.Call) *node {
	if c.group == nil {
		if c.clause == "an aggregate" {
			return c.fail(e.Pos, "", "an aggregate cannot contain another aggregate")
		}
		return c.fail(e.Pos, "put the condition in HAVING", "%s is an aggregate, which is not allowed in %s", e.Name, c.clause)
	}
	over := *c
	over.group, over.clause = nil, "an aggregate"
	a := &Aggregate{Function: aggregateFunctions[e.Name], Distinct: e.Distinct}
	var ok bool
	if a.Type, ok = over.aggregateType(e, a); !ok {
		return nil
	}
	if e.Filter != nil {
		if a.filter = over.condition(e.Filter); a.filter == nil {
			return nil
		}
		if a.Function != Count {
			a.Type.NotNull = false
		}
		a.key += " FILTER " + a.filter.key
	}
	i := slices.IndexFunc(c.group.aggregates, func(b *Aggregate) bool { return b.key == a.key })
	if i < 0 {
		i = len(c.group.aggregates)
		c.group.aggregates = append(c.group.aggregates, a)
	}
	return indexed(opAggregate, i, a.Type, e.Pos)
}

// combined writes several values as one text.
func combined(nodes []*node, list []syntax.Expr) string {
	var parts []string
	for i, n := range nodes {
		text := syntax.Print(list[i])
		if n.typ.Kind != String {
			text = "CAST(" + text + " AS STRING)"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " || '|' || ")
}

// aggregateType checks the argument of an aggregate, and decides the type of its result and its key.
func (c *checker) aggregateType(e *syntax.Call, a *Aggregate) (Type, bool) {
	count := Type{Kind: BigInt, NotNull: true}
	if e.Star {
		if a.key = "COUNT(*)"; a.Function != Count {
			c.fail(e.Pos, "name a column", "%s(*) is not possible", e.Name)
			return count, false
		}
		return count, true
	}
	if len(e.Args) != 1 {
		fix := "write " + e.Name + "(x)"
		if a.Function == Count && len(e.Args) > 1 {
			args := c.all(e.Args)
			if args == nil {
				return count, false
			}
			fix = "combine them into one: COUNT(" + map[bool]string{true: "DISTINCT "}[e.Distinct] + combined(args, e.Args) + ")"
		}
		c.fail(e.Pos, fix, "%s takes one expression, but this call has %d", e.Name, len(e.Args))
		return count, false
	}
	check := c.expr
	if a.Function == Count {
		check = c.token
	}
	x := check(e.Args[0])
	if x == nil {
		return count, false
	}
	if x.typ.Kind == Null {
		c.fail(x.at, "", "%s of NULL is not possible", e.Name)
		return count, false
	}
	if x.typ.Kind == Float {
		x = castTo(x, Type{Kind: Double})
	}
	t := x.typ
	a.arg = x
	if a.Function == Min || a.Function == Max {
		a.Distinct = false // changes nothing
	}
	a.key = fmt.Sprintf("%s(%v %s)", e.Name, a.Distinct, x.key)
	switch a.Function {
	case Count:
		// The type alone does not say so: what is impossible, such as 1 / 0, is NULL whatever its type.
		if !a.Distinct && (x.op == opInput && t.NotNull || x.op == opConst && !x.value.IsNull()) {
			a.arg, a.key = nil, "COUNT(*)" // COUNT(1)
		}
		return count, true
	case Min, Max:
		return t, true
	}
	switch {
	case !t.numeric():
		c.fail(x.at, "", "%s needs numbers, but this is %s", e.Name, t.nullable())
		return count, false
	case t.Kind == Decimal:
		if a.Distinct && t.Precision > 18 {
			c.fail(x.at, "cast it to DECIMAL(18, s)", "%s(DISTINCT …) of numbers with more than 18 digits is not supported", e.Name)
			return count, false
		}
		t.Precision = maxPrecision
		if a.Function == Avg {
			t.Scale = max(6, t.Scale)
		}
	}
	return t, true
}
