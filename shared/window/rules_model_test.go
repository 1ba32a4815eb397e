package window

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spate/shared/rule"
)

// A rules trial is a trial of a random plan. Its model is as naive as that of burst: for each rule, all windows that an event lies in are listed, each is judged
// by all that the event's source partition has seen, and the events that are in time are added up, one after the other, in one group for each window
// and key. It shares the rules' expressions with the engine, but no feed, slice, merge, batch or watermark.

type rulesTrial struct {
	trial
	script  string // of all revisions
	feeds   []*rule.FeedProgram
	rules   []*rule.Program
	groups  map[windowKey]*modelGroup
	partial int64 // events that were late for some windows of a rule and in time for others
	again   int64 // events that were counted in a window before
}

// modelGroup is what the model knows of a key's window.
type modelGroup struct {
	known       map[uint64]bool
	n           int64
	cells       rule.Cells
	first, last int64
	evidence    map[int32]Range
}

const modelTable = `CREATE TABLE t (who STRING, item BIGINT, flag BOOLEAN, n BIGINT, x DOUBLE, d DECIMAL(10, 2), s STRING, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '1' SECOND);
`

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// randomRules writes a file of rules. Half of the rules take condition and key of another one, so that they share its feed if the slices fit.
func randomRules(r *rand.Rand) (rules []string) {
	unit := 1 + r.Int64N(10)
	var where string
	var keys []string
	for i := range 1 + r.IntN(6) {
		if i == 0 || r.IntN(2) == 0 {
			where = pick(r, "", "", "n > 3", "flag", "x >= 0 AND s <> 'a'", "NOT flag OR item IS NULL")
			keys = nil
			for _, k := range r.Perm(4)[:r.IntN(4)] {
				keys = append(keys, []string{"who", "item", "flag", "CASE WHEN n > 4 THEN s END"}[k])
			}
		}
		var b strings.Builder
		writeRule(&b, r, i, unit, where, keys)
		rules = append(rules, b.String())
	}
	return rules
}

// revise changes rules: some stay, some go, some come, some change.
func revise(r *rand.Rand, rules []string) (out []string) {
	name := func(rule string) string { return rule[:strings.IndexByte(rule, '\n')] }
	for _, rule := range append(randomRules(r), rules...) {
		if r.IntN(2) == 0 && !slices.ContainsFunc(out, func(o string) bool { return name(o) == name(rule) }) {
			out = append(out, rule)
		}
	}
	if out == nil {
		return rules
	}
	return out
}

func writeRule(b *strings.Builder, r *rand.Rand, i int, unit int64, where string, keys []string) {
	interval := func(ms int64) string {
		sign := ""
		if ms < 0 {
			sign, ms = "-", -ms
		}
		return fmt.Sprintf("INTERVAL '%s%d.%03d' SECOND", sign, ms/1000, ms%1000)
	}
	step := unit * (1 + r.Int64N(6))
	size := step * (1 + r.Int64N(6))
	from, group := "t", slices.Clone(keys)
	if r.IntN(2) == 0 {
		other := unit * (1 + r.Int64N(30)) // not a multiple of the step, and not always longer
		group = append(group, pick(r, fmt.Sprintf("TUMBLE(ts, %s)", interval(size)), fmt.Sprintf("HOP(ts, %s, %s)", interval(step), interval(other))))
	} else {
		offset := ""
		if r.IntN(2) == 0 {
			offset = ", " + interval(r.Int64N(2*size-1)-size+1)
		}
		kind := pick(r, "TUMBLE", "HOP", "CUMULATE")
		first := ""
		if kind != "TUMBLE" {
			first = interval(step) + ", "
		}
		from = fmt.Sprintf("TABLE(%s(TABLE t, DESCRIPTOR(ts), %s%s%s))", kind, first, interval(size), offset)
		group = append(group, "window_start", "window_end")
	}
	number := func() string { return fmt.Sprint(r.IntN(6)) }
	filter := func() string {
		return pick(r, "", "", "", " FILTER (WHERE n > 4)", " FILTER (WHERE flag IS NOT TRUE)", " FILTER (WHERE s LIKE 'b%')")
	}
	aggregate := func() string {
		return pick(r, "COUNT(*)", "COUNT(n)", "COUNT(DISTINCT item)", "COUNT(DISTINCT s)", "SUM(DISTINCT n)", "SUM(n)", "SUM(x)", "SUM(d)", "AVG(n)", "AVG(x)", "AVG(d)",
			"AVG(DISTINCT d)", "MIN(n)", "MAX(x)", "MIN(x)", "MAX(d)", "MIN(s)", "MAX(s)", "MAX(n)", "MIN(d)") + filter()
	}
	condition := func() string {
		rising := func() string {
			return pick(r, "COUNT(*) > ", "COUNT(*) >= ", "COUNT(DISTINCT item)"+filter()+" > ", "MAX(n)"+filter()+" > ", "SUM(ABS(n))"+filter()+" > 2*", "COUNT(*)"+filter()+" > ", "MAX(d) >= ") + number()
		}
		return pick(r, rising(), rising(), rising()+" AND "+rising(), rising()+" OR "+rising(), "MIN(n) < "+number(), "MAX(s) IS NOT NULL",
			"COUNT(*) = "+number(), "SUM(n) > "+number(), "COUNT(*) < 4", "MIN(n) > "+number(), "MAX(x) < "+number(), "AVG(x) < "+number(), "NOT (COUNT(*) < "+number()+")", "MAX(x) - MIN(x) > "+number())
	}
	fmt.Fprintf(b, "-- rule: r%d\n", i)
	if r.IntN(2) == 0 {
		fmt.Fprintf(b, "-- critical: %s\n", condition())
	}
	b.WriteString("INSERT INTO alerts SELECT ")
	for range r.IntN(4) {
		b.WriteString(aggregate() + ", ")
	}
	fmt.Fprintf(b, "COUNT(*) AS events FROM %s", from)
	if where != "" {
		b.WriteString(" WHERE " + where)
	}
	b.WriteString(" GROUP BY " + strings.Join(group, ", "))
	if r.IntN(5) > 0 {
		b.WriteString(" HAVING " + condition())
	}
	b.WriteString(";\n")
}

