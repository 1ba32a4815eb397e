package window

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// Verdict is what a [Table] finds: a window of a user that passed the threshold, or the exact count of one that had.
type Verdict struct {
	User  string
	Final bool // the window is closed: Count is exact; otherwise it is what was known when the threshold was passed
	Pane  Pane
}

// Table is the global half for one partition of the keyed log: the open windows of its users and the watermarks of all source
// partitions. It is not safe for concurrent use.
//
// Life: [NewTable], [Table.Load] for every record of the checkpoint, [Table.Resume] with the stored position, then [Table.Apply]
// for each batch from Position.Replay on, [Table.Position] when offsets are to be committed and [Table.Committed] when they are.
// [Table.Checkpoint] hands out what changed, at any time; correctness does not depend on when or whether that is written.
type Table struct {
	threshold int64
	users     map[string]*user
	ends      map[int64]*ending // by the end of the window
	marks     []int64           // watermarks by source partition
	watermark int64             // their minimum
	resumed   int64             // verdicts below this offset were handed over by whoever came before
	history   []Position        // watermarks after each batch that moved any, since the last committed position
	base      Position
	dirty     []*user
	open      int
	stray     int64
}

type user struct {
	key   string
	last  int64 // offset of the last batch applied
	dirty bool
	saved bool // the checkpoint may hold a record of it
	panes []Pane
	room  [1]Pane
}

// ending is what is known of all windows with one end.
type ending struct {
	first  int64 // offset of the first batch that has a pane of them
	closed bool
	users  []*user
}

// NewTable returns an empty table. A window opens an alert when its count exceeds threshold.
func NewTable(threshold int64) *Table {
	return &Table{
		threshold: threshold,
		users:     make(map[string]*user),
		ends:      make(map[int64]*ending),
		watermark: NoTime,
	}
}

// Load takes over one record of the checkpoint. A nil value removes the user.
func (t *Table) Load(key string, value []byte) error {
	if value == nil {
		delete(t.users, key)
		return nil
	}
	u := &user{key: key, saved: true}
	if err := u.decode(value); err != nil {
		return fmt.Errorf("user %q: %w", key, err)
	}
	t.users[key] = u
	return nil
}

// Resume ends the loading. What the checkpoint knows of batches at or after p.Next is dropped, for those batches are judged again
// and their verdicts handed over; and so are windows that were closed at p. Whatever is missing comes back with the batches that
// are read again from p.Replay on.
func (t *Table) Resume(p Position) {
	t.resumed, t.base = p.Next, p
	t.marks = slices.Clone(p.Watermarks)
	t.watermark = lowest(t.marks)
	for _, u := range t.users {
		u.panes = slices.DeleteFunc(u.panes, func(w Pane) bool { return w.EndMS()-1 <= t.watermark })
		if u.last >= p.Next || len(u.panes) == 0 {
			u.panes = nil
			t.forget(u)
			continue
		}
		for i := range u.panes {
			e := t.ending(u.panes[i].EndMS(), p.Replay)
			e.users = append(e.users, u)
			t.open++
		}
	}
}

func (t *Table) ending(end, offset int64) *ending {
	e := t.ends[end]
	if e == nil {
		e = &ending{first: offset}
		t.ends[end] = e
	}
	e.first = min(e.first, offset)
	return e
}

// forget removes a user without windows; the checkpoint is told by a tombstone.
func (t *Table) forget(u *user) {
	delete(t.users, u.key)
	if u.saved {
		t.touch(u)
	}
}

func (t *Table) touch(u *user) {
	if !u.dirty {
		u.dirty = true
		t.dirty = append(t.dirty, u)
	}
}

