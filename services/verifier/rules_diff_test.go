package verifier_test

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"spate/services/verifier"
	"spate/shared/rule"
	"spate/shared/rule/ruletest"
)

// TestRulesDifferential: rules made at random find the same by SQLite and by package rule, in random logs with late events.
func TestRulesDifferential(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("SPATE_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SPATE_TEST_SEED=%d", seed)
	logs, each := 25, 20
	if testing.Short() {
		logs = 2
	}
	rows := 0
	for n := range logs {
		g := &generator{Rand: rand.New(rand.NewPCG(seed, uint64(n)))}
		rows += g.compare(t, each)
	}
	t.Logf("%d rows", rows)
	if rows < logs*each {
		t.Errorf("only %d rows: the rules find too little to compare", rows)
	}
}

const randomTable = `CREATE TABLE shop (
	kind STRING, brand STRING, code VARCHAR(2147483647), price DOUBLE, cost DECIMAL(10, 2), stock INT, big BIGINT, product BIGINT, vip BOOLEAN,
	seen TIMESTAMP(3), user_id BIGINT NOT NULL, t TIMESTAMP(3), WATERMARK FOR t AS t - INTERVAL '10' SECOND
) WITH ('connector' = 'kafka');
`

// compare makes a log and rules, and holds what they find against each other. It returns the number of rows.
func (g *generator) compare(t *testing.T, rules int) (rows int) {
	t.Helper()
	log := g.log()
	var script strings.Builder
	script.WriteString(randomTable)
	var texts []string
	for i := range rules {
		texts = append(texts, fmt.Sprintf("\n-- rule: r%d\n%s;\n", i, g.rule()))
		script.WriteString(texts[i])
	}
	set, errs := rule.Compile(script.String(), rule.Options{})
	for _, e := range errs {
		t.Error(e.Format("random.sql", script.String()))
	}
	report, err := verifier.Rules(context.Background(), script.String(), verifier.RulesOptions{}, verifierEvents(log))
	if err != nil {
		t.Fatal(err)
	}
	if len(errs) > 0 {
		return 0
	}
	events := ruleEvents(log, set.Inputs)
	plan := set.Plan()
	for i, r := range set.Rules {
		want := report.Rules[i]
		if want.Refused != nil {
			t.Errorf("%s\nis refused: %v", texts[i], want.Refused)
			continue
		}
		got := ruletest.Sort(ruletest.Naive(t, plan, i, ruletest.LatenessMS, events))
		rows += len(got)
		if problem := differ(r, got, want); problem != "" {
			t.Errorf("%s\n%s", texts[i], problem)
		}
	}
	return rows
}

// differ returns how the rows differ, empty if they do not.
func differ(r *rule.Rule, got []string, want verifier.RuleResult) string {
	for i := range max(len(got), len(want.Rows)) {
		switch {
		case i >= len(got):
			return "SQLite alone has " + want.JSON(i)
		case i >= len(want.Rows):
			return "package rule alone has " + got[i]
		case got[i] != want.JSON(i) && !nearLine(r, got[i], want.JSON(i)):
			return fmt.Sprintf("row %d of %d and %d\n  rule %s\nSQLite %s", i, len(got), len(want.Rows), got[i], want.JSON(i))
		}
	}
	return ""
}

// nearLine reports whether two rows differ in the last digits of DOUBLEs alone.
func nearLine(r *rule.Rule, a, b string) bool {
	x, y := strings.Split(a, ","), strings.Split(b, ",")
	if len(x) != len(y) || !slices.ContainsFunc(r.Columns, func(c rule.OutputColumn) bool { return c.Type.Kind == rule.Double }) {
		return false
	}
	for i := range x {
		name, v, _ := strings.Cut(strings.TrimRight(x[i], "}"), ":")
		other, w, _ := strings.Cut(strings.TrimRight(y[i], "}"), ":")
		if x[i] != y[i] && (name != other || !near(v, w)) {
			return false
		}
	}
	return true
}

// logEvent is an event: text by column. A column that is absent is NULL.
type logEvent struct {
	partition int32
	ms        int64
	columns   map[string]string
}

func verifierEvents(log []logEvent) iter.Seq2[verifier.Event, error] {
	return func(yield func(verifier.Event, error) bool) {
		for _, e := range log {
			column := func(path ...string) (string, bool) {
				text, ok := e.columns[strings.Join(path, ".")]
				return text, ok
			}
			if !yield(verifier.Event{Partition: e.partition, MS: e.ms, Appended: verifier.Unbounded, User: e.columns["user_id"], Column: column}, nil) {
				return
			}
		}
	}
}

