package verifier

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// rulesFile is a rules file with its rules as statements of SQLite.
type rulesFile struct {
	queries []*query
	inputs  *inputs
	tables  []*table
	notNull []column // of the tables that are read
	clock   string   // column of the event time
	steps   int64    // most windows of a size that an event is in
}

// userPath stands for the user, wherever it is in the events.
const userPath = "\x00user"

// inputs are the columns that the rules read, each once by its type.
type inputs struct{ list []input }

type input struct {
	path []string
	typ  typ
}

func (in *inputs) of(path []string, t typ) int {
	i := slices.IndexFunc(in.list, func(x input) bool { return slices.Equal(x.path, path) && x.typ == t })
	if i < 0 {
		i = len(in.list)
		in.list = append(in.list, input{path, t})
	}
	return i
}

// query is a rule. It is the translator while the rule is read.
type query struct {
	reader
	depth      int
	references int // columns and aggregates so far
	inputs     *inputs

	rule     string
	refused  error
	table    *table
	alias    string
	tvf      bool // FROM TABLE(TUMBLE(…))
	window   windows
	lateness int64

	all         []token // of the statement
	whereParts  []leaf
	havingParts []leaf

	names    []string
	columns  []term
	keys     []term
	where    string
	having   string
	critical string
	beyond   []string // that some number of distinct values is above the bound
}

// windows are the layout of a rule's windows, in milliseconds. The step of a SESSION is its gap.
type windows struct {
	kind               string
	size, step, offset int64
}

// parseRules reads a rules file and translates its rules.
func parseRules(script string, o RulesOptions) (*rulesFile, error) {
	list, err := statements(script, o.Set)
	if err != nil {
		return nil, err
	}
	f := &rulesFile{inputs: &inputs{}}
	sinks := map[string]*table{}
	for _, s := range list {
		r := &reader{tokens: s.tokens}
		switch {
		case r.accept("CREATE", "TABLE"), r.accept("CREATE", "TEMPORARY", "TABLE"):
			r.accept("IF", "NOT", "EXISTS")
			err := catch(func() {
				t := createTable(r)
				f.tables = append(f.tables, t)
				sinks[t.name] = t
			})
			if err != nil {
				return nil, err
			}
		case r.is("DROP"), r.is("SET"):
		case r.accept("INSERT", "INTO"):
			if s.directive("mode") != "off" {
				f.rule(s, r, o, sinks)
			}
		default:
			return nil, fmt.Errorf("a statement begins with %s, which the reference does not support", r.found())
		}
	}
	if len(f.queries) == 0 {
		return nil, errors.New("the file has no rule")
	}
	return f, nil
}

// catch returns what f refuses.
func catch(f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			refused, ok := r.(refusal)
			if !ok {
				panic(r)
			}
			err = refused.error
		}
	}()
	f()
	return nil
}

// rule translates a rule.
func (f *rulesFile) rule(s statement, r *reader, o RulesOptions, sinks map[string]*table) {
	q := &query{reader: *r, all: r.tokens, inputs: f.inputs, rule: s.directive("rule")}
	if q.rule == "" {
		q.rule = o.Name
	}
	f.queries = append(f.queries, q)
	q.refused = catch(func() {
		target := q.name()
		var columns []string
		if q.is("(") {
			columns = q.reader.names()
		}
		q.translate(append(slices.Clone(f.tables), activity()))
		if sink := sinks[target]; sink != nil && columns == nil {
			for _, c := range sink.columns {
				columns = append(columns, c.name)
			}
		}
		if columns != nil {
			if len(columns) != len(q.names) {
				refuse("table %s has %d columns, but the rule selects %d", target, len(columns), len(q.names))
			}
			q.names = columns
		}
		q.criticalOf(s, o)
		f.reads(q, o)
	})
}

// criticalOf translates the directive.
func (q *query) criticalOf(s statement, o RulesOptions) {
	q.critical = "FALSE"
	if text := s.directive("critical"); text != "" {
		tokens, err := s.lex(text, o.Set)
		if err != nil {
			refuse("critical: %w", err)
		}
		q.reader = reader{tokens: tokens}
		q.critical = q.condition(q.expr(0)).sql
		if q.ahead(0).kind != end {
			refuse("critical: unexpected %s after the condition", q.found())
		}
	}
}

