package window

import "slices"

// KeyWindow is a window of a key that has not ended, as it is now.
type KeyWindow struct {
	Rule int  // its number in the plan
	Pane Pane // of the events so far
	// Columns are the rule's columns, as the members of a JSON object, and AtLeast as in [Verdict].
	Columns []byte
	AtLeast bool
	// Holds and Critical report whether the rule's conditions are TRUE now, Opened whether its alert has been.
	Holds, Critical, Opened bool
}

// Windows returns the windows of a key that have not ended, by end and rule: of each rule, the most that end first. more is how many a rule has beyond those.
func (t *Table) Windows(key string, most int) (out []KeyWindow, more map[int]int) {
	more = map[int]int{}
	k := []byte(key)
	tag := tag(k)
	for _, f := range t.feeds {
		var in []*counts // the slices that have the key
		for _, c := range f.slices {
			if i := c.find(tag, k); i >= 0 && c.at(i).count > 0 {
				in = append(in, c)
			}
		}
		for _, ri := range f.rules {
			var spans []span
			for _, c := range in {
				t.rules[ri].Window.Each(c.startMS, max(c.afterMS, ends(t.watermark)), c.untilMS, func(start, end int64) {
					spans = append(spans, span{end, ri, start})
				})
			}
			slices.SortFunc(spans, span.compare)
			spans = slices.Compact(spans)
			for i, s := range spans {
				w, _, _ := t.window(s)
				kw, ok := t.keyWindow(&w, k)
				if !ok {
					break // the rule has no such keys
				}
				if i == most {
					more[ri] = len(spans) - most
					break
				}
				out = append(out, kw)
			}
		}
	}
	slices.SortFunc(out, func(a, b KeyWindow) int { return a.span().compare(b.span()) })
	return out, more
}

func (w *KeyWindow) span() span { return span{w.Pane.EndMS(), w.Rule, w.Pane.StartMS} }

// keyWindow is what a window has of a key; ok is false if the rule has no such keys.
func (t *Table) keyWindow(w *openWindow, key []byte) (kw KeyWindow, ok bool) {
	r, m := &t.rules[w.rule], t.merge(w, key)
	defer func(faults int64) { r.Faults = faults }(r.Faults) // nothing comes of this row
	if m.n == 0 || !r.Row(key, m.n, m.cells, w.startMS, w.endMS) {
		return kw, false
	}
	v := t.verdict(w, key, Opened, r.Critical())
	_, opened := w.opened[string(key)]
	return KeyWindow{Rule: v.Rule, Pane: v.Pane, Columns: v.Columns, AtLeast: v.AtLeast, Holds: r.Holds(), Critical: v.Critical, Opened: opened}, true
}

// Each calls f for every pane in the table.
func (t *Table) Each(f func(key string, p Pane)) {
	for _, feed := range t.feeds {
		for _, c := range feed.slices {
			for i := range c.n {
				if p := c.at(i); p.count > 0 {
					f(string(c.user(p)), c.pane(p))
				}
			}
		}
	}
}
