package verifier

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Group is a window and key of a rule, and what the rule's conditions come to in it, whether HAVING holds or not.
type Group struct {
	Start, End int64 // of the window, epoch milliseconds
	// Keys are the values that GROUP BY names beside the window, in its order.
	Keys []json.RawMessage
	// Where are the parts of WHERE that AND joins: each with the events for which it is not TRUE.
	Where []Part
	// Holds reports whether HAVING is TRUE, and Critical whether the directive's condition is.
	Holds, Critical bool
	// Having are the comparisons of HAVING, and what they compare.
	Having []Comparison
	// Unfiltered reports whether HAVING would be TRUE without WHERE.
	Unfiltered bool
	// Columns are those of the SELECT list, by their names.
	Columns []Column
	// Counted are the events that WHERE lets pass, and Filtered the others: their numbers in the order in which they were given, from 1.
	Counted, Filtered []int64
}

// Part is a part of a condition on events.
type Part struct {
	Text     string
	Columns  []string // that it names
	Filtered int64    // events for which it is not TRUE
}

// Comparison is a part of HAVING that AND and OR join with others. If it is not a comparison, Left, Op and Right are empty.
type Comparison struct {
	Text  string
	Left  json.RawMessage
	Op    string
	Right json.RawMessage
	Holds bool // it is TRUE
}

// Column is a value of the SELECT list.
type Column struct {
	Name  string
	Value json.RawMessage
}

// Explain evaluates one rule of a file over events, as [Rules] does, and returns every window and key in which there is an event, also those that HAVING or WHERE
// leaves out. The groups are in the order of their windows, then of their keys.
func Explain(ctx context.Context, script, rule string, o RulesOptions, events iter.Seq2[Event, error]) (list []Group, err error) {
	failed := func(err error) ([]Group, error) { return nil, fmt.Errorf("explain rule %s: %w", rule, err) }
	f, err := parseRules(script, o)
	if err != nil {
		return failed(err)
	}
	i := slices.IndexFunc(f.queries, func(q *query) bool { return q.rule == rule })
	if i < 0 {
		return failed(errors.New("the file has no such rule"))
	}
	q := f.queries[i]
	if q.refused != nil {
		return failed(q.refused)
	}
	if q.window.kind == "SESSION" {
		return failed(errors.New("the reference can explain only windows of a fixed size"))
	}
	f.queries = []*query{q}
	dir, err := os.MkdirTemp("", "spate-explain-")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(dir)
	db := sql.OpenDB(connector{filepath.Join(dir, "events.db")})
	db.SetMaxOpenConns(1)
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := catch(q.split); err != nil {
		return failed(err)
	}
	l := loader{rulesFile: f, db: db, options: o}
	if err := l.load(ctx, events); err != nil {
		return failed(err)
	}
	if list, err = q.groups(ctx, db); err != nil {
		return failed(err)
	}
	return list, nil
}

// leaf is a condition that AND, OR and NOT have no part in.
type leaf struct {
	text        string
	columns     []string
	whole       term
	op          string
	left, right term
}

// split translates the parts of WHERE and HAVING, each by itself.
func (q *query) split() {
	q.whereParts = q.leaves(q.tokensOf("WHERE", "GROUP"), "AND")
	q.havingParts = q.leaves(q.tokensOf("HAVING", ""), "AND", "OR")
}

// tokensOf returns the tokens of a clause, which ends before the next one or at the end.
func (q *query) tokensOf(clause, next string) []token {
	from := -1
	for i, t := range outer(q.all) {
		switch {
		case t.kind != word:
		case from < 0 && strings.EqualFold(t.text, clause):
			from = i + 1
		case from >= 0 && strings.EqualFold(t.text, next):
			return q.all[from:i]
		}
	}
	if from < 0 {
		return nil
	}
	return q.all[from:]
}

