package verifier

import (
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/kafka"
)

const headerLine = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"

// write writes a file to a temporary folder.
func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func row(user string, second int) string {
	return fmt.Sprintf("2019-11-01 00:00:%02d UTC,view,1,2053013555631882655,a.b,samsung,9.90,%s,s\n", second, user)
}

type tally struct {
	In, Counted, Late, Invalid int64
	Rows                       []Row
}

// summary is what a file gives with the threshold 0, so that every counted row shows.
func summary(t *testing.T, path, key string, partitions int32) tally {
	t.Helper()
	r, err := File(path, key, partitions, Rule{Window: 10 * time.Second, Lateness: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return tally{r.In, r.Counted, r.Late, r.Invalid, r.Result()}
}

func TestFileForms(t *testing.T) {
	const start = 1572566400000
	two := tally{In: 2, Counted: 2, Rows: []Row{{"5", start, 2}}}
	body := row("5", 0) + row("5", 1)
	tenth := strings.ReplaceAll(body, ",s\n", ",s,\n")
	gz := func(s string) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
		w.Close()
		return b.Bytes()
	}
	zipped := func(files ...string) []byte {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		for i := 0; i < len(files); i += 2 {
			f, err := w.Create(files[i])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write([]byte(files[i+1])); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		return b.Bytes()
	}
	for name, c := range map[string]struct {
		content []byte
		want    tally
	}{
		"header":                           {[]byte(headerLine + body), two},
		"no header":                        {[]byte(body), two},
		"ten columns, the last empty":      {[]byte(tenth), two},
		"carriage returns":                 {[]byte(strings.ReplaceAll(headerLine+"\n"+body, "\n", "\r\n")), two},
		"byte order mark":                  {[]byte("\xef\xbb\xbf" + headerLine + body), two},
		"blank lines and the header again": {[]byte(headerLine + row("5", 0) + "\n\n" + headerLine + row("5", 1) + "\n"), two},
		"gzip":                             {gz("\xef\xbb\xbf" + headerLine + body), two},
		"gzip in parts":                    {append(gz(headerLine+row("5", 0)), gz(row("5", 1))...), two},
		"zip": {zipped("readme.txt", body, "a.csv", headerLine+row("5", 0), "b/", "", "b/c.CSV", row("5", 1), "__MACOSX/a.csv", body,
			"d.csv.gz", string(gz(headerLine))), two},
		"zip of one file":                     {zipped("events", body), two},
		"no line end at the end":              {[]byte(strings.TrimSuffix(body, "\n")), two},
		"cut last line":                       {[]byte(body + "2019-11-01 00:00:02 UTC,view,1"), two},
		"too many, too few fields":            {[]byte(row("5", 0) + "a,b\n" + "x," + row("5", 1) + row("5", 1)), two},
		"ten fields where nine are usual":     {[]byte(body + tenth), two},
		"quotes":                              {[]byte(strings.ReplaceAll(body, "samsung", `"sam,""sung""`+"\n\r\n"+`"`)), two},
		"bare quotes":                         {[]byte(strings.ReplaceAll(body, "samsung", `sam"su"ng"`)), two},
		"a stray quote costs a line":          {[]byte(row("5", 0) + strings.ReplaceAll(row("5", 0), "samsung", `"samsung`) + row("5", 1)), two},
		"text after a quote that spans lines": {[]byte("\"x\ny\"" + row("5", 0) + row("5", 1) + row("5", 1)), tally{In: 3, Counted: 2, Invalid: 1, Rows: two.Rows}},
		"text after a quote":                  {[]byte(row("5", 0) + strings.ReplaceAll(row("5", 0), "samsung", `"sam"sung`) + row("5", 1)), two},
		"too long a line":                     {[]byte(row("5", 0) + strings.ReplaceAll(row("5", 0), "samsung", strings.Repeat("x", 200_000)) + row("5", 1)), two},
		"other order of columns":              {[]byte("User_ID, event_time ,extra\n5,2019-11-01T00:00:00,x\n5,2019-11-01T00:00:09.999+00:00,y\n"), two},
		"transaction time first":              {[]byte("user_id,event_time,txn_timestamp\n5,1999-11-01T00:00:00,2019-11-01T00:00:00\n5,2019-11-01T00:00:00,\n"), two},
		"invalid": {[]byte(body + row("", 1) + strings.ReplaceAll(row("5", 1), "2019", "1969") + strings.ReplaceAll(row("", 1), "2019", "soon")),
			tally{In: 5, Counted: 2, Invalid: 3, Rows: two.Rows}},
		"users":                                  {[]byte(row("007", 0) + row(`"a""<"`, 0) + row("7", 0)), tally{In: 3, Counted: 3, Rows: []Row{{`"007"`, start, 1}, {`"a\"<"`, start, 1}, {"7", start, 1}}}},
		"quotes at the ends of fields and lines": {[]byte(row("5", 0) + strings.Repeat("a\",\"b\n", 1000) + row("5", 1)), two},
		"a zip appended":                         {append([]byte(body), zipped("a.csv", row("7", 0))...), two},
		"empty":                                  {nil, tally{}},
	} {
		got := summary(t, write(t, "x", c.content), "category_id", 4)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// The longest record has as many bytes as the simulator takes; one more and it is none.
func TestLongestRecord(t *testing.T) {
	const start = 1572566400000
	for extra, want := range []tally{{In: 2, Counted: 2, Rows: []Row{{"5", start, 2}}}, {In: 1, Counted: 1, Rows: []Row{{"5", start, 1}}}} {
		long := strings.ReplaceAll(row("5", 0), "samsung", "\"\n@\"")
		long = strings.Replace(long, "@", strings.Repeat("x", maxRecord-len(long)+1+extra), 1)
		if got := summary(t, write(t, "x", []byte(long+row("5", 1))), "none", 1); !cmp.Equal(want, got) {
			t.Errorf("%d bytes: %+v", len(long), got)
		}
	}
}

// The work grows with the file, and no faster, whatever its quotes do. It is counted, not timed.
func TestFileIsReadInLinearTime(t *testing.T) {
	for name, line := range map[string]string{
		"one quote, then blank lines": "\n",
		"every line opens a quote":    "a\",\"b\n",
		"quotes that span two lines":  "\"\n",
		"doubled quotes":              "\"\"\"\"\n",
		"text after a quote":          "\"a\nb\"c\n",
		"a quote in the middle":       "x,\"\n",
		"a long line that breaks":     strings.Repeat("a\",\"b\n", 5000) + strings.Repeat("c", 30_000) + "\"c\n",
	} {
		for _, size := range []int{64 << 10, 1 << 20} {
			content := headerLine + row("5", 0) + "\"x\n" + strings.Repeat(line, size/len(line)) + row("5", 1)
			f := newFile("none", 1)
			f.row = func(int32, func(string) string) bool { return true }
			if err := f.member(strings.NewReader(content)); err != nil {
				t.Fatal(err)
			}
			if perByte := float64(f.steps) / float64(len(content)); perByte > 3 {
				t.Errorf("%s, %d bytes: each was looked at %.1f times", name, len(content), perByte)
			}
		}
	}
}

// Which rows are late tells which partition they went to.
func TestFilePartitions(t *testing.T) {
	const n = 3
	late := row("5", 0)
	head := strings.ReplaceAll(row("5", 0), "00:00:00 UTC", "01:00:00 UTC")
	keyed := func(line, category string) string {
		return strings.ReplaceAll(line, "2053013555631882655", category)
	}
	// Two categories that go to different partitions, and two users likewise.
	other := func(than string) string {
		for i := 0; ; i++ {
			if s := fmt.Sprint(i); kafka.PartitionFor([]byte(s), n) != kafka.PartitionFor([]byte(than), n) {
				return s
			}
		}
	}
	for _, c := range []struct {
		name, key, lines string
		late             int64
	}{
		{"same category", "category_id", keyed(head, "1") + keyed(late, "1"), 1},
		{"another category", "category_id", keyed(head, "1") + keyed(late, other("1")), 0},
		{"same user", "user_id", keyed(head, "1") + keyed(late, other("1")), 1},
		{"another user", "user_id", head + strings.ReplaceAll(late, ",5,", ","+other("5")+","), 0},
		{"no key: in turn", "none", head + late + late + late, 1},
		{"no category: in turn, by the number of the row", "category_id", keyed(head, "") + keyed(late, "") + keyed(late, "") + keyed(late, ""), 1},
		{"invalid rows take their turn", "none", head + row("", 0) + late + late, 1},
		{"lines that are not rows take none", "none", head + "a,b\n" + late + late + late, 1},
	} {
		if got := summary(t, write(t, "x.csv", []byte(c.lines)), c.key, n); got.Late != c.late {
			t.Errorf("%s: %d late, want %d", c.name, got.Late, c.late)
		}
	}
}

func TestFileRefuses(t *testing.T) {
	good := write(t, "a.csv", []byte(row("5", 0)))
	var emptyZip bytes.Buffer
	if err := zip.NewWriter(&emptyZip).Close(); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() (*Reference, error){
		"no file":       func() (*Reference, error) { return File(good+"x", "none", 1, rule) },
		"a directory":   func() (*Reference, error) { return File(t.TempDir(), "none", 1, rule) },
		"no partitions": func() (*Reference, error) { return File(good, "none", 0, rule) },
		"key":           func() (*Reference, error) { return File(good, "colour", 1, rule) },
		"header": func() (*Reference, error) {
			return File(write(t, "b.csv", []byte("event_time,user\n")), "none", 1, rule)
		},
		"broken gzip": func() (*Reference, error) { return File(write(t, "b.csv", []byte("\x1f\x8b\x08")), "none", 1, rule) },
		"empty zip":   func() (*Reference, error) { return File(write(t, "b.zip", emptyZip.Bytes()), "none", 1, rule) },
	} {
		if r, err := f(); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// What encoding/csv writes is split the same way.
func TestSplitAgreesWithEncodingCSV(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	letters := []string{"a", ",", `"`, "\n", " ", "ü", ""}
	for range 2000 {
		want := make([]string, 1+rng.IntN(4))
		for i := range want {
			for range rng.IntN(5) {
				want[i] += letters[rng.IntN(len(letters))]
			}
		}
		var b strings.Builder
		w := csv.NewWriter(&b)
		if err := w.Write(want); err != nil {
			t.Fatal(err)
		}
		w.Flush()
		for i, f := range want {
			if !strings.ContainsAny(f, ",\"\n") && !strings.HasPrefix(f, " ") { // it is not quoted, and blanks around it are not part of it
				want[i] = strings.TrimRight(f, " ")
			}
		}
		r := &recordReader{r: bufio.NewReaderSize(strings.NewReader(b.String()), maxRecord), steps: new(int64)}
		line, err := r.take()
		if err != nil {
			t.Fatal(err)
		}
		got, ok, err := r.split(line)
		if diff := cmp.Diff(want, got); diff != "" || err != nil || !ok || len(r.ahead) > 0 {
			t.Fatalf("%q: ok %v, %v\n%s", b.String(), ok, err, diff)
		}
	}
}
