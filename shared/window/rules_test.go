package window

import (
	"bytes"
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
			f, start, lateBy := s.Judge(rule, c.ts, Unbounded)
			if f != c.want || lateBy != c.lateBy || start != Start(c.ts, 10_000) {
				t.Errorf("%v, late by %d, window %d", f, lateBy, start)
			}
			if s.Idle || s.MaxTS != max(c.source.MaxTS, c.ts) || s.Floor != c.source.Floor {
				t.Errorf("afterwards %+v", s)
			}
		})
	}
}

// TestClockAhead: an event whose clock is ahead is counted at its own time, and makes no other event late that would not be late without it.
func TestClockAhead(t *testing.T) {
	rule := Rule{SizeMS: 10_000, LatenessMS: 10_000}
	const now = 1_000_000
	for _, ahead := range []int64{11_000, 35_000, 3_600_000} {
		s := NewSource()
		s.Judge(rule, now, now+100)
		if f, start, _ := s.Judge(rule, now+ahead, now+100); f.Late() || start != Start(now+ahead, 10_000) {
			t.Errorf("%d ms ahead: %v in window %d", ahead, f, start)
		}
		if s.Newest != now+ahead || s.Watermark(rule.LatenessMS) != now+100-10_000 {
			t.Errorf("%d ms ahead: %+v", ahead, s)
		}
		if f, _, _ := s.Judge(rule, now-9_000, now+200); f.Late() {
			t.Errorf("%d ms ahead makes an honest event late", ahead)
		}
	}
	// The log took old events long after they happened: nothing is bounded.
	s := NewSource()
	if s.Judge(rule, now, 1<<50); s.Watermark(rule.LatenessMS) != now-10_000 {
		t.Errorf("%+v", s)
	}
}

// TestTopicChanges: a partition that is added, or a topic that is made anew, reopens no window and holds none open for ever.
func TestTopicChanges(t *testing.T) {
	c, table := NewCombiner(10), NewTable(1)
	var log [][]byte
	apply := func(h Header, user string, ts ...int64) (out []Verdict) {
		t.Helper()
		for _, ts := range ts {
			c.Add([]byte(user), Start(ts, 10), ts, 0, ts)
		}
		c.Flush(1, func([]byte) int32 { return 0 }, h, func(_ int32, b []byte) {
			log = append(log, bytes.Clone(b))
			var err error
			if out, err = table.Apply(int64(len(log)-1), b, out); err != nil {
				t.Fatal(err)
			}
		})
		return out
	}
	restart := func() {
		t.Helper()
		p := table.Position(int64(len(log)))
		md, err := p.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		if p, err = ParsePosition(p.Replay, md); err != nil {
			t.Fatal(err)
		}
		table = NewTable(1)
		table.Resume(p)
		for i := p.Replay; i < int64(len(log)); i++ {
			if out, err := table.Apply(i, log[i], nil); err != nil || len(out) > 0 {
				t.Fatalf("%+v %v", out, err)
			}
		}
	}
	apply(Header{Sources: 2, Topic: 7, Marks: []Mark{{0, 25}, {1, 21}}}, "u", 22, 23)
	for range 2 {
		// The third partition holds windows from now on, and begins where the others are.
		if out := apply(Header{Sources: 3, Topic: 7, Marks: []Mark{{0, 45}, {1, 45}}}, "u"); len(out) > 0 || table.Stats().WatermarkMS != 21 {
			t.Fatalf("%v, %+v", out, table.Stats())
		}
		if apply(Header{Sources: 3, Topic: 7}, "v", 5, 6); table.Stats().Stray != 2 {
			t.Fatalf("a closed window has opened again: %+v", table.Stats())
		}
		restart()
	}
	// Anew, with one partition: the three that were there are gone, their windows stay closed, and what is open closes.
	if out := apply(Header{Sources: 1, Topic: 8}, "u"); len(out) > 0 || table.Stats().WatermarkMS != 21 || table.Stats().Sources != 1 {
		t.Fatalf("%v, %+v", out, table.Stats())
	}
	restart()
	out := apply(Header{Sources: 1, Topic: 8, Marks: []Mark{{0, 29}}}, "u")
	if len(out) != 1 || !out[0].Final || out[0].Pane.Count != 2 {
		t.Fatalf("%+v", out)
	}
}

