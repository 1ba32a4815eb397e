package console

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/terminal"
)

// view prints alerts as they come, a line each.
type view struct {
	mu    sync.Mutex
	w     io.Writer
	json  bool
	color bool
	now   func() time.Time
	last  error
}

func newView(w io.Writer, json bool) *view {
	f, ok := w.(*os.File)
	return &view{w: w, json: json, now: time.Now, color: ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""}
}

const (
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	dim    = "\x1b[2m"
	plain  = "\x1b[0m"
)

func (v *view) paint(s, c string) terminal.Safe {
	text := terminal.Text(s)
	if v.color {
		text = c + text + plain
	}
	return terminal.Safe(text)
}

func (v *view) alert(r alert.Record) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.json {
		b, err := r.Encode()
		if err == nil {
			_, err = terminal.Fprintln(v.w, terminal.Safe(terminal.JSON(b)))
		}
		v.last = err
		return
	}
	severity := v.paint(fmt.Sprintf("%-8s", r.Severity), yellow)
	if r.Severity == alert.Critical {
		severity = v.paint(fmt.Sprintf("%-8s", r.Severity), red)
	}
	count := fmt.Sprintf("%d events", r.Count)
	if r.State == alert.Opened {
		count += " so far"
	}
	// The day of today is left out.
	const clock = "15:04:05"
	form := clock
	if r.WindowStart.Format(day) != v.now().UTC().Format(day) {
		form = day + " " + clock
	}
	_, v.last = terminal.Fprintf(v.w, "%s %s  user %-12s window %s - %s  %s  %s\n", severity, fmt.Sprintf("%-6s", r.State), activity.UserText(r.UserID),
		r.WindowStart.Format(form), r.WindowEnd.Format(clock), count, v.paint(r.ID, dim))
}
