// Package ruletest reads the results that Apache Flink gave for rules in SQL (testdata/golden/rules), for the tests of everything that
// evaluates rules.
package ruletest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"spate/shared/rule"
)

// LatenessMS is how far the watermark stays behind in all of the logs.
const LatenessMS = 10_000

// Dir is the folder of the golden files.
func Dir() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..", "testdata", "golden", "rules")
}

// Case is a rule, a log, and Flink's rows.
type Case struct {
	Rule, Input string
	Statement   string
	SQL         string // the statement behind the CREATE TABLE statements of its tables
	Late        bool   // the log has late rows
	Want        []string
}

// Cases are all there are.
func Cases(t testing.TB) []Case {
	t.Helper()
	source := Tables(t)
	var cases []Case
	for line := range strings.Lines(string(read(t, "rules.tsv"))) {
		field := strings.Split(line, "\t")
		if field[0] == "rule" {
			continue
		}
		for input := range strings.SplitSeq(field[1], ",") {
			statement := string(read(t, filepath.Join("sql", field[0]+".sql")))
			cases = append(cases, Case{
				Rule: field[0], Input: input, Late: strings.HasSuffix(input, "late"),
				Statement: statement, SQL: source + "\n" + statement,
				Want: strings.Split(strings.TrimSuffix(string(unzip(t, filepath.Join(Dir(), "results", input, field[0]+".jsonl.gz"))), "\n"), "\n"),
			})
		}
	}
	return cases
}

// Log is an input: rows of fields by name, in the order of their arrival.
type Log struct {
	header []string
	rows   [][]string
}

// Tables are the CREATE TABLE statements of the tables that rules read.
func Tables(t testing.TB) string {
	t.Helper()
	return strings.ReplaceAll(string(read(t, "source.sql")), "${with}", "'connector' = 'kafka'")
}

// ReadLog reads an input.
func ReadLog(t testing.TB, name string) *Log {
	t.Helper()
	return ParseLog(t, Text(t, name))
}

// Text is an input as CSV.
func Text(t testing.TB, name string) []byte {
	t.Helper()
	path := filepath.Join(Dir(), "inputs", name+".csv.gz")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		path = filepath.Join(Dir(), "..", name+".csv.gz")
	}
	return unzip(t, path)
}

// ParseLog reads a log from CSV.
func ParseLog(t testing.TB, text []byte) *Log {
	t.Helper()
	r := csv.NewReader(bufio.NewReader(bytes.NewReader(text)))
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return &Log{rows[0], rows[1:]}
}

// Event is a row of a log: its time in milliseconds, and the values that the rules read. Values[i] is of Set.Inputs[i].
type Event struct {
	Partition int32
	MS        int64
	// AppendedMS is when the log took it: its time counts for no more; 0 if the time is trusted, whatever it is.
	AppendedMS int64
	Values     []rule.Value
}

// Events converts the rows as the inputs of a set have their types. An empty field is NULL, and the time is txn_timestamp or else event_time.
func (l *Log) Events(t testing.TB, inputs []rule.Input) []Event {
	t.Helper()
	at := func(name string) int {
		i := slices.Index(l.header, name)
		if name == "txn_timestamp" && i < 0 {
			i = slices.Index(l.header, "event_time")
		}
		return i
	}
	clock := at("txn_timestamp")
	events := make([]Event, len(l.rows))
	for n, row := range l.rows {
		e := Event{Values: make([]rule.Value, len(inputs))}
		ts, ok := rule.Parse(rule.Type{Kind: rule.Timestamp}, []byte(row[clock]))
		if !ok {
			t.Fatalf("row %d: %q is not a time", n, row[clock])
		}
		e.MS = ts.Int()
		for i, in := range inputs {
			if f := at(in.Name()); f >= 0 && row[f] != "" {
				e.Values[i], _ = rule.Parse(in.Type, []byte(row[f]))
			}
		}
		events[n] = e
	}
	return events
}

// Line is a row of a program's window as the golden files have it: JSON with the columns in the order of the SELECT list.
func Line(p *rule.Program) string { return "{" + string(p.AppendColumns(nil)) + "}" }

// overflows are the columns that Flink wraps in silence, and that are NULL here.
var overflows = map[string]string{"bigint-aggs": "cat_sum"}

// same reports whether two rows agree: to the letter, but for sums of DOUBLE, which are those of Flink within 1e-12, and for [overflows].
func same(t testing.TB, r *rule.Rule, got, want string) bool {
	t.Helper()
	if got == want {
		return true
	}
	var a, b map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal([]byte(got), &a), json.Unmarshal([]byte(want), &b)); err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Columns {
		x, y := string(a[c.Name]), string(b[c.Name])
		f, err1 := strconv.ParseFloat(x, 64)
		g, err2 := strconv.ParseFloat(y, 64)
		// A sum that has a price of 1e8 in it can be off by the last bit of that.
		near := c.Type.Kind == rule.Double && err1 == nil && err2 == nil && math.Abs(f-g) <= 1e-12*math.Abs(g)+1e-8
		if x != y && !near && (overflows[r.Name] != c.Name || x != "null") {
			return false
		}
	}
	return len(a) == len(b)
}

// Diff reports where rows are not those that are wanted.
func Diff(t testing.TB, r *rule.Rule, got, want []string) {
	t.Helper()
	shown := 0
	for i := 0; i < max(len(got), len(want)) && shown < 3; i++ {
		switch {
		case i >= len(got):
			t.Errorf("row %d is missing: %s", i, want[i])
		case i >= len(want):
			t.Errorf("row %d is too many: %s", i, got[i])
		case !same(t, r, got[i], want[i]):
			t.Errorf("row %d:\n got %s\nwant %s", i, got[i], want[i])
		default:
			continue
		}
		shown++
	}
	if len(got) != len(want) {
		t.Errorf("%d rows, want %d", len(got), len(want))
	}
}

// Sort brings lines into the order of the golden files.
func Sort(lines []Timed) []string {
	slices.SortFunc(lines, func(a, b Timed) int {
		if a.Start != b.Start {
			return int(a.Start - b.Start)
		}
		if a.End != b.End {
			return int(a.End - b.End)
		}
		return strings.Compare(a.Line, b.Line)
	})
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = l.Line
	}
	return out
}

// Timed is a line and the bounds of its window.
type Timed struct {
	Start, End int64
	Line       string
	Critical   bool
}

// ISO is a time as people read it, for messages.
func ISO(ms int64) string { return time.UnixMilli(ms).UTC().Format("15:04:05.000") }

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(Dir(), name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unzip(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
