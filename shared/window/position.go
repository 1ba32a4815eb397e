package window

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
)

// Position is how far a [Table] has come in its partition of the keyed log. It is stored with the committed offset.
//
// The committed offset (Replay) lies before Next: it is the first batch of any window that was still open at Next. After a crash
// every open window is counted again from its first event, so the counts depend on the log alone.
type Position struct {
	// Replay is the offset to read from.
	Replay int64
	// Next is the offset below which every verdict has been handed over for good: what is read again below it is applied in silence.
	Next int64
	// Watermarks of the source partitions at Next, by number; NoTime for one that has not spoken.
	Watermarks []int64
}

// Watermark is the minimum over all source partitions: windows that end at or before it + 1 are closed.
func (p Position) Watermark() int64 { return lowest(p.Watermarks) }

func lowest(marks []int64) int64 {
	if len(marks) == 0 {
		return NoTime
	}
	return slices.Min(marks)
}

// maxMetadata is what Kafka accepts as metadata of an offset by default (offset.metadata.max.bytes).
const maxMetadata = 4096

// Metadata encodes Next and Watermarks as text, to be committed with the offset Replay. It fails if the text is longer than
// brokers accept, at some 900 source partitions.
func (p Position) Metadata() (string, error) {
	low := int64(EndOfTime)
	for _, w := range p.Watermarks {
		if w != NoTime {
			low = min(low, w)
		}
	}
	b := binary.AppendUvarint(nil, positionVersion)
	b = binary.AppendUvarint(b, uint64(p.Next-p.Replay))
	b = binary.AppendVarint(b, low)
	b = binary.AppendUvarint(b, uint64(len(p.Watermarks)))
	for _, w := range p.Watermarks {
		if w == NoTime {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(b, uint64(w)-uint64(low)+1)
	}
	s := base64.RawStdEncoding.EncodeToString(b)
	if len(s) > maxMetadata {
		return "", fmt.Errorf("encode position: %d source partitions need %d bytes of offset metadata, brokers accept %d", len(p.Watermarks), len(s), maxMetadata)
	}
	return s, nil
}

// ParsePosition is the inverse of [Position.Metadata]. Empty metadata stands for a partition that was never committed, or by
// another program: everything is read from replay on and nothing is silent.
func ParsePosition(replay int64, metadata string) (Position, error) {
	if metadata == "" {
		return Position{Replay: replay, Next: replay}, nil
	}
	b, err := base64.RawStdEncoding.DecodeString(metadata)
	if err != nil {
		return Position{}, fmt.Errorf("decode position: %w", ErrCorrupt)
	}
	d := decoder{b: b}
	d.version(positionVersion)
	p := Position{Replay: replay, Next: replay + d.natural()}
	low := d.int()
	for n := d.count(); n > 0 && !d.fail; n-- {
		w := d.uint()
		if w == 0 {
			p.Watermarks = append(p.Watermarks, NoTime)
			continue
		}
		p.Watermarks = append(p.Watermarks, int64(uint64(low)+w-1))
	}
	if len(d.b) > 0 || p.Next < replay {
		d.fail = true
	}
	if err := d.err("position"); err != nil {
		return Position{}, err
	}
	return p, nil
}

// Metadata encodes s as text, to be committed with the offset of its source partition.
func (s Source) Metadata() string {
	idle := byte(0)
	if s.Idle {
		idle = 1
	}
	b := append(binary.AppendUvarint(nil, sourceVersion), idle)
	b = binary.AppendVarint(b, s.MaxTS)
	b = binary.AppendVarint(b, s.Floor)
	return base64.RawStdEncoding.EncodeToString(b)
}

// ParseSource is the inverse of [Source.Metadata]. Empty metadata is a source of which nothing was read.
func ParseSource(metadata string) (Source, error) {
	if metadata == "" {
		return NewSource(), nil
	}
	b, err := base64.RawStdEncoding.DecodeString(metadata)
	if err != nil {
		return Source{}, fmt.Errorf("decode source: %w", ErrCorrupt)
	}
	d := decoder{b: b}
	d.version(sourceVersion)
	idle := d.uint()
	s := Source{Idle: idle == 1}
	s.MaxTS, s.Floor = d.int(), d.int()
	if idle > 1 || len(d.b) > 0 {
		d.fail = true
	}
	return s, d.err("source")
}
