package syntax

import (
	"slices"
	"strings"
)

// path reads a name that may have a catalog and a database in front of it; they are dropped.
func (p *parser) path() Name {
	n := p.name("a table")
	for p.acceptSymbol(".") {
		n = p.name("a table")
	}
	return n
}

func (p *parser) names() []Name {
	var list []Name
	for {
		list = append(list, p.name("a column"))
		if !p.acceptSymbol(",") {
			return list
		}
	}
}

// name reads a name. Reserved words need backticks.
func (p *parser) name(what string) Name {
	t := p.peek()
	switch {
	case t.Kind == Quoted:
	case t.Kind != Word:
		p.unexpected(what)
	case reserved(t.Text):
		p.fail(t.Pos, "write `"+t.Text+"` in backticks, or choose another name", "%s is a reserved word of Flink SQL", t.Text)
	}
	p.at++
	return Name{Text: t.Text, Pos: t.Pos, Quoted: t.Kind == Quoted}
}

// reserved reports whether a word cannot be a name without backticks.
func reserved(word string) bool {
	_, ok := slices.BinarySearch(reservedWords, strings.ToUpper(word))
	return ok
}
