package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"spate/shared/alert"
	"spate/shared/terminal"
)

// view prints alerts as they come. In a terminal the windows that have not ended are at the bottom and change in place, and each stays above, with
// its exact counts, when its last alert is closed. Elsewhere, as in a log, lines are added only. A flood, many users in one window, is one line
// in both: spate alerts ls has them all.
type view struct {
	w    io.Writer
	json bool
	now  func() time.Time
	out  *out

	live   *terminal.Live // nil: not a terminal
	headed bool           // the head of the columns is printed
	cells  int            // of the column of windows
	failed error          // the first error of printing

	// What comes in is only noted, and printed by a goroutine of the view: a terminal that is paused, or a pipe that nobody reads, holds up nothing else.
	mu         sync.Mutex
	windows    []*viewed // that have something to print, by their start
	remembered int       // alerts in them
	lines      [][]byte  // as JSON, that are not printed yet
	left       int       // lines for which there was no room

	wake chan struct{}
	quit chan struct{}
	done chan struct{}
}

// viewed is a window that is shown.
type viewed struct {
	start, end time.Time
	alerts     map[string]viewedAlert // by id, up to maxViewed
	open       int                    // of these, those that are not closed
	beyond     map[alert.State]int    // records of alerts beyond these; in a log, since the last line
	changed    time.Time              // when the last one came
	// In a log:
	news bool      // something is not printed yet
	said time.Time // when the last line was printed
}

// viewedAlert is an alert as it is now.
type viewedAlert struct {
	alert.Record
	printed bool
}

const (
	// viewEvery is how often what came is printed.
	viewEvery = 200 * time.Millisecond
	// viewRest is how long nothing has to come for a window whose alerts are all closed until it is done.
	viewRest = 2 * time.Second
	// viewAgain is how far apart lines of one window are in a log.
	viewAgain = 5 * time.Second
	// viewUsers is how many users of a window have a line each; of more, the first ones have, and one line is for the others.
	viewUsers = 4
	// maxViewed bounds the alerts that are remembered, and the JSON lines that wait.
	maxViewed = 10_000
	// viewEnd is how long the last lines may take to be printed.
	viewEnd = 2 * time.Second
)

// newView begins to show alerts. Whoever begins it calls close.
func newView(w io.Writer, json bool) *view {
	v := &view{w: w, json: json, now: time.Now, out: newOut(w), wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	if s, ok := w.(*terminal.Screen); ok && !json {
		v.live = s.Live()
	}
	go v.run()
	return v
}

func (v *view) run() {
	defer close(v.done)
	tick := time.NewTicker(viewEvery)
	defer tick.Stop()
	for end := false; !end; {
		select {
		case <-tick.C:
		case <-v.wake:
		case <-v.quit:
			end = true
		}
		if v.json {
			v.print()
		} else {
			v.show(end)
		}
	}
	if v.live != nil {
		v.failed = cmp.Or(v.failed, v.live.Close())
	}
}

// errUnread is why alerts were not printed if nobody reads them: a terminal that is paused, or a pipe that is full. It is not printed either.
var errUnread = errors.New("alerts are not read")

// close prints what is left, and returns why alerts were not printed, errUnread if it takes too long: who does not read must not keep the process.
// No alert may come after it.
func (v *view) close() error {
	close(v.quit)
	select {
	case <-v.done:
		if v.failed != nil {
			return fmt.Errorf("print alerts: %w", v.failed)
		}
		return nil
	case <-time.After(viewEnd):
		return errUnread
	}
}

// alert takes a record that is new. It never waits for the writer.
func (v *view) alert(r alert.Record) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.json {
		if len(v.lines) == maxViewed {
			v.left++
			return
		}
		if b, err := r.Encode(); err == nil { // it was stored
			v.lines = append(v.lines, b)
		}
		select {
		case v.wake <- struct{}{}:
		default:
		}
		return
	}
	w := v.window(r)
	w.changed, w.news = v.now(), true
	before, known := w.alerts[r.ID]
	if !known && v.remembered == maxViewed {
		w.beyond[r.State]++
		return
	}
	if known && before.State.Rank() >= r.State.Rank() {
		return
	}
	if known {
		w.open--
	} else {
		v.remembered++
	}
	if r.State != alert.Closed {
		w.open++
	}
	r.Evidence = alert.Evidence{} // which takes most of the room
	w.alerts[r.ID] = viewedAlert{Record: r}
}

// print writes the lines that wait.
func (v *view) print() {
	v.mu.Lock()
	lines, left := v.lines, v.left
	v.lines, v.left = nil, 0
	v.mu.Unlock()
	for _, l := range lines {
		terminal.Fprintln(v.out, terminal.Safe(terminal.JSON(l)))
	}
	if left > 0 {
		terminal.Fprintf(v.out, `{"left_out":%d}`+"\n", left)
	}
	if len(lines) > 0 {
		v.failed = cmp.Or(v.failed, v.out.end(nil))
	}
}

func (v *view) window(r alert.Record) *viewed {
	i, found := slices.BinarySearchFunc(v.windows, r, func(w *viewed, r alert.Record) int {
		return cmp.Or(w.start.Compare(r.WindowStart), w.end.Compare(r.WindowEnd))
	})
	if !found {
		v.windows = slices.Insert(v.windows, i, &viewed{start: r.WindowStart, end: r.WindowEnd, alerts: make(map[string]viewedAlert), beyond: make(map[alert.State]int)})
	}
	return v.windows[i]
}

