package activity

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// This file is the JSON grammar as encoding/json knows it. The skip functions take the index at which something
// begins and return the index behind it, or -1 if it is malformed.

// maxDepth is how deep arrays and objects may be nested, the limit of encoding/json.
const maxDepth = 10000

// skipSpace returns the index of the first byte at or after i that is not JSON white space.
func skipSpace(b []byte, i int) int {
	const space = 1<<' ' | 1<<'\t' | 1<<'\n' | 1<<'\r'
	for i < len(b) && b[i] <= ' ' && space>>b[i]&1 != 0 {
		i++
	}
	return i
}

// skipValue skips any value; depth is the number of arrays and objects around it.
func skipValue(b []byte, i, depth int) int {
	if i < len(b) && (b[i] == '{' || b[i] == '[') {
		return skipNested(b, i, depth)
	}
	return skipScalar(b, i)
}

// skipScalar skips any value but an array or an object.
func skipScalar(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		end, _ := skipString(b, i+1)
		return end
	case 't':
		return skipWord(b, i, "true")
	case 'f':
		return skipWord(b, i, "false")
	case 'n':
		return skipWord(b, i, "null")
	}
	return skipNumber(b, i)
}

func skipWord(b []byte, i int, word string) int {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return -1
	}
	return i + len(word)
}

func skipNumber[T []byte | string](b T, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	switch {
	case i < len(b) && b[i] == '0':
		i++
	default:
		if i = skipDigits(b, i); i < 0 {
			return -1
		}
	}
	if i < len(b) && b[i] == '.' {
		if i = skipDigits(b, i+1); i < 0 {
			return -1
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		i = skipDigits(b, i)
	}
	return i
}

// skipDigits skips one digit or more.
func skipDigits[T []byte | string](b T, i int) int {
	start := i
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	if i == start {
		return -1
	}
	return i
}

// isNumber reports whether the whole text is a JSON number.
func isNumber(text string) bool {
	return text != "" && skipNumber(text, 0) == len(text)
}

// skipString skips the rest of a string whose opening quote is the byte before i, the closing quote included. escaped
// reports whether it contains a backslash. Like encoding/json it does not mind invalid UTF-8.
func skipString(b []byte, i int) (end int, escaped bool) {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	for {
		// Eight bytes at a time until one is a quote, a backslash or a control character. A borrow can mark bytes
		// wrongly, but only ones above (behind) a byte that is marked rightly: the lowest mark is always true.
		for {
			if len(b)-i < 8 {
				for i < len(b) && b[i] != '"' && b[i] != '\\' && b[i] >= ' ' {
					i++
				}
				if i >= len(b) {
					return -1, escaped
				}
				break
			}
			x := binary.LittleEndian.Uint64(b[i:])
			quote, backslash := x^(ones*'"'), x^(ones*'\\') // a byte becomes 0 where x has it
			marks := ((quote - ones) | (backslash - ones) | (x - ones*' ')) &^ x & highs
			if marks != 0 {
				i += bits.TrailingZeros64(marks) / 8
				break
			}
			i += 8
		}
		switch b[i] {
		case '"':
			return i + 1, escaped
		case '\\':
			escaped = true
			if i = skipEscape(b, i+1); i < 0 {
				return -1, escaped
			}
		default:
			return -1, escaped
		}
	}
}

// skipEscape skips the rest of an escape sequence whose backslash is the byte before i.
func skipEscape(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 1
	case 'u':
		if i+5 <= len(b) && hex4(b[i+1:i+5]) >= 0 {
			return i + 5
		}
	}
	return -1
}

// skipNested skips an array or object that begins at i and has depth others around it. It is a loop, not a
// recursion: what is nested 10000 deep costs no stack.
func skipNested(b []byte, i, depth int) int {
	var objects [(maxDepth + 63) / 64]uint64 // bit d: what is open at depth d is an object
	outer := depth
	for {
		// A value begins at i.
		if i < len(b) && (b[i] == '{' || b[i] == '[') {
			if depth == maxDepth {
				return -1
			}
			object := b[i] == '{'
			objects[depth/64] &^= 1 << (depth % 64)
			closing := byte(']')
			if object {
				objects[depth/64] |= 1 << (depth % 64)
				closing = '}'
			}
			depth++
			i = skipSpace(b, i+1)
			if i >= len(b) {
				return -1
			}
			if b[i] != closing {
				if object {
					if i = skipName(b, i); i < 0 {
						return -1
					}
				}
				continue
			}
		} else {
			if i = skipScalar(b, i); i < 0 {
				return -1
			}
			i = skipSpace(b, i)
		}

		// A value, or an opening bracket whose closing one follows, is behind us: close what ends here.
		for {
			if i >= len(b) {
				return -1
			}
			object := objects[(depth-1)/64]>>((depth-1)%64)&1 != 0
			if b[i] == ',' {
				i = skipSpace(b, i+1)
				if object {
					if i = skipName(b, i); i < 0 {
						return -1
					}
				}
				break
			}
			if object && b[i] != '}' || !object && b[i] != ']' {
				return -1
			}
			i++
			if depth--; depth == outer {
				return i
			}
			i = skipSpace(b, i)
		}
	}
}

