package window

import (
	"cmp"
	"encoding/binary"
	"slices"

	"spate/shared/fault"
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
// Life: [NewTable], [Table.Resume] with the stored position, then [Table.Apply] for each batch from Position.Replay on,
// [Table.Position] when offsets are to be committed and [Table.Committed] when they are. A table that was put aside can be resumed
// again, with the position that was stored last. [Table.Checkpoint] hands out what changed, for those who want to look at the table
// from outside; nothing is restored from it.
type Table struct {
	threshold int64
	windows   []*counts  // open ones, and those whose close is not committed; by end, then by start
	topic     uint64     // the incarnation of the topic of events that marks are of; 0 if it is not known
	marks     []int64    // watermarks by source partition
	watermark int64      // their minimum
	applied   int64      // offset of the last batch applied
	told      int64      // verdicts below this offset were handed over by whoever came before
	history   []Position // watermarks after each batch that moved any, since the last committed position
	base      Position
	gone      []*counts // windows that were forgotten, for the checkpoint to take their users back
	open      int       // panes in windows
	stray     int64
	repeated  int64
	known     int // identities in windows
	room      room
	header    Header // of the batch that is applied
}

// NewTable returns an empty table. A window opens an alert when its count exceeds threshold.
func NewTable(threshold int64) *Table {
	return &Table{threshold: threshold, watermark: NoTime, applied: -1}
}

// Resume sets the table to a stored position. Whatever is missing comes back with the batches that are read again from p.Replay on:
// every window that was open at p is counted from its first event.
//
// A table that was in use before keeps what it has, and leaves out what it applied already, unless that includes batches whose verdicts
// were not handed over for good: those are judged again, from the start.
func (t *Table) Resume(p Position) {
	if t.applied >= p.Next || t.applied < p.Replay-1 {
		t.forget(len(t.windows))
		t.applied = p.Replay - 1
	}
	t.told, t.base, t.history = p.Next, p, nil
	t.topic, t.marks = p.Topic, slices.Clone(p.Watermarks)
	t.watermark = lowest(t.marks)
	t.forgetClosed(t.watermark)
}

// Apply takes the batch at offset and appends its verdicts to out: first the windows that passed the threshold, then the windows that
// the batch's watermarks close, by end and in the order in which their users came. A batch that was applied before, or is older than
// one that was, changes nothing; nor does one that is corrupt, which is an error.
func (t *Table) Apply(offset int64, batch []byte, out []Verdict) ([]Verdict, error) {
	if offset <= t.applied && !fault.NoDedupe {
		return out, nil
	}
	t.applied = offset
	d := unseal(batch)
	h := &t.header
	if d.header(h); d.fail || !d.whole(h) {
		d.fail = true
		return out, d.err("batch")
	}
	silent := offset < t.told
	var w *counts // nil if it is closed
	for {
		switch k := d.uint(); k {
		case isEnd:
			t.advance(h, offset)
			return t.closeDue(out), nil
		case isWindow:
			w = t.window(d.int(), h.SizeMS, offset)
		default:
			user := d.bytes(k - isUser + 1)
			i, passed, n, repeated := t.add(w, user, &d)
			if !silent {
				t.repeated += repeated
			}
			switch {
			case w == nil && !silent:
				t.stray += n
			case passed && !silent:
				out = append(out, Verdict{User: string(user), Pane: w.pane(w.at(i))})
			}
			if silent && i >= 0 {
				w.at(i).saved, w.saved = true, true // whoever came before may have written it
			}
		}
	}
}

// window returns the counts of a window, nil if it is closed.
func (t *Table) window(start, size, offset int64) *counts {
	end := start + size
	if end-1 <= t.watermark {
		return nil
	}
	i, ok := slices.BinarySearchFunc(t.windows, end, func(w *counts, end int64) int {
		return cmp.Or(cmp.Compare(w.endMS(), end), cmp.Compare(w.startMS, start))
	})
	if ok {
		return t.windows[i]
	}
	w := t.room.open(start, size)
	w.first = offset
	t.windows = slices.Insert(t.windows, i, w)
	return w
}

// add reads what a batch says of a user in a window and adds it up. It returns the number of the pane, or -1, whether the threshold was
// passed, the events that were read, and how many of them were counted before.
func (t *Table) add(w *counts, user []byte, d *decoder) (i int, passed bool, n, repeated int64) {
	n = d.natural()
	first := d.natural()
	span := d.natural()
	ranges := d.count()
	if w == nil {
		for ; ranges > 0; ranges-- {
			d.evidence()
		}
		if t.header.once {
			d.bytes(uint64(d.count()) * identityBytes)
		}
		return -1, false, n, 0
	}
	was := w.n
	i = w.of(user)
	t.open += w.n - was
	p := w.at(i)
	for ; ranges > 0; ranges-- {
		w.witness(p, d.evidence())
	}
	if t.header.once {
		for ids := d.count(); ids > 0; ids-- {
			if w.known.add(i, binary.LittleEndian.Uint64(d.bytes(identityBytes))) {
				t.known++
			} else {
				repeated++
			}
		}
	}
	n -= repeated
	passed = p.count <= t.threshold && p.count+n > t.threshold
	if passed {
		w.passed = append(w.passed, int32(i))
	}
	p.add(n, first, first+span)
	p.dirty = true
	return i, passed, n, repeated
}

// advance takes the marks of a batch.
//
// A source partition that is new begins at the watermark: what is closed stays closed. If the topic of events was deleted and made anew, all
// its partitions are new; those that it had before will never be heard of again, and hold no window open.
func (t *Table) advance(h *Header, offset int64) {
	moved := false
	if !SameIncarnation(h.Topic, t.topic) {
		t.marks, moved = nil, true
	}
	if h.Topic != 0 {
		t.topic = h.Topic
	}
	for len(t.marks) < int(h.Sources) {
		t.marks = append(t.marks, t.watermark)
	}
	for _, m := range h.Marks {
		if m.WatermarkMS > t.marks[m.Partition] {
			t.marks[m.Partition], moved = m.WatermarkMS, true
		}
	}
	if moved {
		t.watermark = max(t.watermark, lowest(t.marks))
		t.history = append(t.history, Position{Next: offset + 1, Topic: t.topic, Watermarks: slices.Clone(t.marks)})
	}
}

// closeDue hands out the final counts of the windows that the watermark has passed.
func (t *Table) closeDue(out []Verdict) []Verdict {
	for _, w := range t.windows {
		if w.endMS()-1 > t.watermark {
			break
		}
		if w.closed {
			continue
		}
		w.closed = true
		slices.Sort(w.passed)
		for _, i := range w.passed {
			p := w.at(int(i))
			out = append(out, Verdict{User: string(w.user(p)), Final: true, Pane: w.pane(p)})
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
	p := Position{Replay: next, Next: max(next, t.told), Log: t.base.Log, Topic: t.base.Topic, Watermarks: t.base.Watermarks}
	mark := p.Watermark()
	for _, w := range t.windows {
		if w.endMS()-1 > mark {
			p.Replay = min(p.Replay, w.first)
		}
	}
	return p
}

// Committed tells that p is stored. Windows that were closed at p are forgotten: they cannot be needed again.
func (t *Table) Committed(p Position) { t.forgetClosed(p.Watermark()) }

func (t *Table) forgetClosed(watermark int64) {
	n := 0
	for n < len(t.windows) && t.windows[n].endMS()-1 <= watermark {
		n++
	}
	t.forget(n)
}

// forget gives the first n windows up.
func (t *Table) forget(n int) {
	for _, w := range t.windows[:n] {
		t.open -= w.n
		t.known -= w.known.n
		w.known = known{}
		if w.seen = 0; w.saved {
			t.gone = append(t.gone, w)
		} else {
			t.room.close(w)
		}
	}
	t.windows = slices.Delete(t.windows, 0, n)
}

// Lookup returns the windows of a user that are in the table, by start: open ones and those whose close is not yet committed.
func (t *Table) Lookup(user string) (out []Pane) {
	key := []byte(user)
	tag := tag(key)
	for _, w := range t.windows {
		if i := w.find(tag, key); i >= 0 {
			out = append(out, w.pane(w.at(i)))
		}
	}
	slices.SortFunc(out, func(a, b Pane) int { return cmp.Compare(a.StartMS, b.StartMS) })
	return out
}

// Each calls f for every window in the table.
func (t *Table) Each(f func(user string, p Pane)) {
	for _, w := range t.windows {
		for i := range w.n {
			p := w.at(i)
			f(string(w.user(p)), w.pane(p))
		}
	}
}

// Stats are figures for observability.
type Stats struct {
	Windows     int   // open windows of all users: one for each user that has events in it
	WatermarkMS int64 // minimum over the source partitions; NoTime while one has not spoken
	Sources     int   // source partitions heard of
	// Stray counts events that came for a window after its close. There are none, unless the topic of events got more
	// partitions while it was in use, or something else than a router writes to the keyed log.
	Stray int64
	// Repeated counts events whose identity was counted before, Identities those that are remembered.
	Repeated   int64
	Identities int
}

// identitiesPerWindow are how many identities take the room of an open window of a user.
const identitiesPerWindow = 4

// Open is what a limit of open windows is held against: identities take room, too.
func (s Stats) Open() int64 { return int64(s.Windows + s.Identities/identitiesPerWindow) }

// Stats returns the present figures.
func (t *Table) Stats() Stats {
	return Stats{Windows: t.open, WatermarkMS: t.watermark, Sources: len(t.marks), Stray: t.stray, Repeated: t.repeated, Identities: t.known}
}
