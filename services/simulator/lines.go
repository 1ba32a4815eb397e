package simulator

import (
	"bytes"
	"context"
	"errors"
	"io"
)

// errTooLong says that a record does not end within maxRecord bytes.
var errTooLong = errors.New("record too long")

// lineReader shows the lines of a stream before they are consumed, so that its user can look ahead and step back.
type lineReader struct {
	r          io.Reader
	buf        []byte
	start, end int   // unread bytes in buf
	line       int64 // number of the line that begins at start, from 1
	pos        int64 // offset of start in the stream
	err        error // of r, once
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: r, buf: make([]byte, 4*maxRecord), line: 1}
}

// peek returns the unread bytes up to and including the first line end at or after index from, which is 0 or the end of a line that an
// earlier peek returned. If the stream ends first, peek returns the rest, or io.EOF if there is nothing after from. If the reader fails
// first, peek returns its error. The bytes are valid until the next call.
func (l *lineReader) peek(from int) ([]byte, error) {
	searched := from
	for {
		unread := l.buf[l.start:l.end]
		if i := bytes.IndexByte(unread[searched:], '\n'); i >= 0 {
			if searched+i+1 > maxRecord {
				return nil, errTooLong
			}
			return unread[:searched+i+1], nil
		}
		searched = len(unread)
		switch {
		case searched > maxRecord:
			return nil, errTooLong
		case l.err != nil && len(unread) > from && errors.Is(l.err, io.EOF):
			return unread, nil
		case l.err != nil:
			return nil, l.err
		}
		l.fill()
	}
}

// fill reads more, after making room.
func (l *lineReader) fill() {
	if l.start > 0 && len(l.buf)-l.end < maxRecord {
		l.end = copy(l.buf, l.buf[l.start:l.end])
		l.start = 0
	}
	for range 100 { // like bufio: a reader that returns nothing this often is broken
		n, err := l.r.Read(l.buf[l.end:])
		l.end += n
		l.err = err
		if n > 0 || err != nil {
			return
		}
	}
	l.err = io.ErrNoProgress
}

// advance passes over n bytes that have no line end.
func (l *lineReader) advance(n int) { l.start, l.pos = l.start+n, l.pos+int64(n) }

// consume passes over n bytes that peek returned, and counts their lines.
func (l *lineReader) consume(n int) {
	l.line += int64(bytes.Count(l.buf[l.start:l.start+n], []byte{'\n'}))
	l.advance(n)
}

// skip passes over a line of any length.
func (l *lineReader) skip() {
	for {
		if i := bytes.IndexByte(l.buf[l.start:l.end], '\n'); i >= 0 {
			l.consume(i + 1)
			return
		}
		l.advance(l.end - l.start)
		if l.err != nil {
			return
		}
		l.fill()
	}
}

// atEnd reports whether nothing but line ends is left.
func (l *lineReader) atEnd() (bool, error) {
	for {
		if rest := bytes.TrimLeft(l.buf[l.start:l.end], "\r\n"); len(rest) > 0 {
			return false, nil
		}
		if errors.Is(l.err, io.EOF) {
			return true, nil
		} else if l.err != nil {
			return false, l.err
		}
		if l.end-l.start >= maxRecord { // a page of blank lines; assume that more follows
			return false, nil
		}
		l.fill()
	}
}

// interruptible is a reader whose Read returns when its context ends, even if the underlying reader still blocks: a terminal or a pipe on
// standard input can block for ever.
type interruptible struct {
	ctx    context.Context
	chunks chan chunk
	free   chan []byte
	cur    []byte // not read yet
	whole  []byte // the buffer that cur is part of
	err    error
}

type chunk struct {
	b   []byte
	err error
}

// newInterruptible starts a goroutine that reads r until r or ctx ends. A Read of r that is in progress when ctx ends outlives ctx, because
// nothing can interrupt it.
func newInterruptible(ctx context.Context, r io.Reader) *interruptible {
	i := &interruptible{ctx: ctx, chunks: make(chan chunk), free: make(chan []byte, 2)}
	for range cap(i.free) {
		i.free <- make([]byte, 64<<10)
	}
	go func() {
		for {
			var b []byte
			select {
			case b = <-i.free:
			case <-ctx.Done():
				return
			}
			n, err := r.Read(b)
			select {
			case i.chunks <- chunk{b[:n], err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return i
}

func (i *interruptible) Read(p []byte) (int, error) {
	for len(i.cur) == 0 {
		if i.err != nil {
			return 0, i.err
		}
		if i.whole != nil {
			i.free <- i.whole[:cap(i.whole)]
			i.whole = nil
		}
		select {
		case c := <-i.chunks:
			i.cur, i.whole, i.err = c.b, c.b, c.err
		case <-i.ctx.Done():
			return 0, i.ctx.Err()
		}
	}
	n := copy(p, i.cur)
	i.cur = i.cur[n:]
	return n, nil
}
