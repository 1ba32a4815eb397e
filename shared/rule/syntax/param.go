package syntax

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// Parameters are text that a script names once and uses as ${name}: `-- param: products = 30`. A value from outside takes its place
// (`--set rule.name=value`). A value is a number or a string; within a string, ${name} stands for the value's text.

const (
	// maxParams bounds the parameters of a statement.
	maxParams = 100
	// maxParamName bounds ${name}.
	maxParamName = 100
)

var (
	paramName  = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
	paramValue = regexp.MustCompile(`^(-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?|'([^']|'')*')$`)
)

// Param is a parameter of a statement.
type Param struct {
	Name, Value string // as SQL, with the value from outside in place
	Pos         Pos    // of the declaration
	// Used reports whether the statement, or an expression read by [Insert.ParseExpr], has the parameter in it.
	Used bool
}

// params are the parameters that directives declare.
func (l *lexer) params(directives []Directive) []Param {
	var params []Param
	rule := ""
	for _, d := range directives {
		if d.Name == "rule" {
			rule = d.Value
		}
	}
	for _, d := range directives {
		if d.Name != "param" {
			continue
		}
		name, value, found := strings.Cut(d.Value, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if set, ok := l.set[rule+"."+name]; ok && found {
			if value = set; !paramValue.MatchString(value) {
				value = "'" + strings.ReplaceAll(set, "'", "''") + "'"
			}
		}
		twice := slices.ContainsFunc(params, func(p Param) bool { return p.Name == name })
		switch {
		case !found || !paramName.MatchString(name):
			l.errs.Add(d.ValuePos, "write -- param: products = 30", "param: %q is not name = value", d.Value)
		case !paramValue.MatchString(value):
			l.errs.Add(d.ValuePos, "write a number, or a string in single quotes", "param %s: %q is neither a number nor a string", name, value)
		case twice:
			l.errs.Add(d.ValuePos, "", "param %s is declared twice", name)
		case len(params) == maxParams:
			l.errs.Add(d.ValuePos, "", "a statement can have at most %d parameters", maxParams)
			return params
		default:
			params = append(params, Param{Name: name, Value: value, Pos: d.ValuePos})
		}
	}
	return params
}

// lookup returns the value of a parameter of the statement; empty if it has none of that name.
func (l *lexer) lookup(at Pos, name string) string {
	params := l.statements[len(l.statements)-1].params
	i := slices.IndexFunc(params, func(p Param) bool { return p.Name == name })
	if i < 0 {
		l.errs.Add(at, "declare it before the statement: -- param: "+name+" = 30", "unknown parameter ${%s}", name)
		return ""
	}
	params[i].Used = true
	return params[i].Value
}

// param replaces ${name} by the tokens of its value.
func (l *lexer) param() {
	rest := l.source[l.at:]
	end := strings.IndexByte(rest[:min(len(rest), maxParamName)], '}')
	if end < 0 {
		l.errs.Add(Pos(l.at), "", "${ must be followed by a name and }")
		l.at += 2
		return
	}
	if !l.within {
		l.begin()
	}
	at, to := l.at, l.at+end+1
	value := l.lookup(Pos(at), rest[2:end])
	switch {
	case strings.HasPrefix(value, "'"):
		l.push(String, unquote(value), to)
	case strings.HasPrefix(value, "-"):
		l.push(Symbol, "-", at)
		l.push(Number, value[1:], to)
	default: // 1 stands for what is not declared, so that nothing else is wrong
		l.push(Number, cmp.Or(value, "1"), to)
	}
}

func unquote(value string) string {
	return strings.ReplaceAll(value[1:len(value)-1], "''", "'")
}

// insert replaces each ${name} in a string by the text of its value.
func (l *lexer) insert(at Pos, text string) string {
	if !strings.Contains(text, "${") {
		return text
	}
	if !l.within {
		l.begin()
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "${")
		b.WriteString(before)
		name, rest, closed := strings.Cut(after, "}")
		if !found || !closed {
			if found {
				b.WriteString("${" + after)
			}
			return b.String()
		}
		value := l.lookup(at, name)
		if strings.HasPrefix(value, "'") {
			value = unquote(value)
		}
		if l.inserted += len(value); l.inserted > MaxScript {
			l.errs.Add(at, "", "parameters make the script longer than %d bytes", MaxScript)
			return b.String()
		}
		b.WriteString(value)
		text = rest
	}
}
