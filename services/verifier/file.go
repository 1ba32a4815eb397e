package verifier

import (
	"archive/zip"
	"bufio"
	"bytes"
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
// many partitions, keyed by the column key: "category_id", "user_id", or "none". What the simulator does not send, because it is no row,
// does not count here either.
func File(path string, key string, partitions int32, rule Rule) (*Reference, error) {
	if partitions < 1 {
		return nil, fmt.Errorf("verify %s: %d partitions", path, partitions)
	}
	if key != "none" && !slices.Contains(columns, key) {
		return nil, fmt.Errorf("verify %s: no column %q to key by", path, key)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	defer f.Close()
	in := &file{key: key, partitions: partitions, ref: NewReference(rule), appended: time.Now().UnixMilli()}
	if err := in.open(f); err != nil {
		return nil, fmt.Errorf("verify %s: %w", path, err)
	}
	return in.ref, nil
}

// file feeds a reference.
type file struct {
	key        string
	partitions int32
	ref        *Reference
	rows       int64 // sent so far
	appended   int64 // when the log takes them, epoch milliseconds: all of them about now
}

func (f *file) open(r *os.File) error {
	info, err := r.Stat()
	if err != nil {
		return err
	}
	z, err := zip.NewReader(r, info.Size())
	if errors.Is(err, zip.ErrFormat) {
		return f.member(r)
	} else if err != nil {
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
	lines := &lineReader{r: in}
	if bom, _ := in.Peek(3); string(bom) == "\xef\xbb\xbf" {
		_, _ = in.Discard(3) // they are in the buffer
	}

	var header string
	index := make([]int, len(columns)) // where each column is; -1 is nowhere
	width := 0                         // fields of a row; 0 is not known yet
	for first := true; ; {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		text := trimEnd(line)
		if text == "" || text == header {
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
		if atFirst && isHeader(fields, index) {
			if index[7] < 0 || index[0] < 0 && index[9] < 0 {
				return errors.New("its header lacks user_id, or both event_time and txn_timestamp")
			}
			header, width = text, len(fields)
			continue
		}
		if width == 0 && (len(fields) == len(columns)-1 || len(fields) == len(columns)) {
			width = len(fields)
			for i := range index {
				index[i] = i
				if i >= width {
					index[i] = -1
				}
			}
		}
		if len(fields) == width {
			f.row(fields, index)
		}
	}
}

// isHeader finds the columns in a first line that names one of those that matter.
func isHeader(fields []string, index []int) bool {
	for i, name := range columns {
		index[i] = slices.IndexFunc(fields, func(f string) bool { return strings.EqualFold(strings.TrimSpace(f), name) })
	}
	return index[0] >= 0 || index[7] >= 0 || index[9] >= 0
}

func (f *file) row(fields []string, index []int) {
	column := func(name string) string {
		if i := slices.Index(columns, name); i >= 0 && index[i] >= 0 {
			return fields[index[i]]
		}
		return ""
	}
	partition := int32(f.rows % int64(f.partitions))
	if key := column(f.key); key != "" { // there is no column "none"
		partition = kafka.PartitionFor([]byte(key), f.partitions)
	}
	f.rows++
	f.ref.addText(partition, column("user_id"), column("txn_timestamp"), column("event_time"), f.appended)
}

// lineReader reads lines, and takes them back.
type lineReader struct {
	r      *bufio.Reader
	pushed []string
}

// next returns the next line that is not too long, with its end, or io.EOF.
func (l *lineReader) next() (string, error) {
	if n := len(l.pushed); n > 0 {
		line := l.pushed[n-1]
		l.pushed = l.pushed[:n-1]
		return line, nil
	}
	for {
		line, err := l.r.ReadSlice('\n')
		switch {
		case err == nil, errors.Is(err, io.EOF) && len(line) > 0:
			return string(line), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", err
		}
		for errors.Is(err, bufio.ErrBufferFull) { // longer than any record
			_, err = l.r.ReadSlice('\n')
		}
		if err != nil {
			return "", err
		}
	}
}

// split returns the fields of the record that begins with line, of which it may read more lines. ok is false if it is malformed; then it
// is line only.
func (l *lineReader) split(line string) (fields []string, ok bool, err error) {
	record := line
	var more []string
	for {
		fields, open, ok := splitRecord(record)
		if ok {
			return fields, true, nil
		}
		var next string
		if open && len(record) <= maxRecord {
			next, err = l.next()
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, false, err
			}
		}
		if next == "" { // a stray quote costs its line, not those that follow
			slices.Reverse(more)
			l.pushed = append(l.pushed, more...)
			return nil, false, nil
		}
		more = append(more, next)
		record += next
	}
}

// splitRecord splits a record. A field that begins with a quote ends with one and may have commas, line ends and doubled quotes within;
// quotes in other fields are text. open: a quote is not closed.
func splitRecord(rec string) (fields []string, open, ok bool) {
	rec = trimEnd(rec)
	for {
		if !strings.HasPrefix(rec, `"`) {
			field, rest, found := strings.Cut(rec, ",")
			fields = append(fields, field)
			if !found {
				return fields, false, true
			}
			rec = rest
			continue
		}
		var field bytes.Buffer
		for rec = rec[1:]; ; rec = rec[1:] {
			text, rest, closed := strings.Cut(rec, `"`)
			if !closed {
				return nil, true, false
			}
			field.WriteString(text)
			if rec = rest; !strings.HasPrefix(rec, `"`) {
				break
			}
			field.WriteByte('"')
		}
		fields = append(fields, field.String())
		switch {
		case rec == "":
			return fields, false, true
		case rec[0] != ',':
			return nil, false, false
		}
		rec = rec[1:]
	}
}

// trimEnd returns line without its LF or CRLF.
func trimEnd(line string) string {
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
}
