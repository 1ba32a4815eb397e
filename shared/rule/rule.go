package rule

import (
	"time"

	"spate/shared/rule/syntax"
)

// Rule is a compiled statement: what it looks for, over which events, in which windows.
type Rule struct {
	Name    string
	Named   bool   // the statement has a name; otherwise it is Options.Name
	Summary string // a template over the columns; empty if the rule has none
	Mode    Mode
	Runbook string        // a URL; empty if the rule has none
	Quiet   time.Duration // how far apart the windows of one incident are at most; 0 is the default
	// Decision is what its alerts mean for the key, and for how long; an empty level is nothing.
	Decision Decision
	Text     string // the statement, with parameters in place
	Target   string // the table that the statement writes to
	Params   []syntax.Param

	Table      *Table
	Window     Window
	Keys       []Key
	Aggregates []*Aggregate
	Columns    []OutputColumn

	where            *node // over an event; nil lets all pass
	having, critical *node // over a window's row; nil if there is none
	pos              syntax.Pos
	bounded          bool // a copy of a rule for which nothing changes but that counts of distinct values rise ([Rule.holdsAbove])
}

// Decision is what to do about a key, and for how long from an alert on.
type Decision struct {
	Level string
	For   time.Duration
}

// String is the directive's value; empty if there is none.
func (d Decision) String() string {
	if d.Level == "" {
		return ""
	}
	return d.Level + " " + d.For.String()
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