// reads notes what the rule needs of the events.
func (f *rulesFile) reads(q *query, o RulesOptions) {
	if q.lateness = q.table.lateness; q.lateness < 0 {
		q.lateness = o.Lateness.Milliseconds()
	}
	clock := q.table.columns[q.table.time].name
	if f.clock == "" {
		f.clock = clock
	}
	if f.clock != clock {
		refuse("another rule uses a different column as its time")
	}
	for _, c := range q.table.columns {
		if c.token {
			c.name, c.typ = userPath, typ{kind: kUser}
		}
		if c.notNull && c.name != clock && !slices.ContainsFunc(f.notNull, func(o column) bool { return o.name == c.name && o.typ == c.typ }) {
			f.notNull = append(f.notNull, c)
		}
	}
	if q.window.kind != "SESSION" {
		f.steps = max(f.steps, q.window.size/q.window.step+1)
	}
}

// translate reads SELECT … FROM … WHERE … GROUP BY … HAVING …. The columns are known only after FROM, so they are read last.
func (q *query) translate(tables []*table) {
	q.expect("SELECT")
	from := q.at
	for depth := 0; depth > 0 || !q.is("FROM") || strings.EqualFold(q.ahead(-1).text, "DISTINCT"); q.at++ {
		switch {
		case q.ahead(0).kind == end:
			refuse("the rule has no FROM")
		case q.is("("):
			depth++
		case q.is(")"):
			depth--
		}
	}
	q.expect("FROM")
	q.from(tables)
	if q.accept("WHERE") {
		q.where = q.condition(q.expr(0)).sql
	}
	q.groupBy()
	if q.accept("HAVING") {
		q.having = q.condition(q.expr(0)).sql
	}
	if q.ahead(0).kind != end {
		refuse("the reference does not support %s", q.found())
	}
	if q.window.kind == "" {
		refuse("the rule has no window")
	}
	q.at = from
	for i := 0; ; i++ {
		start := q.at
		x := q.expr(0)
		name := fmt.Sprintf("EXPR$%d", i)
		if t := q.ahead(-1); q.plain(start) {
			name = t.text
		}
		if q.accept("AS") || !q.is(",") && !q.is("FROM") {
			name = q.name()
		}
		q.names, q.columns = append(q.names, name), append(q.columns, x.asWritten())
		if !q.accept(",") {
			break
		}
	}
	q.expect("FROM")
	used := map[string]int{}
	for i, n := range q.names { // as Flink names those of the same name
		if used[n]++; used[n] > 1 {
			q.names[i] = fmt.Sprintf("%s%d", n, used[n]-2)
		}
	}
}

// plain reports whether the tokens from start to here are a column.
func (q *query) plain(start int) bool {
	for i, t := range q.tokens[start:q.at] {
		if isName := t.kind == word || t.kind == quoted; isName != (i%2 == 0) || !isName && t.text != "." {
			return false
		}
	}
	return true
}

// from reads the table, or TABLE(TUMBLE(TABLE t, DESCRIPTOR(c), …)).
func (q *query) from(tables []*table) {
	parenthesis := q.accept("TABLE", "(")
	if q.ahead(1) == (token{symbol, "("}) {
		q.tvf = true
		q.tableFunction(tables)
		if parenthesis {
			q.expect(")")
		}
	} else {
		q.readTable(tables)
	}
	if q.accept("AS") || q.ahead(0).kind == quoted || q.ahead(0).kind == word && !slices.ContainsFunc([]string{"WHERE", "GROUP", "HAVING", "LIMIT", "ORDER"}, func(w string) bool { return q.is(w) }) {
		q.alias = q.name()
	}
}

func (q *query) readTable(tables []*table) {
	if q.is("(") {
		refuse("the reference does not support queries within FROM")
	}
	name := q.name()
	i := slices.IndexFunc(tables, func(t *table) bool { return t.name == name })
	if i < 0 || tables[i].time < 0 {
		refuse("table %s is not known, or has no event time", name)
	}
	q.table, q.alias = tables[i], name
}

