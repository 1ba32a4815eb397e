package window

import (
	"cmp"
	"slices"
)

// Lookup returns the panes of a key that are in the table, by slice: those of open windows and of those whose close is not yet committed.
func (t *Table) Lookup(key string) (out []Pane) {
	k := []byte(key)
	tag := tag(k)
	for _, f := range t.feeds {
		for _, c := range f.slices {
			if i := c.find(tag, k); i >= 0 && c.at(i).count > 0 {
				out = append(out, c.pane(c.at(i)))
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Pane) int { return cmp.Compare(a.StartMS, b.StartMS) })
	return out
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
