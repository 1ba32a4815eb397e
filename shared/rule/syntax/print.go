package syntax

import (
	"strconv"
	"strings"
)

// Print writes an expression as SQL on one line, with parentheses only where they are needed.
func Print(e Expr) string {
	var b strings.Builder
	printTo(&b, e, orLevel)
	return b.String()
}

// printTo writes an expression whose operators bind at least as tight as level, or puts it into parentheses.
func printTo(b *strings.Builder, e Expr, level int) {
	own := levelOf(e)
	if own < level {
		b.WriteByte('(')
		defer b.WriteByte(')')
	}
	write := func(parts ...any) {
		for _, p := range parts {
			switch p := p.(type) {
			case string:
				b.WriteString(p)
			case Expr:
				printTo(b, p, own+1)
			}
		}
	}
	switch e := e.(type) {
	case *Ref:
		for i, n := range e.Parts {
			if i > 0 {
				b.WriteByte('.')
			}
			b.WriteString(n.SQL())
		}
	case *Literal:
		switch e.Kind {
		case Text:
			b.WriteString(Quote(e.Text))
		case Timestamp:
			b.WriteString("TIMESTAMP " + Quote(e.Text))
		default:
			b.WriteString(e.Text)
		}
	case *Interval:
		b.WriteString("INTERVAL " + e.Text)
	case *Unary:
		b.WriteString(e.Op)
		if e.Op == "NOT" {
			b.WriteByte(' ')
		}
		printTo(b, e.X, own)
	case *Binary:
		printTo(b, e.X, own)
		b.WriteString(" " + e.Op + " ")
		printTo(b, e.Y, own+1)
	case *Is:
		write(e.X, " IS "+not(e.Not)+e.What)
	case *Between:
		sym := ""
		if e.Symmetric {
			sym = "SYMMETRIC "
		}
		write(e.X, " "+not(e.Not)+"BETWEEN "+sym, e.Low, " AND ", e.High)
	case *In:
		write(e.X, " "+not(e.Not)+"IN (")
		if e.Query != nil {
			b.WriteString("SELECT …")
		}
		printList(b, e.List)
		b.WriteByte(')')
	case *Like:
		word := "LIKE "
		if e.Similar {
			word = "SIMILAR TO "
		}
		write(e.X, " "+not(e.Not)+word, e.Pattern)
		if e.Escape != nil {
			write(" ESCAPE ", e.Escape)
		}
	case *Case:
		b.WriteString("CASE")
		if e.Operand != nil {
			b.WriteByte(' ')
			printTo(b, e.Operand, orLevel)
		}
		for _, w := range e.Whens {
			b.WriteString(" WHEN ")
			printTo(b, w.If, orLevel)
			b.WriteString(" THEN ")
			printTo(b, w.Then, orLevel)
		}
		if e.Else != nil {
			b.WriteString(" ELSE ")
			printTo(b, e.Else, orLevel)
		}
		b.WriteString(" END")
	case *Cast:
		if e.Try {
			b.WriteString("TRY_")
		}
		b.WriteString("CAST(")
		printTo(b, e.X, orLevel)
		b.WriteString(" AS " + e.To.SQL() + ")")
	case *Call:
		printCall(b, e)
	}
}

func printCall(b *strings.Builder, e *Call) {
	b.WriteString(e.Name + "(")
	switch {
	case e.Star:
		b.WriteByte('*')
	case e.Name == "EXTRACT":
		b.WriteString(e.Word + " FROM ")
		printList(b, e.Args)
	case e.Name == "POSITION":
		printTo(b, e.Args[0], additiveLevel)
		b.WriteString(" IN ")
		printTo(b, e.Args[1], orLevel)
	case e.Name == "TRIM" && (e.Word != "BOTH" || len(e.Args) == 2):
		b.WriteString(e.Word + " ")
		if len(e.Args) == 2 {
			printTo(b, e.Args[1], orLevel)
			b.WriteByte(' ')
		}
		b.WriteString("FROM ")
		printTo(b, e.Args[0], orLevel)
	default:
		if e.Distinct {
			b.WriteString("DISTINCT ")
		}
		printList(b, e.Args)
	}
	b.WriteByte(')')
	if e.Filter != nil {
		b.WriteString(" FILTER (WHERE ")
		printTo(b, e.Filter, orLevel)
		b.WriteByte(')')
	}
}

func printList(b *strings.Builder, list []Expr) {
	for i, e := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		printTo(b, e, orLevel)
	}
}

func not(n bool) string {
	if n {
		return "NOT "
	}
	return ""
}

// levelOf is how tight the operator of an expression binds.
func levelOf(e Expr) int {
	switch e := e.(type) {
	case *Unary:
		if e.Op == "NOT" {
			return notLevel
		}
		return unaryLevel
	case *Binary:
		switch e.Op {
		case "OR":
			return orLevel
		case "AND":
			return andLevel
		case "IS DISTINCT FROM", "IS NOT DISTINCT FROM":
			return isLevel
		}
		return binaryLevels[e.Op]
	case *Is:
		return isLevel
	case *Between, *In, *Like:
		return betweenLevel
	}
	return unaryLevel + 1
}

// Quote writes a text as a string constant.
func Quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// SQL is the name as it must be written: in backticks if it would be taken for something else.
func (n Name) SQL() string {
	plain := n.Text != "" && !reserved(n.Text)
	for i, r := range n.Text {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9' || i == 0) {
			plain = false
		}
	}
	if plain {
		return n.Text
	}
	return "`" + strings.ReplaceAll(n.Text, "`", "``") + "`"
}

// SQL is the type as it is written.
func (t Type) SQL() string {
	var b strings.Builder
	b.WriteString(t.Name)
	if len(t.Args) > 0 {
		b.WriteByte('(')
		for i, n := range t.Args {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(strconv.Itoa(n))
		}
		b.WriteByte(')')
	}
	if t.Name == "ROW" {
		b.WriteByte('<')
		for i, f := range t.Fields {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(f.Name.SQL() + " " + f.Type.SQL())
			if f.NotNull {
				b.WriteString(" NOT NULL")
			}
		}
		b.WriteByte('>')
	}
	return b.String()
}
