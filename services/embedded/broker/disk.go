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
	"iter"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	dir       string
	log       *slog.Logger
	mended    int
	ends      map[place]int64   // where a partition should end at least
	open      []*tail           // the partitions in which there is a transaction
	committed map[producer]bool // whose COMMIT marker is at the end of a partition
	stopped   bool              // in order
	copy      map[string][]byte
}

func newDisk(dir string, log *slog.Logger) *disk {
	return &disk{dir: dir, log: log, ends: make(map[place]int64), committed: make(map[producer]bool)}
}

type place struct {
	topic     string
	partition int32
}

// checkDisk mends what can be mended in dir, and tells every loss. It fails if what is lost is which topics there are.
func checkDisk(dir string, log *slog.Logger) error {
	d := newDisk(dir, log)
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
	if !exists(filepath.Join(dir, "session_state.json")) { // else kfake goes on with what was open at the orderly stop; it removes the file when it has
		if err := d.endTransactions(); err != nil {
			return err
		}
	}
	if d.mended > 0 {
		log.Error("the broker's directory was damaged and has been repaired; the damaged files were kept", "directory", dir, "faults", d.mended, "kept_as", "*"+damaged)
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
			d.tell("ignoring the copy of the broker's state, because it is damaged", "file", name)
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

// setAside renames a file or a directory, so that its name is free and its content is kept.
func (d *disk) setAside(name string) { d.beside(name, os.Rename) }

// keep gives a file that is about to be replaced a second name. Its own name exists throughout.
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
		d.log.Error("cannot keep a damaged file", "error", err)
	}
}

// replace writes a file completely or not at all.
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

// checkFiles checks all files of the copy, and those that kfake has from its first start on.
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
		case copied && (d.stopped || name != "session_state.json"): // kfake removes this one when it starts
			d.tell("one of the broker's state files was damaged or missing; restored from the last clean shutdown", "file", name)
		case name == "meta.json":
			d.tell("one of the broker's state files was damaged or missing and has been recreated; nothing is lost", "file", name)
			then = []byte(`{"version":1,"cluster_id":"` + clusterID + `"}`)
		case name == "topics.json":
			return fmt.Errorf("check the broker's directory: %s is damaged or missing, and no clean shutdown has left a copy, so the topics are unknown; "+
				"restore the file from a backup, or use another directory (SPATE_STATE, --state)", filepath.Join(d.dir, name))
		default:
			d.tell("one of the broker's state files was damaged or missing; starting without it", "file", name)
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

const (
	entryHeader  = 10 // length, CRC, version; the length counts version and data, the CRC covers them
	entryVersion = 1
)

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

// entries returns the JSON of each entry up to the first that is not whole.
func entries(raw []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for {
			n, ok := entryAt(raw)
			if !ok || !yield(raw[entryHeader:n]) {
				return
			}
			raw = raw[n:]
		}
	}
}

// appendEntry appends an entry with this JSON.
func appendEntry(dst, text []byte) []byte {
	e := binary.LittleEndian.AppendUint16(make([]byte, 8, entryHeader+len(text)), entryVersion)
	e = append(e, text...)
	binary.LittleEndian.PutUint32(e, uint32(len(e)-8))
	binary.LittleEndian.PutUint32(e[4:], crc32.Checksum(e[8:], castagnoli))
	return append(dst, e...)
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
	d.tell("entries in the broker's state were damaged: the commits in them are lost and earlier ones apply, so events may be counted again",
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
	for text := range entries(raw) {
		var e struct {
			Type   string `json:"type"`
			Group  string `json:"g"`
			Topic  string `json:"t"`
			Part   int32  `json:"p"`
			Offset int64  `json:"o"`
		}
		if json.Unmarshal(text, &e) == nil && (e.Type == "commit" || e.Type == "delete") {
			last[fmt.Sprintf("%s\x00%s\x00%d", e.Group, e.Topic, e.Part)] = commit(e)
		}
	}
	for _, c := range last {
		if p := (place{c.Topic, c.Part}); c.Type == "commit" {
			d.ends[p] = max(d.ends[p], c.Offset)
		}
	}
}