func ruleEvents(log []logEvent, inputs []rule.Input) []ruletest.Event {
	events := make([]ruletest.Event, len(log))
	for n, e := range log {
		events[n] = ruletest.Event{Partition: e.partition, MS: e.ms, Values: make([]rule.Value, len(inputs))}
		for i, in := range inputs {
			if text, ok := e.columns[in.Name()]; ok {
				events[n].Values[i], _ = rule.Parse(in.Type, []byte(text))
			}
		}
	}
	return events
}

// generator makes rules and logs.
type generator struct {
	*rand.Rand
	row  bool     // it makes expressions over a window's row
	keys []string // of the rule
	kind []string // of the keys
}

func (g *generator) one(of ...string) string { return of[g.IntN(len(of))] }

// chance is true n times of 100.
func (g *generator) chance(n int) bool { return g.IntN(100) < n }

var brands = []string{
	"irisk", "IRISK", " irisk", "irisk ", "100%", `100\%`, "a_b", "axb", `a\b`, "日本", "bow🎀", "ß", "SS", "ﬁx", "İstanbul", "ΑΣ", "Ünï", "", "L'Oréal", "NULL", "12", "-7.5", "1e2", " 3 ", "true",
	"+5", "1_000", "0x10", ".5", "5.", "-0", "00012", "12.", "1e-400", "9223372036854775808", "2147483648", "Yes", "٣",
	"99999999999999999999999999999999999999999", "0.00000000000000000000000000000000000000000001", "1.0000000000000000000000000000000000000000000001", "-", "", ".", "e5", "NaN", "Infinity", "-Infinity", "1e400",
	"2024-02-28 23:50:02", "2024-02-28T23:50:02.5Z", "2024-02-28", "2024-02-28 23:50", "2024-02-30 00:00:00", "2024-02-28 23:50:02.123456789", "2024-02-28 24:00:00",
}

// log makes events over some five minutes, on up to three partitions that are not equally far. Some of them are late.
func (g *generator) log() []logEvent {
	const start = 1_709_164_200_000 // 2024-02-28 23:50
	list := make([]logEvent, 300)
	partitions := 1 + g.IntN(3)
	for i := range list {
		p := g.IntN(partitions)
		ms := int64(start + i*1000 - p*5000 - g.IntN(9000))
		if g.chance(8) {
			ms -= int64(g.IntN(120_000))
		}
		if g.chance(60) { // where windows begin, or just before
			ms -= ms%1000 + int64(g.IntN(2))
		}
		e := logEvent{partition: int32(p), ms: ms, columns: map[string]string{
			"t": isoTime(ms), "user_id": strconv.FormatInt([]int64{1, 2, 3, 9007199254740993, 9007199254740992, -4}[g.IntN(6)], 10),
		}}
		for name, f := range map[string]func() string{
			"kind": func() string { return g.one("view", "cart", "purchase", "remove_from_cart") },
			"code": func() string { return g.one("a", "b", "irisk", "100%", "é") }, "brand": func() string { return g.one(brands...) },
			"price": func() string {
				return g.one("-0.0", "0.0", "1.005", "2.5", "-2.5", "99.99", "1e8", "0.1", "12345.678", "7", "1e-7", "NaN", "nan", "Infinity", "-Infinity", "+Infinity", "Inf", "1e400", "-1e400")
			},
			"cost":  func() string { return g.one("0.00", "1.01", "2.50", "-2.50", "99999999.99", "0.05", "7") },
			"stock": func() string { return g.one("0", "1", "-3", "7", "2147483647", "-2147483648", "100") },
			"big": func() string {
				return g.one("0", "1", "9223372036854775807", "-9223372036854775808", "4611686018427387904", "10")
			},
			"product": func() string { return strconv.Itoa(g.IntN(12) - 2) },
			"vip":     func() string { return g.one("true", "false") },
			"seen":    func() string { return isoTime(start + int64(g.IntN(5))*1000 + int64(g.IntN(2))) },
		} {
			if g.chance(85) {
				e.columns[name] = f()
			}
		}
		list[i] = e
	}
	return list
}

func isoTime(ms int64) string {
	return strings.Trim(string(rule.TimeValue(ms, 0).JSON(rule.Type{Kind: rule.Timestamp})), `"`)
}

