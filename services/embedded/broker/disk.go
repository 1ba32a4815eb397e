package broker

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
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

// The directory of the broker is checked before kfake reads it, for kfake mends in silence: it cuts a log at the first byte that is wrong,
// with everything good behind it, and keeps the length of the file from before the cut, so that every later record of the partition is read
// from behind the end of the file (UNKNOWN_SERVER_ERROR, for ever); it forgets every committed offset behind a wrong byte, goes on writing
// behind that byte, and forgets those with the next start; it takes an index entry that is wrong for "not in a transaction", which shows
// aborted records to everybody; and where a topic has lost its end, it gives the same offsets to other records.
//
// Here, what is damaged is set aside beside its place, as *.damaged, only what is damaged is lost, and each loss is an error in the log.
// Where the end of a partition is lost, an empty batch takes its offsets, so that none is given twice and none that is committed lies behind
// the end. What kfake finds afterwards is sound.
//
//	meta.json, topics.json, *.json    what there is; JSON, each written to a temporary file and renamed
//	groups.log, pids.log              committed offsets, producers; appended entries: length, CRC, version, JSON
//	partitions/T-P/N.dat              record batches from offset N on, as on the wire, each with a CRC of all but its first 21 bytes
//	partitions/T-P/N.idx              15 bytes for each batch: version, checksum, epoch, time, whether in a transaction
//	partitions/T-P/snapshot.json      ends of the partition and aborted transactions, from the last orderly stop
//	state.copy, state.copy.old        ours: all of this but the batches, as of the last orderly stop; .old since the start after it
//
// JSON has no checksum: after an orderly stop, a difference to the copy is damage, and the copy is right. After a crash, only what cannot be
// read is seen as damaged; snapshots are still compared, for they are written at an orderly stop only.

