package simulator

import (
	"archive/zip"
	"bufio"
	"bytes"
	"cmp"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"spate/shared/activity"
	"spate/shared/aws/cloud"
	"spate/shared/aws/object"
)

const (
	maxRecord   = 64 << 10 // longest record of a CSV, bytes; a quoted field that never closes costs no more than this
	maxBadLines = 5
	// hopeless is how many malformed lines in a row, without any good one, mean that this is another kind of file.
	hopeless = 1000
	// sniffed is how much of a file is looked at to find out what it is.
	sniffed = 64 << 10
)

// columns are those of the data set, in its order, and the one that the original's producer adds.
var columns = [...]string{
	"event_time", "event_type", "product_id", "category_id", "category_code",
	"brand", "price", "user_id", "user_session", "txn_timestamp",
}

// BadLine is a line of a CSV that was not sent.
type BadLine struct {
	File   string `json:"file"` // also names the member of an archive
	Line   int64  `json:"line"` // from 1, where the record begins
	Reason string `json:"reason"`
}

// CSVStats counts what a CSV source has read so far. Every record that is not blank and no header is in exactly one of Rows,
// Skipped and Cut.
type CSVStats struct {
	Rows    int64
	Skipped int64 // malformed
	Cut     int64 // malformed, and the last of its file
	CutLine int64 // line of the last cut record
	// BadLines are the first 5 records that were skipped or cut.
	BadLines []BadLine
}

// CSV is a source that reads a CSV file as a stream: plain, gzip, or a zip with any number of members, told apart by their first
// bytes, not by their names.
//
// A first line that names columns maps them; without one the columns are the 9 of the data set in their order, or these and
// txn_timestamp. A field is quoted if it begins with a quote, and may then contain commas, line ends and doubled quotes; quotes
// within other fields are text. Line ends are LF or CRLF; blank lines, a byte order mark, and a header that occurs again (files
// put together) are passed over. Bad records never end the reading, except when a file begins with 1000 of them.
type CSV struct {
	name    string
	members []member // still to read
	lines   *lineReader
	member  io.Closer
	file    io.Closer

	fields  activity.Fields
	custom  bool // the fields are not those of the data set
	nulls   []string
	scanner *activity.Scanner // of JSON lines
	keys    *activity.Scanner // of their category_id
	comma   byte
	jsonl   bool
	is      mapping
	header  []byte // text of the header line
	first   bool   // the next record is the first of its member
	// complete: the record at hand has its line end.
	complete bool
	parts    []string
	quoted   []byte
	timeBuf  []byte
	stats    CSVStats
	onBad    func(BadLine)
	at       int64 // line where the last record begins

	// openTo is the offset up to which lines leave an open quote open, breaksAt that of a line that breaks a record with one.
	openTo, breaksAt int64
	scanned          int64 // bytes that were looked at for quotes

	archive []*zip.File // the members of a zip, still to be put in order

	read  *atomic.Int64 // of total, for the progress
	total int64         // bytes; 0 is not known
}

// member is one file of an archive.
type member struct {
	name string
	open func() (io.ReadCloser, error)
}

// OpenCSV opens the CSV file at path; see [CSV].
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

// newStreamCSV reads plain or gzip from r; total is its size in bytes, 0 if it is not known.
func newStreamCSV(name string, r io.Reader, file io.Closer, total int64) *CSV {
	c := newCSV(name, file)
	c.total = total
	counted := &countingReader{r: r, n: c.read}
	c.members = []member{{name, func() (io.ReadCloser, error) { return io.NopCloser(counted), nil }}}
	return c
}

func newZipCSV(name string, r io.ReaderAt, file io.Closer, size int64) (*CSV, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("read zip: %w", err)
	}
	var csvs, others []*zip.File
	for _, m := range z.File {
		lower := strings.ToLower(m.Name)
		switch {
		case m.FileInfo().IsDir(), strings.HasPrefix(m.Name, "__MACOSX/"):
		case strings.HasSuffix(lower, ".csv"), strings.HasSuffix(lower, ".csv.gz"):
			csvs = append(csvs, m)
		default:
			others = append(others, m)
		}
	}
	if len(csvs) == 0 && len(others) == 1 {
		csvs = others // a single file under any name can only be meant
	}
	if len(csvs) == 0 {
		return nil, fmt.Errorf("read zip: none of its %d files ends in .csv", len(others))
	}
	c := newCSV(name, file)
	c.archive = csvs
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

