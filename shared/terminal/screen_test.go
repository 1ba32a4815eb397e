package terminal

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// page is a terminal as far as a Screen uses one: it shows what is written to it.
type page struct {
	width  int
	cuts   bool // what is too long, instead of wrapping it
	writes int
	rows   []string // the last one is where the cursor is
}

func (p *page) Write(b []byte) (int, error) {
	p.writes++
	for text := string(b); text != ""; {
		switch {
		case strings.HasPrefix(text, wrapOff), strings.HasPrefix(text, wrapOn):
			p.cuts = strings.HasPrefix(text, wrapOff)
			text = text[len(wrapOff):]
		case strings.HasPrefix(text, "\r\x1b["): // up, and erase what is below
			up := strings.IndexByte(text, 'A')
			n := 0
			for _, c := range text[3:up] {
				n = 10*n + int(c-'0')
			}
			p.rows = append(p.rows[:len(p.rows)-1-n], "")
			text = strings.TrimPrefix(text[up+1:], "\x1b[J")
		case text[0] == '\n':
			p.rows = append(p.rows, "")
			text = text[1:]
		default:
			end := strings.IndexAny(text, "\n\r")
			if end < 0 {
				end = len(text)
			}
			for _, c := range text[:end] { // each takes a cell
				last := &p.rows[len(p.rows)-1]
				if len([]rune(*last)) == p.width && p.cuts {
					break
				}
				if len([]rune(*last)) == p.width {
					p.rows = append(p.rows, "")
					last = &p.rows[len(p.rows)-1]
				}
				*last += string(c)
			}
			text = text[end:]
		}
	}
	return len(b), nil
}

func onPage(width, height int) (*Screen, *page) {
	p := &page{width: width, rows: []string{""}}
	return &Screen{to: p, size: func() (int, int) { return p.width, height }}, p
}

