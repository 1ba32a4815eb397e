package cli

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"spate/shared/rule"
	"spate/shared/rule/notebook"
	"spate/shared/rule/sigma"
	"spate/shared/terminal"
)

type rulesImportCommand struct {
	File       string `arg:"" help:"Zeppelin notebook (.zpln), Sigma correlations (.yml, .yaml), or Flink SQL script; - for standard input, unless it is Sigma."`
	Name       string `name:"name" placeholder:"RULE" help:"Name for rules that have none; if there are several, they are numbered. Default: the name of the file."`
	TimeColumn string `name:"time-column" default:"txn_timestamp" help:"Sigma: name of the event time column in the CREATE TABLE statement; spate writes this statement if the rules read fields that the built-in table lacks."`
	Tumble     bool   `name:"tumble" help:"Sigma: write tumbling windows instead of hopping ones. One burst then raises fewer alerts, but a burst that straddles a window boundary is split between two windows."`
}

// Help is shown below the usage.
func (rulesImportCommand) Help() string {
	return `Writes the rules file to standard output; standard error shows what was left out, and why. In a notebook, spate converts the paragraphs of streaming SQL
(%flink.ssql), except queries and commands that are neither a rule nor a table. If the result has errors, spate writes it anyway, so
that you can correct it, and exits with code 2. Sigma correlations of types event_count, value_count, value_sum and value_avg become rules, together with the
base rules in the same file; anything that SQL cannot express is an error. docs/rules.md has the details.

  spate rules import notebook.zpln >rules.sql
  spate rules import password-guessing.yml >rules.sql
  spate rules import job.sql --name burst >rules.sql`
}

// maxImport bounds a file to import: notebooks have the results of their paragraphs in them.
const maxImport = 64 << 20

func (c *rulesImportCommand) Run(e *env) error {
	text, err := readText(c.File, maxImport)
	if err != nil {
		return err
	}
	if len(text) > maxImport {
		return usage(fmt.Errorf("%s: the file is larger than %d bytes", shown(c.File), maxImport))
	}
	name := c.Name
	if name == "" {
		name = defaultRule(c.File)
	}
	if ext := strings.ToLower(filepath.Ext(c.File)); ext == ".yml" || ext == ".yaml" {
		f := rulesFile{name: shown(c.File), text: text}
		var rules string
		if rules, f.errs = sigma.Convert(text, sigma.Options{Name: name, TimeColumn: c.TimeColumn, Tumble: c.Tumble}); len(f.errs) > 0 {
			return f.printErrors(e.stderr)
		}
		return writeRules(e, rules)
	}
	var skipped []string
	sql := text
	if notebook.Is([]byte(text)) {
		if sql, skipped, err = notebook.SQL([]byte(text)); err != nil {
			return usage(fmt.Errorf("%s: %w", shown(c.File), err))
		}
	}
	rules, more := notebook.Rules(sql, name)
	for _, s := range append(skipped, more...) {
		terminal.Fprintf(e.stderr, "%s: left out: %s\n", shown(c.File), s)
	}
	return writeRules(e, rules)
}

// writeRules prints a rules file that was made, and then its errors.
func writeRules(e *env, rules string) error {
	if _, err := io.WriteString(e.stdout, rules); err != nil {
		return err
	}
	f := rulesFile{name: "<stdout>", text: rules}
	f.set, f.errs = rule.Compile(rules, rule.Options{Tables: []*rule.Table{rule.Activity()}})
	return f.printErrors(e.stderr)
}
