package cases

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"spate/shared/activity"
	"spate/shared/rule"
	"spate/shared/rule/syntax"
	"spate/shared/window"
)

// loader reads a file of cases.
type loader struct {
	file     *File
	ruleName func(string) string
	own      Source
	others   []Source
	texts    map[string]string // of the files that were read
}

// fail adds an error at a node.
func (l *loader) fail(at *yaml.Node, fix, format string, args ...any) {
	l.own.Errors.Add(l.pos(at), fix, format, args...)
}

// pos is the place of a node.
func (l *loader) pos(at *yaml.Node) syntax.Pos {
	rest := l.own.Text
	for range at.Line - 1 {
		_, rest, _ = strings.Cut(rest, "\n")
	}
	from, column := len(l.own.Text)-len(rest), 1
	for i := range rest { // columns count characters
		if column == at.Column {
			return syntax.Pos(from + i)
		}
		column++
	}
	return syntax.Pos(len(l.own.Text))
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

func (l *loader) load() {
	root := &yaml.Node{Line: 1, Column: 1}
	d := yaml.NewDecoder(strings.NewReader(l.own.Text))
	var doc, second yaml.Node
	err := d.Decode(&doc)
	if err == nil {
		if err = d.Decode(&second); err == nil {
			l.fail(&second, "put the cases of one rules file into one document", "the file has more than one document")
			return
		}
	}
	switch {
	case !errors.Is(err, io.EOF):
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			root.Line, _ = strconv.Atoi(m[1])
			text = text[len(m[0]):]
		}
		l.fail(root, "", "this is not valid YAML: %s", text)
		return
	case len(doc.Content) > 0:
		root = resolve(doc.Content[0])
	}
	top := l.mapping(root, "a case file", "rules", "cases")
	if len(l.own.Errors) > 0 {
		return
	}
	rules := strings.TrimSuffix(strings.TrimSuffix(l.file.Name, filepath.Ext(l.file.Name)), "_test") + ".sql"
	at := root
	if n := top["rules"]; n != nil {
		at = n
		rules = l.beside(l.text(n))
	}
	sql, ok := l.read(at, rules, syntax.MaxScript, "name the rules file with rules: FILE")
	if !ok {
		return
	}
	list := l.list(top["cases"], "cases")
	if len(list) == 0 && len(l.own.Errors) == 0 {
		l.fail(root, "write cases: and a list of cases", "the file has no cases")
	}
	lines := map[string]int{}
	for _, n := range list {
		c := l.newCase(n, rules, sql)
		if first, twice := lines[c.Name]; twice && c.Name != "" {
			l.fail(n, "", "the case on line %d has the same name", first)
		}
		lines[c.Name] = c.Line
		l.file.Cases = append(l.file.Cases, c)
	}
}

// beside is the path of a file that the cases name.
func (l *loader) beside(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(l.file.Name), path)
}

// read reads a file that the cases name, once.
func (l *loader) read(at *yaml.Node, path string, limit int64, fix string) (string, bool) {
	if text, ok := l.texts[path]; ok {
		return text, true
	}
	text, err := read(path, limit)
	if err != nil {
		l.fail(at, fix, "read %s: %v", path, reason(err))
		return "", false
	}
	l.texts[path] = text
	return text, true
}

func (l *loader) newCase(n *yaml.Node, rules, sql string) *Case {
	c := &Case{Line: n.Line, Rules: rules, partitions: 1, expect: map[string]*expectation{}}
	m := l.mapping(n, "a case", "name", "set", "partitions", "events", "file", "csv", "expect", "others")
	if m == nil {
		return c
	}
	if c.Name = l.text(m["name"]); c.Name == "" || strings.ContainsFunc(c.Name, func(r rune) bool { return r < ' ' }) {
		l.fail(n, "", "a case needs a one-line name")
	}
	if p := m["partitions"]; p != nil {
		c.partitions = l.number(p, "partitions", 1, maxPartitions)
	}
	switch others := l.text(m["others"]); others {
	case "":
	case "ignore":
		c.ignore = true
	default:
		l.fail(m["others"], "write others: ignore, or leave others out if other rules must not raise alerts", "the value of others cannot be %q", others)
	}
	if !l.compile(c, n, m["set"], sql) {
		return c
	}
	given := 0
	for _, name := range []string{"events", "file", "csv"} {
		if m[name] != nil {
			given++
		}
	}
	if given != 1 {
		l.fail(n, "", "a case needs exactly one of events, file and csv")
		return c
	}
	l.events(c, m)
	if m["expect"] == nil && !c.ignore {
		l.fail(n, "write expect: {} if no rule may raise an alert", "expect is missing from the case")
	}
	l.expect(c, m["expect"])
	return c
}

