package rule

import (
	"bytes"
	"maps"
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
		cells := NewCells(1 + r.IntN(4))
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
			c := &cells.List[r.IntN(len(cells.List))]
			cells.Spill.addDouble(c, f)
			c.n++
			if r.IntN(8) == 0 {
				cells.Spill.more(c).double.normalize()
			}
		}
		a := accumulator{Aggregate: &Aggregate{Function: Sum}, kind: Double}
		written := append(cells.Append(nil), 1, 2)
		read, sum := NewCells(len(cells.List)), NewCells(1)
		if rest, err := read.Read(written); err != nil || len(rest) != 2 {
			t.Fatalf("cells cannot be read back: %v, %d", err, len(rest))
		}
		if rest, err := PassCells(written, len(cells.List)); err != nil || len(rest) != 2 {
			t.Fatalf("cells cannot be passed: %v, %d", err, len(rest))
		}
		for i := range read.List {
			a.merge(&sum.List[0], sum.Spill, &read.List[i], read.Spill)
		}
		if sum.List[0].n == 0 {
			continue
		}
		exact, _ := want.Float64()
		if got := a.result(&sum.List[0], sum.Spill).Double(); got != exact {
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

// TestDistinct: a cell counts each value once, 0 included, however they come together, and stops at its bound.
func TestDistinct(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	a := accumulator{Aggregate: &Aggregate{Function: Count, Distinct: true}, kind: BigInt}
	for n := range uint64(60) {
		parts, sum := NewCells(3), NewCells(1)
		want := map[uint64]bool{}
		for range 3 * n {
			m := r.Uint64N(n)
			parts.Spill.addMember(&parts.List[r.IntN(3)], m)
			want[m] = true
		}
		for i := range parts.List {
			a.merge(&sum.List[0], sum.Spill, &parts.List[i], parts.Spill)
		}
		read := NewCells(1)
		if rest, err := read.Read(sum.Append(nil)); err != nil || len(rest) > 0 {
			t.Fatal(err)
		}
		seen := map[uint64]bool{}
		read.Spill.eachMember(&read.List[0], func(m uint64) { seen[m] = true })
		if got := a.result(&sum.List[0], sum.Spill).Int(); int(got) != len(want) || !maps.Equal(seen, want) {
			t.Errorf("of up to %d values: it has %d, and lists %d, want %d", n, got, len(seen), len(want))
		}
	}
	c := NewCells(1)
	for m := range uint64(MaxDistinct + 1000) {
		c.Spill.addMember(&c.List[0], m)
	}
	if n := c.List[0].distinct(c.Spill); n != MaxDistinct+1 {
		t.Errorf("it holds %d", n)
	}
	read := NewCells(1)
	if rest, err := read.Read(c.Append(nil)); err != nil || len(rest) > 0 || read.List[0].distinct(read.Spill) != MaxDistinct+1 {
		t.Errorf("as it is written, it holds %d: %v", read.List[0].distinct(read.Spill), err)
	}
}

// TestFewEventsFit: what a few events add to a cell is in the cell itself.
func TestFewEventsFit(t *testing.T) {
	double, distinct := accumulator{Aggregate: &Aggregate{Function: Sum}, kind: Double}, accumulator{Aggregate: &Aggregate{Function: Count, Distinct: true}, kind: BigInt}
	value := func(row []Value) Value { return row[0] }
	double.value, distinct.value = value, value
	c := NewCells(2)
	for i := range 1000 {
		double.add(&c.List[0], c.Spill, []Value{DoubleValue(float64(i*7919%100_000) / 100)})
		distinct.add(&c.List[1], c.Spill, []Value{IntValue(int64(i % 3))})
	}
	if c.Spill.n > 0 {
		t.Errorf("%d cells have spilled", c.Spill.n)
	}
	if got := double.result(&c.List[0], c.Spill).Double(); got != 498_405 {
		t.Errorf("the sum is %v", got)
	}
}

// FuzzReadCells: bytes are cells that are written as they were read, or an error.
func FuzzReadCells(f *testing.F) {
	c := NewCells(1)
	cell := &c.List[0]
	cell.n, cell.sum = 3, wide{1, 2, 3}
	c.Spill.addDouble(cell, 0.1)
	c.Spill.more(cell).text = []byte("x")
	c.Spill.addMember(cell, 7)
	f.Add(c.Append(nil))
	few := NewCells(2)
	few.Spill.addDouble(&few.List[0], 0.1)
	few.Spill.addDouble(&few.List[0], 0.7)
	few.Spill.addMember(&few.List[1], 9)
	f.Add(few.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, d := NewCells(2), NewCells(2)
		_, err := c.Read(b)
		if _, passed := PassCells(b, 2); err != nil || passed != nil {
			if (err == nil) != (passed == nil) {
				t.Fatalf("read: %v, passed: %v", err, passed)
			}
			return
		}
		one := c.Append(nil)
		if rest, err := d.Read(one); err != nil || len(rest) > 0 {
			t.Fatalf("what is written cannot be read: %v", err)
		}
		for i := range c.List {
			if c.List[i].distinct(c.Spill) > fewMembers {
				return
			}
		}
		if !bytes.Equal(one, d.Append(nil)) {
			t.Fatalf("%x became %x", one, d.Append(nil))
		}
		for _, kind := range []Kind{BigInt, Double, String, Decimal} { // no bytes make an aggregate panic
			for _, function := range []AggregateFunction{Count, Sum, Min, Max, Avg} {
				for _, distinct := range []bool{false, true} {
					a := accumulator{Aggregate: &Aggregate{Function: function, Distinct: distinct, arg: &node{typ: Type{Kind: kind}}}, kind: kind, compiler: &compiler{faults: new(int64)}}
					sum := NewCells(1)
					for i := range c.List {
						a.merge(&sum.List[0], sum.Spill, &c.List[i], c.Spill)
					}
					a.result(&sum.List[0], sum.Spill)
				}
			}
		}
	})
}
