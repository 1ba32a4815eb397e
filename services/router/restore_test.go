package router

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"

	"spate/shared/kafka"
	"spate/shared/window"
	"spate/shared/window/windowtest"
	"spate/tests/harness"
)

// TestWhereReadingBegins has what the group, the keyed log and the topic can say of a partition, and what follows.
func TestWhereReadingBegins(t *testing.T) {
	const now = 42
	state := window.Source{MaxTS: 1000, Newest: 1200, Floor: 5000, Idle: true}
	committed := func(offset int64) commitment {
		return commitment{offset: offset, Routed: window.Routed{Source: state, Sources: 4}, known: true}
	}
	unknown := func(offset int64) commitment {
		return commitment{offset: offset, Routed: window.Routed{Source: window.NewSource()}}
	}
	anew := committed(17)
	anew.Topic = 9
	routed := func(next int64) recollection {
		return recollection{progress: map[int32]window.Progress{3: {Partition: 3, Next: next, NewestMS: 1300}}, watermarks: map[int32]int64{0: 70, 1: 60, 2: 80, 3: 6000}, total: 4}
	}
	nothing := recollection{}
	log := kafka.Bounds{Stable: 100, End: 100}
	for _, c := range []struct {
		name string
		c    commitment
		r    recollection
		b    kafka.Bounds
		at   int64
		want window.Source
		lost int64
		anew bool // the topic has another incarnation than that which was committed
	}{
		{"as it was committed, awake", committed(17), nothing, log, 17, window.Source{MaxTS: 1000, Newest: 1200, Floor: 5000}, 0, false},
		{"the keyed log is behind, as after a commit that only promised", committed(17), routed(16), log, 17, window.Source{MaxTS: 1000, Newest: 1200, Floor: 5000}, 0, false},
		{"the keyed log is ahead: the broker lost a commit", committed(17), routed(25), log, 25, window.Source{MaxTS: window.NoTime, Newest: 1300, Floor: 6000}, 0, false},
		{"offsets that were reset", unknown(0), routed(25), log, 25, window.Source{MaxTS: window.NoTime, Newest: 1300, Floor: 6000}, 0, false},
		{"offsets that were deleted", unknown(-1), routed(25), log, 25, window.Source{MaxTS: window.NoTime, Newest: 1300, Floor: 6000}, 0, false},
		{"a new pipeline", unknown(-1), nothing, kafka.Bounds{Start: 5, Stable: 100, End: 100}, 5, window.NewSource(), 0, false},
		{"offsets set by hand, before a keyed log", unknown(7), nothing, log, 7, window.NewSource(), 0, false},
		{"a partition that was added", unknown(-1), recollection{watermarks: map[int32]int64{0: 70, 1: 60, 2: 80}, total: 3}, log, 0, window.Source{MaxTS: window.NoTime, Newest: window.NoTime, Floor: 60}, 0, false},
		{"a topic that was made anew", anew, nothing, log, 0, window.Source{MaxTS: window.NoTime, Newest: window.NoTime, Floor: 5000}, 0, true},
		{"deleted before it was read", committed(17), nothing, kafka.Bounds{Start: 30, Stable: 100, End: 100}, 30, window.Source{MaxTS: 1000, Newest: 1200, Floor: 5000}, 13, false},
		{"a log that lost its end", committed(17), nothing, kafka.Bounds{Stable: 9, End: 9}, 0, window.Source{MaxTS: 1000, Newest: 1200, Floor: 5000}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			names := kafka.NamesFor(kafka.DefaultTopic)
			s := &session{cfg: Config{Layout: kafka.Layout{Names: names}, Now: func() time.Time { return time.UnixMilli(now) }, Log: slog.New(slog.DiscardHandler)}, stream: windowtest.Stream(10*time.Millisecond, 10*time.Millisecond, 5), metrics: newMetrics(reg)}
			if c.anew {
				s.topics.IDs = map[string]kadm.TopicID{names.Activity: {15: 1}}
			}
			src := s.source(3, c.c, c.r, c.b)
			if src.now != c.want || src.position != c.at || src.heard != now || src.committed != c.c.Source || src.settled != c.c.offset {
				t.Errorf("at %d: %+v", src.position, src)
			}
			// The first transaction is aborted: what was restored holds, whatever the group has.
			owned := newSources(4)
			owned.own(map[int32]*source{3: src})
			src.now.MaxTS, src.position = 99_000, c.at+7
			owned.rollback()
			if src.now != c.want || src.position != c.at {
				t.Errorf("aborted, at %d: %+v", src.position, src)
			}
			if got := harness.Gathered(t, reg, "spate_router_lost_events_total"); got != float64(c.lost) {
				t.Errorf("%v lost", got)
			}
		})
	}
}

