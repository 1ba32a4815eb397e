package window

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"spate/shared/rule"
)

// nastyTable has a column of each type of number, and nastyValues what is hard on each: sums and products of them overflow, texts that only some
// programs take for numbers.
const nastyTable = `CREATE TABLE t (t1 TINYINT, i INT, b BIGINT, d DECIMAL(10, 2), w DECIMAL(38, 0), f FLOAT, x DOUBLE, s STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '1' SECOND);
`

var nastyValues = map[string][]string{
	"t1": {"0", "1", "-1", "127", "-128", "5"},
	"i":  {"0", "1", "-1", "2147483647", "-2147483648", "5", "12"},
	"b":  {"0", "1", "-1", "9223372036854775807", "-9223372036854775808", "5000000000000000000", "12"},
	"d":  {"0", "0.01", "-0.01", "99999999.99", "-99999999.99", "5", `"NaN"`},
	"w":  {"0", "1", "-1", "99999999999999999999999999999999999999", "-99999999999999999999999999999999999999", "60000000000000000000000000000000000000"},
	"f":  {"0", "-0.0", "1.5", `"NaN"`, `"Infinity"`, "3e38", "-3e38", "1e39"},
	"x":  {"0", "-0.0", "1.5", "-2.5", `"NaN"`, `"Infinity"`, `"-Infinity"`, `"+Infinity"`, "1e308", "-1e308", "1e400", "1e-320", "200"},
	"s":  {`"a"`, `"b"`, `"NaN"`, `"1e308"`, `"7"`, `"Infinity"`},
}

// nasty makes conditions that may open early, and such that seem to.
type nasty struct{ *rand.Rand }

func (n nasty) one(list ...string) string { return list[n.IntN(len(list))] }

func (n nasty) constant() string {
	return n.one("0", "1", "2", "-1", "5", "100", "2147483647", "9223372036854775807", "9223372036854775806", "0.5", "-2.5", "1e0", "1e308", "-1e308", "99999999999999999999999999999999999999")
}

// argument is a number of an event.
func (n nasty) argument(depth int) string {
	column := func() string { return n.one("t1", "i", "b", "d", "w", "f", "x") }
	if depth == 0 || n.IntN(3) == 0 {
		return column()
	}
	a := func() string { return n.argument(depth - 1) }
	switch n.IntN(12) {
	case 0, 1:
		return "ABS(" + a() + ")"
	case 2, 3:
		return "CASE WHEN " + column() + " > " + n.one("0", "1", "5") + " THEN " + n.one("1", a()) + " ELSE " + n.one("0", a()) + " END"
	case 4:
		return "(" + a() + n.one(" + ", " - ", " * ", " / ") + n.one(a(), n.constant()) + ")"
	case 5:
		return "COALESCE(" + a() + ", " + n.one("0", a()) + ")"
	case 6:
		return "CAST(" + a() + " AS " + n.one("INT", "BIGINT", "DECIMAL(19, 0)", "DECIMAL(10, 2)", "DOUBLE", "FLOAT", "TINYINT") + ")"
	case 7:
		return n.one("SQRT(", "LN(", "EXP(", "ROUND(", "FLOOR(", "CEIL(") + a() + ")"
	case 8:
		return n.one("GREATEST(", "LEAST(") + a() + ", " + a() + ")"
	case 9:
		return "POWER(" + a() + ", " + n.one("2", "0.5", a()) + ")"
	case 10:
		return "CAST(s AS " + n.one("DOUBLE", "BIGINT", "FLOAT") + ")"
	}
	return "-" + column()
}

func (n nasty) aggregate() string {
	filter := n.one("", "", "", " FILTER (WHERE s <> 'a')")
	x := n.argument(n.IntN(3))
	switch n.IntN(8) {
	case 0:
		return "COUNT(*)" + filter
	case 1:
		return "COUNT(DISTINCT " + x + ")" + filter
	case 2, 3:
		return "MAX(" + x + ")" + filter
	case 4:
		return "MIN(" + x + ")" + filter
	case 5:
		return n.one("SUM(", "AVG(") + x + ")" + filter
	}
	return "SUM(" + x + ") FILTER (WHERE " + x + n.one(" > 0", " >= 0", " > 1") + ")"
}

