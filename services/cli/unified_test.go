package cli

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUnified(t *testing.T) {
	lines := func(from, to int) (text string) {
		for i := from; i <= to; i++ {
			text += fmt.Sprintln(i)
		}
		return text
	}
	for _, test := range []struct{ from, to, want string }{
		{"", "", ""},
		{"a\n", "a\n", ""},
		{"", "a\n", "@@ -0,0 +1,1 @@\n+a"},
		{"a\n", "", "@@ -1,1 +0,0 @@\n-a"},
		{"a\n", "a", "@@ -1,1 +1,1 @@\n-a\n+a (no newline at the end)"},
		{lines(1, 9), lines(1, 4) + "x\n" + lines(6, 9), "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+x\n 6\n 7\n 8"},
		{lines(1, 6), lines(2, 5), "@@ -1,6 +1,4 @@\n-1\n 2\n 3\n 4\n 5\n-6"},
		{lines(1, 20), lines(2, 19), "@@ -1,4 +1,3 @@\n-1\n 2\n 3\n 4\n@@ -17,4 +16,3 @@\n 17\n 18\n 19\n-20"},
		{lines(1, 3000), strings.ReplaceAll(lines(1, 3000), "\n", ".\n"), ""},
	} {
		got := unified("a", "b", test.from, test.to)
		if len(got) > 1000 { // too different to be compared line by line
			if want := []string{"--- a", "+++ b", "@@ -1,3000 +1,3000 @@", "-1"}; cmp.Diff(want, got[:4]) != "" || len(got) != 6003 {
				t.Errorf("%d lines: %q", len(got), got[:4])
			}
			continue
		}
		want := test.want
		if want != "" {
			want = "--- a\n+++ b\n" + want
		}
		if d := cmp.Diff(want, strings.Join(got, "\n")); d != "" {
			t.Errorf("%q, %q: %s", test.from, test.to, d)
		}
	}
	// Whatever the texts, what is added and removed makes one of the other.
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		text := func() (lines []string) {
			for range random.IntN(12) {
				lines = append(lines, string(rune('a'+random.IntN(4))))
			}
			return lines
		}
		a, b := text(), text()
		var x, y []string
		for _, e := range lineEdits(a, b) {
			if e.sign != '+' {
				x = append(x, e.line)
			}
			if e.sign != '-' {
				y = append(y, e.line)
			}
		}
		if cmp.Diff(a, x)+cmp.Diff(b, y) != "" {
			t.Fatalf("%q, %q: %q, %q", a, b, x, y)
		}
	}
}
