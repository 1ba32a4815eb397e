package simulator

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// Truth is what an attacker or an innocent did in one window, counted over the rows that were handed to the sink, by the time they carry.
// There is one for every (user, window) that has a labeled event.
//
// An attack is (Kind, Key, From, To), whatever rule looks for it: all windows of one attack say the same there. UserID and what follows are
// about a window of the rule that the attackers target.
type Truth struct {
	Kind Kind `json:"kind"`
	// Innocent: an alert about it is a false one.
	Innocent bool `json:"innocent,omitempty"`
	// Key has the columns that the events of the attack have in common, as text: {"user_id":"900700003"}, or {"ip":"203.0.113.7"} for an attack
	// on many accounts.
	Key    map[string]string `json:"key"`
	From   string            `json:"from"` // time of the first event of the attack, RFC 3339
	FromMS int64             `json:"from_ms"`
	To     string            `json:"to"` // of the last one
	ToMS   int64             `json:"to_ms"`

	UserID        string `json:"user_id"`
	WindowStart   string `json:"window_start"` // RFC 3339, as in an alert
	WindowStartMS int64  `json:"window_start_ms"`
	Events        int    `json:"events"`
	BreaksRule    bool   `json:"breaks_rule"` // Events is more than the threshold
}

// truths counts the labeled rows.
type truths struct {
	size      int64 // window, milliseconds
	threshold int
	seen      map[truthKey]*truth
	bounds    map[*Attack]*span // first and last event, milliseconds
}

type truthKey struct {
	user  string
	start int64
}

type truth struct {
	attack *Attack
	events int
}

func newTruths(size time.Duration, threshold int) *truths {
	return &truths{size: size.Milliseconds(), threshold: threshold, seen: make(map[truthKey]*truth), bounds: make(map[*Attack]*span)}
}

func (t *truths) add(r *Row) {
	if r.Attack == nil || !r.HasTime {
		return
	}
	k := truthKey{r.Event.UserID, floorTo(r.TimeMS, t.size)}
	e := t.seen[k]
	if e == nil {
		e = &truth{attack: r.Attack}
		t.seen[k] = e
	}
	e.events++
	b := t.bounds[r.Attack]
	if b == nil {
		b = &span{r.TimeMS, r.TimeMS}
		t.bounds[r.Attack] = b
	}
	b.from, b.to = min(b.from, r.TimeMS), max(b.to, r.TimeMS)
}

// list returns the truths by window, kind and user.
func (t *truths) list() []Truth {
	out := make([]Truth, 0, len(t.seen))
	text := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano) }
	for k, e := range t.seen {
		b := t.bounds[e.attack]
		out = append(out, Truth{
			Kind: e.attack.Kind, Innocent: slices.Contains(Innocents(), e.attack.Kind), Key: e.attack.Key,
			From: text(b.from), FromMS: b.from, To: text(b.to), ToMS: b.to,
			UserID: k.user, WindowStart: text(k.start), WindowStartMS: k.start, Events: e.events, BreaksRule: e.events > t.threshold,
		})
	}
	slices.SortFunc(out, func(a, b Truth) int {
		return cmp.Or(cmp.Compare(a.WindowStartMS, b.WindowStartMS), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.UserID, b.UserID))
	})
	return out
}

// writeTruth writes one JSON line per truth to f, and closes it.
func writeTruth(f *os.File, list []Truth) (err error) {
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			err = fmt.Errorf("write truth file: %w", err)
		}
	}()
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	for i := range list {
		if err := enc.Encode(&list[i]); err != nil {
			return err
		}
	}
	return w.Flush()
}

// floorTo returns the largest multiple of size that is not above ms; the floor, for times before 1970 too.
func floorTo(ms, size int64) int64 {
	r := ms % size
	if r < 0 {
		r += size
	}
	return ms - r
}