// compile compiles the rules with the parameters of a case.
func (l *loader) compile(c *Case, n, set *yaml.Node, sql string) bool {
	params, nodes := map[string]string{}, map[string]*yaml.Node{}
	if set != nil {
		nodes = l.mapping(set, "set")
		for name, v := range nodes {
			params[name] = l.text(v)
		}
	}
	compiled, errs := rule.Compile(sql, rule.Options{Name: l.ruleName(c.Rules), Set: params, Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		if !slices.ContainsFunc(l.others, func(s Source) bool { return s.Name == c.Rules }) {
			l.others = append(l.others, Source{c.Rules, sql, errs})
		}
		return false
	}
	var known []string
	for _, r := range compiled.Rules {
		for _, p := range r.Params {
			known = append(known, r.Name+"."+p.Name)
		}
	}
	for name, v := range nodes {
		if !slices.Contains(known, name) {
			l.fail(v, oneOf("parameters", known), "%s has no parameter %s", c.Rules, name)
		}
	}
	lateness, _, err := compiled.Stream()
	if err == nil {
		if lateness < 0 {
			lateness = DefaultLateness
		}
		c.stream, err = window.NewStream(compiled.Plan(), lateness)
	}
	if err != nil {
		l.fail(n, "", "%s: %v", c.Rules, err)
		return false
	}
	c.set = compiled
	return true
}

// expect reads the rows that rules must have.
func (l *loader) expect(c *Case, n *yaml.Node) {
	if n == nil {
		return
	}
	var names []string
	for _, r := range c.stream.Plan.Rules {
		names = append(names, r.Name)
	}
	for name, list := range l.mapping(n, "expect", names...) {
		i := slices.Index(names, name)
		if i < 0 { // no rule is evaluated
			l.fail(list, "", "%s has no rule %s, or its mode is off", c.Rules, name)
			continue
		}
		e := &expectation{line: list.Line}
		for _, row := range l.list(list, "the alerts from a rule") {
			e.rows = append(e.rows, l.row(c.stream.Plan.Rules[i], row))
		}
		c.expect[name] = e
	}
}

func (l *loader) row(r *rule.Rule, n *yaml.Node) want {
	w := want{line: n.Line, least: 1}
	known := members(r)
	names := make([]string, len(known))
	for i, m := range known {
		names[i] = m.Name
	}
	counted := !slices.Contains(names, windowsMember)
	if counted {
		names = append(names, windowsMember)
	}
	values := l.mapping(n, "an alert from rule "+r.Name, names...)
	if v := values[windowsMember]; v != nil && counted {
		if w.windows = tokenOf(v); v.Value == "any" {
			w.any = true
		} else {
			w.least = l.number(v, "a windows value other than any", 1, maxWindows)
		}
	}
	for _, m := range known {
		v, ok := values[m.Name]
		if !ok {
			continue
		}
		value, err := expected(m.Type, v)
		if err != nil {
			l.fail(v, "", "%s: %v", m.Name, err)
		}
		w.Row, w.types = append(w.Row, Member{m.Name, value}), append(w.types, m.Type)
	}
	return w
}

var wholeNumber = regexp.MustCompile(`^[+-]?[0-9]+$`)

// expected is a value as an alert has it.
func expected(t rule.Type, n *yaml.Node) (json.RawMessage, error) {
	token := tokenOf(n)
	if activity.Absent(token) {
		return json.RawMessage("null"), nil
	}
	var v rule.Value
	switch text := strings.TrimSuffix(n.Value, "Z"); {
	case n.Kind != yaml.ScalarNode, t.Kind == rule.Boolean && n.ShortTag() != "!!bool":
	case t.Kind == rule.Token:
		user, reason := activity.CanonicalUser(token)
		if reason == activity.ReasonNone {
			v = rule.TokenValue(user)
		}
	case t.Kind >= rule.TinyInt && t.Kind <= rule.BigInt && !wholeNumber.MatchString(n.Value):
	case t.Kind == rule.Timestamp:
		v, _ = rule.Parse(t, []byte(text))
	case (t.Kind == rule.Double || t.Kind == rule.Float) && slices.Contains([]string{"NaN", "Infinity", "-Infinity"}, n.Value): // no event has them, but a quotient can
		f, _ := strconv.ParseFloat(n.Value, 64)
		v = rule.DoubleValue(f)
	default:
		v, _ = rule.FromJSON(t, token, nil)
	}
	if v.IsNull() {
		t.NotNull = false // which says nothing about a value
		return nil, fmt.Errorf("%q is not of type %s", n.Value, t)
	}
	return v.JSON(t), nil
}

var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// tokenOf is a YAML value as JSON; nil if it cannot be written so.
func tokenOf(n *yaml.Node) []byte {
	n = resolve(n)
	if n.Kind != yaml.ScalarNode {
		var v any
		if n.Decode(&v) != nil {
			return nil
		}
		b, err := json.Marshal(v)
		if err != nil {
			return nil
		}
		return b
	}
	switch tag := n.ShortTag(); {
	case tag == "!!null":
		return []byte("null")
	case tag == "!!bool":
		return []byte(strings.ToLower(n.Value))
	case (tag == "!!int" || tag == "!!float") && jsonNumber.MatchString(n.Value):
		return []byte(n.Value)
	}
	return activity.AppendString(nil, n.Value)
}

func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// oneOf is a fix: the names that there are.
func oneOf(what string, names []string) string {
	if len(names) == 0 {
		return "there are no " + what
	}
	return "the " + what + " are " + strings.Join(names, ", ")
}

// mapping returns the members of a mapping; if any are known, there must be no others.
func (l *loader) mapping(n *yaml.Node, what string, known ...string) map[string]*yaml.Node {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		l.fail(n, "", "%s must be a mapping", what)
		return nil
	}
	out := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := resolve(n.Content[i])
		switch _, twice := out[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			l.fail(key, "", "a name must be text")
		case twice:
			l.fail(key, "", "%s appears twice", key.Value)
		case len(known) > 0 && !slices.Contains(known, key.Value):
			l.fail(key, oneOf("members", known), "%s has no member %s", what, key.Value)
		default:
			out[key.Value] = resolve(n.Content[i+1])
		}
	}
	return out
}

func (l *loader) list(n *yaml.Node, what string) []*yaml.Node {
	switch {
	case n == nil:
		return nil
	case n.Kind != yaml.SequenceNode:
		l.fail(n, "", "%s must be a list", what)
		return nil
	}
	out := make([]*yaml.Node, len(n.Content))
	for i, e := range n.Content {
		out[i] = resolve(e)
	}
	return out
}

// text is a scalar; empty if there are no members.
func (l *loader) text(n *yaml.Node) string {
	switch {
	case n == nil:
		return ""
	case n.Kind != yaml.ScalarNode:
		l.fail(n, "", "this must be text or a number")
		return ""
	}
	return n.Value
}

// number is a whole number within bounds; the lower one if it is none.
func (l *loader) number(n *yaml.Node, what string, low, high int) int {
	v, err := strconv.Atoi(l.text(n))
	if err != nil || v < low || v > high {
		l.fail(n, "", "%s must be a whole number between %d and %d", what, low, high)
		return low
	}
	return v
}