func TestGuard(t *testing.T) {
	g := Guard{Sources: 4, LatestMS: 1000}
	for _, c := range []struct {
		h    Header
		ok   bool
		what string
	}{
		{Header{SizeMS: 10, Sources: 4, Marks: []Mark{{3, 1000}}}, true, "as it may be"},
		{Header{SizeMS: 10, Sources: 3}, true, "from before a partition was added"},
		{Header{SizeMS: 10, Sources: 5}, false, "more partitions than there are"},
		{Header{SizeMS: 10, Sources: 0}, false, "none"},
		{Header{SizeMS: 10, Sources: 4, Marks: []Mark{{1, 5}, {0, 1001}}}, false, "a watermark of the future"},
		{Header{SizeMS: 10, Sources: 4, Marks: []Mark{{0, EndOfTime}}}, false, "the end of time"},
	} {
		var h Header
		if err := ParseHeader(seal(c.h.append(nil)), &h); c.h.Sources > 0 && err != nil {
			t.Fatal(err)
		}
		if err := g.Check(&h); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	if err := (Guard{Sources: 4, Drains: true}).Check(&Header{Sources: 4, Marks: []Mark{{0, EndOfTime}}}); err != nil {
		t.Error(err)
	}
	if err := ParseHeader(seal(Header{SizeMS: 10, Sources: 4, Marks: []Mark{{4, 1}}}.append(nil)), &Header{}); err == nil {
		t.Error("a mark of a partition that the topic does not have")
	}
}

func TestPromise(t *testing.T) {
	rule := Rule{SizeMS: 10_000, LatenessMS: 10_000}
	active := func(maxTS int64) Peer { return Peer{Source{MaxTS: maxTS, Newest: maxTS, Floor: NoTime}, true} }
	idle := func(maxTS int64) Peer {
		return Peer{Source{MaxTS: maxTS, Newest: maxTS, Floor: NoTime, Idle: true}, true}
	}
	ahead := func(maxTS, newest int64) Peer {
		return Peer{Source{MaxTS: maxTS, Newest: newest, Floor: NoTime, Idle: true}, true}
	}
	for _, c := range []struct {
		name string
		all  []Peer
		want []int64 // at wall clock 1,000 and every 4 s after
	}{
		{"the silent one follows the slowest of the others", []Peer{idle(5_000), active(60_000), active(50_000)}, []int64{40_000, 40_000}},
		{"a partition of which nothing is known holds", []Peer{idle(5_000), active(60_000), {}}, []int64{NoTime, NoTime}},
		{"an active one without an event yet holds", []Peer{idle(5_000), {NewSource(), true}}, []int64{NoTime, NoTime}},
		{"no event ever: nothing to close", []Peer{{Source{MaxTS: NoTime, Newest: NoTime, Floor: NoTime, Idle: true}, true}}, []int64{NoTime, NoTime}},
		// All silent: from the highest watermark, 2,000, plus the 5 s that were waited already, with the clock, to the end of the last window.
		{"all silent walks with the clock", []Peer{idle(12_000), idle(3_000)}, []int64{7_000, 11_000, 15_000, 19_000, 19_999, 19_999}},
		{"all silent, one event ahead of its clock: its window closes as well", []Peer{ahead(12_000, 25_000)}, []int64{7_000, 11_000, 15_000, 19_000, 23_000, 27_000, 29_999}},
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
		p := Position{Replay: 1 << 40, Next: 1<<40 + 5_000, Log: math.MaxUint64, Topic: math.MaxUint64}
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
	for _, s := range []Routed{
		{Source: NewSource()}, {Source: Source{MaxTS: 5, Newest: 9, Floor: -7, Idle: true}, Topic: math.MaxUint64, Sources: 900, Log: 1, Keyed: 1 << 40},
		{Source: Source{MaxTS: NoTime, Newest: NoTime, Floor: EndOfTime, Idle: true}, Keyed: 3},
	} {
		if back, err := ParseRouted(s.Metadata()); err != nil || back != s {
			t.Errorf("%+v came back as %+v, %v", s, back, err)
		}
	}
}
