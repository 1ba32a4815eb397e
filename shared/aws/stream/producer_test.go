package stream

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
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

// putTaken is a record that a stream took.
type putTaken struct {
	key, data string
	place     Place
}

// putMemory is a stream with a shard for each first letter of the partition key. It takes everything.
type putMemory struct {
	shards map[string][]putTaken
}

func (m *putMemory) PutRecords(_ context.Context, in *kinesis.PutRecordsInput, _ ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	out := &kinesis.PutRecordsOutput{}
	if m.shards == nil {
		m.shards = make(map[string][]putTaken)
	}
	for _, r := range in.Records {
		shard := (*r.PartitionKey)[:1]
		p := Place{shard, fmt.Sprint(len(m.shards[shard]))}
		m.shards[shard] = append(m.shards[shard], putTaken{*r.PartitionKey, string(r.Data), p})
		out.Records = append(out.Records, types.PutRecordsResultEntry{ShardId: &p.ShardID, SequenceNumber: &p.SequenceNumber})
	}
	return out, nil
}

// putFaults does to a stream what emulators never do: it refuses some records of a call, throttles calls, and loses answers.
type putFaults struct {
	next    PutAPI
	rnd     *rand.Rand
	calls   [][]string     // the data of every call
	refused map[string]int // by data
}

func (f *putFaults) PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, opts ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	var call []string
	for _, r := range in.Records {
		call = append(call, string(r.Data))
	}
	f.calls = append(f.calls, call)
	switch f.rnd.IntN(8) {
	case 0:
		return nil, &types.ProvisionedThroughputExceededException{}
	case 1:
		return nil, &smithy.GenericAPIError{Code: "InternalFailure", Fault: smithy.FaultServer}
	case 2: // written, but nobody hears of it
		if _, err := f.next.PutRecords(ctx, in, opts...); err != nil {
			return nil, err
		}
		return nil, &smithy.OperationError{ServiceID: "Kinesis", OperationName: "PutRecords", Err: io.ErrUnexpectedEOF}
	case 3, 4:
		return f.next.PutRecords(ctx, in, opts...)
	}
	part := *in
	part.Records = nil
	out := &kinesis.PutRecordsOutput{Records: make([]types.PutRecordsResultEntry, len(in.Records))}
	var index []int
	for i, r := range in.Records {
		if f.rnd.IntN(3) == 0 {
			code := []string{"ProvisionedThroughputExceededException", "InternalFailure"}[f.rnd.IntN(2)]
			out.Records[i] = types.PutRecordsResultEntry{ErrorCode: &code, ErrorMessage: aws.String("refused for the test")}
			f.refused[string(r.Data)]++
			continue
		}
		index, part.Records = append(index, i), append(part.Records, r)
	}
	if len(index) == 0 {
		return out, nil
	}
	got, err := f.next.PutRecords(ctx, &part, opts...)
	if err != nil {
		return nil, err
	}
	for i, r := range got.Records {
		out.Records[index[i]] = r
	}
	return out, nil
}

// entriesOf returns n entries of a few keys, each with its number as data.
func entriesOf(rnd *rand.Rand, n int) []Entry {
	entries := make([]Entry, n)
	for i := range entries {
		entries[i] = Entry{Key: fmt.Sprintf("%c%d", 'a'+rune(rnd.IntN(4)), rnd.IntN(9)), Data: fmt.Appendf(nil, "%d", i)}
	}
	return entries
}

