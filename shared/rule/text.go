package rule

import (
	"slices"
	"strings"

	"spate/shared/rule/syntax"
)

// Pos is where the rule's statement begins in its file.
func (r *Rule) Pos() syntax.Pos { return r.pos }

// Statement is the rule as a statement with its directives in front and a semicolon behind it, with parameters in place. target is the table that
// it writes to instead of its own, if it is not empty.
func (r *Rule) Statement(target string) string {
	var b strings.Builder
	directive := func(name, value string) {
		if value != "" {
			b.WriteString("-- " + name + ": " + value + "\n")
		}
	}
	directive("rule", r.Name)
	directive("summary", r.Summary)
	directive("critical", r.CriticalSQL())
	if r.Mode != Live {
		directive("mode", string(r.Mode))
	}
	directive("runbook", r.Runbook)
	directive("quiet", r.quietText())
	directive("decision", r.Decision.String())
	text := r.Text
	if target != "" {
		text = retarget(text, target)
	}
	b.WriteString(text + ";\n")
	return b.String()
}

// retarget changes the table that a statement writes to. The statement must have been compiled.
func retarget(text, target string) string {
	script, _ := syntax.Parse(text, nil)
	in := script.Inserts[0]
	head := "INSERT INTO " + syntax.Name{Text: target}.SQL()
	for i, c := range in.Columns {
		head += map[bool]string{true: " (", false: ", "}[i == 0] + c.SQL()
		if i == len(in.Columns)-1 {
			head += ")"
		}
	}
	return head + "\n" + text[in.Select.Pos:]
}

// quietText is the directive quiet; empty if the rule has none.
func (r *Rule) quietText() string {
	if r.Quiet == 0 {
		return ""
	}
	return r.Quiet.String()
}

// CriticalSQL is the critical condition, on one line; empty if the rule has none.
func (r *Rule) CriticalSQL() string {
	if r.critical == nil {
		return ""
	}
	return syntax.Print(r.critical.from)
}

// ReservedColumn reports whether a name is that of a member of every alert, so a column cannot have it. The bounds of a window can. Case does not
// matter: many decoders of JSON take names that differ in case only for the same.
func ReservedColumn(name string) bool {
	return slices.ContainsFunc(reservedColumns, func(r string) bool { return strings.EqualFold(r, name) })
}
