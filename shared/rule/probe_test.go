package rule

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spate/shared/rule/syntax"
)

const golden = "../../testdata/golden/rules"

// probe is a small statement and what Flink makes of it.
type probe struct {
	Name, Input, SQL, Outcome, Message string
	Columns                            [][2]string
	Rows                               []json.RawMessage
}

// differences are the probes to which our answer is deliberately not Flink's. docs/rules.md has them, too.
var differences = map[string]string{
	"num-div-zero-int":        "a division by zero is NULL, and fails a job of Flink",
	"num-div-zero-where":      "a division by zero is NULL, and fails a job of Flink",
	"num-int":                 "an overflow is NULL, and wraps in Flink",
	"int-expr-wrap":           "an overflow is NULL, and wraps in Flink",
	"sum-int-wrap":            "SUM has 64 bits, and wraps at 32 in Flink if its argument is an INT",
	"avg-int":                 "an overflow is NULL, and wraps in Flink",
	"like-escape-invalid":     "an invalid escape is refused, and fails a job of Flink",
	"like-escape-bad":         "an invalid escape is refused, and fails a job of Flink",
	"regexp-bad":              "an invalid regular expression is refused, and matches nothing in Flink",
	"regexp-java":             "regular expressions are RE2's: without backreferences",
	"avg-neg":                 "STDDEV_POP is not in the subset",
	"tvf-no-group":            "a rule has GROUP BY",
	"tvf-session-nopartition": "the probes are evaluated without sessions",
	"interval-day":            "a window can be at most 1 h long",
	"limit":                   "LIMIT is not in the subset",
	"subquery":                "queries within FROM are not in the subset",
	"subquery-having":         "queries within FROM are not in the subset",
	"double-minus-zero":       "WHERE price = 0 changes no value; Flink's planner puts 0.0 in place of -0.0",
	"ts-null":                 "an event without a time is invalid, and fails a job of Flink",
	"ts-null-tvf":             "an event without a time is invalid, and fails a job of Flink",
}

