package simulator

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"spate/shared/activity"
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
	// Nulls are the rows whose user is a word that stands for no user, by the word.
	Nulls map[string]int64
	// BadLines are the first 5 records that were skipped or cut.
	BadLines []BadLine
}

// CSV is a source that reads a file of CSV or of JSON lines as a stream: plain, packed with gzip, bzip2 or zstd, or a zip with any number
// of members. The first bytes decide which, not the name.
//
// Of CSV, a first line that names columns maps them; without one the columns are the 9 of the data set in their order, or these and
// txn_timestamp. A field is quoted if it begins with a quote, and may then contain the separator, line ends and doubled quotes; quotes
// within other fields are text. Line ends are LF or CRLF; blank lines, a byte order mark, and a header that occurs again (files
// put together) are passed over. Bad records never end the reading, except when a file begins with 1000 of them.
type CSV struct {
	name    string
	members []member // still to read
	lines   *lineReader
	member  io.Closer
	file    io.Closer

	fields  activity.Fields
	custom  bool     // the fields are not those of the data set
	literal []string // names of columns whose dots lead into no object
	nulls   []string
	scanner *activity.Scanner // of JSON lines
	keys    *activity.Scanner // of their category_id
	comma   byte
	cut     string // what does not belong to a field, around it
	jsonl   bool
	is      mapping
	header  []byte // text of the header line
	first   bool   // the next record is the first of its member
	// complete: the current record has its line end.
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
	leftOut []string    // its members that are not files of events, by their names

	read  *atomic.Int64 // of total, for the progress
	total int64         // bytes; 0 is not known
}

func newCSV(name string, file io.Closer) *CSV {
	c := &CSV{name: name, file: file, read: new(atomic.Int64), comma: ',', cut: blanks}
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
	s.BadLines, s.Nulls = slices.Clone(s.BadLines), maps.Clone(s.Nulls)
	return s
}

// LeftOut are the members of an archive that are not read, for by their names they are something else.
func (c *CSV) LeftOut() []string { return c.leftOut }

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

// Whole has all columns of a file sent, by their names, and not those of the data set alone. Call it after Fields.
func (c *CSV) Whole() { c.custom = true }

// Exact is Whole, with the blanks around fields that are not quoted: rules see values as Flink does. The user and the time go without them. The column a.b is the
// member b of a, unless its name is literally that.
func (c *CSV) Exact(literal ...string) { c.custom, c.cut, c.literal = true, "", literal }

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
		c.parts = splitPlain(c.parts[:0], string(text), c.comma, c.cut)
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
			return fmt.Sprintf("has %s, but a file without a header must have 9 or 10", fieldsOf(n)), n < len(columns)-1
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
		return fmt.Sprintf("has %s, expected %d", fieldsOf(n), c.is.count), n < c.is.count
	}
	return "", false
}

func fieldsOf(n int) string {
	if n == 1 {
		return "1 field"
	}
	return fmt.Sprintf("%d fields", n)
}

// headerAgain reports whether the current record may be another header: no time in it begins with a digit.
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

// takeHeader maps the columns if the current record names them.
func (c *CSV) takeHeader() (bool, error) {
	m, ok, err := c.readHeader(c.parts)
	if !c.first && (!ok || err != nil) {
		return false, nil // a record whose time is missing or a word
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

// fill copies the current record to r.
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
		e.UserID, e.TxnTimestamp = strings.Trim(c.parts[c.is.user], blanks), ""
		for _, i := range c.is.times {
			if e.EventTime = strings.Trim(c.parts[i], blanks); e.EventTime != "" {
				break
			}
		}
		c.object(r)
	}
	if c.null(e.UserID) {
		if e.UserID != "" {
			if c.stats.Nulls == nil {
				c.stats.Nulls = make(map[string]int64)
			}
			c.stats.Nulls[e.UserID]++
		}
		e.UserID = ""
	}
	c.timeBuf = r.rowTime(c.timeBuf, c.fields.TimeFormat)
}

// bad counts a record that is not sent.
func (c *CSV) bad(line int64, reason string, last bool) error {
	if last {
		reason += "; it is the last line and is truncated"
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
		return fmt.Errorf("is not a CSV file in the data set's format: the first %d lines are malformed (line %d %s)",
			hopeless, c.stats.BadLines[0].Line, c.stats.BadLines[0].Reason)
	}
	return nil
}
