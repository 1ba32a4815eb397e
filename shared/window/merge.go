package window

import "spate/shared/rule"

// merged is the sum of a key's panes in the slices of a window.
type merged struct {
	n     int64
	panes []mergedPane
	cells rule.Cells // those of the only pane, or own
	own   rule.Cells
}

type mergedPane struct {
	c *counts
	i int
}

// merge adds a key's panes in a window up. The result is valid until the next call.
func (t *Table) merge(w *openWindow, key []byte) *merged {
	m := &t.merged
	m.n, m.panes = 0, m.panes[:0]
	tag := tag(key)
	for _, c := range t.feeds[t.rules[w.rule].feed].between(w.startMS, w.endMS) {
		if !w.has(c) {
			continue
		}
		if i := c.find(tag, key); i >= 0 {
			m.n += c.at(i).count
			m.panes = append(m.panes, mergedPane{c, i})
		}
	}
	t.mergeCells(w)
	return m
}

// mergeCells merges the cells of the panes.
func (t *Table) mergeCells(w *openWindow) {
	m := &t.merged
	f := t.feeds[t.rules[w.rule].feed]
	switch {
	case len(f.Aggregates) == 0:
		m.cells = rule.Cells{}
	case len(m.panes) == 1:
		m.cells = m.panes[0].c.cellsOf(m.panes[0].i)
	default:
		m.own.Reset(len(f.Aggregates))
		for _, p := range m.panes {
			f.Merge(m.own, p.c.cellsOf(p.i))
		}
		m.cells = m.own
	}
}
