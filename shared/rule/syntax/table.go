package syntax

import (
	"strconv"
	"strings"
)

// table reads CREATE TABLE.
func (p *parser) table(script *Script) *Table {
	t := &Table{Pos: p.take().Pos}
	p.accept("TEMPORARY")
	if f := p.peek(); !f.is("TABLE") {
		p.fail(f.Pos, "a rules file can create only tables", "CREATE %s is not supported", f.Text)
	}
	p.take()
	p.accept("IF", "NOT", "EXISTS")
	t.Name = p.path()
	script.Created = append(script.Created, t.Name.Text)
	p.expectSymbol("(")
	for {
		switch {
		case p.peek().is("WATERMARK") && p.ahead(1).is("FOR"):
			at := p.take().Pos
			p.take()
			w := &Watermark{Pos: at, Column: p.name("a column")}
			p.expect("AS")
			w.As = p.expr()
			if t.Watermark != nil {
				p.fail(at, "", "a table can have only one watermark")
			}
			t.Watermark = w
		case p.peek().is("PRIMARY"), p.peek().is("CONSTRAINT"):
			p.constraint()
		default:
			t.Columns = append(t.Columns, p.column())
			p.bound(len(t.Columns), "a table")
		}
		if !p.acceptSymbol(",") {
			break
		}
	}
	p.expectSymbol(")")
	if p.accept("COMMENT") {
		p.take()
	}
	if p.accept("PARTITIONED", "BY") {
		p.expectSymbol("(")
		p.names()
		p.expectSymbol(")")
	}
	if p.accept("WITH") {
		p.expectSymbol("(")
		for !p.peek().symbol(")") {
			t.Options = append(t.Options, p.option())
			if !p.acceptSymbol(",") {
				break
			}
		}
		p.expectSymbol(")")
	}
	p.end("CREATE TABLE")
	return t
}

// constraint reads PRIMARY KEY (…) NOT ENFORCED, which changes nothing.
func (p *parser) constraint() {
	if p.accept("CONSTRAINT") {
		p.name("a constraint")
	}
	p.expect("PRIMARY", "KEY")
	p.expectSymbol("(")
	p.names()
	p.expectSymbol(")")
	p.expect("NOT", "ENFORCED")
}

func (p *parser) option() Option {
	name := p.take()
	if name.Kind != String {
		p.at--
		p.unexpected("'option' = 'value'")
	}
	p.expectSymbol("=")
	value := p.take()
	if value.Kind != String {
		p.at--
		p.unexpected("a string")
	}
	return Option{Name: name.Text, Value: value.Text, Pos: value.Pos}
}

func (p *parser) column() Column {
	c := Column{Name: p.name("a column")}
	if p.accept("AS") {
		c.As = p.expr()
	} else {
		c.Type = p.typ()
		for {
			switch {
			case p.accept("NOT", "NULL"):
				c.NotNull = true
			case p.accept("NULL"):
			case p.accept("PRIMARY", "KEY"):
				p.expect("NOT", "ENFORCED")
			case p.peek().is("METADATA"):
				p.fail(p.peek().Pos, "leave the column out", "metadata columns are not supported")
			default:
				if p.accept("COMMENT") {
					p.take()
				}
				return c
			}
		}
	}
	if p.accept("COMMENT") {
		p.take()
	}
	return c
}

// typ reads a type.
func (p *parser) typ() Type {
	p.enter()
	defer p.leave()
	first := p.take()
	if first.Kind != Word {
		p.at--
		p.unexpected("a type")
	}
	t := Type{Pos: first.Pos, Name: strings.ToUpper(first.Text)}
	switch t.Name {
	case "DOUBLE":
		p.accept("PRECISION")
	case "CHARACTER", "CHAR":
		if p.accept("VARYING") {
			t.Name = "VARCHAR"
		}
	case "ROW":
		p.row(&t)
		return t
	}
	if p.acceptSymbol("(") {
		for {
			n := p.take()
			v, err := strconv.Atoi(n.Text)
			if n.Kind != Number || err != nil {
				p.fail(n.Pos, "", "expected a whole number, found %s", n.describe())
			}
			t.Args = append(t.Args, v)
			if !p.acceptSymbol(",") {
				break
			}
		}
		p.expectSymbol(")")
	}
	if t.Name == "TIMESTAMP" || t.Name == "TIME" {
		switch {
		case p.accept("WITHOUT", "TIME", "ZONE"):
		case p.accept("WITH", "LOCAL", "TIME", "ZONE"):
			t.Name += "_LTZ"
		case p.accept("WITH", "TIME", "ZONE"):
			t.Name += " WITH TIME ZONE"
		}
	}
	return t
}

// row reads the fields of ROW<a STRING, b INT> or ROW(a STRING, b INT).
func (p *parser) row(t *Type) {
	closing := ">"
	if p.acceptSymbol("(") {
		closing = ")"
	} else {
		p.expectSymbol("<")
	}
	for {
		f := Column{Name: p.name("a field")}
		f.Type = p.typ()
		if p.accept("NOT", "NULL") {
			f.NotNull = true
		} else {
			p.accept("NULL")
		}
		t.Fields = append(t.Fields, f)
		p.bound(len(t.Fields), "a ROW")
		if !p.acceptSymbol(",") {
			break
		}
	}
	p.closeRow(closing)
}

// closeRow takes the end of a ROW. Two rows that end together end with ">" twice; the lexer has no ">>".
func (p *parser) closeRow(closing string) {
	if t := p.peek(); closing == ">" && t.Kind == Symbol && t.Text == ">=" {
		p.fail(t.Pos, "put a space between > and =", "unexpected >=")
	}
	p.expectSymbol(closing)
}