// ReadCSV reads a CSV, plain or gzip, from r; name is what errors call it. The caller keeps r.
func ReadCSV(r io.Reader, name string) (*CSV, error) {
	c := newCSV(name, nil)
	c.members = []member{{name, func() (io.ReadCloser, error) { return io.NopCloser(r), nil }}}
	return c, nil
}

func newCSV(name string, file io.Closer) *CSV {
	c := &CSV{name: name, file: file, read: new(atomic.Int64), comma: ','}
	_ = c.Fields(activity.DefaultFields(), NullWords) // they are valid
	c.keys, _ = activity.NewScanner(activity.Fields{User: []string{columns[3]}, Time: []string{columns[0]}})
	return c
}

// Close closes the file.
func (c *CSV) Close() error {
	var err error
	if c.member != nil {
		err = c.member.Close()
	}
	if c.file != nil {
		err = errors.Join(err, c.file.Close())
	}
	return err
}

// Stats returns the counts so far.
func (c *CSV) Stats() CSVStats {
	s := c.stats
	s.BadLines = slices.Clone(s.BadLines)
	return s
}

// OnBad has every line that is not sent told to f. Call it before Next.
func (c *CSV) OnBad(f func(BadLine)) { c.onBad = f }

// Fields says which columns, or members of JSON, are the user and the time, and which words stand for no user; the data set's and [NullWords] if it is
// not called. Call it before Next.
func (c *CSV) Fields(f activity.Fields, nulls []string) error {
	d := activity.DefaultFields()
	c.fields, c.nulls = f, nulls
	c.custom = !slices.Equal(f.User, d.User) || !slices.Equal(f.Time, d.Time)
	var err error
	c.scanner, err = activity.NewScanner(f)
	return err
}

// Line returns the number of the line, from 1, in which the last record begins.
func (c *CSV) Line() int64 { return c.at }

// progress returns how much is read, and of how much; bytes.
func (c *CSV) progress() (done, total int64) { return c.read.Load(), c.total }

// Next implements [Source].
func (c *CSV) Next(r *Row) error {
	for {
		if c.lines == nil {
			if len(c.archive) > 1 {
				c.order()
			}
			c.archive = nil
			if len(c.members) == 0 {
				return io.EOF
			}
			if err := c.openMember(); err != nil {
				return err
			}
		}
		ok, err := c.record(r)
		if ok {
			return nil
		}
		if errors.Is(err, io.EOF) {
			err = c.closeMember()
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", c.name, err)
		}
	}
}

