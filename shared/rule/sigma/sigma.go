// Package sigma writes Sigma's correlation rules (https://sigmahq.io) as rules in SQL.
//
// A correlation counts the events that base rules of the same file select: all of them (event_count), the distinct values of a field
// (value_count), or the values themselves (value_sum, value_avg). Anything that SQL over windows cannot express is refused by name: correlations of an order
// in time, correlations of correlations, base rules by themselves, and modifiers that decode values.
//
// Sigma leaves some decisions to its backends; these are the ones made here:
//
//   - A timespan slides. It becomes hopping windows of its length, six of which overlap if that is possible: everything found lies within one
//     timespan, as in Sigma, and only an attack that takes longer than a timespan minus the step can be missed. One burst can be in several windows
//     and raise as many alerts; with Options.Tumble it is in one or two, and a burst across their border is counted in two parts.
//   - Text is compared without regard to case, except by re and cased; * and ? are wildcards.
//   - A field that an event does not have is NULL. NOT is written as IS NOT TRUE, so an event without the fields of a filter passes it; an
//     event without a field of group-by is not counted.
//   - Keywords are searched for in the column message.
//   - If the built-in table does not have all fields, the file gets a CREATE TABLE with them: numbers if they are only compared with numbers,
//     text otherwise, and a ROW for fields with dots.
package sigma

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"spate/shared/rule"
	"spate/shared/rule/syntax"
)

// Options are what Sigma does not say.
type Options struct {
	// Name is that of a rule without title and name.
	Name string
	// TimeColumn is the column with the event time, of a table that the file must declare.
	TimeColumn string
	// Tumble writes tumbling windows instead of hopping ones.
	Tumble bool
}

// converter converts one file.
type converter struct {
	Options
	source string
	lines  []int // the offset of each
	errs   syntax.Errors
	bases  []*document
	names  map[string]*document // name, id and title of all rules
	used   map[*document]bool
	fields map[string]*field
	size   int // of the SQL, about
}

// document is a rule of the file.
type document struct {
	node                    *yaml.Node
	detection, correlations *yaml.Node
	condition               clause // of the detection, once it was read
	weight                  int    // its size as SQL, about
}

// Convert writes the correlations of a file as a rules file. Errors are places in source.
func Convert(source string, o Options) (string, syntax.Errors) {
	c := &converter{Options: o, source: source, names: map[string]*document{}, used: map[*document]bool{}, fields: map[string]*field{}, lines: []int{0}}
	for i := range len(source) {
		if source[i] == '\n' {
			c.lines = append(c.lines, i+1)
		}
	}
	if len(source) > syntax.MaxScript {
		c.errs.Add(0, "", "the file is %d bytes long; the maximum is %d", len(source), syntax.MaxScript)
		return "", c.errs
	}
	var rules []*correlation
	names := map[string]bool{}
	for _, d := range c.documents() {
		if d.correlations != nil {
			rules = append(rules, c.correlation(d, names))
		}
	}
	if len(rules) == 0 && len(c.errs) == 0 {
		c.errs.Add(0, "add a document with correlation:", "the file has no correlation, but a rule must count events in windows")
	}
	for _, b := range c.bases {
		if !c.used[b] && len(rules) > 0 {
			c.fail(b.node, "remove it, or name it under rules: in a correlation", "no correlation uses this rule, and a rule without a correlation cannot be expressed in SQL")
		}
	}
	if len(c.errs) > 0 {
		c.errs.Sort()
		return "", c.errs
	}
	table, create := c.table()
	if len(c.errs) > 0 {
		return "", c.errs
	}
	var b strings.Builder
	b.WriteString(create)
	for _, r := range rules {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		c.write(&b, r, table)
	}
	return b.String(), nil
}

// maxErrors bounds the errors that are reported: to find the place of one takes time in proportion to its line.
const maxErrors = 200

