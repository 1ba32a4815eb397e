package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"spate/shared/kafka/intake"
)

// What the broker writes for itself must always have room, for kfake goes on when it has none. It ends a transaction with a mark in each
// partition, the offsets in groups.log, and an entry in pids.log, one after the other, and answers that all is well whichever of them failed.
// Without its mark, an aborted transaction is read as a committed one at once; a committed one is aborted by the next start, its offsets or not.
// Events are counted twice, or never.
//
// So there is a reserve, a file that takes room. Records are refused before they use up what the ends of transactions need, and what the
// reserve takes is given back when another program has filled the disk. A refused record is UNKNOWN_SERVER_ERROR, which producers report
// at once. KAFKA_STORAGE_ERROR is the better name, but they try again after it, some without end: `spate simulate` would stand still
// without a word, and the router would not end its transaction.
//
// What remains: a program that goes on writing gets what is given back, too. It has to take keepFree between the look at the disk and the end of
// a request, which is less than a millisecond, or the whole reserve in pieces. And a quota of the user, which statfs does not know.
const (
	reserveName = "reserve"
	// keepFree is free when kfake handles a request: the marks of a transaction in 250 partitions may begin as many new blocks in two files each.
	keepFree = 2 << 20
	// reserveBytes also has to do for the logs, which grow by the transactions that are aborted while the disk is full until kfake compacts them.
	reserveBytes = 16 << 20
	compactBytes = 2 << 20 // for groups.log and pids.log each; 10 MiB otherwise
)

// room keeps room on the disk for what the broker writes for itself. Its methods are called by one goroutine at a time, kfake's.
type room struct {
	log      *slog.Logger
	reserve  *os.File
	held     int64 // what the reserve takes
	full     atomic.Bool
	left     atomic.Bool // the reserve is given back for good
	away     bool        // the directory was taken away
	fullness prometheus.GaugeFunc
}

func openRoom(dir string, log *slog.Logger) (*room, error) {
	f, err := os.OpenFile(filepath.Join(dir, reserveName), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("reserve disk space: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("reserve disk space: %w", err)
	}
	r := &room{log: log, reserve: f, held: info.Size()}
	r.fullness = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "spate_broker_disk_full",
		Help: "1 while the embedded broker accepts no records because its disk is full or its directory was removed.",
	}, func() float64 {
		if r.full.Load() {
			return 1
		}
		return 0
	})
	if r.restore(); r.held < reserveBytes {
		r.judge(true, r.free())
	}
	return r, nil
}

// leave gives everything back, for what the broker writes when it stops. Other methods may be called meanwhile.
func (r *room) leave() {
	r.left.Store(true)
	if err := errors.Join(r.reserve.Truncate(0), os.Remove(r.reserve.Name())); err != nil {
		r.log.Warn("the embedded broker cannot release its reserved disk space", "error", err)
	}
}

// watch has the room looked after before each request.
func (r *room) watch(c *kfake.Cluster) {
	intake.Watch(c, &kerr.Error{Code: kerr.UnknownServerError.Code, Message: "The embedded broker cannot store records: its disk is full, or its directory was removed."}, r.refuses)
}

func compactSooner() kfake.Opt {
	return kfake.BrokerConfigs(map[string]string{"state.log.compact.bytes": strconv.Itoa(compactBytes)})
}

// refuses makes sure that there is room for what a request makes kfake write. It reports whether there is none for its records, or for what
// would have records or ends.
func (r *room) refuses(req kmsg.Request) bool {
	if r.taken(); r.away {
		switch req.(type) {
		case *kmsg.ProduceRequest, *kmsg.AddPartitionsToTxnRequest, *kmsg.CreateTopicsRequest, *kmsg.CreatePartitionsRequest:
			return true
		}
		return false
	}
	r.restore()
	free := r.free()
	switch req := req.(type) {
	case *kmsg.ProduceRequest:
		return r.judge(r.held < reserveBytes || free < keepFree+size(req), free)
	case *kmsg.AddPartitionsToTxnRequest, *kmsg.CreateTopicsRequest, *kmsg.CreatePartitionsRequest:
		return r.judge(r.held < reserveBytes || free < keepFree, free)
	}
	if free < keepFree && r.held > 0 {
		r.judge(true, free)
		r.giveBack(keepFree - free)
	}
	return false
}

// taken notes whether the reserve is still at its path. If it is not, neither is anything else that is written here, and all of it is gone when
// it is closed.
func (r *room) taken() {
	open, err := r.reserve.Stat()
	is, pathErr := os.Stat(r.reserve.Name())
	was := r.away
	if err != nil || r.left.Load() { // it was left before it was removed
		return
	}
	r.away = errors.Is(pathErr, os.ErrNotExist) || pathErr == nil && !os.SameFile(open, is)
	switch dir := filepath.Dir(r.reserve.Name()); {
	case r.away && !was:
		r.full.Store(true)
		r.log.Error("the directory of the embedded broker was removed or replaced while it was open: the broker accepts no records until the directory is restored", "directory", dir)
	case was && !r.away:
		r.full.Store(false)
		r.log.Info("the directory of the embedded broker has been restored: the broker accepts records again", "directory", dir)
	}
}

// judge notes whether the disk is full, and reports each change.
func (r *room) judge(full bool, free int64) bool {
	switch was := r.full.Swap(full); {
	case full && !was:
		r.log.Error("the disk is full: the embedded broker accepts no records until there is free space", "directory", filepath.Dir(r.reserve.Name()), "free_bytes", free)
	case was && !full:
		r.log.Info("there is free disk space again: the embedded broker accepts records", "directory", filepath.Dir(r.reserve.Name()), "free_bytes", free)
	}
	return full
}

// size is what the records of a request may take on the disk.
func size(req *kmsg.ProduceRequest) (n int64) {
	const blocks = 2 * 4096 // the last ones of the batches and of their index
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			n += int64(len(p.Records)) + blocks
		}
	}
	return n
}

// free is what this process can write.
func (r *room) free() int64 {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(int(r.reserve.Fd()), &st); err != nil {
		r.log.Warn("the embedded broker cannot determine the free space on its disk", "error", err)
		return keepFree // nothing to be done
	}
	return int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // their types depend on the system
}

func (r *room) giveBack(n int64) {
	n = min(n, r.held)
	if err := r.reserve.Truncate(r.held - n); err != nil {
		r.log.Warn("the embedded broker cannot release its reserved disk space", "error", err)
		return
	}
	r.held -= n
}

// restore makes the reserve whole if there is more than enough room.
func (r *room) restore() {
	missing := reserveBytes - r.held
	if missing <= 0 || r.free() < missing+2*keepFree {
		return
	}
	// A hole, or what a file system can compress, takes no room.
	b := make([]byte, missing)
	noise := rand.NewChaCha8([32]byte{})
	_, _ = noise.Read(b) // never fails
	n, err := r.reserve.WriteAt(b, r.held)
	r.held += int64(n)
	if err != nil {
		r.log.Warn("the embedded broker cannot reserve disk space", "error", err)
		return
	}
	if r.full.Load() {
		r.judge(false, r.free())
	}
}
