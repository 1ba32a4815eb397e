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
	// Log is the incarnation of the keyed log, and Topic that of the topic of events: others if they were deleted and made anew. 0 is not known.
	Log, Topic uint64
	// Watermarks of the source partitions at Next, by number; NoTime for one that has not spoken.
	Watermarks []int64
}

// Watermark is the minimum over all source partitions: windows that end at or before it + 1 are closed.
func (p Position) Watermark() int64 { return lowest(p.Watermarks) }

func lowest(watermarks []int64) int64 {
	if len(watermarks) == 0 {
		return NoTime
	}
	return slices.Min(watermarks)
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
	b = binary.AppendUvarint(b, p.Log)
	b = binary.AppendUvarint(b, p.Topic)
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
		return "", fmt.Errorf("encode position: %d source partitions need %d bytes of offset metadata, but brokers accept only %d", len(p.Watermarks), len(s), maxMetadata)
	}
	return s, nil
}

// ParsePosition is the inverse of [Position.Metadata].
func ParsePosition(replay int64, metadata string) (Position, error) {
	b, err := base64.RawStdEncoding.DecodeString(metadata)
	if err != nil {
		return Position{}, fmt.Errorf("decode position: %w", ErrCorrupt)
	}
	d := decoder{b: b}
	d.version(positionVersion)
	p := Position{Replay: replay, Next: replay + d.natural(), Log: d.uint(), Topic: d.uint()}
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

// Routed is how far a router has come in a source partition: what it commits with the offset.
type Routed struct {
	Source
	// Topic is the incarnation of the topic of events, and Sources the partitions that it had.
	Topic   uint64
	Sources int32
	// Log is the incarnation of the keyed log. Its partition 0 has nothing beyond offset Keyed that this router knows of.
	Log   uint64
	Keyed int64
}

// Metadata encodes r as text, to be committed with the offset of its source partition.
func (r Routed) Metadata() string {
	idle := byte(0)
	if r.Idle {
		idle = 1
	}
	b := append(binary.AppendUvarint(nil, sourceVersion), idle)
	b = binary.AppendVarint(b, r.MaxTS)
	b = binary.AppendVarint(b, r.Newest)
	b = binary.AppendVarint(b, r.Floor)
	b = binary.AppendUvarint(b, r.Topic)
	b = binary.AppendUvarint(b, uint64(r.Sources))
	b = binary.AppendUvarint(b, r.Log)
	b = binary.AppendUvarint(b, uint64(r.Keyed))
	return base64.RawStdEncoding.EncodeToString(b)
}

// ParseRouted is the inverse of [Routed.Metadata].
func ParseRouted(metadata string) (Routed, error) {
	b, err := base64.RawStdEncoding.DecodeString(metadata)
	if err != nil {
		return Routed{}, fmt.Errorf("decode state of a source partition: %w", ErrCorrupt)
	}
	d := decoder{b: b}
	d.version(sourceVersion)
	idle := d.uint()
	r := Routed{Source: Source{Idle: idle == 1, MaxTS: d.int(), Newest: d.int(), Floor: d.int()}, Topic: d.uint()}
	r.Sources, r.Log, r.Keyed = d.sources(), d.uint(), d.natural()
	if idle > 1 || len(d.b) > 0 {
		d.fail = true
	}
	return r, d.err("state of a source partition")
}

// MetadataBound is how long the metadata of a position can be for so many source partitions, in bytes: with watermarks that are as far apart as
// Kafka keeps records.
func MetadataBound(sources int) int {
	const head, each = 40, 6 // numbers at their longest; a watermark's distance from the lowest, up to a thousand years
	return base64.RawStdEncoding.EncodedLen(head + each*sources)
}
