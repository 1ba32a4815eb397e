package window

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"spate/shared/fault"
	"spate/shared/rule"
)

// Table is the global half for one partition of the keyed log: the open windows of its keys and the watermarks of all source
// partitions. It is not safe for concurrent use.
//
// Life: [NewTable], [Table.Resume] with the stored position, then [Table.Apply] for each batch from Position.Replay on,
// [Table.Position] when offsets are to be committed and [Table.Committed] when they are. A table that was put aside can be resumed
// again, with the position that was stored last. [Table.Checkpoint] hands out what changed, for those who want to look at the table
// from outside; nothing is restored from it.
type Table struct {
	feeds      []*globalFeed
	rules      []globalRule
	revision   int64        // of the rules
	windows    []openWindow // those that were opened before they ended, until their close is committed; in order
	topic      uint64       // the incarnation of the topic of events that watermarks are of; 0 if it is not known
	watermarks []int64      // watermarks by source partition
	watermark  int64        // their minimum
	longest    int64        // the longest window
	applied    int64        // offset of the last batch applied
	told       int64        // verdicts below this offset were handed over by whoever came before
	history    []Position   // watermarks after each batch that moved any, since the last committed position
	base       Position
	gone       []*counts // slices that were given up, for the checkpoint to take their keys back
	panes      int       // in slices
	stray      int64
	foreign    int64
	repeated   int64
	known      int    // identities in slices
	joins      room   // of the keys of windows that close
	header     Header // of the batch that is applied
	tags       keyTags
	cells      rule.Cells
	merged     merged
	around     around
	near       []mergedPane // a key's panes around
	nearEvents int64        // in all of them
	siblings   []*counts    // those of the slice that a batch has come to
	added      []added      // what it says of a key
	again      int64
}

// globalFeed is a feed and its slices, by start and lateness.
type globalFeed struct {
	*rule.FeedProgram
	slices []*counts
	rules  []int
	room   room // its own, for slices of other feeds can be larger by far
	// single: each slice is the only one of its windows. Then a pane with fewer events than least opens none.
	single bool
	least  int64
}

// globalRule is a rule and what was decided about it beforehand.
type globalRule struct {
	*rule.Program
	feed                 int
	early, earlyCritical bool
	least, leastCritical int64 // events below which its condition, and the critical one, cannot be TRUE
}

// NewTable returns an empty table.
func NewTable(s Stream) *Table {
	t := &Table{watermark: NoTime, applied: -1}
	t.Extend(s.Plan)
	return t
}

// Extend makes the table know a newer plan. What it has of the rules and feeds that it knows already stays.
func (t *Table) Extend(p *rule.Plan) {
	for i, f := range p.Feeds {
		if i < len(t.feeds) {
			t.feeds[i].Feed = f
		} else {
			t.feeds = append(t.feeds, &globalFeed{FeedProgram: f.Program(), single: true, least: math.MaxInt64})
		}
	}
	for i, r := range p.Rules {
		if i < len(t.rules) {
			t.rules[i].Rule = r
			continue
		}
		g := globalRule{Program: p.Program(i), feed: p.FeedOf[i], least: r.LeastEvents(), leastCritical: r.LeastCritical()}
		g.early, _ = r.Early()
		g.earlyCritical, _ = r.EarlyCritical()
		f := t.feeds[g.feed]
		f.rules = append(f.rules, i)
		f.single = f.single && r.Window.Kind == rule.Tumble
		if g.early {
			f.least = min(f.least, g.least)
		}
		t.rules = append(t.rules, g)
	}
	t.revision, t.longest, t.around = p.Revision, Stream{Plan: p}.Span(), around{}
}

// Revision is the newest one of the rules that the table knows.
func (t *Table) Revision() int64 { return t.revision }

