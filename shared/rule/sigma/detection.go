package sigma

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"spate/shared/rule/syntax"
)

// sql is a condition as SQL. op is the operator that it is joined by; empty if it needs no parentheses.
type sql struct{ text, op string }

// clause is a condition that is written when the types of all fields are known.
type clause func() sql

func atom(f func() string) clause { return func() sql { return sql{f(), ""} } }

func both(list []clause) clause { return joined(list, "AND") }

func either(list []clause) clause { return joined(list, "OR") }

func joined(list []clause, op string) clause {
	if len(list) == 1 {
		return list[0]
	}
	return func() sql {
		var parts []string
		for _, c := range list {
			s := c()
			if s.op != "" && s.op != op {
				s.text = "(" + s.text + ")"
			}
			parts = append(parts, s.text)
		}
		return sql{strings.Join(parts, " "+op+" "), op}
	}
}

// not is true for what is false or unknown.
func not(c clause) clause {
	return func() sql { return sql{"(" + c().text + ") IS NOT TRUE", ""} }
}

// detection is the condition of a base rule.
func (c *converter) detection(n *yaml.Node) clause {
	if n.Kind != yaml.MappingNode {
		c.fail(n, "", "detection must be a mapping of selections and a condition")
		return nil
	}
	condition := member(n, "condition")
	if condition == nil {
		c.fail(n, "add condition: selection", "the detection has no condition")
		return nil
	}
	if t := member(n, "timeframe"); t != nil {
		c.fail(t, "write a correlation with timespan: "+text(t), "the old aggregation syntax is not supported")
	}
	s := selections{c: c, byName: map[string]clause{}, weights: map[string]int{}}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Value == "condition" || key.Value == "timeframe" {
			continue
		}
		if s.byName[key.Value] == nil {
			s.names = append(s.names, key.Value)
		}
		before := c.size
		s.byName[key.Value] = c.selection(n.Content[i+1])
		s.weights[key.Value] = c.size - before
	}
	var alternatives []clause
	for _, one := range list(condition) {
		if c.scalar(one) {
			alternatives = append(alternatives, s.condition(one))
		}
	}
	return either(alternatives)
}

// selection is a mapping of fields, a list of such mappings, or a list of keywords.
func (c *converter) selection(n *yaml.Node) clause {
	switch n.Kind {
	case yaml.MappingNode:
		var all []clause
		for i := 0; i+1 < len(n.Content); i += 2 {
			all = append(all, c.test(n.Content[i], n.Content[i+1]))
		}
		if len(all) == 0 {
			c.fail(n, "", "this selection is empty")
		}
		return both(all)
	case yaml.SequenceNode:
		var alternatives []clause
		for _, item := range n.Content {
			if item.Kind == yaml.MappingNode {
				alternatives = append(alternatives, c.selection(item))
			} else {
				alternatives = append(alternatives, c.keywords(item, nil))
			}
		}
		if len(alternatives) == 0 {
			c.fail(n, "", "this selection is empty")
		}
		return either(alternatives)
	}
	return c.keywords(n, nil)
}

// message is the column in which keywords are looked for.
const message = "message"

func (c *converter) keywords(n *yaml.Node, modifiers []string) clause {
	if !slices.ContainsFunc(modifiers, func(m string) bool { return slices.Contains(matchers, m) }) {
		modifiers = append([]string{"contains"}, modifiers...)
	}
	return c.values(n, message, modifiers, n)
}

// matchers are the modifiers that say how a value is compared.
var matchers = []string{"contains", "startswith", "endswith", "re", "cidr", "gt", "gte", "lt", "lte", "exists"}

// test is a field with modifiers, and its values.
func (c *converter) test(key, n *yaml.Node) clause {
	name, rest, _ := strings.Cut(key.Value, "|")
	var modifiers []string
	if rest != "" {
		modifiers = strings.Split(rest, "|")
	}
	if name == "" {
		return c.keywords(n, modifiers)
	}
	return c.values(key, name, modifiers, n)
}

// values are the tests of a field against one or more values.
func (c *converter) values(at *yaml.Node, name string, modifiers []string, n *yaml.Node) clause {
	t := test{c: c, field: c.use(at, name)}
	all := false
	for _, m := range modifiers {
		switch {
		case m == "all":
			all = true
		case m == "cased":
			t.cased = true
		case t.match == "re" && (m == "i" || m == "m" || m == "s"):
			t.flags += m
		case slices.Contains(matchers, m) && t.match == "":
			t.match = m
		case slices.Contains(matchers, m):
			c.fail(at, "", "the modifiers %s and %s are mutually exclusive", t.match, m)
		default:
			c.fail(at, "", "the modifier %s cannot be expressed in SQL", m)
		}
	}
	var clauses []clause
	if in := t.in(list(n)); in != nil && !all {
		clauses = []clause{in}
	} else {
		for _, v := range list(n) {
			if c.scalar(v) && c.grow(at, len(name)+len(v.Value)+20) {
				clauses = append(clauses, t.value(v))
			}
		}
	}
	if len(clauses) == 0 && len(c.errs) == 0 {
		c.fail(at, "", "%s has no values", name)
	}
	if all {
		return both(clauses)
	}
	return either(clauses)
}

