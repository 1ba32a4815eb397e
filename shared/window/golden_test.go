package window

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestFlink holds both halves of the engine against what Apache Flink answered to the original's SQL, on one partition.
func TestFlink(t *testing.T) {
	for in, want := range map[string]string{"in-order.csv.gz": "in-order.flink.jsonl", "late.csv.gz": "late.flink.jsonl"} {
		t.Run(in, func(t *testing.T) {
			stream := burst(10_000, 10_000, 5)
			source, combiner, table := NewSource(), NewCombiner(stream), NewTable(stream)
			got := map[windowKey]int64{}
			offset := int64(0)
			flush := func() {
				watermarks := []Watermark{{0, source.Watermark(stream.LatenessMS)}}
				combiner.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 1, Watermarks: watermarks}, func(_ int32, batch []byte) {
					vs, err := table.Apply(offset, batch, nil)
					if err != nil {
						t.Fatal(err)
					}
					offset++
					for _, v := range vs {
						if v.State == Closed {
							got[windowKey{key: v.Key, start: v.Pane.StartMS}] = v.Pane.Count
						}
					}
				})
			}
			for i, e := range goldenEvents(t, in) {
				combiner.Add(&Event{MS: e.ts, Offset: int64(i), Values: userValues(e.user)}, source.Judge(stream.LatenessMS, e.ts, Unbounded))
				if i%97 == 0 {
					flush()
				}
			}
			source.Floor = EndOfTime
			flush()
			if d := cmp.Diff(goldenRows(t, want), got); d != "" {
				t.Errorf("(-flink +engine): %s", d)
			}
		})
	}
}

func golden(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open(filepath.Join("../../testdata/golden", name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func goldenEvents(t *testing.T, name string) (out []event) {
	t.Helper()
	z, err := gzip.NewReader(golden(t, name))
	if err != nil {
		t.Fatal(err)
	}
	r := csv.NewReader(z)
	for line := 0; ; line++ {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if line > 0 {
			out = append(out, event{user: row[7], ts: millis(t, "2006-01-02 15:04:05.000", row[9])})
		}
	}
}

func goldenRows(t *testing.T, name string) map[windowKey]int64 {
	t.Helper()
	out := map[windowKey]int64{}
	for s := bufio.NewScanner(golden(t, name)); s.Scan(); {
		var r struct {
			User  int64  `json:"user_id"`
			Start string `json:"window_start"`
			Count int64  `json:"num_actions_per_watermark"`
		}
		if err := json.NewDecoder(strings.NewReader(s.Text())).Decode(&r); err != nil {
			t.Fatal(err)
		}
		out[windowKey{key: strconv.FormatInt(r.User, 10), start: millis(t, "2006-01-02T15:04:05", r.Start)}] = r.Count
	}
	if len(out) == 0 {
		t.Fatal("no rows")
	}
	return out
}

func millis(t *testing.T, layout, s string) int64 {
	t.Helper()
	ts, err := time.Parse(layout, s)
	if err != nil {
		t.Fatal(err)
	}
	return ts.UnixMilli()
}
