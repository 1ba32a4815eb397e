package window

import (
	"encoding/binary"

	"spate/shared/rule"
)

// Combiner adds counted events up, one pane per (feed, slice, key), until [Combiner.Flush] turns them into batches. The load on the
// keyed log is thus bounded by the keys, not by the events: an account that sends half of all traffic is one pane a batch.
// It is not safe for concurrent use.
type Combiner struct {
	feeds    []*localFeed
	revision int64 // of the rules
	panes    int
	few      int      // panes of a slice, below which no event waits
	once     bool     // some events had an identity
	out      [][]byte // the sums of a batch in the making per keyed partition
	batch    []byte
}

// localFeed is a feed and its slices.
type localFeed struct {
	*rule.FeedProgram
	ended  int64                // later events are in no window of its rules
	slices []*counts            // in the order in which they came
	last   *counts              // the slice of the last event: the next is likely of it, too
	at     map[[2]int64]*counts // the slices, by start and lateness: events that are scattered over time have many
	room   room
	// waiting are events that are not in their panes yet: those of many keys are looked up together. keys are their keys, back to back, and cells what
	// the aggregates know of each.
	waiting []waiting
	keys    []byte
	cells   rule.Cells
}

// fewPanes are those that fit into the processor's caches: to find one of them takes less time than to wait.
const fewPanes = 1 << 12

// waiting is an event that waits for its pane.
type waiting struct {
	s      *counts
	tag    uint32
	keyEnd uint32 // where its key ends
	Event
}

// Event is one that is judged.
type Event struct {
	MS        int64
	Partition int32 // of its source, and where it is there
	Offset    int64
	// Identity stands for the event itself, 0 for none: the table counts it only if it knows none with the same one of the key in the slice.
	Identity uint64
	// Values are what the plan's inputs have.
	Values []rule.Value
}

// Missed is the window that a late event missed: the last one of the first rule that it is late for.
type Missed struct {
	StartMS, ByMS int64
}

// MaxBatchBytes bounds a batch, well below the 1 MiB that brokers accept by default. A batch can exceed it by one key.
const MaxBatchBytes = 512 << 10

// NewCombiner returns an empty combiner.
func NewCombiner(s Stream) *Combiner {
	c := &Combiner{few: fewPanes}
	c.Extend(s.Plan)
	return c
}

// Extend makes the combiner know a newer plan. What it has of the feeds that it knows already stays.
func (c *Combiner) Extend(p *rule.Plan) {
	for i, f := range p.Feeds {
		if i < len(c.feeds) {
			c.feeds[i].Feed = f
		} else {
			c.feeds = append(c.feeds, &localFeed{FeedProgram: f.Program(), at: map[[2]int64]*counts{}})
		}
		c.feeds[i].ended = f.Ended()
	}
	c.revision = p.Revision
}

// Add counts an event in every feed that takes it and in which its key is not too long, but for the windows that were closed when it came. An event that is late for a rule may
// count for others, whose windows are longer.
func (c *Combiner) Add(e *Event, j Judgement) (fate Fate, missed Missed) {
	closed := j.watermark()
	if closed < EndOfTime {
		closed++ // windows that end by then are closed
	}
	for i := range c.feeds {
		f := c.feeds[i]
		if e.MS >= f.ended || !f.Takes(e.Values) { // those of rules that were changed or removed become more and more
			continue
		}
		key := f.Key(e.Values)
		if len(key) > MaxKey { // a table would refuse the whole batch
			f.Faults++
			continue
		}
		s := f.slice(e.MS, closed)
		if fate == Counted && (s == nil || s.afterMS > s.startMS) {
			slice := f.Slice(e.MS)
			if start, end, ok := f.Missed(slice, max(slice, f.Slice(closed))); ok {
				missed.StartMS = start
				fate, missed.ByMS = j.late(end)
			}
		}
		switch {
		case s == nil:
		case s.n < c.few || e.Identity != 0 && s.width > 0:
			c.add(f, s, key, e)
		default:
			c.wait(f, s, key, e)
		}
	}
	return fate, missed
}

