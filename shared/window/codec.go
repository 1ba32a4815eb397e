package window

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrCorrupt is what decoders return for bytes that their encoder did not write.
var ErrCorrupt = errors.New("corrupt record")

// ErrOld is what [ParseHeader] returns for a batch of a version that is not read anymore.
var ErrOld = errors.New("batch from an older version of spate")

// The formats are varints (encoding/binary), each record begins with its version.
const (
	batchVersion         = 7
	onceVersion          = 8 // of a batch that has identities
	unrevisedVersion     = 5 // of a batch of the time when rules had no revisions
	unrevisedOnceVersion = 6
	oneRuleVersion       = 3 // of a batch of the time when there was one rule
	oneRuleOnceVersion   = 4
	oldVersion           = 2 // the newest one that is not read anymore
	keyVersion           = 3
	positionVersion      = 2
	sourceVersion        = 2
)

// decoder reads varints off a slice. The first thing that does not fit makes it fail, and everything after it read as zero.
type decoder struct {
	b    []byte
	fail bool
}

func (d *decoder) uint() uint64 {
	if len(d.b) > 0 && d.b[0] < 0x80 { // most numbers are small
		v := d.b[0]
		d.b = d.b[1:]
		return uint64(v)
	}
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

// maxSize is the longest slice, in milliseconds. It is longer than any that a rule has today, so that older batches can be read.
const maxSize = 7 * 24 * 3600 * 1000

// maxNatural bounds counts, offsets and the like, well inside an int64. Sums stop there.
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

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail, d.b = true, nil
		return nil
	}
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

// size reads the size of slices.
func (d *decoder) size() int64 {
	n := d.natural()
	if n < 1 || n > maxSize {
		d.fail = true
		return 1
	}
	return n
}

// evidence reads one range.
func (d *decoder) evidence() Range {
	r := Range{Partition: d.partition()}
	r.First = d.natural()
	r.Last = r.First + d.natural()
	if r.Last < r.First || r.Last > maxNatural {
		d.fail = true
	}
	return r
}
