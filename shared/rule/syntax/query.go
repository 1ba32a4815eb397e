package syntax

import "strings"

// query reads SELECT … FROM … WHERE … GROUP BY … HAVING …
func (p *parser) query() *Select {
	p.enter()
	defer p.leave()
	if p.peek().is("WITH") {
		p.fail(p.peek().Pos, "write the query inline, where its name is used", "WITH is not supported")
	}
	s := &Select{Pos: p.peek().Pos}
	p.expect("SELECT")
	p.accept("ALL")
	if t := p.peek(); t.is("DISTINCT") {
		p.fail(t.Pos, "group by the columns instead", "SELECT DISTINCT is not supported")
	}
	for {
		s.Items = append(s.Items, p.item())
		p.bound(len(s.Items), "SELECT")
		if !p.acceptSymbol(",") {
			break
		}
	}
	p.expect("FROM")
	s.From = p.from()
	if p.acceptSymbol(",") {
		p.fail(p.peek().Pos, unsupported["JOIN"], "a rule can read only one table")
	}
	if p.accept("WHERE") {
		s.Where = p.expr()
	}
	if p.accept("GROUP", "BY") {
		s.HasGroup = true
		s.Group = p.group()
	}
	if p.accept("HAVING") {
		s.Having = p.expr()
	}
	return s
}

func (p *parser) group() []Expr {
	if t := p.peek(); t.is("CUBE") || t.is("ROLLUP") || t.is("GROUPING") {
		p.fail(t.Pos, "write a rule for each grouping", "%s is not supported", strings.ToUpper(t.Text))
	}
	var list []Expr
	for {
		list = append(list, p.expr())
		p.bound(len(list), "GROUP BY")
		if !p.acceptSymbol(",") {
			return list
		}
	}
}

func (p *parser) item() Item {
	if p.acceptSymbol("*") {
		return Item{Star: true}
	}
	item := Item{Expr: p.expr()}
	if p.accept("AS") {
		item.Alias = p.name("an alias")
	} else if t := p.peek(); t.Kind == Quoted || t.Kind == Word && !reserved(t.Text) {
		item.Alias = p.name("an alias")
	}
	return item
}

// from reads what follows FROM.
func (p *parser) from() Source {
	s := Source{Pos: p.peek().Pos}
	switch {
	case p.acceptSymbol("("):
		s.Query = p.query()
		p.expectSymbol(")")
	case p.peek().is("TABLE") && p.ahead(1).symbol("("):
		p.at += 2
		s.Window = p.window()
		p.expectSymbol(")")
	case p.peek().Kind == Word && p.ahead(1).symbol("("):
		s.Window = p.window()
	default:
		s.Table = p.path()
	}
	if p.accept("AS") {
		s.Alias = p.name("an alias")
	} else if t := p.peek(); t.Kind == Quoted || t.Kind == Word && !reserved(t.Text) {
		s.Alias = p.name("an alias")
	}
	if s.Alias.Text != "" && p.peek().symbol("(") {
		p.fail(p.peek().Pos, "leave the column list out, and use the names of the table's columns", "an alias with columns is not supported")
	}
	return s
}

// windowFunctions have the names of their arguments after the table and the time.
var windowFunctions = map[string][]string{
	"TUMBLE":   {"SIZE", "OFFSET"},
	"HOP":      {"SLIDE", "SIZE", "OFFSET"},
	"CUMULATE": {"STEP", "SIZE", "OFFSET"},
	"SESSION":  {"GAP"},
}

// window reads TUMBLE(TABLE a, DESCRIPTOR(t), INTERVAL '10' SECOND).
func (p *parser) window() *Window {
	t := p.take()
	w := &Window{Pos: t.Pos, Function: strings.ToUpper(t.Text)}
	names, ok := windowFunctions[w.Function]
	if !ok {
		p.fail(t.Pos, "use TUMBLE, HOP, CUMULATE or SESSION", "%s is not a window table function", t.Text)
	}
	p.expectSymbol("(")
	named := p.ahead(1).symbol("=>")
	p.argument(named, "DATA")
	p.expect("TABLE")
	w.Table = p.path()
	if p.accept("PARTITION", "BY") {
		parens := p.acceptSymbol("(")
		for {
			w.Partition = append(w.Partition, p.name("a column"))
			if next := p.ahead(1); !p.peek().symbol(",") || next.is("DESCRIPTOR") || next.is("TIMECOL") {
				break
			}
			p.take()
		}
		if parens {
			p.expectSymbol(")")
		}
	}
	p.expectSymbol(",")
	p.argument(named, "TIMECOL")
	p.expect("DESCRIPTOR")
	p.expectSymbol("(")
	w.Time = p.name("a column")
	p.expectSymbol(")")
	for _, name := range names {
		if !p.acceptSymbol(",") {
			break
		}
		p.argument(named, name)
		w.Intervals = append(w.Intervals, p.interval())
	}
	p.expectSymbol(")")
	return w
}

// argument reads "NAME =>" in front of an argument.
func (p *parser) argument(named bool, name string) {
	if named {
		p.expect(name)
		p.expectSymbol("=>")
	}
}
