// Command picture draws what spate demo shows in a terminal: go run ./tests/picture >docs/demo.svg
//
// It needs script, of util-linux, which is a terminal without a screen.
package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"spate/shared/terminal"
)

const (
	command            = "go run . demo"
	cell, line, margin = 8.4, 19, 16 // pixels
	background, plain  = "#0d1117", "#c9d1d9"
)

var colors = map[string]string{terminal.Red: "#ff7b72", terminal.Yellow: "#d29922", terminal.Green: "#7ee787", terminal.Dim: "#8b949e", terminal.Plain: plain}

func main() {
	if err := draw(); err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

func draw() error {
	demo := exec.Command("script", "--quiet", "--return", "--command", "stty cols 80 rows 40; "+command+" --console none", os.DevNull)
	demo.Stderr = os.Stderr
	out, err := demo.Output()
	if err != nil {
		return fmt.Errorf("run the demo: %w", err)
	}
	lines := append([]string{terminal.Green + "$ " + command + terminal.Plain}, screen(string(out))...)
	width := 0
	for _, l := range lines {
		width = max(width, terminal.Cells(terminal.Safe(l)))
	}
	var b bytes.Buffer
	w, h := float64(width)*cell+2*margin, len(lines)*line+2*margin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%d" viewBox="0 0 %.0f %d" role="img" aria-label="What spate demo shows">`+"\n", w, h, w, h)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" rx="8" fill="%s"/>`+"\n", background)
	b.WriteString(`<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="14" xml:space="preserve">` + "\n")
	for i, l := range lines {
		fmt.Fprintf(&b, `<text x="%d" y="%d">`, margin, margin+line*i+14)
		fill := plain
		for l != "" {
			if at := color.FindStringIndex(l); at != nil && at[0] == 0 {
				var known bool
				if fill, known = colors[l[:at[1]]]; !known {
					return fmt.Errorf("draw line %d: color %q is unknown", i+1, l[:at[1]])
				}
				l = l[at[1]:]
				continue
			}
			end := len(l)
			if at := color.FindStringIndex(l); at != nil {
				end = at[0]
			}
			fmt.Fprintf(&b, `<tspan fill="%s">%s</tspan>`, fill, escape(l[:end]))
			l = l[end:]
		}
		b.WriteString("</text>\n")
	}
	b.WriteString("</g>\n</svg>\n")
	_, err = os.Stdout.Write(b.Bytes())
	return err
}

var (
	color = regexp.MustCompile("\x1b\\[[0-9]*m")
	up    = regexp.MustCompile("\r\x1b\\[([0-9]+)A\x1b\\[J") // what terminal.Screen uses
)

// screen returns the lines that are there in the end.
func screen(out string) (lines []string) {
	out = strings.NewReplacer("\r\n", "\n", "\x1b[?7l", "", "\x1b[?7h", "").Replace(out)
	for out != "" {
		part := out
		at := up.FindStringSubmatchIndex(out)
		if at != nil {
			part = out[:at[0]]
		}
		lines = append(lines, strings.Split(strings.TrimSuffix(part, "\n"), "\n")...)
		if part == "" {
			lines = lines[:len(lines)-1]
		}
		if at == nil {
			return lines
		}
		n, _ := strconv.Atoi(out[at[2]:at[3]])
		lines = lines[:max(0, len(lines)-n)]
		out = out[at[1]:]
	}
	return lines
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}
