package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// lines is a log in a test.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const diskTopic, diskGroup, diskRecords = "events", "readers", 100

// fillDisk makes a broker's directory: 100 records in batches of ten, offset 60 committed in steps, a producer and a transaction, and it is
// stopped in order, or as by kill -9.
func fillDisk(t *testing.T, inOrder bool) (dir string) {
	t.Helper()
	dir = t.TempDir()
	b, err := Start("127.0.0.1:0", dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	createTopic(t, b, diskTopic, 1)
	cl := client(t, b, kgo.DefaultProduceTopic(diskTopic), kgo.ManualFlushing())
	adm := kadm.NewClient(cl)
	for i := range diskRecords / 10 {
		for j := range 10 {
			cl.Produce(t.Context(), kgo.StringRecord(fmt.Sprintf("%d-%s", i*10+j, strings.Repeat("x", 20))), func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		if err := cl.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if i < 6 {
			var os kadm.Offsets
			os.AddOffset(diskTopic, 0, int64(10*(i+1)), -1)
			if err := adm.CommitAllOffsets(t.Context(), diskGroup, os); err != nil {
				t.Fatal(err)
			}
		}
	}
	cl.Close()
	if inOrder {
		b.Close()
		return dir
	}
	crashed := t.TempDir()
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	b.Close()
	return crashed
}

func client(t *testing.T, b *Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(b.Addr))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// values reads what the topic has from the offset on.
func values(t *testing.T, b *Broker, from int64) map[int64]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cl := client(t, b, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{diskTopic: {0: kgo.NewOffset().At(from)}}))
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, diskTopic)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(diskTopic, 0)
	got := make(map[int64]string)
	for last := int64(-1); last < end.Offset-1; {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("read up to %d: %v", end.Offset, err)
		}
		fs.EachRecord(func(r *kgo.Record) { got[r.Offset], last = string(r.Value), r.Offset })
	}
	return got
}

func flip(name string, at float64) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		change(t, filepath.Join(dir, name), func(b []byte) []byte { b[int(at*float64(len(b)))] ^= 0x10; return b })
	}
}