// fail adds an error at a node.
func (c *converter) fail(at *yaml.Node, fix, format string, args ...any) {
	if len(c.errs) == maxErrors {
		return
	}
	pos := len(c.source)
	if line := at.Line - 1; line >= 0 && line < len(c.lines) {
		pos = c.lines[line]
		for range at.Column - 1 { // columns count characters
			if pos >= len(c.source) || c.source[pos] == '\n' {
				break
			}
			pos++
			for pos < len(c.source) && c.source[pos]&0xc0 == 0x80 {
				pos++
			}
		}
	}
	c.errs.Add(syntax.Pos(pos), fix, format, args...)
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// documents reads the file, and remembers the base rules.
func (c *converter) documents() (list []*document) {
	d := yaml.NewDecoder(strings.NewReader(c.source))
	for {
		var n yaml.Node
		err := d.Decode(&n)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			at := &yaml.Node{Line: 1, Column: 1}
			text := err.Error()
			if m := yamlLine.FindStringSubmatch(text); m != nil {
				at.Line, _ = strconv.Atoi(m[1])
				text = text[len(m[0]):]
			}
			c.fail(at, "", "this is not valid YAML: %s", text)
			return nil
		}
		if len(n.Content) == 0 || n.Content[0].Tag == "!!null" {
			continue
		}
		doc := &document{node: n.Content[0]}
		if doc.node.Kind != yaml.MappingNode {
			c.fail(doc.node, "", "a Sigma rule must be a mapping: title, correlation, detection")
			continue
		}
		doc.detection, doc.correlations = member(doc.node, "detection"), member(doc.node, "correlation")
		switch {
		case doc.detection == nil && doc.correlations == nil:
			c.fail(doc.node, "", "this is not a Sigma rule: it has neither detection nor correlation")
			continue
		case doc.correlations == nil:
			c.bases = append(c.bases, doc)
		}
		for _, name := range []string{"name", "id", "title"} {
			if v := member(doc.node, name); v != nil && v.Kind == yaml.ScalarNode {
				c.names[v.Value] = doc
			}
		}
		list = append(list, doc)
	}
}

