package window

import "encoding/binary"

// Combiner adds counted events up, one pane per (user, window), until [Combiner.Flush] turns them into batches. The load on the
// keyed log is thus bounded by the users, not by the events: an account that sends half of all traffic is one pane a batch.
// It is not safe for concurrent use.
type Combiner struct {
	size  int64
	index map[string]int32
	users []combined // slots beyond len keep their room
	panes int
	out   [][]byte // a batch in the making per keyed partition
}

type combined struct {
	key   string
	first Pane
	more  []Pane
}

// MaxBatchBytes bounds a batch, well below the 1 MiB that brokers accept by default. A batch can exceed it by one user.
const MaxBatchBytes = 512 << 10

// NewCombiner returns an empty combiner for windows of size milliseconds.
func NewCombiner(size int64) *Combiner {
	return &Combiner{size: size, index: make(map[string]int32)}
}

// Add counts one event of user at ts in the window that begins at start, with its place in the source as evidence.
func (c *Combiner) Add(user []byte, start, ts int64, partition int32, offset int64) {
	i, ok := c.index[string(user)]
	if !ok {
		i = int32(len(c.users))
		key := string(user)
		c.index[key] = i
		if int(i) < cap(c.users) {
			c.users = c.users[:i+1]
		} else {
			c.users = append(c.users, combined{})
		}
		u := &c.users[i]
		u.key, u.more = key, u.more[:0]
		u.first.reset()
	}
	p := c.pane(&c.users[i], start)
	p.add(1, ts, ts)
	p.witness(Range{partition, offset, offset})
}

func (c *Combiner) pane(u *combined, start int64) *Pane {
	p := &u.first
	if p.Count > 0 && p.StartMS != start {
		p = nil
		for i := range u.more {
			if u.more[i].StartMS == start {
				return &u.more[i]
			}
		}
		u.more = append(u.more, Pane{})
		p = &u.more[len(u.more)-1]
	}
	if p.Count == 0 {
		p.StartMS, p.SizeMS = start, c.size
		c.panes++
	}
	return p
}

// Panes is the number of (user, window) pairs that wait for the next flush.
func (c *Combiner) Panes() int { return c.panes }

// Reset forgets everything that was added since the last flush.
func (c *Combiner) Reset() {
	clear(c.index)
	c.users = c.users[:0]
	c.panes = 0
}

// Mark is the watermark of a source partition.
type Mark struct {
	Partition   int32
	WatermarkMS int64
}

// Flush hands everything out as batches, and resets. Each of the n partitions of the keyed log gets at least one batch; the last
// one of each carries the marks, so that a watermark never overtakes an event that it covers. sources is the number of source
// partitions of the topic; partition tells the keyed partition of a user. emit must not keep value beyond its call.
func (c *Combiner) Flush(n int32, partition func(user string) int32, sources int32, marks []Mark, emit func(partition int32, value []byte)) {
	for int(n) > len(c.out) {
		c.out = append(c.out, nil)
	}
	for p := range c.out[:n] {
		c.out[p] = c.appendHeader(c.out[p][:0], sources)
	}
	for i := range c.users {
		u := &c.users[i]
		p := partition(u.key)
		if len(c.out[p]) > MaxBatchBytes {
			emit(p, c.out[p])
			c.out[p] = c.appendHeader(c.out[p][:0], sources)
		}
		c.out[p] = appendCombined(c.out[p], u)
	}
	for p := range n {
		c.out[p] = appendMarks(c.out[p], marks)
		emit(p, c.out[p])
	}
	c.Reset()
}

// A batch is: version, window size, number of source partitions, then for each user the number of panes (at least 1), the user
// and the panes, then, in the last batch of a flush, a 0 and the marks.
func (c *Combiner) appendHeader(b []byte, sources int32) []byte {
	b = binary.AppendUvarint(b, batchVersion)
	b = binary.AppendUvarint(b, uint64(c.size))
	return binary.AppendUvarint(b, uint64(sources))
}

func appendCombined(b []byte, u *combined) []byte {
	b = binary.AppendUvarint(b, uint64(1+len(u.more)))
	b = binary.AppendUvarint(b, uint64(len(u.key)))
	b = append(b, u.key...)
	b = appendPane(b, &u.first)
	for i := range u.more {
		b = appendPane(b, &u.more[i])
	}
	return b
}

func appendMarks(b []byte, marks []Mark) []byte {
	b = append(b, 0)
	b = binary.AppendUvarint(b, uint64(len(marks)))
	for _, m := range marks {
		b = binary.AppendUvarint(b, uint64(m.Partition))
		b = binary.AppendVarint(b, m.WatermarkMS)
	}
	return b
}