func newRulesTrial(t *testing.T, seed uint64) *rulesTrial {
	r := rand.New(rand.NewPCG(seed, 2))
	tr := &rulesTrial{trial: trial{rng: r, keyed: make([]keyedLog, 1+r.IntN(3)), late: map[Fate]int64{}}, groups: map[windowKey]*modelGroup{}}
	tr.stream.LatenessMS = r.Int64N(60)
	base := r.Int64N(1000) - 500
	var h rule.History
	var inputs []rule.Input
	rules := randomRules(r)
	for n := range 1 + r.IntN(3) {
		if n > 0 {
			rules = revise(r, rules)
			tr.plans = append(tr.plans, tr.stream.Plan)
		}
		text := modelTable + strings.Join(rules, "")
		set, errs := rule.Compile(text, rule.Options{Inputs: h.Inputs()})
		if len(errs) > 0 {
			t.Fatalf("seed %d: %v\n%s", seed, errs, text)
		}
		from := int64(0)
		if n > 0 {
			from = max(1, tr.froms[n-1], base+r.Int64N(300))
		}
		h.Add(int64(n), set, from)
		tr.froms, tr.script = append(tr.froms, from), fmt.Sprintf("%s-- revision %d, from %d:\n%s\n", tr.script, n, from, text)
		tr.stream.Plan, inputs = h.Plan(), set.Inputs
	}
	for _, f := range tr.stream.Plan.Feeds {
		tr.feeds = append(tr.feeds, f.Program())
	}
	for i := range tr.stream.Plan.Rules {
		tr.rules = append(tr.rules, tr.stream.Plan.Program(i))
	}
	tr.sources = make([][]event, 1+r.IntN(4))
	ids := r.IntN(2) == 0 // in half of the trials events have identities, and come again: in any source partition, sooner or later
	now := make([]int64, len(tr.sources))
	var all []event
	for range r.IntN(300) {
		p := r.IntN(len(tr.sources))
		now[p] += r.Int64N(6)
		if ids && len(all) > 0 && r.IntN(5) == 0 {
			tr.sources[p] = append(tr.sources[p], all[max(0, len(all)-1-r.IntN(40))])
			continue
		}
		e := event{ts: base + now[p] - r.Int64N(1+2*tr.stream.LatenessMS)}
		if ids && r.IntN(4) > 0 {
			e.id = uint64(len(all) + 1)
		}
		for _, in := range inputs {
			e.values = append(e.values, randomValue(r, in))
		}
		all = append(all, e)
		tr.sources[p] = append(tr.sources[p], e)
	}
	return tr
}

