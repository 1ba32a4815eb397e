package cli

import (
	"errors"
	"fmt"

	"spate/shared/revision"
	"spate/shared/rule"
	"spate/shared/terminal"
)

type rulesDiffCommand struct {
	From     string            `arg:"" name:"file-or-revision" help:"Rules file to compare with the rules in force (- for standard input), or a revision."`
	To       revisionArg       `arg:"" optional:"" name:"revision" help:"Revision to compare the first one with. Default: the newest."`
	Set      map[string]string `name:"set" mapsep:"none" placeholder:"RULE.PARAM=VALUE" help:"Value of a parameter in the file. Repeatable."`
	Text     bool              `name:"text" help:"Compare the text of the files, line by line."`
	ExitCode bool              `name:"exit-code" help:"Exit with code 1 if there are differences."`
	JSON     bool              `name:"json" help:"Print one JSON object per rule: name, change (added, changed, removed or unchanged), changes (part, from, to) and more."`
	rulesLogFlags
}

// Help is shown below the usage.
func (rulesDiffCommand) Help() string {
	return `spate compares what the rules do: it ignores comments, white space and the order of the rules, and replaces parameters with their values.

  spate rules diff rules.sql            what apply would change
  spate rules diff 3                    what has changed since revision 3
  spate rules diff 3 4 --text           the lines that differ
  spate rules diff rules.sql --exit-code >/dev/null || spate rules apply rules.sql

A file whose name is a number needs a path: ./3.`
}

// ruleVersion is one side of a comparison.
type ruleVersion struct {
	name, text string
	rules      []*rule.Rule
}

func versionOf(e revision.Entry) ruleVersion {
	return ruleVersion{fmt.Sprintf("revision %d", e.Revision), e.Text, e.Set.Rules}
}

func (c *rulesDiffCommand) Run(e *env) error {
	number, isRevision := revisionNumber(c.From)
	var errs []error
	if c.Text && c.JSON {
		errs = append(errs, errors.New("text: --text prints lines, not JSON; omit --json"))
	}
	if !isRevision && c.To != 0 {
		errs = append(errs, fmt.Errorf("revision: %q is not the number of a revision; a file is always compared with the rules in force", c.From))
	}
	if isRevision && len(c.Set) > 0 {
		errs = append(errs, errors.New("set: applies only to a file"))
	}
	if err := usage(errors.Join(errs...)); err != nil {
		return err
	}
	var file rulesFile
	if !isRevision {
		var err error
		if file, err = readRules(c.From, c.Set); err != nil {
			return err
		}
		if err := file.printErrors(e.stderr); err != nil {
			return err
		}
	}
	l, err := c.open(e)
	if err != nil {
		return err
	}
	defer l.Close()
	from, to, err := c.sides(l, file, number)
	if err != nil {
		return err
	}
	list := compareRules(from.rules, to.rules)
	differs := !same(list)
	o := newOut(e.stdout)
	switch {
	case c.Text:
		lines := unified(from.name, to.name, from.text, to.text)
		differs = len(lines) > 0
		for _, line := range lines {
			o.printf("%s\n", o.diffLine(line))
		}
	case c.JSON:
		for _, r := range list {
			if err := o.json(r); err != nil {
				return o.end(err)
			}
		}
	default:
		o.printf("%s, compared with %s:\n", to.name, from.name)
		o.compared(list)
		o.printf("%s\n", terminal.Safe(tallyText(list)))
		if !differs && from.text != to.text && from.text != "" {
			o.printf("only the text differs; to show the differences, add --text\n")
		}
	}
	if err := o.end(nil); err != nil {
		return err
	}
	if c.ExitCode && differs {
		return errDiffers
	}
	return nil
}

// sides returns what is compared. number is that of a revision; 0 if a file is compared with the rules in force.
func (c *rulesDiffCommand) sides(l *rulesLog, file rulesFile, number int64) (from, to ruleVersion, err error) {
	if number > 0 {
		entry, err := l.entry(number)
		if err != nil {
			return from, to, err
		}
		other, err := l.newest()
		if c.To != 0 {
			other, err = l.entry(int64(c.To))
		}
		if err != nil {
			return from, to, err
		}
		return versionOf(entry), versionOf(other), nil
	}
	to = ruleVersion{file.name, file.text, file.set.Rules}
	if u := l.Unreadable(); u != nil {
		return from, to, u
	}
	newest, ok := l.Newest()
	if !ok {
		return ruleVersion{"the rule from the settings", "", l.initial.Rules}, to, nil
	}
	return versionOf(newest), to, nil
}

// diffLine is a line of a comparison of texts, in its color.
func (o *out) diffLine(line string) terminal.Safe {
	switch line[0] {
	case '+':
		return o.paint(line, terminal.Green)
	case '-':
		return o.paint(line, terminal.Red)
	}
	return terminal.Safe(terminal.Text(line))
}