const (
	copyName    = "state.copy"
	copyOldName = "state.copy.old"
	damaged     = ".damaged"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// disk is the directory of the broker while it is checked.
type disk struct {
	dir     string
	log     *slog.Logger
	mended  int
	ends    map[place]int64 // where a partition should end at least
	stopped bool            // in order
	copy    map[string][]byte
}

type place struct {
	topic     string
	partition int32
}

// checkDisk mends what can be mended in dir, and tells every loss. It fails if what is lost is which topics there are.
func checkDisk(dir string, log *slog.Logger) error {
	d := &disk{dir: dir, log: log, ends: make(map[place]int64)}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	d.readCopy()
	if err := errors.Join(d.checkFiles(), d.checkLog("groups.log"), d.checkLog("pids.log")); err != nil {
		return err
	}
	d.readCommits()
	if err := d.checkPartitions(); err != nil {
		return err
	}
	if d.mended > 0 {
		log.Error("the broker's directory was damaged; what was wrong is kept beside it", "directory", dir, "faults", d.mended, "kept_as", "*"+damaged)
	}
	err := os.Rename(filepath.Join(dir, copyName), filepath.Join(dir, copyOldName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("check the broker's directory: %w", err)
	}
	return nil
}

// saveCopy writes the copy after an orderly stop.
func saveCopy(dir string) error {
	files := make(map[string][]byte)
	for _, pattern := range []string{"*.json", "*.log", "partitions/*/snapshot.json"} {
		names, err := filepath.Glob(filepath.Join(globEscape(dir), pattern))
		if err != nil {
			return fmt.Errorf("copy the broker's state: %w", err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				return fmt.Errorf("copy the broker's state: %w", err)
			}
			rel, err := filepath.Rel(dir, name)
			if err != nil {
				return fmt.Errorf("copy the broker's state: %w", err)
			}
			files[rel] = b
		}
	}
	b, err := json.Marshal(files)
	if err != nil {
		return fmt.Errorf("copy the broker's state: %w", err)
	}
	sum := sha256.Sum256(b)
	return replace(filepath.Join(dir, copyName), fmt.Appendf(nil, "%x\n%s", sum, b))
}

func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

func (d *disk) readCopy() {
	for _, name := range []string{copyName, copyOldName} {
		b, err := os.ReadFile(filepath.Join(d.dir, name))
		if err != nil {
			continue
		}
		sum, files, _ := bytes.Cut(b, []byte("\n"))
		want := sha256.Sum256(files)
		if hex.EncodeToString(want[:]) != string(sum) || json.Unmarshal(files, &d.copy) != nil {
			d.tell("the copy of the broker's state is damaged; it is not used", "file", name)
			d.setAside(name)
			d.copy = nil
			continue
		}
		d.stopped = name == copyName
		return
	}
}

func (d *disk) tell(msg string, args ...any) {
	d.mended++
	d.log.Error(msg, args...)
}

// setAside moves what is at a place in the directory beside it.
func (d *disk) setAside(name string) { d.beside(name, os.Rename) }

// keep leaves a file that is about to be replaced beside its place as well: at no time is there none.
func (d *disk) keep(name string) { d.beside(name, os.Link) }

func (d *disk) beside(name string, put func(from, to string) error) {
	from := filepath.Join(d.dir, name)
	to := from + damaged
	for i := 2; ; i++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = from + damaged + "." + strconv.Itoa(i)
	}
	if err := put(from, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Error("set a damaged file aside", "error", err)
	}
}

// replace writes a file so that it is there as a whole or not at all.
func replace(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil { // a partition whose directory is lost
		return fmt.Errorf("write the broker's state: %w", err)
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write the broker's state: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write the broker's state: %w", err)
	}
	return nil
}

// checkFiles checks everything that is in the copy, and what kfake has from its first start on.
func (d *disk) checkFiles() error {
	always := []string{"meta.json", "topics.json", "groups.log", "pids.log"}
	names := append(slices.Sorted(maps.Keys(d.copy)), always...)
	names = append(names, "broker_configs.json", "acls.json", "sasl.json", "quotas.json", "seq_windows.json", "session_state.json")
	slices.Sort(names)
	used := d.copy != nil || exists(filepath.Join(d.dir, "topics.json")) || exists(filepath.Join(d.dir, "partitions"))
	for _, name := range slices.Compact(names) {
		now, err := os.ReadFile(filepath.Join(d.dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("check the broker's directory: %w", err)
		}
		there := err == nil
		then, copied := d.copy[name]
		var bad bool
		switch snapshot := filepath.Base(name) == "snapshot.json"; {
		case copied && (d.stopped || snapshot && there):
			bad = !bytes.Equal(now, then) || !there
		case there:
			bad = filepath.Ext(name) == ".json" && !json.Valid(now)
		default:
			bad = used && slices.Contains(always, name)
		}
		if !bad {
			continue
		}
		if there {
			d.setAside(name)
		}
		switch {
		case copied && (d.stopped || name != "session_state.json"): // kfake takes that away at the start
			d.tell("a file of the broker's state was damaged or missing; it is as of the last orderly stop again", "file", name)
		case name == "meta.json":
			d.tell("a file of the broker's state was damaged or missing; it is made again, nothing is lost", "file", name)
			then = []byte(`{"version":1,"cluster_id":"` + clusterID + `"}`)
		case name == "topics.json":
			return fmt.Errorf("check the broker's directory: %s is damaged or missing, and there is no copy from an orderly stop: which topics there are is not known; "+
				"put the file back from a backup, or start with another directory (SPATE_STATE, --state)", filepath.Join(d.dir, name))
		default:
			d.tell("a file of the broker's state was damaged or missing; the broker starts without it", "file", name)
			continue
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(d.dir, name)), 0o700); err != nil {
			return fmt.Errorf("check the broker's directory: %w", err)
		}
		if err := replace(filepath.Join(d.dir, name), then); err != nil {
			return err
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

const entryHeader = 10 // length, CRC, version; the length counts version and data, the CRC covers them

// entryAt returns the length of the whole entry that b begins with.
func entryAt(b []byte) (int, bool) {
	if len(b) < entryHeader {
		return 0, false
	}
	n := int64(binary.LittleEndian.Uint32(b))
	if n < 2 || 8+n > int64(len(b)) || crc32.Checksum(b[8:8+n], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return 0, false
	}
	return int(8 + n), true
}

// checkLog keeps every entry that is whole. Also a write that failed half way, on a full disk, leaves a piece with good entries behind it.
func (d *disk) checkLog(name string) error {
	path := filepath.Join(d.dir, name)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("check the broker's directory: %w", err)
	}
	var good []byte
	lost, holes, kept, first := 0, 0, 0, -1
	for pos, hole := 0, false; pos < len(raw); {
		n, ok := entryAt(raw[pos:])
		if !ok {
			if !hole {
				holes++
			}
			if first < 0 {
				first = pos
			}
			pos, lost, hole = pos+1, lost+1, true
			continue
		}
		if good = append(good, raw[pos:pos+n]...); first >= 0 {
			kept++
		}
		pos, hole = pos+n, false
	}
	if lost == 0 {
		return nil
	}
	d.tell("entries of the broker's state were damaged: what was committed there falls back to what was committed before, so events may be counted again",
		"file", name, "places", holes, "from_byte", first, "lost_bytes", lost, "good_entries_behind", kept)
	d.keep(name)
	return replace(path, good)
}

// readCommits learns where partitions must have ended at least from the offsets that were committed.
func (d *disk) readCommits() {
	raw, err := os.ReadFile(filepath.Join(d.dir, "groups.log"))
	if err != nil {
		return // none, or kfake says why
	}
	type commit struct {
		Type, Group, Topic string
		Part               int32
		Offset             int64
	}
	last := make(map[string]commit)
	for len(raw) > 0 {
		n, ok := entryAt(raw)
		if !ok {
			break
		}
		var e struct {
			Type   string `json:"type"`
			Group  string `json:"g"`
			Topic  string `json:"t"`
			Part   int32  `json:"p"`
			Offset int64  `json:"o"`
		}
		if json.Unmarshal(raw[entryHeader:n], &e) == nil && (e.Type == "commit" || e.Type == "delete") {
			last[fmt.Sprintf("%s\x00%s\x00%d", e.Group, e.Topic, e.Part)] = commit(e)
		}
		raw = raw[n:]
	}
	for _, c := range last {
		if p := (place{c.Topic, c.Part}); c.Type == "commit" {
			d.ends[p] = max(d.ends[p], c.Offset)
		}
	}
}

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
			d.tell("a partition belongs to no topic that topics.json knows; its records are not served", "directory", filepath.Join("partitions", e.Name()))
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
	lost    int   // bytes that are no batch
	missing int64 // offsets of which there is no batch
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
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[batchLength:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[batchCRC:], crc32.Checksum(raw[batchCovered:], castagnoli))
	s.batches = append(s.batches, batch{raw: raw, first: first, next: next, number: -1})
	s.wrong, s.missing = true, s.missing+next-first
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
			d.tell("a file of the broker's state was damaged; the broker starts without it", "file", snapshot)
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
			d.tell("records are lost: a part of a partition is damaged or missing", "topic", at.topic, "partition", at.partition, "file", name+".dat",
				"from_offset", s.firstLost(), "lost_bytes", s.lost, "lost_records", s.missing)
		}
		if err := d.mend(at, name, &s); err != nil {
			return err
		}
		changed = changed || s.wrong
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

// firstLost is the first offset of which there is no record; nobody knows how many there were behind the end.
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
	batchCount    = 57
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
			d.tell("the offset of a batch was damaged; it is mended, nothing is lost", "topic", at.topic, "partition", at.partition, "offset", s.end())
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
			d.tell("the epoch of a batch was damaged; it is mended, nothing is lost", "topic", at.topic, "partition", at.partition, "offset", b.first)
			b.raw = slices.Clone(b.raw)
			binary.BigEndian.PutUint32(b.raw[batchEpoch:], epoch)
			s.wrong = true
		}
		data, entries = append(data, b.raw...), append(entries, e...)
	}
	if bad > 0 {
		d.tell("an index was damaged or missing; it is made again, nothing is lost", "topic", at.topic, "partition", at.partition, "file", name+".idx", "entries", bad)
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
