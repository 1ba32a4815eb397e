package verifier

import (
	"archive/zip"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"spate/shared/kafka"
)

const maxRecord = 64 << 10 // longest record of a file, bytes

// columns of the data set, in its order; the last one may be missing.
var columns = []string{
	"event_time", "event_type", "product_id", "category_id", "category_code", "brand", "price", "user_id", "user_session", "txn_timestamp",
}

// File returns the reference of a CSV file (plain, gzip or zip) that the simulator sends in its original order and times to a topic of so
// many partitions, keyed by the column key: "category_id", "user_id", or "none". What the simulator does not send, because it is not a row,
// does not count here either.
func File(path string, key string, partitions int32, rule Rule) (*Reference, error) {
	if partitions < 1 {
		return nil, fmt.Errorf("verify %s: %d partitions; at least 1 is required", path, partitions)
	}
	if key != "none" && !slices.Contains(columns, key) {
		return nil, fmt.Errorf("verify %s: there is no column %q to use as the key", path, key)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	defer f.Close()
	ref, appended := NewReference(rule), time.Now().UnixMilli()
	in := newFile(key, partitions)
	in.row = func(partition int32, column func(string) string) bool {
		ref.addText(partition, column("user_id"), column("txn_timestamp"), column("event_time"), appended)
		return true
	}
	if err := in.open(f); err != nil {
		return nil, fmt.Errorf("verify %s: %w", path, err)
	}
	return ref, nil
}

// file reads the rows that the simulator sends.
type file struct {
	key          string
	partitions   int32
	users, times []string // the columns of which a header must have one each; there may be no users
	row          func(partition int32, column func(string) string) bool
	verbatim     bool  // blanks around a field are part of it
	rows         int64 // sent so far
	steps        int64 // bytes that were looked at for quotes
}

// newFile is a file of the data set.
func newFile(key string, partitions int32) *file {
	return &file{key: key, partitions: partitions, users: []string{"user_id"}, times: []string{"txn_timestamp", "event_time"}}
}

// errStop ends the reading of a file whose rows nobody wants anymore.
var errStop = errors.New("no more rows are wanted")

func (f *file) open(r *os.File) error {
	info, err := r.Stat()
	if err != nil {
		return err
	}
	// The first bytes decide, as everywhere: a zip can be appended to a file of any kind.
	var magic [4]byte
	if _, err := r.ReadAt(magic[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if string(magic[:]) != "PK\x03\x04" && string(magic[:]) != "PK\x05\x06" { // with members, or none
		return f.member(r)
	}
	z, err := zip.NewReader(r, info.Size())
	if err != nil {
		return err
	}
	// The members that are CSV files, or the only one there is.
	members := slices.DeleteFunc(z.File, func(m *zip.File) bool {
		return m.FileInfo().IsDir() || strings.HasPrefix(m.Name, "__MACOSX/")
	})
	csvs := slices.DeleteFunc(slices.Clone(members), func(m *zip.File) bool {
		name := strings.ToLower(m.Name)
		return !strings.HasSuffix(name, ".csv") && !strings.HasSuffix(name, ".csv.gz")
	})
	if len(csvs) == 0 && len(members) == 1 {
		csvs = members
	}
	if len(csvs) == 0 {
		return errors.New("no file in it ends in .csv")
	}
	for _, m := range csvs {
		if err := f.zipped(m); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	return nil
}

func (f *file) zipped(m *zip.File) error {
	r, err := m.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	return f.member(r)
}

// member reads one CSV, which may be compressed.
func (f *file) member(r io.Reader) error {
	in := bufio.NewReaderSize(r, maxRecord)
	if magic, _ := in.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		in = bufio.NewReaderSize(z, maxRecord)
	}
	lines := &recordReader{r: in, steps: &f.steps, verbatim: f.verbatim}
	if bom, _ := in.Peek(3); string(bom) == "\xef\xbb\xbf" {
		_, _ = in.Discard(3) // they are in the buffer
	}

	var header string
	var index map[string]int // where each column is
	width := 0               // fields of a row; 0 is not known yet
	for first := true; ; {
		line, err := lines.take()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		text := trimEnd(line.text)
		if line.tooLong || text == "" || text == header {
			continue
		}
		fields, ok, err := lines.split(line)
		if err != nil {
			return err
		}
		atFirst := first
		first = false
		if !ok {
			continue
		}
		if atFirst {
			if index = indexOf(fields); f.isHeader(index) {
				if err := f.lacks(index); err != nil {
					return err
				}
				header, width = text, len(fields)
				continue
			}
		}
		if width == 0 && (len(fields) == len(columns)-1 || len(fields) == len(columns)) {
			width = len(fields)
			index = indexOf(columns[:width])
		}
		// What a complete line lacks at its end, behind user and time, is empty.
		for lines.complete && len(fields) < width && len(fields) > f.last(index) {
			fields = append(fields, "")
		}
		if len(fields) == width && !f.send(fields, index) {
			return errStop
		}
	}
}

// indexOf returns where each column is, by its name in small letters. Of those of one name it is the first.
func indexOf(names []string) map[string]int {
	index := make(map[string]int, len(names))
	for i, n := range names {
		n = strings.ToLower(strings.TrimSpace(n))
		if _, twice := index[n]; !twice {
			index[n] = i
		}
	}
	return index
}

// isHeader reports whether a first line names one of the columns that matter.
func (f *file) isHeader(index map[string]int) bool {
	return slices.ContainsFunc(slices.Concat(f.users, f.times), func(name string) bool { _, ok := index[name]; return ok })
}

// lacks returns what a header does not have.
func (f *file) lacks(index map[string]int) error {
	has := func(name string) bool { _, ok := index[name]; return ok }
	switch timed := slices.ContainsFunc(f.times, has); {
	case len(f.users) > 0 && (!timed || !slices.ContainsFunc(f.users, has)):
		return errors.New("its header lacks user_id, or both event_time and txn_timestamp")
	case !timed:
		return fmt.Errorf("its header lacks %s", strings.Join(f.times, " and "))
	}
	return nil
}

// last is where the last column is that a row cannot do without.
func (f *file) last(index map[string]int) int {
	last := -1
	for _, name := range slices.Concat(f.users, f.times) {
		if i, ok := index[name]; ok {
			last = max(last, i)
		}
	}
	return last
}

// send passes a row on.
func (f *file) send(fields []string, index map[string]int) bool {
	column := func(name string) string {
		if i, ok := index[strings.ToLower(name)]; ok {
			return fields[i]
		}
		return ""
	}
	partition := int32(f.rows % int64(f.partitions))
	if key := column(f.key); key != "" { // "none" is not a column
		partition = kafka.PartitionFor([]byte(key), f.partitions)
	}
	f.rows++
	return f.row(partition, column)
}

// recordReader reads the records of a file, which are lines, or several where a quoted field has line ends.
//
// A record whose quote never closes is its first line only; those after it may be records of their own, whose quotes may not close either.
// So that no line is looked at again for each of them, it is kept of a line what becomes of a quote that is open where it begins.
type recordReader struct {
	r     *bufio.Reader
	ahead []fileLine // read, and not taken yet
	// open is how many lines at the beginning of ahead leave an open quote open, size how many bytes they have.
	open, size int
	steps      *int64
	verbatim   bool
	complete   bool // the record that was split last has its line end
}

// fileLine is a line with its end. A line that is longer than any record has no text.
type fileLine struct {
	text    string
	tooLong bool
	breaks  bool // it is known to break a record in one of whose quoted fields it is
}

// effect is what a line does to a record.
type effect int

const (
	ends   effect = iota // it ends the record
	opens                // a quoted field goes on in the next line
	breaks               // there is text after a quoted field
)

// take returns the next line, or io.EOF.
func (l *recordReader) take() (fileLine, error) {
	if len(l.ahead) == 0 {
		return l.read()
	}
	line := l.ahead[0]
	l.ahead = l.ahead[1:]
	if l.open > 0 {
		l.open--
		l.size -= len(line.text)
	}
	return line, nil
}

func (l *recordReader) read() (fileLine, error) {
	line, err := l.r.ReadSlice('\n')
	switch {
	case err == nil, errors.Is(err, io.EOF) && len(line) > 0:
		return fileLine{text: string(line)}, nil
	case !errors.Is(err, bufio.ErrBufferFull):
		return fileLine{}, err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = l.r.ReadSlice('\n')
	}
	if errors.Is(err, io.EOF) {
		err = nil // the next read says so
	}
	return fileLine{tooLong: true}, err
}

// split returns the fields of the record that begins with line, of which it may take more lines. ok is false if it is malformed; then it
// is line only.
func (l *recordReader) split(line fileLine) (fields []string, ok bool, err error) {
	switch l.scan(line.text, false) {
	case ends:
		l.complete = strings.HasSuffix(line.text, "\n")
		return splitRecord(line.text, l.verbatim), true, nil
	case breaks:
		return nil, false, nil
	}
	for len(line.text)+l.size <= maxRecord {
		if l.open == len(l.ahead) {
			next, err := l.read()
			if errors.Is(err, io.EOF) {
				return nil, false, nil
			} else if err != nil {
				return nil, false, err
			}
			l.ahead = append(l.ahead, next)
		}
		next := &l.ahead[l.open]
		if next.tooLong || next.breaks || len(line.text)+l.size+len(next.text) > maxRecord {
			return nil, false, nil
		}
		switch l.scan(next.text, true) {
		case breaks:
			next.breaks = true
			return nil, false, nil
		case opens:
			l.open++
			l.size += len(next.text)
			continue
		}
		var record strings.Builder
		record.WriteString(line.text)
		for n := l.open; n >= 0; n-- {
			next, err := l.take()
			if err != nil {
				return nil, false, err
			}
			record.WriteString(next.text)
		}
		l.complete = strings.HasSuffix(record.String(), "\n")
		return splitRecord(record.String(), l.verbatim), true, nil
	}
	return nil, false, nil
}

// scan returns how a line changes the state of a record: the line is at its beginning, or within one of its quoted fields.
func (l *recordReader) scan(line string, quoted bool) effect {
	*l.steps += int64(len(line))
	rest := trimEnd(line)
	for {
		if !quoted {
			if !strings.HasPrefix(rest, `"`) {
				_, after, more := strings.Cut(rest, ",")
				if !more {
					return ends
				}
				rest = after
				continue
			}
			rest = rest[1:]
		}
		quoted = false
		for {
			_, after, found := strings.Cut(rest, `"`)
			if !found {
				return opens
			}
			if rest = after; !strings.HasPrefix(rest, `"`) {
				break
			}
			rest = rest[1:] // a doubled quote is text
		}
		switch {
		case rest == "":
			return ends
		case rest[0] != ',':
			return breaks
		}
		rest = rest[1:]
	}
}

// splitRecord splits a well-formed record. A field that begins with a quote ends with one and may have commas, line ends and doubled quotes
// within; quotes in other fields are text, and blanks around them are not, unless they are wanted verbatim.
func splitRecord(rec string, verbatim bool) (fields []string) {
	rec = trimEnd(rec)
	for {
		if !strings.HasPrefix(rec, `"`) {
			field, rest, more := strings.Cut(rec, ",")
			if !verbatim {
				field = strings.Trim(field, " \t")
			}
			fields = append(fields, field)
			if !more {
				return fields
			}
			rec = rest
			continue
		}
		var field strings.Builder
		for rec = rec[1:]; ; rec = rec[1:] {
			text, rest, _ := strings.Cut(rec, `"`)
			field.WriteString(text)
			if rec = rest; !strings.HasPrefix(rec, `"`) {
				break
			}
			field.WriteByte('"')
		}
		fields = append(fields, field.String())
		if rec == "" {
			return fields
		}
		rec = rec[1:] // the comma
	}
}

// trimEnd returns line without its LF or CRLF.
func trimEnd(line string) string {
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
}
