package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/testskip"
	"spate/tests/harness"
)

// TestDirectoryIsTakenAway: no record is acknowledged that would be gone with the broker.
func TestDirectoryIsTakenAway(t *testing.T) {
	t.Parallel()
	var out lines
	dir := filepath.Join(t.TempDir(), "state")
	b := startTestBroker(t, dir, slog.New(slog.NewTextHandler(&out, nil)))
	createTopic(t, b, "in", 1)
	cl := client(t, b, kgo.DefaultProduceTopic("in"))
	say := func() error { return cl.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr() }
	if err := say(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+".aside"); err != nil {
		t.Fatal(err)
	}
	if err := say(); !errors.Is(err, kerr.UnknownServerError) || !strings.Contains(out.String(), "removed or replaced") {
		t.Errorf("%v, %s", err, out.String())
	}
	if n := testutil.ToFloat64(b.room.fullness); n != 1 {
		t.Errorf("the metric is %v", n)
	}
	if err := os.Rename(dir+".aside", dir); err != nil {
		t.Fatal(err)
	}
	if err := say(); err != nil {
		t.Errorf("put back: %v", err)
	}
	if n := testutil.ToFloat64(b.room.fullness); n != 0 {
		t.Errorf("the metric is %v once it is put back", n)
	}
}

// TestRecordsWhileItStops: a record that comes while the broker stops is taken or not answered. An error would end a producer that only has to wait for
// the next start.
func TestRecordsWhileItStops(t *testing.T) {
	t.Parallel()
	var out lines
	b := startTestBroker(t, filepath.Join(t.TempDir(), "state"), slog.New(slog.NewTextHandler(&out, nil)))
	createTopic(t, b, "in", 1)
	cl := client(t, b, kgo.DefaultProduceTopic("in"))
	b.room.leave()
	if err := cl.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr(); err != nil || strings.Contains(out.String(), "removed or replaced") {
		t.Errorf("%v, %s", err, out.String())
	}
}

// TestFullDisk: while another program has filled the disk, no record is taken, and transactions end as they should: what was read as committed
// before a crash is so after it, with its offsets, and what was aborted is never read. With room again, everything goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := harness.NewDisk(t, 64<<20)
	if !disk.Small {
		testskip.Missing(t, "a small disk cannot be mounted")
	}
	var out lines
	dir := filepath.Join(disk.Dir, "state")
	b := startTestBroker(t, dir, slog.New(slog.NewTextHandler(&out, nil)))
	const partitions = 100
	createTopic(t, b, "out", partitions)
	createTopic(t, b, "in", 1)
	// In some partitions, the two batches leave no room for a mark in their last block.
	begin := func(id, value string) *kgo.Client {
		cl := client(t, b, kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for p := range partitions {
			r := &kgo.Record{Topic: "out", Partition: int32(p), Value: []byte(value), Key: bytes.Repeat([]byte("k"), 20*p)}
			if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		return cl
	}
	first, second := begin("first", "committed"), begin("second", "aborted")
	plain := client(t, b, kgo.DefaultProduceTopic("in"))
	if err := plain.ProduceSync(t.Context(), kgo.StringRecord("with room")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := disk.Fill(); err != nil {
		t.Fatal(err)
	}
	if err := plain.ProduceSync(t.Context(), kgo.StringRecord("without room")).FirstErr(); !errors.Is(err, kerr.UnknownServerError) {
		t.Errorf("a record without room: %v", err)
	}
	if n := testutil.ToFloat64(b.room.fullness); n != 1 {
		t.Errorf("the metric is %v", n)
	}
	if err := first.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Errorf("commit: %v", err)
	}
	if err := second.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Errorf("abort: %v", err)
	}
	adm := kadm.NewClient(plain)
	for i := range 1000 {
		at := make(kadm.Offsets)
		at.Add(kadm.Offset{Topic: "in", At: 1, LeaderEpoch: -1, Metadata: strconv.Itoa(i)})
		if err := adm.CommitAllOffsets(t.Context(), "readers", at); err != nil {
			t.Fatal(err)
		}
	}
	check := func(b *Broker) {
		t.Helper()
		if got := readCommitted(t, b, "out", partitions); len(got) != partitions || slices.Contains(got, "aborted") {
			t.Errorf("%d records are read, of %d: %q", len(got), partitions, got)
		}
		at, err := kadm.NewClient(client(t, b)).FetchOffsets(t.Context(), "readers")
		if err != nil {
			t.Fatal(err)
		}
		if o, _ := at.Lookup("in", 0); o.Metadata != "999" {
			t.Errorf("offset %d, number %s is committed", o.At, o.Metadata)
		}
	}
	check(b)
	crashed := t.TempDir() // on another disk
	if err := os.CopyFS(filepath.Join(crashed, "broker"), os.DirFS(b.dir)); err != nil {
		t.Fatal(err)
	}
	check(startTestBroker(t, crashed, nil))

	if err := disk.Free(); err != nil {
		t.Fatal(err)
	}
	if err := plain.ProduceSync(t.Context(), kgo.StringRecord("with room")).FirstErr(); err != nil {
		t.Errorf("a record with room again: %v", err)
	}
	if info, err := os.Stat(filepath.Join(b.dir, reserveName)); err != nil || info.Size() != reserveBytes || testutil.ToFloat64(b.room.fullness) != 0 {
		t.Errorf("the reserve is not whole again: %v, %v", info, err)
	}
	if said := out.String(); strings.Count(said, "the disk is full") != 1 || strings.Count(said, "there is free disk space again") != 1 || strings.Count(said, "persist") != 0 {
		t.Error(said)
	}
}

// readCommitted reads a topic, one record in each partition at least, up to its end.
func readCommitted(t *testing.T, b *Broker, topic string, partitions int) (values []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cl := client(t, b, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	at := make(map[int32]int64)
	for done := 0; done < partitions; {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatal(fmt.Errorf("read %s: %w", topic, err))
		}
		fs.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				values = append(values, string(r.Value))
			}
			at[r.Partition] = r.Offset + 1
		})
		done = 0
		for p, o := range at {
			if end, ok := ends.Lookup(topic, p); ok && o >= end.Offset {
				done++
			}
		}
	}
	return values
}
