package window

import "encoding/binary"

// Combiner adds counted events up, one pane per (user, window), until [Combiner.Flush] turns them into batches. The load on the
// keyed log is thus bounded by the users, not by the events: an account that sends half of all traffic is one pane a batch.
// It is not safe for concurrent use.
type Combiner struct {
	size    int64
	windows []*counts // in the order in which they came
	byStart map[int64]*counts
	last    *counts // the window of the last event: the next is likely of it, too
	panes   int
	once    bool // some events had an identity
	room    room
	out     [][]byte // the sums of a batch in the making per keyed partition
	batch   []byte
}

// MaxBatchBytes bounds a batch, well below the 1 MiB that brokers accept by default. A batch can exceed it by one user.
const MaxBatchBytes = 512 << 10

// NewCombiner returns an empty combiner for windows of size milliseconds.
func NewCombiner(size int64) *Combiner {
	return &Combiner{size: size, byStart: make(map[int64]*counts)}
}

// Add counts one event of user at ts in the window that begins at start, with its place in the source as evidence.
func (c *Combiner) Add(user []byte, start, ts int64, partition int32, offset int64) {
	w := c.window(start)
	was := w.n
	p := w.at(w.of(user))
	c.panes += w.n - was
	p.add(1, ts-start, ts-start)
	w.witness(p, Range{partition, offset, offset})
}

// AddOnce is Add for an event with an identity, 0 for none: the table counts it only if it knows none with the same one of the user in the window.
func (c *Combiner) AddOnce(user []byte, start, ts int64, partition int32, offset int64, identity uint64) {
	c.Add(user, start, ts, partition, offset)
	if identity != 0 {
		c.once = true
		c.last.ids.add(c.last.of(user), identity)
	}
}

func (c *Combiner) window(start int64) *counts {
	if c.last != nil && c.last.startMS == start {
		return c.last
	}
	w := c.byStart[start]
	if w == nil {
		w = c.room.open(start, c.size)
		c.windows = append(c.windows, w)
		c.byStart[start] = w
	}
	c.last = w
	return w
}

// Panes is the number of (user, window) pairs that wait for the next flush.
func (c *Combiner) Panes() int { return c.panes }

// Reset forgets everything that was added since the last flush.
func (c *Combiner) Reset() {
	for _, w := range c.windows {
		c.room.close(w)
	}
	clear(c.windows)
	clear(c.byStart)
	c.windows, c.last, c.panes, c.once = c.windows[:0], nil, 0, false
}

// Flush hands everything out as batches, and resets. Each of the n partitions of the keyed log gets at least one batch; the last
// one of each carries the marks of h, so that a watermark never overtakes an event that it covers, and that of partition 0 its places.
// partition is the keyed partition of a user. emit must not keep value beyond its call.
func (c *Combiner) Flush(n int32, partition func(user []byte) int32, h Header, emit func(partition int32, value []byte)) {
	for int(n) > len(c.out) {
		c.out = append(c.out, nil)
	}
	h.SizeMS, h.once = c.size, c.once
	marks, places := h.Marks, h.Places
	send := func(to int32) {
		c.batch = h.append(c.batch[:0])
		c.batch = seal(append(append(c.batch, c.out[to]...), isEnd))
		emit(to, c.batch)
		c.out[to] = c.out[to][:0]
	}
	for p := range c.out[:n] {
		c.out[p] = c.out[p][:0]
	}
	h.Marks, h.Places = nil, nil
	told := make([]*counts, n) // the window that each batch has come to
	for _, w := range c.windows {
		for i := range w.n {
			p := w.at(i)
			user := w.user(p)
			to := partition(user)
			if len(c.out[to]) > MaxBatchBytes {
				send(to)
				told[to] = nil
			}
			if told[to] != w {
				c.out[to], told[to] = binary.AppendVarint(append(c.out[to], isWindow), w.startMS), w
			}
			c.out[to] = w.appendUser(c.out[to], p, user)
			if c.once {
				c.out[to] = w.ids.append(c.out[to], i)
			}
		}
	}
	for p := range n {
		if h.Marks = marks; p == 0 {
			h.Places = places
		} else {
			h.Places = nil
		}
		send(p)
	}
	c.Reset()
}

func (c *counts) appendUser(b []byte, p *pane, user []byte) []byte {
	b = binary.AppendUvarint(b, uint64(isUser+len(user)-1))
	b = append(b, user...)
	return c.appendPane(b, p)
}

// appendPane writes what the window's start and the user do not tell.
func (c *counts) appendPane(b []byte, p *pane) []byte {
	b = binary.AppendUvarint(b, uint64(p.count))
	b = binary.AppendUvarint(b, uint64(p.firstEvent))
	b = binary.AppendUvarint(b, uint64(p.lastEvent-p.firstEvent))
	b = binary.AppendUvarint(b, uint64(c.ranges(p)))
	if p.partition >= 0 {
		b = appendRange(b, Range{p.partition, p.from, p.to})
	}
	for i := p.more; i != 0; i = c.more[i-1].next {
		b = appendRange(b, c.more[i-1].Range)
	}
	return b
}

func appendRange(b []byte, r Range) []byte {
	b = binary.AppendUvarint(b, uint64(r.Partition))
	b = binary.AppendUvarint(b, uint64(r.First))
	return binary.AppendUvarint(b, uint64(r.Last-r.First))
}
