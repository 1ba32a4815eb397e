package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const gzipped, zstdded = 1, 4

// records are so many of a value in the form that they have in a batch.
func records(n, size int) (b []byte) {
	for i := range n {
		r := binary.AppendVarint([]byte{0, 0}, int64(i)) // attributes, time, offset
		r = binary.AppendVarint(r, -1)                   // no key
		r = append(binary.AppendVarint(r, int64(size)), bytes.Repeat([]byte{'x'}, size)...)
		r = append(r, 0) // no headers
		b = append(binary.AppendVarint(b, int64(len(r))), r...)
	}
	return b
}

func compressed(t *testing.T, codec kgo.CompressionCodec, b []byte) []byte {
	t.Helper()
	c, err := kgo.DefaultCompressor(codec)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := c.Compress(new(bytes.Buffer), b)
	return bytes.Clone(out)
}

// batch is one that claims to have so many records.
func batch(attributes uint16, claims int, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, attributes)
	b = binary.BigEndian.AppendUint32(b, uint32(claims-1))
	now := uint64(time.Now().UnixMilli())
	b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, now), now)
	b = append(b, bytes.Repeat([]byte{0xff}, 8+2+4)...) // no producer
	b = append(binary.BigEndian.AppendUint32(b, uint32(claims)), payload...)
	f := binary.BigEndian.AppendUint32(make([]byte, 8), uint32(len(b)+9))
	f = append(f, 0, 0, 0, 0, 2)
	f = binary.BigEndian.AppendUint32(f, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return append(f, b...)
}

