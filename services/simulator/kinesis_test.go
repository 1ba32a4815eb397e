package simulator

import (
	"context"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/google/go-cmp/cmp"

	"spate/shared/activity"
	"spate/shared/aws/awstest"
	"spate/shared/aws/cloud"
	"spate/tests/harness"
)

// emulators points the SDK at the emulators.
func emulators(t *testing.T) {
	t.Helper()
	for _, e := range awstest.Env(t) {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
}

// newStream makes a stream.
func newStream(t *testing.T, name string, shards int32) *kinesis.Client {
	t.Helper()
	emulators(t)
	cfg, err := cloud.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client := kinesis.NewFromConfig(cfg)
	if _, err := client.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: &name, ShardCount: &shards}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := client.DeleteStream(context.Background(), &kinesis.DeleteStreamInput{StreamName: &name}); err != nil {
			t.Error(err)
		}
	})
	return client
}

// record is one of a stream.
type record struct {
	shard types.Shard
	key   string
	data  string
}

// records returns what is in a stream, shard after shard.
func records(t *testing.T, client *kinesis.Client, name string) []record {
	t.Helper()
	list, err := client.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: &name})
	if err != nil {
		t.Fatal(err)
	}
	var got []record
	for _, shard := range list.Shards {
		it, err := client.GetShardIterator(t.Context(), &kinesis.GetShardIteratorInput{
			StreamName: &name, ShardId: shard.ShardId, ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
		})
		if err != nil {
			t.Fatal(err)
		}
		for next := it.ShardIterator; ; {
			out, err := client.GetRecords(t.Context(), &kinesis.GetRecordsInput{ShardIterator: next})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range out.Records {
				got = append(got, record{shard, *r.PartitionKey, string(r.Data)})
			}
			if len(out.Records) == 0 {
				break
			}
			next = out.NextShardIterator
		}
	}
	return got
}

// holds reports whether the shard's range holds the MD5 of text, which is how Kinesis places keys.
func (r record) holds(text string) bool {
	sum := md5.Sum([]byte(text))
	hash := new(big.Int).SetBytes(sum[:])
	low, _ := new(big.Int).SetString(*r.shard.HashKeyRange.StartingHashKey, 10)
	high, _ := new(big.Int).SetString(*r.shard.HashKeyRange.EndingHashKey, 10)
	return hash.Cmp(low) >= 0 && hash.Cmp(high) <= 0
}

// toStream returns settings that send to a stream without a pace.
func toStream(name string) Config {
	cfg := Default()
	cfg.Speed, cfg.To, cfg.Stream = 0, ToKinesis, name
	return cfg
}

// splitID takes the id of an event apart, and returns the data without it.
func splitID(t *testing.T, data string) (run string, index int, rest string) {
	t.Helper()
	var e struct {
		ID string `json:"event_id"`
	}
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		t.Fatal(err)
	}
	run, number, _ := strings.Cut(e.ID, "-")
	index, err := strconv.Atoi(number)
	rest, last := strings.CutSuffix(data, fmt.Sprintf(`,"event_id":"%s-%d"}`, run, index))
	if err != nil || len(run) != 10 || !last {
		t.Fatalf("event_id %q in %s", e.ID, data)
	}
	return run, index, rest + "}"
}

