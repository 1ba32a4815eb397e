package syntax

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Pos is a place in a script: a byte offset.
type Pos int

// Error is what is wrong at a place in a script.
type Error struct {
	Pos Pos
	// Message says what is wrong, and Fix what to write instead. Fix may be empty.
	Message, Fix string
}

// Errors are all that is wrong with a script, in the order of their places.
type Errors []Error

// Add appends an error, unless there are so many that nobody reads them.
func (e *Errors) Add(p Pos, fix, format string, args ...any) {
	if len(*e) == maxErrors {
		return
	}
	*e = append(*e, Error{Pos: p, Message: cut(fmt.Sprintf(format, args...)), Fix: cut(fix)})
}

// cut bounds a text that quotes a script.
func cut(text string) string {
	const ends = 500
	if len(text) <= 2*ends {
		return text
	}
	return strings.ToValidUTF8(text[:ends], "") + " … " + strings.ToValidUTF8(text[len(text)-ends:], "")
}

// Sort orders the errors by their place, and drops repeated ones.
func (e *Errors) Sort() {
	slices.SortStableFunc(*e, func(a, b Error) int { return int(a.Pos) - int(b.Pos) })
	*e = slices.Compact(*e)
}

// LineColumn returns the line and column of a place, both from 1. Columns count characters, not bytes.
func LineColumn(source string, p Pos) (line, column int) {
	before := source[:min(int(p), len(source))]
	line = 1 + strings.Count(before, "\n")
	return line, 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
}

// excerptWidth bounds how much of a line an error shows.
const excerptWidth = 100

// Format writes an error for people: "file:line:column: message", the line, a caret under the place, and the fix.
func (e Error) Format(file, source string) string {
	line, column := LineColumn(source, e.Pos)
	place := column
	at := min(int(e.Pos), len(source))
	from := strings.LastIndexByte(source[:at], '\n') + 1
	text := source[from:]
	if end := strings.IndexByte(text, '\n'); end >= 0 {
		text = text[:end]
	}
	text = text[:min(len(text), at-from+utf8.UTFMax*excerptWidth)] // it can be the whole file
	text = strings.TrimSuffix(text, "\r")
	if column > excerptWidth*3/4 { // a long line: begin in front of the place
		cut := at - from
		for n := 0; n < excerptWidth/2 && cut > 0; n++ {
			_, size := utf8.DecodeLastRuneInString(text[:cut])
			cut -= size
		}
		text, column = "…"+text[cut:], 2+utf8.RuneCountInString(text[cut:min(at-from, len(text))])
	}
	if r := []rune(text); len(r) > excerptWidth {
		text = string(r[:excerptWidth]) + "…"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: %s\n", file, line, place, e.Message)
	// Tabs are kept in front of the caret, so that it stands under its character whatever the width of a tab.
	indent := []rune(text)
	indent = indent[:min(column-1, len(indent))]
	for i, r := range indent {
		if r != '\t' {
			indent[i] = ' '
		}
	}
	fmt.Fprintf(&b, "    %s\n    %s^", text, string(indent))
	if e.Fix != "" {
		fmt.Fprintf(&b, " %s", e.Fix)
	}
	return b.String()
}
