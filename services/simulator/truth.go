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

// Truth is what an attacker did in one window, counted over the rows that were handed to the sink, by the time they carry.
// There is one for every (user, window) that has an event of an attacker.
type Truth struct {
	Kind          Kind   `json:"kind"`
	UserID        string `json:"user_id"`
	WindowStart   string `json:"window_start"` // RFC 3339, as in an alert
	WindowStartMS int64  `json:"window_start_ms"`
	Events        int    `json:"events"`
	BreaksRule    bool   `json:"breaks_rule"` // Events is more than the threshold
}

// truths counts the labelled rows.
type truths struct {
	size      int64 // window, milliseconds
	threshold int
	seen      map[truthKey]*Truth
}

type truthKey struct {
	user  string
	start int64
}

func newTruths(size time.Duration, threshold int) *truths {
	return &truths{size: size.Milliseconds(), threshold: threshold, seen: make(map[truthKey]*Truth)}
}

func (t *truths) add(r *Row) {
	if r.Kind == "" || !r.HasTime {
		return
	}
	k := truthKey{r.Event.UserID, floorTo(r.TimeMS, t.size)}
	e := t.seen[k]
	if e == nil {
		e = &Truth{
			Kind:          r.Kind,
			UserID:        k.user,
			WindowStart:   time.UnixMilli(k.start).UTC().Format(time.RFC3339Nano),
			WindowStartMS: k.start,
		}
		t.seen[k] = e
	}
	e.Events++
	e.BreaksRule = e.Events > t.threshold
}

// list returns the truths by window, kind and user.
func (t *truths) list() []Truth {
	out := make([]Truth, 0, len(t.seen))
	for _, e := range t.seen {
		out = append(out, *e)
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
