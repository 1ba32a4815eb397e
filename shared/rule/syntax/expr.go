package syntax

import (
	"fmt"
	"math/big"
	"strings"
)

// The precedence of operators is that of Flink's parser, from loose to tight.
const (
	orLevel = iota + 1
	andLevel
	notLevel
	isLevel         // IS NULL
	comparisonLevel // = < >
	betweenLevel    // BETWEEN, IN, LIKE
	additiveLevel
	multiplicativeLevel // and ||
	unaryLevel
)

var binaryLevels = map[string]int{
	"=": comparisonLevel, "<>": comparisonLevel, "<": comparisonLevel, "<=": comparisonLevel, ">": comparisonLevel, ">=": comparisonLevel,
	"+": additiveLevel, "-": additiveLevel, "*": multiplicativeLevel, "/": multiplicativeLevel, "%": multiplicativeLevel, "||": multiplicativeLevel,
}

// expr reads an expression.
func (p *parser) expr() Expr { return p.level(orLevel) }

// level reads an expression whose operators bind at least as tight as level.
func (p *parser) level(level int) Expr {
	p.enter()
	defer p.leave()
	var x Expr
	switch t := p.peek(); {
	case t.is("NOT") && level <= notLevel:
		p.take()
		x = &Unary{t.Pos, "NOT", p.level(notLevel)}
	case t.symbol("-") || t.symbol("+"):
		p.take()
		x = p.level(unaryLevel)
		if n, ok := x.(*Literal); ok && n.Kind == Numeric && t.Text == "-" && !strings.HasPrefix(n.Text, "-") {
			x = &Literal{t.Pos, Numeric, "-" + n.Text}
		} else if t.Text == "-" {
			x = &Unary{t.Pos, "-", x}
		}
	default:
		x = p.primary()
	}
	for {
		at := p.peek().Pos
		next := p.operator(x, level)
		if next == nil {
			return x
		}
		p.count(at)
		x = next
	}
}

// operator reads what follows x, nil if no operator that binds at least as tight as level does.
func (p *parser) operator(x Expr, level int) Expr {
	t := p.peek()
	if t.Kind == Symbol {
		l, ok := binaryLevels[t.Text]
		if !ok || l < level {
			return nil
		}
		p.take()
		return &Binary{t.Pos, t.Text, x, p.level(l + 1)}
	}
	switch {
	case t.is("OR") && level <= orLevel:
		p.take()
		return &Binary{t.Pos, "OR", x, p.level(andLevel)}
	case t.is("AND") && level <= andLevel:
		p.take()
		return &Binary{t.Pos, "AND", x, p.level(notLevel)}
	case t.is("IS") && level <= isLevel:
		return p.is(x)
	case level <= betweenLevel && (t.is("BETWEEN") || t.is("IN") || t.is("LIKE") || t.is("SIMILAR")):
		return p.predicate(x, false)
	case level <= betweenLevel && t.is("NOT") && (p.ahead(1).is("BETWEEN") || p.ahead(1).is("IN") || p.ahead(1).is("LIKE") || p.ahead(1).is("SIMILAR")):
		p.take()
		return p.predicate(x, true)
	case t.is("ILIKE"), t.is("RLIKE"):
		fix := "write LOWER(x) LIKE LOWER(pattern)"
		if t.is("RLIKE") {
			fix = "write REGEXP(x, pattern)"
		}
		p.fail(t.Pos, fix, "%s is not part of Flink SQL", strings.ToUpper(t.Text))
	}
	return nil
}

func (p *parser) is(x Expr) Expr {
	at := p.take().Pos
	not := p.accept("NOT")
	for _, what := range []string{"NULL", "TRUE", "FALSE", "UNKNOWN"} {
		if p.accept(what) {
			return &Is{x, not, what}
		}
	}
	if p.accept("DISTINCT", "FROM") {
		op := "IS DISTINCT FROM"
		if not {
			op = "IS NOT DISTINCT FROM"
		}
		return &Binary{at, op, x, p.level(betweenLevel)}
	}
	p.unexpected("NULL, TRUE, FALSE, UNKNOWN or DISTINCT FROM")
	return nil
}