// checkPut holds what the shards of a stream have against what was written to it: every entry is there, at the place that was told, and
// the first appearances are in order; but for entries that were refused, which come after their neighbours of the same call.
func checkPut(t *testing.T, entries []Entry, places []Place, shards map[string][]putTaken, refused map[string]int) {
	t.Helper()
	number := make(map[string]int)
	for i, e := range entries {
		number[string(e.Data)] = i
	}
	callOf, at := make([]int, len(entries)), 0
	for c := 0; at < len(entries); c++ {
		for end := callEnd(entries, at); at < end; at++ {
			callOf[at] = c
		}
	}
	seen := make(map[int]bool)
	atPlace := make(map[Place]string)
	for _, records := range shards {
		last, lastCall := -1, -1 // of those that were never refused; of all
		for _, r := range records {
			atPlace[r.place] = r.data
			i, ok := number[r.data]
			if !ok || entries[i].Key != r.key {
				t.Fatalf("a record nobody wrote: %+v", r)
			}
			if seen[i] {
				continue
			}
			seen[i] = true
			if callOf[i] < lastCall {
				t.Fatalf("entry %d of call %d comes after one of call %d", i, callOf[i], lastCall)
			}
			lastCall = callOf[i]
			if refused[r.data] == 0 {
				if i < last {
					t.Fatalf("entry %d comes after %d", i, last)
				}
				last = i
			}
		}
	}
	if len(seen) != len(entries) {
		t.Fatalf("%d of %d entries are there", len(seen), len(entries))
	}
	for i, p := range places {
		if atPlace[p] != string(entries[i].Data) {
			t.Fatalf("entry %d is said to be at %+v, where %q is", i, p, atPlace[p])
		}
	}
}

func TestPutWithFaults(t *testing.T) {
	base := rand.Uint64()
	for run := range 300 {
		seed := base + uint64(run)
		rnd := rand.New(rand.NewPCG(seed, 0))
		mem := &putMemory{}
		f := &putFaults{next: mem, rnd: rnd, refused: make(map[string]int)}
		entries := entriesOf(rnd, rnd.IntN(1300))
		asked := 0
		p := Producer{API: f, Stream: "s", minBackoff: time.Nanosecond, maxBackoff: time.Microsecond, Before: func() error { asked++; return nil }}
		places, err := p.Put(t.Context(), entries)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		checkPut(t, entries, places, mem.shards, f.refused)
		if asked != len(f.calls) {
			t.Errorf("asked %d times before %d calls", asked, len(f.calls))
		}
		// What is written again keeps its order, and nothing overtakes it.
		number := make(map[string]int)
		for i, e := range entries {
			number[string(e.Data)] = i
		}
		for _, call := range f.calls {
			if !slices.IsSortedFunc(call, func(a, b string) int { return number[a] - number[b] }) || len(call) > MaxRecords {
				t.Fatalf("seed %d: call %v", seed, call)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// putStream makes a stream in kinesalite and returns a client.
func putStream(t *testing.T, name string, shards int32) *kinesis.Client {
	t.Helper()
	client := kinesis.NewFromConfig(awstest.Config(awstest.Kinesis(t)))
	if _, err := client.CreateStream(t.Context(), &kinesis.CreateStreamInput{StreamName: &name, ShardCount: &shards}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := client.DeleteStream(context.Background(), &kinesis.DeleteStreamInput{StreamName: &name}); err != nil {
			t.Error(err)
		}
	})
	deadline := time.Now().Add(20 * time.Second)
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		out, err := client.DescribeStreamSummary(t.Context(), &kinesis.DescribeStreamSummaryInput{StreamName: &name})
		if err == nil && out.StreamDescriptionSummary.StreamStatus == types.StreamStatusActive {
			return client
		}
		if time.Now().After(deadline) {
			t.Fatalf("stream %s does not become active: %v", name, err)
		}
	}
}

// readPut returns all records of a stream, by shard, and the ranges of its shards.
func readPut(t *testing.T, client *kinesis.Client, name string) (map[string][]putTaken, []types.Shard) {
	t.Helper()
	list, err := client.ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: &name})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string][]putTaken)
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
				p := Place{*shard.ShardId, *r.SequenceNumber}
				got[*shard.ShardId] = append(got[*shard.ShardId], putTaken{*r.PartitionKey, string(r.Data), p})
			}
			if len(out.Records) == 0 {
				break
			}
			next = out.NextShardIterator
		}
	}
	return got, list.Shards
}

