package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"spate/services/query"
	"spate/shared/terminal"
)

const promptHelp = `A statement ends with a semicolon. Arrow keys recall earlier lines, Tab completes tables, columns and keywords, and Ctrl-C stops a statement.
  \d          lists the tables
  \d TABLE    lists the columns of a table; an asterisk marks a column if a condition on it reduces how much spate reads
  \q          closes the prompt
`

// prompt reads statements from the terminal until its end.
func (c *sqlCommand) prompt(e *env, db *query.DB) error {
	in := int(os.Stdin.Fd())
	state, err := term.MakeRaw(in)
	if err != nil {
		return err
	}
	defer func() { _ = term.Restore(in, state) }()
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil || width <= 0 || height <= 0 { // some terminals do not know
		width, height = 80, 24
	}
	p := newPrompt(c, db, os.Stdin, os.Stdout)
	if err := p.t.SetSize(width, height); err != nil {
		return err
	}
	if p.width = width; c.Wide {
		p.width = 0
	}
	return p.run(e.ctx)
}

// sqlPrompt is a prompt. In its terminal, Ctrl-C is a key.
type sqlPrompt struct {
	command *sqlCommand
	db      *query.DB
	t       *term.Terminal
	keys    *typed
	width   int
}

// typed are keys that were read, so that Ctrl-C is seen while a statement runs.
type typed struct {
	keys chan []byte
	left []byte
}

// Read implements io.Reader.
func (k *typed) Read(p []byte) (int, error) {
	for len(k.left) == 0 {
		more, ok := <-k.keys
		if !ok {
			return 0, io.EOF
		}
		k.left = more
	}
	n := copy(p, k.left)
	k.left = k.left[n:]
	return n, nil
}

// interruptKey is Ctrl-C.
const interruptKey = 3

func newPrompt(c *sqlCommand, db *query.DB, in io.Reader, out io.Writer) *sqlPrompt {
	p := &sqlPrompt{command: c, db: db, keys: &typed{keys: make(chan []byte, 16)}}
	go func() { // ends with the input: a terminal's is that of the process
		defer close(p.keys.keys)
		for {
			b := make([]byte, 256)
			n, err := in.Read(b)
			if n > 0 {
				p.keys.keys <- b[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	p.t = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{p.keys, out}, "spate> ")
	p.t.AutoCompleteCallback = p.complete
	return p
}

func (p *sqlPrompt) run(ctx context.Context) error {
	terminal.Fprintf(p.t, "SQL over the log. Type help for a list of commands, or \\q to quit.\n")
	var statement []string
	for ctx.Err() == nil {
		p.t.SetPrompt("spate> ")
		if len(statement) > 0 {
			p.t.SetPrompt("  ...> ")
		}
		line, err := p.t.ReadLine()
		switch {
		case errors.Is(err, term.ErrPasteIndicator):
		case errors.Is(err, io.EOF):
			return nil // also Ctrl-C and Ctrl-D
		case err != nil:
			return err
		}
		word := strings.Fields(strings.TrimSuffix(strings.TrimSpace(line), ";"))
		if len(statement) == 0 && len(word) > 0 {
			switch strings.ToLower(word[0]) {
			case `\q`, "quit", "exit":
				return nil
			case "help", `\?`, `\h`:
				terminal.Fprintf(p.t, promptHelp)
				continue
			case `\d`:
				p.describe(word[1:])
				continue
			}
		}
		if len(statement) == 0 && len(word) == 0 {
			continue
		}
		statement = append(statement, line)
		if strings.HasSuffix(strings.TrimSpace(line), ";") {
			p.statement(ctx, strings.Join(statement, "\n"))
			statement = nil
		}
	}
	return ctx.Err()
}

// statement runs one, and stops it at Ctrl-C.
func (p *sqlPrompt) statement(ctx context.Context, text string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case more, ok := <-p.keys.keys:
				if !ok {
					cancel()
					return
				}
				if i := bytes.IndexByte(more, interruptKey); i >= 0 {
					cancel()
					continue
				}
				p.keys.left = append(p.keys.left, more...)
			case <-done:
				return
			}
		}
	}()
	o := newOut(p.t)
	o.width = p.width
	r := p.command.rows(o, true)
	s, err := p.db.Run(ctx, text, p.command.bounds(), r.output(false))
	close(done)
	<-watched
	err = o.end(errors.Join(err, r.end()))
	switch err = wrong(p.t, err); {
	case errors.Is(err, errStatement):
	case err != nil:
		terminal.Fprintf(p.t, "%s\n", err)
	default:
		terminal.Fprintf(p.t, "%s\n", terminal.Safe(summaryText(s)))
		for _, n := range s.Notes {
			terminal.Fprintf(p.t, "note: %s\n", n)
		}
		if s.Partial && s.By != query.ByRows {
			terminal.Fprintf(p.t, "%s\n", partialText(s, p.command.bounds()))
		}
	}
}

// describe lists tables, or the columns of one.
func (p *sqlPrompt) describe(names []string) {
	o := newOut(p.t)
	o.width = p.width
	found := false
	for _, t := range p.db.Tables() {
		if len(names) == 0 {
			o.printf("%s\n", t.Name)
			found = true
			continue
		}
		if !strings.EqualFold(t.Name, names[0]) {
			continue
		}
		found = true
		table := terminal.Table{Columns: []terminal.Column{{Head: "COLUMN"}, {Head: "TYPE"}, {Head: "NARROWS"}}}
		for _, c := range t.Columns {
			mark, kind := "", c.Type
			if c.Prunes {
				mark = "*"
			}
			if kind == "" {
				kind = "number or text"
			}
			table.Row(c.Name, kind, mark)
		}
		o.lines(table.Lines(o.width))
	}
	if !found {
		o.printf("table %s does not exist; \\d lists the tables\n", names[0])
	}
	_ = o.end(nil) // to the terminal
}

// sqlWords are completed beside tables and columns.
var sqlWords = []string{
	"SELECT", "FROM", "WHERE", "GROUP BY", "HAVING", "ORDER BY", "LIMIT", "COUNT(*)", "INTERVAL", "BETWEEN", "DISTINCT", "TUMBLE_START(", "TUMBLE_END(", "TO_EPOCH_MS(", "FROM_EPOCH_MS(",
}

// complete is what Tab does: it completes the word before the cursor as far as all names that begin like it agree.
func (p *sqlPrompt) complete(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' || pos > len(line) {
		return "", 0, false
	}
	from := pos
	for from > 0 && (line[from-1] == '_' || line[from-1] == '\\' || line[from-1] >= '0' && line[from-1] <= '9' || line[from-1]|0x20 >= 'a' && line[from-1]|0x20 <= 'z') {
		from--
	}
	word := line[from:pos]
	if word == "" {
		return "", 0, false
	}
	var names []string
	for _, t := range p.db.Tables() {
		names = append(names, t.Name)
		for _, c := range t.Columns {
			names = append(names, c.Name)
		}
	}
	names = slices.DeleteFunc(append(names, sqlWords...), func(n string) bool {
		return len(n) < len(word) || !strings.EqualFold(n[:len(word)], word)
	})
	if len(names) == 0 {
		return "", 0, false
	}
	slices.Sort(names)
	names = slices.Compact(names)
	common := names[0]
	for _, n := range names[1:] {
		for !strings.HasPrefix(strings.ToLower(n), strings.ToLower(common)) {
			common = common[:len(common)-1]
		}
	}
	if len(names) == 1 && !strings.HasSuffix(common, "(") {
		common += " "
	}
	return line[:from] + common + line[pos:], from + len(common), true
}