// rule makes a rule.
func (g *generator) rule() string {
	g.row, g.keys, g.kind = false, nil, nil
	for range g.IntN(4) {
		k := g.one("int", "string", "double", "decimal", "bool", "time")
		e := g.column(k)
		if g.chance(40) {
			e = g.expr(k, 2)
		}
		if !constantText(e) && !slices.Contains(g.keys, e) {
			g.keys, g.kind = append(g.keys, e), append(g.kind, k)
		}
	}
	window, start, last, from := g.window()
	where := ""
	if g.chance(50) {
		where = "\nWHERE " + g.expr("bool", 1+g.IntN(4))
	}
	if start == "window_start" && g.chance(10) && !strings.Contains(from, "SESSION") {
		bound := "window_start >= TIMESTAMP '2024-02-28 23:52:00'"
		if where == "" {
			where = "\nWHERE " + bound
		} else {
			where = fill("\nWHERE (?) AND ", strings.TrimPrefix(where, "\nWHERE ")) + bound
		}
	}
	group := "\nGROUP BY " + strings.Join(append([]string{window}, g.keys...), ", ")
	g.row = true
	items := []string{start + " AS window_start", last + " AS window_end"}
	for i, k := range g.keys {
		if form := map[string]string{"int": "CAST(? AS STRING)", "string": "UPPER(?)", "double": "(- ?)", "decimal": "(? * 2)"}[g.kind[i]]; form != "" && g.chance(15) {
			k = fill(form, k)
		}
		items = append(items, fmt.Sprintf("%s AS k%d", k, i))
	}
	for i := range 1 + g.IntN(4) {
		k := g.one("int", "string", "double", "decimal", "bool", "time")
		e := g.aggregate(k)
		if g.chance(40) {
			e = g.expr(k, 1+g.IntN(4))
		}
		items = append(items, fmt.Sprintf("%s AS a%d", e, i))
	}
	having := ""
	if g.chance(60) {
		having = "\nHAVING " + g.expr("bool", 1+g.IntN(3))
	}
	return "INSERT INTO alerts SELECT " + strings.Join(items, ",\n  ") + "\nFROM " + from + where + group + having
}

// constantText reports whether an expression has no column in it: it cannot be a key.
func constantText(e string) bool {
	for _, columns := range randomColumns {
		for _, c := range columns {
			if strings.Contains(e, c) {
				return false
			}
		}
	}
	return true
}

// window makes a window: what GROUP BY has, the bounds, and what FROM has.
func (g *generator) window() (group, start, last, from string) {
	interval := func(ms int) string {
		if ms%1000 != 0 {
			return fmt.Sprintf("INTERVAL '%d.%03d' SECOND", ms/1000, ms%1000)
		}
		if ms%60_000 == 0 && g.chance(50) {
			return fmt.Sprintf("INTERVAL '%d' MINUTE", ms/60_000)
		}
		return fmt.Sprintf("INTERVAL '%d' SECOND(4)", ms/1000)
	}
	size := []int{1000, 1500, 7000, 10_000, 20_000, 60_000, 300_000, 3_600_000}[g.IntN(8)]
	if g.chance(50) {
		args := interval(size)
		name := g.one("TUMBLE", "TUMBLE", "HOP", "HOP", "SESSION")
		if name == "HOP" {
			args = interval([]int{3000, 7000, 10_000, 25_000}[g.IntN(4)]) + ", " + interval([]int{10_000, 20_000, 60_000}[g.IntN(3)])
		}
		return fmt.Sprintf("%s(t, %s)", name, args), fmt.Sprintf("%s_START(t, %s)", name, args), fmt.Sprintf("%s_END(t, %s)", name, args), "shop"
	}
	name := g.one("TUMBLE", "HOP", "CUMULATE", "SESSION")
	args, by := interval(size), ""
	switch name {
	case "HOP", "CUMULATE":
		step := []int{1000, 2500, 10_000}[g.IntN(3)]
		size = step * (1 + g.IntN(8))
		args = interval(step) + ", " + interval(size)
	case "SESSION":
		g.keys, g.kind = nil, nil
		if g.chance(70) {
			g.keys, g.kind = []string{"user_id", "kind"}[:1+g.IntN(2)], []string{"int", "string"}
			by = " PARTITION BY " + strings.Join(g.keys, ", ")
		}
	}
	if name != "SESSION" && g.chance(20) {
		args += ", " + interval([]int{500, 1000, 3000}[g.IntN(3)]%size) // the offset
	}
	from = fmt.Sprintf("TABLE(%s(TABLE shop%s, DESCRIPTOR(t), %s))", name, by, args)
	if name == "TUMBLE" && !strings.Contains(args, ",") && g.chance(30) {
		from = fmt.Sprintf("TABLE(TUMBLE(DATA => TABLE shop, TIMECOL => DESCRIPTOR(t), SIZE => %s))", args)
	}
	return "window_start, window_end", "window_start", "window_end", from
}