// skipName skips the name of a member, the colon and the white space around it: the value begins at the result.
func skipName(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	if i, _ = skipString(b, i+1); i < 0 {
		return -1
	}
	return skipColon(b, i)
}

// skipColon skips a colon and the white space around it.
func skipColon(b []byte, i int) int {
	i = skipSpace(b, i)
	if i >= len(b) || b[i] != ':' {
		return -1
	}
	return skipSpace(b, i+1)
}

// hex4 returns the number of four hexadecimal digits, or -1.
func hex4(b []byte) rune {
	var r rune
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// appendUnquoted appends what the inside of a well-formed JSON string stands for. As in encoding/json, invalid UTF-8
// and lone surrogates become U+FFFD, each byte and each escape one; exact is false if there were any.
func appendUnquoted(b, inside []byte) (text []byte, exact bool) {
	exact = true
	for i := 0; i < len(inside); {
		c := inside[i]
		switch {
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRune(inside[i:])
			exact = exact && (r != utf8.RuneError || size != 1)
			b = utf8.AppendRune(b, r)
			i += size
			continue
		case c != '\\':
			b = append(b, c)
			i++
			continue
		}
		c = inside[i+1]
		i += 2
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r := hex4(inside[i:])
			i += 4
			if utf16.IsSurrogate(r) {
				r2 := rune(-1)
				if i+6 <= len(inside) && inside[i] == '\\' && inside[i+1] == 'u' {
					r2 = hex4(inside[i+2:])
				}
				if r = utf16.DecodeRune(r, r2); r == utf8.RuneError {
					exact = false // the second escape, if any, stands for itself
				} else {
					i += 6
				}
			}
			b = utf8.AppendRune(b, r)
			continue
		}
		b = append(b, c)
	}
	return b, exact
}

// appendQuoted appends text as a JSON string in canonical form, which is the one that encoding/json writes with
// SetEscapeHTML(false): escaped are only quote, backslash, control characters, U+2028, U+2029 and, as \ufffd,
// invalid UTF-8.
func appendQuoted[T []byte | string](b []byte, text T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(text); {
		run := i
		for i < len(text) && text[i] >= ' ' && text[i] < utf8.RuneSelf && text[i] != '"' && text[i] != '\\' {
			i++
		}
		b = append(b, text[run:i]...)
		if i == len(text) {
			break
		}
		c := text[i]
		if c >= utf8.RuneSelf {
			r, size := decodeRune(text, i)
			switch {
			case r == utf8.RuneError && size == 1:
				b = append(b, `\ufffd`...)
			case r == '\u2028' || r == '\u2029':
				b = append(b, `\u202`...)
				b = append(b, hex[r&0xf])
			default:
				b = append(b, text[i:i+size]...)
			}
			i += size
			continue
		}
		i++
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\b':
			b = append(b, `\b`...)
		case c == '\f':
			b = append(b, `\f`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, `\u00`...)
			b = append(b, hex[c>>4], hex[c&0xf])
		}
	}
	return append(b, '"')
}

// decodeRune decodes the UTF-8 sequence at i. The conversion is of at most four bytes, so it stays on the stack.
func decodeRune[T []byte | string](text T, i int) (rune, int) {
	return utf8.DecodeRuneInString(string(text[i:min(i+utf8.UTFMax, len(text))]))
}

// AppendUnquoted appends what the inside of a well-formed JSON string stands for. Invalid UTF-8 and lone surrogates become U+FFFD.
func AppendUnquoted(b, inside []byte) []byte {
	b, _ = appendUnquoted(b, inside)
	return b
}