func TestKinesis(t *testing.T) {
	for _, c := range []struct {
		key    string
		byUser bool
	}{{KeyCategory, false}, {KeyUser, false}, {KeyNone, false}, {KeyCategory, true}} {
		name := fmt.Sprintf("%s-%v", c.key, c.byUser)
		t.Run(name, func(t *testing.T) {
			client := newStream(t, name, 5)
			rows := generated(t, func(c *Config) { c.Events = 1700 })
			for i := range rows {
				if i%10 == 0 {
					rows[i].Event.CategoryID, rows[i].Event.UserID = "", ""
				}
			}
			cfg := toStream(name)
			cfg.Key, cfg.SpreadByUser, cfg.Source = c.key, c.byUser, &sliceSource{slices.Clone(rows)}
			told := make(map[string]string)
			next := make(map[int32]int64)
			cfg.OnSent = func(r Row, partition int32, offset int64) {
				if offset != next[partition] || partition > int32(len(next)) {
					t.Errorf("%s is said to be at %d/%d", r.Event.EventID, partition, offset)
				}
				next[partition]++
				told[r.Event.EventID] = string(r.Event.AppendJSON(nil))
			}
			if res := mustRun(t, cfg); res.Sent != 1700 || len(told) != 1700 {
				t.Fatalf("sent %d, %d told", res.Sent, len(told))
			}
			seen := make(map[int]bool)
			runs := make(map[string]bool)
			last, shard := -1, ""
			for _, r := range records(t, client, name) {
				run, i, rest := splitID(t, r.data)
				if *r.shard.ShardId != shard {
					last, shard = -1, *r.shard.ShardId
				}
				if i <= last {
					t.Fatalf("row %d comes after row %d", i, last)
				}
				last, seen[i], runs[run] = i, true, true
				e := &rows[i].Event
				want := map[string]string{KeyCategory: e.CategoryID, KeyUser: e.UserID}[c.key]
				if want == "" {
					want = strconv.Itoa(i)
				}
				place := want
				if c.byUser && e.UserID != "" {
					place = e.UserID
				}
				if rest != string(e.AppendJSON(nil)) || r.key != want || !r.holds(place) || told[run+"-"+strconv.Itoa(i)] != r.data {
					t.Fatalf("row %d: key %q in %s, %s", i, r.key, *r.shard.ShardId, r.data)
				}
			}
			if len(seen) != 1700 || len(runs) != 1 {
				t.Errorf("%d rows of %d runs", len(seen), len(runs))
			}
		})
	}
}

