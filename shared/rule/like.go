package rule

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// pattern is what LIKE, SIMILAR TO and REGEXP match.
type pattern struct {
	regexp  *regexp.Regexp
	parts   []part // of LIKE
	always  bool   // LIKE ” is true for every string in Flink
	never   bool
	dynamic bool // the pattern is not a constant
	escape  rune
}

// part is a piece of a LIKE pattern: text, one character, or any number of them.
type part struct {
	text []byte // nil for _ and %
	any  bool   // %
}

// likePattern compiles a pattern. A constant without ESCAPE takes the backslash for an escape only if there is a _ in it, as Flink does.
func likePattern(text string, escape rune, isConst bool) (p *pattern, problem string) {
	p = &pattern{escape: escape}
	if text == "" {
		p.always = true
		return p, ""
	}
	if escape < 0 && (!isConst || strings.ContainsRune(text, '_')) {
		escape = '\\'
	}
	runes := []rune(text)
	literal := func(r rune) {
		if n := len(p.parts); n > 0 && p.parts[n-1].text != nil {
			p.parts[n-1].text = utf8.AppendRune(p.parts[n-1].text, r)
		} else {
			p.parts = append(p.parts, part{text: utf8.AppendRune(nil, r)})
		}
	}
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		switch {
		case r == escape:
			if i+1 == len(runes) || !slices.Contains([]rune{'%', '_', escape}, runes[i+1]) {
				return nil, fmt.Sprintf("the escape %c in the pattern %q must precede %%, _ or itself", escape, text)
			}
			i++
			literal(runes[i])
		case r == '_':
			p.parts = append(p.parts, part{})
		case r == '%':
			if n := len(p.parts); n == 0 || !p.parts[n-1].any {
				p.parts = append(p.parts, part{any: true})
			}
		default:
			literal(r)
		}
	}
	return p, ""
}

// match reports whether the whole text matches. It takes time in proportion to text times pattern at most.
func (p *pattern) match(text []byte) bool {
	if p.always {
		return true
	}
	return matchParts(text, p.parts)
}

func matchParts(text []byte, parts []part) bool {
	backParts, backText := []part(nil), []byte(nil) // where to go on after the last %
	for {
		ok := true
		switch {
		case len(parts) == 0:
			if len(text) == 0 {
				return true
			}
			ok = false
		case parts[0].any:
			if len(parts) == 1 {
				return true
			}
			parts = parts[1:]
			backParts, backText = parts, text
			continue
		case parts[0].text == nil:
			if len(text) == 0 {
				return false
			}
			_, size := utf8.DecodeRune(text)
			text, parts = text[size:], parts[1:]
		case bytes.HasPrefix(text, parts[0].text):
			text, parts = text[len(parts[0].text):], parts[1:]
		default:
			ok = false
		}
		if ok {
			continue
		}
		if backParts == nil || len(backText) == 0 {
			return false
		}
		_, size := utf8.DecodeRune(backText)
		backText = backText[size:]
		if next := backParts[0].text; next != nil {
			at := bytes.Index(backText, next)
			if at < 0 {
				return false
			}
			backText = backText[at:]
		}
		text, parts = backText, backParts
	}
}

// similar compiles a pattern of SIMILAR TO: a regular expression in which % and _ stand for characters, and which must match the whole text.
func (c *checker) similar(text string, escape rune) (*pattern, string) {
	var b strings.Builder
	b.WriteString(`\A(?:`)
	escaped, class := false, false
	for _, r := range text {
		switch {
		case escaped:
			b.WriteString(regexp.QuoteMeta(string(r)))
			escaped = false
		case r == escape:
			escaped = true
		case class:
			b.WriteRune(r)
			class = r != ']'
		case r == '%':
			b.WriteString(`(?s:.*)`)
		case r == '_':
			b.WriteString(`(?s:.)`)
		case r == '[':
			class = true
			b.WriteRune(r)
		case strings.ContainsRune(`.^$\`, r):
			b.WriteString(regexp.QuoteMeta(string(r)))
		default:
			b.WriteRune(r)
		}
	}
	b.WriteString(`)\z`)
	re, err := c.compileRegexp(b.String())
	if err != nil {
		return nil, fmt.Sprintf("the pattern %q cannot be read: %v", text, err)
	}
	return &pattern{regexp: re}, ""
}
