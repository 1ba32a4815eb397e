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
		s.Judge(rule, i)
	}
}

func users(n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = fmt.Appendf(nil, "%d", 520_000_000+i)
	}
	return out
}

// BenchmarkCombine is per event: 100,000 events, then a flush to four partitions.
func BenchmarkCombine(b *testing.B) {
	for _, n := range []int{1, 1_000, 100_000} {
		b.Run(fmt.Sprintf("users=%d", n), func(b *testing.B) {
			c, us := NewCombiner(10_000), users(n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.Add(us[i%n], 0, int64(i%10_000), int32(i%4), int64(i))
				if i%100_000 == 99_999 {
					c.Flush(4, func(u []byte) int32 { return int32(u[len(u)-1]) % 4 }, 4, nil, func(int32, []byte) {})
				}
			}
		})
	}
}

// BenchmarkApply is per delta: batches of 1,000 users, a new window every 100 batches, the old ones closed and forgotten.
func BenchmarkApply(b *testing.B) {
	const n = 1_000
	us := users(n)
	c := NewCombiner(10_000)
	batch := func(window int64) (out []byte) {
		for i, u := range us {
			c.Add(u, window*10_000, window*10_000+int64(i), 0, int64(i))
		}
		c.Flush(1, func([]byte) int32 { return 0 }, 1, []Mark{{0, window*10_000 - 10_001}}, func(_ int32, v []byte) { out = slices.Clone(v) })
		return out
	}
	table := NewTable(1 << 40)
	var out []Verdict
	var cur []byte
	b.ReportAllocs()
	b.ResetTimer()
	for i := range int64(b.N/n + 1) {
		if i%100 == 0 {
			b.StopTimer()
			cur = batch(i / 100)
			b.StartTimer()
		}
		var err error
		if out, err = table.Apply(i, cur, out[:0]); err != nil {
			b.Fatal(err)
		}
		if i%20 == 19 {
			table.Committed(table.Position(i + 1))
		}
	}
}
