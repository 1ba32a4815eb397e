package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"spate/shared/aws/awstest"
)

// patience is how long a test waits for what has to come. Nothing is concluded from how long it took.
const patience = 60 * time.Second

// getFaults stands between a reader and the real client. A hook that is nil does nothing; its error keeps the call from being made.
type getFaults struct {
	GetAPI
	limit  int32
	get    func(ctx context.Context, call int) error // call counts from 1
	open   func(in *kinesis.GetShardIteratorInput) error
	answer func(call int, out *kinesis.GetRecordsOutput)

	mu    sync.Mutex
	calls []time.Time // of GetRecords
	opens []kinesis.GetShardIteratorInput
}

func (f *getFaults) GetShardIterator(ctx context.Context, in *kinesis.GetShardIteratorInput, opts ...func(*kinesis.Options)) (*kinesis.GetShardIteratorOutput, error) {
	f.mu.Lock()
	f.opens = append(f.opens, *in)
	f.mu.Unlock()
	if f.open != nil {
		if err := f.open(in); err != nil {
			return nil, err
		}
	}
	return f.GetAPI.GetShardIterator(ctx, in, opts...)
}

func (f *getFaults) GetRecords(ctx context.Context, in *kinesis.GetRecordsInput, opts ...func(*kinesis.Options)) (*kinesis.GetRecordsOutput, error) {
	f.mu.Lock()
	f.calls = append(f.calls, time.Now())
	call := len(f.calls)
	f.mu.Unlock()
	if f.get != nil {
		if err := f.get(ctx, call); err != nil {
			return nil, err
		}
	}
	if f.limit > 0 {
		in.Limit = aws.Int32(f.limit)
	}
	out, err := f.GetAPI.GetRecords(ctx, in, opts...)
	if err == nil && f.answer != nil {
		f.answer(call, out)
	}
	return out, err
}

// getStream is a stream with one shard, and what a reader of it needs.
type getStream struct {
	t      *testing.T
	client *kinesis.Client
	name   string
	faults *getFaults
	log    *bytes.Buffer // not to be looked at before the reader has ended
	reader *Reader
	seqs   []string // of all records that were put
}

const onlyShard = "shardId-000000000000"

func newGetStream(t *testing.T) *getStream {
	t.Helper()
	s := &getStream{t: t, client: kinesis.NewFromConfig(awstest.Config(awstest.Kinesis(t))), name: fmt.Sprintf("r%d", time.Now().UnixNano()), log: &bytes.Buffer{}}
	if _, err := s.client.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: aws.String(s.name), ShardCount: aws.Int32(1)}); err != nil {
		t.Fatal(err)
	}
	s.active()
	s.faults = &getFaults{GetAPI: s.client}
	s.reader = &Reader{API: s.faults, Stream: s.name, Log: slog.New(slog.NewTextHandler(s.log, nil)), Interval: time.Millisecond}
	return s
}

func (s *getStream) active() {
	s.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		out, err := s.client.DescribeStreamSummary(s.t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: aws.String(s.name)})
		if err == nil && out.StreamDescriptionSummary.StreamStatus == types.StreamStatusActive {
			return
		}
	}
	s.t.Fatalf("stream %s does not become active", s.name)
}

// put writes n records, whose data are their numbers.
func (s *getStream) put(n int) {
	s.t.Helper()
	var entries []Entry
	for i := range n {
		entries = append(entries, Entry{Key: "k", Data: fmt.Append(nil, len(s.seqs)+i)})
	}
	places, err := (&Producer{API: s.client, Stream: s.name}).Put(s.t.Context(), entries)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range places {
		s.seqs = append(s.seqs, p.SequenceNumber)
	}
}

// got is what a reader has found.
type got struct {
	data   []string
	lost   int
	closed bool
}

var errEnough = errors.New("enough, for the test")

