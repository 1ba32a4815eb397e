package window

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"math"
	"math/bits"
	"slices"

	"spate/shared/rule"
)

// counts are the panes of one slice of a feed, one for each key. Both halves of the aggregation keep them: the local one for the length of a
// transaction, the global one until the close of the last window with the slice is committed.
//
// There may be millions, so they are laid out for the memory and for the garbage collector: a cache line of 64 bytes a pane, with its key if that is short, and 8 to 22 of index, in
// arrays without pointers, which the collector need not look through. The arrays come from a [room] and return there with the slice.
// Aggregates other than the count are cells beside the panes, which only feeds that have some pay for.
type counts struct {
	startMS, sizeMS int64
	// afterMS is what the events came too late for: they count in the windows that end after it. It is startMS for all that are in time.
	afterMS int64
	// untilMS is for events of which copies count in the windows that end after it; EndOfTime for all others. Only the Table has such.
	untilMS int64

	index []uint64 // open addressing: the high half is of the hash, the low half 1 + the pane's number; 0 is free
	panes [][]pane // in the order in which their users came
	n     int
	keys  [][]byte      // those that are long, back to back
	more  []link        // evidence of the second and further source partitions of a key
	cells [][]rule.Cell // beside the panes, width for each
	spill *rule.Spill
	width int
	room  *room
	// fetched has no meaning: it is what was read for the caches' sake alone.
	fetched int64

	// What the Table knows of the slice.
	lastEnd int64 // the end of its last window; when that is closed for good, it is given up
	feed    int
	first   int64 // offset of the first batch that has a pane of it
	seen    int   // panes that this pass of the checkpoint has looked at
	saved   bool  // the checkpoint may hold records of its keys
	known   known // the identities that were counted

	// What the Combiner knows of it.
	ids identities
}

// pane is the count of one key.
type pane struct {
	count                 int64
	from, to              int64          // evidence: offsets of the first and the last event in one source partition
	firstEvent, lastEvent uint32         // times, since the slice's start
	partition             int32          // of from and to; -1 without evidence
	more                  uint32         // 1 + the number of the first link with further evidence; 0 is none
	key                   [shortKey]byte // the key, or where a longer one is among the keys
	keyLen                uint16
	dirty                 bool // changed since the checkpoint wrote it
	marks                 uint8
}

const (
	// saved: the checkpoint may hold a record of the key.
	saved = 1 << iota
	// settled: nothing will be told of the key before the slice's only window closes.
	settled
)

type link struct {
	Range
	next uint32 // as pane.more
}

const (
	panesPerArray = 1 << 10
	keysPerArray  = 1 << 16
	// shortKey is the longest key that a pane has room for.
	shortKey = 20
)

// MaxKey is the most bytes that a key may have, as JSON. That of a user has far fewer; see shared/activity.
const MaxKey = 1<<12 - 1

var seed = maphash.MakeSeed() // of the index; no result depends on it

// tag is the half of a user's hash that is kept. The low bits choose the place in the index.
func tag(user []byte) uint64 { return maphash.Bytes(seed, user) >> 32 }

// room keeps the arrays of windows that are gone for those that come.
type room struct {
	index [][]uint64
	panes [][]pane
	keys  [][]byte
	cells [][]rule.Cell // cleared
	more  [][]link
	used  int // arrays of panes that windows have
	size  int // panes of a window, as the last ones had them
}

// compare is the order of counts in a table: by slice, then by the windows that they are in.
func (c *counts) compare(o *counts) int {
	return cmp.Or(cmp.Compare(c.startMS, o.startMS), cmp.Compare(c.afterMS, o.afterMS), cmp.Compare(c.untilMS, o.untilMS))
}

// open returns the counts of a slice, empty; expect is how many panes it is likely to have.
func (r *room) open(start, size, after int64, width, expect int) *counts {
	c := &counts{startMS: start, sizeMS: size, afterMS: after, width: width, room: r}
	if n := len(r.index); n > 0 {
		c.index = r.index[n-1]
		r.index = r.index[:n-1]
	}
	if fits := 1 << bits.Len(uint(max(expect+expect/3, 7))); len(c.index) < fits || len(c.index) > 16*(max(r.size, expect)+1) {
		c.index = make([]uint64, fits)
	}
	clear(c.index)
	if width > 0 {
		c.spill = &rule.Spill{}
	}
	if n := len(r.more); n > 0 {
		c.more = r.more[n-1]
		r.more = r.more[:n-1]
	}
	return c
}

