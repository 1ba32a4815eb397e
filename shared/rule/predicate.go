package rule

import "spate/shared/rule/syntax"

func (c *checker) is(e *syntax.Is) *node {
	x := c.expr(e.X)
	if x == nil {
		return nil
	}
	t := Type{Kind: Boolean, NotNull: true}
	o := opIsNull
	if e.What != "NULL" {
		if x = c.boolean(x); x == nil {
			return nil
		}
		o = map[string]op{"TRUE": opIsTrue, "FALSE": opIsFalse, "UNKNOWN": opIsNull}[e.What]
	}
	n := newNode(o, "", t, syntax.At(e), x)
	if e.Not {
		n = newNode(opNot, "", t, syntax.At(e), n)
	}
	return fold(n)
}

func (c *checker) between(e *syntax.Between) *node {
	le := func(x, y syntax.Expr) syntax.Expr { return &syntax.Binary{Pos: syntax.At(e), Op: "<=", X: x, Y: y} }
	and := func(x, y syntax.Expr) syntax.Expr { return &syntax.Binary{Pos: syntax.At(e), Op: "AND", X: x, Y: y} }
	in := and(le(e.Low, e.X), le(e.X, e.High))
	if e.Symmetric {
		in = &syntax.Binary{Pos: syntax.At(e), Op: "OR", X: in, Y: and(le(e.High, e.X), le(e.X, e.Low))}
	}
	if e.Not {
		in = &syntax.Unary{Pos: syntax.At(e), Op: "NOT", X: in}
	}
	return c.expr(in)
}

func (c *checker) in(e *syntax.In) *node {
	if e.Query != nil {
		return c.fail(e.Query.Pos, "write the values: x NOT IN ('a', 'b')", "a subquery is not supported here")
	}
	args := c.all(append([]syntax.Expr{e.X}, e.List...))
	if args == nil {
		return nil
	}
	t := args[0].typ
	notNull := t.NotNull
	for _, a := range args[1:] {
		both, ok := common(t, a.typ)
		if !ok {
			return c.fail(a.at, "the values in IN must have the same type as the compared expression", "%s cannot be compared with %s", t.nullable(), a.typ.nullable())
		}
		notNull = notNull && a.typ.NotNull
		t = both
	}
	for i := range args {
		args[i] = castTo(args[i], t)
	}
	n := newNode(opIn, kindNames[t.Kind], Type{Kind: Boolean, NotNull: notNull}, syntax.At(e), args...)
	if e.Not {
		n = newNode(opNot, "", n.typ, syntax.At(e), n)
	}
	return fold(n)
}

func (c *checker) like(e *syntax.Like) *node {
	list := []syntax.Expr{e.X, e.Pattern}
	if e.Escape != nil {
		list = append(list, e.Escape)
	}
	args := c.all(list)
	if args == nil {
		return nil
	}
	notNull := true
	for _, a := range args {
		if a.typ.Kind != String && a.typ.Kind != Null {
			return c.fail(a.at, "write CAST(x AS STRING)", "LIKE needs text, but this is %s", a.typ.nullable())
		}
		notNull = notNull && a.typ.NotNull
	}
	n := newNode(opLike, "", Type{Kind: Boolean, NotNull: notNull}, syntax.At(e), args[:2]...)
	escape := rune(-1)
	if e.Escape != nil {
		text := []rune(string(args[2].value.text))
		if args[2].op != opConst || len(text) != 1 {
			return c.fail(args[2].at, "write ESCAPE '!'", "the escape must be a single character")
		}
		escape = text[0]
		n.key += string(escape)
	}
	var problem string
	switch {
	case e.Similar:
		n.op = opSimilar
		if args[1].op != opConst || args[1].value.IsNull() {
			return c.fail(args[1].at, "", "the pattern of SIMILAR TO must be a constant")
		}
		n.key = "SIMILAR" + n.key
		n.like, problem = c.similar(string(args[1].value.text), escape)
	case args[1].op == opConst && !args[1].value.IsNull():
		n.like, problem = likePattern(string(args[1].value.text), escape, true)
	default:
		n.like = &pattern{dynamic: true, escape: escape}
	}
	if problem != "" {
		return c.fail(args[1].at, "an escape must precede %, _ or itself", "%s", problem)
	}
	if e.Not {
		return fold(newNode(opNot, "", n.typ, syntax.At(e), n))
	}
	return fold(n)
}