func TestPutToKinesis(t *testing.T) {
	client := putStream(t, "put", 4)
	rnd := rand.New(rand.NewPCG(1, 2))
	entries := entriesOf(rnd, 1203)
	p := Producer{API: client, Stream: "put"}
	places, err := p.Put(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := readPut(t, client, "put")
	checkPut(t, entries, places, got, nil)
	if n := len(slices.Concat(got["shardId-000000000000"], got["shardId-000000000001"], got["shardId-000000000002"], got["shardId-000000000003"])); n != 1203 || len(got) != 4 {
		t.Errorf("%d records in %d shards", n, len(got))
	}
}

func TestPutToKinesisWithFaults(t *testing.T) {
	client := putStream(t, "faults", 3)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	entries := entriesOf(rnd, 2000)
	f := &putFaults{next: client, rnd: rnd, refused: make(map[string]int)}
	p := Producer{API: f, Stream: "faults", minBackoff: time.Millisecond, maxBackoff: 10 * time.Millisecond}
	places, err := p.Put(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := readPut(t, client, "faults")
	checkPut(t, entries, places, got, f.refused)
}

func TestPutByHashKey(t *testing.T) {
	client := putStream(t, "hash", 5)
	var entries []Entry
	for i := range 200 {
		sum := md5.Sum(fmt.Appendf(nil, "user %d", i))
		entries = append(entries, Entry{Key: "the same", HashKey: new(big.Int).SetBytes(sum[:]).String(), Data: fmt.Appendf(nil, "%d", i)})
	}
	p := Producer{API: client, Stream: "hash"}
	places, err := p.Put(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	got, shards := readPut(t, client, "hash")
	checkPut(t, entries, places, got, nil)
	for i, e := range entries {
		hash, _ := new(big.Int).SetString(e.HashKey, 10)
		for _, s := range shards {
			low, _ := new(big.Int).SetString(*s.HashKeyRange.StartingHashKey, 10)
			high, _ := new(big.Int).SetString(*s.HashKeyRange.EndingHashKey, 10)
			if inside := hash.Cmp(low) >= 0 && hash.Cmp(high) <= 0; inside != (places[i].ShardID == *s.ShardId) {
				t.Errorf("entry %d, hash %s, is in %s", i, e.HashKey, places[i].ShardID)
			}
		}
	}
}

// TestPutLargeEntries: as many as a call takes, by their size.
func TestPutLargeEntries(t *testing.T) {
	client := putStream(t, "large", 1)
	var entries []Entry
	for i := range 12 {
		entries = append(entries, Entry{Key: "k", Data: bytes.Repeat([]byte{byte('a' + i)}, MaxEntryBytes-1)})
	}
	f := &putRecorder{next: client}
	p := Producer{API: f, Stream: "large"}
	places, err := p.Put(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(f.sizes, []int{5, 5, 2}) {
		t.Errorf("calls of %v records", f.sizes)
	}
	got, _ := readPut(t, client, "large")
	checkPut(t, entries, places, got, nil)
}

// putRecorder counts the records of calls, and may answer them itself.
type putRecorder struct {
	next   PutAPI
	answer func(ctx context.Context, call int, in *kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error)
	sizes  []int
}

func (r *putRecorder) PutRecords(ctx context.Context, in *kinesis.PutRecordsInput, opts ...func(*kinesis.Options)) (*kinesis.PutRecordsOutput, error) {
	r.sizes = append(r.sizes, len(in.Records))
	if r.answer != nil {
		if out, err := r.answer(ctx, len(r.sizes), in); out != nil || err != nil {
			return out, err
		}
	}
	return r.next.PutRecords(ctx, in, opts...)
}

func TestPutNothing(t *testing.T) {
	r := &putRecorder{}
	if places, err := (&Producer{API: r, Stream: "s"}).Put(t.Context(), nil); err != nil || len(places) != 0 || len(r.sizes) != 0 {
		t.Errorf("places %v, error %v, calls %v", places, err, r.sizes)
	}
}

func TestPutRefusesEntries(t *testing.T) {
	good := Entry{Key: "k", Data: []byte("x")}
	for _, c := range []struct {
		name  string
		entry Entry
		says  string
	}{
		{"too large", Entry{Key: "k", Data: make([]byte, MaxEntryBytes)}, "entry 2: not a valid Kinesis record: it is 1048577 bytes long"},
		{"no key", Entry{Data: []byte("x")}, "entry 2: not a valid Kinesis record: its key has 0 characters; a key must have 1 to 256"},
		{"long key", Entry{Key: strings.Repeat("é", 257)}, "entry 2: not a valid Kinesis record: its key has 257 characters"},
		{"odd key", Entry{Key: "\xff"}, "entry 2: not a valid Kinesis record: its key is not UTF-8"},
	} {
		r := &putRecorder{next: &putMemory{}}
		_, err := (&Producer{API: r, Stream: "s"}).Put(t.Context(), []Entry{good, good, c.entry})
		if !errors.Is(err, ErrEntry) || !strings.Contains(err.Error(), c.says) || len(r.sizes) != 0 {
			t.Errorf("%s: error %v, calls %v", c.name, err, r.sizes)
		}
	}
	if _, err := (&Producer{API: &putMemory{}, Stream: "s"}).Put(t.Context(), []Entry{{Key: strings.Repeat("é", 256), Data: make([]byte, MaxEntryBytes-512)}}); err != nil {
		t.Error(err)
	}
}

// TestPutFinalErrors: what no further try can mend comes back at once, and what was written before it is told.
func TestPutFinalErrors(t *testing.T) {
	api := func(code string) error {
		return &smithy.OperationError{ServiceID: "Kinesis", OperationName: "PutRecords", Err: &smithy.GenericAPIError{Code: code, Fault: smithy.FaultClient}}
	}
	for _, c := range []struct {
		name string
		err  error
	}{
		{"missing", &types.ResourceNotFoundException{Message: aws.String("Stream s not found")}},
		{"denied", &types.AccessDeniedException{}},
		{"argument", &types.InvalidArgumentException{}},
		{"validation", &types.ValidationException{}},
		{"key", &types.KMSDisabledException{}},
		{"credentials", api("UnrecognizedClientException")},
		{"other", errors.New("something else")},
	} {
		r := &putRecorder{next: &putMemory{}, answer: func(_ context.Context, call int, _ *kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error) {
			if call == 2 {
				return nil, c.err
			}
			return nil, nil
		}}
		places, err := (&Producer{API: r, Stream: "s"}).Put(t.Context(), entriesOf(rand.New(rand.NewPCG(1, 1)), 1200))
		if !errors.Is(err, c.err) || !slices.Equal(r.sizes, []int{500, 500}) || !strings.HasPrefix(err.Error(), "put records: stream s: ") {
			t.Errorf("%s: error %v, calls %v", c.name, err, r.sizes)
		}
		if len(places) != 1200 || places[499] == (Place{}) || places[500] != (Place{}) {
			t.Errorf("%s: the places are not those of the first 500", c.name)
		}
	}
	r := &putRecorder{answer: func(context.Context, int, *kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error) {
		return &kinesis.PutRecordsOutput{Records: []types.PutRecordsResultEntry{
			{ErrorCode: aws.String("InternalFailure")},
			{ErrorCode: aws.String("NeverHeardOf"), ErrorMessage: aws.String("no")},
			{ShardId: aws.String("shard"), SequenceNumber: aws.String("1")},
		}}, nil
	}}
	places, err := (&Producer{API: r, Stream: "s"}).Put(t.Context(), entriesOf(rand.New(rand.NewPCG(1, 1)), 3))
	if err == nil || err.Error() != "put records: stream s: NeverHeardOf: no" || len(r.sizes) != 1 || places[2].ShardID != "shard" {
		t.Errorf("a record's own error: %v, calls %v, places %v", err, r.sizes, places)
	}
	r = &putRecorder{answer: func(context.Context, int, *kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error) {
		return &kinesis.PutRecordsOutput{}, nil
	}}
	if _, err := (&Producer{API: r, Stream: "s"}).Put(t.Context(), entriesOf(rand.New(rand.NewPCG(1, 1)), 3)); err == nil || len(r.sizes) != 1 {
		t.Errorf("an answer about nothing: %v, calls %v", err, r.sizes)
	}
}

// TestPutBefore: whoever lost the right to write is stopped before the next call, also before one that repeats another.
func TestPutBefore(t *testing.T) {
	lost := errors.New("lease lost")
	for _, allowed := range []int{0, 1, 2} {
		asked := 0
		r := &putRecorder{next: &putMemory{}, answer: func(_ context.Context, call int, _ *kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error) {
			if call == 1 {
				return nil, &types.ProvisionedThroughputExceededException{}
			}
			return nil, nil
		}}
		p := Producer{API: r, Stream: "s", minBackoff: time.Nanosecond, Before: func() error {
			if asked++; asked > allowed {
				return lost
			}
			return nil
		}}
		_, err := p.Put(t.Context(), entriesOf(rand.New(rand.NewPCG(1, 1)), 1200))
		if !errors.Is(err, lost) || len(r.sizes) != allowed {
			t.Errorf("allowed %d: error %v, calls %v", allowed, err, r.sizes)
		}
	}
}

func TestPutEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := &putRecorder{answer: func(_ context.Context, call int, _ *kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error) {
		if call == 5 {
			cancel()
		}
		return nil, &types.ProvisionedThroughputExceededException{}
	}}
	p := Producer{API: r, Stream: "s", minBackoff: time.Nanosecond, maxBackoff: time.Microsecond}
	if _, err := p.Put(ctx, entriesOf(rand.New(rand.NewPCG(1, 1)), 3)); !errors.Is(err, context.Canceled) || len(r.sizes) != 5 {
		t.Errorf("error %v, calls %v", err, r.sizes)
	}
}

// TestPutTimeout: a call that is never answered is made again.
func TestPutTimeout(t *testing.T) {
	r := &putRecorder{next: &putMemory{}, answer: func(ctx context.Context, call int, _ *kinesis.PutRecordsInput) (*kinesis.PutRecordsOutput, error) {
		if call == 1 {
			<-ctx.Done()
			return nil, &aws.RequestCanceledError{Err: ctx.Err()} // as the SDK says it
		}
		return nil, nil
	}}
	p := Producer{API: r, Stream: "s", Timeout: 10 * time.Millisecond, minBackoff: time.Nanosecond}
	if _, err := p.Put(t.Context(), entriesOf(rand.New(rand.NewPCG(1, 1)), 3)); err != nil || len(r.sizes) != 2 {
		t.Errorf("error %v, calls %v", err, r.sizes)
	}
}

// TestPutOverHTTP: the faults as a real client reports them; and the SDK makes no call that Before was not asked about.
func TestPutOverHTTP(t *testing.T) {
	const answer = `{"FailedRecordCount":0,"Records":[{"SequenceNumber":"7","ShardId":"shardId-0"}]}`
	fail := func(status int, code string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			w.Header().Set("X-Amzn-Errortype", code)
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"__type":%q,"message":"for the test"}`, code)
		}
	}
	cut := func(after int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, buf, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			if after > 0 {
				fmt.Fprintf(buf, "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer[:after])
				buf.Flush()
			}
			conn.Close()
		}
	}
	for _, c := range []struct {
		name  string
		fault http.HandlerFunc
		final bool
	}{
		{"internal failure", fail(500, "InternalFailure"), false},
		{"unavailable", fail(503, "ServiceUnavailable"), false},
		{"bad gateway", fail(502, ""), false},
		{"throttled", fail(400, "ProvisionedThroughputExceededException"), false},
		{"throttled by the front", fail(400, "ThrottlingException"), false},
		{"throttled by KMS", fail(400, "KMSThrottlingException"), false},
		{"connection cut", cut(0), false},
		{"answer cut", cut(20), false},
		{"missing", fail(400, "ResourceNotFoundException"), true},
		{"denied", fail(400, "AccessDeniedException"), true},
		{"signature", fail(403, "InvalidSignatureException"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				requests++
				n := requests
				mu.Unlock()
				_, _ = io.Copy(io.Discard, r.Body)
				if n <= 3 {
					c.fault(w, r)
					return
				}
				w.Header().Set("Content-Type", "application/x-amz-json-1.1")
				_, _ = io.WriteString(w, answer)
			}))
			defer server.Close()
			cfg := awstest.Config(server.URL)
			cfg.HTTPClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // the transport itself repeats on used connections
			asked := 0
			p := Producer{API: kinesis.NewFromConfig(cfg), Stream: "s", minBackoff: time.Nanosecond, Before: func() error { asked++; return nil }}
			places, err := p.Put(t.Context(), []Entry{{Key: "k", Data: []byte("x")}})
			want := 4
			if c.final {
				want = 1
			} else if err == nil && places[0] != (Place{"shardId-0", "7"}) {
				t.Errorf("places %v", places)
			}
			mu.Lock()
			defer mu.Unlock()
			if (err != nil) != c.final || requests != want || asked != want {
				t.Errorf("error %v after %d requests, asked %d times", err, requests, asked)
			}
		})
	}
}