// tableFunction reads TUMBLE(TABLE t PARTITION BY a, DESCRIPTOR(c), INTERVAL …), with or without names for the arguments.
func (q *query) tableFunction(tables []*table) {
	q.window.kind = strings.ToUpper(q.name())
	q.expect("(")
	var ms []int64
	named := map[string]int64{}
	for {
		name := ""
		if q.ahead(1) == (token{symbol, "=>"}) {
			name = strings.ToUpper(q.name())
			q.take()
		}
		switch {
		case q.accept("TABLE"):
			q.readTable(tables)
			if q.accept("PARTITION", "BY") {
				for q.name(); q.is(",") && (q.ahead(2) == token{symbol, ","}); q.name() { // GROUP BY has them
					q.take()
				}
			}
		case q.accept("DESCRIPTOR", "("):
			if q.name() != q.table.columns[q.table.time].name {
				refuse("DESCRIPTOR is not the event time")
			}
			q.expect(")")
		case name != "":
			named[name] = q.interval()
		default:
			ms = append(ms, q.interval())
		}
		if !q.accept(",") {
			break
		}
	}
	q.expect(")")
	order := map[string][]string{"TUMBLE": {"SIZE", "OFFSET"}, "HOP": {"SLIDE", "SIZE", "OFFSET"}, "CUMULATE": {"STEP", "SIZE", "OFFSET"}, "SESSION": {"GAP"}}[q.window.kind]
	for i, n := range order {
		if i < len(ms) {
			named[n] = ms[i]
		}
	}
	q.window.size, q.window.offset = named["SIZE"], named["OFFSET"]
	q.window.step = named["SLIDE"] + named["STEP"] + named["GAP"]
	if q.window.kind == "TUMBLE" {
		q.window.step = q.window.size
	}
	q.checkWindow()
	if w := q.window; w.kind != "SESSION" && w.size%w.step != 0 {
		refuse("the size is not a multiple of the step")
	}
}

func (q *query) checkWindow() {
	if w := q.window; w.step < 1 || w.kind != "SESSION" && w.size < 1 || w.size/w.step > 100_000 {
		refuse("the reference does not support this window")
	}
}

// asWritten is the user as the events have it, and any other term as it is: a user may be a text, which is no BIGINT.
func (t term) asWritten() term {
	if t.token == "" {
		return t
	}
	return term{sql: t.token, typ: typ{kind: kUser}}
}

// groupBy reads the keys and the window, if it is there.
func (q *query) groupBy() {
	if !q.accept("GROUP", "BY") {
		refuse("the rule has no GROUP BY")
	}
	bounds := 0
	for {
		t := q.ahead(0)
		last := q.ahead(1).kind == end || q.ahead(1) == token{symbol, ","} || strings.EqualFold(q.ahead(1).text, "HAVING")
		switch {
		case q.ahead(1) == token{symbol, "("} && (q.is("TUMBLE") || q.is("HOP") || q.is("SESSION")):
			if q.window.kind != "" {
				refuse("GROUP BY has two windows")
			}
			q.groupWindow()
		case q.tvf && last && (t.text == "window_start" || t.text == "window_end" || t.text == "window_time"):
			if q.take(); t.text != "window_time" {
				bounds++
			}
		case t.kind == number && last:
			refuse("the reference does not support a number in GROUP BY")
		default:
			q.keys = append(q.keys, q.expr(0).asWritten())
		}
		if !q.accept(",") {
			break
		}
	}
	if q.tvf && bounds < 2 {
		refuse("GROUP BY does not have both bounds of the window")
	}
}

// groupWindow reads TUMBLE(t, INTERVAL …).
func (q *query) groupWindow() {
	q.window.kind = strings.ToUpper(q.name())
	q.expect("(")
	if x := q.column(); x.typ.kind != kTime {
		refuse("the time column of the window is not the event time")
	}
	var ms []int64
	for q.accept(",") {
		ms = append(ms, q.interval())
	}
	q.expect(")")
	if want := map[string]int{"TUMBLE": 1, "HOP": 2, "SESSION": 1}[q.window.kind]; len(ms) != want {
		refuse("%s has the wrong number of intervals: %d", q.window.kind, len(ms))
	}
	q.window.step, q.window.size = ms[0], ms[len(ms)-1]
	if q.window.kind == "SESSION" {
		q.window.size = 0
	}
	q.checkWindow()
}