func TestKinesisPartitionKey(t *testing.T) {
	for _, c := range []struct{ key, category, user, want string }{
		{KeyCategory, "c", "u", "c"},
		{KeyUser, "c", "u", "u"},
		{KeyNone, "c", "u", "7"},
		{KeyCategory, "", "u", "7"},
		{KeyCategory, strings.Repeat("é", 300), "u", strings.Repeat("é", 256)},
		{KeyCategory, "a\xffb", "u", "a\ufffdb"},
	} {
		s := kinesisSink{key: c.key}
		if got := s.partitionKey(c.category, c.user, 7); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	if got := hashKey("541312140"); got != "52949563816795459951226489685831962895" {
		t.Errorf("hash key %s", got)
	}
}

func TestKinesisWithoutTheStream(t *testing.T) {
	emulators(t)
	cfg := toStream("missing")
	cfg.Events = 10
	_, err := Run(t.Context(), cfg)
	if !errors.Is(err, ErrNoStream) || !strings.Contains(err.Error(), "stream missing does not exist in us-east-1; create it with `spate aws setup`") {
		t.Errorf("error %v", err)
	}
}

func TestKinesisWithoutARegion(t *testing.T) {
	emulators(t)
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	cfg := toStream("any")
	cfg.Events = 10
	if _, err := Run(t.Context(), cfg); !errors.Is(err, cloud.ErrNoRegion) {
		t.Errorf("error %v", err)
	}
}

// describer answers with one status after the other.
type describer struct {
	answers []any // of type types.StreamStatus or error
	asked   int
}

func (d *describer) DescribeStreamSummary(context.Context, *kinesis.DescribeStreamSummaryInput, ...func(*kinesis.Options)) (*kinesis.DescribeStreamSummaryOutput, error) {
	answer := d.answers[min(d.asked, len(d.answers)-1)]
	d.asked++
	switch a := answer.(type) {
	case error:
		return nil, a
	case types.StreamStatus:
		return &kinesis.DescribeStreamSummaryOutput{StreamDescriptionSummary: &types.StreamDescriptionSummary{StreamStatus: a}}, nil
	}
	panic("neither")
}

func TestFindStream(t *testing.T) {
	denied, throttled := &types.AccessDeniedException{}, &types.LimitExceededException{}
	for _, c := range []struct {
		name    string
		answers []any
		asked   int
		is      error
	}{
		{"there", []any{types.StreamStatusActive}, 1, nil},
		{"being updated", []any{types.StreamStatusUpdating}, 1, nil},
		{"being made", []any{types.StreamStatusCreating, types.StreamStatusCreating, types.StreamStatusActive}, 3, nil},
		{"throttled", []any{throttled, io.ErrUnexpectedEOF, types.StreamStatusActive}, 3, nil},
		{"no answer", []any{context.DeadlineExceeded, types.StreamStatusActive}, 2, nil},
		{"missing", []any{&types.ResourceNotFoundException{}}, 1, ErrNoStream},
		{"being deleted", []any{types.StreamStatusCreating, types.StreamStatusDeleting}, 2, ErrNoStream},
		{"denied", []any{denied}, 1, denied},
	} {
		d := &describer{answers: c.answers}
		err := findStream(t.Context(), d, "s", "here", time.Microsecond, slog.New(slog.DiscardHandler))
		if !errors.Is(err, c.is) || d.asked != c.asked || err != nil && !strings.Contains(err.Error(), "stream s") {
			t.Errorf("%s: error %v, asked %d times", c.name, err, d.asked)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		d := &describer{answers: []any{io.ErrUnexpectedEOF}}
		err := findStream(t.Context(), d, "s", "here", time.Second, slog.New(slog.DiscardHandler))
		if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "waited 60 s for Kinesis in here, to look up stream s") || d.asked != 62 {
			t.Errorf("never an answer: error %v, asked %d times", err, d.asked)
		}
	})
	d := &describer{answers: []any{types.StreamStatusCreating}}
	if err := findStream(canceled(t), d, "s", "here", time.Hour, slog.New(slog.DiscardHandler)); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// putter is a stream of one shard, in memory.
type putter struct {
	answer func(ctx context.Context, call int) error // nil: takes everything

	mu    sync.Mutex
	calls []int // records in each
	ids   []string
}

func (p *putter) PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	p.mu.Lock()
	p.calls = append(p.calls, len(in.Records))
	call := len(p.calls)
	p.mu.Unlock()
	if p.answer != nil {
		if err := p.answer(ctx, call); err != nil {
			return nil, err
		}
	}
	out := &kinesis.PutRecordsOutput{}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range in.Records {
		p.ids = append(p.ids, string(r.Data))
		out.Records = append(out.Records, types.PutRecordsResultEntry{ShardId: aws.String("shard"), SequenceNumber: aws.String(strconv.Itoa(len(p.ids)))})
	}
	return out, nil
}

// sinkTo returns a started sink to api.
func sinkTo(ctx context.Context, api *putter, cfg Config) (*kinesisSink, *counters) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	count := new(counters)
	s := makeKinesisSink(api, "here", &cfg, count)
	s.start(ctx)
	return s, count
}

func sendRows(t *testing.T, s *kinesisSink, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		if err := s.send(&Row{Event: eventA}, int64(i)); err != nil {
			t.Fatalf("row %d: %v", i, err)
		}
	}
}

