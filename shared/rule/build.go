package rule

import (
	"fmt"
	"slices"

	"spate/shared/rule/syntax"
)

// builder makes rules of statements.
type builder struct {
	errs     *syntax.Errors
	options  Options
	inputs   *inputs
	declared []*Table
	sinks    map[string][]Column
	names    []string
	// broken are tables whose CREATE TABLE has an error: what is wrong with rules that read them may be due to it.
	broken  map[string]bool
	regexps int
}

func (b *builder) fail(at syntax.Pos, fix, format string, args ...any) {
	b.errs.Add(at, fix, format, args...)
}

// rule makes a rule of a statement; nil after an error.
func (b *builder) rule(in *syntax.Insert, statements int) *Rule {
	before := len(*b.errs)
	failed := func(since int) bool { return len(*b.errs) > since }
	q := in.Select
	r := &Rule{Mode: Live, Text: in.Text, Target: in.Target.Text, Params: in.Params, pos: in.Pos}
	b.name(r, in, statements)
	if q.From.Query != nil {
		b.fail(q.From.Pos, "write it as one query", "a query within FROM is not supported")
		return nil
	}
	from := q.From.Table
	if q.From.Window != nil {
		from = q.From.Window.Table
	}
	if r.Table = b.table(from); r.Table == nil {
		return nil
	}
	alias := q.From.Alias.Text
	if alias == "" {
		alias = from.Text
	}
	grouping := len(*b.errs)
	c := checker{errs: b.errs, table: r.Table, alias: alias, inputs: b.inputs, windows: q.From.Window != nil, regexps: &b.regexps}
	g := &group{}
	var keys []syntax.Expr
	if q.From.Window != nil {
		r.Window = b.function(r.Table, q.From.Window)
		keys = b.functionKeys(q, c)
	} else {
		keys = b.groupWindow(r, q, g)
	}
	c.clause = "GROUP BY"
	for _, k := range keys {
		n := c.token(k)
		if n == nil || slices.ContainsFunc(g.keys, func(o *node) bool { return o.key == n.key }) {
			continue
		}
		g.keys = append(g.keys, n)
		r.Keys = append(r.Keys, Key{Name: keyName(k, len(g.keys)), Type: n.typ, node: n})
	}
	sound := !failed(grouping) // otherwise, what is not in GROUP BY is not known
	if q.Where != nil {
		c.clause = "WHERE"
		r.setWhere(&c, q.Where)
	}
	if !sound {
		return nil
	}
	for _, item := range q.Items {
		g.aliases = append(g.aliases, item.Alias.Text)
	}
	c.group = g
	selected := b.columns(r, q, c, in)
	if q.Having != nil {
		c.clause = "HAVING"
		if n := c.condition(q.Having); n != nil {
			r.having = and(n, r.having)
		}
	}
	b.directives(r, in, c, selected)
	r.Aggregates = g.aggregates
	if failed(before) {
		return nil
	}
	return r
}

func and(x, y *node) *node {
	if y == nil {
		return x
	}
	return fold(newNode(opAnd, "", Type{Kind: Boolean}, x.at, x, y))
}

// setWhere sets the condition over events. What it says about windows alone is a condition over their rows.
func (r *Rule) setWhere(c *checker, e syntax.Expr) {
	bound := func(n *node) bool { return n.op == opBound }
	for _, n := range c.condition(e).conjuncts() {
		switch {
		case !n.any(bound):
			r.where = and(n, r.where)
		case n.any(func(n *node) bool { return n.op == opInput }):
			c.fail(n.at, "compare the time column instead", "a condition on events cannot compare them with the bounds of their windows")
		default:
			r.having = and(n, r.having)
		}
	}
}

// keyName is how a key is called: by its column, or by its number.
func keyName(e syntax.Expr, n int) string {
	if ref, ok := e.(*syntax.Ref); ok {
		return ref.Parts[len(ref.Parts)-1].Text
	}
	return fmt.Sprintf("key%d", n)
}
