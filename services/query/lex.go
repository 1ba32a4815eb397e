package query

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// kind of a token of SQLite's SQL.
type kind uint8

const (
	word   kind = iota // a keyword or a name without quotes
	quoted             // a name in quotes
	text               // a string
	number
	symbol
)

// token is a word of a statement. Comments and blanks are between tokens.
type token struct {
	kind     kind
	text     string // as it is written
	from, to int
}

// is reports whether the token is a keyword, in any case.
func (t token) is(keywords ...string) bool {
	return t.kind == word && slices.ContainsFunc(keywords, func(k string) bool { return strings.EqualFold(t.text, k) })
}

func (t token) symbol(s string) bool { return t.kind == symbol && t.text == s }

// name is what the token names: without its quotes.
func (t token) name() string {
	if t.kind != quoted {
		return t.text
	}
	inner := strings.TrimSuffix(t.text[1:], string(closing(t.text[0])))
	return strings.ReplaceAll(inner, strings.Repeat(string(t.text[0]), 2), string(t.text[0]))
}

func closing(c byte) byte {
	if c == '[' {
		return ']'
	}
	return c
}

// lex splits a statement into tokens.
func lex(s string) (tokens []token, err *Error) {
	for i := 0; i < len(s); {
		c := s[i]
		from := i
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f':
			i++
			continue
		case strings.HasPrefix(s[i:], "--"):
			for i < len(s) && s[i] != '\n' {
				i++
			}
			continue
		case strings.HasPrefix(s[i:], "/*"):
			end := strings.Index(s[i+2:], "*/")
			if end < 0 {
				return nil, at(from, "close it with */", "the comment is not closed")
			}
			i += end + 4
			continue
		case c == '\'' || c == '"' || c == '`' || c == '[':
			end := closing(c)
			for i++; ; i++ {
				if i >= len(s) {
					return nil, at(from, fmt.Sprintf("close it with %c", end), "the quoted text is not closed")
				}
				if s[i] == end {
					if c == '[' || i+1 == len(s) || s[i+1] != end {
						break
					}
					i++
				}
			}
			i++
			k := quoted
			if c == '\'' {
				k = text
			}
			tokens = append(tokens, token{k, s[from:i], from, i})
		case c >= '0' && c <= '9' || c == '.' && i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9':
			for i < len(s) && (inWord(s[i]) || s[i] == '.' || (s[i] == '+' || s[i] == '-') && (s[i-1] == 'e' || s[i-1] == 'E') && !strings.HasPrefix(s[from:], "0x")) {
				i++
			}
			tokens = append(tokens, token{number, s[from:i], from, i})
		case inWord(c):
			for i < len(s) && inWord(s[i]) {
				i++
			}
			tokens = append(tokens, token{word, s[from:i], from, i})
		case c == 0:
			return nil, at(from, "", "the statement contains a NUL character")
		default:
			i++
			for _, long := range []string{"->>", "->", "||", "<=", ">=", "<>", "!=", "==", "<<", ">>"} {
				if strings.HasPrefix(s[from:], long) {
					i = from + len(long)
					break
				}
			}
			tokens = append(tokens, token{symbol, s[from:i], from, i})
		}
	}
	return tokens, nil
}

func inWord(c byte) bool {
	return c == '_' || c == '$' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= utf8.RuneSelf
}

// windowFunctions are those that make a statement a rule.
var windowFunctions = []string{"TUMBLE", "HOP", "CUMULATE", "SESSION"}

// IsRule reports whether a statement groups by a window, so that the engine evaluates it, and not SQLite.
func IsRule(statement string) bool {
	tokens, err := lex(statement)
	return err == nil && isRule(tokens)
}

func isRule(tokens []token) bool {
	for i, t := range tokens {
		if !t.is(windowFunctions...) || i+1 >= len(tokens) || !tokens[i+1].symbol("(") {
			continue
		}
		if i > 0 && tokens[i-1].symbol("(") && i > 1 && tokens[i-2].is("TABLE") {
			return true
		}
		for _, before := range slices.Backward(tokens[:i]) {
			if before.is("BY") {
				return true
			}
			if before.is("SELECT", "FROM", "WHERE") {
				break
			}
		}
	}
	return false
}

// check finds what is not one statement that reads, before SQLite sees it.
func check(tokens []token) ([]token, *Error) {
	for len(tokens) > 0 && tokens[len(tokens)-1].symbol(";") {
		tokens = tokens[:len(tokens)-1]
	}
	if len(tokens) == 0 {
		return nil, at(0, "write SELECT … FROM activity", "the statement is empty")
	}
	if i := slices.IndexFunc(tokens, func(t token) bool { return t.symbol(";") }); i >= 0 {
		return nil, at(tokens[i+1].from, "run one statement at a time", "a second statement begins here")
	}
	if !tokens[0].is("SELECT", "WITH", "VALUES", "EXPLAIN") {
		return nil, at(tokens[0].from, "write SELECT, WITH, VALUES or EXPLAIN", "%s is not allowed: statements can only read", tokens[0].text)
	}
	if i := slices.IndexFunc(tokens, func(t token) bool {
		return t.symbol("?") || t.symbol("@") || t.symbol(":") || t.kind == word && t.text[0] == '$'
	}); i >= 0 {
		return nil, at(tokens[i].from, "write the value", "parameters are not supported")
	}
	return tokens, nil
}