// Apply takes the batch at offset, which must be above all offsets applied since [Table.Resume], and appends its verdicts to out:
// first the windows that passed the threshold, then the windows that the batch's watermarks close, by end and in the order in
// which their users came. The panes' evidence is shared with the table and valid until the next call.
func (t *Table) Apply(offset int64, batch []byte, out []Verdict) ([]Verdict, error) {
	d := decoder{b: batch}
	d.version(batchVersion)
	size := d.size()
	sources := d.sources()
	silent := offset < t.resumed
	for len(d.b) > 0 && !d.fail {
		panes := d.count()
		if panes == 0 {
			t.advance(&d, offset, sources)
			break
		}
		key := d.bytes()
		if d.fail || len(key) == 0 {
			d.fail = true
			break
		}
		u := t.users[string(key)]
		if u == nil {
			u = &user{key: string(key), last: -1}
			u.panes = u.room[:0]
			t.users[u.key] = u
		}
		seen := offset <= u.last
		for ; panes > 0 && !d.fail; panes-- {
			var p *Pane
			var was int64
			n := d.pane(size, func(start int64) *Pane {
				if start+size-1 <= t.watermark {
					return nil
				}
				e := t.ending(start+size, offset)
				if seen {
					return nil
				}
				p = t.pane(u, e, start, size)
				was = p.Count
				return p
			})
			switch {
			case silent:
			case p == nil:
				t.stray += n
			case was <= t.threshold && p.Count > t.threshold:
				out = append(out, Verdict{User: u.key, Pane: *p})
			}
		}
		if !seen {
			u.last = max(u.last, offset)
		}
		if len(u.panes) == 0 {
			t.forget(u)
		} else if !seen {
			t.touch(u)
		}
	}
	if len(d.b) > 0 {
		d.fail = true
	}
	if err := d.err("batch"); err != nil {
		return out, err
	}
	return t.closeDue(out), nil
}

// pane returns the pane of a user's window to add to.
func (t *Table) pane(u *user, e *ending, start, size int64) *Pane {
	for i := range u.panes {
		if u.panes[i].StartMS == start && u.panes[i].SizeMS == size {
			return &u.panes[i]
		}
	}
	u.panes = append(u.panes, Pane{StartMS: start, SizeMS: size})
	e.users = append(e.users, u)
	t.open++
	return &u.panes[len(u.panes)-1]
}

// advance reads the marks of a batch.
func (t *Table) advance(d *decoder, offset int64, sources int32) {
	for len(t.marks) < int(sources) {
		t.marks = append(t.marks, NoTime)
	}
	moved := false
	for n := d.count(); n > 0 && !d.fail; n-- {
		p, w := d.partition(), d.int()
		if d.fail || int(p) >= len(t.marks) {
			d.fail = true
			return
		}
		if w > t.marks[p] {
			t.marks[p], moved = w, true
		}
	}
	if moved {
		t.watermark = max(t.watermark, lowest(t.marks))
		t.history = append(t.history, Position{Next: offset + 1, Watermarks: slices.Clone(t.marks)})
	}
}

// closeDue hands out the final counts of the windows that the watermark has passed.
func (t *Table) closeDue(out []Verdict) []Verdict {
	var due []int64
	for end, e := range t.ends {
		if end-1 <= t.watermark && !e.closed {
			due = append(due, end)
		}
	}
	slices.Sort(due)
	for _, end := range due {
		e := t.ends[end]
		e.closed = true
		for _, u := range e.users {
			for i := range u.panes {
				if p := &u.panes[i]; p.EndMS() == end && p.Count > t.threshold {
					out = append(out, Verdict{User: u.key, Final: true, Pane: *p})
				}
			}
		}
	}
	return out
}

// Position is what to commit once the verdicts of all batches below next are handed over for good. next must not decrease.
func (t *Table) Position(next int64) Position {
	for len(t.history) > 0 && t.history[0].Next <= next {
		t.base = t.history[0]
		t.history = t.history[1:]
	}
	// While batches are read again, next is still below what was handed over before; that must not be handed over twice.
	p := Position{Replay: next, Next: max(next, t.resumed), Watermarks: t.base.Watermarks}
	w := p.Watermark()
	for end, e := range t.ends {
		if end-1 > w {
			p.Replay = min(p.Replay, e.first)
		}
	}
	return p
}

