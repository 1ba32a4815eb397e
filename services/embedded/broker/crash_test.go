package broker

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// crashImage is the broker's directory as kill -9 leaves it at this moment.
func crashImage(t *testing.T, dir string) string {
	t.Helper()
	crashed := t.TempDir()
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return crashed
}

// restart stops b and starts a broker in its place, in another directory.
func restart(t *testing.T, b *Broker, dir string) *Broker {
	t.Helper()
	b.Close()
	return startAt(t, b.Addr, dir)
}

func startAt(t *testing.T, addr, dir string) *Broker {
	t.Helper()
	b, err := Start(addr, dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// startEmpty starts a broker in a directory of its own, with a topic.
func startEmpty(t *testing.T, partitions int32) (b *Broker, dir string) {
	t.Helper()
	dir = t.TempDir()
	b = startAt(t, "127.0.0.1:0", dir)
	createTopic(t, b, diskTopic, partitions)
	return b, dir
}

// startSilently starts a broker that finds nothing to say about its directory.
func startSilently(t *testing.T, addr, dir string) *Broker {
	t.Helper()
	var out lines
	b, err := Start(addr, dir, slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != "" {
		t.Error(out.String())
	}
	return b
}

// transactional is a producer that says itself where its records go.
func transactional(t *testing.T, b *Broker, id string) *kgo.Client {
	t.Helper()
	return client(t, b, kgo.DefaultProduceTopic(diskTopic), kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordRetries(2))
}

func begin(t *testing.T, cl *kgo.Client) {
	t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
}

func commit(t *testing.T, cl *kgo.Client) {
	t.Helper()
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
}

// put writes a record to a partition.
func put(t *testing.T, cl *kgo.Client, partition int32, value string) {
	t.Helper()
	r := kgo.StringRecord(value)
	r.Partition = partition
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// transact writes a record in a transaction of its own.
func transact(t *testing.T, cl *kgo.Client, partition int32, value string) {
	t.Helper()
	begin(t, cl)
	put(t, cl, partition, value)
	commit(t, cl)
}

// holds checks which records a fresh reader finds in the topic, so many of whose partitions are not empty.
func holds(t *testing.T, b *Broker, partitions int, want ...string) {
	t.Helper()
	got := slices.Sorted(slices.Values(readCommitted(t, b, diskTopic, partitions)))
	if want = slices.Sorted(slices.Values(want)); !slices.Equal(got, want) {
		t.Errorf("there is %q, want %q", got, want)
	}
}

// TestCrashInATransaction: a broker that is killed aborts the transactions that were open. Whatever is read in one go around that, and however
// often it is killed again, what was committed before and after is there once, and what was aborted never.
func TestCrashInATransaction(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for life := range 4 {
		b := startAt(t, "127.0.0.1:0", dir)
		if life == 0 {
			createTopic(t, b, diskTopic, 2)
		}
		cl := transactional(t, b, "t")
		write := func(what string) {
			t.Helper()
			for p := range int32(2) {
				value := fmt.Sprintf("%s of life %d in %d", what, life, p)
				put(t, cl, p, value)
				if what == "committed" {
					want = append(want, value)
				}
			}
		}
		for range 2 {
			begin(t, cl)
			write("committed")
			commit(t, cl)
		}
		holds(t, b, 2, want...)
		begin(t, cl)
		write("open")
		dir = crashImage(t, dir)
		b.Close()
		cl.Close()
	}
	b := startAt(t, "127.0.0.1:0", dir)
	defer b.Close()
	holds(t, b, 2, want...)
}

// TestCrashFencesProducers: a producer that lives longer than the broker cannot commit half of its transaction, not even if pids.log has lost the
// epoch that it writes with.
func TestCrashFencesProducers(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"nothing is lost": func(b []byte) []byte { return b },
		"epochs are lost": func(b []byte) []byte {
			n, _ := entryAt(b)
			return b[:n]
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, dir := startEmpty(t, 1)
			cl := transactional(t, b, "t")
			for range 2 {
				transact(t, cl, 0, "committed")
			}
			begin(t, cl)
			put(t, cl, 0, "first half")
			dir = crashImage(t, dir)
			change(t, filepath.Join(dir, "broker", "pids.log"), damage)
			b = restart(t, b, dir)
			defer b.Close()
			perr := cl.ProduceSync(t.Context(), kgo.StringRecord("second half")).FirstErr()
			cerr := cl.EndTransaction(t.Context(), kgo.TryCommit)
			if perr == nil || cerr == nil {
				t.Errorf("the second half is written (%v) and committed (%v)", perr, cerr)
			}
			holds(t, b, 1, "committed", "committed")
		})
	}
}

// TestCrashAfterACommit: a producer that lives longer than the broker is not told that the aborted transaction was committed because the one
// before it was.
func TestCrashAfterACommit(t *testing.T) {
	for name, rewrite := range map[string]func(t *testing.T, b *Broker, dir string) *Broker{
		"nothing":         func(_ *testing.T, b *Broker, _ string) *Broker { return b },
		"an orderly stop": restart,
		"too many producers": func(t *testing.T, b *Broker, dir string) *Broker {
			cl := client(t, b)
			for path := filepath.Join(dir, "broker", "pids.log"); ; {
				if info, err := os.Stat(path); err != nil || info.Size() < compactBytes/2 {
					return b
				}
				if _, err := kmsg.NewPtrInitProducerIDRequest().RequestWith(t.Context(), cl); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, dir := startEmpty(t, 1)
			dir = crashImage(t, dir)
			change(t, filepath.Join(dir, "broker", "pids.log"), func(b []byte) []byte {
				for len(b) < compactBytes-(20<<10) {
					b = appendEntry(b, []byte(`{"type":"timeout","pid":1,"epoch":1}`))
				}
				return b
			})
			b = restart(t, b, dir)
			cl := transactional(t, b, "t")
			transact(t, cl, 0, "committed")
			b = rewrite(t, b, dir)
			begin(t, cl)
			put(t, cl, 0, "open")
			b = restart(t, b, crashImage(t, dir))
			defer b.Close()
			if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err == nil {
				t.Error("the transaction was committed")
			}
			holds(t, b, 1, "committed")
		})
	}
}

// TestCrashKeepsTheLeaderEpoch: a consumer that lives longer than the broker reads what is written afterwards.
func TestCrashKeepsTheLeaderEpoch(t *testing.T) {
	b, dir := startEmpty(t, 1)
	cl := transactional(t, b, "t")
	transact(t, cl, 0, "before")
	in := client(t, b, kgo.ConsumeTopics(diskTopic), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	reads := func(want string) {
		t.Helper()
		for got := ""; got != want; {
			fs := in.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatalf("%q was not read", want)
			}
			fs.EachRecord(func(r *kgo.Record) { got = string(r.Value) })
		}
	}
	reads("before")
	begin(t, cl)
	put(t, cl, 0, "open")
	b = restart(t, b, crashImage(t, dir))
	defer b.Close()
	put(t, client(t, b, kgo.DefaultProduceTopic(diskTopic)), 0, "after")
	reads("after")
}

// TestCrashKeepsTheLogStart: the records that were deleted before a crash with an open transaction are not reported as lost.
func TestCrashKeepsTheLogStart(t *testing.T) {
	dir := t.TempDir()
	b := startAt(t, "127.0.0.1:0", dir)
	if err := b.cluster.CreateTopic(diskTopic, 1, map[string]string{"segment.bytes": "1"}); err != nil {
		t.Fatal(err)
	}
	cl := transactional(t, b, "t")
	for _, value := range []string{"deleted", "kept"} {
		transact(t, cl, 0, value)
	}
	if err := b.cluster.DeleteRecords(diskTopic, 0, 2); err != nil {
		t.Fatal(err)
	}
	b = restart(t, b, dir)
	begin(t, cl)
	put(t, cl, 0, "open")
	for range 3 {
		dir = crashImage(t, dir)
		b.Close()
		b = startSilently(t, b.Addr, dir)
	}
	defer b.Close()
	holds(t, b, 1, "kept")
}

// TestFailedStartAfterAStop: transactions that outlive an orderly stop also outlive a start that fails after it.
func TestFailedStartAfterAStop(t *testing.T) {
	b, dir := startEmpty(t, 1)
	cl := transactional(t, b, "t")
	begin(t, cl)
	put(t, cl, 0, "open")
	b.Close()
	other := startAt(t, b.Addr, "")
	if _, err := Start(b.Addr, dir, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("two brokers have one port")
	}
	b = restart(t, other, dir)
	defer b.Close()
	commit(t, cl)
	holds(t, b, 1, "open")
}

// halfCommit commits the transaction of a producer, which has written to partition 0 and to others. It returns what is left of the broker's
// directory if it is killed when the marker in partition 0 is written.
func halfCommit(t *testing.T, dir string, cl *kgo.Client) string {
	t.Helper()
	half := crashImage(t, dir)
	commit(t, cl)
	take(t, half, dir, partitionFiles(0)...)
	return half
}

func partitionFiles(partition int) []string {
	name := fmt.Sprintf("broker/partitions/%s-%d/0", diskTopic, partition)
	return []string{name + ".dat", name + ".idx"}
}

// take copies files from one directory of a broker into another one.
func take(t *testing.T, to, from string, names ...string) {
	t.Helper()
	for _, name := range names {
		change(t, filepath.Join(to, name), func([]byte) []byte { return content(t, from, name) })
	}
}

func content(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCrashInACommit: a transaction that is committed in one partition is committed in all, also that of a producer which has lived through this
// before.
func TestCrashInACommit(t *testing.T) {
	b, dir := startEmpty(t, 3) // one stays empty
	cl := transactional(t, b, "t")
	var want []string
	for life := range 3 {
		begin(t, cl)
		for p := range int32(2) {
			value := fmt.Sprintf("life %d in %d", life, p)
			put(t, cl, p, value)
			want = append(want, value)
		}
		end := kmsg.NewPtrEndTxnRequest()
		var err error
		if end.ProducerID, end.ProducerEpoch, err = cl.ProducerID(t.Context()); err != nil {
			t.Fatal(err)
		}
		dir = halfCommit(t, dir, cl)
		b = restart(t, b, dir)
		holds(t, b, 2, want...)
		end.TransactionalID, end.Commit = "t", true
		resp, err := end.RequestWith(t.Context(), cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err != nil {
			t.Errorf("a second try of the commit is answered with %v", err)
		}
	}
	b.Close()
}

// TestOldMarkerCommitsNothing: that the last transaction of a producer was committed in one partition does not commit the one that is open in
// another partition, although both have the same epoch.
func TestOldMarkerCommitsNothing(t *testing.T) {
	for name, c := range map[string]struct{ stop, forget bool }{"an old client": {}, "an old client, an orderly stop": {stop: true}, "an id that was forgotten": {forget: true}} {
		t.Run(name, func(t *testing.T) {
			b, dir := startEmpty(t, 2)
			old := []kgo.Opt{kgo.DefaultProduceTopic(diskTopic), kgo.TransactionalID("t"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxVersions(kversion.V3_5_0())}
			cl := client(t, b, old...)
			transact(t, cl, 0, "committed")
			want := []string{"committed"}
			if c.stop {
				b = restart(t, b, dir)
			}
			if c.forget {
				put(t, client(t, b, kgo.DefaultProduceTopic(diskTopic), kgo.RecordPartitioner(kgo.ManualPartitioner())), 0, "later")
				want = append(want, "later")
				dir = crashImage(t, dir)
				change(t, filepath.Join(dir, "broker", "pids.log"), func([]byte) []byte { return nil })
				b = restart(t, b, dir)
				cl = client(t, b, old...)
			}
			begin(t, cl)
			put(t, cl, 1, "open")
			b = restart(t, b, crashImage(t, dir))
			defer b.Close()
			holds(t, b, 2, want...)
		})
	}
}

// TestKilledWhileEndingTransactions: wherever the end of transactions is cut short, the next start brings it to the same end, and the one after
// that changes nothing.
func TestKilledWhileEndingTransactions(t *testing.T) {
	b, dir := startEmpty(t, 3)
	for _, id := range []string{"a", "b", "c"} {
		cl := transactional(t, b, id)
		begin(t, cl)
		put(t, cl, 0, id)
		put(t, cl, 1, id)
		if id == "c" {
			dir = halfCommit(t, dir, cl)
		}
	}
	b.Close()
	ended := crashImage(t, dir)
	if err := checkDisk(filepath.Join(ended, "broker"), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	written := append([]string{"broker/pids.log"}, slices.Concat(partitionFiles(0), partitionFiles(1))...)
	for n := range len(written) + 1 {
		cut := crashImage(t, dir)
		take(t, cut, ended, written[:n]...)
		b := startAt(t, "127.0.0.1:0", cut)
		holds(t, b, 2, "c", "c")
		mended := crashImage(t, cut)
		b.Close()
		if !bytes.Equal(content(t, mended, written[0]), content(t, ended, written[0])) {
			t.Errorf("with %v, the producers are fenced twice", written[:n])
		}
		again := crashImage(t, mended)
		if err := checkDisk(filepath.Join(again, "broker"), slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		for _, name := range written {
			if !bytes.Equal(content(t, again, name), content(t, mended, name)) {
				t.Errorf("with %v, one more start changes %s", written[:n], name)
			}
		}
	}
}

// TestTornEnd: what a write that was cut short has left at the end of a partition does not keep an open transaction from being aborted for good.
func TestTornEnd(t *testing.T) {
	const part = "broker/partitions/" + diskTopic + "-0/"
	shorten := func(b []byte) []byte { return b[:len(b)-7] }
	for name, tear := range map[string]func(*testing.T, string){
		"batch":       func(t *testing.T, dir string) { change(t, filepath.Join(dir, part+"0.dat"), shorten) },
		"index entry": func(t *testing.T, dir string) { change(t, filepath.Join(dir, part+"0.idx"), shorten) },
		"index entry of no batch": func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, part+"0.idx"), func(b []byte) []byte { return append(b, b[:7]...) })
		},
		"index entries of nothing": func(t *testing.T, dir string) {
			change(t, filepath.Join(dir, part+"0.idx"), func(b []byte) []byte { return append(b, b...) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, dir := startEmpty(t, 1)
			cl := transactional(t, b, "t")
			transact(t, cl, 0, "committed")
			begin(t, cl)
			put(t, cl, 0, "open")
			put(t, cl, 0, "open, too")
			dir = crashImage(t, dir)
			tear(t, dir)
			b = restart(t, b, dir)
			holds(t, b, 1, "committed")
			dir = crashImage(t, dir)
			b.Close()
			b = startSilently(t, b.Addr, dir)
			defer b.Close()
			holds(t, b, 1, "committed")
		})
	}
}