// TestKinesisBatches: a call is made when it is full, when the source pauses, and after 200 ms.
func TestKinesisBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &putter{}
		s, count := sinkTo(t.Context(), api, toStream("s"))
		begin := time.Now()
		check := func(what string, want ...int) {
			t.Helper()
			synctest.Wait()
			api.mu.Lock()
			defer api.mu.Unlock()
			if !slices.Equal(api.calls, want) {
				t.Fatalf("%s: calls of %v records, want %v", what, api.calls, want)
			}
		}
		sendRows(t, s, 0, 499)
		check("not full")
		sendRows(t, s, 499, 1)
		check("full", 500)
		sendRows(t, s, 500, 3)
		time.Sleep(199 * time.Millisecond)
		check("not yet", 500)
		time.Sleep(time.Millisecond)
		check("after 200 ms", 500, 3)
		sendRows(t, s, 503, 2)
		if err := s.idle(); err != nil {
			t.Fatal(err)
		}
		check("idle", 500, 3, 2)
		if err := s.idle(); err != nil { // nothing waits
			t.Fatal(err)
		}
		sendRows(t, s, 505, 1)
		check("after an idle about nothing", 500, 3, 2)
		if err := s.close(t.Context()); err != nil {
			t.Fatal(err)
		}
		check("closed", 500, 3, 2, 1)
		if d := time.Since(begin); d != 200*time.Millisecond {
			t.Errorf("took %v", d)
		}
		if n := count.sent.Load(); n != 506 {
			t.Errorf("sent %d", n)
		}
		for i, data := range api.ids {
			if _, row, _ := splitID(t, data); row != i {
				t.Fatalf("row %d at %d", row, i)
			}
		}
	})
}

// TestKinesisBounded: a stream that takes nothing holds up the source, and an interrupted run waits 10 s for it, no longer.
func TestKinesisBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		api := &putter{answer: func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return &aws.RequestCanceledError{Err: ctx.Err()}
		}}
		cfg := toStream("s")
		var log strings.Builder
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		s, count := sinkTo(ctx, api, cfg)
		accepted, done := 0, make(chan error)
		go func() {
			for {
				if err := s.send(&Row{Event: eventA}, int64(accepted)); err != nil {
					done <- err
					return
				}
				accepted++
			}
		}()
		synctest.Wait()
		if want := maxWaitingRows + 500; accepted != want { // those of the call that is under way
			t.Errorf("accepted %d rows, want %d", accepted, want)
		}
		begin := time.Now()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("send: %v", err)
		}
		if err := s.close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		if d := time.Since(begin); d != flushTimeout {
			t.Errorf("waited %v", d)
		}
		if count.sent.Load() != 0 || !strings.Contains(log.String(), "records were not acknowledged in time") {
			t.Errorf("sent %d, log %s", count.sent.Load(), log.String())
		}
	})
}