// member is the value of a mapping's key, or nil.
func member(m *yaml.Node, key string) *yaml.Node {
	if m == nil || m.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

// correlation is a rule to be written.
type correlation struct {
	name, title, level string
	where              clause
	group              []string
	span               time.Duration
	aggregate          func() string
	alias              string
	having             []string // operator and number
}

// aggregates are the types of correlations, and how their result is called.
var aggregates = map[string]string{"event_count": "events", "value_count": "distinct_values", "value_sum": "total", "value_avg": "average"}

var operators = map[string]string{"gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "eq": "=", "neq": "<>"}

func (c *converter) correlation(d *document, taken map[string]bool) *correlation {
	r := &correlation{title: text(member(d.node, "title")), level: text(member(d.node, "level"))}
	r.name = c.ruleName(text(member(d.node, "name")), r.title, taken)
	m := d.correlations
	if m.Kind != yaml.MappingNode {
		c.fail(m, "", "correlation must be a mapping: type, rules, group-by, timespan, condition")
		return r
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		switch key := m.Content[i]; key.Value {
		case "type", "rules", "group-by", "timespan", "condition":
		case "generate":
			if m.Content[i+1].Value == "true" {
				c.fail(key, "leave it out", "generate: the alerts of the base rules themselves cannot be expressed in SQL")
			}
		case "aliases":
			c.fail(key, "use the same name for the field everywhere", "aliases cannot be expressed in SQL: a field can have only one name in a table")
		default:
			c.fail(key, "", "%s is not a known part of a correlation", key.Value)
		}
	}
	kind := member(m, "type")
	if kind == nil {
		c.fail(m, "add type: event_count", "the correlation has no type")
		return r
	}
	if r.alias = aggregates[kind.Value]; r.alias == "" {
		c.fail(kind, "the types are event_count, value_count, value_sum and value_avg", "a correlation of type %s cannot be expressed in SQL over windows", kind.Value)
	}
	r.where = c.selected(m)
	for _, g := range list(member(m, "group-by")) {
		if c.scalar(g) && !slices.Contains(r.group, g.Value) {
			c.use(g, g.Value)
			r.group = append(r.group, g.Value)
		}
	}
	c.timespan(r, m)
	c.threshold(r, m, kind)
	return r
}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// ruleName makes a name that no other rule has.
func (c *converter) ruleName(name, title string, taken map[string]bool) string {
	base := c.Name
	for _, s := range []string{name, title} {
		if s = strings.TrimLeft(strings.Trim(notInName.ReplaceAllString(strings.ToLower(s), "-"), "-"), "0123456789-"); s != "" {
			base = s
			break
		}
	}
	base = strings.TrimRight(base[:min(len(base), 50)], "-")
	next := base
	for n := 2; taken[next]; n++ {
		next = base + "-" + strconv.Itoa(n)
	}
	taken[next] = true
	return next
}

// selected is the condition of the base rules: any of them.
func (c *converter) selected(m *yaml.Node) clause {
	refs := list(member(m, "rules"))
	if len(refs) == 0 {
		c.fail(m, "name the base rules, which are documents in the same file", "the correlation has no rules")
	}
	var alternatives []clause
	for _, ref := range refs {
		if !c.scalar(ref) {
			continue
		}
		base := c.names[ref.Value]
		switch {
		case base == nil:
			c.fail(ref, "put it in the same file, after a --- line", "the file has no rule %s", ref.Value)
			continue
		case base.correlations != nil:
			c.fail(ref, "name base rules", "a correlation of correlations, such as %s, cannot be expressed in SQL", ref.Value)
			continue
		}
		if !c.used[base] {
			before := c.size
			base.condition = c.detection(base.detection)
			base.weight = c.size - before
			c.used[base] = true
		} else {
			c.grow(ref, base.weight)
		}
		alternatives = append(alternatives, base.condition)
	}
	return either(alternatives)
}

// grow counts what is written, and reports whether it is not too much.
func (c *converter) grow(at *yaml.Node, by int) bool {
	if c.size += by; c.size > syntax.MaxScript {
		c.fail(at, "", "the rules would be more than %d bytes of SQL", syntax.MaxScript)
		return false
	}
	return true
}

var timespan = regexp.MustCompile(`^([0-9]{1,5})([smhd])$`)

func (c *converter) timespan(r *correlation, m *yaml.Node) {
	n := member(m, "timespan")
	if n == nil {
		c.fail(m, "add timespan: 5m", "the correlation has no timespan")
		return
	}
	parts := timespan.FindStringSubmatch(n.Value)
	if parts == nil || n.Kind != yaml.ScalarNode {
		c.fail(n, "write, for example, 30s, 5m or 1h", "%q is not a timespan", n.Value)
		return
	}
	count, _ := strconv.Atoi(parts[1])
	r.span = time.Duration(count) * map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[parts[2]]
	if r.span < time.Second || r.span > rule.MaxWindowMS*time.Millisecond {
		c.fail(n, "", "a window must be between 1 s and 1 h long, but this timespan is %s", n.Value)
	}
}

// threshold reads the condition of a correlation.
func (c *converter) threshold(r *correlation, m, kind *yaml.Node) {
	n := member(m, "condition")
	if n == nil || n.Kind != yaml.MappingNode {
		at := m
		if n != nil {
			at = n
		}
		c.fail(at, "add condition:, and below it, for example, gte: 10", "the correlation has no condition")
		return
	}
	var value *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, v := n.Content[i], n.Content[i+1]
		switch op := operators[key.Value]; {
		case key.Value == "field":
			value = v
		case op == "":
			c.fail(key, "write gt, gte, lt, lte or eq", "unknown condition %s", key.Value)
		default:
			if number := c.number(v); number != "" {
				r.having = append(r.having, op+" "+number)
			}
		}
	}
	if len(r.having) == 0 {
		c.fail(n, "add gte: 10", "the condition has no comparison")
	}
	counts := kind.Value == "event_count"
	switch {
	case counts && value != nil:
		c.fail(value, "write type: value_count", "event_count counts events, so it takes no field")
	case !counts && (value == nil || !c.scalar(value)):
		c.fail(n, "add field: to the condition", "%s needs a field", kind.Value)
	case counts:
		r.aggregate = func() string { return "COUNT(*)" }
	default:
		f := c.use(value, value.Value)
		if kind.Value == "value_count" {
			r.aggregate = func() string { return "COUNT(DISTINCT " + f.sql + ")" }
			return
		}
		f.number, f.fraction = true, true
		function := map[string]string{"value_sum": "SUM", "value_avg": "AVG"}[kind.Value]
		r.aggregate = func() string { return function + "(" + f.numeric() + ")" }
	}
}

// list is the items of a list; of a scalar, the scalar.
func list(n *yaml.Node) []*yaml.Node {
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.SequenceNode:
		return n.Content
	}
	return []*yaml.Node{n}
}

