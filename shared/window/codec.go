package window

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrCorrupt is what decoders return for bytes that their encoder did not write.
var ErrCorrupt = errors.New("corrupt record")

// The formats are varints (encoding/binary), each record begins with its version.
const (
	batchVersion    = 1
	userVersion     = 1
	positionVersion = 1
	sourceVersion   = 1
)

// decoder reads varints off a slice. The first thing that does not fit makes it fail, and everything after it read as zero.
type decoder struct {
	b    []byte
	fail bool
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads a length or a number of things that take at least one byte each.
func (d *decoder) count() int {
	v := d.uint()
	if v > uint64(len(d.b)) {
		d.fail, d.b = true, nil
		return 0
	}
	return int(v)
}

// maxNatural bounds counts, offsets and the like, well inside an int64. Sums are checked against it too.
const maxNatural = 1 << 62

// natural reads a number that is not negative.
func (d *decoder) natural() int64 {
	v := d.uint()
	if v > maxNatural {
		d.fail = true
		return 0
	}
	return int64(v)
}

func (d *decoder) partition() int32 {
	v := d.uint()
	if v > 1<<31-1 {
		d.fail = true
		return 0
	}
	return int32(v)
}

// maxSources is more source partitions than an offset's metadata has room for: one byte each at least, in base64.
const maxSources = maxMetadata / 4 * 3

// sources reads the number of source partitions. A table makes room for all of them, so it must not be just any number.
func (d *decoder) sources() int32 {
	v := d.uint()
	if v > maxSources {
		d.fail = true
		return 0
	}
	return int32(v)
}

func (d *decoder) bytes() []byte {
	n := d.count()
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) version(want uint64) {
	if d.uint() != want {
		d.fail = true
	}
}

func (d *decoder) err(what string) error {
	if d.fail {
		return fmt.Errorf("decode %s: %w", what, ErrCorrupt)
	}
	return nil
}

// appendPane writes everything of p but its size, which its surroundings know.
func appendPane(b []byte, p *Pane) []byte {
	b = binary.AppendVarint(b, p.StartMS)
	b = binary.AppendUvarint(b, uint64(p.Count))
	b = binary.AppendUvarint(b, uint64(p.FirstMS-p.StartMS))
	b = binary.AppendUvarint(b, uint64(p.LastMS-p.FirstMS))
	b = binary.AppendUvarint(b, uint64(p.ranges))
	if p.ranges > 0 {
		b = appendRange(b, p.one)
	}
	for _, r := range p.more {
		b = appendRange(b, r)
	}
	return b
}

func appendRange(b []byte, r Range) []byte {
	b = binary.AppendUvarint(b, uint64(r.Partition))
	b = binary.AppendUvarint(b, uint64(r.First))
	return binary.AppendUvarint(b, uint64(r.Last-r.First))
}

// pane reads what appendPane wrote, merges it into the pane that into returns, if any, and returns the count that it read.
func (d *decoder) pane(size int64, into func(start int64) *Pane) int64 {
	start, n := d.int(), d.natural()
	first := d.natural()
	span := d.natural()
	if d.fail || n == 0 || first >= size || span >= size-first || start < -1<<60 || start > 1<<60 || start != Start(start, size) {
		d.fail = true
		return 0
	}
	p := into(start)
	if p != nil && n > maxNatural-p.Count {
		d.fail = true
		return 0
	}
	if p != nil {
		p.add(n, start+first, start+first+span)
	}
	for k := d.count(); k > 0 && !d.fail; k-- {
		r := Range{Partition: d.partition()}
		r.First = d.natural()
		r.Last = r.First + d.natural()
		d.fail = d.fail || r.Last < r.First || r.Last > maxNatural
		if p != nil && !d.fail {
			p.witness(r)
		}
	}
	return n
}

// size reads the size of windows.
func (d *decoder) size() int64 {
	n := d.natural()
	if n < 1 || n > MaxSize {
		d.fail = true
		return 1
	}
	return n
}
