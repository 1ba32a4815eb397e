package simulator

import (
	"archive/zip"
	"bufio"
	"cmp"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"spate/shared/aws/cloud"
	"spate/shared/aws/object"
)

// maxWindow bounds the memory that a file packed with zstd may ask for.
const maxWindow = 128 << 20

// member is one file of an archive.
type member struct {
	name string
	open func() (io.ReadCloser, error)
}

// OpenCSV opens the file at path; see [CSV].
func OpenCSV(path string) (*CSV, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open events file: %w", err) // names the path
	}
	c, err := newFileCSV(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open events file %s: %w", path, err), f.Close())
	}
	return c, nil
}

func newFileCSV(f *os.File) (*CSV, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("is a directory")
	}
	var magic [4]byte
	if n, _ := f.ReadAt(magic[:], 0); n == len(magic) && isZip(magic[:]) {
		return newZipCSV(f.Name(), f, f, info.Size())
	}
	total := int64(0)
	if info.Mode().IsRegular() {
		total = info.Size()
	}
	return newStreamCSV(f.Name(), f, f, total), nil
}

// openObjectCSV opens the CSV object at an URL of S3; see [CSV]. ctx bounds the reading. A zip is read in blocks, the others as one stream.
func openObjectCSV(ctx context.Context, url string) (*CSV, error) {
	bucket, key, err := object.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("open events file: %w", err)
	}
	cfg, err := cloud.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("open events file %s: %w", url, err)
	}
	o, err := object.Open(ctx, cfg, bucket, key)
	if err != nil {
		return nil, fmt.Errorf("open events file: %w", err) // names the object
	}
	in := bufio.NewReaderSize(o, 64<<10)
	magic, _ := in.Peek(4) // an error comes back on reading
	if !isZip(magic) {
		return newStreamCSV(url, in, o, o.Size()), nil
	}
	blocks := o.Blocks()
	c, err := newZipCSV(url, blocks, blocks, o.Size())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open events file %s: %w", url, err), blocks.Close())
	}
	return c, nil
}

// newStreamCSV reads a file that is not a zip from r; total is its size in bytes, 0 if it is not known.
func newStreamCSV(name string, r io.Reader, file io.Closer, total int64) *CSV {
	c := newCSV(name, file)
	c.total = total
	counted := &countingReader{r: r, n: c.read}
	c.members = []member{{name, func() (io.ReadCloser, error) { return io.NopCloser(counted), nil }}}
	return c
}

// hasEvents are the names of members of an archive that are read.
var hasEvents = regexp.MustCompile(`(?i)\.(csv|tsv|jsonl|ndjson|json)(\.(gz|bz2|zst|xz))?$`)

func newZipCSV(name string, r io.ReaderAt, file io.Closer, size int64) (*CSV, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("read zip: %w", err)
	}
	var csvs, others []*zip.File
	for _, m := range z.File {
		switch {
		case m.FileInfo().IsDir(), strings.HasPrefix(m.Name, "__MACOSX/"):
		case hasEvents.MatchString(m.Name):
			csvs = append(csvs, m)
		default:
			others = append(others, m)
		}
	}
	if len(csvs) == 0 && len(others) == 1 {
		csvs, others = others, nil // a single file under any name can only be meant
	}
	switch {
	case slices.ContainsFunc(others, func(m *zip.File) bool { return m.Name == "xl/workbook.xml" }):
		return nil, errors.New("is an Excel workbook; save it as CSV")
	case len(csvs) == 0 && len(others) == 0:
		return nil, errors.New("read zip: the archive contains no files")
	case len(csvs) == 0:
		return nil, fmt.Errorf("read zip: none of the %d files ends in .csv, .tsv, .jsonl, .ndjson or .json, optionally followed by .gz, .bz2, .zst or .xz", len(others))
	}
	c := newCSV(name, file)
	c.archive = csvs
	for _, m := range others {
		c.leftOut = append(c.leftOut, name+":"+m.Name)
	}
	for _, m := range csvs {
		c.total += int64(m.UncompressedSize64)
		c.members = append(c.members, member{name + ":" + m.Name, func() (io.ReadCloser, error) {
			r, err := m.Open()
			if err != nil {
				return nil, err
			}
			return readCloser{&countingReader{r: r, n: c.read}, r}, nil
		}})
	}
	return c, nil
}

