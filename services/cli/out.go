package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"syscall"
	"time"

	"spate/shared/store"
	"spate/shared/terminal"
)

// out is where a command prints what it finds: lines for people, or a JSON object a line.
type out struct {
	*bufio.Writer
	enc *json.Encoder
	// width is how many cells a line has; 0 is any number.
	width int
	color bool
}

func newOut(w io.Writer) *out {
	b := bufio.NewWriter(w)
	enc := json.NewEncoder(terminal.JSONWriter(b))
	enc.SetEscapeHTML(false) // a user stays what it was
	return &out{Writer: b, enc: enc, width: terminal.Width(w), color: terminal.Colors(w)}
}

// printf prints for people, args escaped; the writer keeps its first error for the end.
func (o *out) printf(format string, args ...any) { terminal.Fprintf(o.Writer, format, args...) }

// lines prints some.
func (o *out) lines(lines []terminal.Safe) {
	for _, l := range lines {
		o.printf("%s\n", l)
	}
}

// paint returns text in a color, escaped, if the terminal has colors.
func (o *out) paint(text, color string) terminal.Safe {
	safe := terminal.Safe(terminal.Text(text))
	if !o.color {
		return safe
	}
	return terminal.Paint(safe, color)
}

// json prints an object on a line of its own. If writing fails, end returns that as well.
func (o *out) json(v any) error { return o.enc.Encode(v) }

// end prints what is left, and returns err, or why printing failed. A reader that closes the pipe early, as head does, is not a failure.
func (o *out) end(err error) error {
	if ferr := o.Flush(); err == nil {
		err = ferr
	}
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

// listFlags are those of commands that list.
type listFlags struct {
	Limit *int `placeholder:"N" help:"List at most the newest N; 0 lists all. Default: 50, or all with --json."`
	Wide  bool `short:"w" help:"Do not truncate lines to fit the terminal."`
}

// peopleRead is how many lines are printed unless another number is asked for.
const peopleRead = 50

// atMost is how many are listed.
func (f listFlags) atMost(json bool) int {
	switch {
	case f.Limit != nil:
		return *f.Limit
	case json:
		return 0
	}
	return peopleRead
}

// listing is how a list is printed: as JSON, an object a line, or for people, a row each.
type listing[T any] struct {
	json    bool
	object  func(T) any
	columns []terminal.Column
	row     func(o *out, x T) []any
	// none is said, on standard error, where there is nothing to list.
	none string
	// unknown, if it is set, is asked where there is nothing to list: whether what is wanted cannot exist, which it has said then, or returns as an error.
	unknown func() (said bool, err error)
}

// page is how many rows of a long list are aligned together.
const page = 1000

// pages prints the rows of a long list as they come, a page at a time, below one head.
type pages struct {
	o       *out
	table   terminal.Table
	printed int
}

func newPages(o *out, columns []terminal.Column) *pages {
	return &pages{o: o, table: terminal.Table{Columns: slices.Clone(columns)}}
}

func (p *pages) row(cells []any) {
	p.table.Row(cells...)
	if len(p.table.Rows) == page {
		p.flush()
	}
}

// flush prints the rows that wait for their page to be full.
func (p *pages) flush() {
	if len(p.table.Rows) == 0 {
		return
	}
	lines := p.table.Lines(p.o.width)
	if p.printed > 0 {
		lines = lines[1:] // without the head
	}
	p.o.lines(lines)
	p.printed += len(p.table.Rows)
	p.table.Keep()
}

// list prints a list, the newest last: in a terminal that is where the eye is. Without a limit the list comes with the oldest first, and is
// printed as it comes; else it comes with the newest first.
func list[T any](e *env, f listFlags, l listing[T], read func(limit int) iter.Seq2[T, error]) error {
	o := newOut(e.stdout)
	if f.Wide {
		o.width = 0
	}
	limit := f.atMost(l.json)
	rows := newPages(o, l.columns)
	found := false
	one := func(x T) error {
		found = true
		if l.json {
			return o.json(l.object(x))
		}
		rows.row(l.row(o, x))
		return nil
	}
	more := false
	if limit == 0 {
		for x, err := range read(0) {
			if err == nil {
				err = one(x)
			}
			if err != nil {
				return o.end(err)
			}
		}
	} else {
		all, err := store.Collect(read(limit + 1)) // one more shows whether there are others
		if err != nil {
			return err
		}
		more = len(all) > limit
		all = all[:min(len(all), limit)]
		slices.Reverse(all)
		for _, x := range all {
			if err := one(x); err != nil {
				return o.end(err)
			}
		}
	}
	rows.flush()
	if err := o.end(nil); err != nil {
		return err
	}
	if !found && l.unknown != nil {
		if said, err := l.unknown(); said || err != nil {
			return err
		}
	}
	switch {
	case l.json:
	case !found:
		terminal.Fprintln(e.stderr, terminal.Safe(l.none))
	case more:
		terminal.Fprintf(e.stderr, "(showing the newest %d; use --limit 0 to list all)\n", limit)
	}
	return nil
}

const (
	instant = "2006-01-02T15:04:05.000Z07:00"
	day     = "2006-01-02"
	clock   = "15:04:05"
)

// clockText writes a time, UTC, for people who know that: without the day if it is today.
func clockText(t, now time.Time) string {
	form := clock
	if t.Nanosecond() != 0 {
		form += ".000"
	}
	if t = t.UTC(); t.Format(day) != now.UTC().Format(day) {
		form = day + " " + form
	}
	return t.Format(form)
}

// windowText writes a window: its start, and how long it is.
func windowText(start, end, now time.Time) string {
	return clockText(start, now) + " +" + short(end.Sub(start))
}

// short writes a duration without parts that are 0: 1m, not 1m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// counted writes a number of things: 1 try, 2 tries.
func counted[N int | int64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return terminal.Grouped(n) + " " + many
}

// sentence prints a text, escaped, in lines that fit between words.
func (o *out) sentence(text string) {
	line := ""
	for _, word := range strings.Fields(terminal.Text(text)) {
		if o.width > 0 && line != "" && len([]rune(line))+1+len([]rune(word)) > o.width {
			o.printf("%s\n", terminal.Safe(line))
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	o.printf("%s\n", terminal.Safe(line))
}

// events prints a table of events. Columns behind the first ones that have no room at all are left out.
func (o *out) events(t *terminal.Table, first int) {
	left := 0
	for o.width > 0 && len(t.Columns) > first && t.Narrowest() > o.width {
		t.Drop()
		left++
	}
	o.lines(t.Lines(o.width))
	if left > 0 {
		o.printf("(%s more; use --wide to print events in full)\n", counted(left, "field", "fields"))
	}
}