// show prints what is to be printed by now; at the end, everything.
func (v *view) show(end bool) {
	stay, changing := v.due(end)
	if len(stay)+len(changing) > 0 && !v.headed {
		v.headed = true
		stay = append(v.head(), stay...)
	}
	var err error
	switch {
	case v.live != nil:
		err = v.live.Set(changing, stay...)
	case len(stay) > 0:
		v.out.lines(stay)
		err = v.out.end(nil)
	}
	v.failed = cmp.Or(v.failed, err)
}

// due returns the lines that are to be printed for good, and those that change.
func (v *view) due(end bool) (stay, changing []terminal.Safe) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	if v.cells == 0 && len(v.windows) > 0 {
		v.cells = len(windowText(v.windows[0].start, v.windows[0].end, now))
	}
	v.windows = slices.DeleteFunc(v.windows, func(w *viewed) bool {
		over := end || w.open == 0 && now.Sub(w.changed) >= viewRest
		switch {
		case v.live == nil:
			// The first alerts of a window are printed at once, and what comes meanwhile is one line.
			if w.news && (over || now.Sub(w.said) >= viewAgain) {
				users := viewUsers
				if w.open > 0 && !w.said.IsZero() {
					users = 1
				}
				stay = append(stay, v.rows(w, w.take(), users, now)...)
				clear(w.beyond)
				w.news, w.said = false, now
			}
		case over:
			stay = append(stay, v.rows(w, w.all(), viewUsers, now)...)
		default:
			changing = append(changing, v.rows(w, w.all(), viewUsers, now)...)
		}
		if over {
			v.remembered -= len(w.alerts)
		}
		return over
	})
	return stay, changing
}

// all returns the alerts.
func (w *viewed) all() []alert.Record {
	out := make([]alert.Record, 0, len(w.alerts))
	for _, a := range w.alerts {
		out = append(out, a.Record)
	}
	return out
}

// take returns the alerts that are not printed as they are, and takes them for printed.
func (w *viewed) take() (out []alert.Record) {
	for id, a := range w.alerts {
		if !a.printed {
			a.printed = true
			w.alerts[id] = a
			out = append(out, a.Record)
		}
	}
	return out
}

// viewWidths are those of the columns: lines that come one by one have to be below each other.
var viewWidths = []int{len(someCritical), len("40 more users"), 0, len("6 to 9 each so far"), 0}

func (v *view) table() terminal.Table {
	v.out.width = terminal.Width(v.w) // it can change
	t := terminal.Table{Columns: append(slices.Clone(alertColumns), idColumn)}
	for i := range t.Columns {
		t.Columns[i].Min = viewWidths[i]
	}
	t.Columns[2].Min = v.cells
	return t
}

func (v *view) head() []terminal.Safe {
	t := v.table()
	return t.Lines(v.out.width)
}

// rows returns those of some alerts of a window, so many at most: one for each user, the highest count first, and one for all others.
func (v *view) rows(w *viewed, list []alert.Record, most int, now time.Time) []terminal.Safe {
	slices.SortFunc(list, func(a, b alert.Record) int { return cmp.Or(-cmp.Compare(a.Count, b.Count), cmp.Compare(a.ID, b.ID)) })
	beyond := max(w.beyond[alert.Opened], w.beyond[alert.Raised], w.beyond[alert.Closed])
	each := list
	if len(list) > most || beyond > 0 {
		each = list[:min(len(list), most-1)]
	}
	t := v.table()
	for _, r := range each {
		t.Row(append(alertCells(v.out, r, now), v.out.paint(r.ID, terminal.Dim))...)
	}
	if rest := list[len(each):]; len(rest)+beyond > 0 {
		text := "users"
		if slices.ContainsFunc(rest, func(r alert.Record) bool { return r.Key != nil }) {
			text = "alerts"
		}
		if len(each) > 0 {
			text = "more " + text
		}
		if len(rest)+beyond == 1 {
			text = strings.TrimSuffix(text, "s")
		}
		severity := terminal.Safe("")
		if len(rest) > 0 {
			severity = v.severities(rest)
		}
		t.Row(severity, terminal.Grouped(len(rest)+beyond)+" "+text, windowText(w.start, w.end, now), span(rest), "")
	}
	return t.Lines(v.out.width)[1:]
}

// someCritical is the severity of alerts of which some are critical, and some are not.
const someCritical = "some critical"

// severities is the severity of some alerts.
func (v *view) severities(list []alert.Record) terminal.Safe {
	for _, r := range list[1:] {
		if r.Severity != list[0].Severity {
			return v.out.paint(someCritical, terminal.Yellow)
		}
	}
	return severityText(v.out, list[0].Severity)
}

// span writes the counts of some alerts, which are in order.
func span(list []alert.Record) string {
	if len(list) == 0 {
		return ""
	}
	least, most, open := list[len(list)-1].Count, list[0].Count, false
	for _, r := range list {
		open = open || r.State != alert.Closed
	}
	text := terminal.Grouped(most)
	if least != most {
		text = terminal.Grouped(least) + " to " + text
	}
	text += " each"
	if open {
		text += " so far"
	}
	return text
}
