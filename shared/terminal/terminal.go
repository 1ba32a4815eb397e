// Package terminal is for output that people read: text that is safe to show, colors, tables ([Table]), and lines that change below a log
// ([Screen]). What the text says is left to its callers.
//
// Untrusted text (users, ids, reasons, responses, file names, arguments) must not control the terminal that displays it: not move the cursor,
// rename the window, forge a line, or reverse one. This works as in html/template: formats are trusted, arguments are not. [Fprintf] and the other
// functions escape every argument except numbers and values of type [Safe], and return values of that type, so that no text is left unescaped
// by mistake.
package terminal

import (
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Safe is text that is shown as it is: it was escaped, or the program made it itself, such as colors.
type Safe string

// Text returns s with everything escaped that is not printed as itself: control characters (C0, DEL, C1), line ends, characters that
// change the direction of writing or cannot be seen, and bytes that are not UTF-8. Escapes are those of Go: \x1b, \n, \u202e, \xff.
func Text(s string) string { return escape(s, "") }

// Lines is [Text] for text of several lines, such as errors: line ends and tabs stay.
func Lines(s string) string { return escape(s, "\n\t") }

// visible reports whether a character is shown as itself. Some are printable by their category, and yet show nothing, so that two ids would look the same:
// fillers, joiners, variation selectors, and the empty pattern of Braille.
func visible(r rune) bool {
	return strconv.IsPrint(r) && (r < utf8.RuneSelf || r != '\u2800' && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector))
}

func escape(s, keep string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || !visible(r) && !strings.ContainsRune(keep, r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case visible(r) || strings.ContainsRune(keep, r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += n
	}
	return b.String()
}

// JSON returns JSON text that says the same and is safe to show: what [Text] escapes is escaped as JSON does. Line ends and tabs, which
// can only be between its values, stay; a byte that is not UTF-8 becomes U+FFFD, as it does for whoever decodes it.
func JSON(b []byte) []byte {
	var out []byte // nil: as b so far
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if plain := visible(r) || r == '\n' || r == '\t'; plain && (r != utf8.RuneError || n > 1) {
			if out != nil {
				out = append(out, b[i:i+n]...)
			}
			i += n
			continue
		}
		if out == nil {
			out = append(make([]byte, 0, len(b)+64), b[:i]...)
		}
		if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		} else {
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		i += n
	}
	if out == nil {
		return b
	}
	return out
}

// Sprintf formats args, escaped.
func Sprintf(format string, args ...any) Safe { return Safe(fmt.Sprintf(format, safe(args)...)) }

// Fprintf prints args, escaped.
func Fprintf(w io.Writer, format string, args ...any) (int, error) {
	return fmt.Fprintf(w, format, safe(args)...)
}

// Fprintln prints args, escaped, with spaces between them.
func Fprintln(w io.Writer, args ...any) (int, error) { return fmt.Fprintln(w, safe(args)...) }

// safe returns args as they can be formatted. Whatever its type, an argument is text that is escaped or a number.
func safe(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		out[i] = a
		v := reflect.ValueOf(a)
		if _, ok := a.(Safe); ok || !v.IsValid() || v.CanInt() || v.CanUint() || v.CanFloat() || v.Kind() == reflect.Bool {
			continue // the String method of a number, such as a duration, is not from outside
		}
		if err, ok := a.(error); ok {
			out[i] = Lines(err.Error())
			continue
		}
		if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
			a = string(v.Bytes())
		}
		out[i] = Text(fmt.Sprint(a))
	}
	return out
}

// Writer returns a writer of whole lines, such as logs, that are escaped on their way to w.
func Writer(w io.Writer) io.Writer {
	return writer{w, func(b []byte) []byte { return []byte(Lines(string(b))) }}
}

// JSONWriter returns a writer of whole JSON values that are escaped on their way to w.
func JSONWriter(w io.Writer) io.Writer { return writer{w, JSON} }

type writer struct {
	to     io.Writer
	escape func([]byte) []byte
}

func (w writer) Write(p []byte) (int, error) {
	if _, err := w.to.Write(w.escape(p)); err != nil {
		return 0, err // how much of p is out cannot be told once it is escaped
	}
	return len(p), nil
}
