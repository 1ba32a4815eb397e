package syntax

// Part is a statement of a script that was not read yet: its tokens, the last of which is an EOF.
type Part struct {
	// From is where the comments in front of the statement begin.
	From       Pos
	Directives []Directive
	Tokens     []Token
}

// Is reports whether the statement begins with these keywords.
func (p Part) Is(keywords ...string) bool {
	for i, k := range keywords {
		if i >= len(p.Tokens) || !p.Tokens[i].is(k) {
			return false
		}
	}
	return true
}

// Pos is where the statement begins.
func (p Part) Pos() Pos { return p.Tokens[0].Pos }

// End is where the statement ends, in front of its semicolon.
func (p Part) End() Pos {
	if len(p.Tokens) < 2 {
		return p.Tokens[0].Pos
	}
	return p.Tokens[len(p.Tokens)-2].End
}

// Split splits a script into its statements. It knows strings, names and comments, and nothing else of the language.
func Split(source string) []Part {
	var ignored Errors
	var parts []Part
	from := Pos(0)
	for _, s := range lex(source, nil, &ignored) {
		parts = append(parts, Part{From: from, Directives: s.directives, Tokens: s.tokens})
		from = min(s.tokens[len(s.tokens)-1].Pos+1, Pos(len(source))) // behind the semicolon
	}
	return parts
}
