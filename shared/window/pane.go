package window

import "slices"

// Range is the evidence of one source partition for a window: the offsets of the first and the last event that were counted.
type Range struct {
	Partition   int32
	First, Last int64
}

// Pane is the count of one user in one window, or a part of it.
type Pane struct {
	StartMS, SizeMS int64
	Count           int64
	// FirstMS and LastMS are the lowest and the highest event time counted.
	FirstMS, LastMS int64

	// The first range is inline, for nearly all panes have events of one source partition only.
	ranges int32
	one    Range
	more   []Range
}

// EndMS is the first instant after the window.
func (p *Pane) EndMS() int64 { return p.StartMS + p.SizeMS }

// Evidence lists the ranges of the pane, ascending by source partition.
func (p *Pane) Evidence() []Range {
	if p.ranges == 0 {
		return nil
	}
	out := append([]Range{p.one}, p.more...)
	slices.SortFunc(out, func(a, b Range) int { return int(a.Partition) - int(b.Partition) })
	return out
}

// add counts n events whose times lie between first and last.
func (p *Pane) add(n, first, last int64) {
	if p.Count == 0 {
		p.FirstMS, p.LastMS = first, last
	} else {
		p.FirstMS, p.LastMS = min(p.FirstMS, first), max(p.LastMS, last)
	}
	p.Count += n
}

// witness merges r into the evidence.
func (p *Pane) witness(r Range) {
	if p.ranges == 0 {
		p.one, p.ranges = r, 1
		return
	}
	if p.one.Partition == r.Partition {
		p.one.extend(r)
		return
	}
	for i := range p.more {
		if p.more[i].Partition == r.Partition {
			p.more[i].extend(r)
			return
		}
	}
	p.more = append(p.more, r)
	p.ranges++
}

func (r *Range) extend(o Range) { r.First, r.Last = min(r.First, o.First), max(r.Last, o.Last) }

// reset empties p for reuse; it keeps the room of the evidence.
func (p *Pane) reset() { *p = Pane{more: p.more[:0]} }
