package broker

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// checkPartitions checks those of all topics, and sets aside those of none: kfake would mix them with a topic of the same name, made later.
func (d *disk) checkPartitions() error {
	raw, err := os.ReadFile(filepath.Join(d.dir, "topics.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("check the broker's directory: %w", err)
	}
	var topics struct {
		Topics []struct {
			Name       string `json:"name"`
			Partitions int32  `json:"partitions"`
			Configs    struct {
				Policy string `json:"cleanup.policy"`
			} `json:"configs"`
		} `json:"topics"`
	}
	if err := json.Unmarshal(raw, &topics); err != nil {
		return fmt.Errorf("check the broker's directory: topics.json: %w", err)
	}
	known := make(map[string]bool)
	for _, t := range topics.Topics {
		for p := range t.Partitions {
			name := fmt.Sprintf("%s-%d", url.PathEscape(t.Name), p)
			known[name] = true
			if err := d.checkPartition(place{t.Name, p}, filepath.Join("partitions", name), strings.Contains(t.Configs.Policy, "compact")); err != nil {
				return err
			}
		}
	}
	dirs, err := os.ReadDir(filepath.Join(d.dir, "partitions"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("check the broker's directory: %w", err)
	}
	for _, e := range dirs {
		if !known[e.Name()] && !strings.Contains(e.Name(), damaged) {
			d.tell("a partition belongs to no topic in topics.json; its records are not served", "directory", filepath.Join("partitions", e.Name()))
			d.setAside(filepath.Join("partitions", e.Name()))
		}
	}
	return nil
}

// segment is a file of batches.
type segment struct {
	base    int64
	batches []batch
	wrong   bool  // it is to be other than it is in the file
	lost    int   // bytes that are not a batch
	missing int64 // number of offsets without a batch
}

type batch struct {
	raw    []byte
	first  int64
	next   int64 // the offset behind its last record
	number int   // in the file, for its index entry; -1 if that is not known
}

func (s *segment) end() int64 {
	if n := len(s.batches); n > 0 {
		return s.batches[n-1].next
	}
	return s.base
}

// fill takes the offsets up to next, of which nothing is there, with a batch without records, as compaction leaves them.
func (s *segment) fill(next int64) {
	first := s.end()
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{FirstOffset: first, Magic: 2, LastOffsetDelta: int32(next - first - 1), FirstTimestamp: now, MaxTimestamp: now, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1}
	s.batches = append(s.batches, batch{raw: seal(b), first: first, next: next, number: -1})
	s.wrong, s.missing = true, s.missing+next-first
}

// seal encodes a batch, with its length and CRC.
func seal(b kmsg.RecordBatch) []byte {
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[batchLength:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[batchCRC:], crc32.Checksum(raw[batchCovered:], castagnoli))
	return raw
}

// fillable is how many offsets one batch can take.
const fillable = math.MaxInt32

func (d *disk) checkPartition(at place, dir string, compacted bool) error {
	entries, err := os.ReadDir(filepath.Join(d.dir, dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("check the broker's directory: %w", err)
	}
	var bases []int64
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".dat"); ok {
			if base, err := strconv.ParseInt(name, 10, 64); err == nil {
				bases = append(bases, base)
			}
		}
	}
	slices.Sort(bases)
	var snap struct {
		HighWatermark  int64 `json:"high_watermark"`
		LogStartOffset int64 `json:"log_start_offset"`
	}
	snapshot := filepath.Join(dir, "snapshot.json")
	if raw, err := os.ReadFile(filepath.Join(d.dir, snapshot)); err == nil {
		if err := json.Unmarshal(raw, &snap); err != nil {
			d.tell("one of the broker's state files was damaged; starting without it", "file", snapshot)
			d.setAside(snapshot)
		}
	}
	should := max(snap.HighWatermark, d.ends[at])
	start := snap.LogStartOffset
	if len(bases) > 0 && bases[0] > start && !compacted {
		d.tell("records are lost: a file of a partition is missing", "topic", at.topic, "partition", at.partition, "from_offset", start, "lost_records", bases[0]-start)
	}
	if len(bases) == 0 {
		// All is deleted because of its age, or lost. kfake would begin at 0 again.
		if should == 0 {
			return nil
		}
		bases = []int64{min(start, should-1)}
	}
	changed := false
	end := &tail{topic: at.topic, open: make(map[int64]int16), committed: make(map[producer]bool)}
	for i, base := range bases {
		name := filepath.Join(dir, strconv.FormatInt(base, 10))
		s, err := d.readSegment(at, name, base, compacted)
		if err != nil {
			return err
		}
		limit := should
		if i+1 < len(bases) {
			limit = bases[i+1]
		}
		if gap := limit - s.end(); gap > 0 && gap <= fillable && (s.lost > 0 || !compacted || i+1 == len(bases)) {
			s.fill(limit)
		}
		if s.lost > 0 || s.missing > 0 && start < should {
			d.tell("records are lost: part of a partition is damaged or missing", "topic", at.topic, "partition", at.partition, "file", name+".dat",
				"from_offset", s.firstLost(), "lost_bytes", s.lost, "lost_records", s.missing)
		}
		if err := d.mend(at, name, &s); err != nil {
			return err
		}
		for _, b := range s.batches {
			end.follow(b)
		}
		end.file, end.next = name, s.end()
		changed = changed || s.wrong
	}
	maps.Copy(d.committed, end.committed)
	if len(end.open) > 0 {
		d.open = append(d.open, end)
	}
	if !changed {
		return nil
	}
	// It describes other files; kfake makes it out of the batches.
	if err := os.Remove(filepath.Join(d.dir, snapshot)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("check the broker's directory: %w", err)
	}
	return nil
}

// firstLost returns the first offset without a record. How many records followed the end is unknown.
func (s *segment) firstLost() int64 {
	for _, b := range s.batches {
		if binary.BigEndian.Uint32(b.raw[batchCount:]) == 0 {
			return b.first
		}
	}
	return s.end()
}

const (
	batchHeader   = 61
	batchLength   = 8
	batchEpoch    = 12
	batchCRC      = 17
	batchCovered  = 21
	batchAttrs    = 21
	batchLastDiff = 23
	batchProducer = 43
	batchCount    = 57

	batchProducerEpoch = 51
)

// batchAt returns the batch that b begins with, by its own account, if its CRC is right.
func batchAt(b []byte) (batch, bool) {
	if len(b) < batchHeader {
		return batch{}, false
	}
	n := 12 + int64(binary.BigEndian.Uint32(b[batchLength:]))
	if n < batchHeader || n > int64(len(b)) || crc32.Checksum(b[batchCovered:n], castagnoli) != binary.BigEndian.Uint32(b[batchCRC:]) {
		return batch{}, false
	}
	if new(kmsg.RecordBatch).ReadFrom(b[:n]) != nil {
		return batch{}, false
	}
	first, diff := int64(binary.BigEndian.Uint64(b)), int64(int32(binary.BigEndian.Uint32(b[batchLastDiff:])))
	return batch{raw: b[:n], first: first, next: first + diff + 1}, diff >= 0
}

// readSegment reads the good batches of a file, in the order of their offsets.
func (d *disk) readSegment(at place, name string, base int64, compacted bool) (segment, error) {
	s := segment{base: base}
	raw, err := os.ReadFile(filepath.Join(d.dir, name+".dat"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("check the broker's directory: %w", err)
	}
	number, hole := 0, false
	for pos := 0; pos < len(raw); {
		b, ok := batchAt(raw[pos:])
		gap := b.first - s.end()
		if !ok || hole && (gap < 0 || gap > fillable) {
			pos, hole, number = pos+1, true, -1
			s.lost, s.wrong = s.lost+1, true
			continue
		}
		switch {
		case hole && gap > 0 && !compacted:
			s.fill(b.first)
		case gap < 0, gap > 0 && !hole && (pos == 0 || !compacted):
			// The CRC does not cover the first offset.
			d.tell("the offset of a batch was damaged and has been repaired; nothing is lost", "topic", at.topic, "partition", at.partition, "offset", s.end())
			b.raw = slices.Clone(b.raw)
			binary.BigEndian.PutUint64(b.raw, uint64(s.end()))
			b.first, b.next, s.wrong = b.first-gap, b.next-gap, true
		}
		b.number = number
		if number >= 0 {
			number++
		}
		s.batches = append(s.batches, b)
		pos, hole = pos+len(b.raw), false
	}
	return s, nil
}

const (
	indexEntry   = 15
	indexVersion = 1
)

func indexOf(b batch) []byte {
	e := make([]byte, indexEntry)
	e[0] = indexVersion
	binary.LittleEndian.PutUint32(e[2:], binary.BigEndian.Uint32(b.raw[batchEpoch:]))
	binary.LittleEndian.PutUint64(e[6:], 0) // kfake finds the time out itself
	const transactional, control = 0x10, 0x20
	if binary.BigEndian.Uint16(b.raw[batchAttrs:])&(transactional|control) == transactional {
		e[14] = 1
	}
	e[1] = byte(crc32.Checksum(e[2:], castagnoli))
	return e
}

// mend writes what is not as it should be of a segment and its index.
func (d *disk) mend(at place, name string, s *segment) error {
	index, err := os.ReadFile(filepath.Join(d.dir, name+".idx"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("check the broker's directory: %w", err)
	}
	var data, entries []byte
	bad := 0
	for _, b := range s.batches {
		e := entryOf(index, b.number)
		if e == nil {
			e = indexOf(b)
			if b.number >= 0 {
				bad++
			}
		} else if epoch := binary.LittleEndian.Uint32(e[2:]); epoch != binary.BigEndian.Uint32(b.raw[batchEpoch:]) {
			// The CRC of a batch does not cover it, either.
			d.tell("the epoch of a batch was damaged and has been repaired; nothing is lost", "topic", at.topic, "partition", at.partition, "offset", b.first)
			b.raw = slices.Clone(b.raw)
			binary.BigEndian.PutUint32(b.raw[batchEpoch:], epoch)
			s.wrong = true
		}
		data, entries = append(data, b.raw...), append(entries, e...)
	}
	if !s.wrong && len(index) > len(entries) { // kfake cuts it off, but behind what is appended before
		bad++
	}
	if bad > 0 {
		d.tell("an index was damaged or missing and has been recreated; nothing is lost", "topic", at.topic, "partition", at.partition, "file", name+".idx", "entries", bad)
	}
	switch {
	case !s.wrong && bad == 0:
		return nil
	case len(s.batches) == 0:
		d.setAside(name + ".dat")
		d.setAside(name + ".idx")
		return nil
	}
	d.keep(name + ".idx")
	if err := replace(filepath.Join(d.dir, name+".idx"), entries); err != nil || !s.wrong {
		return err
	}
	d.keep(name + ".dat")
	return replace(filepath.Join(d.dir, name+".dat"), data)
}

// entryOf returns the index entry of a batch, if there is one and its checksum is right.
func entryOf(index []byte, number int) []byte {
	i := number * indexEntry
	if number < 0 || i+indexEntry > len(index) {
		return nil
	}
	if e := index[i : i+indexEntry]; e[0] == indexVersion && e[1] == byte(crc32.Checksum(e[2:], castagnoli)) {
		return e
	}
	return nil
}
