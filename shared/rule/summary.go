package rule

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxSummary bounds a summary with its columns put in, in bytes. A longer one is cut.
const MaxSummary = 1000

// summary is a template that is taken apart: text, then a column, and so on. A column of -1 is the end.
type summary []struct {
	text   string
	column int
}

// summary takes the rule's template apart. Its columns are those of the SELECT list, which compiling has checked.
func (r *Rule) summary() (out summary) {
	rest := r.Summary
	for rest != "" {
		at := placeholder.FindStringSubmatchIndex(rest)
		if at == nil {
			return append(out, summary{{rest, -1}}...)
		}
		i := slices.IndexFunc(r.Columns, func(c OutputColumn) bool { return c.Name == rest[at[2]:at[3]] })
		out = append(out, summary{{rest[:at[0]], i}}...)
		rest = rest[at[1]:]
	}
	return out
}

// AppendSummary appends the rule's summary of the row. Text of events is data: what cannot be seen, or controls a terminal or the order of letters, becomes U+FFFD.
func (p *Program) AppendSummary(b []byte) []byte {
	from := len(b)
	for _, part := range p.summary {
		b = append(b, part.text...)
		if part.column >= 0 {
			b = appendText(b, p.Rule.Columns[part.column].Type, p.Column(part.column))
		}
	}
	if len(b)-from > MaxSummary {
		end := from + MaxSummary - len("…")
		for !utf8.RuneStart(b[end]) {
			end--
		}
		b = append(b[:end], "…"...)
	}
	return b
}

// appendText appends a value as people read it.
func appendText(b []byte, t Type, v Value) []byte {
	var room [64]byte
	text := AppendJSON(room[:0], t, v)
	switch {
	case v.IsNull():
		return append(b, "NULL"...)
	case t.Kind == String:
		text = v.text
	case len(text) > 1 && text[0] == '"':
		parsed, _ := parseJSON(Type{Kind: String}, text)
		text = parsed.text
	}
	return append(b, strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, string(text))...)
}