// statement is the rule in SQLite's words.
func (q *query) statement(sessions string) string {
	var b strings.Builder
	beyond := "FALSE"
	if len(q.beyond) > 0 {
		beyond = strings.Join(q.beyond, " OR ")
	}
	fmt.Fprintf(&b, "SELECT e.ws, e.we, %s, %s", q.critical, beyond)
	for _, c := range q.columns {
		b.WriteString(", " + c.sql)
	}
	fmt.Fprintf(&b, "\nFROM (%s) e", q.source(sessions))
	if q.where != "" {
		b.WriteString("\nWHERE " + q.where)
	}
	b.WriteString("\nGROUP BY e.ws, e.we")
	if q.window.kind == "SESSION" {
		b.WriteString(", e.session")
	}
	for _, k := range q.keys {
		b.WriteString(", " + key(k))
	}
	if q.having != "" {
		b.WriteString("\nHAVING " + q.having)
	}
	return b.String()
}

// source is the query of the events with the windows in which they still count: window [s, e) is closed when the watermark is e-1 or more.
// The watermark is the highest time of the event's partition before it, less the lateness.
func (q *query) source(sessions string) string {
	w := q.window
	floor := func(unit int64) string {
		return fmt.Sprintf("ms - ((ms - %d) %% %d + %d) %% %d", w.offset, unit, unit, unit)
	}
	switch w.kind {
	case "SESSION":
		return fmt.Sprintf("SELECT events.*, s.ws, s.we, s.session FROM %s s CROSS JOIN events ON events.id = s.event", sessions)
	case "CUMULATE":
		return fmt.Sprintf("SELECT *, %s AS ws, %s + %d * (n + 1) AS we FROM events CROSS JOIN steps WHERE n < %d AND we > ms AND newest - %d < we - 1",
			floor(w.size), floor(w.size), w.step, w.size/w.step, q.lateness)
	}
	return fmt.Sprintf("SELECT *, %s - %d * n AS ws, %s - %d * n + %d AS we FROM events CROSS JOIN steps WHERE n < %d AND we > ms AND newest - %d < we - 1",
		floor(w.step), w.step, floor(w.step), w.step, w.size, (w.size+w.step-1)/w.step, q.lateness)
}

// session is one of a key. Its bounds grow while it is open.
type session struct {
	start, end int64
	events     []int64
}

// sessions stores the sessions of the events that WHERE lets pass. An event's own session is merged with all open ones of its key that
// it touches, and is late if what comes out is closed.
func (q *query) sessions(ctx context.Context, db *sql.DB, name string) error {
	keys := []string{"''"}
	for _, k := range q.keys {
		keys = append(keys, "quote("+key(k)+")")
	}
	where := "TRUE"
	if q.where != "" {
		where = q.where
	}
	rows, err := db.QueryContext(ctx, fmt.Sprintf("SELECT e.id, e.ms, e.newest - %d, %s FROM events e WHERE %s ORDER BY e.id", q.lateness, strings.Join(keys, " || ',' || "), where))
	if err != nil {
		return err
	}
	defer rows.Close()
	open := map[string][]*session{}
	all := map[*session]bool{}
	for rows.Next() {
		var id, ms, watermark int64
		var k string
		if err := rows.Scan(&id, &ms, &watermark, &k); err != nil {
			return err
		}
		one := &session{start: ms, end: ms + q.window.step, events: []int64{id}}
		touched := func(s *session) bool { return s.start <= ms+q.window.step && ms <= s.end }
		still := slices.DeleteFunc(open[k], func(s *session) bool { return watermark >= s.end-1 })
		for _, s := range still {
			if touched(s) {
				one.start, one.end = min(one.start, s.start), max(one.end, s.end)
			}
		}
		if watermark >= one.end-1 {
			open[k] = still
			continue
		}
		for _, s := range still {
			if touched(s) {
				one.events = append(one.events, s.events...)
				delete(all, s)
			}
		}
		all[one] = true
		open[k] = append(slices.DeleteFunc(still, touched), one)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return store(ctx, db, name, all)
}

// store writes sessions to a table.
func store(ctx context.Context, db *sql.DB, name string, all map[*session]bool) error {
	if _, err := db.ExecContext(ctx, "CREATE TABLE "+name+" (event INTEGER PRIMARY KEY, ws INTEGER, we INTEGER, session INTEGER)"); err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	for s := range all {
		for _, e := range s.events {
			if _, err := tx.ExecContext(ctx, "INSERT INTO "+name+" VALUES (?, ?, ?, ?)", e, s.start, s.end, s.events[0]); err != nil {
				return err
			}
		}
	}
	return tx.Commit()
}
