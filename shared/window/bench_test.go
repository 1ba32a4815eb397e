package window

import (
	"fmt"
	"slices"
	"testing"
)

func BenchmarkJudge(b *testing.B) {
	rule, s := Rule{SizeMS: 10_000, LatenessMS: 10_000}, NewSource()
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		s.Judge(rule, i, Unbounded)
	}
}

func users(n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = fmt.Appendf(nil, "%d", 520_000_000+i)
	}
	return out
}

// BenchmarkCombine is per event: 100,000 events, then a flush to four partitions. Of 1,000,000 users nobody comes twice before it.
func BenchmarkCombine(b *testing.B) {
	for _, n := range []int{1, 1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("users=%d", n), func(b *testing.B) {
			c, us := NewCombiner(10_000), users(n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.Add(us[i%n], 0, int64(i%10_000), int32(i%4), int64(i))
				if i%100_000 == 99_999 {
					c.Flush(4, func(u []byte) int32 { return int32(u[len(u)-1]) % 4 }, Header{Sources: 4}, func(int32, []byte) {})
				}
			}
		})
	}
}

// BenchmarkFlush is per batch of 1,000 users, without the adding up.
func BenchmarkFlush(b *testing.B) {
	const n = 1_000
	c, us := NewCombiner(10_000), users(n)
	size := 0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for i, u := range us {
			c.Add(u, 0, int64(i), int32(i%4), int64(i))
		}
		b.StartTimer()
		c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 4, Marks: []Mark{{0, 1}, {1, 2}, {2, 3}, {3, 4}}}, func(_ int32, v []byte) { size = len(v) })
	}
	b.SetBytes(int64(size))
	b.ReportMetric(float64(size)/n, "B/delta")
}

// BenchmarkApply is per delta: batches of 1,000 users, who come again and again in a window and then in the next; the old ones are closed
// and forgotten. 1,000 users come 100 times in a window, as the hottest do; 1,000,000 twice, so that half of the deltas are of new ones.
func BenchmarkApply(b *testing.B) {
	for _, bench := range []struct{ users, times int }{{1_000, 100}, {1_000_000, 2}} {
		b.Run(fmt.Sprintf("users=%d", bench.users), func(b *testing.B) { benchmarkApply(b, bench.users, bench.times) })
	}
}

func benchmarkApply(b *testing.B, n, times int) {
	const size = 1_000 // users of a batch
	us, c := users(n), NewCombiner(10_000)
	batches := func(window int64) (out [][]byte) {
		for from := 0; from < n; from += size {
			for i, u := range us[from : from+size] {
				c.Add(u, window*10_000, window*10_000+int64(i), 0, int64(i))
			}
			c.Flush(1, func([]byte) int32 { return 0 }, Header{Sources: 1, Marks: []Mark{{0, window*10_000 - 10_001}}}, func(_ int32, v []byte) { out = append(out, slices.Clone(v)) })
		}
		return out
	}
	table, perWindow := NewTable(1<<40), int64(n/size*times)
	var out []Verdict
	var cur [][]byte
	b.ReportAllocs()
	b.ResetTimer()
	for i := range int64(b.N/size + 1) {
		if i%perWindow == 0 {
			b.StopTimer()
			cur = batches(i / perWindow)
			b.StartTimer()
		}
		var err error
		if out, err = table.Apply(i, cur[i%int64(len(cur))], out[:0]); err != nil {
			b.Fatal(err)
		}
		if i%20 == 19 {
			table.Committed(table.Position(i + 1))
		}
	}
}

func position(sources int) Position {
	p := Position{Replay: 1_000_000, Next: 1_000_120}
	for i := range int64(sources) {
		p.Watermarks = append(p.Watermarks, 1_572_566_400_000+i*37)
	}
	return p
}

// BenchmarkPositionEncode and BenchmarkPositionDecode are per position, of which there is one for each partition and commit.
func BenchmarkPositionEncode(b *testing.B) {
	for _, n := range []int{4, 900} {
		b.Run(fmt.Sprintf("sources=%d", n), func(b *testing.B) {
			p := position(n)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Metadata(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPositionDecode(b *testing.B) {
	for _, n := range []int{4, 900} {
		b.Run(fmt.Sprintf("sources=%d", n), func(b *testing.B) {
			p := position(n)
			m, err := p.Metadata()
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(m)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParsePosition(p.Replay, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSource is per source partition of a transaction: its state to the offset's metadata and back.
func BenchmarkSource(b *testing.B) {
	s := Routed{Source: Source{MaxTS: 1_572_566_400_000, Floor: 1_572_566_390_000}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRouted(s.Metadata()); err != nil {
			b.Fatal(err)
		}
	}
}
