package syntax

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind is the kind of a token.
type Kind uint8

// The kinds of tokens.
const (
	EOF    Kind = iota
	Word        // a keyword or name, as written
	Quoted      // a name in backticks, without them
	String      // a string, without its quotes and with its escapes resolved
	Number      // a number without sign
	Symbol      // an operator or punctuation
)

// Token is a word of the language.
type Token struct {
	Kind Kind
	Text string
	Pos  Pos
	// End is the offset after the token.
	End Pos
}

// is reports whether the token is a keyword, in any case.
func (t Token) is(keyword string) bool { return t.Kind == Word && strings.EqualFold(t.Text, keyword) }

func (t Token) symbol(s string) bool { return t.Kind == Symbol && t.Text == s }

// describe says what a token is, for an error.
func (t Token) describe() string {
	switch t.Kind {
	case EOF:
		return "the end of the file"
	case String:
		return "the string '" + strings.ReplaceAll(t.Text, "'", "''") + "'"
	case Quoted:
		return "`" + t.Text + "`"
	default:
		return t.Text
	}
}

// comment is a line of the form "-- text".
type comment struct {
	text string
	pos  Pos // of the text
	line int
}

// Directive is a comment line "-- name: value" directly in front of a statement. It says what Flink does not know.
type Directive struct {
	Name, Value string
	Pos         Pos // of the name
	ValuePos    Pos
}

// lexer splits a script into tokens, and these into statements.
type lexer struct {
	source     string
	set        map[string]string // values of parameters from outside, by "rule.parameter"
	at         int
	line       int
	comments   []comment // since the last statement
	statements []statement
	within     bool // the last statement has not ended
	inherited  []Param
	inserted   int // bytes that parameters put into strings
	errs       *Errors
}

// statement is what lies between two semicolons.
type statement struct {
	directives []Directive
	params     []Param
	tokens     []Token
}

// lex splits a script into statements.
func lex(source string, set map[string]string, errs *Errors) []statement {
	l := lexer{source: source, set: set, line: 1, errs: errs}
	return l.lex()
}

func (l *lexer) lex() []statement {
	for l.at < len(l.source) {
		l.next()
	}
	if l.within {
		l.end()
	}
	l.misplaced(l.comments)
	return l.statements
}

// end ends the statement.
func (l *lexer) end() {
	s := &l.statements[len(l.statements)-1]
	s.tokens = append(s.tokens, Token{Kind: EOF, Pos: Pos(l.at), End: Pos(l.at)})
	l.misplaced(l.comments)
	l.within, l.comments = false, nil
}

// known is what begins like a directive, in whatever spelling.
var known = regexp.MustCompile(`(?i)^[ \t]*(rule|summary|critical|mode|param|runbook)[ \t]*:([ \t]|$)`)

// misplaced reports comments that would be directives in another place or spelling: a rule that is live because its mode was overlooked is worse than
// an error.
func (l *lexer) misplaced(comments []comment) {
	for _, c := range comments {
		m := known.FindStringSubmatch(c.text)
		if m == nil {
			continue
		}
		name := strings.ToLower(m[1])
		fix := "move it directly before its statement, with no blank line between them"
		if _, ok := c.directive(); !ok {
			fix = "write -- " + name + ": …, directly before its statement"
		}
		l.errs.Add(c.pos, fix, "this line looks like the directive %s, and would be ignored", name)
	}
}

// begin begins a statement: the comment lines directly in front of it are its directives, if they have the form of one.
func (l *lexer) begin() {
	l.within = true
	block := l.comments
	for i, line := len(block)-1, l.line; i >= 0; i-- {
		if block[i].line < line-1 {
			block = block[i+1:]
			break
		}
		line = block[i].line
	}
	s := statement{}
	l.misplaced(l.comments[:len(l.comments)-len(block)])
	for _, c := range block {
		if d, ok := c.directive(); ok {
			s.directives = append(s.directives, d)
		} else {
			l.misplaced([]comment{c})
		}
	}
	l.comments = nil
	if s.params = l.inherited; s.params == nil {
		s.params = l.params(s.directives)
	}
	l.statements = append(l.statements, s)
}

