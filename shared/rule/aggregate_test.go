package rule

import (
	"bytes"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// TestExact: a sum of floating-point numbers is the true sum, rounded once, however its parts are merged, and through the codec.
func TestExact(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		want := new(big.Float).SetPrec(5000)
		cells := make([]Cell, 1+r.IntN(4))
		n := r.IntN(40)
		for range n {
			f := math.Float64frombits(r.Uint64())
			if r.IntN(2) == 0 {
				f = math.Round(r.NormFloat64()*1e4) / 100
			}
			if math.IsNaN(f) || math.IsInf(f, 0) {
				continue
			}
			want.Add(want, new(big.Float).SetFloat64(f))
			c := &cells[r.IntN(len(cells))]
			c.rest().double.add(f)
			c.n++
			if r.IntN(8) == 0 {
				c.more.double.normalize()
			}
		}
		a := Accumulator{Aggregate: &Aggregate{Function: Sum}, kind: Double}
		var sum Cell
		for i := range cells {
			var read Cell
			rest, err := ReadCell(append(cells[i].Append(nil), 1, 2), &read)
			if err != nil || len(rest) != 2 {
				t.Fatalf("a cell cannot be read back: %v, %d", err, len(rest))
			}
			a.Merge(&sum, &read)
		}
		if sum.n == 0 {
			continue
		}
		exact, _ := want.Float64()
		if got := a.Result(&sum).Double(); got != exact {
			t.Fatalf("%v, want %v", got, exact)
		}
	}
}

// TestWide: sums of whole numbers do not overflow on the way.
func TestWide(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		var w wide
		want := new(big.Int)
		for range r.IntN(20) {
			d := int128{int64(r.Uint64()) >> r.IntN(64), r.Uint64()}
			w.add(d)
			want.Add(want, d.big())
		}
		got := new(big.Int).Lsh(big.NewInt(w.top), 128)
		got.Add(got, new(big.Int).Lsh(new(big.Int).SetUint64(w.hi), 64))
		if got.Add(got, new(big.Int).SetUint64(w.lo)); got.Cmp(want) != 0 {
			t.Fatalf("%v, want %v", got, want)
		}
		n, ok := w.fits64()
		if ok != want.IsInt64() || ok && n != want.Int64() {
			t.Fatalf("%v fits 64 bits: %v, %d", want, ok, n)
		}
		if _, ok := w.fits(maxPrecision); ok != (want.CmpAbs(powers[maxPrecision]) < 0) {
			t.Fatalf("%v has at most 38 digits: %v", want, ok)
		}
	}
}

// TestDistinct: a set counts each value once, 0 included, and stops at its bound.
func TestDistinct(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 7, 8, 9, 33, 1000} {
		var s set
		want := map[uint64]bool{}
		for range 3 * n {
			m := r.Uint64N(uint64(n))
			s.add(m)
			want[m] = true
		}
		if n > 1 {
			s.add(0)
			want[0] = true
		}
		seen := map[uint64]bool{}
		s.each(func(m uint64) { seen[m] = true })
		if s.n != len(want) || len(seen) != len(want) {
			t.Errorf("%d values: it has %d, and lists %d, want %d", n, s.n, len(seen), len(want))
		}
	}
	var s set
	for m := range uint64(MaxDistinct + 1000) {
		s.add(m)
	}
	if s.n != MaxDistinct {
		t.Errorf("it holds %d", s.n)
	}
}

// FuzzReadCell: bytes are a cell that is written as it was read, or an error.
func FuzzReadCell(f *testing.F) {
	c := Cell{n: 3, sum: wide{1, 2, 3}}
	c.rest().double.add(0.1)
	c.more.text = []byte("x")
	c.more.distinct.add(7)
	f.Add(c.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c, d Cell
		if _, err := ReadCell(b, &c); err != nil {
			return
		}
		one := c.Append(nil)
		if rest, err := ReadCell(one, &d); err != nil || len(rest) > 0 {
			t.Fatalf("what is written cannot be read: %v", err)
		}
		if c.Distinct() <= fewMembers && !bytes.Equal(one, d.Append(nil)) {
			t.Fatalf("%x became %x", one, d.Append(nil))
		}
	})
}