var randomColumns = map[string][]string{
	"int": {"stock", "big", "product", "user_id"}, "string": {"kind", "brand", "code"}, "double": {"price"}, "decimal": {"cost"}, "bool": {"vip"}, "time": {"seen"},
}

func (g *generator) column(kind string) string { return g.one(randomColumns[kind]...) }

// literal makes a constant.
func (g *generator) literal(kind string) string {
	switch kind {
	case "int":
		return g.one("0", "1", "2", "-3", "7", "100", "2147483647", "3000000000", "9223372036854775807")
	case "string":
		return "'" + strings.ReplaceAll(g.one(brands...), "'", "''") + "'"
	case "double":
		return g.one("0e0", "1.5e0", "-2.5e0", "1e2", "1.005e0")
	case "decimal":
		return g.one("0.5", "1.00", "-2.50", "99.999", "12345678901234567890.5", ".1")
	case "bool":
		return g.one("TRUE", "FALSE")
	}
	return g.one("TIMESTAMP '2024-02-28 23:50:02'", "TIMESTAMP '2024-02-28 23:50:02.001'")
}

// leaf makes an expression without operands: of an event's columns, or of a row's keys and aggregates.
func (g *generator) leaf(kind string) string {
	if g.chance(25) {
		return g.literal(kind)
	}
	if !g.row {
		return g.column(kind)
	}
	var keys []string
	for i, k := range g.keys {
		if g.kind[i] == kind {
			keys = append(keys, "("+k+")")
		}
	}
	if len(keys) > 0 && g.chance(40) {
		return g.one(keys...)
	}
	return g.aggregate(kind)
}

// aggregate makes an aggregate over an expression of columns.
func (g *generator) aggregate(kind string) string {
	g.row = false
	defer func() { g.row = true }()
	argument := func(kind string) string {
		if g.chance(60) {
			return g.column(kind)
		}
		return g.expr(kind, 2)
	}
	distinct := g.one("", "", "DISTINCT ")
	var call string
	switch {
	case kind == "int" && g.chance(60):
		call = g.one("COUNT(*)", "COUNT("+distinct+argument(g.one("int", "string", "double", "decimal", "bool", "time"))+")")
	case kind == "string" || kind == "bool" || kind == "time":
		call = g.one("MIN", "MAX") + "(" + argument(kind) + ")"
	case kind == "decimal": // more digits cannot be DISTINCT
		call = g.one("SUM", "AVG", "MIN", "MAX") + "(" + g.one(distinct+"cost", argument(kind)) + ")"
	default:
		call = g.one("SUM", "AVG", "MIN", "MAX") + "(" + distinct + argument(kind) + ")"
	}
	if g.chance(25) {
		call += " FILTER (WHERE " + g.expr("bool", 1) + ")"
	}
	return call
}

// expr makes an expression of a kind, with operators up to a depth.
func (g *generator) expr(kind string, depth int) string {
	if depth == 0 || g.chance(15) {
		return g.leaf(kind)
	}
	e := func(kind string) string { return g.expr(kind, depth-1) }
	if kind != "bool" && g.chance(20) {
		return g.conditional(kind, e)
	}
	switch kind {
	case "int":
		return g.whole(e)
	case "double":
		return g.double(e)
	case "decimal":
		return g.decimal(e)
	case "string":
		return g.text(e)
	case "bool":
		return g.boolean(e)
	}
	if g.chance(30) {
		return fill("CAST(? AS TIMESTAMP(3))", e("string"))
	}
	return fill(g.one("GREATEST(?, ?)", "LEAST(?, ?)", "(? + INTERVAL '1' MINUTE)", "(? - INTERVAL '1.5' SECOND)"), e(kind), e(kind))

}