// order puts the members of an archive in the order of the times in their first rows, in which they were most likely written: archives list them by
// name. Members whose first time cannot be read leave all as they are.
func (c *CSV) order() {
	first := make(map[string]int64, len(c.members))
	for i, m := range c.archive {
		one := newCSV(c.members[i].name, nil)
		one.fields, one.custom, one.nulls, one.scanner = c.fields, c.custom, c.nulls, c.scanner
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
		return fmt.Errorf("read %s: a zip cannot be read as a stream; unpack it, as with unzip -p", c.name)
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
	case string(magic) == "\xfd7zX":
		return fmt.Errorf("read %s: it is packed with xz, which spate does not read; unpack it: xz -dc FILE | spate ... -", c.name)
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

// record reads one record; ok says that it is in r. Otherwise there was something else, already counted, or err.
func (c *CSV) record(r *Row) (ok bool, err error) {
	line, err := c.lines.peek(0)
	if err != nil && !errors.Is(err, errTooLong) {
		return false, err
	}
	at := c.lines.line
	if err != nil {
		c.lines.skip()
		return false, c.bad(at, fmt.Sprintf("longer than %d bytes", maxRecord), false)
	}
	if c.first {
		if rest, bom := bytes.CutPrefix(line, []byte("\xef\xbb\xbf")); bom {
			c.lines.advance(3)
			line = rest
		}
	}
	if c.jsonl {
		c.first = false
		return c.line(r, line, at)
	}
	text := trimEnd(line)
	if c.is.count == 0 && (bytes.HasPrefix(text, []byte("#")) || bytes.HasPrefix(text, []byte("sep=")) && len(text) == 5) {
		c.lines.consume(len(line)) // a remark before the header
		return false, nil
	}
	if len(text) == 0 || len(text) == len(c.header) && bytes.Equal(text, c.header) {
		c.lines.consume(len(line))
		return false, nil
	}

	var reason string
	length := len(line)
	if bytes.IndexByte(text, '"') < 0 {
		c.parts = splitPlain(c.parts[:0], string(text), c.comma)
		c.complete = len(line) > len(text)
	} else {
		length, reason, err = c.splitQuoted()
		if err != nil {
			return false, err
		}
	}
	if reason == "" && (c.first || c.headerAgain()) {
		isHeader, err := c.takeHeader()
		if err != nil {
			return false, err
		}
		c.first = false
		if isHeader {
			c.lines.consume(length)
			return false, nil
		}
	}
	c.first = false
	short := false
	if reason == "" {
		reason, short = c.checkFields()
	} else {
		short = true // cut within quotes, if it is the last line
	}
	c.lines.consume(length)
	if reason != "" {
		last := false
		if short {
			if last, err = c.lines.atEnd(); err != nil {
				return false, errors.Join(c.bad(at, reason, false), err)
			}
		}
		return false, c.bad(at, reason, last)
	}
	c.fill(r)
	c.at = at
	c.stats.Rows++
	return true, nil
}

// checkFields says what is wrong with the number of fields of a record, and whether it has too few. A record whose line is complete may lack fields at its
// end, behind user and time: spreadsheets leave out what is empty there.
func (c *CSV) checkFields() (reason string, short bool) {
	n := len(c.parts)
	if c.is.count == 0 {
		if n != len(columns)-1 && n != len(columns) {
			return fmt.Sprintf("has %d fields, not 9 or 10", n), n < len(columns)-1
		}
		c.is = byPosition(n)
	}
	if c.complete && n < c.is.count && n > c.is.last {
		for n < c.is.count {
			c.parts = append(c.parts, "")
			n++
		}
	}
	if n != c.is.count {
		return fmt.Sprintf("has %d fields, not %d", n, c.is.count), n < c.is.count
	}
	return "", false
}

// headerAgain reports whether the record at hand may be another header: where the time is, there is no digit.
func (c *CSV) headerAgain() bool {
	if c.is.count == 0 || len(c.parts) < 2 {
		return false
	}
	for _, i := range c.is.times {
		if i < len(c.parts) {
			if t := strings.TrimSpace(c.parts[i]); t != "" && t[0]-'0' <= 9 {
				return false
			}
		}
	}
	return true
}

// takeHeader maps the columns if the record at hand names them.
func (c *CSV) takeHeader() (bool, error) {
	m, ok, err := c.readHeader(c.parts)
	if !c.first && (!ok || err != nil) {
		return false, nil // a record that has no time, and some odd words
	}
	if err == nil && !ok {
		err = c.noHeader(c.parts)
	}
	if !ok || err != nil {
		return false, err
	}
	line, err := c.lines.peek(0) // again: looking for the end of a quoted field moves the bytes
	if err != nil {
		return false, err
	}
	c.is = m
	c.header = append(c.header[:0], trimEnd(line)...)
	return true, nil
}

// fill puts the record at hand in r.
func (c *CSV) fill(r *Row) {
	column := func(i int) string {
		if at := c.is.index[i]; at >= 0 {
			return c.parts[at]
		}
		return ""
	}
	*r = Row{}
	e := &r.Event
	e.EventTime, e.EventType, e.ProductID = column(0), column(1), column(2)
	e.CategoryID, e.CategoryCode, e.Brand = column(3), column(4), column(5)
	e.Price, e.UserID, e.UserSession = column(6), column(7), column(8)
	e.TxnTimestamp = column(9)
	if c.custom {
		e.UserID, e.TxnTimestamp = c.parts[c.is.user], ""
		for _, i := range c.is.times {
			if e.EventTime = c.parts[i]; e.EventTime != "" {
				break
			}
		}
		c.object(r)
	}
	if c.null(e.UserID) {
		e.UserID = ""
	}
	c.timeBuf = r.rowTime(c.timeBuf, c.fields.TimeFormat)
}

// bad counts a record that is not sent.
func (c *CSV) bad(line int64, reason string, last bool) error {
	if last {
		reason += "; it is the last line, and cut"
		c.stats.Cut++
		c.stats.CutLine = line
	} else {
		c.stats.Skipped++
	}
	if c.onBad != nil {
		c.onBad(BadLine{File: c.name, Line: line, Reason: reason})
	}
	if len(c.stats.BadLines) < maxBadLines {
		c.stats.BadLines = append(c.stats.BadLines, BadLine{File: c.name, Line: line, Reason: reason})
	}
	if c.stats.Rows == 0 && c.stats.Skipped >= hopeless {
		return fmt.Errorf("is no CSV of the data set: the first %d lines are malformed (line %d %s)",
			hopeless, c.stats.BadLines[0].Line, c.stats.BadLines[0].Reason)
	}
	return nil
}

// blanks around a field that is not quoted are not part of it.
const blanks = " \t"

// splitPlain appends the fields of a record without quotes; they share its memory.
func splitPlain(parts []string, s string, comma byte) []string {
	for {
		i := strings.IndexByte(s, comma)
		if i < 0 {
			return append(parts, strings.Trim(s, blanks))
		}
		parts = append(parts, strings.Trim(s[:i], blanks))
		s = s[i+1:]
	}
}

// splitQuoted puts the fields of the next record in c.parts, and returns its length with all its lines and their ends. If it is
// malformed, the length is that of its first line, so that a stray quote costs one line and not all that follow.
func (c *CSV) splitQuoted() (length int, reason string, err error) {
	rec, reason, err := c.quotedRecord()
	if err != nil || reason != "" {
		return len(rec), reason, err
	}
	c.parts = c.parts[:0]
	text := trimEnd(rec)
	c.complete = len(rec) > len(text)
	for {
		if len(text) == 0 || text[0] != '"' {
			field, rest, more := bytes.Cut(text, []byte{c.comma})
			c.parts = append(c.parts, string(bytes.Trim(field, blanks)))
			if !more {
				return len(rec), "", nil
			}
			text = rest
			continue
		}
		c.quoted = c.quoted[:0]
		for text = text[1:]; ; text = text[1:] {
			part, rest, _ := bytes.Cut(text, []byte{'"'})
			c.quoted = append(c.quoted, part...)
			if text = rest; len(text) == 0 || text[0] != '"' {
				break
			}
			c.quoted = append(c.quoted, '"')
		}
		c.parts = append(c.parts, string(c.quoted))
		if len(text) == 0 {
			return len(rec), "", nil
		}
		text = text[1:] // the comma
	}
}

// quotedRecord returns the next record, or, for its length, its first line, and what is wrong with it. Lines after it may be records of their own that look at
// the same lines; so it is kept up to where an open quote stays open, and no line is looked at again for each of them.
func (c *CSV) quotedRecord() (rec []byte, reason string, err error) {
	const never, text = "has a quote that never closes", "has text after a closing quote"
	first, err := c.lines.peek(0)
	if err != nil {
		return nil, "", err
	}
	switch c.scan(first, false) {
	case ends:
		return first, "", nil
	case breaks:
		return first, text, nil
	}
	for end := max(len(first), int(c.openTo-c.lines.pos)); ; {
		at := c.lines.pos + int64(end)
		if at == c.breaksAt {
			return first, text, nil
		}
		more, err := c.lines.peek(end)
		if errors.Is(err, io.EOF) || errors.Is(err, errTooLong) {
			return first, never, nil
		} else if err != nil {
			return nil, "", err
		}
		switch c.scan(more[end:], true) {
		case ends:
			return more, "", nil
		case breaks:
			c.breaksAt = at
			return more[:len(first)], text, nil
		}
		end = len(more)
		c.openTo = c.lines.pos + int64(end)
	}
}

// effect is what a line does to a record.
type effect int

const (
	ends   effect = iota // it ends the record
	opens                // a quoted field goes on in the next line
	breaks               // there is text after a quoted field
)

// scan tells what a line does to a record, at whose beginning it is, or in one of whose quoted fields.
func (c *CSV) scan(line []byte, quoted bool) effect {
	c.scanned += int64(len(line))
	for rest := trimEnd(line); ; rest = rest[1:] {
		if !quoted {
			if len(rest) == 0 || rest[0] != '"' {
				comma := bytes.IndexByte(rest, c.comma)
				if comma < 0 {
					return ends
				}
				rest = rest[comma:]
				continue
			}
			rest = rest[1:]
		}
		quoted = false
		for {
			q := bytes.IndexByte(rest, '"')
			if q < 0 {
				return opens
			}
			if rest = rest[q+1:]; len(rest) == 0 || rest[0] != '"' {
				break
			}
			rest = rest[1:] // a doubled quote is text
		}
		switch {
		case len(rest) == 0:
			return ends
		case rest[0] != c.comma:
			return breaks
		}
	}
}

// trimEnd returns line without its LF or CRLF.
func trimEnd(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line
}

func isZip(magic []byte) bool {
	return len(magic) >= 4 && magic[0] == 'P' && magic[1] == 'K' && (magic[2] == 3 && magic[3] == 4 || magic[2] == 5 && magic[3] == 6)
}

// maxWindow bounds the memory that a file packed with zstd may ask for.
const maxWindow = 128 << 20

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
