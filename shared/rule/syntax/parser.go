package syntax

import "strings"

// parser reads one statement. The first thing that does not fit ends it.
type parser struct {
	source string
	tokens []Token
	at     int
	depth  int
	// operators are those of the statement so far.
	operators int
	errs      *Errors
}

// bail is the panic that ends the statement after an error; it never leaves the package.
type bail struct{}

func (p *parser) recover() {
	if r := recover(); r != nil {
		if _, ok := r.(bail); !ok {
			panic(r)
		}
	}
}

func (p *parser) fail(at Pos, fix, format string, args ...any) {
	p.errs.Add(at, fix, format, args...)
	panic(bail{})
}

func (p *parser) peek() Token { return p.tokens[p.at] }

func (p *parser) ahead(n int) Token { return p.tokens[min(p.at+n, len(p.tokens)-1)] }

func (p *parser) take() Token {
	t := p.tokens[p.at]
	if t.Kind != EOF {
		p.at++
	}
	return t
}

// accept takes the keywords if they follow, all of them.
func (p *parser) accept(keywords ...string) bool {
	for i, k := range keywords {
		if !p.ahead(i).is(k) {
			return false
		}
	}
	p.at += len(keywords)
	return true
}

func (p *parser) acceptSymbol(s string) bool {
	if p.peek().symbol(s) {
		p.at++
		return true
	}
	return false
}

func (p *parser) expect(keywords ...string) {
	for _, k := range keywords {
		if !p.accept(k) {
			p.unexpected(k)
		}
	}
}

func (p *parser) expectSymbol(s string) {
	if !p.acceptSymbol(s) {
		p.unexpected(s)
	}
}

// unexpected says what should stand where the parser is.
func (p *parser) unexpected(want string) {
	t := p.peek()
	found := t.describe()
	if t.Kind == EOF && int(t.Pos) < len(p.source) {
		found = "the end of the statement"
	}
	p.fail(t.Pos, "", "expected %s, found %s", want, found)
}

// end checks that nothing follows.
func (p *parser) end(what string) {
	if t := p.peek(); t.Kind != EOF {
		fix := ""
		if known, ok := unsupported[strings.ToUpper(t.Text)]; ok && t.Kind == Word {
			fix = known
		}
		p.fail(t.Pos, fix, "unexpected %s after %s", t.describe(), what)
	}
}

// unsupported are the words that begin what Flink has and spate has not, and what to do instead.
var unsupported = map[string]string{
	"ORDER":     "leave ORDER BY out: alerts are ordered by time",
	"LIMIT":     "leave LIMIT out, and choose a higher threshold in HAVING",
	"FETCH":     "leave FETCH out, and choose a higher threshold in HAVING",
	"OFFSET":    "leave OFFSET out",
	"JOIN":      "a rule can read only one table; add the data that it needs to the events, and write exemptions as a list, as in x NOT IN (1, 2)",
	"INNER":     "a rule can read only one table; add the data that it needs to the events, and write exemptions as a list, as in x NOT IN (1, 2)",
	"LEFT":      "a rule can read only one table; add the data that it needs to the events, and write exemptions as a list, as in x NOT IN (1, 2)",
	"RIGHT":     "a rule can read only one table; add the data that it needs to the events, and write exemptions as a list, as in x NOT IN (1, 2)",
	"FULL":      "a rule can read only one table; add the data that it needs to the events, and write exemptions as a list, as in x NOT IN (1, 2)",
	"CROSS":     "a rule can read only one table; add the data that it needs to the events, and write exemptions as a list, as in x NOT IN (1, 2)",
	"UNION":     "write two rules",
	"INTERSECT": "write two rules",
	"EXCEPT":    "write two rules",
	"WINDOW":    "OVER windows are not supported; use TUMBLE, HOP, CUMULATE or SESSION",
	"OVER":      "OVER windows are not supported; use TUMBLE, HOP, CUMULATE or SESSION",
	"QUALIFY":   "use HAVING",
}

// enter and leave count how deep expressions nest.
func (p *parser) enter() {
	if p.depth++; p.depth > MaxDepth {
		p.fail(p.peek().Pos, "", "this expression is nested more than %d levels deep", MaxDepth)
	}
}

func (p *parser) leave() { p.depth-- }

// count counts an operator or function.
func (p *parser) count(at Pos) {
	if p.operators++; p.operators > maxOperators {
		p.fail(at, "write x IN (…) for a long list of values", "this statement has more than %d operators", maxOperators)
	}
}

// bound bounds a list that has n items.
func (p *parser) bound(n int, what string) {
	if n > maxList {
		p.fail(p.peek().Pos, "", "%s can have at most %d items", what, maxList)
	}
}