// close takes the arrays of windows back. It keeps at most as many as they or the others use, so that a flood does not hold memory for ever.
func (r *room) close(list ...*counts) {
	arrays := 0
	for _, c := range list {
		arrays += len(c.panes)
	}
	r.used -= arrays
	most := max(r.used, arrays)
	for _, c := range list {
		r.size = max(c.n, r.size-r.size/8)
		r.panes = spare(r.panes, c.panes, panesPerArray, most)
		r.keys = spare(r.keys, c.keys, keysPerArray, most)
		for _, a := range c.cells {
			clear(a)
		}
		r.cells = spare(r.cells, c.cells, panesPerArray*c.width, most)
		if len(r.index) < most {
			r.index = append(r.index, c.index)
		}
		if len(r.more) < most && cap(c.more) > 0 && cap(c.more) <= 16*(r.size+1) {
			r.more = append(r.more, c.more[:0])
		}
		*c = counts{}
	}
}

// spare adds the arrays that have their full size to those that are kept, and keeps most of them at most.
func spare[T any](kept, arrays [][]T, size, most int) [][]T {
	for _, a := range arrays {
		if cap(a) == size {
			kept = append(kept, a[:0])
		}
	}
	if len(kept) > most {
		clear(kept[most:])
		kept = kept[:most]
	}
	return kept
}

// push appends an array to a list of arrays: a spare one, or a new one. The first of a window begins small and grows, for most windows of
// a quiet shop are small.
func push[T any](list [][]T, kept *[][]T, first, size int) [][]T {
	if n := len(*kept); n > 0 {
		list = append(list, (*kept)[n-1])
		*kept = (*kept)[:n-1]
		return list
	}
	if len(list) == 0 {
		size = first
	}
	return append(list, make([]T, 0, size))
}

// grow doubles an array until it has room for n more.
func grow[T any](a []T, n, size int) []T {
	if len(a)+n <= cap(a) {
		return a
	}
	want := cap(a)
	for want < len(a)+n {
		want *= 2
	}
	return append(make([]T, 0, min(want, size)), a...)
}

// at returns a pane by its number. It is valid until the next call of add.
func (c *counts) at(i int) *pane { return &c.panes[i/panesPerArray][i%panesPerArray] }

func (c *counts) user(p *pane) []byte {
	if p.keyLen <= shortKey {
		return p.key[:p.keyLen:p.keyLen]
	}
	at := binary.LittleEndian.Uint32(p.key[:])
	a := c.keys[at/keysPerArray]
	k := at % keysPerArray
	return a[k : k+uint32(p.keyLen) : k+uint32(p.keyLen)]
}

// find returns the number of a user's pane, or -1.
func (c *counts) find(tag uint64, user []byte) int {
	mask := uint64(len(c.index) - 1)
	for at := tag & mask; ; at = (at + 1) & mask {
		e := c.index[at]
		if e == 0 {
			return -1
		}
		if e>>32 == tag {
			i := int(uint32(e)) - 1
			if string(c.user(c.at(i))) == string(user) {
				return i
			}
		}
	}
}

// ahead is how many keys are looked up together.
const ahead = 64

// fetch reads what [counts.find] will read of up to ahead keys. A table is larger than the processor's caches, and nearly every key is at a place that is in none of them:
// here the processor waits for all the places at the same time, find would wait for one after the other.
func (c *counts) fetch(tags []uint32) {
	var entries [ahead]uint64
	mask := uint64(len(c.index) - 1)
	for k, t := range tags {
		entries[k%ahead] = c.index[uint64(t)&mask]
	}
	for k, t := range tags {
		if e := entries[k%ahead]; e != 0 && e>>32 == uint64(t) {
			c.fetched += c.at(int(uint32(e)) - 1).count
		}
	}
}

// of returns the number of a user's pane; it makes one if there is none.
func (c *counts) of(t uint64, user []byte) int {
	if i := c.find(t, user); i >= 0 {
		return i
	}
	if (c.n+1)*4 > len(c.index)*3 {
		c.grow()
	}
	c.put(t<<32 | uint64(c.n+1))
	return c.add(user)
}

// apart makes a pane of its own for one event of a key. It cannot be found by its key.
func (c *counts) apart(key []byte) int { return c.add(key) }

