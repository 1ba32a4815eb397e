package rule

import (
	"math"
	"slices"
)

// Cells are what the aggregates of a feed know of one group's events: a cell for each. Cells can be merged in any order, with the same result.
type Cells struct {
	List []Cell
	// Spill holds what the cells have no room for. It can be that of many groups.
	Spill *Spill
}

// NewCells returns n cells of no events.
func NewCells(n int) Cells { return Cells{make([]Cell, n), &Spill{}} }

// Reset makes n cells of no events of them. It needs the spill to be that of no other cells.
func (c *Cells) Reset(n int) {
	if c.Spill == nil {
		c.Spill = &Spill{}
	}
	c.Spill.n = 0
	c.List = slices.Grow(c.List[:0], n)[:n]
	clear(c.List)
}

// Cell is what an aggregate knows of the events that were added to it. Its zero value is that of no events. It has no pointers, so the garbage collector need not
// look at the cells of millions of groups; nearly all of them have few events, and fit.
type Cell struct {
	n     int64 // values that are not NULL
	sum   wide
	spill uint32 // 1 + the number of its spill; 0 without
	kind  kind
	few   uint8 // of fewMembers: how many
}

// kind is what a cell's sum is.
type kind uint8

const (
	// ofNumber: the sum of whole numbers and decimals; for MIN and MAX, the number of the extreme.
	ofNumber kind = iota
	// ofDoubles: lo and hi are two floating-point numbers, whose sum is that of all, without any rounding. The first is that sum rounded.
	ofDoubles
	// ofMembers: lo, hi and top are up to three distinct values.
	ofMembers
)

// spill is what only some cells need.
type spill struct {
	double   exact  // SUM and AVG of DOUBLE
	text     []byte // MIN and MAX of text
	distinct set
}

// Spill holds what cells have no room for.
type Spill struct {
	list [][]spill // in arrays that stay where they are
	n    int
}

const spillsPerArray = 32

// of is what the cell has spilled, nil if nothing.
func (s *Spill) of(c *Cell) *spill {
	if c.spill == 0 {
		return nil
	}
	i := int(c.spill - 1)
	return &s.list[i/spillsPerArray][i%spillsPerArray]
}

// more is what the cell has spilled, to be changed.
func (s *Spill) more(c *Cell) *spill {
	if m := s.of(c); m != nil {
		return m
	}
	if s.n == len(s.list)*spillsPerArray {
		s.list = append(s.list, make([]spill, spillsPerArray))
	}
	m := &s.list[s.n/spillsPerArray][s.n%spillsPerArray]
	*m = spill{}
	s.n++
	c.spill = uint32(s.n)
	was := *c
	if c.kind != ofNumber {
		c.sum, c.kind, c.few = wide{}, ofNumber, 0
	}
	switch was.kind {
	case ofDoubles:
		a, b := was.doubles()
		m.double.add(a)
		m.double.add(b)
	case ofMembers:
		for _, v := range was.members() {
			m.distinct.add(v)
		}
	}
	return m
}

// doubles are the two numbers of a cell of this kind, or one that has no number yet.
func (c *Cell) doubles() (a, b float64) {
	return math.Float64frombits(c.sum.lo), math.Float64frombits(c.sum.hi)
}

// addDouble adds a floating-point number to the sum.
func (s *Spill) addDouble(c *Cell, f float64) {
	if c.kind == ofDoubles || c.empty() {
		a, b := c.doubles()
		a, err := twoSum(a, f)
		b, rest := twoSum(b, err)
		if rest == 0 { // not if anything is infinite or NaN
			a, b = twoSum(a, b)
			c.sum.lo, c.sum.hi, c.kind = math.Float64bits(a), math.Float64bits(b), ofDoubles
			return
		}
	}
	s.more(c).double.add(f)
}

// empty reports whether the cell has neither a number nor a spill.
func (c *Cell) empty() bool { return c.kind == ofNumber && c.spill == 0 && c.sum == wide{} }

// double is the sum of floating-point numbers.
func (s *Spill) double(c *Cell) float64 {
	if c.kind == ofDoubles {
		a, _ := c.doubles()
		return a
	}
	if m := s.of(c); m != nil {
		return m.double.float()
	}
	return 0
}

// members are the distinct values of a cell of this kind.
func (c *Cell) members() []uint64 {
	return []uint64{c.sum.lo, c.sum.hi, uint64(c.sum.top)}[:c.few]
}

// addMember adds a distinct value.
func (s *Spill) addMember(c *Cell, member uint64) {
	switch {
	case c.empty():
		c.sum.lo, c.kind, c.few = member, ofMembers, 1
		return
	case c.kind == ofMembers:
		switch {
		case c.sum.lo == member, c.few > 1 && c.sum.hi == member, c.few > 2 && uint64(c.sum.top) == member:
			return
		case c.few == 1:
			c.sum.hi, c.few = member, 2
			return
		case c.few == 2:
			c.sum.top, c.few = int64(member), 3
			return
		}
	}
	s.more(c).distinct.add(member)
}

// distinct is the number of distinct values; [MaxDistinct] + 1 if there are more than are counted.
func (c *Cell) distinct(s *Spill) int {
	if c.kind == ofMembers {
		return int(c.few)
	}
	if m := s.of(c); m != nil {
		return m.distinct.n
	}
	return 0
}

// eachMember calls f for each distinct value.
func (s *Spill) eachMember(c *Cell, f func(uint64)) {
	if c.kind == ofMembers {
		for _, m := range c.members() {
			f(m)
		}
	} else if m := s.of(c); m != nil {
		m.distinct.each(f)
	}
}

// MaxDistinct is how many distinct values of an aggregate are counted for a key in a window; above it, results are lower bounds. A cell holds one more, to know
// that there are.
const MaxDistinct = 1 << 16

// set is a set of 64-bit values: a list while it is small, then a table with open addressing.
type set struct {
	n     int
	list  []uint64 // up to fewMembers in the order in which they came; above, the table, with 0 for free
	table bool
	zero  bool // of a table: 0 is a member
}

const fewMembers = 8

func (s *set) add(member uint64) {
	if !s.table {
		if slices.Contains(s.list, member) {
			return
		}
		if s.n < fewMembers {
			s.list = append(s.list, member)
			s.n++
			return
		}
		s.grow(4 * fewMembers)
	}
	if s.n > MaxDistinct {
		return
	}
	if member == 0 {
		if !s.zero {
			s.zero = true
			s.n++
		}
		return
	}
	if s.put(member) {
		if s.n++; s.n*4 > len(s.list)*3 {
			s.grow(2 * len(s.list))
		}
	}
}

// put adds a member that is not 0 to the table, and reports whether it is new.
func (s *set) put(member uint64) bool {
	mask := uint64(len(s.list) - 1)
	for at := member * 0x9e3779b97f4a7c15 >> 32 & mask; ; at = (at + 1) & mask {
		switch s.list[at] {
		case member:
			return false
		case 0:
			s.list[at] = member
			return true
		}
	}
}

func (s *set) grow(size int) {
	old := s.list
	s.list, s.table = make([]uint64, size), true
	for _, m := range old {
		if m != 0 {
			s.put(m)
		}
	}
	s.zero = s.zero || slices.Contains(old, 0) && len(old) == fewMembers
}

// each calls f for every member.
func (s *set) each(f func(uint64)) {
	if s.zero {
		f(0)
	}
	for _, m := range s.list {
		if m != 0 || !s.table {
			f(m)
		}
	}
}