func cut(name string, at float64) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		change(t, filepath.Join(dir, name), func(b []byte) []byte { return b[:int(at*float64(len(b)))] })
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func change(t *testing.T, path string, f func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, f(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fiveBatches are the first five of a segment.
func fiveBatches(b []byte) []byte {
	n := 0
	for range 5 {
		first, _ := batchAt(b[n:])
		n += len(first.raw)
	}
	return b[:n]
}

// inBatch changes a byte behind the header of the sixth batch.
func inBatch(t *testing.T, dir string) {
	change(t, filepath.Join(dir, "broker/partitions", diskTopic+"-0", "0.dat"), func(b []byte) []byte { b[len(fiveBatches(b))+80] ^= 1; return b })
}

// TestStateIsFreeAfterClose: a process that is just being started, which has all files until its exec, keeps no state directory taken.
func TestStateIsFreeAfterClose(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 2 {
		b, err := Start("127.0.0.1:0", dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		starting, err := syscall.Dup(int(b.lock.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(starting)
		if _, err := Start("127.0.0.1:0", dir, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrInUse) {
			t.Fatalf("two brokers have one directory: %v", err)
		}
		b.Close()
	}
}

// TestDamage: whatever of the broker's directory is flipped, cut or gone, the loss is told, what is not damaged is there, no offset is given
// twice, and the partition works for new records.
func TestDamage(t *testing.T) {
	t.Parallel()
	const part = "broker/partitions/" + diskTopic + "-0/"
	for name, c := range map[string]struct {
		crash   bool
		damage  func(*testing.T, string)
		says    string
		lost    int   // records
		commits int64 // the offset committed afterwards, if not 60
		refuses string
	}{
		"nothing":                {},
		"nothing, crash":         {crash: true},
		"segment flipped":        {damage: inBatch, says: "lost_records=10", lost: 10},
		"segment flipped, crash": {crash: true, damage: inBatch, says: "from_offset=50", lost: 10},
		"segment cut":            {damage: cut(part+"0.dat", 0.55), says: "lost_records=50", lost: 50},
		"segment cut, crash":     {crash: true, damage: cut(part+"0.dat", 0.55), says: "lost_records=10", lost: 50}, // up to the committed offset; what was behind it nobody knows
		"segment cut at a batch": {damage: func(t *testing.T, dir string) { change(t, filepath.Join(dir, part, "0.dat"), fiveBatches) }, says: "lost_records=50", lost: 50},
		"segment empty":          {damage: cut(part+"0.dat", 0), says: "lost_records=100", lost: 100},
		"segment gone":           {damage: remove(part + "0.dat"), says: "records are lost", lost: 100},
		"first offset flipped": {damage: func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, part, "0.dat"), func(b []byte) []byte { first, _ := batchAt(b); b[len(first.raw)+5] ^= 1; return b })
		}, says: "nothing is lost"},
		"epoch flipped": {damage: func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, part, "0.dat"), func(b []byte) []byte { b[13] ^= 1; return b })
		}, says: "the epoch of a batch"},
		"index flipped":     {damage: flip(part+"0.idx", 0.5), says: "an index was damaged"},
		"index cut":         {damage: cut(part+"0.idx", 0.5), says: "an index was damaged"},
		"index gone, crash": {crash: true, damage: remove(part + "0.idx"), says: "an index was damaged"},
		"snapshot flipped": {damage: func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, part, "snapshot.json"), func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"high_watermark":100`), []byte(`"high_watermark":010`), 1)
			})
		}, says: "last clean shutdown"},
		"snapshot smaller": {damage: func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, part, "snapshot.json"), func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"high_watermark":100`), []byte(`"high_watermark":30`), 1)
			})
		}, says: "last clean shutdown"},
		"snapshot cut":           {damage: cut(part+"snapshot.json", 0.5), says: "last clean shutdown"},
		"snapshot gone":          {damage: remove(part + "snapshot.json"), says: "last clean shutdown"},
		"topics flipped":         {damage: flip("broker/topics.json", 0.5), says: "last clean shutdown"},
		"topics cut":             {damage: cut("broker/topics.json", 0.5), says: "last clean shutdown"},
		"topics gone":            {damage: remove("broker/topics.json"), says: "last clean shutdown"},
		"topics cut, crash":      {crash: true, damage: cut("broker/topics.json", 0.5), refuses: "topics.json is damaged"},
		"topics gone, crash":     {crash: true, damage: remove("broker/topics.json"), refuses: "topics.json is damaged"},
		"meta flipped":           {damage: flip("broker/meta.json", 0.5), says: "last clean shutdown"},
		"meta cut, crash":        {crash: true, damage: cut("broker/meta.json", 0.5), says: "nothing is lost"},
		"meta gone, crash":       {crash: true, damage: remove("broker/meta.json"), says: "nothing is lost"},
		"offsets flipped":        {damage: flip("broker/groups.log", 0.5), says: "last clean shutdown"},
		"offsets cut":            {damage: cut("broker/groups.log", 0.5), says: "last clean shutdown"},
		"offsets gone":           {damage: remove("broker/groups.log"), says: "last clean shutdown"},
		"offsets flipped, crash": {crash: true, damage: flip("broker/groups.log", 0.5), says: "may be counted again"},
		"offsets cut, crash":     {crash: true, damage: cut("broker/groups.log", 0.95), says: "may be counted again", commits: 50},
		"offsets, a torn write": {crash: true, damage: func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "broker/groups.log"), func(b []byte) []byte { return slices.Concat(b[:len(b)/3+5], b) })
		}, says: "may be counted again"},
		"offsets gone, crash":     {crash: true, damage: remove("broker/groups.log"), says: "starting without it", commits: -1},
		"producers flipped":       {damage: flip("broker/pids.log", 0.5), says: "last clean shutdown"},
		"producers flipped,crash": {crash: true, damage: flip("broker/pids.log", 0.5), says: "pids.log"},
		"sequences cut":           {damage: cut("broker/seq_windows.json", 0.5), says: "last clean shutdown"},
		"sequences cut, crash":    {crash: true, damage: cut("broker/seq_windows.json", 0.5), says: "starting without it"},
		"sessions flipped": {damage: func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, "broker/broker_configs.json"), func([]byte) []byte { return []byte("{") })
		}, says: "last clean shutdown"},
		"copy flipped": {damage: flip("broker/"+copyName, 0.5), says: "ignoring the copy"},
		"copy cut":     {damage: cut("broker/"+copyName, 0.5), says: "ignoring the copy"},
		"a partition of no topic": {damage: func(t *testing.T, dir string) {
			if err := os.MkdirAll(filepath.Join(dir, "broker/partitions/other-0"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, says: "belongs to no topic"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := fillDisk(t, !c.crash)
			if c.damage != nil {
				c.damage(t, dir)
			}
			var out lines
			log := slog.New(slog.NewTextHandler(&out, nil))
			b, err := Start("127.0.0.1:0", dir, log)
			if c.refuses != "" {
				if err == nil || !strings.Contains(err.Error(), c.refuses) {
					t.Fatalf("%v does not say %q", err, c.refuses)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			closed := sync.OnceFunc(b.Close)
			defer closed()
			if said := out.String(); !strings.Contains(said, c.says) || c.says == "" && said != "" {
				t.Errorf("the log does not say %q: %s", c.says, said)
			}
			if said := out.String(); strings.Contains(said, "message from the embedded broker") {
				t.Errorf("kfake found what is wrong: %s", said)
			}
			cl := client(t, b, kgo.DefaultProduceTopic(diskTopic))
			var fresh []*kgo.Record
			for i := range 3 {
				fresh = append(fresh, kgo.StringRecord(fmt.Sprint("new ", i)))
			}
			if err := cl.ProduceSync(t.Context(), fresh...).FirstErr(); err != nil {
				t.Fatalf("write: %v", err)
			}
			got := values(t, b, 0)
			if want := diskRecords - c.lost + len(fresh); len(got) != want {
				t.Errorf("%d records, want %d", len(got), want)
			}
			for at, v := range got {
				if old := strings.HasPrefix(v, fmt.Sprintf("%d-x", at)); !old && !strings.HasPrefix(v, "new") {
					t.Errorf("offset %d is %q", at, v)
				}
			}
			if first := fresh[0].Offset; first < 60 && c.commits >= 0 {
				t.Errorf("offset %d is given twice", first)
			}
			if got := committed(t, b); got != or(c.commits, 60) {
				t.Errorf("committed is %d, want %d", got, or(c.commits, 60))
			}
			if len(values(t, b, 60)) < len(fresh) {
				t.Error("from the committed offset on, not everything is read")
			}
			// Once mended, it is sound.
			closed()
			var again lines
			b2 := startTestBroker(t, dir, slog.New(slog.NewTextHandler(&again, nil)))
			if said := again.String(); said != "" {
				t.Errorf("the next start finds damage, too: %s", said)
			}
			if n := len(values(t, b2, 0)); n != diskRecords-c.lost+len(fresh) {
				t.Errorf("%d records after the next start", n)
			}
			if c.says != "" && c.damage != nil && !strings.Contains(c.says, "missing") {
				kept := 0
				_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, _ error) error {
					if strings.Contains(path, damaged) {
						kept++
					}
					return nil
				})
				if kept == 0 && !strings.Contains(name, "gone") {
					t.Error("what was damaged is not kept")
				}
			}
		})
	}
}