// Committed tells that p is stored. Windows that were closed at p are forgotten: they cannot be needed again.
func (t *Table) Committed(p Position) {
	w := p.Watermark()
	for end, e := range t.ends {
		if end-1 > w {
			continue
		}
		for _, u := range e.users {
			before := len(u.panes)
			u.panes = slices.DeleteFunc(u.panes, func(p Pane) bool { return p.EndMS() == end })
			t.open -= before - len(u.panes)
			if len(u.panes) == 0 && before > 0 {
				t.forget(u)
			}
		}
		delete(t.ends, end)
	}
}

// Checkpoint hands out the state of up to limit users that changed since they were handed out, nil for one that is gone, and tells
// whether there are more. emit must not keep value beyond its call.
func (t *Table) Checkpoint(limit int, emit func(key string, value []byte)) (more bool) {
	n := min(limit, len(t.dirty))
	var b []byte
	for _, u := range t.dirty[:n] {
		u.dirty = false
		now := t.users[u.key]
		switch {
		case now == u:
			b = u.encode(b[:0])
			u.saved = true
			emit(u.key, b)
		case now == nil && u.saved:
			emit(u.key, nil)
		case u.saved: // gone and come again: whoever it is now has the old one's record to overwrite
			now.saved = true
		}
	}
	rest := copy(t.dirty, t.dirty[n:])
	clear(t.dirty[rest:])
	t.dirty = t.dirty[:rest]
	return rest > 0
}

// Lookup returns the windows of a user that are in the table, by start: open ones and those whose close is not yet committed.
func (t *Table) Lookup(user string) []Pane {
	u := t.users[user]
	if u == nil {
		return nil
	}
	out := slices.Clone(u.panes)
	for i := range out {
		out[i].more = slices.Clone(out[i].more)
	}
	slices.SortFunc(out, func(a, b Pane) int { return cmp.Compare(a.StartMS, b.StartMS) })
	return out
}

// Stats are figures for observability.
type Stats struct {
	Users       int
	Windows     int   // open windows of all users
	WatermarkMS int64 // minimum over the source partitions; NoTime while one has not spoken
	Sources     int   // source partitions heard of
	// Stray counts events that came for a window after its close. There are none, unless the topic of events got more
	// partitions while it was in use, or something else than a router writes to the keyed log.
	Stray int64
}

// Stats returns the present figures.
func (t *Table) Stats() Stats {
	return Stats{Users: len(t.users), Windows: t.open, WatermarkMS: t.watermark, Sources: len(t.marks), Stray: t.stray}
}

// State returns the user's record for the checkpoint; nil if there is none.
func (t *Table) State(key string) []byte {
	if u := t.users[key]; u != nil {
		return u.encode(nil)
	}
	return nil
}

func (u *user) encode(b []byte) []byte {
	b = binary.AppendUvarint(b, userVersion)
	b = binary.AppendVarint(b, u.last)
	for i := range u.panes {
		b = binary.AppendUvarint(b, uint64(u.panes[i].SizeMS))
		b = appendPane(b, &u.panes[i])
	}
	return b
}

func (u *user) decode(b []byte) error {
	d := decoder{b: b}
	d.version(userVersion)
	u.last = d.int()
	u.panes = u.room[:0]
	for len(d.b) > 0 && !d.fail {
		size := d.size()
		d.pane(size, func(start int64) *Pane {
			u.panes = append(u.panes, Pane{StartMS: start, SizeMS: size})
			return &u.panes[len(u.panes)-1]
		})
	}
	return d.err("user state")
}

// Each calls f for every window in the table. The pane's evidence is shared with the table.
func (t *Table) Each(f func(user string, p Pane)) {
	for _, u := range t.users {
		for _, p := range u.panes {
			f(u.key, p)
		}
	}
}
