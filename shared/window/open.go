package window

import (
	"cmp"
	"slices"
)

// openWindow is a window of a rule, for all keys. It is a function of the slices that there are: one that was not opened early is nowhere kept.
type openWindow struct {
	span
	opened map[string]opened
}

// span names a window.
type span struct {
	endMS   int64
	rule    int
	startMS int64
}

// compare is the order in which windows are closed.
func (s span) compare(o span) int {
	return cmp.Or(cmp.Compare(s.endMS, o.endMS), cmp.Compare(s.rule, o.rule), cmp.Compare(s.startMS, o.startMS))
}

// opened is what was handed out of a key's window before it has ended.
type opened struct{ critical bool }

// has reports whether a slice counts in a window that it lies in.
func (w *openWindow) has(c *counts) bool { return c.afterMS < w.endMS && w.endMS <= c.untilMS }

// window returns a window of a rule, and where it is kept or would be.
func (t *Table) window(s span) (w openWindow, at int, kept bool) {
	at, kept = slices.BinarySearchFunc(t.windows, s, func(w openWindow, s span) int { return w.compare(s) })
	if kept {
		return t.windows[at], at, true
	}
	return openWindow{span: s}, at, false
}

// open appends the verdicts of windows that a key has opened, or raised, with what was added to a slice.
func (t *Table) open(c *counts, i int, key []byte, silent bool, out []Verdict) []Verdict {
	t.lookAround(c)
	near := false   // whether t.near has the key's panes
	settles := true // whether nothing more will be told before the windows close
	for k := range t.around.windows {
		w := &t.around.windows[k]
		r := &t.rules[w.rule]
		m := &t.merged
		if len(t.around.slices) == 1 { // as those of tumbling windows
			m.n, m.panes = c.at(i).count, append(m.panes[:0], mergedPane{c, i})
		} else {
			if !near {
				t.nearTo(key)
				near = true
			}
			if t.nearEvents < r.least {
				continue
			}
			t.pick(w)
		}
		if m.n < r.least {
			settles = false
			continue
		}
		was, isOpen := w.opened[string(key)]
		if isOpen && (was.critical || !r.earlyCritical) {
			continue
		}
		settles = false
		if isOpen && m.n < r.leastCritical {
			continue
		}
		t.mergeCells(w)
		if !r.Finds(key, m.n, m.cells, w.startMS, w.endMS) {
			continue
		}
		now := opened{critical: r.earlyCritical && r.Critical()} // another one may not stay so
		if isOpen && !now.critical {
			continue
		}
		if w.opened == nil {
			w.opened = map[string]opened{}
			_, at, _ := t.window(w.span)
			t.windows = slices.Insert(t.windows, at, *w)
		}
		w.opened[string(key)] = now
		if silent {
			continue
		}
		state := Opened
		if isOpen {
			state = Raised
		}
		out = append(out, t.verdict(w, key, state, now.critical))
	}
	if settles && t.feeds[c.feed].single {
		c.at(i).marks |= settled
	}
	return out
}

// around is what a slice shares windows with, for all keys that a batch has in it.
type around struct {
	c       *counts      // the slice; nil if it is not known
	windows []openWindow // those of rules that open early, by end
	slices  []*counts    // those that are in any of them
}

// lookAround sets t.around.
func (t *Table) lookAround(c *counts) {
	a := &t.around
	if a.c == c {
		return
	}
	a.c, a.windows = c, a.windows[:0]
	f := t.feeds[c.feed]
	first := c.startMS
	for _, ri := range f.rules {
		if !t.rules[ri].early {
			continue
		}
		t.rules[ri].Window.Each(c.startMS, c.afterMS, c.untilMS, func(from, to int64) {
			if to-1 > t.watermark {
				w, _, _ := t.window(span{to, ri, from})
				a.windows = append(a.windows, w)
				first = min(first, from)
			}
		})
	}
	slices.SortFunc(a.windows, func(a, b openWindow) int { return a.compare(b.span) })
	a.slices = f.between(first, c.lastEnd)
}

// nearTo finds the key's panes in all slices around.
func (t *Table) nearTo(key []byte) {
	t.near, t.nearEvents = t.near[:0], 0
	tag := tag(key)
	for _, o := range t.around.slices {
		if i := o.find(tag, key); i >= 0 {
			t.near = append(t.near, mergedPane{o, i})
			t.nearEvents += o.at(i).count
		}
	}
}

// pick takes the panes of a window out of those that are near.
func (t *Table) pick(w *openWindow) {
	m := &t.merged
	m.n, m.panes = 0, m.panes[:0]
	for _, p := range t.near {
		if p.c.startMS >= w.startMS && p.c.startMS < w.endMS && w.has(p.c) {
			m.n += p.c.at(p.i).count
			m.panes = append(m.panes, p)
		}
	}
}
