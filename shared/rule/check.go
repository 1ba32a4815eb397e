package rule

import (
	"fmt"
	"slices"

	"spate/shared/rule/syntax"
)

// checker turns the expressions of one statement into nodes.
type checker struct {
	errs    *syntax.Errors
	table   *Table
	alias   string // of the table
	inputs  *inputs
	windows bool // window_start and window_end are columns: the source is a window table function

	// For expressions over a window's row; nil for those over an event.
	group *group
	// what names the clause, for errors.
	clause string
	// memo has what was checked before; nil if nothing is checked twice.
	memo map[syntax.Expr]*node
	// regexps counts the instructions of the regular expressions of the file.
	regexps *int
}

// group is what a window's row consists of.
type group struct {
	keys       []*node // over the event
	aggregates []*Aggregate
	window     *syntax.Call // the group window in GROUP BY; nil with a window table function
	aliases    []string     // of the SELECT list

	// What grouped found: an expression is asked about once, and then each one in it.
	over    map[syntax.Expr]*node
	ignored syntax.Errors
}

func (c *checker) fail(at syntax.Pos, fix, format string, args ...any) *node {
	c.errs.Add(at, fix, format, args...)
	return nil
}

// all checks expressions, and returns nil if one of them has an error.
func (c *checker) all(list []syntax.Expr) []*node {
	out := make([]*node, 0, len(list))
	for _, e := range list {
		if n := c.expr(e); n != nil {
			out = append(out, n)
		}
	}
	if len(out) < len(list) {
		return nil
	}
	return out
}

// condition checks an expression that must be a BOOLEAN.
func (c *checker) condition(e syntax.Expr) *node {
	n := c.expr(e)
	if n == nil {
		return nil
	}
	return c.boolean(n)
}

func (c *checker) boolean(n *node) *node {
	switch n.typ.Kind {
	case Boolean:
		return n
	case Null:
		return c.fail(n.at, "write CAST(NULL AS BOOLEAN), or leave the condition out", "NULL cannot be a condition")
	}
	return c.fail(n.at, "compare it with something, as in x > 0", "a condition must be a BOOLEAN, but this is %s", n.typ.nullable())
}

// expr checks an expression. It returns nil after an error.
func (c *checker) expr(e syntax.Expr) *node {
	n := c.token(e)
	if n != nil && n.typ.Kind == Token {
		n = castTo(n, Type{Kind: BigInt})
		n.typ.NotNull = false // text that is not a number becomes NULL
		n.from = e
	}
	return n
}

// token is expr, but leaves the built-in user as it is.
func (c *checker) token(e syntax.Expr) *node {
	if n, ok := c.memo[e]; ok {
		return n
	}
	n := c.check(e)
	if n != nil && n.from == nil {
		n.from = e
	}
	if c.memo != nil {
		c.memo[e] = n
	}
	return n
}

func (c *checker) check(e syntax.Expr) *node {
	if c.group != nil {
		if n := c.grouped(e); n != nil {
			return n
		}
	}
	switch e := e.(type) {
	case *syntax.Literal:
		return c.literal(e)
	case *syntax.Interval:
		return constant(IntValue(e.MS), Type{Kind: interval}, e.Pos)
	case *syntax.Ref:
		return c.ref(e)
	case *syntax.Unary:
		return c.unary(e)
	case *syntax.Binary:
		return c.binary(e)
	case *syntax.Is:
		return c.is(e)
	case *syntax.Between:
		return c.between(e)
	case *syntax.In:
		return c.in(e)
	case *syntax.Like:
		return c.like(e)
	case *syntax.Case:
		return c.cases(e)
	case *syntax.Cast:
		return c.cast(e)
	case *syntax.Call:
		return c.call(e)
	}
	panic(fmt.Sprintf("unknown expression %T", e))
}

// grouped returns the key that an expression over a window's row is, or nil.
func (c *checker) grouped(e syntax.Expr) *node {
	if len(c.group.keys) == 0 {
		return nil
	}
	over := *c
	over.group, over.errs = nil, &c.group.ignored
	if c.group.over == nil {
		c.group.over = map[syntax.Expr]*node{}
	}
	over.memo = c.group.over
	n := over.token(e)
	if n == nil {
		return nil
	}
	for i, k := range c.group.keys {
		if k.key == n.key {
			return indexed(opKey, i, k.typ, syntax.At(e))
		}
	}
	return nil
}

// fold replaces a node whose operands are constants by its value.
func fold(n *node) *node {
	if n.op == opConst || !n.isConst() {
		return n
	}
	v := (&compiler{}).compile(n)(nil)
	v.text = slices.Clone(v.text)
	f := constant(v, n.typ, n.at)
	f.typ.NotNull = n.typ.NotNull
	return f
}
