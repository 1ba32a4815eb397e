package terminal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"":                     "",
		"user 5, é 世 🙂 \\x1b":  "user 5, é 世 🙂 \\x1b",
		"\x1b]0;x\a":           `\x1b]0;x\a`,
		"a\nb\tc\r":            `a\nb\tc\r`,
		"\x00\x7f\u0085\u009b": `\x00\x7f\u0085\u009b`,
		"a\u202eb\u2066\u200b": `a\u202eb\u2066\u200b`,
		"\u2028\u00a0\ufeff":   `\u2028\u00a0\ufeff`,
		"\xff\xc3(":            `\xff\xc3(`,
		"\ufffd":               "\ufffd",
		"\U000e0041":           `\U000e0041`,
		// Characters that show nothing, although they are printable by their category.
		"a\u034fb\u200b\u200d":         `a\u034fb\u200b\u200d`,
		"\u115f\u1160\u3164\uffa0":     `\u115f\u1160\u3164\uffa0`,
		"\u180b\ufe0f\U000e0100":       `\u180b\ufe0f\U000e0100`,
		"\u2800\u3000":                 `\u2800\u3000`,
		"e\u0301 \u05d0 \u0e33 \uac00": "e\u0301 \u05d0 \u0e33 \uac00", // accents and letters of other scripts stay
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%q) = %s, want %s", in, got, want)
		}
	}
	if got := Lines("a\n\tb\r\x1b"); got != "a\n\tb\\r\\x1b" {
		t.Errorf("Lines: %q", got)
	}
}

type named string

type stringer struct{ s string }

func (s stringer) String() string { return s.s }

func TestArgumentsAreEscapedWhateverTheirType(t *testing.T) {
	const evil = "\x1b[2J\u202e"
	for _, arg := range []any{evil, named(evil), stringer{evil}, &stringer{evil}, errors.New(evil), []byte(evil), json.RawMessage(evil), []string{evil}, map[string]string{evil: evil}, struct{ A string }{evil}} {
		for _, format := range []string{"%s", "%v", "%-40s"} {
			if got := string(Sprintf(format, arg)); strings.Contains(got, "\x1b") || strings.Contains(got, "\u202e") || !strings.Contains(got, `\x1b[2J\u202e`) {
				t.Errorf("%T with %s: %q", arg, format, got)
			}
		}
	}
	var b bytes.Buffer
	if _, err := Fprintf(&b, "%s %d %.1f %v %v %5t\n", Safe("\x1b[31mred\x1b[0m"), 7, 1.5, time.Second, nil, true); err != nil || b.String() != "\x1b[31mred\x1b[0m 7 1.5 1s <nil>  true\n" {
		t.Errorf("%q, %v", &b, err)
	}
}

// TestInvisible goes through all bidirectional and invisible characters that an id may have in it.
func TestInvisible(t *testing.T) {
	for _, table := range []*unicode.RangeTable{unicode.Bidi_Control, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, unicode.Zl, unicode.Zp} {
		for r := range unicode.MaxRune {
			if !unicode.Is(table, r) {
				continue
			}
			if got := Text("a" + string(r) + "b"); strings.ContainsRune(got, r) || !strings.Contains(got, fmt.Sprintf("%04x", r)) {
				t.Errorf("Text keeps %U: %q", r, got)
			}
			var back string
			if got := JSON([]byte(`"a` + string(r) + `b"`)); bytes.ContainsRune(got, r) || json.Unmarshal(got, &back) != nil || back != "a"+string(r)+"b" {
				t.Errorf("JSON keeps %U: %s", r, got)
			}
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"a", "\x1b[2J", "\u202e\U000e0041", "\xff", `{"a":"\u0085\ud83d\ude42"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := Text(s); !printable(got, "") || Text(got) != got {
			t.Errorf("Text(%q) = %q", s, got)
		}
		if got := Lines(s); !printable(got, "\n\t") {
			t.Errorf("Lines(%q) = %q", s, got)
		}
		in, err := json.Marshal(map[string]string{"k" + s: s})
		if err != nil {
			t.Fatal(err)
		}
		got := JSON(in)
		if !printable(string(got), "\n\t") {
			t.Errorf("JSON(%q) = %q", in, got)
		}
		var want, have map[string]string
		if json.Unmarshal(in, &want) != nil || json.Unmarshal(got, &have) != nil || len(have) != 1 || have["k"+strings.ToValidUTF8(s, "\ufffd")] != want["k"+strings.ToValidUTF8(s, "\ufffd")] {
			t.Errorf("JSON(%q) = %q says something else", in, got)
		}
	})
}

func printable(s, keep string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune(keep, r) && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Bidi_Control, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector))
	})
}
