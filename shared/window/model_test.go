package window

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spate/shared/rule"
)

// A trial runs random logs through both halves, with crashes, and compares with a model that only knows the rules: for each source
// partition, events in order, each judged anew by all that came before it and all that was promised; all counted events of a user in a
// window added up in one map. The model uses nothing of the engine.

type event struct {
	user   string
	ts     int64
	id     uint64 // 0 is none
	values []rule.Value
}

type windowKey struct {
	rule       int
	key        string
	start, end int64
}

// past is all that a source partition has seen: the model's state.
type past struct{ events, promises []int64 }

// judge is rule 1 to 3 and 6, word for word: the window of an event at ts, what becomes of it, and what it is late by.
func (p past) judge(size, lateness, ts int64) (f Fate, start, lateBy int64) {
	start = ts
	for start%size != 0 {
		start--
	}
	f, lateBy = p.closedFor(lateness, start+size)
	return f, start, lateBy
}

// closedFor reports whether what the partition has seen has passed the end of a window, and what did.
func (p past) closedFor(lateness, end int64) (f Fate, by int64) {
	for _, e := range p.events {
		if e-lateness >= end-1 {
			f, by = LateWatermark, max(by, e-lateness-(end-1))
		}
	}
	if f == LateWatermark {
		return f, by
	}
	for _, w := range p.promises {
		if w >= end-1 {
			f, by = LateIdle, max(by, w-(end-1))
		}
	}
	return f, by
}

type keyedLog struct{ batches [][]byte }

type trial struct {
	rng       *rand.Rand
	stream    Stream       // with the plan of all revisions of the rules
	plans     []*rule.Plan // those of the revisions before, from the first on; none if there is only one
	froms     []int64      // the boundary of each revision
	sizeMS    int64
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
		rng: r, sizeMS: 1 + r.Int64N(50), threshold: r.Int64N(4),
		sources: make([][]event, 1+r.IntN(4)), keyed: make([]keyedLog, 1+r.IntN(3)),
		want: map[windowKey]int64{}, known: map[windowKey]map[uint64]bool{}, late: map[Fate]int64{},
	}
	t.stream = burst(t.sizeMS, r.Int64N(60), t.threshold)
	base := r.Int64N(1000) - 500 // the engine must be right below zero too
	users := 1 + r.IntN(8)
	ids := r.IntN(2) * (1 + r.IntN(300)) // in half of the trials events have identities, and come again
	for p := range t.sources {
		now := base
		for range r.IntN(300) {
			now += r.Int64N(4)
			ts := now - r.Int64N(1+2*t.stream.LatenessMS)
			user := fmt.Sprintf("u%d", r.IntN(users))
			t.sources[p] = append(t.sources[p], event{user, ts, uint64(r.IntN(ids + 1)), userValues(user)})
		}
	}
	return t
}