// leaves splits a condition at the words that join its parts. A condition that also has others of these words at its top is one part.
func (q *query) leaves(tokens []token, joints ...string) (list []leaf) {
	if len(tokens) == 0 {
		return nil
	}
	if enclosed(tokens) && slices.Contains(joints, "OR") {
		return q.leaves(tokens[1:len(tokens)-1], joints...)
	}
	var parts [][]token
	from, between := 0, false
	for i, t := range outer(tokens) {
		switch {
		case t.kind != word:
		case strings.EqualFold(t.text, "BETWEEN"):
			between = true
		case between && strings.EqualFold(t.text, "AND"):
			between = false
		case slices.Contains(joints, strings.ToUpper(t.text)):
			parts = append(parts, tokens[from:i])
			from = i + 1
		case strings.EqualFold(t.text, "OR"): // it binds less than AND
			return []leaf{q.leaf(tokens)}
		}
	}
	parts = append(parts, tokens[from:])
	if len(parts) == 1 {
		return []leaf{q.leaf(tokens)}
	}
	for _, p := range parts {
		if slices.Contains(joints, "OR") {
			list = append(list, q.leaves(p, joints...)...)
		} else {
			list = append(list, q.leaf(p))
		}
	}
	return list
}

// outer yields the tokens, with their numbers, that are neither in parentheses nor between CASE and END.
func outer(tokens []token) iter.Seq2[int, token] {
	return func(yield func(int, token) bool) {
		depth := 0
		for i, t := range tokens {
			switch {
			case t == token{symbol, "("}, t.kind == word && strings.EqualFold(t.text, "CASE"):
				depth++
			case t == token{symbol, ")"}, t.kind == word && strings.EqualFold(t.text, "END"):
				depth--
			case depth == 0 && !yield(i, t):
				return
			}
		}
	}
}

// enclosed reports whether the tokens are one expression in parentheses.
func enclosed(tokens []token) bool {
	depth := 0
	for i, t := range tokens {
		switch t {
		case token{symbol, "("}:
			depth++
		case token{symbol, ")"}:
			depth--
		}
		if depth == 0 {
			return i > 0 && i == len(tokens)-1
		}
	}
	return false
}

// leaf translates a part, and both sides of a comparison.
func (q *query) leaf(tokens []token) leaf {
	l := leaf{text: source(tokens)}
	for _, t := range tokens {
		if isName := t.kind == word || t.kind == quoted; isName && !slices.Contains(l.columns, t.text) && slices.ContainsFunc(q.table.columns, func(c column) bool { return c.name == t.text }) {
			l.columns = append(l.columns, t.text)
		}
	}
	parse := func(t []token) term {
		q.reader = reader{tokens: t}
		x := q.expr(0)
		if q.ahead(0).kind != end {
			refuse("the reference does not support %s", q.found())
		}
		return x
	}
	l.whole = q.condition(parse(tokens))
	if !plain(tokens) {
		return l
	}
	for i, t := range outer(tokens) {
		switch {
		case t.kind != symbol || levels[t.text] != 4:
		case l.op != "": // a = b = c
			l.op = ""
			return l
		default:
			l.op, l.left, l.right = t.text, parse(tokens[:i]), parse(tokens[i+1:])
		}
	}
	return l
}

// plain reports whether no word outside of parentheses can bind as little as a comparison, or less: what stands on either side of an operator is then all that it compares.
func plain(tokens []token) bool {
	for _, t := range outer(tokens) {
		if t.kind == word && slices.Contains([]string{"AND", "OR", "NOT", "IS", "IN", "BETWEEN", "LIKE", "SIMILAR"}, strings.ToUpper(t.text)) {
			return false
		}
	}
	return true
}

// source writes tokens as a person would.
func source(tokens []token) string {
	var b strings.Builder
	for i, t := range tokens {
		written := t.text
		switch t.kind {
		case quoted:
			written = "`" + strings.ReplaceAll(written, "`", "``") + "`"
		case text:
			written = quoteSQL(written)
		}
		if i > 0 {
			before := tokens[i-1]
			call := t.text == "(" && t.kind == symbol && before.kind == word && !slices.Contains([]string{"AND", "OR", "NOT", "IN", "FILTER", "WHERE", "WHEN", "THEN", "ELSE", "BETWEEN", "LIKE"}, strings.ToUpper(before.text))
			tight := before.kind == symbol && (before.text == "(" || before.text == ".") || t.kind == symbol && slices.Contains([]string{")", ",", "."}, t.text) || call
			if !tight {
				b.WriteByte(' ')
			}
		}
		b.WriteString(written)
	}
	return b.String()
}