// fill puts operands in place of the question marks.
func fill(form string, operands ...string) string {
	var b strings.Builder
	for _, o := range operands {
		before, after, found := strings.Cut(form, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString(o)
		form = after
	}
	b.WriteString(form)
	return b.String()
}

func (g *generator) conditional(kind string, e func(string) string) string {
	mixed := kind
	switch {
	case kind == "double" && g.chance(40):
		mixed = g.one("int", "decimal")
	case kind == "decimal" && g.chance(40):
		mixed = "int"
	}
	switch g.IntN(6) {
	case 0:
		return fill("CASE WHEN ? THEN ? ELSE ? END", e("bool"), e(kind), e(mixed))
	case 1:
		return fill("CASE WHEN ? THEN ? WHEN ? THEN ? END", e("bool"), e(kind), e("bool"), e(mixed))
	case 2:
		return fill("CASE ? WHEN ? THEN ? ELSE ? END", e("int"), e("int"), e(kind), e(mixed))
	case 3:
		return fill("IF(?, ?, ?)", e("bool"), e(kind), e(mixed))
	case 4:
		return fill("NULLIF(?, ?)", e(kind), e(kind))
	}
	return fill("COALESCE(?, ?)", e(kind), e(mixed))
}

// flat joins operands without parentheses.
func (g *generator) flat(operands func() string, operators ...string) string {
	e := operands()
	for range 1 + g.IntN(4) {
		e += " " + g.one(operators...) + " " + operands()
	}
	return "(" + e + ")"
}

func (g *generator) whole(e func(string) string) string {
	switch g.IntN(10) {
	case 9:
		return g.flat(func() string { return g.one("", "", "- ", "+ ") + g.leaf("int") }, "+", "-", "*", "/", "%")
	case 0, 1, 2:
		return fill(g.one("(? + ?)", "(? - ?)", "(? * ?)", "(? / ?)", "(? % ?)", "MOD(?, ?)"), e("int"), e("int"))
	case 3:
		return fill(g.one("(- ?)", "ABS(?)", "CAST(? AS INT)", "CAST(? AS SMALLINT)", "CAST(? AS BIGINT)", "ROUND(?, -1)", "FLOOR(?)"), e("int"))
	case 4:
		return fill(g.one("CHAR_LENGTH(?)", "CAST(? AS BIGINT)", "CAST(? AS TINYINT)", "POSITION('i' IN ?)", "POSITION('' IN ?)", "CAST(? AS INT)", "CAST(TRIM(?) AS BIGINT)"), e("string"))
	case 5:
		return fill(g.one("CAST(? AS INT)", "CAST(? AS BIGINT)"), e(g.one("double", "decimal", "bool")))
	case 6:
		return fill("EXTRACT("+g.one("YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND", "DOW", "DOY")+" FROM ?)", e("time"))
	case 7:
		return fill("POSITION(? IN ?)", e("string"), e("string"))
	}
	return fill(g.one("GREATEST(?, ?)", "LEAST(?, ?)"), e("int"), e("int"))
}

// double makes no 0 / 0: SQLite has no NaN.
func (g *generator) double(e func(string) string) string {
	switch g.IntN(5) {
	case 0, 1:
		return fill(g.one("(? + ?)", "(? - ?)", "(? * ?)"), e("double"), e(g.one("double", "int", "decimal")))
	case 2:
		return fill(g.one("(? / 3e0)", "(? / -7)", "(? / 2.5)", "(- ?)", "ABS(?)", "ROUND(?, 1)", "ROUND(?)", "FLOOR(?)", "CEIL(?)", "ROUND(?, -2)", "SQRT(ABS(?))"), e("double"))
	case 3:
		return fill(g.one("CAST(? AS DOUBLE)", "(? * 1e0)", "(? + 0.5e0)"), e(g.one("int", "decimal")))
	}
	return fill("CAST(? AS DOUBLE)", e("string"))
}

func (g *generator) decimal(e func(string) string) string {
	switch g.IntN(5) {
	case 0, 1:
		return fill(g.one("(? + ?)", "(? - ?)", "(? * ?)", "(? / ?)", "(? % ?)"), e("decimal"), e(g.one("decimal", "int")))
	case 2:
		return fill(g.one("(- ?)", "ABS(?)", "ROUND(?, 1)", "ROUND(?)", "ROUND(?, -1)", "FLOOR(?)", "CEIL(?)"), e("decimal"))
	case 3:
		return fill(g.one("CAST(? AS DECIMAL(10, 2))", "CAST(? AS DECIMAL(4, 1))", "CAST(? AS DECIMAL(38, 10))"), e(g.one("int", "double", "decimal", "string")))
	}
	return fill("(? * 1.0)", e("int"))
}

func (g *generator) text(e func(string) string) string {
	switch g.IntN(6) {
	case 0:
		return fill(g.one("UPPER(?)", "LOWER(?)", "TRIM(?)", "TRIM(LEADING 'i' FROM ?)", "TRIM(TRAILING 'k ' FROM ?)", "TRIM(BOTH FROM ?)", "LTRIM(?)", "RTRIM(?)"), e("string"))
	case 1:
		return fill(g.one("SUBSTRING(?, 2)", "SUBSTRING(?, 0, 2)", "SUBSTRING(? FROM -2)", "SUBSTRING(? FROM 2 FOR 3)", "SUBSTRING(?, -9, 3)", "SUBSTRING(?, 2, 0)"), e("string"))
	case 2:
		return fill(g.one("(? || ?)", "CONCAT(?, '-', ?)", "REPLACE(?, 'i', ?)", "REPLACE(?, ?, '_')"), e("string"), e("string"))
	case 3:
		return fill("CAST(? AS "+g.one("STRING", "VARCHAR(3)")+")", e(g.one("int", "double", "decimal", "bool", "time", "string")))
	case 4:
		return fill("SUBSTRING(?, ?)", e("string"), e("int"))
	}
	return fill(g.one("GREATEST(?, ?)", "LEAST(?, ?)"), e("string"), e("string"))
}

func (g *generator) boolean(e func(string) string) string {
	number := func() string { return g.one("int", "double", "decimal") }
	kind := g.one("int", "double", "decimal", "string", "time")
	other := kind
	if kind == "int" || kind == "double" || kind == "decimal" {
		other = number()
	}
	not := g.one("", "", "NOT ")
	switch g.IntN(13) {
	case 12:
		return g.flat(func() string {
			form := g.one("?", "NOT ?", "? = ?", "NOT ? <> ?", "? IS NOT TRUE", "NOT ? IS NULL", "? = ? IS UNKNOWN", "? < ? + ? * ?", "? - ? BETWEEN ? AND ? + ?", "NOT ? IN (?, ?)", "? NOT IN (?)", "? || ? LIKE ? || '%'")
			k := "bool"
			switch {
			case strings.Contains(form, "||"):
				k = "string"
			case strings.ContainsAny(form, "<-"), strings.Contains(form, "IN ("):
				k = "int"
			}
			return fill(form, g.leaf(k), g.leaf(k), g.leaf(k), g.leaf(k), g.leaf(k))
		}, "AND", "OR")
	case 0, 1:
		return fill(g.one("(? AND ?)", "(? OR ?)", "(NOT ? AND ?)", "? OR ? AND TRUE"), e("bool"), e("bool"))
	case 2, 3:
		return fill("(? "+g.one("=", "<>", "<", "<=", ">", ">=")+" ?)", e(kind), e(other))
	case 4:
		return fill("(? IS "+not+g.one("NULL", "DISTINCT FROM ?")+")", e(kind), e(other))
	case 5:
		return fill("(? IS "+not+g.one("TRUE", "FALSE", "UNKNOWN", "NULL")+")", e("bool"))
	case 6:
		return fill("(? "+not+"BETWEEN "+g.one("", "SYMMETRIC ")+"? AND ?)", e(kind), e(other), e(kind))
	case 7:
		return fill("(? "+not+"IN (?, ?"+g.one("", ", NULL", ", ?")+"))", e(kind), e(kind), e(kind), e(kind))
	case 8:
		return fill("(? "+not+"LIKE "+g.one(`'i%'`, `'%sk'`, `'a_b'`, `'_'`, `'%'`, `''`, `'100\%'`, `'a\_b'`, `'%!%%' ESCAPE '!'`, `'a#_b' ESCAPE '#'`, `'%%i%'`, `'日_'`, `?`, `LOWER(?)`)+")", e("string"), e("string"))
	case 9:
		return fill(g.one(`REGEXP(?, '^[a-z]+$')`, `REGEXP(?, 'i[rs]')`, `REGEXP(?, '')`, `REGEXP(?, '(?i)^iri')`, `REGEXP(?, '^.{2}$')`, `(? SIMILAR TO '(run|ir)%')`, `(? NOT SIMILAR TO '[a-z]+')`, `(? SIMILAR TO 'a_b|日%')`), e("string"))
	case 10:
		return fill(g.one("CAST(? AS BOOLEAN)", "(? > '0')", "(? <= '1.5')"), e(g.one("double", "int")))
	}
	return fill("(? = ?)", e("bool"), e("bool"))
}
