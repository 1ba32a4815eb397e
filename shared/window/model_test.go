package window

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A trial runs random logs through both halves, with crashes, and compares with a model that only knows the rules: for each source
// partition, events in order, each judged anew by all that came before it and all that was promised; all counted events of a user in a
// window added up in one map. The model uses nothing of the engine.

type event struct {
	user string
	ts   int64
	id   uint64 // 0 is none
}

type windowKey struct {
	user  string
	start int64
}

// past is all that a source partition has seen: the model's state.
type past struct{ events, promises []int64 }

// judge is rule 1 to 3 and 6, word for word: the window of an event at ts, what becomes of it, and what it is late by.
func (p past) judge(size, lateness, ts int64) (f Fate, start, lateBy int64) {
	start = ts
	for start%size != 0 {
		start--
	}
	last := start + size - 1
	for _, e := range p.events {
		if e-lateness >= last {
			f, lateBy = LateWatermark, max(lateBy, e-lateness-last)
		}
	}
	if f == LateWatermark {
		return f, start, lateBy
	}
	for _, w := range p.promises {
		if w >= last {
			f, lateBy = LateIdle, max(lateBy, w-last)
		}
	}
	return f, start, lateBy
}

type keyedLog struct{ batches [][]byte }

type trial struct {
	rng       *rand.Rand
	rule      Rule
	threshold int64
	sources   [][]event
	keyed     []keyedLog

	want     map[windowKey]int64 // the model's counts
	known    map[windowKey]map[uint64]bool
	counted  int64
	repeated int64
	late     map[Fate]int64
	wrong    error // the first judgement of the engine that is not the model's
}

func newTrial(seed uint64) *trial {
	r := rand.New(rand.NewPCG(seed, 1))
	t := &trial{
		rng: r, rule: Rule{SizeMS: 1 + r.Int64N(50), LatenessMS: r.Int64N(60)}, threshold: r.Int64N(4),
		sources: make([][]event, 1+r.IntN(4)), keyed: make([]keyedLog, 1+r.IntN(3)),
		want: map[windowKey]int64{}, known: map[windowKey]map[uint64]bool{}, late: map[Fate]int64{},
	}
	base := r.Int64N(1000) - 500 // the engine must be right below zero too
	users := 1 + r.IntN(8)
	ids := r.IntN(2) * (1 + r.IntN(300)) // in half of the trials events have identities, and come again
	for p := range t.sources {
		now := base
		for range r.IntN(300) {
			now += r.Int64N(4)
			ts := now - r.Int64N(1+2*t.rule.LatenessMS)
			t.sources[p] = append(t.sources[p], event{fmt.Sprintf("u%d", r.IntN(users)), ts, uint64(r.IntN(ids + 1))})
		}
	}
	return t
}

// route is a router: chunks of all partitions, each one transaction. Some transactions are aborted and read again. Silent
// partitions are promised a watermark, which is also what a crash of the router restores.
func (t *trial) route() {
	next := make([]int, len(t.sources))
	state := make([]Source, len(t.sources))
	for p := range state {
		state[p] = NewSource()
	}
	model := make([]past, len(t.sources))
	idle := Idleness{Rule: t.rule, TimeoutMS: t.rng.Int64N(30)}
	c := NewCombiner(t.rule.SizeMS)
	clock := int64(1)
	for done := false; ; {
		clock += t.rng.Int64N(20)
		abort := t.rng.IntN(5) == 0
		nextWas, stateWas, modelWas := slices.Clone(next), slices.Clone(state), slices.Clone(model)
		type judged struct {
			fate   Fate
			window windowKey
			id     uint64
		}
		var seen []judged
		for p := range t.sources {
			if t.rng.IntN(3) == 0 {
				continue
			}
			for range t.rng.IntN(20) {
				if next[p] == len(t.sources[p]) {
					break
				}
				e := t.sources[p][next[p]]
				f, start, lateBy := state[p].Judge(t.rule, e.ts, Unbounded)
				fate, window, by := model[p].judge(t.rule.SizeMS, t.rule.LatenessMS, e.ts)
				if t.wrong == nil && (f != fate || start != window || lateBy != by) {
					t.wrong = fmt.Errorf("partition %d, event %d at %d: %v in window %d, late by %d; want %v, %d, %d", p, next[p], e.ts, f, start, lateBy, fate, window, by)
				}
				model[p].events = append(model[p].events, e.ts)
				if !f.Late() {
					c.AddOnce([]byte(e.user), start, e.ts, int32(p), int64(next[p]), e.id)
				}
				seen = append(seen, judged{fate, windowKey{e.user, window}, e.id})
				next[p]++
			}
			if t.rng.IntN(4) == 0 {
				state[p].Idle = true
			}
		}
		peers := make([]Peer, len(state))
		for p := range state {
			peers[p] = Peer{state[p], true}
		}
		if w := idle.Promise(clock, peers); w != NoTime {
			for p := range state {
				if state[p].Idle {
					state[p].Floor = max(state[p].Floor, w)
					model[p].promises = append(model[p].promises, w)
				}
			}
		}
		if done {
			for p := range state {
				state[p].Floor, state[p].Idle = EndOfTime, true
			}
		}
		if abort && !done {
			c.Reset()
			next, state, model = nextWas, stateWas, modelWas
			continue
		}
		for _, j := range seen {
			if j.fate != Counted {
				t.late[j.fate]++
				continue
			}
			t.counted++
			known := t.known[j.window]
			if known == nil {
				known = map[uint64]bool{}
				t.known[j.window] = known
			}
			if known[j.id] {
				t.repeated++
				continue
			}
			known[j.id] = j.id != 0
			t.want[j.window]++
		}
		t.flush(c, state)
		if done {
			return
		}
		done = true
		for p := range t.sources {
			done = done && next[p] == len(t.sources[p])
		}
	}
}