func or(a, b int64) int64 {
	if a != 0 {
		return a
	}
	return b
}

// committed is the offset that the group has, or -1.
func committed(t *testing.T, b *Broker) int64 {
	t.Helper()
	offsets, err := kadm.NewClient(client(t, b)).FetchOffsets(t.Context(), diskGroup)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return -1
	}
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := offsets.Lookup(diskTopic, 0); ok {
		return o.At
	}
	return -1
}

// TestDamagedTransaction: an aborted transaction stays aborted when the index that says so is damaged.
func TestDamagedTransaction(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := startTestBroker(t, dir, nil)
	createTopic(t, b, diskTopic, 1)
	cl := client(t, b, kgo.DefaultProduceTopic(diskTopic), kgo.TransactionalID("tx"))
	for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord(fmt.Sprint("tx ", i))).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	cl.Close()
	crashed := t.TempDir()
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	change(t, filepath.Join(crashed, "broker/partitions", diskTopic+"-0", "0.idx"), func(b []byte) []byte {
		for i := range b {
			b[i] ^= 0x10
		}
		return b
	})
	b2 := startTestBroker(t, crashed, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	in := client(t, b2, kgo.ConsumeTopics(diskTopic), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	var got []string
	for len(got) < 2 || got[len(got)-1] != "tx 2" {
		fs := in.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	if !slices.Equal(got, []string{"tx 0", "tx 2"}) {
		t.Errorf("read committed: %q", got)
	}
}

// TestEmptiedPartitionKeepsItsOffsets: a partition whose records have all been deleted goes on where it was, also after a restart.
func TestEmptiedPartitionKeepsItsOffsets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := Start("127.0.0.1:0", dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	createTopic(t, b, diskTopic, 1)
	cl := client(t, b, kgo.DefaultProduceTopic(diskTopic))
	for range 5 {
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord("old")).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	cl.Close()
	if err := b.cluster.DeleteRecords(diskTopic, 0, -1); err != nil {
		t.Fatal(err)
	}
	b.Close()
	b2 := startTestBroker(t, dir, nil)
	r := kgo.StringRecord("new")
	if err := client(t, b2, kgo.DefaultProduceTopic(diskTopic)).ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if r.Offset < 5 {
		t.Errorf("offset %d is given twice", r.Offset)
	}
}

// TestLostPartition: a partition whose directory is lost goes on behind what is committed.
func TestLostPartition(t *testing.T) {
	t.Parallel()
	dir := fillDisk(t, false)
	if err := os.RemoveAll(filepath.Join(dir, "broker", "partitions", diskTopic+"-0")); err != nil {
		t.Fatal(err)
	}
	r := kgo.StringRecord("new")
	if err := client(t, startTestBroker(t, dir, nil), kgo.DefaultProduceTopic(diskTopic)).ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if r.Offset < 60 {
		t.Errorf("offset %d is committed and given again", r.Offset)
	}
}

// FuzzBatches: no bytes in a segment make the check fail, and what it has mended is sound.
func FuzzSegment(f *testing.F) {
	f.Add([]byte("rubbish"), uint16(3))
	f.Add(bytes.Repeat([]byte{0}, 70), uint16(0))
	topics, err := json.Marshal(map[string]any{"version": 1, "topics": []map[string]any{{"name": "t", "partitions": 1}}})
	if err != nil {
		f.Fatal(err)
	}
	s := segment{}
	for i := range 5 {
		s.fill(int64(i*10 + 10))
	}
	var sound []byte
	for _, b := range s.batches {
		sound = append(sound, b.raw...)
	}
	f.Fuzz(func(t *testing.T, junk []byte, at uint16) {
		dir := t.TempDir()
		part := filepath.Join(dir, "partitions", "t-0")
		if err := os.MkdirAll(part, 0o700); err != nil {
			t.Fatal(err)
		}
		i := int(at) % (len(sound) + 1)
		raw := slices.Concat(sound[:i], junk, sound[i:])
		for name, b := range map[string][]byte{"topics.json": topics, "partitions/t-0/0.dat": raw} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := checkDisk(dir, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		var out lines
		d := newDisk(dir, slog.New(slog.NewTextHandler(&out, nil)))
		if err := d.checkPartitions(); err != nil {
			t.Fatal(err)
		}
		if d.mended > 0 {
			t.Errorf("it is not sound: %s", out.String())
		}
	})
}
