package verifier

import (
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// token is a word of a rules file.
type token struct {
	kind tokenKind
	text string // without its quotes
}

type tokenKind uint8

const (
	end    tokenKind = iota
	word             // a keyword or a name
	quoted           // a name in backticks
	text             // a string
	number           // without a sign
	symbol           // anything else
)

// statement is what lies between two semicolons, with the directives in front of it.
type statement struct {
	directives [][2]string // name and value
	tokens     []token
}

// directive returns the value of a directive, empty if there is none.
func (s statement) directive(name string) string {
	for _, d := range s.directives {
		if d[0] == name {
			return d[1]
		}
	}
	return ""
}

// refusal is why a rule cannot be verified. The translator panics with one, and translate recovers it.
type refusal struct{ error }

func refuse(format string, args ...any) { panic(refusal{fmt.Errorf(format, args...)}) }

// maxScript bounds a rules file, and the translation of an expression.
const maxScript = 1 << 20

var (
	tokenPattern = regexp.MustCompile("^(?s:" +
		`(\s+|--[^\n]*|/\*.*?\*/)` + // 1: nothing
		"|`((?:[^`]|``)+)`" + // 2: a quoted name
		`|([Uu]&)?'((?:[^']|'')*)'` + // 3, 4: a string
		`|((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)` + // 5: a number
		`|([\pL_][\pL\pN_$]*)` + // 6: a word
		`|\$\{([a-z0-9_]+)\}` + // 7: a parameter
		`|(<>|<=|>=|\|\||=>|[-+*/%(),.=<>\[\];:])` + // 8: a symbol
		")")
	directivePattern = regexp.MustCompile(`^--\s*([a-z]+):(?:\s+(.*?))?\s*$`)
	unicodePattern   = regexp.MustCompile(`\\(?:\\|\+([0-9A-Fa-f]{6})|([0-9A-Fa-f]{4}))`)
	paramPattern     = regexp.MustCompile(`\$\{([a-z0-9_]+)\}`)
)

// statements splits a rules file. set has values of parameters, by "rule.parameter".
func statements(source string, set map[string]string) (list []statement, err error) {
	if len(source) > maxScript {
		return nil, fmt.Errorf("the rules file is larger than %d bytes", maxScript)
	}
	source = strings.TrimPrefix(source, "\ufeff")
	var s statement
	var comments []string // those of the lines in front of here, without a gap
	for rest := source; rest != ""; {
		m := tokenPattern.FindStringSubmatch(rest)
		if m == nil {
			return nil, fmt.Errorf("line %d: cannot read %q", 1+strings.Count(source[:len(source)-len(rest)], "\n"), firstRune(rest))
		}
		rest = rest[len(m[0]):]
		if m[1] != "" {
			switch {
			case strings.HasPrefix(m[1], "--"):
				comments = append(comments, strings.TrimRight(m[1], "\r"))
			case strings.Count(m[1], "\n") > 1:
				comments = nil
			}
			continue
		}
		if m[8] == ";" {
			if s.tokens != nil {
				list = append(list, s)
			}
			s, comments = statement{}, nil
			continue
		}
		if s.tokens == nil {
			for _, c := range comments {
				if d := directivePattern.FindStringSubmatch(c); d != nil {
					s.directives = append(s.directives, [2]string{d[1], d[2]})
				}
			}
		}
		t, err := tokensOf(m, s, set)
		if err != nil {
			return nil, err
		}
		s.tokens = append(s.tokens, t...)
	}
	if s.tokens != nil {
		list = append(list, s)
	}
	return list, nil
}

func firstRune(s string) string {
	_, size := utf8.DecodeRuneInString(s)
	return s[:size]
}

// lex splits a text that belongs to a statement into tokens.
func (s statement) lex(source string, set map[string]string) (list []token, err error) {
	for source != "" {
		m := tokenPattern.FindStringSubmatch(source)
		if m == nil {
			return nil, fmt.Errorf("cannot read %q", firstRune(source))
		}
		source = source[len(m[0]):]
		if m[1] != "" {
			continue
		}
		t, err := tokensOf(m, s, set)
		if err != nil {
			return nil, err
		}
		list = append(list, t...)
	}
	return list, nil
}

// tokensOf returns the tokens of a match: one, but for a parameter, whose value may have a sign.
func tokensOf(m []string, s statement, set map[string]string) ([]token, error) {
	var err error
	value := func(name string) string {
		v, ok := s.param(name, set)
		if !ok {
			err = fmt.Errorf("unknown parameter ${%s}", name)
		}
		return v
	}
	one := token{symbol, m[8]}
	switch {
	case m[2] != "":
		one = token{quoted, strings.ReplaceAll(m[2], "``", "`")}
	case m[5] != "":
		one = token{number, m[5]}
	case m[6] != "":
		one = token{word, m[6]}
	case m[7] != "":
		v := value(m[7])
		switch {
		case strings.HasPrefix(v, "'"):
			return []token{{text, unquoteSQL(v)}}, err
		case strings.HasPrefix(v, "-"):
			return []token{{symbol, "-"}, {number, v[1:]}}, err
		}
		return []token{{number, v}}, err
	case m[8] == "":
		one = token{text, strings.ReplaceAll(m[4], "''", "'")}
		one.text = paramPattern.ReplaceAllStringFunc(one.text, func(p string) string { return unquoteSQL(value(p[2 : len(p)-1])) })
		if m[3] != "" {
			one.text = unicodePattern.ReplaceAllStringFunc(one.text, unescapeUnicode)
		}
	}
	return []token{one}, err
}

func unescapeUnicode(s string) string {
	n, err := strconv.ParseInt(strings.TrimLeft(s, `\+`), 16, 32)
	if err != nil {
		return `\`
	}
	return string(rune(n))
}

// unquoteSQL returns the text of a string, and anything else as it is.
func unquoteSQL(s string) string {
	if !strings.HasPrefix(s, "'") || len(s) < 2 {
		return s
	}
	return strings.ReplaceAll(s[1:len(s)-1], "''", "'")
}

var paramValue = regexp.MustCompile(`^(-?\d+(\.\d+)?([eE][-+]?\d+)?|'([^']|'')*')$`)

// param returns the value of a parameter: that from outside, or that of its directive.
func (s statement) param(name string, set map[string]string) (string, bool) {
	for _, d := range s.directives {
		n, v, _ := strings.Cut(d[1], "=")
		if d[0] != "param" || strings.TrimSpace(n) != name {
			continue
		}
		if other, ok := set[s.directive("rule")+"."+name]; ok {
			if paramValue.MatchString(other) {
				return other, true
			}
			return "'" + strings.ReplaceAll(other, "'", "''") + "'", true
		}
		return strings.TrimSpace(v), true
	}
	return "", false
}

// reader takes the tokens of a statement one by one.
type reader struct {
	tokens []token
	at     int
}

func (r *reader) ahead(n int) token {
	if r.at+n >= len(r.tokens) {
		return token{}
	}
	return r.tokens[r.at+n]
}

// take takes the next token, of which there must be one: so no loop passes the end.
func (r *reader) take() token {
	t := r.ahead(0)
	if t.kind == end {
		refuse("the statement ends too early")
	}
	r.at++
	return t
}

// is reports whether the next tokens are these keywords and symbols.
func (r *reader) is(words ...string) bool {
	for i, w := range words {
		if t := r.ahead(i); t.kind != word && t.kind != symbol || !strings.EqualFold(t.text, w) {
			return false
		}
	}
	return true
}

// accept takes these keywords and symbols, if they come next.
func (r *reader) accept(words ...string) bool {
	if !r.is(words...) {
		return false
	}
	r.at += len(words)
	return true
}

func (r *reader) expect(words ...string) {
	if !r.accept(words...) {
		refuse("expected %s, found %s", strings.Join(words, " "), r.found())
	}
}

func (r *reader) found() string {
	if t := r.ahead(0); t.kind != end {
		return strconv.Quote(t.text)
	}
	return "the end"
}

func (r *reader) name() string {
	t := r.take()
	if t.kind != word && t.kind != quoted {
		r.at--
		refuse("expected a name, found %s", r.found())
	}
	return t.text
}

// names reads (a, b).
func (r *reader) names() (list []string) {
	r.expect("(")
	for {
		list = append(list, r.name())
		if !r.accept(",") {
			break
		}
	}
	r.expect(")")
	return list
}

var unitsMS = map[string]int64{"DAY": 86_400_000, "HOUR": 3_600_000, "MINUTE": 60_000, "SECOND": 1000}

// unit reads a unit of time with its precision, SECOND(3), and returns its milliseconds.
func (r *reader) unit() int64 {
	name := strings.ToUpper(r.name())
	ms := unitsMS[strings.TrimSuffix(name, "S")]
	if ms == 0 {
		refuse("the reference does not support an interval of %s", name)
	}
	if r.accept("(") {
		for !r.accept(")") {
			r.take()
		}
	}
	return ms
}

var intervalParts = regexp.MustCompile(`[ :]`)

// interval reads INTERVAL '1:30' MINUTE TO SECOND and returns its milliseconds.
func (r *reader) interval() int64 {
	r.expect("INTERVAL")
	sign := int64(1)
	for r.is("-") || r.is("+") {
		if r.take().text == "-" {
			sign = -sign
		}
	}
	v := r.take()
	value := strings.TrimSpace(v.text)
	if strings.HasPrefix(value, "-") {
		sign, value = -sign, value[1:]
	}
	from := r.unit()
	parts := []string{value}
	if r.accept("TO") {
		r.unit()
		parts = intervalParts.Split(value, -1)
	}
	units := []int64{86_400_000, 3_600_000, 60_000, 1000}
	for units[0] != from {
		units = units[1:]
	}
	total := new(big.Rat)
	for i, p := range parts {
		n := rational(p)
		if n == nil || i >= len(units) || v.kind != text && v.kind != number {
			refuse("%q is not an interval", v.text)
		}
		total.Add(total, n.Mul(n, new(big.Rat).SetInt64(units[i])))
	}
	return sign * new(big.Int).Quo(total.Num(), total.Denom()).Int64()
}

// skip leaves out what is in parentheses, the first of which was taken.
func (r *reader) skip() {
	for depth := 1; depth > 0; {
		switch {
		case r.is("("):
			depth++
		case r.is(")"):
			depth--
		}
		r.take()
	}
}

// table is what a rule reads.
type table struct {
	name     string
	columns  []column
	time     int   // number of the column with the event time
	lateness int64 // milliseconds; -1 if the table does not say
}

type column struct {
	name    string
	typ     typ
	notNull bool
	token   bool     // it is a key or counted as the text that the events have; in an expression it is of its type
	fields  []column // of a ROW
}

// activity is the table that is known without CREATE TABLE.
func activity() *table {
	c := func(name string, k kind) column { return column{name: name, typ: typ{kind: k, bits: 64}} }
	t := &table{name: "activity", time: 9, lateness: -1, columns: []column{
		c("event_time", kString), c("event_type", kString), c("product_id", kInt), c("category_id", kInt), c("category_code", kString),
		c("brand", kString), c("price", kDouble), c("user_id", kInt), c("user_session", kString), c("txn_timestamp", kTime),
	}}
	t.columns[7].notNull, t.columns[7].token = true, true
	return t
}

// createTable reads CREATE TABLE name (…), without what is behind the columns.
func createTable(r *reader) *table {
	t := &table{name: r.name(), time: -1, lateness: -1}
	r.expect("(")
	watermark := ""
	for {
		switch {
		case r.accept("WATERMARK", "FOR"):
			watermark = r.name()
			r.expect("AS")
			if r.name() != watermark {
				refuse("table %s: the reference does not support this watermark", t.name)
			}
			t.lateness = 0
			if r.accept("-") {
				t.lateness = r.interval()
			}
		case r.is("PRIMARY", "KEY"), r.is("CONSTRAINT"):
			for !r.accept("ENFORCED") {
				r.take()
			}
		default:
			t.columns = append(t.columns, r.column())
		}
		if !r.accept(",") {
			break
		}
	}
	r.expect(")")
	for i, c := range t.columns {
		if c.name == watermark {
			t.time = i
		}
	}
	return t
}

func (r *reader) column() column {
	c := column{name: r.name()}
	if r.is("AS") {
		refuse("the reference does not support the computed column %s", c.name)
	}
	c.typ, c.fields = r.typ()
	for {
		switch {
		case r.accept("NOT", "NULL"):
			c.notNull = true
		case r.accept("NULL"):
		case r.accept("COMMENT"):
			r.take()
		default:
			return c
		}
	}
}

// typ reads a type.
func (r *reader) typ() (typ, []column) {
	name := strings.ToUpper(r.name())
	if name == "ROW" {
		var fields []column
		r.expect("<")
		for {
			fields = append(fields, r.column())
			if !r.accept(",") {
				break
			}
		}
		r.expect(">")
		return typ{kind: kRow}, fields
	}
	var args []int
	if r.accept("(") {
		for !r.accept(")") {
			if n, err := strconv.Atoi(r.take().text); err == nil {
				args = append(args, n)
			}
		}
	}
	arg := func(i, otherwise int) int {
		if i < len(args) {
			return args[i]
		}
		return otherwise
	}
	switch name {
	case "BOOLEAN":
		return typ{kind: kBool}, nil
	case "TINYINT":
		return typ{kind: kInt, bits: 8}, nil
	case "SMALLINT":
		return typ{kind: kInt, bits: 16}, nil
	case "INT", "INTEGER":
		return typ{kind: kInt, bits: 32}, nil
	case "BIGINT":
		return typ{kind: kInt, bits: 64}, nil
	case "DOUBLE":
		r.accept("PRECISION")
		return typ{kind: kDouble}, nil
	case "STRING":
		return typ{kind: kString}, nil
	case "VARCHAR", "CHAR":
		t := typ{kind: kString, precision: arg(0, 1), fixed: name == "CHAR"}
		if t.precision == 1<<31-1 {
			t.precision = 0
		}
		return t, nil
	case "DECIMAL", "DEC", "NUMERIC":
		return typ{kind: kDecimal, precision: arg(0, 10), scale: arg(1, 0)}, nil
	case "TIMESTAMP", "TIMESTAMP_LTZ":
		return typ{kind: kTime}, nil
	}
	refuse("the reference does not support the type %s", name)
	return typ{}, nil
}
