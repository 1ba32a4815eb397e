package simulator

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"spate/shared/activity"
	"spate/tests/harness"
)

const (
	header9 = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
	lineA   = "2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde\n"
	lineB   = "2019-10-01 00:00:03 UTC,cart,5773353,1487580005134238464,a.b,runail,2.62,463240011,26dd6e6e\n"
)

var (
	eventA = activity.Event{EventTime: "2019-10-01 00:00:00 UTC", EventType: "view", ProductID: "44600062", CategoryID: "2103807459595387724",
		Brand: "shiseido", Price: "35.79", UserID: "541312140", UserSession: "72d76fde"}
	eventB = activity.Event{EventTime: "2019-10-01 00:00:03 UTC", EventType: "cart", ProductID: "5773353", CategoryID: "1487580005134238464",
		CategoryCode: "a.b", Brand: "runail", Price: "2.62", UserID: "463240011", UserSession: "26dd6e6e"}
)

func events(rows []Row) []activity.Event {
	var out []activity.Event
	for _, r := range rows {
		out = append(out, r.Event)
	}
	return out
}

func readCSV(t testing.TB, text string) ([]Row, CSVStats) {
	t.Helper()
	c, err := ReadCSV(strings.NewReader(text), "test")
	if err != nil {
		t.Fatal(err)
	}
	rows := collect(t, c, 0)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return rows, c.Stats()
}

func TestCSV(t *testing.T) {
	both := []activity.Event{eventA, eventB}
	withTxn := eventA
	withTxn.TxnTimestamp = "2019-10-01T00:00:00.123Z"
	with := func(e activity.Event, change func(*activity.Event)) activity.Event { change(&e); return e }
	crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
	long := strings.Repeat("x", maxRecord)

	for _, c := range []struct {
		name  string
		text  string
		want  []activity.Event
		stats CSVStats // Rows is set by want
	}{
		{name: "empty file"},
		{name: "blank lines", text: "\n\r\n\n"},
		{name: "only a header", text: header9},
		{name: "header without its line end", text: strings.TrimSuffix(header9, "\n")},
		{name: "header", text: header9 + lineA + lineB, want: both},
		{name: "no header", text: lineA + lineB, want: both},
		{name: "no last line end", text: header9 + lineA + strings.TrimSuffix(lineB, "\n"), want: both},
		{name: "CRLF", text: crlf(header9 + lineA + lineB), want: both},
		{name: "byte order mark", text: "\xef\xbb\xbf" + header9 + lineA + lineB, want: both},
		{name: "byte order mark, no header", text: "\xef\xbb\xbf" + lineA + lineB, want: both},
		{name: "blank lines between", text: "\n" + header9 + "\n" + lineA + "\r\n\n" + lineB + "\n", want: both},
		{name: "header again", text: header9 + lineA + header9 + lineB, want: both},
		{name: "10 columns, no header", text: strings.TrimSuffix(lineA, "\n") + ",2019-10-01T00:00:00.123Z\n", want: []activity.Event{withTxn}},
		{
			name: "other order, other case, more columns", text: "USER_ID,x, event_time ,\"brand\"\n7,?,2019-10-01 00:00:00 UTC,b\n",
			want: []activity.Event{{UserID: "7", EventTime: "2019-10-01 00:00:00 UTC", Brand: "b"}},
		},
		{
			name: "quotes", text: header9 +
				strings.Replace(lineA, "shiseido", `"a, ""b""`+"\r\nc\"", 1) +
				strings.Replace(lineB, "runail", `""`, 1) +
				strings.Replace(lineA, "shiseido", `o"stin`, 1) +
				strings.Replace(lineB, "26dd6e6e", `"26dd6e6e"`, 1),
			want: []activity.Event{
				with(eventA, func(e *activity.Event) { e.Brand = "a, \"b\"\r\nc" }),
				with(eventB, func(e *activity.Event) { e.Brand = "" }),
				with(eventA, func(e *activity.Event) { e.Brand = `o"stin` }),
				eventB,
			},
		},
		{
			name: "cut last line", text: header9 + lineA + lineB + lineA[:60],
			want: both, stats: CSVStats{Cut: 1, CutLine: 4, BadLines: []BadLine{{"test", 4, "has 6 fields, expected 9; it is the last line and is truncated"}}},
		},
		{
			name: "cut within quotes", text: header9 + lineA + "2019-10-01 00:00:00 UTC,\"vi",
			want: both[:1], stats: CSVStats{Cut: 1, CutLine: 3, BadLines: []BadLine{{"test", 3, "has a quote that never closes; it is the last line and is truncated"}}},
		},
		{
			name: "malformed in the middle", text: header9 + lineA + "a,b\n" + lineB[:len(lineB)-1] + ",more\n" + lineB,
			want: both, stats: CSVStats{Skipped: 2, BadLines: []BadLine{{"test", 3, "has 2 fields, expected 9"}, {"test", 4, "has 10 fields, expected 9"}}},
		},
		{
			name: "a stray quote costs one line", text: header9 + "x,\"y\n" + lineA + "\"x\"y,z\n" + lineB,
			want: both, stats: CSVStats{Skipped: 2, BadLines: []BadLine{{"test", 2, "has text after a closing quote"}, {"test", 4, "has text after a closing quote"}}},
		},
		{
			name: "too long", text: header9 + lineA + long + "\n" + lineB,
			want: both, stats: CSVStats{Skipped: 1, BadLines: []BadLine{{"test", 3, "longer than 65536 bytes"}}},
		},
		{
			name: "a quote that does not close in time", text: header9 + lineA + "\"" + strings.Repeat("x\n", 50_000) + lineB,
			want: both, stats: CSVStats{Skipped: 50_000, BadLines: []BadLine{
				{"test", 3, "has a quote that never closes"}, {"test", 4, "has 1 field, expected 9"}, {"test", 5, "has 1 field, expected 9"},
				{"test", 6, "has 1 field, expected 9"}, {"test", 7, "has 1 field, expected 9"},
			}},
		},
		{
			name: "unreadable time is a row", text: header9 + strings.Replace(lineA, "2019", "soon", 1),
			want: []activity.Event{with(eventA, func(e *activity.Event) { e.EventTime = "soon-10-01 00:00:00 UTC" })},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			rows, stats := readCSV(t, c.text)
			if d := cmp.Diff(c.want, events(rows)); d != "" {
				t.Error(d)
			}
			c.stats.Rows = int64(len(c.want))
			if d := cmp.Diff(c.stats, stats); d != "" {
				t.Error(d)
			}
			// However the bytes come.
			small, err := ReadCSV(iotest.OneByteReader(strings.NewReader(c.text)), "test")
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, events(collect(t, small, 0))); d != "" {
				t.Error("one byte at a time:", d)
			}
		})
	}
}

