package tests

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"spate/tests/harness"

	"github.com/google/go-cmp/cmp"
)

// run runs a command to its end and returns its standard output; it must end with the given code.
func run(t *testing.T, wantCode int, args ...string) []byte {
	t.Helper()
	path, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = os.Environ()
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != wantCode {
		var stderr []byte
		var e *exec.ExitError
		if errors.As(err, &e) {
			stderr = e.Stderr
		}
		t.Fatalf("spate %v: exit %d, want %d: %v\n%s%s", args, code, wantCode, err, out, harness.Tail(stderr, 20))
	}
	return out
}

// flinkRow is a result as Flink printed it for the original's SQL.
type flinkRow struct {
	User  json.RawMessage `json:"user_id"`
	Start string          `json:"window_start"`
	End   string          `json:"window_end"`
	Count int64           `json:"num_actions_per_watermark"`
}

func rows(t *testing.T, path string) (out []flinkRow) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var r flinkRow
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		// Flink writes its times without a zone.
		r.Start, r.End = r.Start[:19], r.End[:19]
		out = append(out, r)
	}
	return out
}

// golden is a file that has an input or Flink's answer to it.
func golden(name string) string { return filepath.Join("../testdata/golden", name) }

// TestReplayGivesFlinksRows holds the whole pipeline against what Apache Flink answered to the original's SQL, row by row and in order.
func TestReplayGivesFlinksRows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in, want   string
		partitions int
	}{
		{"in-order.csv.gz", "in-order.flink.jsonl", 1},
		{"in-order.csv.gz", "in-order.flink.jsonl", 4},
		{"in-order.csv.gz", "in-order.flink.jsonl", 16},
		{"late.csv.gz", "late.flink.jsonl", 1}, // late rows depend on the partitions; Flink had one
	} {
		t.Run(c.in+"/"+strconv.Itoa(c.partitions), func(t *testing.T) {
			alerts := filepath.Join(t.TempDir(), "alerts.jsonl")
			want := rows(t, golden(c.want))
			out := run(t, 0, "replay", "-q", "--json", "--partitions", strconv.Itoa(c.partitions), "--alerts", alerts, golden(c.in))
			if d := cmp.Diff(want, rows(t, alerts)); d != "" {
				t.Errorf("(-flink +spate): %s", d)
			}
			var res struct {
				In      int64 `json:"events_in"`
				Counted int64 `json:"counted"`
				Late    int64 `json:"late"`
				Invalid int64 `json:"invalid"`
				Closed  int64 `json:"closed"`
			}
			if err := json.Unmarshal(out, &res); err != nil {
				t.Fatal(err)
			}
			if res.In != 50_000 || res.Counted+res.Late+res.Invalid != res.In || res.Closed != int64(len(want)) {
				t.Errorf("accounts: %s", out)
			}
		})
	}
}

// TestVerify runs every click file, and generated traffic that comes out of order, through pipelines of several shapes.
func TestVerify(t *testing.T) {
	t.Parallel()
	generated := filepath.Join(t.TempDir(), "traffic.csv")
	run(t, 0, "simulate", "--quiet", "--speed", "0", "-n", "60000", "--disorder", "9s", "--seed", "11", "--out", generated)
	late := filepath.Join(t.TempDir(), "late.csv")
	run(t, 0, "simulate", "--quiet", "--speed", "0", "-n", "60000", "--disorder", "40s", "--seed", "12", "--out", late)
	files := []string{generated, late}
	data, err := filepath.Glob(filepath.Join(filepath.Dir(harness.SharedFile(t, "data/cosmetics-2019-10-head-9col.csv")), "*.csv"))
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range append(files, data...) {
		for j, partitions := range []string{"1", "4", "16"} {
			for k, key := range []string{"category_id", "user_id", "none"} {
				if (i+j+k)%3 != 0 {
					continue // each file is read with each number of partitions and with each key
				}
				t.Run(filepath.Base(file)+"/"+partitions+"/"+key, func(t *testing.T) {
					out := run(t, 0, "verify", "-q", "--json", "--partitions", partitions, "--key", key, file)
					t.Logf("%s", out)
				})
			}
		}
	}
}

// TestReplayIsTheSameEveryTime: late rows included, and whatever the batches were.
func TestReplayIsTheSameEveryTime(t *testing.T) {
	t.Parallel()
	file := golden("late.csv.gz")
	var first []byte
	for _, partitions := range []string{"4", "4"} {
		out := run(t, 0, "replay", "-q", "--partitions", partitions, "--alerts", "-", file)
		if first == nil {
			first = out
		} else if d := cmp.Diff(string(first), string(out)); d != "" {
			t.Errorf("two replays differ: %s", d)
		}
	}
	if len(first) == 0 {
		t.Error("no alerts")
	}
}

// TestManyUsersInOneTransaction: a backlog of nothing but different users makes batches as large as they get. They once were packed into
// more than the broker takes, so that the transaction was aborted, and the same again, for ever.
func TestManyUsersInOneTransaction(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "crowd.csv")
	run(t, 0, "simulate", "--quiet", "--speed", "0", "--event-rate", "400000", "--users", "6000000", "-n", "600000", "--attackers", "none", "--out", file)
	p := harness.Spate(t, "replay", nil, "replay", "--quiet", "--json", "--partitions", "1", file).Start()
	if err := p.Wait(2 * time.Minute); err != nil {
		t.Fatal(err)
	}
	if out := p.Output(); !bytes.Contains(out, []byte(`"counted":600000`)) || bytes.Contains(out, []byte("aborted")) {
		t.Errorf("%s", harness.Tail(out, 5))
	}
}
