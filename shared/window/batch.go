package window

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"spate/shared/rule"
)

// A batch is a record of the keyed log: a header, and sums of keys. The header is: version, number of source partitions, incarnation of
// their topic; revision of the rules; number of watermarks and, for each, source partition and watermark; number of progress and, for each, source
// partition, offset and event time. Then a number says what follows:
//
//	1      a feed: its id in 8 bytes, the size of its slices, the number of its cells. What follows until the next feed is of it.
//	2      a slice: its start, and by how many slices its events were late. What follows until the next slice is of it.
//	3 + n  a key of n + 1 bytes: the key, count, first event since the slice's start, last event since the first,
//	       number of source partitions and, for each, its number, first offset, last offset since the first;
//	       in a batch with identities, their number and, for each, 8 bytes; then the cells.
//	0      the end: the CRC-32C of all bytes before it follows, in 4 bytes.
//
// Versions 5 and 6 (with identities) have no revision. Versions 3 and 4 (with identities) are those of the time when there was one rule: after the version comes the size of its windows, a window is
// 1 and a start, and a key is 2 + n. They are read as batches of the feed that counts all events in slices of this size.
const (
	isEnd   = 0
	isFeed  = 1
	isSlice = 2
	isKey   = 3
)

// Header is what a batch says before its sums.
type Header struct {
	Sources    int32  // partitions of the topic of events
	Topic      uint64 // the incarnation of that topic: another one if it was deleted and made anew; 0 if it is not known
	Revision   int64  // the newest one of the rules that the events were judged by; 0 if they were never revised
	Watermarks []Watermark
	Progress   []Progress
	once       bool  // keys have the identities of their events
	oneRuleMS  int64 // the size of the windows of a batch of version 3 or 4; 0 for others
}

// SameIncarnation reports whether two incarnations of a topic may be the same one: they are, or one of them is not known.
func SameIncarnation(a, b uint64) bool { return a == b || a == 0 || b == 0 }

// Watermark is the watermark of a source partition.
type Watermark struct {
	Partition   int32
	WatermarkMS int64
}

// Progress says how far a source partition is routed. With its watermark it is all that a router has to know of the partition, and it is written in
// the transaction of the sums: the keyed log, and not the offset that a group remembers, is the truth about what was counted.
type Progress struct {
	Partition int32
	Next      int64 // the offset of the first event that the keyed log does not have
	NewestMS  int64 // the highest event time before it; NoTime if there was none
}

func (h Header) append(b []byte) []byte {
	version := uint64(batchVersion)
	if h.once {
		version = onceVersion
	}
	b = binary.AppendUvarint(b, version)
	b = binary.AppendUvarint(b, uint64(h.Sources))
	b = binary.AppendUvarint(b, h.Topic)
	b = binary.AppendUvarint(b, uint64(h.Revision))
	b = binary.AppendUvarint(b, uint64(len(h.Watermarks)))
	for _, m := range h.Watermarks {
		b = binary.AppendUvarint(b, uint64(m.Partition))
		b = binary.AppendVarint(b, m.WatermarkMS)
	}
	b = binary.AppendUvarint(b, uint64(len(h.Progress)))
	for _, p := range h.Progress {
		b = binary.AppendUvarint(b, uint64(p.Partition))
		b = binary.AppendUvarint(b, uint64(p.Next))
		b = binary.AppendVarint(b, p.NewestMS)
	}
	return b
}

// header reads a batch up to its sums.
func (d *decoder) header(h *Header) {
	v := d.uint()
	h.once, h.oneRuleMS = v%2 == 0, 0
	switch v {
	case batchVersion, onceVersion, unrevisedVersion, unrevisedOnceVersion:
	case oneRuleVersion, oneRuleOnceVersion:
		h.oneRuleMS = d.size()
	default:
		d.fail = true
	}
	h.Sources = d.sources()
	h.Topic = d.uint()
	if h.Revision = 0; v >= batchVersion {
		h.Revision = d.natural()
	}
	h.Watermarks, h.Progress = h.Watermarks[:0], h.Progress[:0]
	for n := d.count(); n > 0 && !d.fail; n-- {
		h.Watermarks = append(h.Watermarks, Watermark{Partition: d.source(h.Sources), WatermarkMS: d.int()})
	}
	for n := d.count(); n > 0 && !d.fail; n-- {
		h.Progress = append(h.Progress, Progress{Partition: d.source(h.Sources), Next: d.natural(), NewestMS: d.int()})
	}
}