func TestCSVTimes(t *testing.T) {
	rows, _ := readCSV(t, header9[:len(header9)-1]+",txn_timestamp\n"+
		lineA[:len(lineA)-1]+",2019-11-01T00:00:00.5Z\n"+
		lineA[:len(lineA)-1]+",\n"+
		lineA[:len(lineA)-1]+",soon\n")
	var got []int64
	for _, r := range rows {
		if !r.HasTime {
			r.TimeMS = -1
		}
		got = append(got, r.TimeMS)
	}
	if d := cmp.Diff([]int64{1572566400500, 1569888000000, -1}, got); d != "" {
		t.Error(d)
	}
}

func TestCSVFiles(t *testing.T) {
	gz := func(s string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = io.WriteString(w, s)
		_ = w.Close()
		return b.String()
	}
	zipped := func(members ...string) string {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		for i := 0; i < len(members); i += 2 {
			m, err := w.Create(members[i])
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(m, members[i+1])
		}
		_ = w.Close()
		return b.String()
	}
	both := []activity.Event{eventA, eventB}
	for _, c := range []struct {
		name, file, text string
		want             []activity.Event
		err              string
	}{
		{name: "plain", file: "a.csv", text: header9 + lineA + lineB, want: both},
		{name: "gzip", file: "a.csv.gz", text: gz(header9 + lineA + lineB), want: both},
		{name: "gzip under another name", file: "a.csv", text: gz(header9 + lineA + lineB), want: both},
		{name: "gzips put together", file: "a.gz", text: gz(header9+lineA) + gz(header9+lineB), want: both},
		{name: "cut gzip", file: "a.gz", text: gz(header9 + strings.Repeat(lineA, 10))[:100], err: "a.gz: unexpected EOF"},
		{name: "zip", file: "a.zip", text: zipped("a.csv", header9+lineA+lineB), want: both},
		{name: "zip under another name", file: "a", text: zipped("a.csv", header9+lineA+lineB), want: both},
		{name: "zip of several", file: "a.zip", text: zipped("__MACOSX/a.csv", "?", "d/a.CSV", header9+lineA, "readme", "?", "b.csv", "\xef\xbb\xbf"+lineB), want: both},
		{name: "zip of a gzip", file: "a.zip", text: zipped("a.csv.gz", gz(header9+lineA+lineB)), want: both},
		{name: "zip of one file of any name", file: "a.zip", text: zipped("data", lineA), want: both[:1]},
		{name: "zip without csv", file: "a.zip", text: zipped("x", "", "y", ""), err: "none of the 2 files ends in .csv, .tsv, .jsonl"},
		{name: "empty zip", file: "a.zip", text: zipped(), err: "the archive contains no files"},
		{name: "not the data set", file: "a.csv", text: strings.Repeat("x y z\n", 2000), err: "is not a CSV file in the data set's format: the first 1000 lines are malformed (line 1 has 1 field, but a file without a header must have 9 or 10)"},
		{name: "array", file: "a.json", text: `[{"user_id":1}]`, err: "is a JSON array, not one JSON object per line; convert it: jq"},
		{name: "array of lines", file: "a.json", text: "[\n  {\n", err: "is a JSON array"},
		{name: "XML", file: "a.xml", text: "<?xml version=\"1.0\"?>\n<events/>\n", err: "is XML or HTML"},
		{name: "workbook", file: "a.xlsx", text: zipped("[Content_Types].xml", "", "xl/workbook.xml", ""), err: "is an Excel workbook; save it as CSV"},
		{name: "no user", file: "a.csv", text: "event_time,brand\n", err: "no column user_id"},
		{name: "no time", file: "a.csv", text: "user_id,brand\n", err: "no column txn_timestamp or event_time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), c.file)
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			src, err := OpenCSV(path)
			var got []activity.Event
			for err == nil {
				var r Row
				if err = src.Next(&r); err == nil {
					got = append(got, r.Event)
				}
			}
			if c.err == "" && !errors.Is(err, io.EOF) || c.err != "" && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if c.err != "" && !strings.Contains(err.Error(), path) {
				t.Errorf("error %q does not name the file", err)
			}
			if d := cmp.Diff(c.want, got); c.err == "" && d != "" {
				t.Error(d)
			}
			if src != nil {
				if done, total := src.progress(); c.err == "" && (done != total || total == 0) {
					t.Errorf("progress is %d of %d at the end", done, total)
				}
				if err := src.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if _, err := OpenCSV("/no/such/file.csv"); err == nil || !strings.Contains(err.Error(), "/no/such/file.csv") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := OpenCSV(t.TempDir()); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("directory: %v", err)
	}
	piped, err := ReadCSV(strings.NewReader(zipped("a.csv", lineA)), "standard input")
	if err == nil {
		err = piped.Next(new(Row))
	}
	if err == nil || !strings.Contains(err.Error(), "unzip -p") {
		t.Errorf("zip as a stream: %v", err)
	}
}

func TestCSVOfTheDataSet(t *testing.T) {
	for _, c := range []struct {
		name    string
		rows    int
		cutLine int64
	}{
		{"data/cosmetics-2019-10-head-9col.csv", 999, 0},
		{"data/cosmetics-2019-12-head-9col.csv", 999, 0},
		{"data/rees46-2019-oct-head.csv", 17434, 17436},
	} {
		t.Run(filepath.Base(c.name), func(t *testing.T) {
			path := harness.SharedFile(t, c.name)
			out, res := output(t, func(cfg *Config) { cfg.File = path })
			if n := strings.Count(out, "\n"); n != c.rows || res.Sent != int64(c.rows) {
				t.Errorf("%d lines, %d sent, want %d", n, res.Sent, c.rows)
			}
			if res.CutLine != c.cutLine || res.Skipped != 0 {
				t.Errorf("cut line %d, %d skipped, want %d and none", res.CutLine, res.Skipped, c.cutLine)
			}
			if strings.Contains(out, "txn_timestamp") {
				t.Error("a txn_timestamp that the file does not have")
			}
			if res.FirstEventMS == 0 || res.LastEventMS <= res.FirstEventMS {
				t.Errorf("event times %d to %d", res.FirstEventMS, res.LastEventMS)
			}
		})
	}
}

// TestCSVRoundTrip: what the generator writes as CSV comes back the same.
func TestCSVRoundTrip(t *testing.T) {
	for _, name := range []string{"e.csv", "e.csv.gz"} {
		path := filepath.Join(t.TempDir(), name)
		output(t, func(c *Config) { c.Events, c.Out = 3000, path })
		direct, _ := output(t, func(c *Config) { c.Events = 3000 })
		back, _ := output(t, func(c *Config) { c.File = path })
		if direct != back {
			t.Errorf("%s: the rows came back changed", name)
		}
	}
}

func FuzzCSV(f *testing.F) {
	f.Add(header9 + lineA + lineB)
	f.Add("\xef\xbb\xbf" + lineA + "\"a\"\"\n,\"b\r\n" + lineB[:40])
	f.Add("user_id,event_time\n1,\"2\"\n\"3,4\n\n5")
	f.Add("# a remark\nsep=,\n" + lineA)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ReadCSV(strings.NewReader(text), "fuzz")
		if err != nil {
			t.Fatal(err)
		}
		rows := int64(0)
		for err == nil {
			var r Row
			if err = c.Next(&r); err == nil {
				rows++
			}
		}
		s := c.Stats()
		lines := int64(strings.Count(text, "\n") + 1)
		if s.Rows != rows || s.Rows+s.Skipped+s.Cut > lines || s.Cut > 1 || s.CutLine > lines {
			t.Errorf("%d rows, stats %+v, of %d lines", rows, s, lines)
		}
		if !errors.Is(err, io.EOF) || strings.ContainsRune(text, '"') {
			return // refused as another kind of file; or some records have several lines
		}
		// Without quotes every line that is not blank is in one of the counts, unless it is a remark before the header or a header.
		atLeast, atMost := int64(0), int64(0)
		for line := range strings.SplitSeq(strings.TrimPrefix(text, "\xef\xbb\xbf"), "\n") {
			line = strings.TrimSuffix(line, "\r")
			if line == "" {
				continue
			}
			atMost++
			if line[0] != '#' && !strings.HasPrefix(line, "sep=") && c.header == nil {
				atLeast++
			}
		}
		if got := s.Rows + s.Skipped + s.Cut; got < atLeast || got > atMost {
			t.Errorf("stats %+v of %d to %d lines with text", s, atLeast, atMost)
		}
	})
}

