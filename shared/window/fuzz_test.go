package window

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sampleBatches are what a router writes, with several users, windows and source partitions.
func sampleBatches() (out [][]byte) {
	c := NewCombiner(10)
	for i := range int64(40) {
		c.Add([]byte{'"', byte('a' + i%5), '"'}, Start(i, 10), i, int32(i%3), i)
	}
	c.Flush(2, func(u []byte) int32 { return int32(u[1]) % 2 }, Header{Sources: 3, Topic: 9, Marks: []Mark{{0, 12}, {2, -5}}, Places: []Place{{0, 7, 12}, {2, 0, NoTime}}}, func(_ int32, b []byte) { out = append(out, slices.Clone(b)) })
	for i := range int64(20) { // events with identities, some of which come again
		c.AddOnce([]byte{'"', byte('a' + i%5), '"'}, 40, 40+i%10, int32(i%3), i, uint64(i%7))
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
		one, two := NewTable(1), NewTable(1)
		for i, batch := range append(sampleBatches(), b, b) {
			v1, err1 := one.Apply(int64(i), batch, nil)
			v2, err2 := two.Apply(int64(i), batch, nil)
			if (err1 == nil) != (err2 == nil) || !cmp.Equal(v1, v2, cmp.AllowUnexported(Pane{})) {
				t.Fatalf("two tables differ: %v %v", err1, err2)
			}
		}
		if st := one.Stats(); st.Windows > 100+2*len(b) {
			t.Fatalf("%+v out of %d bytes", st, len(b))
		}
		one.Committed(one.Position(100))
		one.Checkpoint(1000, func(key string, value []byte) {
			if value == nil {
				return
			}
			got, err := ParseUser(value)
			if d := cmp.Diff(one.Lookup(key), got, cmp.AllowUnexported(Pane{})); d != "" || err != nil {
				t.Fatalf("%v %s", err, d)
			}
		})
	})
}

func FuzzUser(f *testing.F) {
	table := NewTable(1)
	for i, b := range sampleBatches() {
		if _, err := table.Apply(int64(i), b, nil); err != nil {
			f.Fatal(err)
		}
	}
	table.Checkpoint(100, func(_ string, v []byte) { f.Add(slices.Clone(v)) })
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := ParseUser(b); err == nil && len(got) > len(b) {
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