// slice returns the counts of the slice that an instant is in, nil if its last window has ended at closed.
func (f *localFeed) slice(ms, closed int64) *counts {
	if s := f.last; s != nil && ms >= s.startMS && ms < s.startMS+s.sizeMS && s.afterMS == s.startMS && closed < s.startMS+s.sizeMS {
		return s // as most are
	}
	start := f.Slice(ms)
	after := start
	if closed > start { // late for the windows that end by then
		after = f.Slice(closed)
	}
	if s := f.last; s != nil && s.startMS == start && s.afterMS == after {
		return s
	}
	if end := f.LastEnd(start); end <= after {
		return nil
	}
	if s := f.at[[2]int64{start, after}]; s != nil {
		f.last = s
		return s
	}
	f.last = f.room.open(start, f.SliceMS, after, len(f.Aggregates), 0)
	f.at[[2]int64{start, after}] = f.last
	f.slices = append(f.slices, f.last)
	return f.last
}

// wait makes an event wait for its pane.
func (c *Combiner) wait(f *localFeed, s *counts, key []byte, e *Event) {
	if s.width > 0 {
		if len(f.waiting) == 0 {
			f.cells.Reset(ahead * s.width)
		}
		f.Add(f.cellsOf(len(f.waiting)), e.Values)
	}
	f.keys = append(f.keys, key...)
	w := waiting{s, uint32(tag(key)), uint32(len(f.keys)), *e}
	w.Values = nil
	if f.waiting = append(f.waiting, w); len(f.waiting) == ahead {
		c.settle(f)
	}
}

// cellsOf are the cells of an event that waits.
func (f *localFeed) cellsOf(i int) rule.Cells {
	n := len(f.Aggregates)
	return rule.Cells{List: f.cells.List[i*n : (i+1)*n], Spill: f.cells.Spill}
}

func (c *Combiner) settleAll() {
	for _, f := range c.feeds {
		c.settle(f)
	}
}

// settle adds the events that wait.
func (c *Combiner) settle(f *localFeed) {
	for from := 0; from < len(f.waiting); {
		s, until, tags := f.waiting[from].s, from, [ahead]uint32{}
		for until < len(f.waiting) && f.waiting[until].s == s {
			tags[until-from] = f.waiting[until].tag
			until++
		}
		s.fetch(tags[:until-from])
		from = until
	}
	begin := uint32(0)
	for i := range f.waiting {
		w := &f.waiting[i]
		was := w.s.n
		at := w.s.of(uint64(w.tag), f.keys[begin:w.keyEnd])
		begin = w.keyEnd
		c.panes += w.s.n - was
		c.see(w.s, at, &w.Event)
		if w.s.width > 0 {
			f.Merge(w.s.cellsOf(at), f.cellsOf(i))
		}
	}
	f.waiting, f.keys = f.waiting[:0], f.keys[:0]
}

// add counts an event of a key in a slice at once.
func (c *Combiner) add(f *localFeed, s *counts, key []byte, e *Event) {
	was := s.n
	var i int
	if e.Identity != 0 && s.width > 0 {
		i = s.apart(key) // a table that knows the event already must be able to leave it out
	} else {
		i = s.of(tag(key), key)
	}
	c.panes += s.n - was
	c.see(s, i, e)
	if s.width > 0 {
		f.Add(s.cellsOf(i), e.Values)
	}
}

// see counts an event in a pane, but for what the aggregates know of it.
func (c *Combiner) see(s *counts, i int, e *Event) {
	p := s.at(i)
	p.add(1, e.MS-s.startMS, e.MS-s.startMS)
	s.witness(p, Range{e.Partition, e.Offset, e.Offset})
	if e.Identity != 0 {
		c.once = true
		s.ids.add(i, e.Identity)
	}
}

// Panes is the number of panes that wait for the next flush.
func (c *Combiner) Panes() int {
	c.settleAll()
	return c.panes
}

// Faults is the number of results that were NULL because they are impossible (a division by zero, an overflow, a cast of something else), and of events that
// were not counted in a feed because their key is too long.
func (c *Combiner) Faults() (n int64) {
	for i := range c.feeds {
		n += c.feeds[i].Faults
	}
	return n
}

