package window

import "encoding/binary"

// Checkpoint hands out the users whose windows changed since they were handed out, nil for one that has none any more. It looks at up to
// limit panes and reports whether there are more to look at; the next call goes on there. emit must not keep value beyond its call.
//
// A checkpoint is for others to read, as any table of goka: what it says of a user is the state after some batch of the past. The table
// itself is rebuilt from the keyed log.
func (t *Table) Checkpoint(limit int, emit func(key string, value []byte)) (more bool) {
	var b []byte
	for len(t.gone) > 0 {
		w := t.gone[0]
		for ; w.seen < w.n; w.seen++ {
			if limit--; limit < 0 {
				return true
			}
			if p := w.at(w.seen); p.saved && !t.touch(w.user(p)) {
				emit(string(w.user(p)), nil)
			}
		}
		t.room.close(w)
		t.gone[0] = nil
		t.gone = t.gone[1:]
	}
	for _, w := range t.windows {
		for ; w.seen < w.n; w.seen++ {
			if limit--; limit < 0 {
				return true
			}
			if p := w.at(w.seen); p.dirty {
				user := w.user(p)
				b = t.appendUser(b[:0], user)
				emit(string(user), b)
			}
		}
	}
	for _, w := range t.windows {
		w.seen = 0
	}
	return false
}

// touch makes the next checkpoint write a user that it has written before, and reports whether there is anything to write.
func (t *Table) touch(user []byte) bool {
	tag := tag(user)
	for _, w := range t.windows {
		if i := w.find(tag, user); i >= 0 {
			p := w.at(i)
			p.dirty, p.saved, w.saved = true, true, true
			return true
		}
	}
	return false
}

// appendUser writes a user's windows: the version, then for each window its size, its start, and the pane as in a batch.
func (t *Table) appendUser(b []byte, user []byte) []byte {
	b = binary.AppendUvarint(b, userVersion)
	tag := tag(user)
	for _, w := range t.windows {
		i := w.find(tag, user)
		if i < 0 {
			continue
		}
		p := w.at(i)
		p.dirty, p.saved, w.saved = false, true, true
		b = binary.AppendUvarint(b, uint64(w.sizeMS))
		b = binary.AppendVarint(b, w.startMS)
		b = w.appendPane(b, p)
	}
	return b
}

// ParseUser reads what a checkpoint says of a user: the windows, by start.
func ParseUser(value []byte) ([]Pane, error) {
	d := decoder{b: value}
	d.version(userVersion)
	t := NewTable(0)
	for len(d.b) > 0 && !d.fail {
		size := d.size()
		start, ahead := d.start(size), d
		if ahead.sum(&Header{SizeMS: size, Sources: maxSources}); ahead.fail {
			d.fail = true
		} else {
			t.add(t.window(start, size, 0), []byte{0}, &d)
		}
	}
	return t.Lookup("\x00"), d.err("user state")
}
