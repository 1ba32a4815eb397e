package kafka

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// DefaultMaxBatchBytes is what a batch of records may take when it is decompressed, unless set otherwise: thirty times what brokers accept
	// by default.
	DefaultMaxBatchBytes = 64 << 20
	// bytesPerRecord bounds the records of a batch, for a client needs some 200 bytes for each that it decodes, however small it is.
	bytesPerRecord = 64
	// fetchBatches is how many batches of the largest size the client may decompress between two polls.
	fetchBatches = 4
)

// errPaced ends a fetch early, before a batch that can be read with the next one.
var errPaced = errors.New("decompressed batches from this fetch exceed the memory limit")

// pacer decompresses batches for a client and bounds what they take: a record of 37 KB can claim 1.2 GB, and a fetch of a few megabytes can
// have hundreds of them.
//
// A batch above the limit is [kgo.ErrMaxDecompress]. When the client cannot decompress a batch and has records before it, it hands those
// out and fetches the batch again; so a fetch that has more than fits comes in parts.
type pacer struct {
	inner kgo.Decompressor
	max   int
	left  atomic.Int64
}

func newPacer(limit int) (*pacer, error) {
	d, err := NewDecompressor(limit)
	if err != nil {
		return nil, err
	}
	p := &pacer{inner: d, max: limit}
	p.polled()
	return p, nil
}

// NewDecompressor returns one that fails with [kgo.ErrMaxDecompress] before it makes more than limit bytes.
func NewDecompressor(limit int) (kgo.Decompressor, error) {
	// The client's own decompressor takes its limit from the client's options, and has no other way to be given one.
	cl, err := kgo.NewClient(kgo.MaxDecompressBatchBytes(limit))
	if err != nil {
		return nil, fmt.Errorf("max-batch-bytes: %w", err)
	}
	defer cl.Close()
	return cl.OptValue(kgo.WithDecompressor).(kgo.Decompressor), nil
}

// polled tells that what was decompressed has been taken.
func (p *pacer) polled() { p.left.Store(int64(fetchBatches * p.max)) }

// Decompress implements kgo.Decompressor.
func (p *pacer) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if p.left.Load() <= 0 {
		return nil, errPaced
	}
	out, err := p.inner.Decompress(src, codec)
	if err != nil {
		return nil, err
	}
	if n := countRecords(out); n > p.max/bytesPerRecord {
		return nil, fmt.Errorf("%d records in a batch: %w", n, kgo.ErrMaxDecompress)
	}
	p.left.Add(-int64(len(out)))
	return out, nil
}

// countRecords counts the records of a decompressed batch, up to what is none.
func countRecords(b []byte) (n int) {
	for {
		_, rest, ok := NextRecord(b)
		if !ok {
			return n
		}
		b = rest
		n++
	}
}

// NextRecord takes the first record, without its length, off the records of a batch that is not compressed. It is not ok if they do not begin
// with a whole one. A record is not empty.
func NextRecord(b []byte) (record, rest []byte, ok bool) {
	length, n := kbin.Varint(b)
	if n <= 0 || length < 1 || int(length) > len(b)-n {
		return nil, b, false
	}
	b = b[n:]
	return b[:length], b[length:], true
}