func (p *page) is(t *testing.T, want ...string) {
	t.Helper()
	if got := strings.Join(p.rows, "\n"); got != strings.Join(append(want, ""), "\n") {
		t.Errorf("the page has\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, s *Screen, text string) {
	t.Helper()
	if n, err := s.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatal(n, err)
	}
}

func TestScreen(t *testing.T) {
	s, p := onPage(20, 10)
	write(t, s, "be")
	write(t, s, "gin\n")
	table, bar := s.Live(), s.Live()
	must(t, table.Set([]Safe{"one", "two"}))
	must(t, bar.Set([]Safe{"[==  ]"}))
	p.is(t, "begin", "one", "two", "[==  ]")
	write(t, s, "log 1\nlog") // its end is not there yet
	p.is(t, "begin", "log 1", "one", "two", "[==  ]")
	write(t, s, " 2\n")
	must(t, bar.Set([]Safe{"[====]"}))
	p.is(t, "begin", "log 1", "log 2", "one", "two", "[====]")
	must(t, table.Set([]Safe{"two"}, "one, for good"))
	p.is(t, "begin", "log 1", "log 2", "one, for good", "two", "[====]")
	must(t, bar.Close("done"))
	must(t, table.Close("two, for good"))
	write(t, s, "end\n")
	p.is(t, "begin", "log 1", "log 2", "one, for good", "done", "two, for good", "end")
}

// TestLineThatIsNotFinished: what was written before lines that change began stays on the screen.
func TestLineThatIsNotFinished(t *testing.T) {
	s, p := onPage(20, 10)
	write(t, s, "half a line")
	l := s.Live()
	must(t, l.Set([]Safe{"one"}))
	must(t, l.Set([]Safe{"two"}))
	p.is(t, "half a line", "two")
	write(t, s, "another")
	must(t, l.Close())
	must(t, s.Live().Close("done"))
	p.is(t, "half a line", "another", "done")
	write(t, s, "begin")
	must(t, s.Live().Close())
	write(t, s, " and end\n")
	p.is(t, "half a line", "another", "done", "begin and end")
}

// TestWideCharacters: a terminal that takes two cells for what is one elsewhere shows each line once all the same.
func TestWideCharacters(t *testing.T) {
	s, p := onPage(10, 10)
	l := s.Live()
	for range 3 {
		must(t, l.Set([]Safe{Safe(strings.Repeat("e\u0301", 10)), "below"}, "above"))
	}
	p.is(t, "above", "above", "above", strings.Repeat("e\u0301", 5), "below")
	writes := p.writes
	must(t, l.Set([]Safe{Safe(strings.Repeat("e\u0301", 10)), "below"}))
	if p.writes != writes {
		t.Error("what has not changed is drawn again")
	}
}

func TestScreenIsTooSmall(t *testing.T) {
	s, p := onPage(12, 4)
	l := s.Live()
	must(t, l.Set([]Safe{"a line that is too long", "b", "c", "d", "e"}))
	p.is(t, "a line that…", "b", "… and 3 mor…")
	p.width = 5 // what is there takes more rows now
	p.rows = []string{"a lin", "e tha", "t…", "b", "… and", " 3 mo", "r…", ""}
	must(t, l.Set([]Safe{"x"}))
	p.is(t, "x")
	must(t, l.Close())
	p.is(t)
}

func TestWhatIsNoTerminal(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/f")
	must(t, err)
	defer f.Close()
	if NewScreen(f) != nil || Is(f) || Width(f) != 0 || Colors(f) || Is(&bytes.Buffer{}) || Width(&bytes.Buffer{}) != 0 {
		t.Error("a file is taken for a terminal")
	}
	s, p := onPage(30, 10)
	if !Is(s) || Width(s) != 30 {
		t.Error("a screen is not")
	}
	p.width = 40
	if Width(s) != 40 {
		t.Error("its width is not that of now")
	}
	t.Setenv("NO_COLOR", "1")
	if Colors(s) {
		t.Error("colors")
	}
}

func TestTable(t *testing.T) {
	table := Table{Columns: []Column{{Head: "USER", Floor: 5}, {Head: "EVENTS", Right: true}, {Head: "ID", Floor: 4, Prefix: true}}}
	table.Row("u", 5, "0123456789")
	table.Row("a\tlong\x1bname", 12345, Paint("abcdefghij", Red))
	table.Row("世界世界", "", "x")
	lines := func(width int, want string) {
		t.Helper()
		var got []string
		for _, l := range table.Lines(width) {
			got = append(got, string(l))
		}
		if text := strings.Join(got, "\n"); text != strings.TrimPrefix(want, "\n") {
			t.Errorf("at %d cells\n%s\nwant%s", width, text, want)
		}
	}
	lines(0, `
USER             EVENTS  ID
u                     5  0123456789
a\tlong\x1bname   12345  `+"\x1b[31mabcdefghij\x1b[0m"+`
世界世界                 x`)
	lines(30, `
USER             EVENTS  ID
u                     5  0123
a\tlong\x1bname   12345  `+"\x1b[31mabcd\x1b[0m"+`
世界世界                 x`)
	lines(19, `
USER   EVENTS  ID
u           5  0123
a\tl…   12345  `+"\x1b[31mabcd\x1b[0m"+`
世界…          x`)
	table.Keep()
	table.Row("v", 6, "y")
	lines(0, `
USER             EVENTS  ID
v                     6  y`)
}

func TestCells(t *testing.T) {
	for text, want := range map[Safe]int{"": 0, "abc": 3, "世": 2, "e\u0301": 1, Paint("ab", Dim): 2, "…": 1, "👩‍👩‍👧": 2} {
		if got := Cells(text); got != want {
			t.Errorf("%q takes %d cells, want %d", text, got, want)
		}
	}
	for _, c := range []struct {
		line  Safe
		width int
		want  Safe
	}{{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"abc", 0, ""}, {"世界", 3, "世…"}, {"世界", 2, "…"}, {Paint("abcd", Red), 2, "\x1b[31ma…\x1b[0m"}, {"ab" + Paint("c", Red) + "de", 4, "ab" + Paint("c", Red) + "…"}} {
		if got := Cut(c.line, c.width); got != c.want {
			t.Errorf("%q cut to %d is %q, want %q", c.line, c.width, got, c.want)
		}
	}
}

// FuzzCut: whatever the text, a line is not wider than it may be, and is cut at no place that breaks a character.
func FuzzCut(f *testing.F) {
	f.Add("a世e\u0301👩‍👩‍👧", 3)
	f.Fuzz(func(t *testing.T, text string, width int) {
		width = min(max(width, 0), 100)
		line := Safe(Text(text))
		got := Cut(line, width)
		if Cells(got) > width {
			t.Errorf("%q cut to %d has %d cells: %q", line, width, Cells(got), got)
		}
		if !strings.HasPrefix(string(line), strings.TrimSuffix(string(got), "…")) {
			t.Errorf("%q cut to %d is %q", line, width, got)
		}
	})
}

// TestTableOfLongCells: where lines have no width, no cell is cut, and a long one does not pad the others.
func TestTableOfLongCells(t *testing.T) {
	table := Table{Columns: []Column{{Head: "USER", Floor: 5}, {Head: "ID"}}}
	long := strings.Repeat("k", 4000)
	table.Row("7", "a")
	table.Row(long, "b")
	lines := table.Lines(0)
	if want := "7" + strings.Repeat(" ", aligned+1) + "a"; string(lines[1]) != want || string(lines[2]) != long+"  b" {
		t.Errorf("%d and %d characters: %q", len(lines[1]), len(lines[2]), lines[1])
	}
}
