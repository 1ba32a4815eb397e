package window

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spate/shared/rule"
)

// TestJudge has the boundaries as they were measured on Apache Flink: window and lateness of 10 s, one partition.
func TestJudge(t *testing.T) {
	stream := burst(10_000, 10_000, 5)
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
			f, missed := NewCombiner(stream).Add(&Event{MS: c.ts, Values: userValues("u")}, s.Judge(10_000, c.ts, Unbounded))
			if f != c.want || missed.ByMS != c.lateBy || f.Late() && missed.StartMS != start(c.ts, 10_000) {
				t.Errorf("%v, %+v", f, missed)
			}
			if s.Idle || s.MaxTS != max(c.source.MaxTS, c.ts) || s.Floor != c.source.Floor {
				t.Errorf("afterwards %+v", s)
			}
		})
	}
}

// TestClockAhead: an event whose clock is ahead is counted at its own time, and makes no other event late that would not be late without it.
func TestClockAhead(t *testing.T) {
	stream := burst(10_000, 10_000, 5)
	judge := func(s *Source, ts, appended int64) Fate {
		f, _ := NewCombiner(stream).Add(&Event{MS: ts, Values: userValues("u")}, s.Judge(10_000, ts, appended))
		return f
	}
	const now = 1_000_000
	for _, ahead := range []int64{11_000, 35_000, 3_600_000} {
		s := NewSource()
		judge(&s, now, now+100)
		if f := judge(&s, now+ahead, now+100); f.Late() {
			t.Errorf("%d ms ahead: %v", ahead, f)
		}
		if s.Newest != now+ahead || s.Watermark(10_000) != now+100-10_000 {
			t.Errorf("%d ms ahead: %+v", ahead, s)
		}
		if judge(&s, now-9_000, now+200).Late() {
			t.Errorf("%d ms ahead makes an honest event late", ahead)
		}
	}
	// The log took old events long after they happened: nothing is bounded.
	s := NewSource()
	if judge(&s, now, 1<<50); s.Watermark(10_000) != now-10_000 {
		t.Errorf("%+v", s)
	}
}

// TestTopicChanges: a partition that is added, or a topic that is made anew, reopens no window and holds none open for ever.
func TestTopicChanges(t *testing.T) {
	c, table := NewCombiner(burst(10, 0, 1)), NewTable(burst(10, 0, 1))
	var log [][]byte
	apply := func(h Header, user string, ts ...int64) (out []Verdict) {
		t.Helper()
		for _, ts := range ts {
			c.Add(&Event{MS: ts, Offset: ts, Values: userValues(user)}, onTime)
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
		table = NewTable(burst(10, 0, 1))
		table.Resume(p)
		for i := p.Replay; i < int64(len(log)); i++ {
			if out, err := table.Apply(i, log[i], nil); err != nil || len(out) > 0 {
				t.Fatalf("%+v %v", out, err)
			}
		}
	}
	apply(Header{Sources: 2, Topic: 7, Watermarks: []Watermark{{0, 25}, {1, 21}}}, "u", 22, 23)
	for range 2 {
		// The third partition holds windows from now on, and begins where the others are.
		if out := apply(Header{Sources: 3, Topic: 7, Watermarks: []Watermark{{0, 45}, {1, 45}}}, "u"); len(out) > 0 || table.Stats().WatermarkMS != 21 {
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
	out := apply(Header{Sources: 1, Topic: 8, Watermarks: []Watermark{{0, 29}}}, "u")
	if len(out) != 1 || out[0].State != Closed || out[0].Pane.Count != 2 {
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
		{Header{Sources: 4, Watermarks: []Watermark{{3, 1000}}}, true, "as it may be"},
		{Header{Sources: 3}, true, "from before a partition was added"},
		{Header{Sources: 5}, false, "more partitions than there are"},
		{Header{Sources: 0}, false, "none"},
		{Header{Sources: 4, Watermarks: []Watermark{{1, 5}, {0, 1001}}}, false, "a watermark of the future"},
		{Header{Sources: 4, Watermarks: []Watermark{{0, EndOfTime}}}, false, "the end of time"},
	} {
		var h Header
		if err := ParseHeader(seal(c.h.append(nil)), &h); c.h.Sources > 0 && err != nil {
			t.Fatal(err)
		}
		if err := g.Check(&h); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	if err := (Guard{Sources: 4, Drains: true}).Check(&Header{Sources: 4, Watermarks: []Watermark{{0, EndOfTime}}}); err != nil {
		t.Error(err)
	}
	if err := ParseHeader(seal(Header{Sources: 4, Watermarks: []Watermark{{4, 1}}}.append(nil)), &Header{}); err == nil {
		t.Error("a watermark of a partition that the topic does not have is accepted")
	}
}

func TestPromise(t *testing.T) {
	stream := burst(10_000, 10_000, 5)
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
			i := Idleness{Stream: stream, TimeoutMS: 5_000}
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
		i := Idleness{Stream: stream, TimeoutMS: 5_000}
		i.Promise(1_000, []Peer{idle(12_000)})
		i.Promise(5_000, []Peer{active(13_000)})
		if got := i.Promise(100_000, []Peer{idle(13_000)}); got != 8_000 {
			t.Errorf("%d, want 8000", got)
		}
	})
}

func TestCrosses(t *testing.T) {
	r := burst(10_000, 0, 5)
	for _, c := range []struct {
		from, to int64
		want     bool
	}{{NoTime, 5, true}, {5, 9_998, false}, {5, 9_999, true}, {9_999, 10_000, false}, {9_999, 19_998, false}, {9_999, 19_999, true}, {7, 7, false}, {9, 3, false}, {5, EndOfTime, true}} {
		if got := r.Crosses(c.from, c.to); got != c.want {
			t.Errorf("Crosses(%d, %d) = %v", c.from, c.to, got)
		}
	}
}

func TestNewStream(t *testing.T) {
	for lateness, ok := range map[time.Duration]bool{0: true, time.Hour: true, time.Microsecond: false, -1: false, 30 * 24 * time.Hour: false} {
		if _, err := NewStream(burst(10, 0, 1).Plan, lateness); (err == nil) != ok {
			t.Errorf("%v: %v", lateness, err)
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

// burst is the stream of the one rule without a rules file.
func burst(sizeMS, latenessMS, threshold int64) Stream {
	set, err := rule.Burst(time.Duration(sizeMS)*time.Millisecond, threshold, 2*threshold)
	if err != nil {
		panic(err)
	}
	return Stream{Plan: set.Plan(), LatenessMS: latenessMS}
}

func userValues(user string) []rule.Value { return []rule.Value{rule.TokenValue([]byte(user))} }

// start is the start of a tumbling window.
func start(ts, size int64) int64 { return burst(size, 0, 1).Plan.Feeds[0].Slice(ts) }
