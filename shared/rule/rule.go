package rule

import "spate/shared/rule/syntax"

// Rule is a compiled statement: what it looks for, over which events, in which windows.
type Rule struct {
	Name    string
	Named   bool   // the statement has a name; otherwise it is Options.Name
	Summary string // a template over the columns; empty if the rule has none
	Mode    Mode
	Runbook string // a URL; empty if the rule has none
	Text    string // the statement, with parameters in place
	Target  string // the table that the statement writes to
	Params  []syntax.Param

	Table      *Table
	Window     Window
	Keys       []Key
	Aggregates []*Aggregate
	Columns    []OutputColumn

	where            *node // over an event; nil lets all pass
	having, critical *node // over a window's row; nil if there is none
	pos              syntax.Pos
}

// Mode says what becomes of a rule's verdicts.
type Mode string

// The modes.
const (
	Live   Mode = "live"   // stored and notified
	Shadow Mode = "shadow" // stored, never notified
	Off    Mode = "off"    // not evaluated
)

// Key is an expression by which events are grouped.
type Key struct {
	Name string // that of the column in the SELECT list, or of the expression
	Type Type
	node *node
}

// OutputColumn is a column of the SELECT list.
type OutputColumn struct {
	Name string
	Type Type
	node *node
}
