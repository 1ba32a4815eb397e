package window

import "slices"

// Resume sets the table to a stored position. Whatever is missing comes back with the batches that are read again from p.Replay on:
// every window that was open at p is counted from its first event.
//
// A table that was in use before keeps what it has, and leaves out what it applied already, unless that includes batches whose verdicts
// were not handed over for good: those are judged again, from the start.
func (t *Table) Resume(p Position) {
	if t.applied >= p.Next || t.applied < p.Replay-1 {
		t.forgetClosed(EndOfTime)
		t.applied = p.Replay - 1
	}
	t.told, t.base, t.history = p.Next, p, nil
	t.topic, t.watermarks = p.Topic, slices.Clone(p.Watermarks)
	t.watermark = lowest(t.watermarks)
	t.forgetClosed(t.watermark)
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
	for _, f := range t.feeds {
		for _, c := range f.slices {
			if c.lastEnd-1 > mark {
				p.Replay = min(p.Replay, c.first)
			}
		}
	}
	return p
}

// Committed tells that p is stored. Windows that were closed at p are forgotten: they cannot be needed again.
func (t *Table) Committed(p Position) { t.forgetClosed(p.Watermark()) }

func (t *Table) forgetClosed(watermark int64) {
	t.around = around{}
	n := 0
	for n < len(t.windows) && t.windows[n].endMS-1 <= watermark {
		n++
	}
	t.windows = slices.Delete(t.windows, 0, n)
	for i := range t.feeds {
		f := t.feeds[i]
		f.slices = slices.DeleteFunc(f.slices, func(c *counts) bool {
			if c.lastEnd-1 > watermark {
				return false
			}
			t.giveUp(c)
			return true
		})
	}
}

func (t *Table) giveUp(c *counts) {
	t.panes -= c.n
	t.known -= c.known.n
	c.known = known{}
	if c.seen = 0; c.saved {
		t.gone = append(t.gone, c)
	} else {
		c.room.close(c)
	}
}