// TestKinesisLargeRows: what waits is bounded by its size, too, and a call by 5 MiB.
func TestKinesisLargeRows(t *testing.T) {
	api := &putter{}
	s, count := sinkTo(t.Context(), api, toStream("s"))
	row := Row{Event: activity.Event{Brand: strings.Repeat("x", 1<<20-1000)}}
	for i := range 100 {
		if err := s.send(&row, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(t.Context()); err != nil || count.sent.Load() != 100 {
		t.Errorf("sent %d, error %v", count.sent.Load(), err)
	}
	for _, n := range api.calls {
		if n > 5 {
			t.Errorf("a call of %d MiB", n)
		}
	}
	s, _ = sinkTo(t.Context(), api, toStream("s"))
	row.Event.Brand += row.Event.Brand
	if err := s.send(&row, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.close(t.Context()); err == nil || !strings.Contains(err.Error(), "send to Kinesis: put records: entry 0: not a valid Kinesis record: it is 209") {
		t.Errorf("error %v", err)
	}
}

// TestKinesisRefusal: what no further try can mend ends the run with the reason.
func TestKinesisRefusal(t *testing.T) {
	for _, c := range []struct {
		err  error
		is   error
		says string
	}{
		{&types.KMSDisabledException{Message: aws.String("the key is off")}, nil, "send to Kinesis: put records: stream s: KMSDisabledException: the key is off"},
		{&types.ResourceNotFoundException{}, ErrNoStream, "stream s does not exist in here"},
	} {
		api := &putter{answer: func(_ context.Context, call int) error {
			if call == 2 {
				return c.err
			}
			return nil
		}}
		s, count := sinkTo(t.Context(), api, toStream("s"))
		var err error
		for i := 0; err == nil; i++ {
			err = s.send(&Row{Event: eventA}, int64(i))
		}
		closed := s.close(t.Context())
		if !errors.Is(closed, err) || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || count.sent.Load() == 0 || s.idle() == nil {
			t.Errorf("sent %d, send: %v, close: %v", count.sent.Load(), err, closed)
		}
	}
}

// TestKinesisInterrupted: what was accepted is written.
func TestKinesisInterrupted(t *testing.T) {
	client := newStream(t, "interrupted", 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := toStream("interrupted")
	cfg.Rate = 5000 // endless
	told := 0
	cfg.OnSent = func(Row, int32, int64) {
		if told++; told == 500 {
			cancel()
		}
	}
	res, err := Run(ctx, cfg)
	if err != nil || !res.Interrupted || res.Sent < 500 || res.Sent != int64(told) {
		t.Fatalf("sent %d, told %d, interrupted %v, error %v", res.Sent, told, res.Interrupted, err)
	}
	if n := len(records(t, client, "interrupted")); n != int(res.Sent) {
		t.Errorf("%d records in the stream, %d sent", n, res.Sent)
	}
}

// eventsOf returns the events of a stream, without their ids, in the order of the rows.
func eventsOf(t *testing.T, client *kinesis.Client, name string) []string {
	t.Helper()
	rows := make(map[int]string)
	got := records(t, client, name)
	for _, r := range got {
		_, i, rest := splitID(t, r.data)
		rows[i] = rest
	}
	if len(rows) != len(got) {
		t.Errorf("%d records of %d rows", len(got), len(rows))
	}
	out := make([]string, len(rows))
	for i := range out {
		out[i] = rows[i]
	}
	return out
}

// TestKinesisFromFiles: every kind of file comes through in full, from the disk and from S3.
func TestKinesisFromFiles(t *testing.T) {
	emulators(t)
	rows := generated(t, func(c *Config) { c.Events = 4321 })
	text := []byte(activity.CSVHeader + "\n")
	var want []string
	for i := range rows {
		text = rows[i].Event.AppendCSV(text)
		want = append(want, string(rows[i].Event.AppendJSON(nil)))
	}
	files := writeKinds(t, text)
	for name, path := range files {
		for _, url := range []string{path, upload(t, "from-files-"+name, path)} {
			stream := name + "-disk"
			if url != path {
				stream = name + "-s3"
			}
			t.Run(stream, func(t *testing.T) {
				client := newStream(t, stream, 3)
				cfg := toStream(stream)
				cfg.File = url
				if res := mustRun(t, cfg); res.Sent != int64(len(want)) || res.Skipped+res.Cut != 0 {
					t.Errorf("sent %d, skipped %d, cut %d", res.Sent, res.Skipped, res.Cut)
				}
				if d := cmp.Diff(want, eventsOf(t, client, stream)); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

// TestKinesisRealFile: the head of a month of the data set, out of S3.
func TestKinesisRealFile(t *testing.T) {
	path := harness.SharedFile(t, "data/rees46-2019-oct-head.csv")
	client := newStream(t, "real", 2)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, res := output(t, func(c *Config) { c.File = path })
	if res.Sent < 20 {
		t.Fatalf("%d rows in %d bytes", res.Sent, len(text))
	}
	cfg := toStream("real")
	cfg.File = upload(t, "real-file", path)
	if got := mustRun(t, cfg); got.Sent != res.Sent {
		t.Errorf("sent %d, locally %d", got.Sent, res.Sent)
	}
	if d := cmp.Diff(strings.Split(strings.TrimSuffix(want, "\n"), "\n"), eventsOf(t, client, "real")); d != "" {
		t.Error(d)
	}
}