// Apply takes the batch at offset and appends its verdicts to out: first the windows that were opened or raised, then the windows that
// the batch's watermarks close, by end, rule, start and key. A batch that was applied before, or is older than
// one that was, changes nothing; nor does one that is corrupt, which is an error. Sums of feeds that the plan does not have, as those of rules
// that were changed, are left out and counted ([Stats]).
func (t *Table) Apply(offset int64, batch []byte, out []Verdict) ([]Verdict, error) {
	if offset <= t.applied && !fault.NoDedupe {
		return out, nil
	}
	d := unseal(batch)
	h := &t.header
	d.header(h)
	t.applied = offset
	t.tags.reset()
	if err := d.whole(h, &t.tags, t.check); err != nil {
		return out, fmt.Errorf("decode batch: %w", err)
	}
	silent := offset < t.told
	var s section
	var fi int
	var c *counts // nil if all its windows are closed
	if h.oneRuleMS > 0 {
		fi = t.oneRuleFeed(h.oneRuleMS)
	}
	for {
		switch kind, key := d.next(h, &s); kind {
		case itemEnd:
			was := t.watermark
			t.advance(h, offset)
			t.around.c = nil
			return t.closeDue(was, out), nil
		case itemFeed:
			fi = t.feed(s.id)
		case itemSlice:
			t.tags.nextSlice()
			if c = nil; fi >= 0 {
				c = t.slice(fi, s.start, s.after, EndOfTime, offset)
				t.siblings = t.feeds[fi].between(s.start, s.start+1)
			}
		default:
			tag := t.tags.next(c)
			if fi < 0 {
				if n := d.pass(h, &s); !silent {
					t.foreign += n
				}
				continue
			}
			stray := t.add(fi, c, tag, key, &d, offset)
			if !silent {
				t.stray += stray
				t.repeated += t.again
			}
			for _, a := range t.added {
				p := a.c.at(a.i)
				if a.n > 0 && (!t.feeds[fi].single || p.count >= t.feeds[fi].least && p.marks&settled == 0) {
					out = t.open(a.c, a.i, key, silent, out)
				}
				if silent {
					a.c.at(a.i).marks |= saved // whoever came before may have written it
					a.c.saved = true
				}
			}
		}
	}
}

// check reports a section whose feed has other slices or cells in the plan, and a slice that the feed does not have or that is in no window.
func (t *Table) check(h *Header, s *section) error {
	if h.oneRuleMS > 0 {
		return nil
	}
	i := t.feed(s.id)
	if i < 0 {
		return nil // it is left out
	}
	f := t.feeds[i]
	if f.SliceMS != s.sizeMS || len(f.Aggregates) != s.width || s.begun && (f.Slice(s.start) != s.start || h.Revision == t.revision && f.LastEnd(s.start) <= s.after) {
		return fmt.Errorf("feed %x: %w", s.id, ErrCorrupt)
	}
	return nil
}

func (t *Table) feed(id uint64) int {
	return slices.IndexFunc(t.feeds, func(f *globalFeed) bool { return f.ID == id })
}

// oneRuleFeed is the feed that batches of the one rule are of: all events, in slices of this size.
func (t *Table) oneRuleFeed(size int64) int {
	return slices.IndexFunc(t.feeds, func(f *globalFeed) bool {
		return f.SliceMS == size && f.OffsetMS == 0 && f.Unfiltered() && len(f.Aggregates) == 0
	})
}

// slice returns the counts of a slice for the windows that end after a time and until another, nil if all of them are closed.
func (t *Table) slice(fi int, start, after, until, offset int64) *counts {
	f := t.feeds[fi]
	i, ok := slices.BinarySearchFunc(f.slices, &counts{startMS: start, afterMS: after, untilMS: until}, (*counts).compare)
	if ok {
		c := f.slices[i]
		if c.lastEnd-1 <= t.watermark {
			return nil
		}
		return c
	}
	last := int64(NoTime)
	for _, ri := range f.rules {
		t.rules[ri].Window.Each(start, max(after, ends(t.watermark)), until, func(_, end int64) { last = max(last, end) })
	}
	if last == NoTime {
		return nil
	}
	expect := 0 // of late events there are few
	if i > 0 && after == start && until == EndOfTime {
		expect = f.slices[i-1].n
	}
	c := f.room.open(start, f.SliceMS, after, len(f.Aggregates), expect)
	c.untilMS, c.lastEnd, c.first, c.feed = until, last, offset, fi
	f.slices = slices.Insert(f.slices, i, c)
	t.around.c = nil
	return c
}

// between are the slices that begin in a span of time.
func (f *globalFeed) between(from, to int64) []*counts {
	begin := func(ms int64) int {
		i, _ := slices.BinarySearchFunc(f.slices, ms, func(c *counts, ms int64) int { return cmp.Compare(c.startMS, ms) })
		return i
	}
	return f.slices[begin(from):begin(to)]
}

// advance takes the watermarks of a batch.
//
// A source partition that is new begins at the watermark: what is closed stays closed. If the topic of events was deleted and made anew, all
// its partitions are new; those that it had before will never be heard of again, and hold no window open.
func (t *Table) advance(h *Header, offset int64) {
	moved := false
	if !SameIncarnation(h.Topic, t.topic) {
		t.watermarks, moved = nil, true
	}
	if h.Topic != 0 {
		t.topic = h.Topic
	}
	for len(t.watermarks) < int(h.Sources) {
		t.watermarks = append(t.watermarks, t.watermark)
	}
	for _, m := range h.Watermarks {
		if m.WatermarkMS > t.watermarks[m.Partition] {
			t.watermarks[m.Partition], moved = m.WatermarkMS, true
		}
	}
	if moved {
		t.watermark = max(t.watermark, lowest(t.watermarks))
		t.history = append(t.history, Position{Next: offset + 1, Topic: t.topic, Watermarks: slices.Clone(t.watermarks)})
	}
}
