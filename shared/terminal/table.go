package terminal

import (
	"slices"
	"strconv"
	"strings"

	"github.com/rivo/uniseg"
)

// Table is rows whose cells are aligned by column, and that fit the width of a terminal.
type Table struct {
	Columns []Column
	Rows    [][]Safe // a cell for each column
}

// Column of a Table.
type Column struct {
	Head  string
	Right bool // aligned right, as numbers are
	// Min is the width that it has at least, in cells.
	Min int
	// Floor, if it is not 0, lets the column be cut to as little as this where a line has no room. The rightmost of these gives way first.
	Floor int
	// Prefix: a cell that is cut ends without a mark, for a part of it serves as well, as that of an id does.
	Prefix bool
}

// Row adds one. A cell that is not [Safe] is escaped.
func (t *Table) Row(cells ...any) {
	row := make([]Safe, len(cells))
	for i, c := range cells {
		row[i] = Sprintf("%v", c)
	}
	t.Rows = append(t.Rows, row)
}

// Keep forgets the rows, and keeps the columns as wide as they made them, for more rows below.
func (t *Table) Keep() {
	for i := range t.Columns {
		t.Columns[i].Min = t.width(i)
	}
	t.Rows = nil
}

// width is how wide a column wants to be.
func (t *Table) width(i int) int {
	width := max(t.Columns[i].Min, Cells(Safe(Text(t.Columns[i].Head))))
	for _, row := range t.Rows {
		width = max(width, Cells(row[i]))
	}
	return width
}

// Narrowest is how wide the lines are at least.
func (t *Table) Narrowest() int {
	total := gap * (len(t.Columns) - 1)
	for i, c := range t.Columns {
		w := t.width(i)
		if c.Floor > 0 {
			w = min(w, c.Floor)
		}
		total += w
	}
	return total
}

// Drop removes the last column.
func (t *Table) Drop() {
	n := len(t.Columns) - 1
	t.Columns = t.Columns[:n]
	for i := range t.Rows {
		t.Rows[i] = t.Rows[i][:n]
	}
}

const gap = 2 // cells between two columns

// aligned is how far lines without a width are aligned: one key of thousands of characters must not pad the lines of all others to its length.
const aligned = 60

// Lines returns the head and the rows. A width of 0 is as wide as it gets, and cells of columns with a Floor that are longer than most push what follows to the right;
// above it, these columns are cut.
func (t *Table) Lines(width int) []Safe {
	head := make([]Safe, len(t.Columns))
	widths := make([]int, len(t.Columns))
	for i, c := range t.Columns {
		head[i] = Safe(Text(c.Head))
		if widths[i] = t.width(i); width == 0 && c.Floor > 0 && !c.Prefix {
			widths[i] = min(widths[i], aligned)
		}
	}
	total := gap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for i, c := range slices.Backward(t.Columns) {
		if width > 0 && total > width && c.Floor > 0 {
			if c.Prefix { // all or nothing: ids of any length would look like ids of no length
				total -= widths[i] - c.Floor
				widths[i] = c.Floor
				continue
			}
			less := min(total-width, max(0, widths[i]-c.Floor))
			widths[i] -= less
			total -= less
		}
	}
	out := make([]Safe, 0, len(t.Rows)+1)
	for _, row := range append([][]Safe{head}, t.Rows...) {
		var b strings.Builder
		for i, cell := range row {
			if width > 0 {
				cell = cut(cell, widths[i], !t.Columns[i].Prefix)
			}
			pad := strings.Repeat(" ", max(0, widths[i]-Cells(cell)))
			if t.Columns[i].Right {
				b.WriteString(pad + string(cell))
			} else {
				b.WriteString(string(cell) + pad)
			}
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", gap))
			}
		}
		out = append(out, Safe(strings.TrimRight(b.String(), " ")))
	}
	return out
}

// Colors of text; Plain ends one.
const (
	Red    = "\x1b[31m"
	Bold   = "\x1b[1m"
	Yellow = "\x1b[33m"
	Green  = "\x1b[32m"
	Dim    = "\x1b[2m"
	Plain  = "\x1b[0m"
)

// Paint returns text in a color.
func Paint(text Safe, color string) Safe { return Safe(color) + text + Plain }

// Cells returns how wide a line is shown: colors take nothing, 世 takes two cells.
func Cells(line Safe) int {
	n := 0
	for text := string(line); text != ""; {
		skip := colorAt(text)
		if skip == 0 {
			end := strings.IndexByte(text, '\x1b')
			if end <= 0 {
				end = len(text)
			}
			n += uniseg.StringWidth(text[:end])
			skip = end
		}
		text = text[skip:]
	}
	return n
}

// Cut returns a line that is at most so many cells wide; … is in place of what is missing.
func Cut(line Safe, width int) Safe { return cut(line, width, true) }

func cut(line Safe, width int, mark bool) Safe {
	if Cells(line) <= width {
		return line
	}
	if width <= 0 {
		return ""
	}
	var b strings.Builder
	room, painted, state := width, false, -1
	if mark {
		room--
	}
	for text := string(line); text != ""; {
		if n := colorAt(text); n > 0 {
			painted = text[:n] != Plain
			b.WriteString(text[:n])
			text, state = text[n:], -1
			continue
		}
		cluster, _, cells, next := uniseg.FirstGraphemeClusterInString(text, state)
		if room -= cells; room < 0 {
			break
		}
		b.WriteString(cluster)
		text, state = text[len(cluster):], next
	}
	if mark {
		b.WriteString("…")
	}
	if painted {
		b.WriteString(Plain)
	}
	return Safe(b.String())
}

// colorAt returns the length of the color that text begins with, 0 if it is none.
func colorAt(text string) int {
	if !strings.HasPrefix(text, "\x1b[") {
		return 0
	}
	return strings.IndexByte(text, 'm') + 1
}

// Grouped writes a number with commas between thousands.
func Grouped[N int | int64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