func (t *trial) flush(c *Combiner, state []Source) {
	var marks []Mark
	for p, s := range state {
		if w := s.Watermark(t.rule.LatenessMS); w != NoTime {
			marks = append(marks, Mark{int32(p), w})
		}
	}
	c.Flush(int32(len(t.keyed)), t.home, Header{Sources: int32(len(t.sources)), Marks: marks}, func(p int32, b []byte) {
		t.keyed[p].batches = append(t.keyed[p].batches, slices.Clone(b))
	})
}

func (t *trial) home(user []byte) int32 {
	h := fnv.New32()
	h.Write(user)
	return int32(h.Sum32() % uint32(len(t.keyed)))
}

type outcome struct {
	opened map[windowKey][]Verdict
	closed map[windowKey][]Verdict
}

func (o outcome) add(vs []Verdict) {
	for _, v := range vs {
		k := windowKey{v.User, v.Pane.StartMS}
		if v.Final {
			o.closed[k] = append(o.closed[k], v)
		} else {
			o.opened[k] = append(o.opened[k], v)
		}
	}
}

// detect reads one partition of the keyed log, and loses it at random: it crashes, or another owner has it for a while, or none. What it
// handed over below the committed Next must be complete; what it handed over above may come again.
func (t *trial) detect(log keyedLog, out outcome) error {
	committed := Position{}
	r := t.rng
	table, saved := NewTable(t.threshold), map[string][]byte{}
	save := func(k string, v []byte) {
		if v == nil {
			delete(saved, k)
		} else {
			saved[k] = slices.Clone(v)
		}
	}
	for {
		md, err := committed.Metadata()
		if err != nil {
			return err
		}
		p, err := ParsePosition(committed.Replay, md)
		if err != nil {
			return err
		}
		if d := cmp.Diff(committed, p); d != "" {
			return fmt.Errorf("position does not survive: %s", d)
		}
		table.Resume(p)
		applied := p.Replay
		lost := false
		for applied < int64(len(log.batches)) && !lost {
			vs, err := table.Apply(applied, log.batches[applied], nil)
			if err != nil {
				return err
			}
			out.add(vs)
			applied++
			switch r.IntN(8) {
			case 0: // commit a prefix of what was applied: later acknowledgements are on their way
				next := max(p.Replay, applied-r.Int64N(3))
				c := table.Position(next)
				if c.Next < committed.Next || c.Replay < committed.Replay || c.Watermark() < committed.Watermark() {
					return fmt.Errorf("the position went back from %+v to %+v", committed, c)
				}
				committed = c
				table.Committed(c)
				p.Replay = next
			case 1:
				if !table.Checkpoint(1+r.IntN(10), save) {
					table.Checkpoint(1<<30, save) // a whole pass without a change
					for k, v := range saved {
						got, err := ParseUser(v)
						if d := cmp.Diff(table.Lookup(k), got, cmp.AllowUnexported(Pane{})); d != "" || err != nil {
							return fmt.Errorf("checkpoint of %s: %w %s", k, err, d)
						}
					}
				}
			case 2:
				lost = r.IntN(6) == 0
			}
		}
		if !lost {
			st := table.Stats()
			if st.Stray != 0 {
				return fmt.Errorf("%d stray events", st.Stray)
			}
			table.Committed(table.Position(applied))
			table.Checkpoint(1<<30, save)
			if st := table.Stats(); st.Windows != 0 || len(table.windows) != 0 || len(table.gone) != 0 || len(table.history) != 0 || table.room.used != 0 || st.Identities != 0 || len(saved) != 0 {
				return fmt.Errorf("not empty at the end of time: %+v, %d windows, %d gone, %d history, %d arrays, %d saved", st, len(table.windows), len(table.gone), len(table.history), table.room.used, len(saved))
			}
			return nil
		}
		switch r.IntN(3) {
		case 0: // a crash
			table, saved = NewTable(t.threshold), map[string][]byte{}
		case 1: // another owner comes as far as the end of what is there, or less far, and gives the partition back
			other := NewTable(t.threshold)
			other.Resume(committed)
			for next := committed.Replay; next < int64(len(log.batches)) && r.IntN(10) > 0; next++ {
				vs, err := other.Apply(next, log.batches[next], nil)
				if err != nil {
					return err
				}
				out.add(vs)
				committed = other.Position(next + 1)
				other.Committed(committed)
			}
			table.Checkpoint(1<<30, save)
		}
	}
}

