package rule

// A count of distinct values stops at [MaxDistinct]: the number is a lower bound then. A condition that holds for it need not hold for the true number, as
// COUNT(DISTINCT x) < 100000: then it is unknown, which is NULL. One that would stay TRUE if the number were greater is TRUE.

func (a *Aggregate) countsDistinct() bool { return a.Function == Count && a.Distinct }

// holdsAbove reports whether a condition that is TRUE for the counts of distinct values stays so for greater ones.
func (r *Rule) holdsAbove(n *node) bool {
	bounded := *r
	bounded.bounded = true
	ok, _, _ := bounded.stays(n, true)
	return ok
}

// holding compiles a condition over a window's row, of which it matters only whether it is TRUE; nil if there is none.
func (c *compiler) holding(r *Rule, n *node) evaluator {
	if n == nil {
		return nil
	}
	if n.op == opAnd || n.op == opOr {
		return conjunction(c.holding(r, n.args[0]), c.holding(r, n.args[1]), n.op == opOr)
	}
	holds := c.compile(n)
	var counts []int // where they are in the row
	n.any(func(n *node) bool {
		if n.op == opAggregate && r.Aggregates[n.index].countsDistinct() {
			counts = append(counts, c.aggregates+n.index)
		}
		return false
	})
	if len(counts) == 0 || r.holdsAbove(n) {
		return holds
	}
	return func(row []Value) Value {
		v := holds(row)
		for _, i := range counts {
			if v.IsTrue() && row[i].hi == lowerBound {
				return Value{}
			}
		}
		return v
	}
}