// predicate reads BETWEEN, IN, LIKE and SIMILAR TO.
func (p *parser) predicate(x Expr, not bool) Expr {
	switch {
	case p.accept("BETWEEN"):
		b := &Between{X: x, Not: not}
		b.Symmetric = p.accept("SYMMETRIC")
		p.accept("ASYMMETRIC")
		b.Low = p.level(additiveLevel)
		p.expect("AND")
		b.High = p.level(additiveLevel)
		return b
	case p.accept("IN"):
		in := &In{X: x, Not: not}
		p.expectSymbol("(")
		if p.peek().is("SELECT") {
			in.Query = p.query()
		} else {
			in.List = p.list()
		}
		p.expectSymbol(")")
		return in
	}
	l := &Like{X: x, Not: not}
	if p.accept("SIMILAR") {
		p.expect("TO")
		l.Similar = true
	} else {
		p.expect("LIKE")
	}
	l.Pattern = p.level(additiveLevel)
	if p.accept("ESCAPE") {
		l.Escape = p.level(additiveLevel)
	}
	return l
}

func (p *parser) list() []Expr {
	var list []Expr
	for {
		list = append(list, p.expr())
		if !p.acceptSymbol(",") {
			return list
		}
	}
}

// primary reads an operand.
func (p *parser) primary() Expr {
	t := p.peek()
	switch {
	case t.Kind == Number:
		p.take()
		return &Literal{t.Pos, Numeric, t.Text}
	case t.Kind == String:
		p.take()
		return &Literal{t.Pos, Text, t.Text}
	case p.acceptSymbol("("):
		if p.peek().is("SELECT") {
			p.fail(p.peek().Pos, "", "a query is not supported here")
		}
		x := p.expr()
		if t := p.peek(); t.symbol(",") {
			p.fail(t.Pos, "leave the parentheses out", "a row of values is not supported here")
		}
		p.expectSymbol(")")
		return x
	case t.Kind == Quoted:
		return p.ref()
	case t.Kind != Word:
		p.unexpected("an expression")
	}
	switch word := strings.ToUpper(t.Text); {
	case word == "NULL":
		p.take()
		return &Literal{t.Pos, Null, "NULL"}
	case word == "TRUE", word == "FALSE":
		p.take()
		return &Literal{t.Pos, Boolean, word}
	case word == "UNKNOWN":
		p.take()
		return &Literal{t.Pos, Null, "NULL"}
	case word == "INTERVAL":
		return p.interval()
	case word == "CASE":
		return p.cases()
	case (word == "TIMESTAMP" || word == "DATE" || word == "TIME") && p.ahead(1).Kind == String:
		p.take()
		if word != "TIMESTAMP" {
			p.fail(t.Pos, "write TIMESTAMP '2024-01-01 00:00:00'", "%s constants are not supported", word)
		}
		return &Literal{t.Pos, Timestamp, p.take().Text}
	case p.ahead(1).symbol("("):
		return p.call()
	}
	return p.ref()
}

// ref reads a column, or a member of one.
func (p *parser) ref() Expr {
	if t := p.peek(); t.Kind == Word && reserved(t.Text) {
		p.fail(t.Pos, "a column of this name needs backticks: `"+t.Text+"`", "expected an expression, found %s", t.Text)
	}
	r := &Ref{Parts: []Name{p.name("an expression")}}
	for p.acceptSymbol(".") {
		if t := p.peek(); t.symbol("*") {
			p.fail(t.Pos, "name the columns", "* is not supported here")
		}
		r.Parts = append(r.Parts, p.name("a column"))
	}
	if t := p.peek(); t.symbol("[") {
		p.fail(t.Pos, "", "elements of arrays and maps are not supported")
	}
	return r
}