// read reads a shard to its end: to where there is nothing more, or it is closed.
func (s *getStream) read(shard string, from Position) (g got) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	err := s.reader.Read(ctx, shard, from, func(_ context.Context, f Fetch) error {
		if f.Shard != shard {
			s.t.Errorf("a fetch of %s", f.Shard)
		}
		for _, r := range f.Records {
			g.data = append(g.data, string(r.Data))
		}
		if f.Lost {
			g.lost++
		}
		if g.closed = f.Closed; f.AtEnd && !f.Closed {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		s.t.Fatal(err)
	}
	return g
}

// numbers are those of the records from one up to another.
func numbers(from, to int) (out []string) {
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

func (s *getStream) check(g got, want []string, lost int) {
	s.t.Helper()
	if !slices.Equal(g.data, want) {
		s.t.Errorf("read %v, want %v", g.data, want)
	}
	if g.lost != lost {
		s.t.Errorf("lost %d times, want %d", g.lost, lost)
	}
}

func TestReadInPieces(t *testing.T) {
	t.Parallel()
	s := newGetStream(t)
	s.put(50)
	s.faults.limit = 7
	s.check(s.read(onlyShard, Position{}), numbers(0, 50), 0)
	for _, at := range []int{0, 6, 7, 30, 49} {
		s.check(s.read(onlyShard, Position{After: s.seqs[at]}), numbers(at+1, 50), 0)
		s.check(s.read(onlyShard, Position{After: s.seqs[at], Include: true}), numbers(at, 50), 0)
	}
}

// TestReadFromATime: what had arrived before is left out, also when the iterator has to be asked for again.
func TestReadFromATime(t *testing.T) {
	t.Parallel()
	s := newGetStream(t)
	s.put(5)
	arrived := func(n int) (ms int64) {
		t.Helper()
		err := (&Reader{API: s.client, Stream: s.name, Interval: time.Millisecond}).Read(t.Context(), onlyShard, Position{}, func(_ context.Context, f Fetch) error {
			for _, r := range f.Records {
				if string(r.Data) == fmt.Sprint(n) {
					ms = r.ApproximateArrivalTimestamp.UnixMilli()
				}
			}
			if f.AtEnd {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		return ms
	}
	last := arrived(4)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); { // until one arrives in a later millisecond
		s.put(1)
		if arrived(len(s.seqs)-1) > last {
			break
		}
	}
	first := len(s.seqs) - 1
	s.put(3)
	s.faults.limit = 2
	s.faults.get = func(_ context.Context, call int) error {
		if call == 1 || call == 3 {
			return &types.ExpiredIteratorException{}
		}
		return nil
	}
	s.check(s.read(onlyShard, Position{AtMS: arrived(first)}), numbers(first, len(s.seqs)), 0)
}

// TestReadPastFaults: whatever passes by itself is tried again, and every record comes once and in order.
func TestReadPastFaults(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err   error
		calls []int // that fail
	}{
		"expired iterator":    {&types.ExpiredIteratorException{}, []int{3, 5}},
		"invalid iterator":    {&types.InvalidArgumentException{}, []int{4}},
		"throttled":           {&types.ProvisionedThroughputExceededException{}, []int{2, 3, 4}},
		"throttled KMS":       {&types.KMSThrottlingException{}, []int{2}},
		"error of the server": {&smithy.GenericAPIError{Code: "InternalFailure", Fault: smithy.FaultServer}, []int{1, 2, 6}},
		"network":             {&smithy.OperationError{ServiceID: "Kinesis", OperationName: "GetRecords", Err: io.ErrUnexpectedEOF}, []int{2, 5}},
		"credentials expired": {&smithy.GenericAPIError{Code: "ExpiredTokenException"}, []int{3}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newGetStream(t)
			s.put(20)
			s.faults.limit = 5
			failed := 0
			s.faults.get = func(_ context.Context, call int) error {
				if slices.Contains(tt.calls, call) {
					failed++
					return tt.err
				}
				return nil
			}
			s.check(s.read(onlyShard, Position{After: s.seqs[1]}), numbers(2, 20), 0)
			if failed != len(tt.calls) {
				t.Errorf("%d calls failed, want %d", failed, len(tt.calls))
			}
		})
	}
}

// TestReadPastASilentConnection: a call that is never answered is made again.
func TestReadPastASilentConnection(t *testing.T) {
	t.Parallel()
	s := newGetStream(t)
	s.put(9)
	s.faults.limit = 5
	s.reader.Timeout = 500 * time.Millisecond
	s.faults.get = func(ctx context.Context, call int) error {
		if call == 2 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	s.check(s.read(onlyShard, Position{}), numbers(0, 9), 0)
}

// TestReadOfWhatIsDeleted: the record at which to go on is not there any more.
func TestReadOfWhatIsDeleted(t *testing.T) {
	t.Parallel()
	t.Run("it is not known", func(t *testing.T) {
		t.Parallel()
		s := newGetStream(t)
		s.put(6)
		s.faults.limit = 2
		s.faults.open = func(in *kinesis.GetShardIteratorInput) error {
			if aws.ToString(in.StartingSequenceNumber) == s.seqs[1] {
				return &types.InvalidArgumentException{}
			}
			return nil
		}
		s.faults.get = func(_ context.Context, call int) error {
			if call == 3 {
				return &types.ExpiredIteratorException{} // goes on where it was
			}
			return nil
		}
		// It is there all the same, as are those before it: they were read.
		s.check(s.read(onlyShard, Position{After: s.seqs[1]}), numbers(2, 6), 1)
	})
	t.Run("another one comes first", func(t *testing.T) {
		t.Parallel()
		s := newGetStream(t)
		s.put(6)
		s.faults.limit = 3
		s.faults.answer = func(call int, out *kinesis.GetRecordsOutput) {
			if call == 1 {
				out.Records = out.Records[2:]
			}
		}
		s.check(s.read(onlyShard, Position{After: s.seqs[1]}), numbers(3, 6), 1)
	})
	t.Run("nothing comes at first", func(t *testing.T) {
		t.Parallel()
		s := newGetStream(t)
		s.put(6)
		s.faults.limit = 3
		s.faults.answer = func(call int, out *kinesis.GetRecordsOutput) {
			if call == 1 {
				out.Records, out.MillisBehindLatest = nil, aws.Int64(1)
			}
		}
		s.check(s.read(onlyShard, Position{After: s.seqs[1]}), numbers(4, 6), 1)
	})
	t.Run("the shard is not kept any more", func(t *testing.T) {
		t.Parallel()
		s := newGetStream(t)
		g := s.read("shardId-000000000077", Position{After: "1"})
		if s.check(g, nil, 1); !g.closed {
			t.Error("it is not closed")
		}
	})
}

// TestReadEnds: what no further try can mend is an error.
func TestReadEnds(t *testing.T) {
	t.Parallel()
	s := newGetStream(t)
	s.put(1)
	nothing := func(context.Context, Fetch) error { return nil }
	for _, code := range []string{"AccessDeniedException", "ValidationException"} {
		s.faults.get = func(context.Context, int) error { return &smithy.GenericAPIError{Code: code} }
		err := s.reader.Read(t.Context(), onlyShard, Position{}, nothing)
		if err == nil || !strings.Contains(err.Error(), code) || !strings.Contains(err.Error(), s.name) || !strings.Contains(err.Error(), onlyShard) {
			t.Errorf("%s: %v", code, err)
		}
	}
	s.faults.get = nil
	if err := s.reader.Read(t.Context(), onlyShard, Position{}, func(context.Context, Fetch) error { return errEnough }); !errors.Is(err, errEnough) {
		t.Errorf("deliver failed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.reader.Read(ctx, onlyShard, Position{}, func(context.Context, Fetch) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	s.faults.get = func(context.Context, int) error { cancel(); return &types.ProvisionedThroughputExceededException{} }
	if err := s.reader.Read(ctx, onlyShard, Position{}, nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled while it waits: %v", err)
	}
	none := &Reader{API: s.client, Stream: "none", Log: s.reader.Log, Interval: time.Millisecond}
	if err := none.Read(t.Context(), onlyShard, Position{}, nothing); !errors.Is(err, ErrNotFound) {
		t.Errorf("no stream: %v", err)
	}
	if _, err := none.Shards(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("no stream: %v", err)
	}
}

// TestReadInterval: calls for a shard are no closer than the interval, also those that fail and those after an expired iterator.
func TestReadInterval(t *testing.T) {
	t.Parallel()
	s := newGetStream(t)
	s.put(30)
	s.reader.Interval = 30 * time.Millisecond
	s.faults.limit = 5
	s.faults.get = func(_ context.Context, call int) error {
		if call == 3 {
			return &types.ExpiredIteratorException{}
		}
		return nil
	}
	s.read(onlyShard, Position{})
	if len(s.faults.calls) < 7 {
		t.Fatalf("%d calls", len(s.faults.calls))
	}
	// An iterator is asked for in between, so one call may come a little early; no two of them.
	for i := 2; i < len(s.faults.calls); i++ {
		if d := s.faults.calls[i].Sub(s.faults.calls[i-2]); d < s.reader.Interval {
			t.Errorf("calls %d to %d were made within %v", i-1, i+1, d)
		}
	}
}

// TestReadSaysWhenItAsked: by its own clock, and before what it says was so.
func TestReadSaysWhenItAsked(t *testing.T) {
	t.Parallel()
	s := newGetStream(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s.reader.Now = func() time.Time { at = at.Add(time.Second); return at }
	n := 0
	var last time.Time
	err := s.reader.Read(t.Context(), onlyShard, Position{}, func(_ context.Context, f Fetch) error {
		if !f.Asked.After(last) || f.Asked.After(at) {
			t.Errorf("asked at %v, after %v", f.Asked, last)
		}
		if last = f.Asked; n == 3 {
			return errEnough
		}
		n++
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Error(err)
	}
}

// TestReadAcrossASplitAndAMerge: parents end, their children have the rest, and nothing is in two.
func TestReadAcrossASplitAndAMerge(t *testing.T) {
	t.Parallel()
	s := newGetStream(t)
	s.put(10)
	middle := "170141183460469231731687303715884105728"
	if _, err := s.client.SplitShard(t.Context(), &kinesis.SplitShardInput{StreamName: aws.String(s.name), ShardToSplit: aws.String(onlyShard), NewStartingHashKey: aws.String(middle)}); err != nil {
		t.Fatal(err)
	}
	s.active()
	s.put(10)
	left, right := "shardId-000000000001", "shardId-000000000002"
	if _, err := s.client.MergeShards(t.Context(), &kinesis.MergeShardsInput{StreamName: aws.String(s.name), ShardToMerge: aws.String(left), AdjacentShardToMerge: aws.String(right)}); err != nil {
		t.Fatal(err)
	}
	s.active()
	s.put(10)
	s.faults.limit = 3
	shards, err := s.reader.Shards(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(shards, func(a, b Shard) int { return strings.Compare(a.ID, b.ID) })
	want := []Shard{{ID: onlyShard}, {left, []string{onlyShard}}, {right, []string{onlyShard}}, {"shardId-000000000003", []string{left, right}}}
	if fmt.Sprint(shards) != fmt.Sprint(want) {
		t.Errorf("shards %v, want %v", shards, want)
	}
	var all []string
	for _, sh := range shards {
		g := s.read(sh.ID, Position{})
		if g.closed != (sh.ID != want[3].ID) || g.lost > 0 {
			t.Errorf("%s: %+v", sh.ID, g)
		}
		all = append(all, g.data...)
	}
	if !slices.Equal(all, numbers(0, 30)) { // one key: its records are in order across shards
		t.Errorf("read %v", all)
	}
	// A closed shard that was read to its last record has nothing more but its end.
	if g := s.read(onlyShard, Position{After: s.seqs[9]}); len(g.data) > 0 || !g.closed || g.lost > 0 {
		t.Errorf("behind the last record: %+v", g)
	}
}

func TestKept(t *testing.T) {
	listed := []Shard{{"2", []string{"0", "1"}}, {"3", []string{"2"}}, {"1", nil}}
	want := []Shard{{"2", []string{"1"}}, {"3", []string{"2"}}, {"1", nil}}
	if got := Kept(listed); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	if len(listed[0].Parents) != 2 {
		t.Error("the list was changed")
	}
	for _, tt := range []struct {
		ended string
		gone  bool
		want  string
	}{{"2", false, "3"}, {"0", true, "2"}, {"3", false, ""}, {"9", false, ""}, {"9", true, "1"}} {
		var ids []string
		for _, s := range Successors(listed, tt.ended, tt.gone) {
			ids = append(ids, s.ID)
		}
		if got := strings.Join(ids, " "); got != tt.want {
			t.Errorf("successors of %s, gone %t: %q, want %q", tt.ended, tt.gone, got, tt.want)
		}
	}
}

// TestListInPages: all pages are asked for.
func TestListInPages(t *testing.T) {
	t.Parallel()
	s := newGetStream(t)
	name := s.name + "x"
	if _, err := s.client.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: aws.String(name), ShardCount: aws.Int32(7)}); err != nil {
		t.Fatal(err)
	}
	s.name = name
	s.active()
	pages := &listPages{GetAPI: s.client}
	got, err := (&Reader{API: pages, Stream: name}).Shards(t.Context())
	if err != nil || len(got) != 7 || pages.n != 3 {
		t.Errorf("%d shards in %d pages: %v", len(got), pages.n, err)
	}
}

// listPages hands shards out by threes, as no emulator does.
type listPages struct {
	GetAPI
	n    int
	rest []types.Shard
}

func (p *listPages) ListShards(ctx context.Context, in *kinesis.ListShardsInput, opts ...func(*kinesis.Options)) (*kinesis.ListShardsOutput, error) {
	p.n++
	if in.NextToken == nil {
		out, err := p.GetAPI.ListShards(ctx, in, opts...)
		if err != nil {
			return nil, err
		}
		p.rest = out.Shards
	} else if in.StreamName != nil || *in.NextToken != fmt.Sprint(len(p.rest)) {
		return nil, &types.InvalidArgumentException{} // one or the other
	}
	n := min(3, len(p.rest))
	out := &kinesis.ListShardsOutput{Shards: p.rest[:n]}
	if p.rest = p.rest[n:]; len(p.rest) > 0 {
		out.NextToken = aws.String(fmt.Sprint(len(p.rest)))
	}
	return out, nil
}
