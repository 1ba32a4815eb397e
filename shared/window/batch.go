package window

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A batch is a record of the keyed log: a header, and sums of users. The header is: version, window size, number of source partitions,
// incarnation of their topic; number of marks and, for each, source partition and watermark; number of places and, for each, source
// partition, offset and event time. Then a number says what follows:
//
//	1      a window: its start. What follows until the next window is of it.
//	2 + n  a user of n + 1 bytes: the user, count, first event since the window's start, last event since the first,
//	       number of source partitions and, for each, its number, first offset, last offset since the first;
//	       in version 4, number of identities and, for each, 8 bytes.
//	0      the end: the CRC-32C of all bytes before it follows, in 4 bytes.
const (
	isEnd    = 0
	isWindow = 1
	isUser   = 2
)

// Header is what a batch says before its sums.
type Header struct {
	SizeMS  int64
	Sources int32  // partitions of the topic of events
	Topic   uint64 // the incarnation of that topic: another one if it was deleted and made anew; 0 if it is not known
	Marks   []Mark
	Places  []Place
	once    bool // users have the identities of their events
}

// SameIncarnation reports whether two incarnations of a topic may be the same one: they are, or one of them is not known.
func SameIncarnation(a, b uint64) bool { return a == b || a == 0 || b == 0 }

// Mark is the watermark of a source partition.
type Mark struct {
	Partition   int32
	WatermarkMS int64
}

// Place says how far a source partition is routed. With its mark it is all that a router has to know of the partition, and it is written in
// the transaction of the sums: the keyed log, and not the offset that a group remembers, is the truth about what was counted.
type Place struct {
	Partition int32
	Next      int64 // the offset of the first event that the keyed log does not have
	NewestMS  int64 // the highest event time before it; NoTime if there was none
}

func (h Header) append(b []byte) []byte {
	if h.once {
		b = binary.AppendUvarint(b, onceVersion)
	} else {
		b = binary.AppendUvarint(b, batchVersion)
	}
	b = binary.AppendUvarint(b, uint64(h.SizeMS))
	b = binary.AppendUvarint(b, uint64(h.Sources))
	b = binary.AppendUvarint(b, h.Topic)
	b = binary.AppendUvarint(b, uint64(len(h.Marks)))
	for _, m := range h.Marks {
		b = binary.AppendUvarint(b, uint64(m.Partition))
		b = binary.AppendVarint(b, m.WatermarkMS)
	}
	b = binary.AppendUvarint(b, uint64(len(h.Places)))
	for _, p := range h.Places {
		b = binary.AppendUvarint(b, uint64(p.Partition))
		b = binary.AppendUvarint(b, uint64(p.Next))
		b = binary.AppendVarint(b, p.NewestMS)
	}
	return b
}

// header reads a batch up to its sums.
func (d *decoder) header(h *Header) {
	if v := d.uint(); v == onceVersion {
		h.once = true
	} else if h.once = false; v != batchVersion {
		d.fail = true
	}
	h.SizeMS = d.size()
	h.Sources = d.sources()
	h.Topic = d.uint()
	h.Marks, h.Places = h.Marks[:0], h.Places[:0]
	for n := d.count(); n > 0 && !d.fail; n-- {
		h.Marks = append(h.Marks, Mark{Partition: d.source(h.Sources), WatermarkMS: d.int()})
	}
	for n := d.count(); n > 0 && !d.fail; n-- {
		h.Places = append(h.Places, Place{Partition: d.source(h.Sources), Next: d.natural(), NewestMS: d.int()})
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
		return fmt.Errorf("it claims %d source partitions, the topic of events has %d: %w", h.Sources, g.Sources, ErrCorrupt)
	}
	for _, m := range h.Marks {
		if m.WatermarkMS > g.LatestMS && (m.WatermarkMS != EndOfTime || !g.Drains) {
			return fmt.Errorf("it claims watermark %d for source partition %d, more than %d was not possible then: %w", m.WatermarkMS, m.Partition, g.LatestMS, ErrCorrupt)
		}
	}
	return nil
}

// whole reports whether what follows the header of a batch can be read to its end. A batch that cannot counts for nothing, not even the
// part before the damage.
func (d decoder) whole(h *Header) bool {
	begun, users := false, true // whether the window that has begun has users
	for !d.fail {
		switch k := d.uint(); {
		case k == isEnd:
			return !d.fail && len(d.b) == 0 && users
		case k == isWindow:
			d.start(h.SizeMS)
			if !users { // a router writes none, and a table would keep it
				return false
			}
			begun, users = true, false
		case !begun || k-isUser >= maxKey:
			return false
		default:
			users = true
			d.bytes(k - isUser + 1)
			d.sum(h)
		}
	}
	return false
}

// start reads the start of a window.
func (d *decoder) start(size int64) int64 {
	start := d.int()
	if d.fail || start < -1<<60 || start > 1<<60 || start != Start(start, size) {
		d.fail = true
	}
	return start
}

// sum reads what there is of a user in a window, and only checks it: each source partition has evidence once at most. To find its place among
// what is there takes a step for each of them.
func (d *decoder) sum(h *Header) {
	n, first, span := d.natural(), d.natural(), d.natural()
	if n == 0 || first >= h.SizeMS || span >= h.SizeMS-first {
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