// source reads the number of one of n source partitions.
func (d *decoder) source(n int32) int32 {
	p := d.partition()
	if p >= n {
		d.fail = true
	}
	return p
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal ends a batch.
func seal(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// unseal begins to read a batch. One whose bytes are not as they were written fails as a whole: damage that can still be read would be counts
// that nobody has counted.
func unseal(batch []byte) decoder {
	n := len(batch) - crc32.Size
	if n < 0 || crc32.Checksum(batch[:n], castagnoli) != binary.LittleEndian.Uint32(batch[n:]) {
		return decoder{fail: true}
	}
	return decoder{b: batch[:n]}
}

// ParseHeader decodes the header of a batch into h, whose slices it uses again.
func ParseHeader(batch []byte, h *Header) error {
	d := unseal(batch)
	if d.fail { // it has no checksum, as batches of old versions
		if v, n := binary.Uvarint(batch); n > 0 && v > 0 && v <= oldVersion {
			return fmt.Errorf("decode batch of version %d: %w", v, ErrOld)
		}
	}
	d.header(h)
	return d.err("batch")
}

// Guard is what a batch must not exceed to be one that a router can have written.
type Guard struct {
	// Sources are the partitions that the topic of events has.
	Sources int32
	// LatestMS is the highest watermark that is possible when the batch was appended.
	LatestMS int64
	// Drains: a router may have ended its input, with watermarks at the end of time.
	Drains bool
}

// Check returns an error that says what is impossible about a batch with this header.
func (g Guard) Check(h *Header) error {
	if h.Sources < 1 || h.Sources > g.Sources {
		return fmt.Errorf("it is for %d source partitions, but the events topic has %d: %w", h.Sources, g.Sources, ErrCorrupt)
	}
	for _, m := range h.Watermarks {
		if m.WatermarkMS > g.LatestMS && (m.WatermarkMS != EndOfTime || !g.Drains) {
			return fmt.Errorf("it has watermark %d for source partition %d, but at most %d was possible at that time: %w", m.WatermarkMS, m.Partition, g.LatestMS, ErrCorrupt)
		}
	}
	return nil
}

// section is where a batch is read: in which feed and slice.
type section struct {
	id           uint64
	begun        bool // a slice of the feed has begun
	sizeMS       int64
	width        int
	start, after int64
}

// item is what a batch says next.
type item uint8

const (
	itemEnd item = iota
	itemFeed
	itemSlice
	itemKey
)

// next reads what follows: a feed or a slice into s, or the key that sums follow.
func (d *decoder) next(h *Header, s *section) (kind item, key []byte) {
	k := d.uint()
	if h.oneRuleMS > 0 {
		switch {
		case d.fail || k == isEnd:
			return itemEnd, nil
		case k == isFeed: // a window
			s.start = d.start(h.oneRuleMS)
			s.after = s.start
			return itemSlice, nil
		}
		return itemKey, d.key(k - isFeed)
	}
	switch {
	case d.fail || k == isEnd:
		return itemEnd, nil
	case k == isFeed:
		id := d.bytes(8)
		s.sizeMS, s.width = d.size(), d.count()
		if d.fail {
			return itemEnd, nil
		}
		s.id, s.begun = binary.BigEndian.Uint64(id), false
		return itemFeed, nil
	case k == isSlice:
		s.start = d.int()
		late := d.natural()
		if d.fail || s.sizeMS == 0 || s.start < -1<<60 || s.start > 1<<60 || late > rule.MaxWindowMS {
			d.fail = true
			return itemEnd, nil
		}
		s.after, s.begun = s.start+late*s.sizeMS, true
		return itemSlice, nil
	}
	return itemKey, d.key(k - isSlice)
}

// key reads a key of n bytes.
func (d *decoder) key(n uint64) []byte {
	if n > MaxKey {
		d.fail = true
		return nil
	}
	return d.bytes(n)
}

// whole checks that what follows the header of a batch can be read to its end, and that check takes its sections. A batch of which that is not true counts for
// nothing, not even the part before the damage. k gets its keys.
func (d decoder) whole(h *Header, k *keyTags, check func(*Header, *section) error) error {
	s := section{sizeMS: h.oneRuleMS}
	if h.oneRuleMS > 0 && !d.fail {
		if err := check(h, &s); err != nil {
			return err
		}
	}
	begun, keys := false, true // whether the slice that has begun has keys
	for !d.fail {
		switch kind, key := d.next(h, &s); kind {
		case itemEnd:
			if d.fail || len(d.b) > 0 || !keys {
				return ErrCorrupt
			}
			return nil
		case itemFeed:
			if !keys {
				return ErrCorrupt
			}
			if err := check(h, &s); err != nil {
				return err
			}
			begun = false
		case itemSlice:
			if !keys { // a router writes none, and a table would keep it
				return ErrCorrupt
			}
			begun, keys = true, false
			k.slice()
			if err := check(h, &s); err != nil {
				return err
			}
		default:
			if !begun {
				return ErrCorrupt
			}
			keys = true
			k.key(key)
			d.sum(h, s.sizeMS)
			d.passCells(s.width)
		}
	}
	return ErrCorrupt
}

// start reads the start of a window of the one rule.
func (d *decoder) start(size int64) int64 {
	start := d.int()
	if d.fail || start < -1<<60 || start > 1<<60 || start%size != 0 {
		d.fail = true
	}
	return start
}

// pass reads what there is of a key in a slice of a feed that nobody knows, and returns the number of its events.
func (d *decoder) pass(h *Header, s *section) int64 {
	ahead := *d
	n := ahead.natural()
	d.sum(h, s.sizeMS)
	d.passCells(s.width)
	return n
}

// cells reads cells.
func (d *decoder) cells(c rule.Cells) {
	rest, err := c.Read(d.b)
	if d.b = rest; err != nil {
		d.fail = true
	}
}

// passCells reads n cells, and only checks them.
func (d *decoder) passCells(n int) {
	rest, err := rule.PassCells(d.b, n)
	if d.b = rest; err != nil {
		d.fail = true
	}
}

// sum reads what there is of a key in a slice, and only checks it: each source partition has evidence once at most. To find its place among
// what is there takes a step for each of them.
func (d *decoder) sum(h *Header, size int64) {
	n, first, span := d.natural(), d.natural(), d.natural()
	if n == 0 || first >= size || span >= size-first {
		d.fail = true
	}
	ranges := d.count()
	if ranges > int(h.Sources) {
		d.fail = true
	}
	for ; ranges > 0 && !d.fail; ranges-- {
		if r := d.evidence(); r.Partition >= h.Sources {
			d.fail = true
		}
	}
	if h.once {
		if ids := d.count(); int64(ids) > n {
			d.fail = true
		} else {
			d.bytes(uint64(ids) * identityBytes)
		}
	}
}