// directive reads "name: value" from a comment.
func (c comment) directive() (Directive, bool) {
	name, value, found := strings.Cut(c.text, ":")
	trimmed := strings.TrimLeft(name, " \t")
	d := Directive{Name: trimmed, Pos: c.pos + Pos(len(name)-len(trimmed))}
	if !found || trimmed == "" || strings.ContainsFunc(trimmed, func(r rune) bool { return r < 'a' || r > 'z' }) || value != "" && value[0] != ' ' && value[0] != '\t' {
		return d, false
	}
	d.Value = strings.TrimSpace(value)
	d.ValuePos = c.pos + Pos(len(name)+1+len(value)-len(strings.TrimLeft(value, " \t")))
	return d, true
}

func (l *lexer) next() {
	rest := l.source[l.at:]
	r, size := utf8.DecodeRuneInString(rest)
	switch {
	case r == '\n':
		l.line++
		l.at++
	case unicode.IsSpace(r) || r == '\ufeff':
		l.at += size
	case strings.HasPrefix(rest, "--"):
		end := strings.IndexByte(rest, '\n')
		if end < 0 {
			end = len(rest)
		}
		l.comments = append(l.comments, comment{strings.TrimRight(rest[2:end], "\r"), Pos(l.at + 2), l.line})
		l.at += end
	case strings.HasPrefix(rest, "/*"):
		end := strings.Index(rest[2:], "*/")
		if end < 0 {
			l.errs.Add(Pos(l.at), "close it with */", "this comment is not closed")
			l.at = len(l.source)
			return
		}
		l.line += strings.Count(rest[:end+4], "\n")
		l.at += end + 4
	case r == '\'':
		l.str(l.at, 1, false)
	case (r == 'U' || r == 'u') && strings.HasPrefix(rest[1:], "&'"):
		l.str(l.at, 3, true)
	case r == '`':
		l.quoted()
	case r == '"':
		end := strings.IndexByte(rest[1:], '"') + 1
		if strings.Contains(rest[:end], "\n") {
			end = 0
		}
		text := rest[1:max(1, end)]
		l.errs.Add(Pos(l.at), fmt.Sprintf("write '%s' for a string, `%s` for a column", text, text), "double quotes are not part of Flink SQL")
		l.push(String, text, l.at+max(1, end+1))
	case r >= '0' && r <= '9' || r == '.' && len(rest) > 1 && rest[1] >= '0' && rest[1] <= '9':
		l.number()
	case r == '_' || unicode.IsLetter(r):
		end := strings.IndexFunc(rest, func(r rune) bool { return r != '_' && r != '$' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		if end < 0 {
			end = len(rest)
		}
		l.push(Word, rest[:end], l.at+end)
	case strings.HasPrefix(rest, "${"):
		l.param()
	case r == utf8.RuneError && size <= 1:
		l.errs.Add(Pos(l.at), "save the file as UTF-8", "this byte is not UTF-8")
		l.at = len(l.source)
	default:
		l.operator(rest, r, size)
	}
}

// push appends the token from where the lexer is to end.
func (l *lexer) push(k Kind, text string, end int) {
	if !l.within {
		l.begin()
	}
	s := &l.statements[len(l.statements)-1]
	s.tokens = append(s.tokens, Token{k, text, Pos(l.at), Pos(end)})
	l.line += strings.Count(l.source[l.at:end], "\n")
	l.at = end
}

// operators are those of more than one character. Those with a fix are not part of Flink SQL.
var operators = []struct{ text, fix string }{
	{"<>", ""}, {"<=", ""}, {">=", ""}, {"||", ""}, {"=>", ""},
	{"!=", "write <>"}, {"==", "write ="}, {"&&", "write AND"}, {"::", "write CAST(value AS type)"},
}

func (l *lexer) operator(rest string, r rune, size int) {
	for _, o := range operators {
		if strings.HasPrefix(rest, o.text) {
			text := o.text
			if o.fix != "" {
				l.errs.Add(Pos(l.at), o.fix, "%s is not part of Flink SQL", o.text)
				text = map[string]string{"!=": "<>", "==": "="}[o.text]
			}
			l.push(Symbol, text, l.at+len(o.text))
			return
		}
	}
	if r == ';' {
		if l.within {
			l.end()
		}
		l.at++
		return
	}
	if strings.ContainsRune("()+-*/%,.=<>[]:", r) {
		l.push(Symbol, string(r), l.at+size)
		return
	}
	l.errs.Add(Pos(l.at), "", "the character %s is not part of Flink SQL", strconv.QuoteRune(r))
	l.push(Symbol, string(r), l.at+size)
}

// str reads a string that begins with skip bytes of opening. In it, two quotes stand for one, and a backslash for itself.
func (l *lexer) str(at, skip int, escapes bool) {
	rest := l.source[at+skip:]
	var b strings.Builder
	for i := 0; i < len(rest); i++ {
		switch {
		case rest[i] != '\'':
			b.WriteByte(rest[i])
		case i+1 < len(rest) && rest[i+1] == '\'':
			b.WriteByte('\'')
			i++
		default:
			text := l.insert(Pos(at), b.String())
			if !utf8.ValidString(text) {
				l.errs.Add(Pos(at), "save the file as UTF-8", "this string is not UTF-8")
				text = strings.ToValidUTF8(text, "\ufffd")
			}
			if escapes {
				text = l.unescape(Pos(at), text)
			}
			l.push(String, text, at+skip+i+1)
			return
		}
	}
	l.errs.Add(Pos(at), "close it with '; write '' for a quote within it", "this string is not closed")
	l.at = len(l.source)
}

// unescape resolves \0041 and \+01F600 in U&'…'.
func (l *lexer) unescape(at Pos, text string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, `\`)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		if strings.HasPrefix(after, `\`) {
			b.WriteByte('\\')
			text = after[1:]
			continue
		}
		skip, digits := 0, 4
		if strings.HasPrefix(after, "+") {
			skip, digits = 1, 6
		}
		var n uint64
		err := strconv.ErrSyntax
		if len(after) >= skip+digits {
			n, err = strconv.ParseUint(after[skip:skip+digits], 16, 32)
		}
		if err != nil || !utf8.ValidRune(rune(n)) {
			l.errs.Add(at, `write \0041 or \+01F600`, "this string has an invalid escape")
			return b.String()
		}
		b.WriteRune(rune(n))
		text = after[skip+digits:]
	}
}

func (l *lexer) quoted() {
	rest := l.source[l.at+1:]
	var b strings.Builder
	for i := 0; i < len(rest) && rest[i] != '\n'; i++ {
		switch {
		case rest[i] != '`':
			b.WriteByte(rest[i])
		case i+1 < len(rest) && rest[i+1] == '`':
			b.WriteByte('`')
			i++
		default:
			if b.Len() == 0 || !utf8.ValidString(b.String()) {
				l.errs.Add(Pos(l.at), "", "this name is empty or not UTF-8")
			}
			l.push(Quoted, b.String(), l.at+1+i+1)
			return
		}
	}
	l.errs.Add(Pos(l.at), "close it with `", "this name is not closed on its line")
	l.at = len(l.source)
}

func (l *lexer) number() {
	rest := l.source[l.at:]
	end := digits(rest, 0)
	if end < len(rest) && rest[end] == '.' {
		end = digits(rest, end+1)
	}
	if end < len(rest) && (rest[end] == 'e' || rest[end] == 'E') {
		exp := end + 1
		if exp < len(rest) && (rest[exp] == '+' || rest[exp] == '-') {
			exp++
		}
		if to := digits(rest, exp); to > exp {
			end = to
		}
	}
	if r, _ := utf8.DecodeRuneInString(rest[end:]); r == '_' || unicode.IsLetter(r) {
		l.errs.Add(Pos(l.at), "put a space after the number; a name that begins with a digit needs backticks", "this is neither a number nor a name")
		end += strings.IndexFunc(rest[end:]+" ", func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		l.push(Word, rest[:end], l.at+end)
		return
	}
	l.push(Number, rest[:end], l.at+end)
}

func digits(s string, at int) int {
	for at < len(s) && s[at] >= '0' && s[at] <= '9' {
		at++
	}
	return at
}
