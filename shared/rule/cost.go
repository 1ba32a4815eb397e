package rule

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Slice is the length of the pieces, in milliseconds, from which all windows of the layout are put together: the greatest common divisor of size
// and step. For Session it is the gap.
func (w Window) Slice() int64 {
	if w.Kind == Session {
		return w.Step
	}
	a, b := w.Size, w.Step
	for b > 0 {
		a, b = b, a%b
	}
	return a
}

// slices is how many slices a window has.
func (w Window) slices() int64 {
	if w.Kind == Session {
		return 1
	}
	return w.Size / w.Slice()
}

// FeedKey is a text that two rules share only if the same events are counted for them, by the same key and in the same slices. Such rules
// share one feed, which has the aggregates of all of them.
func (r *Rule) FeedKey() string {
	var where []string
	for _, c := range r.where.conjuncts() {
		where = append(where, c.key)
	}
	slices.Sort(where) // AND has no order
	var b strings.Builder
	for _, key := range slices.Compact(where) {
		fmt.Fprintf(&b, "%q", key)
	}
	b.WriteByte('|')
	for _, k := range r.Keys {
		fmt.Fprintf(&b, "%q", k.node.key)
	}
	slice := r.Window.Slice()
	fmt.Fprintf(&b, "|%v %d %d", r.Window.Kind == Session, slice, (r.Window.Offset%slice+slice)%slice)
	return b.String()
}

// Feed is a short name of the feed, made of [Rule.FeedKey].
func (r *Rule) Feed() string {
	h := sha256.Sum256([]byte(r.FeedKey()))
	return hex.EncodeToString(h[:4])
}

// Estimates of memory, in bytes.
const (
	paneBytes     = 80 // with a short key, and its share of the index
	shortKeyBytes = 20
	cellBytes     = 40  // of an aggregate other than COUNT(*), which the pane has
	spillBytes    = 112 // of an extreme that is text, beside the text
	distinctBytes = 16  // in a table that is half full
	textBytes     = 32  // of a STRING whose length is not declared
)

// Cost is what a rule needs, apart from what it shares with the other rules of its feed. The sizes are estimates.
type Cost struct {
	// Fields are the columns of the events that are read, the time included.
	Fields []string `json:"fields"`
	// Panes are the slices of one window: each is held for a key that has events in it.
	Panes int64 `json:"panes"`
	// BytesPerKey is the memory of a key with events in all slices of one window, without distinct values.
	BytesPerKey int64 `json:"bytes_per_key"`
	// BytesPerDistinct is the memory of one distinct value for all aggregates over distinct values: 0 without such aggregates.
	BytesPerDistinct int64 `json:"bytes_per_distinct"`
	// MaxBytesPerKey is the memory of a key with as many distinct values as are counted, in all slices.
	MaxBytesPerKey int64 `json:"max_bytes_per_key"`
}

// Cost estimates what a rule of the set needs.
func (s *Set) Cost(r *Rule) Cost {
	c := Cost{Fields: s.fields(r), Panes: r.Window.slices()}
	pane, key := int64(paneBytes), int64(0)
	for _, k := range r.Keys {
		key += k.Type.bytes()
	}
	if key > shortKeyBytes {
		pane += key
	}
	for _, a := range r.Aggregates {
		if !a.all() {
			pane += cellBytes
		}
		switch {
		case a.Distinct:
			c.BytesPerDistinct += distinctBytes
		case a.Type.Kind == String: // MIN and MAX
			pane += spillBytes + a.Type.bytes()
		}
	}
	c.BytesPerKey = c.Panes * pane
	c.MaxBytesPerKey = c.BytesPerKey + c.Panes*MaxDistinct*c.BytesPerDistinct
	return c
}

// fields are the columns that a rule reads.
func (s *Set) fields(r *Rule) []string {
	list := []string{r.Table.Columns[r.Table.Time].Name}
	add := func(n *node) bool {
		if n.op == opInput {
			list = append(list, s.Inputs[n.index].Name())
		}
		return false
	}
	var nodes []*node
	nodes = append(nodes, r.where)
	for _, k := range r.Keys {
		nodes = append(nodes, k.node)
	}
	for _, a := range r.Aggregates {
		nodes = append(nodes, a.arg, a.filter)
	}
	for _, n := range nodes {
		if n != nil {
			n.any(add)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// bytes estimates the size of a value as text, as keys have it.
func (t Type) bytes() int64 {
	switch t.Kind {
	case Boolean:
		return 5
	case String:
		if t.Precision > 0 {
			return int64(min(t.Precision, textBytes))
		}
		return textBytes
	case Decimal:
		return int64(t.Precision) + 3
	}
	return 20
}
