package rule

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Plan is what the engine evaluates: the rules of a pipeline, and the feeds that they share. It is never changed: a new revision of the rules gives
// another plan, in which the rules and feeds of this one keep their numbers ([History]).
type Plan struct {
	// Revision is the newest one of the rules that the plan has, Origin the one that it begins with; 0 if the rules were never revised. Plans of another
	// origin have nothing in common.
	Revision, Origin int64
	Inputs           []Input
	Feeds            []*Feed
	Rules            []*Rule
	// FeedOf is the number of each rule's feed, Since the revision that brought the rule.
	FeedOf []int
	Since  []int64
}

// Feed is a stream of panes: the events that pass a condition, grouped by key and slice of time. Rules with the same condition, key and
// slice share a feed, so that a further threshold on it costs nearly nothing.
type Feed struct {
	// ID names the feed in the log. It is a function of the feed's text, so it is the same in every process and revision.
	ID uint64
	// SliceMS and OffsetMS lay out the slices, of which windows consist: [OffsetMS + n·SliceMS, + SliceMS). GapMS is that of sessions, which have no
	// slices; 0 for other windows.
	SliceMS, OffsetMS, GapMS int64
	// Aggregates are those of all rules of the feed, each once. Counting all events needs none.
	Aggregates []*Aggregate

	where *node
	keys  []Key
	key   string // that of all its rules ([Rule.FeedKey])
	rules []*Rule
}

// Plan lays out the rules that are evaluated: all but those whose mode is off.
func (s *Set) Plan() *Plan {
	var h History
	h.Add(0, s, 0)
	return h.Plan()
}

// slice is the layout of the slices that windows consist of.
func (w Window) slice() (size, offset, gap int64) {
	if w.Kind == Session {
		return 0, 0, w.Step
	}
	size = w.Slice()
	offset = w.Offset % size
	if offset < 0 {
		offset += size
	}
	return size, offset, 0
}

// has reports whether the feed has all that a rule needs.
func (f *Feed) has(r *Rule) bool {
	return !slices.ContainsFunc(r.Aggregates, func(a *Aggregate) bool { return !a.all() && f.aggregate(a) < 0 })
}

// aggregate is the number of the aggregate among the feed's whose cell this one can use; -1 if there is none.
func (f *Feed) aggregate(a *Aggregate) int {
	return slices.IndexFunc(f.Aggregates, func(b *Aggregate) bool { return b.cell() == a.cell() })
}

// cell names what a cell of the aggregate knows. SUM and AVG need the same.
func (a *Aggregate) cell() string {
	if a.Function == Avg {
		return "SUM" + strings.TrimPrefix(a.key, "AVG")
	}
	return a.key
}

// join adds a rule to the feed.
func (f *Feed) join(r *Rule) {
	f.rules = append(f.rules, r)
	for _, a := range r.Aggregates {
		if !a.all() && f.aggregate(a) < 0 {
			f.Aggregates = append(f.Aggregates, a)
		}
	}
}

// all reports whether the aggregate is COUNT(*), which a pane has anyway.
func (a *Aggregate) all() bool { return a.Function == Count && a.arg == nil && a.filter == nil }