// Reset forgets everything that was added since the last flush.
func (c *Combiner) Reset() {
	for i := range c.feeds {
		f := c.feeds[i]
		f.room.close(f.slices...)
		clear(f.slices)
		if len(f.slices) < 100 {
			clear(f.at)
		} else { // a map keeps its size
			f.at = map[[2]int64]*counts{}
		}
		f.slices, f.last = f.slices[:0], nil
		f.waiting, f.keys = f.waiting[:0], f.keys[:0]
	}
	c.panes, c.once = 0, false
}

// Flush hands everything out as batches, and resets. Each of the n partitions of the keyed log gets at least one batch; the last
// one of each carries the watermarks of h, so that a watermark never overtakes an event that it covers, and that of partition 0 its progress.
// partition is the keyed partition of a key. emit must not keep value beyond its call.
func (c *Combiner) Flush(n int32, partition func(key []byte) int32, h Header, emit func(partition int32, value []byte)) {
	for int(n) > len(c.out) {
		c.out = append(c.out, nil)
	}
	c.settleAll()
	h.once, h.Revision = c.once, c.revision
	watermarks, progress := h.Watermarks, h.Progress
	send := func(to int32) {
		c.batch = h.append(c.batch[:0])
		c.batch = seal(append(append(c.batch, c.out[to]...), isEnd))
		emit(to, c.batch)
		c.out[to] = c.out[to][:0]
	}
	for p := range c.out[:n] {
		c.out[p] = c.out[p][:0]
	}
	h.Watermarks, h.Progress = nil, nil
	told := make([]*counts, n) // the slice that each batch has come to
	for fi := range c.feeds {
		f := c.feeds[fi]
		inFeed := make([]bool, n) // whether each batch has come to the feed
		for _, s := range f.slices {
			for i := range s.n {
				p := s.at(i)
				key := s.user(p)
				to := partition(key)
				if len(c.out[to]) > MaxBatchBytes {
					send(to)
					told[to], inFeed[to] = nil, false
				}
				if !inFeed[to] {
					c.out[to], inFeed[to] = f.appendFeed(c.out[to]), true
				}
				if told[to] != s {
					c.out[to], told[to] = s.appendSlice(c.out[to]), s
				}
				c.out[to] = s.appendKey(c.out[to], i, key, c.once)
			}
		}
	}
	for p := range n {
		if h.Watermarks = watermarks; p == 0 {
			h.Progress = progress
		} else {
			h.Progress = nil
		}
		send(p)
	}
	c.Reset()
}

func (f *localFeed) appendFeed(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(append(b, isFeed), f.ID)
	b = binary.AppendUvarint(b, uint64(f.SliceMS))
	return binary.AppendUvarint(b, uint64(len(f.Aggregates)))
}

func (c *counts) appendSlice(b []byte) []byte {
	b = binary.AppendVarint(append(b, isSlice), c.startMS)
	return binary.AppendUvarint(b, uint64((c.afterMS-c.startMS)/c.sizeMS))
}

func (c *counts) appendKey(b []byte, i int, key []byte, once bool) []byte {
	b = binary.AppendUvarint(b, uint64(isKey+len(key)-1))
	b = append(b, key...)
	b = c.appendPane(b, c.at(i))
	if once {
		b = c.ids.append(b, i)
	}
	if c.width > 0 {
		b = c.cellsOf(i).Append(b)
	}
	return b
}

// appendPane writes what the slice's start and the key do not tell.
func (c *counts) appendPane(b []byte, p *pane) []byte {
	b = binary.AppendUvarint(b, uint64(p.count))
	b = binary.AppendUvarint(b, uint64(p.firstEvent))
	b = binary.AppendUvarint(b, uint64(p.lastEvent-p.firstEvent))
	b = binary.AppendUvarint(b, uint64(c.ranges(p)))
	if p.partition >= 0 {
		b = appendRange(b, Range{p.partition, p.from, p.to})
	}
	for i := p.more; i != 0; i = c.more[i-1].next {
		b = appendRange(b, c.more[i-1].Range)
	}
	return b
}

func appendRange(b []byte, r Range) []byte {
	b = binary.AppendUvarint(b, uint64(r.Partition))
	b = binary.AppendUvarint(b, uint64(r.First))
	return binary.AppendUvarint(b, uint64(r.Last-r.First))
}
