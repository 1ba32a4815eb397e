package rule

import (
	"crypto/sha256"
	"slices"
	"strconv"
	"strings"

	"spate/shared/rule/syntax"
)

// node is a checked expression: every operand has the type that the operator needs.
type node struct {
	op   op
	name string // of a function
	typ  Type
	args []*node
	at   syntax.Pos

	varies bool // it is not the same for every row

	index int   // of an input, key, aggregate or bound
	value Value // of a constant
	like  *pattern
	from  syntax.Expr // what it was made of, for messages; nil for what has no text of its own
	// key is a text that two nodes share only if they always have the same value: by it, GROUP BY and SELECT recognize each other's expressions.
	key string
}

// op is what a node does.
type op uint8

const (
	opConst     op = iota
	opInput        // a column of the event
	opKey          // a key of the window's group
	opAggregate    // an aggregate of the window's group
	opBound        // start, end or last instant of the window
	opCall         // a function or an arithmetic operator, by name; NULL if an operand is
	opCast
	opCompare // by name
	opAnd
	opOr
	opNot
	opIsNull
	opIsTrue
	opIsFalse
	opDistinct // IS DISTINCT FROM
	opIn
	opLike
	opCase // condition, value, condition, value, …, else
	opCoalesce
	opSimilar
)

// The bounds of a window.
const (
	boundStart = iota
	boundEnd
	boundLast // TUMBLE_ROWTIME, window_time
)

// maxKey bounds the key of a node, which else would have that of every node below it.
const maxKey = 256

// newNode returns a node with its key.
func newNode(o op, name string, t Type, at syntax.Pos, args ...*node) *node {
	n := &node{op: o, name: name, typ: t, args: args, at: at}
	var b strings.Builder
	b.WriteString(strconv.Itoa(int(o)) + name)
	b.WriteByte('(')
	for _, a := range args {
		n.varies = n.varies || a.varies
		b.WriteString(a.key)
		b.WriteByte(',')
	}
	b.WriteByte(')')
	if o == opCast {
		b.WriteString(t.nullable().String())
	}
	if n.key = b.String(); len(n.key) > maxKey {
		h := sha256.Sum256([]byte(n.key))
		n.key = string(h[:])
	}
	return n
}

func indexed(o op, i int, t Type, at syntax.Pos) *node {
	return &node{op: o, typ: t, at: at, index: i, varies: true, key: strconv.Itoa(int(o)) + "#" + strconv.Itoa(i)}
}

// input is a column of the event. Its key is the same in every set of rules.
func input(i int, in Input, at syntax.Pos) *node {
	return &node{op: opInput, typ: in.Type, at: at, index: i, varies: true, key: in.key()}
}

func constant(v Value, t Type, at syntax.Pos) *node {
	t.NotNull = !v.IsNull()
	return &node{op: opConst, typ: t, at: at, value: v, key: "=" + t.String() + string(AppendJSON(nil, t, v))}
}

// any reports whether f holds for the node or one below it.
func (n *node) any(f func(*node) bool) bool {
	return f(n) || slices.ContainsFunc(n.args, func(a *node) bool { return a.any(f) })
}

// isConst reports whether the node has the same value for every row.
func (n *node) isConst() bool { return !n.varies }

// conjuncts are the parts of a condition that AND joins.
func (n *node) conjuncts() []*node {
	if n == nil {
		return nil
	}
	if n.op != opAnd {
		return []*node{n}
	}
	return append(n.args[0].conjuncts(), n.args[1].conjuncts()...)
}