// groups evaluates the rule without its conditions.
func (q *query) groups(ctx context.Context, db *sql.DB) (list []Group, err error) {
	where := "TRUE"
	if q.where != "" {
		where = q.where
	}
	group := "\nGROUP BY e.ws, e.we"
	keys := ""
	for _, k := range q.keys {
		group += ", " + key(k)
		keys += ", " + k.sql
	}
	having := "TRUE"
	if q.having != "" {
		having = q.having
	}
	all := fmt.Sprintf("SELECT e.ws, e.we%s, (%s) IS TRUE", keys, having)
	for _, p := range q.whereParts {
		all += fmt.Sprintf(", COUNT(*) FILTER (WHERE (%s) IS NOT TRUE)", p.whole.sql)
	}
	passed := fmt.Sprintf("SELECT e.ws, e.we%s, (%s) IS TRUE, (%s) IS TRUE", keys, having, q.critical)
	for _, p := range q.havingParts {
		left, right := "NULL", "NULL"
		if p.op != "" {
			left, right = p.left.sql, p.right.sql
		}
		passed += fmt.Sprintf(", (%s) IS TRUE, %s, %s", p.whole.sql, left, right)
	}
	for _, c := range q.columns {
		passed += ", " + c.sql
	}
	from := fmt.Sprintf("\nFROM (%s) e", q.source(""))
	at := map[string]int{}
	err = q.each(ctx, db, all+from+group, func(g Group, values []any) {
		g.Unfiltered = values[0] == int64(1)
		for i, p := range q.whereParts {
			g.Where = append(g.Where, Part{p.text, p.columns, values[1+i].(int64)})
		}
		at[g.id()] = len(list)
		list = append(list, g)
	})
	if err != nil {
		return nil, err
	}
	err = q.each(ctx, db, passed+from+"\nWHERE "+where+group, func(g Group, values []any) {
		to := &list[at[g.id()]]
		to.Holds, to.Critical = values[0] == int64(1), values[1] == int64(1)
		values = values[2:]
		for _, p := range q.havingParts {
			c := Comparison{Text: p.text, Op: p.op, Holds: values[0] == int64(1)}
			if p.op != "" {
				c.Left, c.Right = toJSON(p.left.typ, values[1]), toJSON(p.right.typ, values[2])
			}
			to.Having = append(to.Having, c)
			values = values[3:]
		}
		for i, c := range q.columns {
			to.Columns = append(to.Columns, Column{q.names[i], toJSON(c.typ, values[i])})
		}
	})
	if err != nil {
		return nil, err
	}
	err = q.each(ctx, db, fmt.Sprintf("SELECT e.ws, e.we%s, e.id, (%s) IS TRUE", keys, where)+from+"\nORDER BY e.id", func(g Group, values []any) {
		g = list[at[g.id()]]
		if values[1] == int64(1) {
			g.Counted = append(g.Counted, values[0].(int64))
		} else {
			g.Filtered = append(g.Filtered, values[0].(int64))
		}
		list[at[g.id()]] = g
	})
	slices.SortFunc(list, func(a, b Group) int {
		return compareRuleRows(RuleRow{Start: a.Start, End: a.End, Values: a.Keys}, RuleRow{Start: b.Start, End: b.End, Values: b.Keys})
	})
	return list, err
}

// id tells groups apart.
func (g Group) id() string { return fmt.Sprint(g.Start, g.End, g.Keys) }

// each calls row with each row of a statement that begins with the window and the keys.
func (q *query) each(ctx context.Context, db *sql.DB, statement string, row func(Group, []any)) error {
	rows, err := db.QueryContext(ctx, statement)
	if err != nil {
		return fmt.Errorf("%w, in: %s", err, statement)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	for rows.Next() {
		values := make([]any, len(columns))
		to := make([]any, len(columns))
		for i := range values {
			to[i] = &values[i]
		}
		if err := rows.Scan(to...); err != nil {
			return err
		}
		g := Group{Start: values[0].(int64), End: values[1].(int64)}
		for i, k := range q.keys {
			g.Keys = append(g.Keys, toJSON(k.typ, values[2+i]))
		}
		row(g, values[2+len(q.keys):])
	}
	return rows.Err()
}
