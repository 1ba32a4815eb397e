package cli

import (
	"fmt"
	"slices"
	"strings"
)

const (
	// diffContext is how many equal lines are shown around those that differ.
	diffContext = 3
	// maxDiffCells bounds the table of a comparison; texts that differ more are shown as replaced altogether.
	maxDiffCells = 4 << 20
)

// edit is a line of two texts: of both (' '), of the first ('-') or of the second ('+').
type edit struct {
	sign byte
	line string
}

// unified compares two texts line by line, as diff -u does; nothing if they are equal.
func unified(fromName, toName, from, to string) []string {
	edits := lineEdits(textLines(from), textLines(to))
	if !slices.ContainsFunc(edits, func(e edit) bool { return e.sign != ' ' }) {
		return nil
	}
	out := []string{"--- " + fromName, "+++ " + toName}
	a, b := 0, 0 // lines of the texts before the edit
	for i := 0; i < len(edits); {
		next := i
		for next < len(edits) && edits[next].sign == ' ' {
			next++
		}
		if next == len(edits) {
			break
		}
		start := max(i, next-diffContext)
		a, b = a+start-i, b+start-i
		end, quiet := next, 0
		for ; end < len(edits) && quiet <= 2*diffContext; end++ {
			if quiet++; edits[end].sign != ' ' {
				quiet = 0
			}
		}
		end -= max(0, quiet-diffContext)
		var lines []string
		fromLines, toLines := 0, 0
		for _, e := range edits[start:end] {
			lines = append(lines, string(e.sign)+e.line)
			if e.sign != '+' {
				fromLines++
			}
			if e.sign != '-' {
				toLines++
			}
		}
		out = append(out, fmt.Sprintf("@@ -%s +%s @@", hunkRange(a, fromLines), hunkRange(b, toLines)))
		out = append(out, lines...)
		a, b, i = a+fromLines, b+toLines, end
	}
	return out
}

// hunkRange names lines of a text, after those before it.
func hunkRange(before, n int) string {
	if n > 0 {
		before++
	}
	return fmt.Sprintf("%d,%d", before, n)
}

// textLines are the lines of a text. A last line that does not end is marked, because it is not the same as one that does.
func textLines(text string) []string {
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	if n := len(lines) - 1; lines[n] == "" {
		return lines[:n]
	}
	lines[len(lines)-1] += " (no newline at the end)"
	return lines
}

// lineEdits turns one list of lines into the other, by their longest common subsequence.
func lineEdits(a, b []string) (out []edit) {
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		out = append(out, edit{' ', a[head]})
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	x, y := a[head:len(a)-tail], b[head:len(b)-tail]
	i, j := 0, 0
	if width := len(y) + 1; (len(x)+1)*width <= maxDiffCells {
		common := make([]int32, (len(x)+1)*width) // of x[i:] and y[j:]
		for i := len(x) - 1; i >= 0; i-- {
			for j := len(y) - 1; j >= 0; j-- {
				if x[i] == y[j] {
					common[i*width+j] = common[(i+1)*width+j+1] + 1
				} else {
					common[i*width+j] = max(common[(i+1)*width+j], common[i*width+j+1])
				}
			}
		}
		for i < len(x) && j < len(y) {
			switch {
			case x[i] == y[j]:
				out = append(out, edit{' ', x[i]})
				i, j = i+1, j+1
			case common[(i+1)*width+j] >= common[i*width+j+1]:
				out = append(out, edit{'-', x[i]})
				i++
			default:
				out = append(out, edit{'+', y[j]})
				j++
			}
		}
	}
	for _, line := range x[i:] {
		out = append(out, edit{'-', line})
	}
	for _, line := range y[j:] {
		out = append(out, edit{'+', line})
	}
	for _, line := range a[len(a)-tail:] {
		out = append(out, edit{' ', line})
	}
	return out
}
