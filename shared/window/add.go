package window

import (
	"encoding/binary"
	"slices"
)

// added are new events of a pane.
type added struct {
	c *counts
	i int
	n int64
}

// add reads what a batch says of a key in a slice and adds it up: t.added is where, and t.again how many events were known. It returns the number of events
// that came when all their windows were closed, which c is nil for.
func (t *Table) add(fi int, c *counts, tag uint64, key []byte, d *decoder, offset int64) (stray int64) {
	n := d.natural()
	first := d.natural()
	span := d.natural()
	ranges := d.count()
	t.added, t.again = t.added[:0], 0
	width := len(t.feeds[fi].Aggregates)
	if c != nil && width == 0 && !t.header.once { // as most are
		i := t.paneOf(c, tag, key)
		p := c.at(i)
		for ; ranges > 0; ranges-- {
			c.witness(p, d.evidence())
		}
		p.add(n, first, first+span)
		p.dirty = true
		t.added = append(t.added, added{c, i, n})
		return 0
	}
	i := -1
	if c != nil {
		i = t.paneOf(c, tag, key)
		t.added = append(t.added, added{c, i, n})
	} else {
		stray = n
	}
	for ; ranges > 0; ranges-- {
		if r := d.evidence(); c != nil {
			c.witness(c.at(i), r)
		}
	}
	if t.header.once {
		for ids := d.count(); ids > 0; ids-- {
			if id := binary.LittleEndian.Uint64(d.bytes(identityBytes)); c != nil {
				t.once(tag, key, id, offset)
			}
		}
	}
	t.cells.Reset(width)
	d.cells(t.cells)
	fresh := -1 // the events that are new: in a batch with identities, an event that has one comes alone
	for k, a := range t.added {
		p := a.c.at(a.i)
		p.add(a.n, first, first+span)
		if p.dirty = true; a.n > 0 {
			fresh = k
		}
	}
	if fresh >= 0 && width > 0 {
		a := t.added[fresh]
		t.feeds[fi].Merge(a.c.cellsOf(a.i), t.cells)
	}
	return stray
}

// once takes an event with an identity. If copies of it were counted, it is left out where they were: one that came in time for more windows is
// counted in those that the others were late for.
func (t *Table) once(tag uint64, key []byte, id uint64, offset int64) {
	c, i := t.added[0].c, t.added[0].i
	until := int64(EndOfTime)
	for _, o := range t.siblings {
		if at := o.find(tag, key); at >= 0 && o.known.has(at, id) {
			until = min(until, o.afterMS)
		}
	}
	if until == EndOfTime {
		c.known.add(i, id)
		t.known++
		return
	}
	t.added[0].n--
	if until <= c.afterMS {
		t.again++
		return
	}
	if c = t.slice(c.feed, c.startMS, c.afterMS, until, offset); c == nil {
		return
	}
	t.siblings = t.feeds[c.feed].between(c.startMS, c.startMS+1)
	i = t.paneOf(c, tag, key)
	c.known.add(i, id)
	t.known++
	at := slices.IndexFunc(t.added, func(a added) bool { return a.c == c })
	if at < 0 {
		at = len(t.added)
		t.added = append(t.added, added{c, i, 0})
	}
	t.added[at].n++
}

// paneOf returns the number of a key's pane; it makes one if there is none.
func (t *Table) paneOf(c *counts, tag uint64, key []byte) int {
	was := c.n
	i := c.of(tag, key)
	t.panes += c.n - was
	return i
}