// number is a number of a window's row.
func (n nasty) number(depth int) string {
	if depth == 0 || n.IntN(2) == 0 {
		return n.aggregate()
	}
	a := func() string { return n.number(depth - 1) }
	switch n.IntN(6) {
	case 0, 1:
		return "(" + a() + n.one(" + ", " - ") + n.one(a(), n.constant()) + ")"
	case 2:
		return "(" + a() + n.one(" * ", " / ") + n.constant() + ")"
	case 3:
		return "CAST(" + a() + " AS " + n.one("INT", "BIGINT", "DECIMAL(19, 0)", "DECIMAL(12, 2)", "DOUBLE", "FLOAT") + ")"
	case 4:
		return n.one("GREATEST(", "LEAST(") + a() + ", " + n.one(a(), n.constant()) + ")"
	}
	return "(-" + a() + ")"
}

func (n nasty) condition(depth int) string {
	if depth > 0 && n.IntN(3) == 0 {
		return "(" + n.condition(depth-1) + n.one(" AND ", " OR ") + n.condition(depth-1) + ")"
	}
	c := n.number(2)
	switch n.IntN(8) {
	case 0:
		return c + " IS NOT NULL"
	case 1:
		return "NOT " + c + n.one(" < ", " <= ") + n.constant()
	case 2:
		return "NOT " + c + n.one(" > ", " >= ") + n.constant()
	case 3:
		return "(" + c + n.one(" < ", " > ") + n.constant() + ") IS TRUE"
	case 4:
		return c + n.one(" < ", " <= ", " = ", " <> ") + n.constant()
	case 5:
		return c + n.one(" > ", " < ") + n.number(1)
	}
	return c + n.one(" > ", " >= ") + n.constant()
}

// TestBatchesDoNotMatter: the alerts of closed windows are the same, in whichever batches the events come. The values are such that sums and
// products overflow, and that numbers become NULL or NaN which were none.
func TestBatchesDoNotMatter(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("SPATE_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SPATE_TEST_SEED=%d", seed)
	trials := 400
	if testing.Short() {
		trials = 200
	}
	rules, early, closed := 0, 0, 0
	for i := range trials {
		n := nasty{rand.New(rand.NewPCG(seed, uint64(i)))}
		script := fmt.Sprintf("%s-- rule: r\n-- critical: %s\nINSERT INTO alerts SELECT COUNT(*) AS events FROM t GROUP BY TUMBLE(ts, INTERVAL '1' SECOND) HAVING %s;\n", nastyTable, n.condition(1), n.condition(1))
		set, errs := rule.Compile(script, rule.Options{})
		if len(errs) > 0 {
			continue // such as a product of DECIMAL and DOUBLE in CASE
		}
		rules++
		if ok, _ := set.Rules[0].Early(); ok {
			early++
		}
		stream := Stream{Plan: set.Plan(), LatenessMS: 1000}
		for range 4 {
			events := n.events(set.Inputs, 1+n.IntN(12))
			all := closedAlerts(t, stream, events, len(events))
			closed += len(all)
			for _, size := range []int{1, 2 + n.IntN(4)} {
				if got := closedAlerts(t, stream, events, size); !slices.Equal(got, all) {
					ok, why := set.Rules[0].Early()
					t.Fatalf("trial %d: %q in batches of %d, %q in one; early: %v, %s\n%s", i, got, size, all, ok, why, script)
				}
			}
		}
	}
	t.Logf("%d rules, %d early, %d alerts", rules, early, closed)
	if rules < trials/2 || early < rules/10 || closed < rules {
		t.Error("the trials did not reach everything that they are for")
	}
}

func (n nasty) events(inputs []rule.Input, count int) []*Event {
	var events []*Event
	for i := range count {
		e := &Event{Offset: int64(i), MS: int64(i), Values: make([]rule.Value, len(inputs))}
		for k, in := range inputs {
			switch values := nastyValues[in.Name()]; {
			case in.Time:
				e.Values[k] = rule.TimeValue(e.MS, 0)
			case n.IntN(8) > 0:
				e.Values[k], _ = rule.FromJSON(in.Type, []byte(n.one(values...)), nil)
			}
		}
		events = append(events, e)
	}
	return events
}

