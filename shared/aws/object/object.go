// Package object reads and writes S3 objects: a stream that resumes after a broken connection, random access in blocks for archives, file
// uploads, and the creation of buckets. It does not list objects.
package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"spate/shared/aws/cloud"
)

// MaxPutBytes is the largest file that Put takes; S3 takes larger ones only in parts.
const MaxPutBytes = 5 << 30

const (
	// tries is how often in a row a reading may fail without a single byte, at 5 s at most between them, before it is given up.
	tries      = 8
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// What S3 may say about a bucket or an object.
var (
	ErrNoBucket = errors.New("no such bucket")
	ErrNoKey    = errors.New("no such object")
	ErrDenied   = errors.New("access denied")
	ErrChanged  = errors.New("the object was replaced while it was being read")
)

const scheme = "s3://"

// IsURL reports whether a name is meant to be one of an object.
func IsURL(name string) bool { return strings.HasPrefix(name, scheme) }

// ParseURL takes apart s3://bucket/key. A key is taken as it stands: nothing in it is an escape.
func ParseURL(url string) (bucket, key string, err error) {
	rest, ok := strings.CutPrefix(url, scheme)
	if !ok {
		return "", "", fmt.Errorf("%q is not s3://bucket/key", url)
	}
	bucket, key, _ = strings.Cut(rest, "/")
	if !isBucket(bucket) {
		return "", "", fmt.Errorf("%q is not s3://bucket/key: a bucket name has 3 to 63 lower-case letters, digits, dots and hyphens", url)
	}
	if key == "" || strings.HasSuffix(key, "/") || len(key) > 1024 {
		return "", "", fmt.Errorf("%q is not s3://bucket/key: a key is 1 to 1024 bytes long and does not end in /", url)
	}
	return bucket, key, nil
}

func isBucket(s string) bool {
	return len(s) >= 3 && len(s) <= 63 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-") == "" && !strings.ContainsAny(s[:1]+s[len(s)-1:], ".-")
}

func client(cfg aws.Config) *s3.Client {
	return s3.NewFromConfig(cfg, func(o *s3.Options) {
		// An address of one's own has no name for every bucket.
		o.UsePathStyle = o.BaseEndpoint != nil
		// It could be checked only over an object that comes through one connection from its begin to its end.
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	})
}

// location is where an object is, and how it is reached.
type location struct {
	ctx         context.Context
	api         *s3.Client
	region      string
	bucket, key string
	minBackoff  time.Duration // for tests; 0 is the default
}

// Object is one version of an object, read from its begin to its end. It is not safe for concurrent use.
type Object struct {
	location
	etag string
	size int64

	body io.ReadCloser // nil: to be asked for
	pos  int64
	err  error // that ended it
}

// Open asks for an object. ctx bounds all that is done with it.
func Open(ctx context.Context, cfg aws.Config, bucket, key string) (*Object, error) {
	o := &Object{location: location{ctx: ctx, api: client(cfg), region: cfg.Region, bucket: bucket, key: key}}
	out, err := o.api.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return nil, o.explain("get object", err)
	}
	if out.ContentLength == nil {
		out.Body.Close()
		return nil, fmt.Errorf("get object %s: S3 did not report its size", o.name())
	}
	o.body, o.size, o.etag = out.Body, *out.ContentLength, aws.ToString(out.ETag)
	return o, nil
}

// Size returns the object's size in bytes.
func (o *Object) Size() int64 { return o.size }

// Read implements [io.Reader]. Where the connection breaks it goes on with another one, at the same place of the same version; S3 ends a
// connection, too, when a slow reader leaves it unused for long.
func (o *Object) Read(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	if o.pos >= o.size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	p = p[:min(int64(len(p)), o.size-o.pos)]
	for try := 1; ; try++ {
		n, err := o.readOnce(p)
		if n > 0 {
			o.pos += int64(n)
			return n, nil // what else happened comes back with the next try
		}
		if err = o.again(try, err); err != nil {
			o.err = err
			return 0, err
		}
	}
}

// readOnce reads from the connection at hand, or a new one. The object has more bytes, so an end of the body is an error.
func (o *Object) readOnce(p []byte) (int, error) {
	if o.body == nil {
		body, err := o.get(o.etag, o.pos, o.size)
		if err != nil {
			return 0, err
		}
		o.body = body
	}
	n, err := o.body.Read(p)
	if err != nil {
		o.body.Close()
		o.body = nil
	}
	return n, err
}

// Close ends the connection.
func (o *Object) Close() error {
	if o.err == nil {
		o.err = os.ErrClosed
	}
	if o.body == nil {
		return nil
	}
	err := o.body.Close()
	o.body = nil
	return err
}

