package simulator

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
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

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"spate/shared/activity"
	"spate/shared/aws/awstest"
	"spate/shared/aws/cloud"
	"spate/shared/aws/object"
)

// writeKinds writes text as a plain file, with gzip and as a zip of two halves, and returns the paths by kind.
func writeKinds(t *testing.T, text []byte) map[string]string {
	t.Helper()
	dir := t.TempDir()
	half := bytes.IndexByte(text[len(text)/2:], '\n') + len(text)/2 + 1
	var zipped, packed bytes.Buffer
	z := zip.NewWriter(&zipped)
	for _, part := range []struct { // in this order
		name string
		text []byte
	}{{"a.csv", text[:half]}, {"b.csv", text[half:]}} {
		w, err := z.Create(part.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(part.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	g := gzip.NewWriter(&packed)
	if _, err := g.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	paths := make(map[string]string)
	for kind, data := range map[string][]byte{"csv": text, "gz": packed.Bytes(), "zip": zipped.Bytes()} {
		paths[kind] = filepath.Join(dir, "events") // the name tells nothing
		if kind != "csv" {
			paths[kind] += "." + kind
		}
		if err := os.WriteFile(paths[kind], data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// upload stores a file in a bucket that it makes, and returns its URL.
func upload(t *testing.T, bucket, path string) string {
	t.Helper()
	cfg, err := cloud.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := object.Put(t.Context(), cfg, bucket, "2019/events of november", f); err != nil {
		t.Fatal(err)
	}
	return "s3://" + bucket + "/2019/events of november"
}

// TestObject: what comes out of S3 is what comes from the disk, also through connections that break in the middle; and the progress is known.
func TestObject(t *testing.T) {
	emulators(t)
	rows := generated(t, func(c *Config) { c.Events = 20_000 })
	text := []byte(activity.CSVHeader + "\n")
	for i := range rows {
		text = rows[i].Event.AppendCSV(text)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for kind, path := range writeKinds(t, text) {
		want, local := output(t, func(c *Config) { c.File = path })
		at := upload(t, "objects-"+kind, path)
		for _, breaks := range []bool{false, true} {
			name := kind
			if breaks {
				name += "-breaking"
			}
			t.Run(name, func(t *testing.T) {
				requests := func() int { return 9 }
				if breaks {
					requests = breakS3(t, rand.New(rand.NewPCG(seed, 0)))
				}
				got, res := output(t, func(c *Config) { c.File = at })
				if got != want || res.Sent != local.Sent || res.Skipped+res.Cut != 0 {
					t.Errorf("sent %d of %d bytes, locally %d of %d", res.Sent, len(got), local.Sent, len(want))
				}
				if n := requests(); n < 3 {
					t.Errorf("%d requests: no connection broke", n)
				}
			})
		}
		c, err := openObjectCSV(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		size := info.Size()
		if kind == "zip" {
			size = int64(len(text))
		}
		collect(t, c, 0)
		if done, total := c.progress(); total != size || done != size {
			t.Errorf("%s: progress is %d of %d, want %d", kind, done, total, size)
		}
		if err := c.Close(); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// breakS3 puts something between the SDK and S3 that breaks off answers, and returns what counts the requests for objects.
func breakS3(t *testing.T, rnd *rand.Rand) func() int {
	t.Helper()
	target, err := url.Parse(awstest.Moto(t))
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	var mu sync.Mutex
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		proxy.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		mu.Lock()
		n++
		left := len(body)
		if n%3 != 0 {
			left = rnd.IntN(len(body) + 1)
		}
		mu.Unlock()
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(body[:left])
		if left < len(body) {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL_S3", server.URL)
	return func() int { mu.Lock(); defer mu.Unlock(); return n }
}

func TestObjectErrors(t *testing.T) {
	emulators(t)
	path := filepath.Join(t.TempDir(), "x")
	var empty bytes.Buffer
	if err := zip.NewWriter(&empty).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, empty.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	url := upload(t, "object-errors", path)
	for _, c := range []struct {
		url  string
		is   error
		says string
	}{
		{"s3://object-errors/none", object.ErrNoKey, "open events file: get object s3://object-errors/none: no such object in bucket object-errors"},
		{"s3://nobody-made-it/none", object.ErrNoBucket, "nobody-made-it does not exist; create it with"},
		{url, nil, "open events file " + url + ": read zip: the archive contains no files"},
	} {
		_, err := openObjectCSV(t.Context(), c.url)
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.url, err)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
	if _, err := openObjectCSV(canceled(t), url); err == nil {
		t.Error("opened after the end of its context")
	}
}