// TestSilenceIsNotInherited: an aborted transaction leaves no partition idle that was not seen to be.
func TestSilenceIsNotInherited(t *testing.T) {
	s := newSources(4)
	s.own(map[int32]*source{3: {base: window.Source{Idle: true}, now: window.Source{Idle: true}, from: 4, position: 9}})
	s.rollback()
	if src := s.get(3); src.now.Idle || src.position != 4 {
		t.Errorf("%+v", src)
	}
}

// TestGapInAnAbortedTransaction: the client does not come again to what it was sent past, whose dead letter is still to be written. If the
// position stood before it, the reader would find it once more, and there would be two.
func TestGapInAnAbortedTransaction(t *testing.T) {
	s := newSources(2)
	s.own(map[int32]*source{
		0: {from: 5, position: 9, gap: &gap{Gap: kafka.Gap{From: 5, To: 8}, skipped: true}},
		1: {from: 5, position: 5, gap: &gap{Gap: kafka.Gap{From: 5, To: 8}}},
	})
	s.rollback()
	if src := s.get(0); src.position != 8 || src.gap == nil {
		t.Errorf("%+v", src)
	}
	if src := s.get(1); src.position != 5 || src.gap != nil {
		t.Errorf("%+v", src)
	}
	src := s.get(0)
	src.begin()
	if src.from != 8 || src.gap != nil {
		t.Errorf("committed: %+v", src)
	}
}

// TestSilent: a partition that was silent, and holds something that is not read, is not silent any more.
func TestSilent(t *testing.T) {
	s := &source{heard: 1000, position: 10, seen: 10, seenAt: 1000}
	for _, c := range []struct {
		now, end int64
		want     bool
	}{
		{5999, 10, false}, {6000, 10, true}, {6500, 10, true},
		{7000, 12, true},  // a moment ago there was nothing
		{7500, 12, true},  // and the router may come to it
		{8001, 12, false}, // it has not: an open transaction hides it, or it cannot be read
		{60000, 12, false},
	} {
		s.readUpTo(c.now, c.end)
		if got := s.silent(c.now, 5*time.Second); got != c.want {
			t.Errorf("at %d: silent %v", c.now, got)
		}
	}
}

// TestReadTo: a partition that gets records all the time is read up to a moment ago, and one that falls behind is not read to anywhere new.
func TestReadTo(t *testing.T) {
	s := &source{position: 10, seen: 10, seenAt: 1000, readTo: 1000}
	for _, c := range []struct{ now, position, end, want int64 }{
		{2000, 10, 10, 2000}, // nothing came
		{3000, 12, 15, 2000}, // five came, two are read: all that was there at 2000 is
		{4000, 15, 20, 3000},
		{5000, 19, 40, 3000}, // not yet what was there at 4000
		{6000, 20, 60, 4000},
		{7000, 60, 60, 7000},
	} {
		s.position = c.position
		if s.readUpTo(c.now, c.end); s.readTo != c.want {
			t.Errorf("at %d: read to %d, want %d", c.now, s.readTo, c.want)
		}
	}
}
