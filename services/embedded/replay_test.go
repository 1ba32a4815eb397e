package embedded

import (
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spate/services/simulator"
	"spate/services/verifier"
	"spate/shared/activity"
	"spate/shared/alert"
)

func TestReplayOfWhatIsNoEvents(t *testing.T) {
	const header = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
	const row = "2019-11-01 00:00:00 UTC,view,1,2,,b,1.0,77,s\n"
	for name, c := range map[string]struct{ content, want string }{
		"JSON lines":    {strings.Repeat("{\"user_id\":5}\n", 29), `29 lines are malformed, 0 events invalid; the most frequent reason is "the line has 1 fields, not 9 or 10", 29 times, first in line 1`},
		"no user":       {header + strings.Repeat(strings.ReplaceAll(row, "77", ""), 3) + "\"x\n", `1 lines are malformed, 3 events invalid; the most frequent reason is "no_user", 3 times, first in line 2`},
		"bad time":      {header + strings.ReplaceAll(row, "77", "") + "\n" + strings.Repeat(strings.ReplaceAll(row, "2019", "soon"), 2), `"bad_time", 2 times, first in line 4`},
		"one is enough": {header + row + strings.Repeat(strings.ReplaceAll(row, "77", ""), 9), ""},
		"no lines":      {header, ""},
	} {
		path := filepath.Join(t.TempDir(), "a.csv")
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Replay(t.Context(), ReplayConfig{
			Rule: Rule{Fields: activity.DefaultFields(), Window: 10 * time.Second, Lateness: 10 * time.Second, Threshold: 5, Critical: 10, Transitions: []alert.State{alert.Opened, alert.Closed}},
			File: path, Key: "category_id", Log: slog.New(slog.DiscardHandler),
		})
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrNothingRead) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The simulator and the reference read the same rows, whatever the quotes of a file do. They share no code.
func TestReferenceReadsWhatIsSent(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	parts := []string{"\"", "\"\"", "\"\n", "\n", "\r\n", ",", ",\"", "\",", "a\",\"b\n", "2019-11-01 00:00:00 UTC,view,1,2,,b,1.0,77,s\n", "\"2019-11-01 00:00:00 UTC\",v,1,2,,\"b\nc\",1.0,77,s\n", strings.Repeat("x", 30_000), "x"}
	for range 3000 {
		var b strings.Builder
		b.WriteString("event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n")
		for range rng.IntN(40) {
			b.WriteString(parts[rng.IntN(len(parts))])
		}
		path := filepath.Join(t.TempDir(), "a.csv")
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := simulator.OpenCSV(path)
		if err != nil {
			t.Fatal(err)
		}
		var row simulator.Row
		for err == nil {
			err = in.Next(&row)
		}
		rows := in.Stats().Rows
		if in.Close(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		ref, err := verifier.File(path, "none", 1, verifier.Rule{Window: time.Second})
		if err != nil || ref.In != rows {
			t.Fatalf("%d rows are sent, the reference has %d, %v: %.4000q", rows, ref.In, err, b.String())
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