func (f *Feed) id() uint64 {
	h := sha256.New()
	fmt.Fprintf(h, "%s", f.key)
	for _, a := range f.Aggregates {
		fmt.Fprintf(h, " %s", a.key)
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// Slice is the start of the slice that a time is in.
func (f *Feed) Slice(ms int64) int64 {
	m := (ms - f.OffsetMS) % f.SliceMS
	if m < 0 {
		m += f.SliceMS
	}
	return ms - m
}

// Missed is the window of the first rule that an event of the slice misses altogether: the last one that it is in, which does not end after the given
// time. ok is false if it misses no rule.
func (f *Feed) Missed(slice, after int64) (start, end int64, ok bool) {
	for _, r := range f.rules {
		end := r.Window.lastEnd(slice)
		if end == math.MinInt64 || end > after {
			continue
		}
		if r.Window.Kind == Cumulate {
			return floorTo(slice, r.Window.Size, r.Window.Offset), end, true
		}
		return end - r.Window.Size, end, true
	}
	return 0, 0, false
}

// Ended is the time from which on no window of the feed's rules has an instant in it; the greatest number if there is none.
func (f *Feed) Ended() int64 {
	ended := int64(math.MinInt64)
	for _, r := range f.rules {
		if r.Window.Until == 0 {
			return math.MaxInt64
		}
		ended = max(ended, r.Window.Until-1+r.Window.Size)
	}
	return ended
}

// LastEnd is the end of the last window that has the slice in it.
func (f *Feed) LastEnd(slice int64) int64 {
	last := int64(math.MinInt64)
	for _, r := range f.rules {
		last = max(last, r.Window.lastEnd(slice))
	}
	return last
}

func floorTo(ms, unit, offset int64) int64 {
	m := (ms - offset) % unit
	if m < 0 {
		m += unit
	}
	return ms - m
}

// lastEnd is the end of the last window that has the instant in it; the least number if none has.
func (w Window) lastEnd(ms int64) int64 {
	step := w.Step
	if w.Kind == Cumulate {
		step = w.Size
	}
	start := floorTo(ms, step, w.Offset)
	if w.Until != 0 && start >= w.Until {
		start = floorTo(w.Until-1, step, w.Offset)
	}
	if start+w.Size <= ms || !w.begins(start) { // in a gap between windows
		return math.MinInt64
	}
	return start + w.Size
}

// Each calls f for every window that has the slice beginning at ms in it, and ends after a time and until another: by their ends.
func (w Window) Each(ms, after, until int64, f func(start, end int64)) {
	lastEnd := w.lastEnd(ms)
	if after = max(after, ms); after >= lastEnd { // also in a gap
		return
	}
	if w.Kind == Cumulate {
		start := lastEnd - w.Size
		for end := floorTo(after, w.Step, w.Offset) + w.Step; end <= min(lastEnd, until); end += w.Step {
			f(start, end)
		}
		return
	}
	first := floorTo(after-w.Size, w.Step, w.Offset) + w.Step
	if w.From != 0 && first < w.From {
		first = floorTo(w.From-1, w.Step, w.Offset) + w.Step
	}
	for start := first; start+w.Size <= min(lastEnd, until); start += w.Step {
		f(start, start+w.Size)
	}
}

// FeedProgram is a feed that is ready to be evaluated, by one goroutine.
type FeedProgram struct {
	*Feed
	// Faults is as in [Program].
	Faults       int64
	accumulators []accumulator
	where        evaluator
	keys         []evaluator
	row          []Value
	key          []byte
	input        int  // the one that is the key; -1 if there is none
	asText       bool // its text, if it has any, is that of the key
}

// Program compiles the feed.
func (f *Feed) Program() *FeedProgram {
	p := &FeedProgram{Feed: f, row: make([]Value, len(f.keys)), input: -1}
	if len(f.keys) == 1 && f.keys[0].node.op == opInput {
		p.input, p.asText = f.keys[0].node.index, f.keys[0].Type.Kind == Token || f.keys[0].Type.whole()
	}
	c := &compiler{faults: &p.Faults}
	if f.where != nil {
		p.where = c.compile(f.where)
	}
	for _, k := range f.keys {
		p.keys = append(p.keys, c.compile(k.node))
	}
	for _, a := range f.Aggregates {
		p.accumulators = append(p.accumulators, c.accumulator(a))
	}
	return p
}

// Takes reports whether an event counts for the feed: whether WHERE is TRUE for it.
func (p *FeedProgram) Takes(event []Value) bool { return p.where == nil || p.where(event).IsTrue() }

// Key returns the key of the group that an event belongs to. It is valid until the next call, and as long as the event is.
func (p *FeedProgram) Key(event []Value) []byte {
	if p.asText && event[p.input].text != nil {
		return event[p.input].text
	}
	p.key = p.AppendKey(p.key[:0], event)
	return p.key
}

// AppendKey appends the key of the group that an event belongs to.
func (p *FeedProgram) AppendKey(b []byte, event []Value) []byte {
	if p.input >= 0 {
		return AppendJSON(b, p.Feed.keys[0].Type, event[p.input])
	}
	for i, k := range p.keys {
		p.row[i] = k(event)
	}
	return appendKey(b, p.Feed.keys, p.row)
}

// Add adds an event to the cells of its group.
func (p *FeedProgram) Add(c Cells, event []Value) {
	for i := range p.accumulators {
		p.accumulators[i].add(&c.List[i], c.Spill, event)
	}
}

// Merge adds what other cells know.
func (p *FeedProgram) Merge(c, from Cells) {
	for i := range p.accumulators {
		p.accumulators[i].merge(&c.List[i], c.Spill, &from.List[i], from.Spill)
	}
}

// Unfiltered reports whether the feed takes every event.
func (f *Feed) Unfiltered() bool { return f.where == nil }
