package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"spate/shared/aws/awstest"
)

func TestParseURL(t *testing.T) {
	for _, c := range []struct{ url, bucket, key string }{
		{"s3://bucket/key", "bucket", "key"},
		{"s3://my-bucket.2/2019/Nov data%20.csv.gz?x#y", "my-bucket.2", "2019/Nov data%20.csv.gz?x#y"},
		{"s3://bucket//key", "bucket", "/key"},
	} {
		bucket, key, err := ParseURL(c.url)
		if err != nil || bucket != c.bucket || key != c.key || !IsURL(c.url) {
			t.Errorf("%s: %q, %q, %v", c.url, bucket, key, err)
		}
	}
	for _, bad := range []string{"", "key", "s3:", "s3://", "s3://bucket", "s3://bucket/", "s3:///key", "s3://b/key", "s3://Bucket/key", "s3://-bucket/key", "S3://bucket/key",
		"s3://bucket/folder/", "s3://bucket/" + strings.Repeat("k", 1025), "s3://user@bucket/key", "https://bucket/key"} {
		if _, _, err := ParseURL(bad); err == nil || !strings.Contains(err.Error(), "is not s3://bucket/key") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// bucket makes a bucket in moto, with an object of these bytes under the key "o", and returns how to reach it.
func bucket(t *testing.T, name string, data []byte) aws.Config {
	t.Helper()
	cfg := awstest.Config(awstest.Moto(t))
	if _, err := client(cfg).CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	put(t, cfg, name, data)
	return cfg
}

func put(t *testing.T, cfg aws.Config, name string, data []byte) Stored {
	t.Helper()
	path := filepath.Join(t.TempDir(), "o")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stored, err := Put(t.Context(), cfg, name, "o", f)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

func randomBytes(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

func open(t *testing.T, cfg aws.Config, bucket string) *Object {
	t.Helper()
	o, err := Open(t.Context(), cfg, bucket, "o")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	o.minBackoff = time.Microsecond
	return o
}

func TestPutAndRead(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 4096, blockSize + 17} {
		name := fmt.Sprint("and-read-", size)
		data := randomBytes(rnd, size)
		cfg := bucket(t, name, data)
		if s := put(t, cfg, name, data); s.Bytes != int64(size) || s.ETag == "" || strings.Contains(s.ETag, `"`) || s.Bucket != name || s.Key != "o" {
			t.Errorf("stored %+v", s)
		}
		o := open(t, cfg, name)
		got, err := io.ReadAll(o)
		if err != nil || !bytes.Equal(got, data) || o.Size() != int64(size) {
			t.Errorf("%d bytes: got %d of %d, error %v", size, len(got), o.Size(), err)
		}
		if n, err := o.Read(make([]byte, 5)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %d, %v", n, err)
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		blocks := open(t, cfg, name).Blocks()
		if err := iotest.TestReader(io.NewSectionReader(blocks, 0, blocks.size), data); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// breaking is a way to S3 that breaks: a body ends after some bytes of it, without a word.
type breaking struct {
	*httptest.Server
	mu       sync.Mutex
	left     func() int // bytes that the next body may bring; negative: all
	requests []*http.Request
}

func newBreaking(t *testing.T, cfg aws.Config, left func() int) (*breaking, aws.Config) {
	t.Helper()
	target, err := url.Parse(*cfg.BaseEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	b := &breaking{left: left}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.requests = append(b.requests, r.Clone(context.Background()))
		left := b.left()
		b.mu.Unlock()
		if left < 0 {
			proxy.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		proxy.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		body := rec.Body.Bytes()
		_, _ = w.Write(body[:min(left, len(body))])
		if left < len(body) {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(b.Close)
	cfg.BaseEndpoint = &b.URL
	return b, cfg
}

// seen returns the requests so far.
func (b *breaking) seen() []*http.Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.requests
}

// TestBrokenConnection: reading goes on where it broke off, and only in the same version.
func TestBrokenConnection(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	data := randomBytes(rnd, 2*blockSize+12345)
	cfg := bucket(t, "broken", data)
	b, through := newBreaking(t, cfg, func() int { return rnd.IntN(len(data) / 5) })
	t.Run("stream", func(t *testing.T) {
		o := open(t, through, "broken")
		got, err := io.ReadAll(o)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes, error %v", len(got), err)
		}
		requests := b.seen()
		if len(requests) < 5 {
			t.Errorf("%d requests: the connection did not break", len(requests))
		}
		for i, r := range requests {
			if (r.Header.Get("Range") != "") != (i > 0) || (r.Header.Get("If-Match") != "") != (i > 0) {
				t.Errorf("request %d: range %q, if-match %q", i, r.Header.Get("Range"), r.Header.Get("If-Match"))
			}
		}
	})
	t.Run("blocks", func(t *testing.T) {
		blocks := open(t, through, "broken").Blocks()
		got, err := io.ReadAll(io.NewSectionReader(blocks, 0, blocks.size))
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes, error %v", len(got), err)
		}
	})
}

// TestBlocks holds random access against that of memory.
func TestBlocks(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	data := randomBytes(rnd, 3*blockSize+777)
	b, cfg := newBreaking(t, bucket(t, "blocks", data), func() int { return -1 })
	blocks := open(t, cfg, "blocks").Blocks()
	model := bytes.NewReader(data)
	for range 60 {
		size, off := rnd.IntN(3000), rnd.Int64N(int64(len(data)))
		if rnd.IntN(10) == 0 {
			size = rnd.IntN(2 * blockSize)
		}
		want, got := make([]byte, size), make([]byte, size)
		n, wantErr := model.ReadAt(want, off)
		m, err := blocks.ReadAt(got, off)
		if n != m || (wantErr == nil) != (err == nil) || !bytes.Equal(want[:n], got[:m]) {
			t.Fatalf("%d bytes at %d: %d, %v; want %d, %v", size, off, m, err, n, wantErr)
		}
		if len(blocks.blocks) > keptBlocks {
			t.Fatalf("%d blocks are kept", len(blocks.blocks))
		}
	}
	if _, err := blocks.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("a negative offset is read")
	}
	before := len(b.seen())
	if _, err := io.Copy(io.Discard, io.NewSectionReader(blocks, 0, blocks.size)); err != nil {
		t.Fatal(err)
	}
	if n := len(b.seen()) - before; n > 4 {
		t.Errorf("%d requests for a reading from begin to end, 4 blocks", n)
	}
	if err := blocks.Close(); err != nil {
		t.Error(err)
	}
	if _, err := blocks.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestGivesUp: a connection that brings nothing, again and again, ends the reading.
func TestGivesUp(t *testing.T) {
	cfg := bucket(t, "gives-up", make([]byte, 1000))
	n := 0
	b, through := newBreaking(t, cfg, func() int {
		if n++; n == 1 {
			return 400
		}
		return 0
	})
	o := open(t, through, "gives-up")
	got, err := io.ReadAll(o)
	if len(got) != 400 || !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "read object s3://gives-up/o: ") {
		t.Errorf("%d bytes, error %v", len(got), err)
	}
	if n := len(b.seen()); n > 1+tries {
		t.Errorf("%d requests", n)
	}
	if _, again := o.Read(make([]byte, 1)); !errors.Is(again, err) {
		t.Errorf("the next reading says %v", again)
	}
}

func TestReplaced(t *testing.T) {
	data := bytes.Repeat([]byte("old "), 100_000)
	cfg := bucket(t, "replaced", data)
	n := 0
	_, through := newBreaking(t, cfg, func() int {
		if n++; n == 1 {
			return 1000
		}
		return -1
	})
	stream, blocks := open(t, through, "replaced"), open(t, cfg, "replaced").Blocks()
	put(t, cfg, "replaced", bytes.Repeat([]byte("new "), 100_000))
	if got, err := io.ReadAll(stream); !errors.Is(err, ErrChanged) || len(got) > 1000 || !strings.Contains(err.Error(), "s3://replaced/o") {
		t.Errorf("stream: %d bytes, error %v", len(got), err)
	}
	if _, err := blocks.ReadAt(make([]byte, 10), 0); !errors.Is(err, ErrChanged) {
		t.Errorf("blocks: error %v", err)
	}
}

func TestEndOfContext(t *testing.T) {
	cfg := bucket(t, "context", make([]byte, 1000))
	n := 0
	_, through := newBreaking(t, cfg, func() int { n++; return 0 })
	ctx, cancel := context.WithCancel(t.Context())
	o, err := Open(ctx, through, "context", "o")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := o.Read(make([]byte, 10)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := o.Blocks().ReadAt(make([]byte, 10), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("blocks: error %v", err)
	}
}

// TestErrors: they name bucket and key, and say what to do.
func TestErrors(t *testing.T) {
	cfg := bucket(t, "errors", []byte("x"))
	answer := func(status int, code string) aws.Config {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>for the test</Message></Error>`, code)
		}))
		t.Cleanup(server.Close)
		return awstest.Config(server.URL)
	}
	for _, c := range []struct {
		name, bucket, key string
		cfg               aws.Config
		is                error
		says              string
		opens             bool // only opening is tried
	}{
		{"no bucket", "nowhere", "o", cfg, ErrNoBucket, "s3://nowhere/o: no such bucket: nowhere does not exist; create it with `aws s3 mb s3://nowhere` or `spate aws setup`", false},
		{"no key", "errors", "none", cfg, ErrNoKey, "get object s3://errors/none: no such object in bucket errors", true},
		{"denied", "errors", "o", answer(403, "AccessDenied"), ErrDenied, "s3://errors/o: access denied (or the object does not exist", false},
		{"elsewhere", "errors", "o", answer(301, "PermanentRedirect"), nil, "bucket errors is not in region us-east-1; set AWS_REGION to the bucket's region: ", false},
		{"other", "errors", "o", answer(400, "InvalidToken"), nil, "s3://errors/o: ", false},
	} {
		_, err := Open(t.Context(), c.cfg, c.bucket, c.key)
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: open: %v", c.name, err)
		}
		if c.opens {
			continue
		}
		f, err := os.Open("object.go")
		if err != nil {
			t.Fatal(err)
		}
		_, err = Put(t.Context(), c.cfg, c.bucket, c.key, f)
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "put object ") {
			t.Errorf("%s: put: %v", c.name, err)
		}
		f.Close()
	}
}

func TestPutRefuses(t *testing.T) {
	large, err := os.Create(filepath.Join(t.TempDir(), "large"))
	if err != nil {
		t.Fatal(err)
	}
	defer large.Close()
	if err := large.Truncate(MaxPutBytes + 1); err != nil {
		t.Fatalf("no sparse files here: %v", err)
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cfg := awstest.Config("http://127.0.0.1:1") // nobody is asked
	if _, err := Put(t.Context(), cfg, "bucket", "key", large); err == nil || !strings.Contains(err.Error(), "more than the 5 GiB limit of one call; use `aws s3 cp`") {
		t.Errorf("large: %v", err)
	}
	if _, err := Put(t.Context(), cfg, "bucket", "key", dir); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("folder: %v", err)
	}
}