// route is a router: chunks of all partitions, each one transaction. Some transactions are aborted and read again. Silent
// partitions are promised a watermark, which is also what a crash of the router restores. The model judges each event as well, and counts
// those of a transaction once it is committed.
func (t *trial) route(model func(p past, e event, partition int32, offset int64, got Fate, missed Missed) (count func())) {
	next := make([]int, len(t.sources))
	state := make([]Source, len(t.sources))
	for p := range state {
		state[p] = NewSource()
	}
	seen := make([]past, len(t.sources))
	idle := Idleness{Stream: t.stream, TimeoutMS: t.rng.Int64N(30)}
	plans := append(slices.Clone(t.plans), t.stream.Plan)
	c, known := NewCombiner(Stream{Plan: plans[0]}), 0
	clock := int64(1)
	for done := false; ; {
		clock += t.rng.Int64N(20)
		abort := !done && t.rng.IntN(5) == 0
		nextWas, stateWas, seenWas := slices.Clone(next), slices.Clone(state), slices.Clone(seen)
		var counts []func()
		for p, events := range t.sources {
			for n := t.rng.IntN(20) * t.rng.IntN(3); n > 0 && next[p] < len(events); n-- {
				e, offset := events[next[p]], int64(next[p])
				for known+1 < len(plans) && (e.ts >= t.froms[known+1] || t.rng.IntN(100) == 0) { // a revision is known by its boundary
					known++
					c.Extend(plans[known])
				}
				f, missed := c.Add(&Event{MS: e.ts, Partition: int32(p), Offset: offset, Identity: e.id, Values: e.values}, state[p].Judge(t.stream.LatenessMS, e.ts, Unbounded))
				counts = append(counts, model(seen[p], e, int32(p), offset, f, missed))
				seen[p].events = append(seen[p].events, e.ts)
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
					seen[p].promises = append(seen[p].promises, w)
				}
			}
		}
		if done {
			for p := range state {
				state[p].Floor, state[p].Idle = EndOfTime, true
			}
		}
		if abort {
			c.Reset()
			next, state, seen = nextWas, stateWas, seenWas
			continue
		}
		for _, count := range counts {
			count()
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

// judge compares what the engine made of an event with the model, which counts it by user and window.
func (t *trial) judge(p past, e event, partition int32, offset int64, got Fate, missed Missed) (count func()) {
	fate, start, by := p.judge(t.sizeMS, t.stream.LatenessMS, e.ts)
	if t.wrong == nil && (got != fate || got.Late() && (start != missed.StartMS || by != missed.ByMS)) {
		t.wrong = fmt.Errorf("partition %d, event %d at %d: %v in window %d, late by %d; want %v, %d, %d", partition, offset, e.ts, got, missed.StartMS, missed.ByMS, fate, start, by)
	}
	return func() {
		if fate != Counted {
			t.late[fate]++
			return
		}
		t.counted++
		k := windowKey{0, e.user, start, start + t.sizeMS}
		known := t.known[k]
		if known == nil {
			known = map[uint64]bool{}
			t.known[k] = known
		}
		if known[e.id] {
			t.repeated++
			return
		}
		known[e.id] = e.id != 0
		t.want[k]++
	}
}

func (t *trial) flush(c *Combiner, state []Source) {
	var watermarks []Watermark
	for p, s := range state {
		if w := s.Watermark(t.stream.LatenessMS); w != NoTime {
			watermarks = append(watermarks, Watermark{int32(p), w})
		}
	}
	c.Flush(int32(len(t.keyed)), t.home, Header{Sources: int32(len(t.sources)), Watermarks: watermarks}, func(p int32, b []byte) {
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
	raised map[windowKey][]Verdict
	closed map[windowKey][]Verdict
}

func (o outcome) add(vs []Verdict) {
	for _, v := range vs {
		k := windowKey{v.Rule, v.Key, v.Pane.StartMS, v.Pane.EndMS()}
		m := map[State]map[windowKey][]Verdict{Opened: o.opened, Raised: o.raised, Closed: o.closed}[v.State]
		m[k] = append(m[k], v)
	}
}

// arrays is how many arrays of panes slices have.
func (t *Table) arrays() (n int) {
	for _, f := range t.feeds {
		n += f.room.used
	}
	return n + t.joins.used
}

// twice finds a verdict that one batch has twice.
func twice(vs []Verdict) error {
	seen := map[string]bool{}
	for _, v := range vs {
		k := fmt.Sprint(v.Rule, v.Key, v.State, v.Pane.StartMS, v.Pane.EndMS())
		if seen[k] {
			return fmt.Errorf("one batch has %s twice", k)
		}
		seen[k] = true
	}
	return nil
}

// detectAll reads all partitions of the keyed log.
func (t *trial) detectAll() (outcome, error) {
	out := outcome{map[windowKey][]Verdict{}, map[windowKey][]Verdict{}, map[windowKey][]Verdict{}}
	for _, log := range t.keyed {
		if err := t.detect(log, out); err != nil {
			return out, err
		}
	}
	return out, nil
}

// detect reads one partition of the keyed log, and loses it at random: it crashes, or another owner has it for a while, or none. What it
// handed over below the committed Next must be complete; what it handed over above may come again.
func (t *trial) detect(log keyedLog, out outcome) error {
	committed := Position{}
	r := t.rng
	plans := append(slices.Clone(t.plans), t.stream.Plan)
	table, saved := NewTable(Stream{Plan: pick(r, plans...)}), map[string][]byte{}
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
			var h Header
			if err := ParseHeader(log.batches[applied], &h); err != nil {
				return err
			}
			if h.Revision > table.Revision() { // it is read when it is needed; there may be newer ones by then
				i := slices.IndexFunc(plans, func(p *rule.Plan) bool { return p.Revision == h.Revision })
				table.Extend(pick(r, plans[i:]...))
			}
			vs, err := table.Apply(applied, log.batches[applied], nil)
			if err != nil {
				return err
			}
			if err := twice(vs); err != nil {
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
						got, err := ParseKey(v)
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
			if st := table.Stats(); st.Panes != 0 || len(table.windows) != 0 || len(table.gone) != 0 || len(table.history) != 0 || table.arrays() != 0 || st.Identities != 0 || len(saved) != 0 {
				return fmt.Errorf("not empty at the end of time: %+v, %d windows, %d gone, %d history, %d arrays, %d saved", st, len(table.windows), len(table.gone), len(table.history), table.arrays(), len(saved))
			}
			return nil
		}
		switch r.IntN(3) {
		case 0: // a crash
			table, saved = NewTable(t.stream), map[string][]byte{}
		case 1: // another owner comes as far as the end of what is there, or less far, and gives the partition back
			other := NewTable(t.stream)
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
	var lateIdle, lateMark, windows, crashes, repeated, raised int64
	for seed := range seeds {
		tr := newTrial(seed)
		tr.route(tr.judge)
		if tr.wrong != nil {
			t.Fatalf("seed %d: %+v: %v", seed, tr.sizeMS, tr.wrong)
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
		out, err := tr.detectAll()
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
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
			t.Fatalf("seed %d: %+v: final counts (-want +got): %s", seed, tr.sizeMS, d)
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
		critical := 2 * tr.threshold
		for k, vs := range out.raised {
			raised++
			for _, v := range vs {
				if v.Pane.Count <= critical || v.Pane.Count > want[k] || out.opened[k][0].Critical || !v.Critical || !cmp.Equal(vs[0], v, cmp.AllowUnexported(Pane{})) {
					t.Fatalf("seed %d: raised %v with %d of %d, first %v", seed, k, v.Pane.Count, want[k], vs[0])
				}
			}
		}
		for k, vs := range out.closed {
			if vs[0].Critical != (want[k] > critical) || vs[0].Critical != (out.opened[k][0].Critical || len(out.raised[k]) > 0) {
				t.Fatalf("seed %d: closed %v with %d is critical: %v, raised %d times", seed, k, want[k], vs[0].Critical, len(out.raised[k]))
			}
		}
		windows += int64(len(want))
	}
	t.Logf("%d windows; %d late by watermark, %d late by idleness, %d closes told again, %d events that came again", windows, lateMark, lateIdle, crashes, repeated)
	if windows == 0 || lateIdle == 0 || lateMark == 0 || crashes == 0 || repeated == 0 || raised == 0 {
		t.Error("the trials did not reach everything that they are for")
	}
}
