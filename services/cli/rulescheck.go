package cli

import (
	"fmt"
	"strings"

	"spate/shared/rule"
	"spate/shared/rule/syntax"
	"spate/shared/terminal"
)

type rulesCheckCommand struct {
	File string            `arg:"" help:"Rules file, or - for standard input."`
	JSON bool              `name:"json" help:"Print one JSON object per line: one for each rule, or, if the file has errors, one for each error."`
	Set  map[string]string `name:"set" mapsep:"none" placeholder:"RULE.PARAM=VALUE" help:"Parameter value; overrides the one in the file. Repeatable."`
}

// Help is shown below the usage.
func (rulesCheckCommand) Help() string {
	return `The exit code is 2 if the file has errors, which are printed to standard error as FILE:LINE:COLUMN: message. Warnings do not change the exit code.
With --json, standard output contains either the rules (name, mode, window, key, feed, opens_early, reason, cost, warnings and more) or the errors
(file, line, column, message, fix), never both. docs/rules.md describes the language.

  spate rules check rules.sql
  spate rules check rules.sql --set scraper.products=40
  spate rules check rules.sql --json | jq -r 'select(.warnings != []) | .name'`
}

// checkedRule is what is known of a rule.
type checkedRule struct {
	Name       string          `json:"name"`
	Mode       rule.Mode       `json:"mode"`
	Window     string          `json:"window"`
	Key        []string        `json:"key"`
	Feed       string          `json:"feed"`
	OpensEarly bool            `json:"opens_early"`
	Reason     string          `json:"reason"`
	Cost       rule.Cost       `json:"cost"`
	Warnings   []string        `json:"warnings"`
	Critical   string          `json:"critical,omitempty"`
	Quiet      string          `json:"quiet,omitempty"`
	Decision   string          `json:"decision,omitempty"`
	Columns    []checkedColumn `json:"columns"`
	File       string          `json:"file"`
	Line       int             `json:"line"`
}

type checkedColumn struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// ruleError is an error of a rules file.
type ruleError struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
	Fix     string `json:"fix"`
}

func (c *rulesCheckCommand) Run(e *env) error {
	f, err := readRules(c.File, c.Set)
	if err != nil {
		return err
	}
	o := newOut(e.stdout)
	if len(f.errs) > 0 {
		if !c.JSON {
			return f.printErrors(e.stderr)
		}
		for _, err := range f.errs {
			line, column := syntax.LineColumn(f.text, err.Pos)
			if err := o.json(ruleError{f.name, line, column, err.Message, err.Fix}); err != nil {
				return o.end(err)
			}
		}
		if err := o.end(nil); err != nil {
			return err
		}
		return errRules
	}
	feeds, fields, warnings := map[string]int{}, map[string]bool{}, 0
	for _, r := range f.set.Rules {
		feeds[r.Feed()]++
	}
	for _, r := range f.set.Rules {
		checked := f.check(r)
		warnings += len(checked.Warnings)
		for _, name := range checked.Cost.Fields {
			fields[name] = true
		}
		if c.JSON {
			if err := o.json(checked); err != nil {
				return o.end(err)
			}
			continue
		}
		o.rule(checked, feeds[checked.Feed]-1)
	}
	if !c.JSON {
		o.printf("%s: %s, %s, %s; %s\n", f.name, terminal.Safe(plural(len(f.set.Rules), "rule")), terminal.Safe(plural(len(feeds), "feed")),
			terminal.Safe(plural(len(fields), "field")), terminal.Safe(plural(warnings, "warning")))
	}
	return o.end(nil)
}

func (f rulesFile) check(r *rule.Rule) checkedRule {
	early, reason := r.Early()
	line, _ := syntax.LineColumn(f.text, r.Pos())
	c := checkedRule{
		Name: r.Name, Mode: r.Mode, Window: r.Window.String(), Key: []string{}, Feed: r.Feed(), OpensEarly: early, Reason: reason, Cost: f.set.Cost(r),
		Warnings: append([]string{}, r.Warnings()...), Critical: r.CriticalSQL(), File: f.name, Line: line,
	}
	if r.Quiet > 0 {
		c.Quiet = short(r.Quiet)
	}
	if r.Decision.Level != "" {
		c.Decision = r.Decision.Level + " " + short(r.Decision.For)
	}
	for _, k := range r.Keys {
		c.Key = append(c.Key, k.Name)
	}
	for _, col := range r.Columns {
		c.Columns = append(c.Columns, checkedColumn{col.Name, r.ValueType(col).String()})
	}
	return c
}

// memoryText says how much memory a rule needs.
func memoryText(c rule.Cost) string {
	text := fmt.Sprintf("%s per window; about %s bytes per key", plural(int(c.Panes), "pane"), terminal.Grouped(c.BytesPerKey))
	if n := c.BytesPerDistinct; n > 0 {
		text += fmt.Sprintf(" plus %d bytes per distinct value; at most %s bytes per key", n, terminal.Grouped(c.MaxBytesPerKey))
	}
	return text
}

// rule prints a rule for people. others are the rules that share its feed.
func (o *out) rule(r checkedRule, others int) {
	o.printf("%s  %s\n", o.paint(r.Name, terminal.Bold), terminal.Safe(r.Mode))
	line := func(name, format string, args ...any) {
		o.printf("  %-13s", terminal.Safe(name))
		o.printf(format+"\n", args...)
	}
	key := strings.Join(r.Key, ", ")
	if key == "" {
		key = "no column (one group of all events)"
	}
	line("window", "%s, by %s", r.Window, key)
	if r.Critical != "" {
		line("critical", "%s", r.Critical)
	}
	if r.Quiet != "" {
		line("quiet", "%s between incidents", r.Quiet)
	}
	if r.Decision != "" {
		line("decision", "%s", r.Decision)
	}
	early := "no"
	if r.OpensEarly {
		early = "yes"
	}
	line("opens early", "%s: %s", terminal.Safe(early), r.Reason)
	line("reads", "%s", strings.Join(r.Cost.Fields, ", "))
	shared := ""
	if others > 0 {
		shared = ", shared with " + plural(others, "other rule")
	}
	line("feed", "%s%s", r.Feed, terminal.Safe(shared))
	line("memory", "%s", terminal.Safe(memoryText(r.Cost)))
	for _, w := range r.Warnings {
		line("warning", "%s", o.paint(w, terminal.Yellow))
	}
	o.printf("\n")
}
