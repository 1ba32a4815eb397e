package window

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStart(t *testing.T) {
	for _, c := range []struct{ ts, size, want int64 }{
		{0, 10_000, 0}, {9_999, 10_000, 0}, {10_000, 10_000, 10_000}, {29_999, 10_000, 20_000}, {30_000, 10_000, 30_000},
		{-1, 10_000, -10_000}, {-10_000, 10_000, -10_000}, {-10_001, 10_000, -20_000}, {7, 1, 7}, {-7, 3, -9},
	} {
		if got := Start(c.ts, c.size); got != c.want {
			t.Errorf("Start(%d, %d) = %d, want %d", c.ts, c.size, got, c.want)
		}
	}
}

// TestJudge has the boundaries as they were measured on Apache Flink: window and lateness of 10 s, one partition.
func TestJudge(t *testing.T) {
	rule := Rule{SizeMS: 10_000, LatenessMS: 10_000}
	for _, c := range []struct {
		name   string
		source Source
		ts     int64
		want   Fate
		lateBy int64
	}{
		{"the first event", NewSource(), 5_000, Counted, 0},
		{"19.998 does not close [0,10)", Source{MaxTS: 19_998, Floor: NoTime}, 0, Counted, 0},
		{"19.999 does", Source{MaxTS: 19_999, Floor: NoTime}, 9_999, LateWatermark, 0},
		{"older than the watermark, window open", Source{MaxTS: 58_000, Floor: NoTime}, 46_000, Counted, 0},
		{"at the watermark, window open", Source{MaxTS: 65_000, Floor: NoTime}, 55_000, Counted, 0},
		{"at the watermark, which is its window's last instant", Source{MaxTS: 59_999, Floor: NoTime}, 49_999, LateWatermark, 0},
		{"far behind", Source{MaxTS: 100_000, Floor: NoTime}, 50_000, LateWatermark, 30_001},
		{"advances the watermark past its own window? never", Source{MaxTS: 0, Floor: NoTime}, 1 << 40, Counted, 0},
		{"behind a promise", Source{MaxTS: 12_000, Floor: 19_999}, 15_000, LateIdle, 0},
		{"a promise just short of it", Source{MaxTS: 12_000, Floor: 19_998}, 15_000, Counted, 0},
		{"both: the partition's own time counts", Source{MaxTS: 40_000, Floor: 50_000}, 15_000, LateWatermark, 10_001},
		{"after the end of time", Source{MaxTS: NoTime, Floor: EndOfTime}, 0, LateIdle, EndOfTime - 9_999},
		{"before 1970", Source{MaxTS: -5, Floor: NoTime}, -15_000, Counted, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.source
			s.Idle = true
			f, start, lateBy := s.Judge(rule, c.ts)
			if f != c.want || lateBy != c.lateBy || start != Start(c.ts, 10_000) {
				t.Errorf("%v, late by %d, window %d", f, lateBy, start)
			}
			if s.Idle || s.MaxTS != max(c.source.MaxTS, c.ts) || s.Floor != c.source.Floor {
				t.Errorf("afterwards %+v", s)
			}
		})
	}
}

