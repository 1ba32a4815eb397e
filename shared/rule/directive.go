package rule

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"spate/shared/rule/syntax"
)

// Bounds of directives.
const (
	// MinQuiet and MaxQuiet bound the directive quiet.
	MinQuiet = time.Second
	MaxQuiet = 24 * time.Hour
	// MinDecision and MaxDecision bound how long a decision holds.
	MinDecision = time.Second
	MaxDecision = 31 * 24 * time.Hour
)

var ruleName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)

// name sets the rule's name.
func (b *builder) name(r *Rule, in *syntax.Insert, statements int) {
	at, found := in.Pos, false
	for _, d := range in.Directives {
		if d.Name == "rule" && !found {
			r.Name, at, found = d.Value, d.ValuePos, true
		}
	}
	if !found && statements == 1 {
		r.Name = b.options.Name
	}
	r.Named = found
	switch {
	case r.Name == "":
		b.fail(at, "write a line before it: -- rule: burst", "the rule has no name")
	case !ruleName.MatchString(r.Name):
		b.fail(at, "use lower-case letters, digits, - and _, and begin with a letter", "%q is not a rule name", r.Name)
	case slices.Contains(b.names, r.Name):
		b.fail(at, "", "two rules have the name %s", r.Name)
	}
	b.names = append(b.names, r.Name)
}

// directives reads what Flink does not know. selected: the columns are known.
func (b *builder) directives(r *Rule, in *syntax.Insert, c checker, selected bool) {
	seen := map[string]bool{}
	for _, d := range in.Directives {
		if seen[d.Name] && d.Name != "param" {
			b.fail(d.Pos, "", "directive %s is given twice", d.Name)
		}
		seen[d.Name] = true
		switch d.Name {
		case "rule", "param":
		case "summary":
			text, errs := in.Insert(d.Value, d.ValuePos)
			*b.errs = append(*b.errs, errs...)
			r.Summary, d.Value = text, text
			if selected {
				b.template(r, d)
			}
		case "runbook":
			if r.Runbook = d.Value; !strings.HasPrefix(d.Value, "https://") && !strings.HasPrefix(d.Value, "http://") {
				b.fail(d.ValuePos, "write https://…", "runbook: %q is not a URL", d.Value)
			}
		case "quiet":
			var err error
			if r.Quiet, err = time.ParseDuration(d.Value); err != nil || r.Quiet < MinQuiet || r.Quiet > MaxQuiet || r.Quiet%time.Millisecond != 0 {
				b.fail(d.ValuePos, "write a duration from 1s to 24h, such as 90s or 5m", "quiet: %q is not a valid duration", d.Value)
			}
		case "decision":
			level, text, _ := strings.Cut(d.Value, " ")
			held, err := time.ParseDuration(strings.TrimSpace(text))
			r.Decision = Decision{level, held}
			switch {
			case !ruleName.MatchString(level) || err != nil || held < MinDecision || held > MaxDecision || held%time.Millisecond != 0:
				b.fail(d.ValuePos, "write a level and a duration from 1s to 744h, such as challenge 10m", "decision: %q is not a level and a duration", d.Value)
			case selected && len(r.Keys) == 0:
				b.fail(d.ValuePos, "add GROUP BY", "decision: the rule has no key that a decision could apply to")
			}
		case "mode":
			if r.Mode = Mode(d.Value); r.Mode != Live && r.Mode != Shadow && r.Mode != Off {
				b.fail(d.ValuePos, "write live, shadow or off", "mode: %q is not a valid mode", d.Value)
			}
		case "critical":
			e, errs := in.ParseExpr(d.Value, d.ValuePos)
			*b.errs = append(*b.errs, errs...)
			if e != nil {
				c.clause = "critical"
				r.critical = c.condition(e)
			}
		default:
			b.fail(d.Pos, "the directives are rule, summary, critical, mode, quiet, decision, param and runbook; a comment must not begin with a word and a colon", "unknown directive %s", d.Name)
		}
	}
}

var placeholder = regexp.MustCompile(`\{([^{}]*)\}`)

// template checks that a summary names columns of the SELECT list.
func (b *builder) template(r *Rule, d syntax.Directive) {
	var names []string
	for _, col := range r.Columns {
		names = append(names, col.Name)
	}
	for _, m := range placeholder.FindAllStringSubmatchIndex(d.Value, -1) {
		if name := d.Value[m[2]:m[3]]; !slices.Contains(names, name) {
			b.fail(d.ValuePos+syntax.Pos(m[0]), "the columns are "+strings.Join(names, ", "), "summary: {%s} is not a column of the SELECT list", name)
		}
	}
}