func probes(t *testing.T) (list []probe) {
	t.Helper()
	f, err := os.Open(filepath.Join(golden, "probes", "probes.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var p probe
		if err := json.Unmarshal(s.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

// probeTables are activity, with the price as DOUBLE and as DECIMAL(10,2).
func probeTables() []*Table {
	one, two := Activity(), Activity()
	two.Name = "activity_decimal"
	two.Columns[6].Type = Type{Kind: Decimal, Precision: 10, Scale: 2}
	for _, t := range []*Table{one, two} {
		t.Columns[7].Type, t.Columns[9].Type.NotNull = Type{Kind: BigInt}, false
	}
	return []*Table{one, two}
}

// TestProbes: each expression has Flink's value and type, and what Flink refuses is refused.
func TestProbes(t *testing.T) {
	for _, p := range probes(t) {
		t.Run(p.Name, func(t *testing.T) {
			problem := compareProbe(t, p)
			switch reason := differences[p.Name]; {
			case problem != "" && reason == "":
				t.Error(problem)
			case problem == "" && reason != "":
				t.Errorf("it gives Flink's answer, but is listed as a difference: %s", reason)
			}
		})
	}
}

// compareProbe returns how the answer to a probe differs from Flink's; empty if it does not.
func compareProbe(t *testing.T, p probe) string {
	t.Helper()
	columns, rows, errs := evaluate(t, p)
	switch {
	case p.Outcome == "refused" && len(errs) == 0:
		return "it is accepted, and Flink says: " + p.Message
	case p.Outcome == "refused":
		return ""
	case len(errs) > 0:
		return errs[0].Format(p.Name, p.SQL)
	case p.Outcome == "fails":
		return "it is accepted, and Flink fails with: " + p.Message
	}
	for i, want := range p.Columns {
		if got := columns[i]; !sameType(got, want[1]) {
			return fmt.Sprintf("column %s is %s, want %s", want[0], got, want[1])
		}
	}
	var wants []string
	for _, w := range p.Rows {
		wants = append(wants, string(w))
	}
	slices.Sort(wants)
	slices.Sort(rows)
	if d := cmp.Diff(wants, rows); d != "" {
		return d
	}
	return ""
}

// sameType compares types, and takes the lengths of texts for equal.
func sameType(got, want string) bool {
	text := func(s string) string {
		s = strings.TrimSuffix(s, " NOT NULL")
		if strings.HasPrefix(s, "VARCHAR") || strings.HasPrefix(s, "CHAR") {
			return "STRING"
		}
		return s
	}
	return text(got) == text(want)
}

// evaluate runs a probe: over the rows if it has no window, else over the one window group by group.
func evaluate(t *testing.T, p probe) (columns []string, rows []string, errs syntax.Errors) {
	t.Helper()
	source := "INSERT INTO probe " + p.SQL
	script, errs := syntax.Parse(source, nil)
	if len(errs) > 0 {
		return nil, nil, errs
	}
	q := script.Inserts[0].Select
	if q.HasGroup || q.From.Window != nil || q.Having != nil {
		set, errs := Compile(source, Options{Name: "probe", Tables: probeTables()})
		if len(errs) > 0 {
			return nil, nil, errs
		}
		columns, rows = windowed(t, set, p.Input)
		return columns, rows, nil
	}
	in := &inputs{}
	var table *Table
	for _, one := range probeTables() {
		if one.Name == q.From.Table.Text {
			table = one
		}
	}
	if table == nil {
		errs.Add(q.From.Pos, "", "unknown table")
		return nil, nil, errs
	}
	c := checker{errs: &errs, table: table, inputs: in, clause: "SELECT"}
	var nodes []*node
	var names []string
	for _, item := range q.Items {
		n := c.expr(item.Expr)
		if n == nil {
			continue
		}
		nodes = append(nodes, n)
		columns = append(columns, n.typ.String())
		name := item.Alias.Text
		if ref, ok := item.Expr.(*syntax.Ref); ok && name == "" {
			name = ref.Parts[0].Text
		}
		names = append(names, name)
	}
	var where *node
	if q.Where != nil {
		where = c.condition(q.Where)
	}
	if len(errs) > 0 {
		return nil, nil, errs
	}
	k := &compiler{}
	list := k.list(nodes)
	for _, event := range probeRows(t, p.Input, in.list) {
		if where != nil && !k.compile(where)(event).IsTrue() {
			continue
		}
		b := []byte{'{'}
		for i, e := range list {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(append(b, '"'), names[i]...), `":`...)
			b = AppendJSON(b, nodes[i].typ, e(event))
		}
		rows = append(rows, string(append(b, '}')))
	}
	return columns, rows, nil
}

func probeRows(t *testing.T, input string, inputs []Input) (rows [][]Value) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(golden, "probes", input+".csv"))
	if err != nil {
		t.Fatal(err)
	}
	records, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records[1:] {
		row := make([]Value, len(inputs))
		for i, in := range inputs {
			if text := r[slices.Index(records[0], in.Name())]; text != "" {
				row[i], _ = Parse(in.Type, []byte(text))
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// windowed evaluates a rule whose windows have no late rows.
func windowed(t *testing.T, set *Set, input string) (columns, rows []string) {
	t.Helper()
	plan := set.Plan()
	f, p := plan.Feeds[0].Program(), plan.Program(0)
	for _, c := range p.Columns {
		columns = append(columns, c.Type.String())
	}
	clock := slices.IndexFunc(set.Inputs, func(i Input) bool { return i.Name() == "txn_timestamp" })
	if clock < 0 {
		set.Inputs = append(set.Inputs, Input{Path: []string{"txn_timestamp"}, Type: Type{Kind: Timestamp}})
		clock = len(set.Inputs) - 1
	}
	type at struct {
		start, end int64
		key        string
	}
	type group struct {
		n     int64
		cells Cells
	}
	groups := map[at]*group{}
	for _, event := range probeRows(t, input, set.Inputs) {
		if !f.Takes(event) {
			continue
		}
		ms := event[clock].Int()
		add := func(start, end int64) {
			g := at{start, end, string(f.AppendKey(nil, event))}
			if groups[g] == nil {
				groups[g] = &group{cells: NewCells(len(f.Aggregates))}
			}
			groups[g].n++
			f.Add(groups[g].cells, event)
		}
		if p.Window.Kind == Session {
			add(0, 0)
		} else {
			p.Window.Each(ms, ms, math.MaxInt64, add)
		}
	}
	for at, g := range groups {
		if !p.Row([]byte(at.key), g.n, g.cells, at.start, at.end) {
			t.Fatalf("key %s cannot be read", at.key)
		}
		if p.Holds() {
			rows = append(rows, "{"+string(p.AppendColumns(nil))+"}")
		}
	}
	return columns, rows
}