func (c *counts) grow() {
	old := c.index
	c.index = make([]uint64, 2*len(old))
	for _, e := range old {
		if e != 0 {
			c.put(e)
		}
	}
}

func (c *counts) put(e uint64) {
	mask := uint64(len(c.index) - 1)
	at := e >> 32 & mask
	for c.index[at] != 0 {
		at = (at + 1) & mask
	}
	c.index[at] = e
}

// add appends an empty pane.
func (c *counts) add(user []byte) int {
	if len(c.panes) == 0 || len(c.panes[len(c.panes)-1]) == panesPerArray {
		c.panes = push(c.panes, &c.room.panes, 4, panesPerArray)
		c.room.used++
	}
	last := len(c.panes) - 1
	a := grow(c.panes[last], 1, panesPerArray)
	c.panes[last] = append(a, pane{keyLen: uint16(len(user)), partition: -1, firstEvent: math.MaxUint32})
	if p := &c.panes[last][len(a)]; len(user) <= shortKey {
		copy(p.key[:], user)
	} else {
		binary.LittleEndian.PutUint32(p.key[:], c.keep(user))
	}
	if c.width > 0 {
		c.widen(last)
	}
	c.n++
	return c.n - 1
}

// widen adds the cells of the last pane.
func (c *counts) widen(last int) {
	if len(c.cells) == last {
		c.cells = push(c.cells, &c.room.cells, 4*c.width, panesPerArray*c.width)
	}
	a := grow(c.cells[last], c.width, panesPerArray*c.width)
	c.cells[last] = a[:len(a)+c.width]
}

// cellsOf are the cells beside a pane.
func (c *counts) cellsOf(i int) rule.Cells {
	at := i % panesPerArray * c.width
	return rule.Cells{List: c.cells[i/panesPerArray][at : at+c.width], Spill: c.spill}
}

// keep stores a long key and returns where it is.
func (c *counts) keep(user []byte) uint32 {
	if len(c.keys) == 0 || len(c.keys[len(c.keys)-1])+len(user) > keysPerArray {
		c.keys = push(c.keys, &c.room.keys, 64, keysPerArray)
	}
	last := len(c.keys) - 1
	a := grow(c.keys[last], len(user), keysPerArray)
	c.keys[last] = append(a, user...)
	return uint32(last*keysPerArray + len(a))
}

// add counts n events whose times lie between first and last, counted from the window's start. Those of events that are known already are taken, too:
// they may have come in one batch with others, or in one of their own.
func (p *pane) add(n, first, last int64) {
	p.firstEvent, p.lastEvent = min(p.firstEvent, uint32(first)), max(p.lastEvent, uint32(last))
	p.count += min(n, maxNatural-p.count)
}

// witness merges r into the evidence of p.
func (c *counts) witness(p *pane, r Range) {
	switch p.partition {
	case -1:
		p.partition, p.from, p.to = r.Partition, r.First, r.Last
		return
	case r.Partition:
		p.from, p.to = min(p.from, r.First), max(p.to, r.Last)
		return
	}
	for i := p.more; i != 0; {
		l := &c.more[i-1]
		if l.Partition == r.Partition {
			l.First, l.Last = min(l.First, r.First), max(l.Last, r.Last)
			return
		}
		i = l.next
	}
	c.more = append(c.more, link{r, p.more})
	p.more = uint32(len(c.more))
}

// ranges is the number of source partitions in the evidence of p.
func (c *counts) ranges(p *pane) (n int) {
	if p.partition >= 0 {
		n = 1
	}
	for i := p.more; i != 0; i = c.more[i-1].next {
		n++
	}
	return n
}

// pane returns what is known of a user for those who ask.
func (c *counts) pane(p *pane) Pane {
	out := Pane{StartMS: c.startMS, SizeMS: c.sizeMS, Count: p.count, FirstMS: c.startMS + int64(p.firstEvent), LastMS: c.startMS + int64(p.lastEvent)}
	if p.partition >= 0 {
		out.evidence = append(out.evidence, Range{p.partition, p.from, p.to})
	}
	for i := p.more; i != 0; i = c.more[i-1].next {
		out.evidence = append(out.evidence, c.more[i-1].Range)
	}
	slices.SortFunc(out.evidence, func(a, b Range) int { return int(a.Partition) - int(b.Partition) })
	return out
}
