package window

import (
	"cmp"
	"maps"
	"slices"
)

// closeDue hands out the rows of the windows that the watermark has passed since it was at another time. If it has passed many, it takes those of one span of
// time after the other: there may be more of them than the table has room for.
func (t *Table) closeDue(was int64, out []Verdict) []Verdict {
	if t.watermark == was {
		return out
	}
	due := map[span]struct{}{}
	for from, ended := ends(was), ends(t.watermark); from < ended; {
		next := t.next(from)
		if next >= ended {
			break
		}
		until := min(ended, max(from, next)+t.longest)
		clear(due)
		for _, f := range t.feeds {
			if from != NoTime && f.Slice(from) == f.Slice(until) {
				continue // windows end where slices do
			}
			for _, c := range f.between(next, until) {
				for _, ri := range f.rules {
					if !t.rules[ri].early {
						t.rules[ri].Window.Each(c.startMS, max(c.afterMS, from), min(c.untilMS, until), func(start, end int64) { due[span{end, ri, start}] = struct{}{} })
					}
				}
			}
		}
		for _, w := range t.windows { // of rules that open early, no others have anything to tell
			if w.endMS > from && w.endMS <= until {
				due[w.span] = struct{}{}
			}
		}
		for _, s := range slices.SortedFunc(maps.Keys(due), span.compare) {
			w, _, _ := t.window(s)
			out = t.close(&w, out)
		}
		from = until
	}
	return out
}

// ends is the time by which windows have ended when a watermark is reached.
func ends(watermark int64) int64 {
	if watermark == NoTime || watermark == EndOfTime {
		return watermark
	}
	return watermark + 1
}

// next is the start of the first slice that is in a window which ends after a time; EndOfTime if there is none.
func (t *Table) next(after int64) int64 {
	next := int64(EndOfTime)
	for _, f := range t.feeds {
		list := f.slices
		if after != NoTime {
			list = f.between(after-t.longest, EndOfTime)
		}
		if i := slices.IndexFunc(list, func(c *counts) bool { return c.lastEnd > after }); i >= 0 {
			next = min(next, list[i].startMS)
		}
	}
	return next
}

// close appends the verdicts of a window that has ended, by key. A window that was opened is closed whatever its row says.
func (t *Table) close(w *openWindow, out []Verdict) []Verdict {
	r := &t.rules[w.rule]
	if r.early {
		for _, key := range slices.Sorted(maps.Keys(w.opened)) {
			m := t.merge(w, []byte(key))
			if r.Row([]byte(key), m.n, m.cells, w.startMS, w.endMS) {
				out = append(out, t.verdict(w, []byte(key), Closed, r.Critical()))
			}
		}
		return out
	}
	from := len(out)
	tell := func(key []byte) {
		if t.mergeCells(w); r.Finds(key, t.merged.n, t.merged.cells, w.startMS, w.endMS) {
			out = append(out, t.verdict(w, key, Closed, r.Critical()))
		}
	}
	m := &t.merged
	parts := t.feeds[r.feed].between(w.startMS, w.endMS)
	if len(parts) == 1 && w.has(parts[0]) {
		c := parts[0]
		for i := range c.n {
			if m.n, m.panes = c.at(i).count, append(m.panes[:0], mergedPane{c, i}); m.n >= r.least {
				tell(c.user(c.at(i)))
			}
		}
	} else {
		t.join(w, parts, func(key []byte) {
			if m.n >= r.least {
				tell(key)
			}
		})
	}
	slices.SortFunc(out[from:], func(a, b Verdict) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// joined is a pane of a key in one of the slices that are joined, and 1 + the number of the key's one before it.
type joined struct{ part, pane, next uint32 }

// join calls f for every key in the slices of a window, with its panes in t.merged. It looks at each pane once.
func (t *Table) join(w *openWindow, parts []*counts, f func(key []byte)) {
	keys := t.joins.open(w.startMS, 1, w.startMS, 0, 0)
	defer t.joins.close(keys)
	var heads []uint32 // by key: 1 + the number of its last pane
	var list []joined
	for part, c := range parts {
		if !w.has(c) {
			continue
		}
		for i := range c.n {
			key := c.user(c.at(i))
			k := keys.of(tag(key), key)
			if k == len(heads) {
				heads = append(heads, 0)
			}
			list = append(list, joined{uint32(part), uint32(i), heads[k]})
			heads[k] = uint32(len(list))
		}
	}
	m := &t.merged
	for k, at := range heads {
		for m.n, m.panes = 0, m.panes[:0]; at != 0; at = list[at-1].next {
			p := mergedPane{parts[list[at-1].part], int(list[at-1].pane)}
			m.n += p.c.at(p.i).count
			m.panes = append(m.panes, p)
		}
		f(keys.user(keys.at(k)))
	}
}
