package syntax

import "strings"

const (
	// MaxScript bounds a script, in bytes.
	MaxScript = 1 << 20
	// MaxDepth bounds how deep expressions nest.
	MaxDepth = 100
	// maxErrors bounds how many errors of a script are reported.
	maxErrors = 1000
	// maxOperators bounds the operators and functions of a statement: AND makes an expression as deep as it is long.
	maxOperators = 5000
	// maxList bounds the columns of a table and of SELECT, and the keys of GROUP BY.
	maxList = 1000
)

// Parse reads a script. set are values of parameters, by "rule.parameter", that take the place of those in the script. All errors are
// reported: after an error within a statement, reading goes on with the next statement. What could be read is returned with the errors.
func Parse(source string, set map[string]string) (*Script, Errors) {
	script := &Script{Source: source}
	var errs Errors
	if len(source) > MaxScript {
		errs.Add(0, "", "the script is %d bytes long; the maximum is %d", len(source), MaxScript)
		return script, errs
	}
	for _, s := range lex(source, set, &errs) {
		if len(errs) == maxErrors {
			break
		}
		p := parser{source: source, tokens: s.tokens, errs: &errs}
		p.statement(script, s)
	}
	errs.Sort()
	return script, errs
}

// ParseExpr reads an expression that stands by itself. at is where it stands in its script.
func ParseExpr(text string, at Pos) (Expr, Errors) { return parseExpr(text, at, nil) }

// Insert returns a text of one of the statement's directives, with the values of parameters in place of ${name}.
func (in *Insert) Insert(text string, at Pos) (string, Errors) {
	var errs Errors
	l := lexer{line: 1, errs: &errs, within: true, statements: []statement{{params: in.Params}}}
	return l.insert(at, text), errs
}

// ParseExpr reads an expression of one of the statement's directives, in which the statement's parameters can be used.
func (in *Insert) ParseExpr(text string, at Pos) (Expr, Errors) {
	return parseExpr(text, at, in.Params)
}

func parseExpr(text string, at Pos, params []Param) (Expr, Errors) {
	var errs Errors
	var e Expr
	l := lexer{source: text, line: 1, errs: &errs, inherited: params}
	statements := l.lex()
	for i := range errs {
		errs[i].Pos += at
	}
	switch {
	case len(statements) != 1:
		errs.Add(at, "", "an expression is missing")
	case len(errs) == 0:
		tokens := statements[0].tokens
		for i := range tokens {
			tokens[i].Pos, tokens[i].End = tokens[i].Pos+at, tokens[i].End+at
		}
		p := parser{source: text, tokens: tokens, errs: &errs}
		func() {
			defer p.recover()
			e = p.expr()
			p.end("the expression")
		}()
	}
	return e, errs
}

func (p *parser) statement(script *Script, s statement) {
	defer p.recover()
	first := p.peek()
	switch {
	case first.is("INSERT"):
		script.Inserts = append(script.Inserts, p.insert(s))
	case first.is("CREATE"):
		script.Tables = append(script.Tables, p.table(script))
	case first.is("SET"):
		p.set()
	case first.is("DROP"):
		p.take()
		p.accept("TEMPORARY")
		p.expect("TABLE", "IF", "EXISTS")
		p.path()
		p.end("DROP TABLE")
	case first.is("SELECT"), first.is("WITH"):
		p.fail(first.Pos, "write INSERT INTO alerts SELECT …", "a rule must be an INSERT statement")
	default:
		p.fail(first.Pos, "a rules file may contain only INSERT INTO, CREATE TABLE, DROP TABLE IF EXISTS and SET", "unexpected %s at the start of a statement", first.describe())
	}
}

// set reads SET 'name' = 'value'. It is accepted for options that change no result.
func (p *parser) set() {
	p.take()
	at := p.peek().Pos
	var name strings.Builder
	for !p.peek().symbol("=") && p.peek().Kind != EOF {
		name.WriteString(p.take().Text)
	}
	p.expectSymbol("=")
	value := p.take()
	p.end("SET")
	for _, harmless := range harmlessOptions {
		if strings.HasPrefix(name.String(), harmless) {
			return
		}
	}
	p.fail(at, "leave it out", "SET %s = %s could change the result, and spate has no such option", name.String(), value.Text)
}

// harmlessOptions are the prefixes of options of Flink that change no result of a windowed query.
var harmlessOptions = []string{
	"parallelism", "pipeline.", "execution.", "state.", "restart-strategy", "sql-client.", "rest.", "jobmanager.", "taskmanager.", "metrics.",
	"table.exec.mini-batch.", "table.exec.resource.", "table.optimizer.agg-phase-strategy", "table.dynamic-table-options.enabled",
}

func (p *parser) insert(s statement) *Insert {
	in := &Insert{Pos: p.take().Pos, Directives: s.directives, Params: s.params}
	p.expect("INTO")
	in.Target = p.path()
	if p.acceptSymbol("(") {
		in.Columns = p.names()
		p.expectSymbol(")")
	}
	if p.peek().is("VALUES") {
		p.fail(p.peek().Pos, "write INSERT INTO alerts SELECT …", "a rule must be a query, not a list of values")
	}
	in.Select = p.query()
	p.end("the query")
	in.Text = p.text()
	return in
}

// text is the statement as written, from its first to its last token, with parameters in place.
func (p *parser) text() string {
	var b strings.Builder
	from := p.tokens[0].Pos
	for _, t := range p.tokens[:len(p.tokens)-1] {
		b.WriteString(p.source[from:t.Pos])
		from = t.End
		if raw := p.source[t.Pos:t.End]; raw != "" && !strings.Contains(raw, "${") { // the sign of a parameter takes no place
			b.WriteString(raw)
		} else if t.Kind == String {
			b.WriteString("'" + strings.ReplaceAll(t.Text, "'", "''") + "'")
		} else {
			if raw == "" && strings.HasSuffix(b.String(), "-") { // two would begin a comment
				b.WriteByte(' ')
			}
			b.WriteString(t.Text)
		}
	}
	return b.String()
}
