package window

import (
	"slices"

	"spate/shared/rule"
)

// merged is the sum of a key's panes in the slices of a window.
type merged struct {
	n     int64
	panes []mergedPane
	cells []rule.Cell // those of the only pane, or own
	own   []rule.Cell
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
	case len(f.Accumulators) == 0:
		m.cells = nil
	case len(m.panes) == 1:
		m.cells = m.panes[0].c.cellsOf(m.panes[0].i)
	default:
		m.own = slices.Grow(m.own[:0], len(f.Accumulators))[:len(f.Accumulators)]
		clear(m.own)
		for _, p := range m.panes {
			for k, cell := range p.c.cellsOf(p.i) {
				f.Accumulators[k].Merge(&m.own[k], &cell)
			}
		}
		m.cells = m.own
	}
}