func (p *parser) cases() Expr {
	c := &Case{Pos: p.take().Pos}
	if !p.peek().is("WHEN") {
		c.Operand = p.expr()
	}
	for p.accept("WHEN") {
		w := When{If: p.expr()}
		p.expect("THEN")
		w.Then = p.expr()
		c.Whens = append(c.Whens, w)
	}
	if len(c.Whens) == 0 {
		p.unexpected("WHEN")
	}
	if p.accept("ELSE") {
		c.Else = p.expr()
	}
	p.expect("END")
	return c
}

// call reads a function and its arguments.
func (p *parser) call() Expr {
	t := p.take()
	name := strings.ToUpper(t.Text)
	p.take() // (
	p.count(t.Pos)
	c := &Call{Pos: t.Pos, Name: name}
	switch name {
	case "CAST", "TRY_CAST":
		x := p.expr()
		p.expect("AS")
		to := p.typ()
		p.expectSymbol(")")
		return &Cast{Pos: t.Pos, X: x, To: to, Try: name == "TRY_CAST"}
	case "EXTRACT":
		c.Word = strings.ToUpper(p.take().Text)
		p.expect("FROM")
		c.Args = []Expr{p.expr()}
	case "POSITION":
		c.Args = []Expr{p.level(additiveLevel)}
		p.expect("IN")
		c.Args = append(c.Args, p.expr())
	case "SUBSTRING":
		c.Args = []Expr{p.expr()}
		if p.accept("FROM") {
			c.Args = append(c.Args, p.expr())
			if p.accept("FOR") {
				c.Args = append(c.Args, p.expr())
			}
		} else if p.acceptSymbol(",") {
			c.Args = append(c.Args, p.list()...)
		}
	case "TRIM":
		p.trim(c)
	default:
		p.arguments(c)
	}
	p.expectSymbol(")")
	if p.accept("FILTER") {
		p.expectSymbol("(")
		p.expect("WHERE")
		c.Filter = p.expr()
		p.expectSymbol(")")
	}
	if n := p.peek(); n.is("OVER") {
		p.fail(n.Pos, unsupported["OVER"], "OVER is not supported")
	}
	return c
}

func (p *parser) arguments(c *Call) {
	if p.acceptSymbol("*") {
		c.Star = true
		return
	}
	if p.peek().symbol(")") {
		return
	}
	if p.accept("DISTINCT") {
		c.Distinct = true
	} else {
		p.accept("ALL")
	}
	first := p.peek()
	c.Args = p.list()
	if p.peek().Kind == Word && p.ahead(-1).Pos == first.Pos && Near(first.Text, []string{"DISTINCT"}) != "" {
		p.fail(first.Pos, "did you mean DISTINCT?", "expected ), found %s", p.peek().describe())
	}
}

// trim reads TRIM(x), TRIM([BOTH | LEADING | TRAILING] [y] FROM x).
func (p *parser) trim(c *Call) {
	c.Word = "BOTH"
	for _, side := range []string{"BOTH", "LEADING", "TRAILING"} {
		if p.accept(side) {
			c.Word = side
			if p.accept("FROM") {
				c.Args = []Expr{p.expr()}
				return
			}
			break
		}
	}
	x := p.expr()
	if p.accept("FROM") {
		c.Args = []Expr{p.expr(), x}
	} else {
		c.Args = []Expr{x}
	}
}

// intervalUnits are the units of intervals that have a fixed length, in milliseconds.
var intervalUnits = []struct {
	name string
	ms   int64
}{{"DAY", 86_400_000}, {"HOUR", 3_600_000}, {"MINUTE", 60_000}, {"SECOND", 1000}}

func unitIndex(t Token) int {
	for i, u := range intervalUnits {
		if t.is(u.name) || t.is(u.name+"S") {
			return i
		}
	}
	return -1
}