// test is how a field is compared.
type test struct {
	c            *converter
	field        *field
	match, flags string
	cased        bool
}

// in is the test whether a field has one of several values; nil if it is none of equality.
func (t test) in(values []*yaml.Node) clause {
	if t.match != "" || len(values) < 2 {
		return nil
	}
	f := t.field
	var texts, numbers []string
	size := 0
	for _, v := range values {
		size += len(v.Value) + 4
		switch {
		case v.Kind != yaml.ScalarNode:
			return nil
		case v.Tag == "!!str":
			plain, wild := t.pattern(v.Value)
			if wild {
				return nil
			}
			texts = append(texts, quote(plain))
		case v.Tag == "!!int":
			numbers = append(numbers, v.Value)
		}
	}
	switch len(values) {
	case len(texts):
		f.text = true
	case len(numbers):
		f.number = true
		for i, v := range values {
			numbers[i] = t.c.number(v)
			texts = append(texts, quote(v.Value))
		}
	default:
		return nil
	}
	if !t.c.grow(values[0], size) {
		return nil
	}
	return atom(func() string {
		switch {
		case numbers == nil:
			return f.asText(t.cased) + " IN (" + strings.Join(texts, ", ") + ")"
		case f.typ == "STRING":
			return f.sql + " IN (" + strings.Join(texts, ", ") + ")"
		}
		return f.sql + " IN (" + strings.Join(numbers, ", ") + ")"
	})
}

// value is the test against one value.
func (t test) value(v *yaml.Node) clause {
	f := t.field
	write := func(format string, args ...any) clause {
		return atom(func() string { return fmt.Sprintf(format, args...) })
	}
	switch t.match {
	case "exists":
		var is bool
		if v.Decode(&is) != nil {
			t.c.fail(v, "write true or false", "exists: %q is neither true nor false", v.Value)
		}
		return write("%s IS %sNULL", f.sql, map[bool]string{true: "NOT "}[is])
	case "gt", "gte", "lt", "lte":
		number := t.c.number(v)
		f.number, f.fraction = true, f.fraction || strings.Contains(number, ".")
		return atom(func() string { return f.numeric() + " " + operators[t.match] + " " + number })
	case "re":
		pattern := v.Value
		if t.flags != "" {
			pattern = "(?" + t.flags + ")" + pattern
		}
		f.text = true
		return atom(func() string { return "REGEXP(" + f.asText(true) + ", " + quote(pattern) + ")" })
	case "cidr":
		f.text = true
		return t.cidr(v)
	}
	switch {
	case v.Tag == "!!null" && t.match == "":
		return write("%s IS NULL", f.sql)
	case (v.Tag == "!!int" || v.Tag == "!!float") && t.match == "":
		number := t.c.number(v)
		f.number, f.fraction = true, f.fraction || strings.Contains(number, ".")
		return atom(func() string {
			if f.typ == "STRING" {
				return f.sql + " = " + quote(v.Value)
			}
			return f.sql + " = " + number
		})
	}
	f.text = true
	pattern, wild := t.pattern(v.Value)
	return atom(func() string {
		if !wild {
			return f.asText(t.cased) + " = " + quote(pattern)
		}
		escape := ""
		if strings.Contains(pattern, "!") {
			escape = " ESCAPE '!'"
		}
		return f.asText(t.cased) + " LIKE " + quote(pattern) + escape
	})
}