func randomValue(r *rand.Rand, in rule.Input) rule.Value {
	if r.IntN(8) == 0 {
		return rule.Value{}
	}
	parse := func(s string) rule.Value {
		v, ok := rule.Parse(in.Type, []byte(s))
		if !ok {
			panic(in.Name() + ": " + s)
		}
		return v
	}
	switch in.Name() {
	case "who", "s":
		return parse(pick(r, "a", "b", "", "bb", `"`, "null"))
	case "flag":
		return rule.BoolValue(r.IntN(2) == 0)
	case "item":
		return rule.IntValue(r.Int64N(5))
	case "x":
		return rule.DoubleValue(pick(r, 0.1, -0.2, 1e300, -1e300, 3, 5.5, 1e-310))
	case "d":
		return parse(pick(r, "0.01", "-3.10", "7.77", "4", "99999999.99"))
	default:
		return rule.IntValue(r.Int64N(12) - 3)
	}
}

// windowsAt lists the windows of a rule that an instant is in.
func windowsAt(w rule.Window, ms int64) [][2]int64 {
	return slices.DeleteFunc(layoutAt(w, ms), func(at [2]int64) bool {
		return w.From != 0 && at[0] < w.From || w.Until != 0 && at[0] >= w.Until
	})
}

func layoutAt(w rule.Window, ms int64) (out [][2]int64) {
	size, step := w.Size, w.Step
	if w.Kind == rule.Cumulate {
		start := ms
		for (start-w.Offset)%size != 0 {
			start--
		}
		for end := start + step; end <= start+size; end += step {
			if end > ms {
				out = append(out, [2]int64{start, end})
			}
		}
		return out
	}
	for start := ms; start > ms-size; start-- {
		if (start-w.Offset)%step == 0 {
			out = append(out, [2]int64{start, start + size})
		}
	}
	return out
}

// windows lists the windows that an event counts in, and what becomes of it: it is late if it missed all its windows of some rule.
func (t *rulesTrial) windows(p past, e event) (in []windowKey, fate Fate, by int64) {
	for fi, f := range t.feeds {
		if !f.Takes(e.values) {
			continue
		}
		key := string(f.AppendKey(nil, e.values))
		for ri, r := range t.stream.Plan.Rules {
			if t.stream.Plan.FeedOf[ri] != fi {
				continue
			}
			windows := windowsAt(r.Window, e.ts)
			open, last := 0, int64(NoTime)
			for _, w := range windows {
				last = max(last, w[1])
				if f, _ := p.closedFor(t.stream.LatenessMS, w[1]); !f.Late() {
					in = append(in, windowKey{ri, key, w[0], w[1]})
					open++
				}
			}
			if open > 0 && open < len(windows) {
				t.partial++
			}
			if open == 0 && last != NoTime && fate == Counted {
				fate, by = p.closedFor(t.stream.LatenessMS, last)
			}
		}
	}
	return in, fate, by
}

// count adds an event up in a window.
func (t *rulesTrial) count(k windowKey, e event, partition int32, offset int64) {
	f := t.feeds[t.stream.Plan.FeedOf[k.rule]]
	g := t.groups[k]
	if g == nil {
		g = &modelGroup{known: map[uint64]bool{}, cells: rule.NewCells(len(f.Aggregates)), first: e.ts, last: e.ts, evidence: map[int32]Range{}}
		t.groups[k] = g
	}
	at, ok := g.evidence[partition]
	if !ok {
		at = Range{partition, offset, offset}
	}
	at.Last = offset
	g.evidence[partition] = at
	if g.known[e.id] {
		t.again++
		return
	}
	g.known[e.id] = e.id != 0
	g.n++
	g.first, g.last = min(g.first, e.ts), max(g.last, e.ts)
	f.Add(g.cells, e.values)
}

// judge compares what the engine made of an event with the model, which counts it in all windows of all rules.
func (t *rulesTrial) judge(p past, e event, partition int32, offset int64, got Fate, missed Missed) (count func()) {
	in, fate, by := t.windows(p, e)
	if t.wrong == nil && (got != fate || got.Late() && by != missed.ByMS) {
		t.wrong = fmt.Errorf("partition %d, event %d at %d: %v, late by %d; want %v, %d", partition, offset, e.ts, got, missed.ByMS, fate, by)
	}
	return func() {
		t.late[fate]++
		for _, k := range in {
			t.count(k, e, partition, offset)
		}
	}
}

