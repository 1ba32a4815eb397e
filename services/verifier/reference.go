package verifier

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"
)

// Rule is what is looked for: more than Threshold events of one user in one tumbling window. Window and Lateness are whole milliseconds.
type Rule struct {
	Window, Lateness time.Duration
	Threshold        int64
	// MaxAhead is how far an event's time may lie past the time at which the log took it; 0 is any.
	MaxAhead time.Duration
	// User and Time are the paths of the members that may hold them, those of the data set if empty; TimeFormat is how times are written, as spate
	// names it.
	User, Time []string
	TimeFormat string
	// ID is the path of what is the same for an event that was sent twice; empty is none.
	ID string
}

// Row is one result: a user and a window with more than the threshold.
type Row struct {
	User        string // JSON token: a number as it was written, or a quoted string
	WindowStart int64  // epoch milliseconds
	Count       int64
}

// Reference counts the rows of one log. In = Counted + Late + Invalid; Repeated are those among Counted that came before, and are in no row.
type Reference struct {
	In, Counted, Late, Invalid, Repeated int64

	rule   Rule
	newest map[int32]int64 // highest event time by partition, where none counts for more than its append time
	counts map[pane]int64
	ids    map[once]bool
	last   pane
}

type pane struct {
	user  string
	start int64
}

// once is an event with an id, in its pane.
type once struct {
	pane
	id string
}

// NewReference returns a reference that has seen nothing. It panics if the window is shorter than a millisecond.
func NewReference(rule Rule) *Reference {
	if rule.Window < time.Millisecond {
		panic("verifier: the window is shorter than a millisecond")
	}
	return &Reference{rule: rule, newest: make(map[int32]int64), counts: make(map[pane]int64), ids: make(map[once]bool)}
}

// Unbounded is the append time of an event whose clock is trusted, whatever it says.
const Unbounded = math.MaxInt64

// Add takes the next event of a source partition; user is its JSON token, tsMS not negative, appendedMS when the log took it. It reports
// whether the event is late: the highest time before it in its partition, minus the lateness, has reached the last millisecond of its window.
// No time counts for more than the one at which its event was appended.
func (r *Reference) Add(partition int32, user string, tsMS, appendedMS int64) (late bool) {
	return r.AddOnce(partition, user, "", tsMS, appendedMS)
}

// AddOnce is Add for an event with an id, "" for none: if one with that id was counted for the user in the window, it is in no row.
func (r *Reference) AddOnce(partition int32, user, id string, tsMS, appendedMS int64) (late bool) {
	r.In++
	size := r.rule.Window.Milliseconds()
	start := tsMS - tsMS%size
	newest, known := r.newest[partition]
	if known && newest-r.rule.Lateness.Milliseconds() >= start+size-1 {
		r.Late++
		return true
	}
	r.advance(partition, tsMS, appendedMS)
	r.Counted++
	r.last = pane{user, start}
	if id != "" {
		event := once{r.last, id}
		if r.ids[event] {
			r.Repeated++
			return false
		}
		r.ids[event] = true
	}
	r.counts[r.last]++
	return false
}

func (r *Reference) advance(partition int32, tsMS, appendedMS int64) {
	if appendedMS < tsMS {
		tsMS = appendedMS
	}
	if newest, known := r.newest[partition]; !known || tsMS > newest {
		r.newest[partition] = tsMS
	}
}

// Succeed makes a source partition begin as the continuation of others, as a shard of Kinesis that others were split or merged into: with
// the highest event time of the one that is furthest behind. Without any that is known it begins as if it were the first.
func (r *Reference) Succeed(partition int32, parents ...int32) {
	var from int64
	for i, p := range parents {
		newest, known := r.newest[p]
		if !known {
			return
		}
		if i == 0 || newest < from {
			from = newest
		}
	}
	if len(parents) > 0 {
		r.newest[partition] = from
	}
}

// Last returns the user and the window of the event counted last.
func (r *Reference) Last() (user string, windowStart int64) { return r.last.user, r.last.start }

// AddInvalid takes what is not an event.
func (r *Reference) AddInvalid() {
	r.In++
	r.Invalid++
}

// Window is the size of the windows.
func (r *Reference) Window() time.Duration { return r.rule.Window }

// Result returns the rows above the threshold, by window start, then user.
func (r *Reference) Result() []Row { return r.Above(r.rule.Threshold) }

// Above returns the rows with more than n events; above 0 they are all.
func (r *Reference) Above(above int64) []Row {
	var rows []Row
	for p, n := range r.counts {
		if n > above {
			rows = append(rows, Row{p.user, p.start, n})
		}
	}
	slices.SortFunc(rows, compareRows)
	return rows
}

func compareRows(a, b Row) int {
	return cmp.Or(cmp.Compare(a.WindowStart, b.WindowStart), compareUsers(a.User, b.User))
}

// compareUsers orders numbers by value and everything else, also numbers of the same value, by its text. Strings begin with a quote and
// so come before all numbers.
func compareUsers(a, b string) int {
	if isDigits(a) && isDigits(b) { // of known length; without leading zeros, as in JSON
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	}
	x, aerr := strconv.ParseFloat(a, 64)
	y, berr := strconv.ParseFloat(b, 64)
	if aerr == nil && berr == nil && x != y {
		return cmp.Compare(x, y)
	}
	return cmp.Compare(a, b)
}

func isDigits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}