// pattern turns a value of Sigma, in which * and ? are wildcards unless a backslash stands in front of them, into one of LIKE. Without a wildcard it
// is the text itself.
func (t test) pattern(value string) (pattern string, wild bool) {
	if !t.cased {
		value = strings.ToLower(value)
	}
	var like, plain strings.Builder
	literal := func(r rune) {
		plain.WriteRune(r)
		if strings.ContainsRune("%_!", r) {
			like.WriteByte('!')
		}
		like.WriteRune(r)
	}
	wildcard := func(b byte) {
		wild = true
		like.WriteByte(b)
	}
	if t.match == "contains" || t.match == "endswith" {
		wildcard('%')
	}
	escaped := false
	for _, r := range value {
		switch {
		case escaped:
			if !strings.ContainsRune(`*?\`, r) {
				literal('\\')
			}
			literal(r)
			escaped = false
		case r == '\\':
			escaped = true
		case r == '*':
			wildcard('%')
		case r == '?':
			wildcard('_')
		default:
			literal(r)
		}
	}
	if escaped {
		literal('\\')
	}
	if t.match == "contains" || t.match == "startswith" {
		wildcard('%')
	}
	if wild {
		return like.String(), true
	}
	return plain.String(), false
}

// cidr is a test whether an address is in a network. SQL compares its text.
func (t test) cidr(v *yaml.Node) clause {
	network, err := netip.ParsePrefix(v.Value)
	if err != nil || !network.Addr().Is4() {
		t.c.fail(v, "", "cidr: %q is not an IPv4 network, and other networks cannot be expressed in SQL", v.Value)
		return nil
	}
	bits := network.Bits()
	address := network.Masked().Addr().As4()
	whole := bits / 8 // octets that are given
	var prefix strings.Builder
	for _, o := range address[:whole] {
		fmt.Fprintf(&prefix, "%d.", o)
	}
	var alternatives []clause
	add := func(text string, last bool) {
		alternatives = append(alternatives, atom(func() string {
			if last {
				return t.field.asText(true) + " = " + quote(text)
			}
			return t.field.asText(true) + " LIKE " + quote(text+"%")
		}))
	}
	if bits%8 == 0 {
		add(strings.TrimSuffix(prefix.String(), map[bool]string{true: "."}[whole == 4]), whole == 4)
		return either(alternatives)
	}
	if !t.c.grow(v, 30<<(8-bits%8)) {
		return nil
	}
	for i := range 1 << (8 - bits%8) {
		octet := fmt.Sprintf("%s%d", prefix.String(), int(address[whole])+i)
		if whole == 3 {
			add(octet, true)
		} else {
			add(octet+".", false)
		}
	}
	return either(alternatives)
}

// quote writes a text as a string of SQL, in which ${ does not begin a parameter.
func quote(text string) string {
	if !strings.Contains(text, "${") {
		return syntax.Quote(text)
	}
	return "U&" + syntax.Quote(strings.NewReplacer(`\`, `\\`, "${", `\0024{`).Replace(text))
}

// selections are what a condition refers to.
type selections struct {
	c      *converter
	names  []string
	byName map[string]clause
	// weights are their sizes as SQL, about.
	weights map[string]int
}

// maxDepth bounds the parentheses of a condition.
const maxDepth = 50

// parser reads a condition.
type parser struct {
	selections
	at    *yaml.Node
	words []string
	depth int
	bad   bool
}

// condition reads "selection and not 1 of filter_*".
func (s selections) condition(n *yaml.Node) clause {
	p := parser{selections: s, at: n, words: strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ", "|", " | ").Replace(n.Value))}
	out := p.or()
	switch {
	case p.bad:
		return nil
	case p.peek() == "|":
		s.c.fail(n, "write a correlation", "the old aggregation syntax is not supported")
	case len(p.words) > 0:
		s.c.fail(n, "", "unexpected %s in the condition", p.words[0])
	}
	return out
}

func (p *parser) peek() string {
	if len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

func (p *parser) accept(words ...string) bool {
	for i, w := range words {
		if i >= len(p.words) || !strings.EqualFold(p.words[i], w) {
			return false
		}
	}
	p.words = p.words[len(words):]
	return true
}

func (p *parser) fail(fix, format string, args ...any) clause {
	if !p.bad {
		p.c.fail(p.at, fix, format, args...)
	}
	p.bad, p.words = true, nil
	return nil
}

func (p *parser) or() clause {
	list := []clause{p.and()}
	for p.accept("or") {
		list = append(list, p.and())
	}
	return either(list)
}

func (p *parser) and() clause {
	list := []clause{p.primary()}
	for p.accept("and") {
		list = append(list, p.primary())
	}
	return both(list)
}

func (p *parser) primary() clause {
	if p.depth++; p.depth > maxDepth {
		return p.fail("", "the condition is nested more than %d levels deep", maxDepth)
	}
	defer func() { p.depth-- }()
	switch word := p.peek(); {
	case p.accept("not"):
		return not(p.primary())
	case p.accept("("):
		inner := p.or()
		if !p.accept(")") {
			return p.fail("", "the condition lacks a closing parenthesis")
		}
		return inner
	case p.accept("1", "of"), p.accept("any", "of"):
		return either(p.of())
	case p.accept("all", "of"):
		return both(p.of())
	case len(p.words) > 1 && strings.EqualFold(p.words[1], "of"):
		return p.fail("write \"1 of\" or \"all of\"", "the quantifier \"%s of\" cannot be expressed in SQL", word)
	case word == "":
		return p.fail("", "the condition ends too early")
	case p.byName[word] == nil:
		return p.fail("the selections are "+strings.Join(p.names, ", "), "the detection has no selection %s", word)
	default:
		p.words = p.words[1:]
		return p.take(word)
	}
}

// of are the selections that "them" or a pattern stands for.
func (p *parser) of() (list []clause) {
	pattern := p.peek()
	if pattern == "" {
		p.fail("", "the condition ends too early")
		return nil
	}
	p.words = p.words[1:]
	for _, name := range p.names {
		matches := strings.EqualFold(pattern, "them") && !strings.HasPrefix(name, "_")
		if ok, err := path.Match(pattern, name); err == nil && ok {
			matches = true
		}
		if matches {
			list = append(list, p.take(name))
		}
	}
	if len(list) == 0 {
		p.fail("the selections are "+strings.Join(p.names, ", "), "no selection matches %s", pattern)
	}
	return list
}

func (p *parser) take(name string) clause {
	if !p.c.grow(p.at, p.weights[name]) {
		p.bad, p.words = true, nil
	}
	return p.byName[name]
}