// want are the closed verdicts of the model.
func (t *rulesTrial) want() map[windowKey]Verdict {
	out := map[windowKey]Verdict{}
	for k, g := range t.groups {
		p := t.rules[k.rule]
		if !p.Row([]byte(k.key), g.n, g.cells, k.start, k.end) {
			t.wrong = fmt.Errorf("key %s cannot be read back", k.key)
		}
		if !p.Holds() {
			continue
		}
		v := Verdict{Rule: k.rule, Key: k.key, State: Closed, Critical: p.Critical(), Columns: p.AppendColumns(nil)}
		v.Pane = Pane{StartMS: k.start, SizeMS: k.end - k.start, Count: g.n, FirstMS: g.first, LastMS: g.last}
		for _, r := range g.evidence {
			v.Pane.evidence = append(v.Pane.evidence, r)
		}
		slices.SortFunc(v.Pane.evidence, func(a, b Range) int { return int(a.Partition - b.Partition) })
		out[k] = v
	}
	return out
}

// check compares what the tables said with the model.
func (t *rulesTrial) check(out outcome, want map[windowKey]Verdict) error {
	same := func(a, b Verdict) string {
		if reflect.DeepEqual(a, b) { // ten times as fast
			return ""
		}
		return cmp.Diff(a, b, cmp.AllowUnexported(Pane{}))
	}
	for _, told := range []map[windowKey][]Verdict{out.opened, out.raised, out.closed} {
		for k, vs := range told {
			for _, v := range vs[1:] {
				if d := same(vs[0], v); d != "" {
					return fmt.Errorf("%+v told differently: %s", k, d)
				}
			}
		}
	}
	for k, v := range want {
		vs := out.closed[k]
		if len(vs) == 0 {
			return fmt.Errorf("%+v is not told: want %s", k, v.Columns)
		}
		if d := same(v, vs[0]); d != "" {
			return fmt.Errorf("closed %+v (-want +got): %s", k, d)
		}
		early, _ := t.rules[k.rule].Early()
		if early != (len(out.opened[k]) > 0) {
			return fmt.Errorf("%+v: opened %d times, early: %v", k, len(out.opened[k]), early)
		}
		if critical, _ := t.rules[k.rule].EarlyCritical(); critical && v.Critical != (out.opened[k][0].Critical || len(out.raised[k]) > 0) {
			return fmt.Errorf("%+v is critical in the end: %v, but raised %d times", k, v.Critical, len(out.raised[k]))
		}
	}
	for k := range out.closed {
		if _, ok := want[k]; !ok {
			return fmt.Errorf("closed %+v is not wanted", k)
		}
	}
	for k, vs := range out.opened {
		if v, ok := want[k]; !ok || vs[0].Pane.Count > v.Pane.Count {
			return fmt.Errorf("opened %+v with %d events; in the end %d", k, vs[0].Pane.Count, v.Pane.Count)
		}
	}
	for k, vs := range out.raised {
		if len(out.opened[k]) == 0 || out.opened[k][0].Critical || !vs[0].Critical || !want[k].Critical {
			return fmt.Errorf("raised %+v", k)
		}
	}
	return nil
}

// TestRulesAreAFunctionOfTheLog holds random plans against the model.
func TestRulesAreAFunctionOfTheLog(t *testing.T) {
	seeds := uint64(2000)
	if testing.Short() {
		seeds = 200
	}
	var partial, late, again, opened, raised, closed, told, revised int
	for seed := range seeds {
		tr := newRulesTrial(t, seed)
		tr.route(tr.judge)
		want := tr.want()
		out, err := tr.detectAll()
		if err == nil {
			err = tr.wrong
		}
		if err == nil {
			err = tr.check(out, want)
		}
		if err != nil {
			t.Fatalf("seed %d, lateness %d: %v\n%s", seed, tr.stream.LatenessMS, err, tr.script)
		}
		for k := range out.closed {
			if w := tr.stream.Plan.Rules[k.rule].Window; w.From != 0 || w.Until != 0 {
				revised++
			}
		}
		partial += int(tr.partial)
		late += int(tr.late[LateWatermark] + tr.late[LateIdle])
		again += int(tr.again)
		opened, raised, closed = opened+len(out.opened), raised+len(out.raised), closed+len(out.closed)
		for _, vs := range out.closed {
			told += len(vs) - 1
		}
	}
	t.Logf("%d windows closed, %d of them of rules that are in force for some time; %d opened, %d raised, %d told again; events: %d late, %d late in part, %d that came again", closed, revised, opened, raised, told, late, partial, again)
	if partial == 0 || revised == 0 || late == 0 || again == 0 || opened == 0 || raised == 0 || told == 0 {
		t.Error("the trials did not reach everything that they are for")
	}
}