// scalar reports whether a node is a value, and adds an error if not.
func (c *converter) scalar(n *yaml.Node) bool {
	switch n.Kind {
	case yaml.ScalarNode:
		return true
	case yaml.AliasNode:
		c.fail(n, "write the value itself", "YAML aliases are not supported")
	default:
		c.fail(n, "", "a value is expected here, not a list or mapping")
	}
	return false
}

// number is a numeric constant as SQL; empty after an error.
func (c *converter) number(n *yaml.Node) string {
	if !c.scalar(n) {
		return ""
	}
	var i int64
	var f float64
	switch {
	case n.Tag == "!!int" && n.Decode(&i) == nil:
		return strconv.FormatInt(i, 10)
	case n.Tag == "!!float" && n.Decode(&f) == nil && f-f == 0:
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	c.fail(n, "", "%q is not a number", n.Value)
	return ""
}

// text is a value on one line.
func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return strings.Join(strings.Fields(n.Value), " ")
}

// write writes a rule.
func (c *converter) write(b *strings.Builder, r *correlation, table string) {
	var columns, keys []string
	where := []clause{r.where}
	var shown []string
	for _, name := range r.group {
		f := c.fields[name]
		keys = append(keys, f.sql)
		alias := f.alias(r.alias)
		item := f.sql
		if f.path[len(f.path)-1] != alias {
			item += " AS " + syntax.Name{Text: alias}.SQL()
		}
		columns = append(columns, item)
		shown = append(shown, "{"+alias+"}")
		where = append(where, atom(func() string { return f.sql + " IS NOT NULL" }))
	}
	if r.title != "" {
		b.WriteString("-- From Sigma: " + r.title + "\n")
	}
	if r.level != "" {
		b.WriteString("-- Level in Sigma: " + r.level + "\n")
	}
	b.WriteString("-- rule: " + r.name + "\n")
	summary := strings.Join(append(shown, "{"+r.alias+"} "+strings.ReplaceAll(r.alias, "_", " ")+" in "+spanText(r.span)), ", ")
	if title := strings.NewReplacer("{", "(", "}", ")").Replace(r.title); title != "" {
		summary += ": " + title
	}
	b.WriteString("-- summary: " + summary + "\n")
	columns = append(columns, r.aggregate()+" AS "+r.alias)
	at := syntax.Name{Text: c.timeColumn(table)}.SQL()
	window := "TUMBLE(" + at + ", " + interval(r.span) + ")"
	if step := c.step(r.span); step < r.span {
		window = "HOP(" + at + ", " + interval(step) + ", " + interval(r.span) + ")"
	}
	var having []string
	for _, h := range r.having {
		having = append(having, r.aggregate()+" "+h)
	}
	fmt.Fprintf(b, "INSERT INTO alerts\nSELECT %s\nFROM %s\nWHERE %s\nGROUP BY %s\nHAVING %s;\n",
		strings.Join(columns, ", "), table, both(where)().text, strings.Join(append([]string{window}, keys...), ", "), strings.Join(having, " AND "))
}

// step is how far apart windows begin: a sixth of their length, or the largest smaller part of whole seconds.
func (c *converter) step(span time.Duration) time.Duration {
	for n := time.Duration(6); n > 1 && !c.Tumble; n-- {
		if span%(n*time.Second) == 0 {
			return span / n
		}
	}
	return span
}

// interval is a duration in the largest unit that has no fraction.
func interval(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{time.Hour, "HOUR"}, {time.Minute, "MINUTE"}} {
		if d%u.unit == 0 {
			return fmt.Sprintf("INTERVAL '%d' %s", d/u.unit, u.name)
		}
	}
	n := strconv.FormatInt(int64(d/time.Second), 10)
	if len(n) > 2 {
		return fmt.Sprintf("INTERVAL '%s' SECOND(%d)", n, len(n))
	}
	return "INTERVAL '" + n + "' SECOND"
}

// spanText is a duration for people.
func spanText(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}