func write(t *testing.T, cl *kgo.Client, topic string, b []byte) {
	t.Helper()
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	tp := kmsg.NewProduceRequestTopic()
	found, err := kadm.NewClient(cl).ListTopics(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	tp.Topic, tp.TopicID = topic, found[topic].ID
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = b
	tp.Partitions = append(tp.Partitions, p)
	req.Topics = append(req.Topics, tp)
	resp, err := req.RequestWith(t.Context(), cl.Broker(int(found[topic].Partitions[0].Leader)))
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// reading is a reader of the topic "in", which has one partition, on a broker of its own.
type reading struct {
	*Reader
	t      *testing.T
	broker *kfake.Cluster
	cfg    Config
	cl     *kgo.Client // writes
	at     int64
}

func newReading(t *testing.T, maxBatchBytes int) *reading {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "in"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	r := &reading{t: t, broker: c, cfg: Config{Brokers: c.ListenAddrs(), MaxBatchBytes: maxBatchBytes}}
	if r.cl, err = kgo.NewClient(r.cfg.Options(kgo.DefaultProduceTopic("in"))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.cl.Close)
	return r
}

func (r *reading) say(values ...string) {
	r.t.Helper()
	for _, v := range values {
		if err := r.cl.ProduceSync(r.t.Context(), kgo.StringRecord(v)).FirstErr(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// begin begins to read.
func (r *reading) begin() {
	r.t.Helper()
	var err error
	r.Reader, err = r.cfg.NewReader("in", slog.New(slog.DiscardHandler), func(int32) int64 { return r.at }, kgo.NewClient,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"in": {0: kgo.NewOffset().At(0)}}), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.Client().Close)
}

// poll returns the values that were fetched, and the gaps.
func (r *reading) poll(ctx context.Context, records int) (values []string, gaps []Gap) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	f, gaps, err := r.Poll(ctx, records)
	if err != nil {
		r.t.Fatal(err)
	}
	f.EachRecord(func(rec *kgo.Record) { r.at, values = rec.Offset+1, append(values, string(rec.Value)) })
	return values, gaps
}

func (r *reading) bounds() map[int32]Bounds {
	r.t.Helper()
	bounds, err := ListBounds(r.t.Context(), r.adm, "in")
	if err != nil {
		r.t.Fatal(err)
	}
	return bounds
}

// TestReaderLeavesOutWhatCannotBeRead: each of these batches stopped its partition for good.
func TestReaderLeavesOutWhatCannotBeRead(t *testing.T) {
	for name, bad := range map[string][]byte{
		"more bytes than the limit":        batch(zstdded, 1, compressed(t, kgo.ZstdCompression(), records(1, 3<<20))),
		"the same, by another codec":       batch(gzipped, 1, compressed(t, kgo.GzipCompression(), records(1, 3<<20))),
		"more records than the limit":      batch(zstdded, 40_000, compressed(t, kgo.ZstdCompression(), records(40_000, 0))),
		"no data of its codec":             batch(zstdded, 1, []byte("nothing that zstd has written")),
		"fewer records than it claims":     batch(0, 5, records(3, 1)),
		"none of the records":              batch(0, 5, []byte{0xff}),
		"records cut in the middle":        batch(gzipped, 2, compressed(t, kgo.GzipCompression(), records(2, 100)[:150])),
		"a length without end in a record": batch(0, 1, []byte{0xfe, 0xff, 0xff, 0xff, 0x0f, 0}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReading(t, 2<<20)
			write(t, r.cl, "in", bad) // the first thing that there is
			r.say("one")
			write(t, r.cl, "in", bad)
			write(t, r.cl, "in", bad)
			r.say("two")
			r.begin()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var got []string
			var left, progress = 0, Progress{}
			for ctx.Err() == nil && (len(got) == 0 || got[len(got)-1] != "two") {
				values, gaps := r.poll(ctx, 100)
				for _, v := range values {
					if v == "one" || v == "two" {
						got = append(got, v)
					}
				}
				if progress.Stands(time.Now(), map[int32]int64{0: r.at}, r.bounds())[0] > time.Second {
					if g, ok, err := r.Probe(ctx, 0); ok && err == nil {
						gaps = append(gaps, g)
					}
				}
				for _, g := range gaps {
					if g.Passed {
						left++
					} else if g.To > r.at {
						r.Skip(g)
						r.at = g.To
						left++
					}
				}
			}
			if fmt.Sprint(got) != "[one two]" || left != 3 {
				t.Errorf("%q, %d gaps", got, left)
			}
		})
	}
}

// TestReaderTellsWhatIsGone: records are deleted while a reader is in the middle of them, with more behind, or with nothing behind. Those that
// it has fetched before are not gone.
func TestReaderTellsWhatIsGone(t *testing.T) {
	for name, c := range map[string]struct {
		deleted int64 // the log begins here
		more    int   // records that come then
		fetched bool  // the client has them all
		lost    int64
	}{
		"more behind":     {deleted: 6, lost: 6},
		"nothing behind":  {deleted: 10, lost: 10},
		"more later":      {deleted: 10, more: 3, lost: 10},
		"fetched before":  {deleted: 10, more: 3, fetched: true},
		"nothing deleted": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReading(t, 0)
			remove := func() {
				if c.deleted > 0 {
					var o kadm.Offsets
					o.AddOffset("in", 0, c.deleted, -1)
					if resp, err := kadm.NewClient(r.cl).DeleteRecords(t.Context(), o); err != nil || resp.Error() != nil {
						t.Fatal(err, resp.Error())
					}
				}
			}
			r.say(slices.Repeat([]string{"x"}, 10)...)
			if !c.fetched {
				remove()
			}
			r.begin()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			n := 0
			var gaps []Gap
			poll := func(records int) {
				values, found := r.poll(ctx, records)
				n += len(values)
				for _, g := range found {
					gaps, r.at = append(gaps, g), max(r.at, g.To)
				}
			}
			if c.fetched {
				for n == 0 { // the client has the other nine
					poll(1)
				}
				remove()
			}
			r.say(slices.Repeat([]string{"x"}, c.more)...)
			for r.at < int64(10+c.more) {
				if ctx.Err() != nil {
					t.Fatalf("stands at %d, %+v", r.at, gaps)
				}
				if c.more == 0 {
					r.Begins(r.bounds())
				}
				poll(100)
			}
			var want []Gap
			if c.lost > 0 {
				want = []Gap{{Topic: "in", To: c.lost, Cause: errDeleted, Passed: true, Deleted: true}}
			}
			if int64(n) != int64(10+c.more)-c.lost || !slices.Equal(gaps, want) {
				t.Errorf("%d read, %+v", n, gaps)
			}
		})
	}
}

// TestReaderDoesNotGoBack: a broker that says that the position is not in its log makes the client read from the start again.
func TestReaderDoesNotGoBack(t *testing.T) {
	r := newReading(t, 0)
	r.say("x", "y")
	r.begin()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for r.at < 2 {
		r.poll(ctx, 100)
	}
	defer r.broker.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.OffsetOutOfRange, Count: 1}).Remove()
	for {
		f, _, err := r.Poll(ctx, 100)
		if errors.Is(err, ErrTopicChanged) {
			return
		}
		if err != nil || f.NumRecords() > 0 {
			t.Fatalf("%v, %d records once more", err, f.NumRecords())
		}
	}
}

