package window

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// Checkpoint hands out the keys whose panes changed since they were handed out, nil for one that has none any more. It looks at up to
// limit panes and reports whether there are more to look at; the next call goes on there. emit must not keep value beyond its call.
//
// A checkpoint is for others to read, as any table of goka: what it says of a key is the state after some batch of the past. The table
// itself is rebuilt from the keyed log.
func (t *Table) Checkpoint(limit int, emit func(key string, value []byte)) (more bool) {
	var b []byte
	for len(t.gone) > 0 {
		c := t.gone[0]
		for ; c.seen < c.n; c.seen++ {
			if limit--; limit < 0 {
				return true
			}
			if p := c.at(c.seen); p.marks&saved != 0 && !t.touch(c.user(p)) {
				emit(string(c.user(p)), nil)
			}
		}
		c.room.close(c)
		t.gone[0] = nil
		t.gone = t.gone[1:]
	}
	for _, f := range t.feeds {
		for _, c := range f.slices {
			for ; c.seen < c.n; c.seen++ {
				if limit--; limit < 0 {
					return true
				}
				if p := c.at(c.seen); p.dirty {
					key := c.user(p)
					b = t.appendKey(b[:0], key)
					emit(string(key), b)
				}
			}
		}
	}
	for _, f := range t.feeds {
		for _, c := range f.slices {
			c.seen = 0
		}
	}
	return false
}

// touch makes the next checkpoint write a key that it has written before, and reports whether there is anything to write.
func (t *Table) touch(key []byte) bool {
	tag := tag(key)
	for _, f := range t.feeds {
		for _, c := range f.slices {
			if i := c.find(tag, key); i >= 0 {
				p := c.at(i)
				p.dirty, c.saved = true, true
				p.marks |= saved
				return true
			}
		}
	}
	return false
}

// appendKey writes a key's panes: the version, then for each slice the feed's id, its size, its start, and the pane as in a batch.
func (t *Table) appendKey(b []byte, key []byte) []byte {
	b = binary.AppendUvarint(b, keyVersion)
	tag := tag(key)
	for _, f := range t.feeds {
		for _, c := range f.slices {
			i := c.find(tag, key)
			if i < 0 {
				continue
			}
			p := c.at(i)
			p.dirty, c.saved = false, true
			p.marks |= saved
			if p.count == 0 {
				continue // its events are known in another pane
			}
			b = binary.BigEndian.AppendUint64(b, f.ID)
			b = binary.AppendUvarint(b, uint64(c.sizeMS))
			b = binary.AppendVarint(b, c.startMS)
			b = c.appendPane(b, p)
		}
	}
	return b
}

// ParseKey reads what a checkpoint says of a key: its panes, by slice.
func ParseKey(value []byte) ([]Pane, error) {
	d := decoder{b: value}
	d.version(keyVersion)
	var out []Pane
	for len(d.b) > 0 && !d.fail {
		d.bytes(8)
		size := d.size()
		start := d.int()
		ahead := d
		if ahead.sum(&Header{Sources: maxSources}, size); ahead.fail || start < -1<<60 || start > 1<<60 {
			d.fail = true
			break
		}
		n, first, span := d.natural(), d.natural(), d.natural()
		p := Pane{StartMS: start, SizeMS: size, Count: n, FirstMS: start + first, LastMS: start + first + span}
		for ranges := d.count(); ranges > 0; ranges-- {
			p.evidence = append(p.evidence, d.evidence())
		}
		slices.SortFunc(p.evidence, func(a, b Range) int { return int(a.Partition) - int(b.Partition) })
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b Pane) int { return cmp.Compare(a.StartMS, b.StartMS) })
	return out, d.err("state of a key")
}