// rewritten is a statement in SQLite's words.
type rewritten struct {
	text strings.Builder
	// places are where a part of text begins, and where that stood in the statement.
	places []place
}

type place struct{ now, was int }

// was returns where a place of the rewritten text was.
func (r *rewritten) was(now int) int {
	out := 0
	for _, p := range r.places {
		if p.now > now {
			break
		}
		out = p.was + now - p.now
	}
	return out
}

// units are those of intervals, in milliseconds.
var units = map[string]int64{"SECOND": 1000, "MINUTE": 60_000, "HOUR": 3_600_000, "DAY": 86_400_000}

// rewrite replaces what SQLite does not know: INTERVAL '10' SECOND is a number of milliseconds; added to a time, it is a call of time_add. TIMESTAMP '…' is its text.
func rewrite(s string, tokens []token) (*rewritten, *Error) {
	type edit struct {
		from, to int
		with     string
	}
	var edits []edit
	added, number := map[int]int{}, map[int]bool{} // by where an interval ends: where the time begins that it was added to, or that it is a number
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		if t.is("TIMESTAMP") && i+1 < len(tokens) && tokens[i+1].kind == text {
			edits = append(edits, edit{t.from, tokens[i+1].from, ""})
			continue
		}
		if !t.is("INTERVAL") || i+1 >= len(tokens) || tokens[i+1].kind != text {
			continue
		}
		value := strings.Trim(tokens[i+1].text, "'")
		if i+2 >= len(tokens) || tokens[i+2].kind != word {
			return nil, at(tokens[i+1].to, "write INTERVAL '10' SECOND", "the interval has no unit")
		}
		unit := units[strings.ToUpper(strings.TrimSuffix(strings.ToUpper(tokens[i+2].text), "S"))]
		if unit == 0 {
			return nil, at(tokens[i+2].from, "write SECOND, MINUTE, HOUR or DAY", "%s is not an interval unit", tokens[i+2].text)
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		ms := n * float64(unit)
		if err != nil || ms != float64(int64(ms)) || ms > maxSpanMS || ms < -maxSpanMS {
			return nil, at(tokens[i+1].from, "write INTERVAL '10' SECOND", "%s is not a whole number of milliseconds", tokens[i+1].text)
		}
		end := tokens[i+2].to
		if i > 0 && (tokens[i-1].symbol("+") || tokens[i-1].symbol("-")) {
			before := 0
			if i > 1 {
				before = tokens[i-2].to
			}
			if number[before] { // a sum of intervals
				edits, number[end] = append(edits, edit{t.from, end, strconv.FormatInt(int64(ms), 10)}), true
				i += 2
				continue
			}
			begin, ok := operand(tokens[:i-1])
			if was, again := added[before]; again {
				begin, ok = was, true
			}
			if !ok {
				return nil, at(tokens[i-1].from, "put the time before it in parentheses", "it is not clear what the interval is added to")
			}
			if tokens[i-1].symbol("-") {
				ms = -ms
			}
			added[end] = begin
			edits = append(edits, edit{tokens[begin].from, tokens[begin].from, "time_add("}, edit{tokens[i-1].from, end, fmt.Sprintf(", %d)", int64(ms))})
		} else {
			number[end] = true
			edits = append(edits, edit{t.from, end, strconv.FormatInt(int64(ms), 10)})
		}
		i += 2
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Or(a.from-b.from, a.to-b.to) })
	out := &rewritten{}
	keep := func(from, to int) {
		out.places = append(out.places, place{out.text.Len(), from})
		out.text.WriteString(s[from:to])
	}
	done := 0
	for _, e := range edits {
		keep(done, e.from)
		out.text.WriteString(e.with)
		done = max(done, e.to)
	}
	keep(done, len(s))
	return out, nil
}

// operand returns where the operand begins that tokens end with: a name, a value, a call, or something in parentheses.
func operand(tokens []token) (begin int, ok bool) {
	i := len(tokens) - 1
	if i < 0 {
		return 0, false
	}
	if tokens[i].symbol(")") {
		depth := 0
		for ; i >= 0; i-- {
			if tokens[i].symbol(")") {
				depth++
			} else if tokens[i].symbol("(") {
				if depth--; depth == 0 {
					break
				}
			}
		}
		if i < 0 {
			return 0, false
		}
		if i > 0 && (tokens[i-1].kind == word && !tokens[i-1].is("AND", "OR", "NOT", "IN", "WHERE", "SELECT", "BY", "ON", "HAVING", "BETWEEN", "WHEN", "THEN", "ELSE", "AS") || tokens[i-1].kind == quoted) {
			i--
		}
		return i, true
	}
	if k := tokens[i].kind; k == symbol {
		return 0, false
	}
	for i >= 2 && tokens[i-1].symbol(".") {
		i -= 2
	}
	if i >= 1 && tokens[i].kind == text && tokens[i-1].is("TIMESTAMP") {
		i--
	}
	return i, true
}