// ReadCSV reads a file that is not a zip from r; name is what errors call it. The caller keeps r.
func ReadCSV(r io.Reader, name string) (*CSV, error) {
	c := newCSV(name, nil)
	c.members = []member{{name, func() (io.ReadCloser, error) { return io.NopCloser(r), nil }}}
	return c, nil
}

// order puts the members of an archive in the order of the times in their first rows, in which they were most likely written: archives list them by
// name. Members whose first time cannot be read leave all as they are.
func (c *CSV) order() {
	first := make(map[string]int64, len(c.members))
	for i, m := range c.archive {
		one := newCSV(c.members[i].name, nil)
		one.fields, one.custom, one.literal, one.nulls, one.scanner = c.fields, c.custom, c.literal, c.nulls, c.scanner
		one.members = []member{{c.members[i].name, m.Open}}
		var r Row
		err := one.Next(&r)
		_ = one.Close() // it was only read from
		if err != nil || !r.HasTime {
			return
		}
		first[c.members[i].name] = r.TimeMS
	}
	slices.SortStableFunc(c.members, func(a, b member) int { return cmp.Compare(first[a.name], first[b.name]) })
}

func (c *CSV) openMember() error {
	m := c.members[0]
	c.members = c.members[1:]
	c.name = m.name
	raw, err := m.open()
	if err != nil {
		return fmt.Errorf("open %s: %w", c.name, err)
	}
	c.member = raw
	in := bufio.NewReaderSize(raw, 64<<10)
	magic, _ := in.Peek(4) // an error comes back on reading
	var plain io.Reader = in
	switch {
	case isZip(magic):
		return fmt.Errorf("read %s: a zip archive cannot be read as a stream; extract it, for example with unzip -p", c.name)
	case len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		if plain, err = gzip.NewReader(in); err != nil {
			return fmt.Errorf("read %s: %w", c.name, err)
		}
	case len(magic) == 4 && string(magic[:3]) == "BZh" && magic[3] >= '1' && magic[3] <= '9':
		plain = bzip2.NewReader(in)
	case string(magic) == "\x28\xb5\x2f\xfd":
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxMemory(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return fmt.Errorf("read %s: %w", c.name, err)
		}
		plain, c.member = z, closers{raw, z.IOReadCloser()}
	case string(magic) == xzMagic:
		if plain, err = newXZ(in); err != nil {
			return fmt.Errorf("read %s: %w", c.name, err)
		}
	}
	unpacked := bufio.NewReaderSize(plain, sniffed)
	// What is there, and no more: standard input may give lines one by one. An error comes back on reading.
	_, _ = unpacked.Peek(1)
	head, _ := unpacked.Peek(unpacked.Buffered())
	if err := c.sniff(head); err != nil {
		return fmt.Errorf("read %s: it %w", c.name, err)
	}
	c.lines = newLineReader(unpacked)
	c.first, c.is, c.header = true, mapping{}, c.header[:0]
	c.openTo, c.breaksAt = 0, -1
	return nil
}

func (c *CSV) closeMember() error {
	err := c.member.Close()
	c.member, c.lines = nil, nil
	return err
}

func isZip(magic []byte) bool {
	return len(magic) >= 4 && magic[0] == 'P' && magic[1] == 'K' && (magic[2] == 3 && magic[3] == 4 || magic[2] == 5 && magic[3] == 6)
}

// closers are closed together.
type closers []io.Closer

// Close implements io.Closer.
func (c closers) Close() error {
	var errs []error
	for _, x := range c {
		errs = append(errs, x.Close())
	}
	return errors.Join(errs...)
}

type readCloser struct {
	io.Reader
	io.Closer
}

// countingReader counts the bytes read.
type countingReader struct {
	r io.Reader
	n *atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}