// TestPacer: a fetch that has more than fits at once comes in parts, and what is a batch's own fault is said.
func TestPacer(t *testing.T) {
	const limit = 1 << 20
	p, err := newPacer(limit)
	if err != nil {
		t.Fatal(err)
	}
	full := compressed(t, kgo.ZstdCompression(), records(1, limit-100))
	for i := range fetchBatches + 1 {
		_, err := p.Decompress(full, kgo.CodecZstd)
		if last := i == fetchBatches; last != errors.Is(err, errPaced) || !last && err != nil {
			// Each is a little smaller than the limit, so that one more begins; it is the one after it that does not.
			if i < fetchBatches || err != nil && !errors.Is(err, errPaced) {
				t.Errorf("batch %d: %v", i, err)
			}
		}
	}
	if _, err := p.Decompress(full, kgo.CodecZstd); !errors.Is(err, errPaced) {
		t.Errorf("without end: %v", err)
	}
	p.polled()
	if _, err := p.Decompress(full, kgo.CodecZstd); err != nil {
		t.Error(err)
	}
	if _, err := p.Decompress(compressed(t, kgo.ZstdCompression(), records(1, limit+100)), kgo.CodecZstd); !errors.Is(err, kgo.ErrMaxDecompress) {
		t.Error(err)
	}
}

func TestProgress(t *testing.T) {
	var p Progress
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		after    time.Duration
		position int64
		b        Bounds
		want     time.Duration
	}{
		{0, 5, Bounds{Stable: 9}, 0},
		{time.Second, 5, Bounds{Stable: 9}, time.Second},
		{time.Second, 6, Bounds{Stable: 9}, 0},
		{time.Second, 6, Bounds{Stable: 6, End: 9}, 0}, // a transaction is open: nothing can be read
		{time.Second, 6, Bounds{Stable: 9, End: 9}, time.Second},
		{9 * time.Second, 6, Bounds{Stable: 9, End: 9}, 10 * time.Second},
	} {
		now = now.Add(c.after)
		if got := p.Stands(now, map[int32]int64{3: c.position}, map[int32]Bounds{3: c.b}); got[3] != c.want {
			t.Errorf("at %d of %+v: stands for %v, want %v", c.position, c.b, got[3], c.want)
		}
	}
	p.Stands(now, nil, nil) // it is not ours meanwhile
	if got := p.Stands(now.Add(time.Hour), map[int32]int64{3: 6}, map[int32]Bounds{3: {Stable: 9}}); got[3] != 0 {
		t.Errorf("it has stood for %v while it was another's", got[3])
	}
}

// TestWatch: topics that are not what a session began with end it.
func TestWatch(t *testing.T) {
	for name, c := range map[string]struct {
		change func(adm *kadm.Client, n Names) error
		want   error
	}{
		"deleted": {func(adm *kadm.Client, n Names) error { _, err := adm.DeleteTopic(t.Context(), n.Keyed); return err }, ErrTopicChanged},
		"more partitions": {func(adm *kadm.Client, n Names) error {
			_, err := adm.UpdatePartitions(t.Context(), 4, n.Activity)
			return err
		}, ErrTopicChanged},
		"deleted and anew": {func(adm *kadm.Client, n Names) error {
			if _, err := adm.DeleteTopic(t.Context(), n.Activity); err != nil {
				return err
			}
			_, err := adm.CreateTopic(t.Context(), 3, 1, nil, n.Activity)
			return err
		}, ErrTopicChanged},
		"compacted": {func(adm *kadm.Client, n Names) error {
			_, err := adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "cleanup.policy", Value: kadm.StringPtr("compact")}}, n.Keyed)
			return err
		}, ErrLayout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			adm, addr := broker(t)
			l := Layout{Names: NamesFor("clicks"), Partitions: 3}
			topics, err := l.Ensure(t.Context(), adm)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
			defer cancel()
			done := make(chan error, 1)
			cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			go func() { done <- l.Watch(ctx, cl, topics, slog.New(slog.DiscardHandler), func(string) {}) }()
			if err := c.change(adm, l.Names); err != nil {
				t.Fatal(err)
			}
			if err := <-done; !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// TestWatchHoldsOverTheSession: what is wrong with the broker when a session ends is wrong until the next one has had an answer.
func TestWatchHoldsOverTheSession(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	l := Layout{Names: NamesFor("clicks"), Partitions: 1}
	topics, err := l.Ensure(t.Context(), kadm.NewClient(cl))
	if err != nil {
		t.Fatal(err)
	}
	var away atomic.Bool
	c.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return nil, errors.New("away"), away.Load()
	})
	held := make(chan string, 16)
	watch := func() (end func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- l.Watch(ctx, cl, topics, slog.New(slog.DiscardHandler), func(reason string) { held <- reason })
		}()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	end := watch()
	if reason := <-held; reason != "" {
		t.Errorf("at the start: %q", reason)
	}
	away.Store(true)
	if reason := <-held; reason == "" {
		t.Error("taken back while the broker is away")
	}
	end()
	for len(held) > 0 {
		if reason := <-held; reason == "" {
			t.Error("taken back at the end")
		}
	}
	away.Store(false)
	end = watch()
	if reason := <-held; reason != "" {
		t.Errorf("in the next session: %q", reason)
	}
	end()
}
