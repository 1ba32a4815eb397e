package terminal

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/term"
)

// Screen is a terminal with two kinds of lines: those that stay, in the order in which they are written, and below them those that are
// drawn anew when they change ([Screen.Live]). What is written through it, a log for example, never ends up in the middle of a line that changes.
//
// A Screen is also the io.Writer of the lines that stay.
type Screen struct {
	size func() (width, height int)

	mu            sync.Mutex
	to            io.Writer
	live          []*Live
	drawn         []int  // cells of each live line that is on the screen
	width, height int    // when they were drawn by a change
	rest          []byte // written, and no line yet
	open          bool   // the line of the cursor has text, which stays
}

// NewScreen returns the screen that f is, or nil if f is not a terminal, or one that cannot move its cursor.
func NewScreen(f *os.File) *Screen {
	if !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return &Screen{to: f, size: func() (int, int) { return size(f) }}
}

const defaultWidth, defaultHeight = 80, 24

func size(f *os.File) (width, height int) {
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return defaultWidth, defaultHeight
	}
	return width, height
}

// Is reports whether w is a terminal.
func Is(w io.Writer) bool {
	switch w := w.(type) {
	case *Screen:
		return true
	case *os.File:
		return term.IsTerminal(int(w.Fd()))
	}
	return false
}

// Width returns how many cells a line of w has; 0 is any number, as in a file.
func Width(w io.Writer) int {
	width := 0
	switch w := w.(type) {
	case *Screen:
		width, _ = w.size()
	case *os.File:
		if Is(w) {
			width, _ = size(w)
		}
	}
	return width
}

// Colors reports whether text for w may have colors: it is a terminal, and https://no-color.org does not forbid them.
func Colors(w io.Writer) bool {
	return Is(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// Write implements io.Writer. What is not a whole line yet waits for its end while lines change below it.
func (s *Screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = append(s.rest, p...)
	end := bytes.LastIndexByte(s.rest, '\n') + 1
	if len(s.live) == 0 {
		end = len(s.rest)
	}
	if end == 0 {
		return len(p), nil
	}
	var b bytes.Buffer
	s.erase(&b)
	s.put(&b, s.rest[:end])
	s.draw(&b)
	s.rest = s.rest[:copy(s.rest, s.rest[end:])]
	if _, err := s.to.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// put writes text that stays.
func (s *Screen) put(b *bytes.Buffer, text []byte) {
	if len(text) > 0 {
		b.Write(text)
		s.open = text[len(text)-1] != '\n'
	}
}

// end ends a line that is not finished: what comes next is not part of it, and would be erased with it.
func (s *Screen) end(b *bytes.Buffer) {
	if s.open {
		b.WriteByte('\n')
		s.open = false
	}
}

// erase removes the live lines. A terminal that has become narrower since shows each in several rows.
func (s *Screen) erase(b *bytes.Buffer) {
	width, _ := s.size()
	rows := 0
	for _, cells := range s.drawn {
		rows += max(1, (cells+width-1)/width)
	}
	if rows > 0 {
		b.WriteString("\r\x1b[" + strconv.Itoa(rows) + "A\x1b[J")
	}
	s.drawn = s.drawn[:0]
}

// draw writes the live lines, as many as the screen has room for.
func (s *Screen) draw(b *bytes.Buffer) {
	width, height := s.size()
	var lines []Safe
	for _, l := range s.live {
		lines = append(lines, l.lines...)
	}
	if most := max(1, height-1); len(lines) > most {
		more := len(lines) - most + 1
		lines = append(slices.Clip(lines[:most-1]), Sprintf("… and %d more lines", more))
	}
	if len(lines) == 0 {
		return
	}
	s.end(b)
	// A terminal may take more cells for a character than it should, and a line that wraps would not be erased: it is cut there instead.
	b.WriteString(wrapOff)
	for _, line := range lines {
		line = Cut(line, width)
		s.drawn = append(s.drawn, Cells(line))
		b.WriteString(string(line))
		b.WriteByte('\n')
	}
	b.WriteString(wrapOn)
}

const wrapOff, wrapOn = "\x1b[?7l", "\x1b[?7h"

// Live is lines that change, below those that stay and below the Live that began before it.
type Live struct {
	s     *Screen
	lines []Safe
}

// Live begins to show lines that change. Whoever begins it calls Close.
func (s *Screen) Live() *Live {
	l := &Live{s: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = append(s.live, l)
	return l
}

// Set shows other lines. Those of stay are written above, for good, at the same moment.
func (l *Live) Set(lines []Safe, stay ...Safe) error {
	return l.s.change(func() (same bool) {
		same = slices.Equal(lines, l.lines)
		l.lines = slices.Clone(lines)
		return same
	}, stay)
}

// Close ends it, and leaves the lines of stay.
func (l *Live) Close(stay ...Safe) error {
	return l.s.change(func() (same bool) {
		l.s.live = slices.DeleteFunc(l.s.live, func(x *Live) bool { return x == l })
		return false
	}, stay)
}

// change does something to the live lines, and writes what stays. Nothing is written if all is the same, and on a screen of the same width.
func (s *Screen) change(do func() (same bool), stay []Safe) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	width, height := s.size()
	if same := do(); same && len(stay) == 0 && s.width == width && s.height == height {
		return nil
	}
	s.width, s.height = width, height
	var b bytes.Buffer
	s.erase(&b)
	for _, line := range stay {
		s.end(&b)
		b.WriteString(string(line))
		b.WriteByte('\n')
	}
	if len(s.live) == 0 { // nothing is below any more
		s.put(&b, s.rest)
		s.rest = s.rest[:0]
	}
	s.draw(&b)
	if b.Len() == 0 {
		return nil
	}
	_, err := s.to.Write(b.Bytes())
	return err
}
