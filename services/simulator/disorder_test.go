package simulator

import (
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDisorder(t *testing.T) {
	for _, bound := range []time.Duration{time.Millisecond, time.Second, 15 * time.Second} {
		in := generated(t, func(c *Config) { c.Events = 20_000 })
		d := newDisorder(&sliceSource{slices.Clone(in)}, bound, 1)
		out := collect(t, d, 0)
		if d := cmp.Diff(ids(in), ids(out)); d != "" {
			t.Fatalf("%v: not a permutation: %s", bound, d)
		}
		latest, late := out[0].TimeMS, int64(0)
		for i, r := range out {
			if i > 0 && r.TimeMS+r.DelayMS < out[i-1].TimeMS+out[i-1].DelayMS {
				t.Fatalf("%v: row %d arrives before the one before", bound, i)
			}
			late = max(late, latest-r.TimeMS)
			latest = max(latest, r.TimeMS)
		}
		if late >= bound.Milliseconds() {
			t.Errorf("%v: an event comes %d ms late", bound, late)
		}
		if bound > time.Millisecond && late < bound.Milliseconds()/2 {
			t.Errorf("%v: no event is more than %d ms late", bound, late)
		}
		again := collect(t, newDisorder(&sliceSource{slices.Clone(in)}, bound, 1), 0)
		if d := cmp.Diff(out, again); d != "" {
			t.Errorf("%v: the same seed gave another order", bound)
		}
	}
}

// ids identifies rows, in a fixed order.
func ids(rows []Row) []string {
	out := make([]string, 0, len(rows))
	for _, r := range rows {
		out = append(out, r.Event.TxnTimestamp+r.Event.UserID+r.Event.ProductID+r.Event.EventType)
	}
	slices.Sort(out)
	return out
}

// TestDisorderFull: a full buffer makes the disorder smaller, and loses nothing.
func TestDisorderFull(t *testing.T) {
	in := generated(t, func(c *Config) { c.Events = 5000 })
	d := newDisorder(&sliceSource{slices.Clone(in)}, 10*time.Second, 1)
	d.max = 10
	out := collect(t, d, 0)
	if d := cmp.Diff(ids(in), ids(out)); d != "" {
		t.Error(d)
	}
	latest := int64(0)
	for _, r := range out {
		if latest-r.TimeMS >= 10_000 {
			t.Fatalf("an event comes %d ms late", latest-r.TimeMS)
		}
		latest = max(latest, r.TimeMS)
	}
}

// TestDisorderOfAnyRows: rows out of order and rows without a time all come through.
func TestDisorderOfAnyRows(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var in []Row
	for i := range 2000 {
		r := Row{TimeMS: rng.Int64N(10_000), HasTime: rng.IntN(5) > 0}
		r.Event.UserID = strconv.Itoa(i)
		in = append(in, r)
	}
	out := collect(t, newDisorder(&sliceSource{slices.Clone(in)}, time.Second, 3), 0)
	if d := cmp.Diff(ids(in), ids(out)); d != "" {
		t.Error(d)
	}
}

// TestDisorderPassesErrorsOn: the rows before an error come first.
func TestDisorderPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	d := newDisorder(&failingSource{rows: []Row{{HasTime: true}, {HasTime: true}}, err: broken}, time.Second, 1)
	var r Row
	for range 2 {
		if err := d.Next(&r); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Next(&r); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if err := d.Next(&r); !errors.Is(err, broken) || errors.Is(err, io.EOF) {
		t.Errorf("then %v", err)
	}
}

type failingSource struct {
	rows []Row
	err  error
}

func (s *failingSource) Next(r *Row) error {
	if len(s.rows) == 0 {
		return s.err
	}
	*r, s.rows = s.rows[0], s.rows[1:]
	return nil
}
