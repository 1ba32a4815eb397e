package broker

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// kfake keeps open transactions in memory and saves them at an orderly stop only. After kill -9, what is left of a transaction is its batches,
// without a marker at their end. kfake takes them for aborted when it starts, but writes no marker either, and that goes wrong in three ways:
//
//   - A consumer that reads across the place in one fetch drops what the same producer has written behind it. The answer says from which
//     offset on records of the producer are aborted; only the marker says up to where.
//   - After a second kill -9, the marker of the producer's next transaction seems to end both, and what was aborted is committed.
//   - kfake ends a transaction with one marker in each partition. Killed between two of them, it leaves a transaction that is committed in
//     some partitions and aborted in the others.
//
// So this file does what the transaction coordinator of a real broker does after a crash: it fences the producers, then writes the markers. kfake
// learns who has a transaction from the files, and only when it starts, so all this comes before.
//
// A transaction is aborted unless its commit has begun. kfake writes the markers of a transaction in one go, so a commit that was cut short has
// left a COMMIT marker at the end of a partition, with nothing but markers behind it. It must have the same producer and epoch. An old client
// keeps its epoch from one transaction to the next, and the marker may be that of an earlier one, so pids.log must also say that no transaction
// has ended in this epoch. Once kfake has rewritten pids.log, at an orderly stop or because it was too long, it does not say so of the epochs of
// that time, and then the other partitions are aborted.
//
// kfake writes the offsets of a transaction after its last marker, so those of a commit that was cut short are lost: its records are there, and the
// group's offsets are those from before. A client that goes by them does the same work again. Spate's router does not, because it finds its
// position in the keyed log (services/router/recall.go).

// producer is a producer in one of its epochs.
type producer struct {
	id    int64
	epoch int16
}

// tail is what a partition says about transactions at its end.
type tail struct {
	topic     string
	file      string          // its last segment, without suffix
	next      int64           // the offset of what is appended
	open      map[int64]int16 // by producer: its epoch
	committed map[producer]bool
}

// follow notes what a batch means for transactions.
func (t *tail) follow(b batch) {
	const transactional, control = 0x10, 0x20
	p := producer{int64(binary.BigEndian.Uint64(b.raw[batchProducer:])), int16(binary.BigEndian.Uint16(b.raw[batchProducerEpoch:]))}
	attrs := binary.BigEndian.Uint16(b.raw[batchAttrs:])
	if attrs&control == 0 {
		clear(t.committed)
	}
	switch attrs & (transactional | control) {
	case transactional:
		t.open[p.id] = p.epoch
	case transactional | control:
		delete(t.open, p.id)
		if commits(b) {
			t.committed[p] = true
		}
	}
}

// commits reports whether a control batch is a COMMIT marker.
func commits(b batch) bool {
	var r kmsg.Record
	var key kmsg.ControlRecordKey
	return r.ReadFrom(b.raw[batchHeader:]) == nil && key.ReadFrom(r.Key) == nil && key.Type == kmsg.ControlRecordKeyTypeCommit
}

// endTransactions ends those that a crash has left open.
func (d *disk) endTransactions() error {
	if len(d.open) == 0 {
		return nil
	}
	// First the fence: once the markers are there, nothing shows who is to be fenced.
	committed, err := d.fence()
	if err != nil {
		return fmt.Errorf("fence producers: %w", err)
	}
	for _, t := range d.open {
		var data, index []byte
		for _, id := range slices.Sorted(maps.Keys(t.open)) {
			p := producer{id, t.open[id]}
			b := marker(t.next, p, committed[p])
			data, index = append(data, b.raw...), append(index, indexOf(b)...)
			t.next = b.next
		}
		// The batch first: if we are killed in between, the next start makes the missing index entry.
		err := appendTo(filepath.Join(d.dir, t.file+".dat"), data)
		if err == nil {
			err = appendTo(filepath.Join(d.dir, t.file+".idx"), index)
		}
		if err != nil {
			return fmt.Errorf("end transactions in %s: %w", t.topic, err)
		}
	}
	return nil
}

// fence gives the producers of open transactions the next epoch, so that what they still write with theirs is refused, and returns whose
// transactions are to be committed. Its entries say how each has ended: a producer that has outlived the crash may ask kfake to end it.
func (d *disk) fence() (committed map[producer]bool, err error) {
	path := filepath.Join(d.dir, "pids.log")
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	type entry struct {
		Type   string `json:"type"`
		PID    int64  `json:"pid"`
		Epoch  int16  `json:"epoch"`
		Commit *bool  `json:"commit,omitempty"`
	}
	last := make(map[int64]int16) // by producer: the epoch of its last transaction
	for _, t := range d.open {
		for id, epoch := range t.open {
			last[id] = max(last[id], epoch)
		}
	}
	now := make(map[int64]int16)     // by producer: the epoch that kfake will know
	fresh := make(map[producer]bool) // whether no transaction has ended in this epoch
	for text := range entries(raw) {
		var e entry
		if json.Unmarshal(text, &e) != nil {
			continue
		}
		p := producer{e.PID, e.Epoch}
		_, begun := fresh[p]
		rewritten := e.Type == "init" && e.Commit != nil // it says how the last transaction ended, in whichever epoch
		fresh[p] = !begun && !rewritten
		now[e.PID] = e.Epoch
	}
	committed = make(map[producer]bool)
	var out []byte
	for _, id := range slices.Sorted(maps.Keys(last)) {
		p := producer{id, last[id]}
		committed[p] = d.committed[p] && fresh[p]
		if now[id] > p.epoch {
			continue // it is fenced, by a start that was killed before it had written all markers
		}
		text, err := json.Marshal(entry{Type: "endtx", PID: id, Epoch: p.epoch + 1, Commit: new(committed[p])})
		if err != nil {
			return nil, err
		}
		out = appendEntry(out, text)
	}
	return committed, appendTo(path, out)
}

// marker is the control batch that ends a transaction.
func marker(at int64, p producer, commit bool) batch {
	key := kmsg.ControlRecordKey{Type: kmsg.ControlRecordKeyTypeAbort}
	if commit {
		key.Type = kmsg.ControlRecordKeyTypeCommit
	}
	value := kmsg.EndTxnMarker{}
	r := kmsg.Record{Key: key.AppendTo(nil), Value: value.AppendTo(nil)}
	r.Length = int32(len(r.AppendTo(nil)) - 1) // its own length takes one byte
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{
		FirstOffset: at, Magic: 2, Attributes: 0x30, FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: p.id, ProducerEpoch: p.epoch, FirstSequence: -1, NumRecords: 1, Records: r.AppendTo(nil),
	}
	return batch{raw: seal(b), first: at, next: at + 1, number: -1}
}

// appendTo writes behind the end of a file.
func appendTo(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