func TestPromise(t *testing.T) {
	rule := Rule{SizeMS: 10_000, LatenessMS: 10_000}
	active := func(maxTS int64) Peer { return Peer{Source{MaxTS: maxTS, Floor: NoTime}, true} }
	idle := func(maxTS int64) Peer { return Peer{Source{MaxTS: maxTS, Floor: NoTime, Idle: true}, true} }
	for _, c := range []struct {
		name string
		all  []Peer
		want []int64 // at wall clock 1,000 and every 4 s after
	}{
		{"the silent one follows the slowest of the others", []Peer{idle(5_000), active(60_000), active(50_000)}, []int64{40_000, 40_000}},
		{"a partition of which nothing is known holds", []Peer{idle(5_000), active(60_000), {}}, []int64{NoTime, NoTime}},
		{"an active one without an event yet holds", []Peer{idle(5_000), {NewSource(), true}}, []int64{NoTime, NoTime}},
		{"no event ever: nothing to close", []Peer{{Source{MaxTS: NoTime, Floor: NoTime, Idle: true}, true}}, []int64{NoTime, NoTime}},
		// All silent: from the highest watermark, 2,000, plus the 5 s that were waited already, with the clock, to the end of the last window.
		{"all silent walks with the clock", []Peer{idle(12_000), idle(3_000)}, []int64{7_000, 11_000, 15_000, 19_000, 19_999, 19_999}},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := Idleness{Rule: rule, TimeoutMS: 5_000}
			var got []int64
			for k := range c.want {
				got = append(got, i.Promise(1_000+int64(k)*4_000, c.all))
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
	t.Run("an event in between begins the walk anew", func(t *testing.T) {
		i := Idleness{Rule: rule, TimeoutMS: 5_000}
		i.Promise(1_000, []Peer{idle(12_000)})
		i.Promise(5_000, []Peer{active(13_000)})
		if got := i.Promise(100_000, []Peer{idle(13_000)}); got != 8_000 {
			t.Errorf("%d, want 8000", got)
		}
	})
}

func TestCrosses(t *testing.T) {
	r := Rule{SizeMS: 10_000}
	for _, c := range []struct {
		from, to int64
		want     bool
	}{{NoTime, 5, true}, {5, 9_998, false}, {5, 9_999, true}, {9_999, 10_000, false}, {9_999, 19_998, false}, {9_999, 19_999, true}, {7, 7, false}, {9, 3, false}, {5, EndOfTime, true}} {
		if got := r.Crosses(c.from, c.to); got != c.want {
			t.Errorf("Crosses(%d, %d) = %v", c.from, c.to, got)
		}
	}
}

func TestNewRule(t *testing.T) {
	for _, c := range []struct {
		size, lateness time.Duration
		ok             bool
	}{{10 * time.Second, 0, true}, {time.Millisecond, time.Hour, true}, {0, 0, false}, {time.Microsecond, 0, false}, {1500 * time.Microsecond, 0, false}, {time.Second, -1, false}, {30 * 24 * time.Hour, 0, false}} {
		if _, err := NewRule(c.size, c.lateness); (err == nil) != c.ok {
			t.Errorf("%v, %v: %v", c.size, c.lateness, err)
		}
	}
}

func TestMetadata(t *testing.T) {
	position := func(n int) Position {
		p := Position{Replay: 1 << 40, Next: 1<<40 + 5_000}
		for i := range n {
			p.Watermarks = append(p.Watermarks, 1_700_000_000_000+int64(i)*500) // minutes apart
		}
		return p
	}
	for n, fits := range map[int]bool{0: true, 1: true, 900: true, 1500: false} {
		md, err := position(n).Metadata()
		if (err == nil) != fits {
			t.Errorf("%d source partitions: %d bytes, %v", n, len(md), err)
		}
	}
	for _, p := range []Position{
		{}, {Replay: 3, Next: 3, Watermarks: []int64{NoTime, NoTime}}, {Replay: 3, Next: 9, Watermarks: []int64{EndOfTime, NoTime, -5, 0, 7}},
		{Next: 1, Watermarks: []int64{math.MinInt64 + 1, EndOfTime}},
	} {
		md, err := p.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParsePosition(p.Replay, md)
		if d := cmp.Diff(p, back); d != "" || err != nil {
			t.Errorf("%v %s", err, d)
		}
	}
	for _, s := range []Source{NewSource(), {MaxTS: 5, Floor: -7, Idle: true}, {MaxTS: NoTime, Floor: EndOfTime, Idle: true}} {
		if back, err := ParseSource(s.Metadata()); err != nil || back != s {
			t.Errorf("%+v came back as %+v, %v", s, back, err)
		}
	}
}
