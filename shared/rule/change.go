package rule

import (
	"fmt"
	"strings"

	"spate/shared/rule/syntax"
)

// Same reports whether two rules give the same alerts: a revision that has one in place of the other leaves it alone ([History]).
func Same(a, b *Rule) bool { return a.identity() == b.identity() }

// Change is a part of a rule that differs between two versions of it, as it is written.
type Change struct {
	Part string `json:"part"` // such as HAVING
	From string `json:"from"`
	To   string `json:"to"`
}

// Changes returns what differs between two versions of a rule; nothing if they are the same.
func Changes(a, b *Rule) (out []Change) {
	if Same(a, b) {
		return nil
	}
	to := b.parts()
	for i, from := range a.parts() {
		if from.text != to[i].text {
			out = append(out, Change{from.name, from.text, to[i].text})
		}
	}
	if len(out) == 0 {
		// What is left is in the key's expressions, or in the columns of the table.
		out = append(out, Change{"statement", a.Text, b.Text})
	}
	return out
}

// partText is a part of a rule as it is written.
type partText struct{ name, text string }

// parts are what people change in a rule.
func (r *Rule) parts() []partText {
	window := r.Window.String()
	if r.Window.Offset != 0 {
		window += fmt.Sprintf(", offset %d ms", r.Window.Offset)
	}
	var keys, columns, where []string
	for _, k := range r.Keys {
		keys = append(keys, k.Name)
	}
	having := ""
	if script, _ := syntax.Parse(r.Text, nil); len(script.Inserts) == 1 { // it was compiled
		s := script.Inserts[0].Select
		for _, item := range s.Items {
			text := "*"
			if !item.Star {
				text = syntax.Print(item.Expr)
			}
			if item.Alias.Text != "" {
				text += " AS " + item.Alias.Text
			}
			columns = append(columns, text)
		}
		if s.Having != nil {
			having = syntax.Print(s.Having)
		}
		for ; s != nil; s = s.From.Query {
			if s.Where != nil {
				where = append(where, syntax.Print(s.Where))
			}
		}
	}
	return []partText{
		{"mode", string(r.Mode)}, {"summary", r.Summary}, {"runbook", r.Runbook}, {"quiet", r.quietText()}, {"decision", r.Decision.String()}, {"window", window}, {"key", strings.Join(keys, ", ")},
		{"SELECT", strings.Join(columns, ", ")}, {"WHERE", strings.Join(where, " AND ")}, {"HAVING", having}, {"critical", r.CriticalSQL()},
	}
}