// get asks for the bytes from begin to end of the version with that ETag.
func (l *location) get(etag string, begin, end int64) (io.ReadCloser, error) {
	in := &s3.GetObjectInput{Bucket: &l.bucket, Key: &l.key, Range: aws.String(fmt.Sprintf("bytes=%d-%d", begin, end-1))}
	if etag != "" {
		in.IfMatch = &etag
	}
	out, err := l.api.GetObject(l.ctx, in)
	if err != nil {
		return nil, l.explain("get object", err)
	}
	if got := aws.ToString(out.ContentRange); !strings.HasPrefix(got, fmt.Sprintf("bytes %d-%d/", begin, end-1)) {
		out.Body.Close()
		return nil, fmt.Errorf("get object %s: requested bytes %d-%d, got %q", l.name(), begin, end-1, got)
	}
	return out.Body, nil
}

// again returns nil when it is time for another try after the one that ended with err, or else why there will be none.
func (l *location) again(try int, err error) error {
	switch {
	case l.ctx.Err() != nil:
		return l.ctx.Err()
	case errors.Is(err, ErrChanged), errors.Is(err, ErrNoBucket), errors.Is(err, ErrNoKey), errors.Is(err, ErrDenied):
		return err
	case try >= tries:
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // the end of a connection is not that of the object
		}
		return fmt.Errorf("read object %s: %w", l.name(), err)
	case try == 1:
		return nil // a connection that was left too long, most likely
	}
	low := l.minBackoff
	if low <= 0 {
		low = minBackoff
	}
	timer := time.NewTimer(rand.N(min(low<<(try-2), maxBackoff)))
	defer timer.Stop()
	select {
	case <-l.ctx.Done():
		return l.ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (l *location) name() string { return scheme + l.bucket + "/" + l.key }

// explain says in our words what S3 answered.
func (l *location) explain(verb string, err error) error {
	switch {
	case l.ctx.Err() != nil:
		return l.ctx.Err()
	case cloud.IsCode(err, "NoSuchBucket"):
		return fmt.Errorf("%s %s: %w: %s does not exist; create it with `aws s3 mb %s%s` or `spate aws setup`", verb, l.name(), ErrNoBucket, l.bucket, scheme, l.bucket)
	case cloud.IsCode(err, "NoSuchKey", "NotFound"):
		return fmt.Errorf("%s %s: %w in bucket %s", verb, l.name(), ErrNoKey, l.bucket)
	case cloud.IsCode(err, "AccessDenied", "Forbidden"):
		return fmt.Errorf("%s %s: %w (or the object does not exist: S3 also denies access in that case if you may not list bucket %s)", verb, l.name(), ErrDenied, l.bucket)
	case cloud.IsCode(err, "PreconditionFailed"):
		return fmt.Errorf("%s %s: %w", verb, l.name(), ErrChanged)
	case cloud.IsCode(err, "PermanentRedirect", "MovedPermanently", "AuthorizationHeaderMalformed"):
		return fmt.Errorf("%s %s: bucket %s is not in region %s; set AWS_REGION to the bucket's region: %w", verb, l.name(), l.bucket, l.region, err)
	}
	return fmt.Errorf("%s %s: %w", verb, l.name(), err)
}

// Stored is what Put stored.
type Stored struct {
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	Bytes  int64  `json:"bytes"`
	ETag   string `json:"etag"` // without its quotes
}

// Put stores a file as an object, in place of one that may be there.
func Put(ctx context.Context, cfg aws.Config, bucket, key string, file *os.File) (Stored, error) {
	l := location{ctx: ctx, api: client(cfg), region: cfg.Region, bucket: bucket, key: key}
	info, err := file.Stat()
	switch {
	case err != nil:
		return Stored{}, fmt.Errorf("put object %s: %w", l.name(), err)
	case !info.Mode().IsRegular():
		return Stored{}, fmt.Errorf("put object %s: %s is not a regular file", l.name(), file.Name())
	case info.Size() > MaxPutBytes:
		return Stored{}, fmt.Errorf("put object %s: %s is %d bytes long, more than the 5 GiB limit of one call; use `aws s3 cp`, which uploads it in parts", l.name(), file.Name(), info.Size())
	}
	out, err := l.api.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: file, ContentLength: aws.Int64(info.Size())})
	if err != nil {
		return Stored{}, l.explain("put object", err)
	}
	return Stored{Bucket: bucket, Key: key, Bytes: info.Size(), ETag: strings.Trim(aws.ToString(out.ETag), `"`)}, nil
}