// interval reads INTERVAL '10' SECOND, INTERVAL '1:30' MINUTE TO SECOND, INTERVAL 10 SECOND.
func (p *parser) interval() *Interval {
	at := p.peek().Pos
	p.expect("INTERVAL")
	sign := int64(1)
	for p.peek().symbol("-") || p.peek().symbol("+") {
		if p.take().Text == "-" {
			sign = -sign
		}
	}
	v := p.take()
	if v.Kind != String && v.Kind != Number {
		p.at--
		p.unexpected("the length of the interval, such as '10'")
	}
	unit := p.take()
	from := unitIndex(unit)
	if from < 0 {
		if unit.is("MONTH") || unit.is("YEAR") || unit.is("MONTHS") || unit.is("YEARS") || unit.is("WEEK") || unit.is("QUARTER") {
			p.fail(unit.Pos, "use SECOND, MINUTE, HOUR or DAY", "%s has no fixed length here", strings.ToUpper(unit.Text))
		}
		p.at--
		p.unexpected("SECOND, MINUTE, HOUR or DAY")
	}
	digits := p.precision()
	to := from
	if p.accept("TO") {
		end := p.take()
		if to = unitIndex(end); to <= from {
			p.fail(end.Pos, "", "an interval cannot run from %s to %s", unit.Text, end.Text)
		}
		p.precision()
	}
	text := strings.TrimSpace(v.Text)
	if rest, found := strings.CutPrefix(text, "-"); found {
		sign, text = -sign, rest
	}
	ms, problem := intervalMS(text, from, to, digits)
	if problem != "" {
		p.fail(v.Pos, "", "%s", problem)
	}
	written := fmt.Sprintf("'%s' %s", text, intervalUnits[from].name)
	if to != from {
		written += " TO " + intervalUnits[to].name
	}
	if sign < 0 {
		written = "-" + written
	}
	return &Interval{Pos: at, MS: sign * ms, Text: written}
}

// precision reads (3) behind a unit.
func (p *parser) precision() int {
	if !p.acceptSymbol("(") {
		return 2
	}
	n := p.take()
	d := 0
	if _, err := fmt.Sscanf(n.Text, "%d", &d); n.Kind != Number || err != nil || d < 1 || d > 10 {
		p.fail(n.Pos, "", "expected a number of digits between 1 and 10, found %s", n.describe())
	}
	if p.acceptSymbol(",") {
		p.take()
	}
	p.expectSymbol(")")
	return d
}

// intervalMS converts the text of an interval of the given units. The problem is empty if there is none.
func intervalMS(text string, from, to, digits int) (ms int64, problem string) {
	separators := []string{" ", ":", ":"}
	for i := from; i <= to; i++ {
		part := text
		if i < to {
			var found bool
			if part, text, found = strings.Cut(text, separators[i]); !found {
				return 0, fmt.Sprintf("the interval needs a value for %s", intervalUnits[i+1].name)
			}
		}
		whole, _, fraction := strings.Cut(part, ".")
		// big.Rat would read more than a number, such as an exponent, and at any cost.
		r, ok := new(big.Rat), len(part) < 100 && strings.Trim(part, "0123456789.") == ""
		if ok {
			_, ok = r.SetString(part)
		}
		switch {
		case !ok || fraction && intervalUnits[i].name != "SECOND":
			return 0, fmt.Sprintf("%q is not a number of %sS", part, intervalUnits[i].name)
		case i == from && len(strings.TrimLeft(whole, "0")) > digits:
			return 0, fmt.Sprintf("%s has more than %d digits; write %s(%d) or a larger unit", part, digits, intervalUnits[i].name, len(whole))
		}
		r.Mul(r, new(big.Rat).SetInt64(intervalUnits[i].ms))
		n := new(big.Int).Quo(r.Num(), r.Denom())
		if !n.IsInt64() || n.Int64() > 1<<50 {
			return 0, fmt.Sprintf("%q is too long", part)
		}
		ms += n.Int64()
	}
	return ms, ""
}