func BenchmarkCSV(b *testing.B) {
	var text strings.Builder
	text.WriteString(header9)
	for i := range 20_000 {
		text.WriteString("2019-10-01 00:00:00 UTC,view,3900821,2053013552326770905,appliances.environment.water_heater,aqua,33.20," +
			strconv.Itoa(554748717+i) + ",9333dfbd-b87a-4708-9857-6336556b0fcc\n")
	}
	b.SetBytes(int64(text.Len()) / 20_000)
	b.ReportAllocs()
	var c *CSV
	left := 0
	var r Row
	for b.Loop() {
		if left == 0 {
			c, _ = ReadCSV(strings.NewReader(text.String()), "bench")
			left = 20_000
		}
		left--
		if err := c.Next(&r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// TestCSVReadsWhatOthersWrite: fields of any text, as encoding/csv quotes them.
func TestCSVReadsWhatOthersWrite(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	alphabet := []string{`"`, `""`, ",", "\n", "\r\n", "x", " ", "é", ""}
	for range 300 {
		var text bytes.Buffer
		w := csv.NewWriter(&text)
		var want [][]string
		for range rng.IntN(5) {
			record := make([]string, 9)
			for i := range record {
				for range rng.IntN(4) {
					record[i] += alphabet[rng.IntN(len(alphabet))]
				}
			}
			record[7] = "user" // no header, no blank line
			read := slices.Clone(record)
			for i, f := range read {
				if !strings.ContainsAny(f, ",\"\r\n") && !strings.HasPrefix(f, " ") { // it is not quoted
					read[i] = strings.TrimRight(f, " ")
				}
			}
			want = append(want, read)
			if err := w.Write(record); err != nil {
				t.Fatal(err)
			}
		}
		w.Flush()
		var got [][]string
		rows, stats := readCSV(t, text.String())
		for _, r := range rows {
			e := r.Event
			got = append(got, []string{e.EventTime, e.EventType, e.ProductID, e.CategoryID, e.CategoryCode, e.Brand, e.Price, e.UserID, e.UserSession})
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("seed %d: %s\n%q\n%+v", seed, d, text.String(), stats)
		}
	}
}

// The work grows with the file, and no faster, whatever its quotes do. It is counted, not timed.
func TestCSVIsReadInLinearTime(t *testing.T) {
	const header = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
	const good = "2019-11-01 00:00:00 UTC,view,1,2,,b,1.0,77,s\n"
	for name, line := range map[string]string{
		"one quote, then blank lines": "\n",
		"every line opens a quote":    "a\",\"b\n",
		"quotes that span two lines":  "\"\n",
		"doubled quotes":              "\"\"\"\"\n",
		"text after a quote":          "\"a\nb\"c\n",
		"a long line that breaks":     strings.Repeat("a\",\"b\n", 5000) + strings.Repeat("c", 30_000) + "\"c\n",
	} {
		for _, size := range []int{64 << 10, 1 << 20} {
			content := header + good + "\"x\n" + strings.Repeat(line, size/len(line)) + good
			c, err := ReadCSV(strings.NewReader(content), "test")
			if err != nil {
				t.Fatal(err)
			}
			var row Row
			for err == nil {
				err = c.Next(&row)
			}
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if perByte := float64(c.scanned) / float64(len(content)); perByte > 3 {
				t.Errorf("%s, %d bytes: each was looked at %.1f times", name, len(content), perByte)
			}
		}
	}
}

// A row of JSON gets its id and another time without a change to the rest of it.
func TestRowsOfJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":1}`: `{"a":1,"event_id":"x"}`, `{}`: `{"event_id":"x"}`, `{ }`: `{ "event_id":"x"}`, `[1]`: `[1]`, `{"a":{}}`: `{"a":{},"event_id":"x"}`,
	} {
		if got := string(withID([]byte(in), "x")); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	text := "{\"customer\":{\"id\":7},\"at\":1572566400,\"x\":\"é\"}\n\n{\"customer\":{\"id\":\"8\"},\"at\":1572566401}\n{\"cut"
	c, err := ReadCSV(strings.NewReader(text), "test")
	if err != nil {
		t.Fatal(err)
	}
	format := activity.TimeS
	if err := c.Fields(activity.Fields{User: []string{"customer.id"}, Time: []string{"at"}, TimeFormat: format}, nil); err != nil {
		t.Fatal(err)
	}
	var got []string
	var r Row
	for c.Next(&r) == nil {
		r.TimeMS += 1000
		if err := r.retime(format); err != nil {
			t.Fatal(err)
		}
		got = append(got, r.Event.UserID+" "+string(r.AppendJSON(nil)))
	}
	want := []string{`7 {"customer":{"id":7},"at":1572566401,"x":"é"}`, `8 {"customer":{"id":"8"},"at":1572566402}`}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if s := c.Stats(); s.Rows != 2 || s.Cut != 1 || s.Skipped != 0 {
		t.Errorf("%+v", s)
	}
}

// Lines are read as they come: standard input may be a tap.
func TestCSVOfATap(t *testing.T) {
	in, out := io.Pipe()
	c, err := ReadCSV(in, "tap")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = out.Write([]byte(header9 + "2019-11-01 00:00:00 UTC,view,1,2,,b,1.0,77,s\n")) }() // and no more
	var r Row
	if err := c.Next(&r); err != nil || r.Event.UserID != "77" {
		t.Errorf("%q, %v", r.Event.UserID, err)
	}
	_ = in.Close()
}

// TestColumnsOfObjects: a column a.b is the member b of a, as a path of the settings and in a case of rules test; unless its name is literally that.
func TestColumnsOfObjects(t *testing.T) {
	for _, test := range []struct {
		user, header string
		literal      []string
		want         string
	}{
		{"user_id", "user_id,actr.id,x,actr.geo.ip,at", nil, `{"user_id":1,"actr":{"id":2,"geo":{"ip":4}},"x":3,"at":"2024-01-01T00:00:00Z"}`},
		{"actr.id", "actr.id,actr.ip,x,y,at", nil, `{"actr":{"id":1,"ip":2},"x":3,"y":4,"at":"2024-01-01T00:00:00Z"}`},
		{"user_id", "user_id,actr.id,actr.ip,x,at", []string{"actr.id"}, `{"user_id":1,"actr.id":2,"actr":{"ip":3},"x":4,"at":"2024-01-01T00:00:00Z"}`},
		{"user_id", "user_id,actr,actr.id,.x,at", nil, `{"user_id":1,"actr":2,"actr.id":3,".x":4,"at":"2024-01-01T00:00:00Z"}`},
	} {
		c, err := ReadCSV(strings.NewReader(test.header+"\n1,2,3,4,2024-01-01T00:00:00Z\n"), "test")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Fields(activity.Fields{User: []string{test.user}, Time: []string{"at"}}, nil); err != nil {
			t.Fatal(err)
		}
		c.Exact(test.literal...)
		var r Row
		if err := c.Next(&r); err != nil || string(r.JSON) != test.want {
			t.Errorf("%s: %s, %v, want %s", test.header, r.JSON, err, test.want)
		}
	}
}
