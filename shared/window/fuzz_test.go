package window

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spate/shared/rule"
)

// sampleBatches are what a router writes, with several users, windows and source partitions.
func sampleBatches() (out [][]byte) {
	c := NewCombiner(burst(10, 0, 1))
	for i := range int64(40) {
		c.Add(&Event{MS: i, Partition: int32(i % 3), Offset: i, Values: userValues(string([]byte{'"', byte('a' + i%5), '"'}))}, onTime)
	}
	c.Flush(2, func(u []byte) int32 { return int32(u[1]) % 2 }, Header{Sources: 3, Topic: 9, Watermarks: []Watermark{{0, 12}, {2, -5}}, Progress: []Progress{{0, 7, 12}, {2, 0, NoTime}}}, func(_ int32, b []byte) { out = append(out, slices.Clone(b)) })
	for i := range int64(20) { // events with identities, some of which come again
		c.Add(&Event{MS: 40 + i%10, Partition: int32(i % 3), Offset: i, Identity: uint64(i % 7), Values: userValues(string([]byte{'"', byte('a' + i%5), '"'}))}, onTime)
	}
	c.Flush(2, func(u []byte) int32 { return int32(u[1]) % 2 }, Header{Sources: 3, Topic: 9}, func(_ int32, b []byte) { out = append(out, slices.Clone(b)) })
	return out
}

// FuzzApply: whatever is in the keyed log, a table neither panics nor grows beyond what the bytes can hold, and two tables agree.
func FuzzApply(f *testing.F) {
	for _, b := range sampleBatches() {
		b = b[:len(b)-4]
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = seal(b) // no mutation would get past the checksum
		one, two := NewTable(burst(10, 0, 1)), NewTable(burst(10, 0, 1))
		for i, batch := range append(sampleBatches(), b, b) {
			v1, err1 := one.Apply(int64(i), batch, nil)
			v2, err2 := two.Apply(int64(i), batch, nil)
			if (err1 == nil) != (err2 == nil) || !cmp.Equal(v1, v2, cmp.AllowUnexported(Pane{})) {
				t.Fatalf("two tables differ: %v %v", err1, err2)
			}
		}
		if st := one.Stats(); st.Panes > 100+2*len(b) {
			t.Fatalf("%+v out of %d bytes", st, len(b))
		}
		one.Committed(one.Position(100))
		one.Checkpoint(1000, func(key string, value []byte) {
			if value == nil {
				return
			}
			got, err := ParseKey(value)
			if d := cmp.Diff(one.Lookup(key), got, cmp.AllowUnexported(Pane{})); d != "" || err != nil {
				t.Fatalf("%v %s", err, d)
			}
		})
	})
}

func FuzzKey(f *testing.F) {
	table := NewTable(burst(10, 0, 1))
	for i, b := range sampleBatches() {
		if _, err := table.Apply(int64(i), b, nil); err != nil {
			f.Fatal(err)
		}
	}
	table.Checkpoint(100, func(_ string, v []byte) { f.Add(slices.Clone(v)) })
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := ParseKey(b); err == nil && len(got) > len(b) {
			t.Fatalf("%d windows out of %d bytes", len(got), len(b))
		}
	})
}

func FuzzPosition(f *testing.F) {
	md, err := Position{Replay: 5, Next: 9, Log: 1, Topic: 1 << 63, Watermarks: []int64{NoTime, 7, EndOfTime}}.Metadata()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(md)
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePosition(5, s)
		if err != nil {
			return
		}
		again, err := p.Metadata()
		if err != nil {
			return // longer than a broker takes
		}
		back, err := ParsePosition(5, again)
		if d := cmp.Diff(p, back); d != "" || err != nil {
			t.Fatalf("%v %s", err, d)
		}
	})
}

func FuzzSource(f *testing.F) {
	f.Add(Routed{Source: Source{MaxTS: 5, Newest: 6, Floor: NoTime, Idle: true}, Topic: 1 << 63, Sources: 4, Log: 2, Keyed: 9}.Metadata())
	f.Fuzz(func(t *testing.T, s string) {
		src, err := ParseRouted(s)
		if err != nil {
			return
		}
		if back, err := ParseRouted(src.Metadata()); err != nil || back != src {
			t.Fatalf("%+v came back as %+v, %v", src, back, err)
		}
	})
}

// rulesOfAllKinds has two feeds: one with cells of every kind in many windows, and one that counts.
func rulesOfAllKinds(t testing.TB) (Stream, []rule.Input) {
	set, errs := rule.Compile(modelTable+`
-- rule: a
INSERT INTO alerts SELECT COUNT(DISTINCT s) AS n, SUM(x) AS x, AVG(d) AS d, MIN(s) AS s, MAX(n) AS m, SUM(DISTINCT n) AS k
FROM TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '0.010' SECOND, INTERVAL '0.050' SECOND, INTERVAL '0.003' SECOND)) GROUP BY window_start, window_end, who;
-- rule: b
INSERT INTO alerts SELECT COUNT(*) AS n
FROM TABLE(CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '0.005' SECOND, INTERVAL '0.100' SECOND)) GROUP BY window_start, window_end, item HAVING COUNT(*) > 2;`, rule.Options{})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return Stream{Plan: set.Plan()}, set.Inputs
}

// FuzzApplyRules: as FuzzApply, for batches of several feeds with cells. A batch that is refused changes nothing.
func FuzzApplyRules(f *testing.F) {
	s, inputs := rulesOfAllKinds(f)
	r := rand.New(rand.NewPCG(1, 3))
	var samples [][]byte
	c := NewCombiner(s)
	for batch := range int64(3) {
		for i := range 40 {
			e := Event{MS: batch*20 + r.Int64N(40), Partition: int32(i % 2), Offset: int64(i), Identity: uint64(r.IntN(8)) * uint64(batch%2)}
			for _, in := range inputs {
				e.Values = append(e.Values, randomValue(r, in))
			}
			c.Add(&e, Judgement{r.Int64N(40), NoTime})
		}
		c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 2, Watermarks: []Watermark{{0, batch}, {1, batch}}}, func(_ int32, b []byte) { samples = append(samples, slices.Clone(b)) })
	}
	for _, b := range samples {
		f.Add(b[:len(b)-4])
		f.Add(append(b[:len(b)/2:len(b)/2], isEnd))
	}
	end := seal(append(Header{Sources: 2, Watermarks: []Watermark{{0, EndOfTime}, {1, EndOfTime}}}.append(nil), isEnd))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = seal(b)
		one, two := NewTable(s), NewTable(s)
		for i, batch := range append(slices.Clone(samples), b, b, end) {
			before := one.Stats()
			v1, err1 := one.Apply(int64(i), batch, nil)
			v2, err2 := two.Apply(int64(i), batch, nil)
			if (err1 == nil) != (err2 == nil) || !reflect.DeepEqual(v1, v2) {
				t.Fatalf("two tables differ: %v %v", err1, err2)
			}
			if err1 != nil && (one.Stats() != before || len(v1) > 0) {
				t.Fatalf("%v, and yet %+v became %+v", err1, before, one.Stats())
			}
			if st := one.Stats(); st.Panes > 500+2*len(b) {
				t.Fatalf("%+v out of %d bytes", st, len(b))
			}
		}
		if one.Committed(one.Position(100)); one.Stats().WatermarkMS == EndOfTime && (one.Stats().Panes > 0 || len(one.windows) > 0) {
			t.Fatalf("at the end of time: %+v", one.Stats())
		}
	})
}
