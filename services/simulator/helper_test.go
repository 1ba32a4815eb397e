package simulator

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"
)

// collect reads up to limit rows; 0 is all.
func collect(t testing.TB, src Source, limit int) []Row {
	t.Helper()
	var rows []Row
	for limit == 0 || len(rows) < limit {
		var r Row
		if err := src.Next(&r); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("row %d: %v", len(rows), err)
		}
		rows = append(rows, r)
	}
	return rows
}

// sliceSource is a source of rows made before.
type sliceSource struct{ rows []Row }

func (s *sliceSource) Next(r *Row) error {
	if len(s.rows) == 0 {
		return io.EOF
	}
	*r, s.rows = s.rows[0], s.rows[1:]
	return nil
}

// fast returns settings that send to w without a pace.
func fast(w io.Writer) Config {
	cfg := Default()
	cfg.Speed, cfg.Out, cfg.Stdout = 0, "-", w
	return cfg
}

func mustRun(t testing.TB, cfg Config) Result {
	t.Helper()
	res, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// output returns what a run writes.
func output(t testing.TB, change func(*Config)) (string, Result) {
	t.Helper()
	var out bytes.Buffer
	cfg := fast(&out)
	change(&cfg)
	res := mustRun(t, cfg)
	return out.String(), res
}

// clock is a wall clock that moves by a step each time it is read.
type clock struct {
	at   time.Time
	step time.Duration
}

func (c *clock) now() time.Time {
	now := c.at
	c.at = c.at.Add(c.step)
	return now
}

func canceled(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
