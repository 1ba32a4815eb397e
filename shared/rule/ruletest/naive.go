package ruletest

import (
	"math"
	"testing"

	"spate/shared/rule"
)

// Naive evaluates rule number i of a plan over a log in the plainest way: one group of events per window and key, judged one after the other as Flink's
// documentation has it, by the watermark of its own partition, which stays behind by a lateness in milliseconds. It has none of the engine's code. The lines are
// in no order.
func Naive(t testing.TB, plan *rule.Plan, i int, latenessMS int64, events []Event) []Timed {
	t.Helper()
	f, p := plan.Feeds[plan.FeedOf[i]].Program(), plan.Program(i)
	type window struct {
		start, end int64
		key        string
		partition  int32 // each counts on its own, and in the end they are merged
	}
	groups := map[window]*group{}
	var sessions []*session
	watermarks := map[int32]int64{}
	byKey := map[string][]*session{}
	for _, e := range events {
		watermark, known := watermarks[e.Partition]
		if !known {
			watermark = math.MinInt64
		}
		if f.Takes(e.Values) {
			key := string(f.AppendKey(nil, e.Values))
			if p.Window.Kind == rule.Session {
				byKey[key] = meet(f, byKey[key], e, watermark, &sessions, key)
			} else {
				for _, w := range windowsOf(p.Window, e.MS) {
					if from, until := p.Window.From, p.Window.Until; w[1]-1 <= watermark || from != 0 && w[0] < from || until != 0 && w[0] >= until {
						continue
					}
					at := window{w[0], w[1], key, e.Partition}
					if groups[at] == nil {
						groups[at] = newGroup(f)
					}
					groups[at].add(f, e)
				}
			}
		}
		newest := e.MS
		if e.AppendedMS != 0 {
			newest = min(newest, e.AppendedMS)
		}
		watermarks[e.Partition] = max(watermark, newest-latenessMS)
	}
	var lines []Timed
	emit := func(key string, g *group, start, end int64) {
		if !p.Row([]byte(key), g.n, g.cells, start, end) {
			t.Fatalf("key %s cannot be read back", key)
		}
		if p.Holds() {
			lines = append(lines, Timed{Start: start, End: end, Line: Line(p), Critical: p.Critical()})
		}
	}
	merged := map[window]*group{}
	for w, g := range groups {
		w.partition = 0
		if merged[w] == nil {
			merged[w] = newGroup(f)
		}
		merged[w].merge(f, g)
	}
	for w, g := range merged {
		emit(w.key, g, w.start, w.end)
	}
	for _, s := range sessions {
		if !s.merged {
			emit(s.key, s.group, s.start, s.end)
		}
	}
	return lines
}

// group are the events of a key in a window.
type group struct {
	n     int64
	cells rule.Cells
}

func newGroup(f *rule.FeedProgram) *group {
	return &group{cells: rule.NewCells(len(f.Aggregates))}
}

func (g *group) add(f *rule.FeedProgram, e Event) {
	g.n++
	f.Add(g.cells, e.Values)
}

func (g *group) merge(f *rule.FeedProgram, from *group) {
	g.n += from.n
	f.Merge(g.cells, from.cells)
}

type session struct {
	*group
	key        string
	start, end int64
	merged     bool
}

// meet adds an event to the open sessions of its key: it merges those that it touches, and is judged by what comes out.
func meet(f *rule.FeedProgram, open []*session, e Event, watermark int64, all *[]*session, key string) []*session {
	s := &session{group: newGroup(f), key: key, start: e.MS, end: e.MS + f.GapMS}
	var touched, rest []*session
	for _, o := range open {
		switch {
		case o.end-1 <= watermark: // closed
		case o.start <= e.MS+f.GapMS && e.MS <= o.end:
			touched = append(touched, o)
			s.start, s.end = min(s.start, o.start), max(s.end, o.end)
		default:
			rest = append(rest, o)
		}
	}
	if s.end-1 <= watermark {
		return append(rest, touched...)
	}
	for _, o := range touched {
		s.merge(f, o.group)
		o.merged = true
	}
	s.add(f, e)
	*all = append(*all, s)
	return append(rest, s)
}

func windowsOf(w rule.Window, ms int64) (out [][2]int64) {
	ms -= w.Offset
	floor := func(unit int64) int64 {
		r := ms % unit
		if r < 0 {
			r += unit
		}
		return ms - r
	}
	if w.Kind == rule.Cumulate {
		start := floor(w.Size)
		for end := start + w.Step; end <= start+w.Size; end += w.Step {
			if end > ms {
				out = append(out, [2]int64{start + w.Offset, end + w.Offset})
			}
		}
		return out
	}
	for start := floor(w.Step); start > ms-w.Size; start -= w.Step {
		out = append(out, [2]int64{start + w.Offset, start + w.Size + w.Offset})
	}
	return out
}
