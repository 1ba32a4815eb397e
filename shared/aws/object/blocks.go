package object

import (
	"errors"
	"io"
	"os"
	"sync"
)

const (
	// blockSize is how much one request asks for: much more than a reader takes at once, so that most reads need none.
	blockSize = 1 << 20
	// keptBlocks are what is remembered. A reader that goes from begin to end needs one; a second lets its reads cross the border.
	keptBlocks = 2
)

// Blocks is random access to one version of an object, as archive/zip needs it. It holds 2 MiB, whatever the size of the object. It is safe
// for concurrent use, and made for a single reader.
type Blocks struct {
	location
	etag string
	size int64

	mu     sync.Mutex
	blocks []block // the last used one first
	closed bool
}

type block struct {
	begin int64
	data  []byte
}

// Blocks ends the connection of o and gives random access to the same version.
func (o *Object) Blocks() *Blocks {
	_ = o.Close() // it was only read from
	return &Blocks{location: o.location, etag: o.etag, size: o.size}
}

// ReadAt implements [io.ReaderAt].
func (b *Blocks) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("read object: negative offset")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for n < len(p) {
		at := off + int64(n)
		if at >= b.size {
			return n, io.EOF
		}
		data, err := b.block(at - at%blockSize)
		if err != nil {
			return n, err
		}
		n += copy(p[n:], data[at%blockSize:])
	}
	return n, nil
}

// block returns the block that begins there.
func (b *Blocks) block(begin int64) ([]byte, error) {
	if b.closed {
		return nil, os.ErrClosed
	}
	for i, k := range b.blocks {
		if k.begin == begin {
			copy(b.blocks[1:], b.blocks[:i])
			b.blocks[0] = k
			return k.data, nil
		}
	}
	var data []byte
	if len(b.blocks) == keptBlocks { // the least recently used one gives its memory
		data = b.blocks[keptBlocks-1].data
		b.blocks = b.blocks[:keptBlocks-1]
	}
	size := int(min(blockSize, b.size-begin))
	if cap(data) < size {
		data = make([]byte, size)
	}
	data = data[:size]
	if err := b.fill(data, begin); err != nil {
		return nil, err
	}
	b.blocks = append([]block{{begin, data}}, b.blocks...)
	return data, nil
}

// fill reads data, which begins there. A connection that breaks costs what it did not bring.
func (b *Blocks) fill(data []byte, begin int64) error {
	for try := 1; ; try++ {
		body, err := b.get(b.etag, begin, begin+int64(len(data)))
		if err == nil {
			var n int
			n, err = io.ReadFull(body, data)
			body.Close()
			if n > 0 {
				try = 1
			}
			data, begin = data[n:], begin+int64(n)
			if len(data) == 0 {
				return nil
			}
		}
		if err = b.again(try, err); err != nil {
			return err
		}
	}
}

// Close frees the memory; later reads fail.
func (b *Blocks) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed, b.blocks = true, nil
	return nil
}
