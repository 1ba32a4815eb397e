package verifier

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// golden returns a file of the data that Flink answered for; see its README.
func golden(name string) string { return filepath.Join("../../testdata/golden", name) }

func TestFlink(t *testing.T) {
	for _, c := range []struct {
		input, result string
		rows, late    int64
	}{
		{"in-order.csv.gz", "in-order.flink.jsonl", 1802, 0},
		{"late.csv.gz", "late.flink.jsonl", 1765, 1309},
	} {
		t.Run(c.input, func(t *testing.T) {
			ref, err := File(golden(c.input), "none", 1, Rule{Window: 10 * time.Second, Lateness: 10 * time.Second, Threshold: 5})
			if err != nil {
				t.Fatal(err)
			}
			want := flink(t, golden(c.result))
			if diff := cmp.Diff(want, ref.Result()); diff != "" {
				t.Errorf("(-Flink +reference):\n%s", diff)
			}
			if int64(len(want)) != c.rows || ref.Late != c.late || ref.In != 50_000 || ref.Invalid != 0 || ref.Counted != ref.In-ref.Late {
				t.Errorf("%d rows; in %d, counted %d, late %d, invalid %d", len(want), ref.In, ref.Counted, ref.Late, ref.Invalid)
			}
		})
	}
}

func flink(t *testing.T, path string) []Row {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rows []Row
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var line struct {
			User  json.RawMessage `json:"user_id"`
			Start string          `json:"window_start"`
			Count int64           `json:"num_actions_per_watermark"`
		}
		if err := json.Unmarshal(sc.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		start, err := time.Parse("2006-01-02T15:04:05", line.Start)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, Row{string(line.User), start.UnixMilli(), line.Count})
	}
	return rows
}