// TestOpenedIsCriticalForGood: an alert is not critical while its window is open if that can end.
func TestOpenedIsCriticalForGood(t *testing.T) {
	script := nastyTable + "-- rule: r\n-- critical: SUM(x) > 100\nINSERT INTO alerts SELECT COUNT(*) AS events FROM t GROUP BY TUMBLE(ts, INTERVAL '1' SECOND) HAVING COUNT(*) > 0;\n"
	set, errs := rule.Compile(script, rule.Options{})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var events []*Event
	for i, x := range []float64{200, -200} {
		e := &Event{Offset: int64(i), Values: make([]rule.Value, len(set.Inputs))}
		for k, in := range set.Inputs {
			if e.Values[k] = rule.DoubleValue(x); in.Time {
				e.Values[k] = rule.TimeValue(0, 0)
			}
		}
		events = append(events, e)
	}
	r, err := evaluate(Stream{Plan: set.Plan(), LatenessMS: 1000}, 1, slices.Values(events), func(*Combiner) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range r.Verdicts {
		if v.Critical {
			t.Errorf("%+v", v)
		}
	}
	if len(r.Verdicts) != 2 {
		t.Error(r.Verdicts)
	}
}

// closedAlerts are those of the events in batches of a size.
func closedAlerts(t *testing.T, s Stream, events []*Event, size int) (out []string) {
	t.Helper()
	n := 0
	r, err := evaluate(s, 1, slices.Values(events), func(*Combiner) bool { n++; return n%size == 0 })
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range r.Verdicts {
		if v.State == Closed {
			out = append(out, fmt.Sprintf("%s %d %s %v", v.Key, v.Pane.StartMS, v.Columns, v.Critical))
		}
	}
	slices.Sort(out)
	return out
}

// TestBatchesDoNotMatterInKnownCases has the rules and events with which they did.
func TestBatchesDoNotMatterInKnownCases(t *testing.T) {
	many := func(yield func(string) bool) { // more distinct values than are kept
		for i := range rule.MaxDistinct + 10 {
			if !yield(fmt.Sprintf(`{"i": %d, "b": %d}`, i, i)) {
				return
			}
		}
	}
	for _, c := range []struct {
		having string
		events iter.Seq[string]
	}{
		{"MAX(x) > 100", list(`{"x": 200}`, `{"x": "NaN"}`)},
		{"MAX(x / f) > 100", list(`{"x": 200, "f": 1}`, `{"x": 0, "f": 0}`)},
		{"SUM(ABS(x)) > 100", list(`{"x": 200}`, `{"x": "NaN"}`)},
		{"SUM(ABS(b)) > 100", list(`{"b": 200}`, `{"b": 9223372036854775807}`)},
		{"SUM(b) FILTER (WHERE b > 0) > 100", list(`{"b": 200}`, `{"b": 9223372036854775807}`)},
		{"SUM(b) IS NOT NULL", list(`{"b": 200}`, `{"b": 9223372036854775807}`)},
		{"COUNT(x) * 9223372036854775807 > 100", list(`{"x": 200}`, `{"x": 7}`)},
		{"COUNT(*) + 9223372036854775806 > 100", list(`{"x": 200}`, `{"x": 7}`)},
		{"SUM(ABS(w)) > 100", list(`{"w": 200}`, `{"w": 99999999999999999999999999999999999999}`)},
		{"MAX(i) + 1 > 100", list(`{"i": 200}`, `{"i": 2147483647}`)},
		{"CAST(MAX(x) AS DECIMAL(10, 2)) > 100", list(`{"x": 200}`, `{"x": 1e300}`)},
		{"NOT MIN(x / f) >= 5", list(`{"x": 0, "f": 0}`, `{"x": 7, "f": 1}`)},
		{"SUM(DISTINCT ABS(b)) > 100", many},
		{"COUNT(DISTINCT b) > 65530", many},
		{"SUM(DISTINCT ABS(i)) > 100 AND MAX(b) > 3", many},
	} {
		script := nastyTable + "-- rule: r\nINSERT INTO alerts SELECT COUNT(*) AS events FROM t GROUP BY TUMBLE(ts, INTERVAL '1' SECOND) HAVING " + c.having + ";\n"
		set, errs := rule.Compile(script, rule.Options{})
		if len(errs) > 0 {
			t.Fatal(c.having, errs)
		}
		var events []*Event
		for text := range c.events {
			e := &Event{Offset: int64(len(events)), MS: 0, Values: make([]rule.Value, len(set.Inputs))}
			for k, in := range set.Inputs {
				if token := member(text, in.Name()); token != "" {
					e.Values[k], _ = rule.FromJSON(in.Type, []byte(token), nil)
				} else if in.Time {
					e.Values[k] = rule.TimeValue(0, 0)
				}
			}
			events = append(events, e)
		}
		stream := Stream{Plan: set.Plan(), LatenessMS: 1000}
		one := closedAlerts(t, stream, events, len(events))
		if split := closedAlerts(t, stream, events, max(1, len(events)/10)); !slices.Equal(one, split) {
			t.Errorf("%s: %q in one batch, %q in several", c.having, one, split)
		}
	}
}

func list(events ...string) iter.Seq[string] { return slices.Values(events) }

// member is the value of a member of an object that has no others in it.
func member(object, name string) string {
	_, after, found := strings.Cut(object, `"`+name+`": `)
	if !found {
		return ""
	}
	return strings.TrimRight(strings.SplitN(after, ", \"", 2)[0], "}")
}