func TestVerdictsAreAFunctionOfTheLog(t *testing.T) {
	seeds := uint64(3000)
	if testing.Short() {
		seeds = 300
	}
	var lateIdle, lateMark, windows, crashes, repeated int64
	for seed := range seeds {
		tr := newTrial(seed)
		tr.route()
		if tr.wrong != nil {
			t.Fatalf("seed %d: %+v: %v", seed, tr.rule, tr.wrong)
		}
		var total int64
		for _, p := range tr.sources {
			total += int64(len(p))
		}
		if got := tr.counted + tr.late[LateWatermark] + tr.late[LateIdle]; got != total {
			t.Fatalf("seed %d: %d events in, %d accounted", seed, total, got)
		}
		lateIdle += tr.late[LateIdle]
		repeated += tr.repeated
		lateMark += tr.late[LateWatermark]
		out := outcome{map[windowKey][]Verdict{}, map[windowKey][]Verdict{}}
		for _, log := range tr.keyed {
			if err := tr.detect(log, out); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		want := maps.Clone(tr.want)
		maps.DeleteFunc(want, func(_ windowKey, n int64) bool { return n <= tr.threshold })
		got := map[windowKey]int64{}
		for k, vs := range out.closed {
			for _, v := range vs {
				if d := cmp.Diff(vs[0], v, cmp.AllowUnexported(Pane{})); d != "" {
					t.Fatalf("seed %d: closed %v told differently: %s", seed, k, d)
				}
				got[k] = v.Pane.Count
			}
			crashes += int64(len(vs) - 1)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("seed %d: %+v: final counts (-want +got): %s", seed, tr.rule, d)
		}
		for k, vs := range out.opened {
			if want[k] == 0 {
				t.Fatalf("seed %d: opened %v, which never passed the threshold", seed, k)
			}
			for _, v := range vs {
				if v.Pane.Count <= tr.threshold || v.Pane.Count > want[k] || !cmp.Equal(vs[0], v, cmp.AllowUnexported(Pane{})) {
					t.Fatalf("seed %d: opened %v with %d of %d, first %v", seed, k, v.Pane.Count, want[k], vs[0])
				}
			}
		}
		if len(out.opened) != len(want) {
			t.Fatalf("seed %d: %d opened, %d closed", seed, len(out.opened), len(want))
		}
		windows += int64(len(want))
	}
	t.Logf("%d windows; %d late by watermark, %d late by idleness, %d closes told again, %d events that came again", windows, lateMark, lateIdle, crashes, repeated)
	if windows == 0 || lateIdle == 0 || lateMark == 0 || crashes == 0 || repeated == 0 {
		t.Error("the trials did not reach everything that they are for")
	}
}
