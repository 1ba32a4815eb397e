package rule

// Program is the part of a rule that is about the rows of windows, ready to be evaluated by one goroutine.
type Program struct {
	*Rule
	// Faults counts the results that were NULL because they are impossible: a division by zero, an overflow, a cast of something else.
	Faults int64

	accumulators []accumulator
	cells        []int // where each aggregate is among the feed's; -1 is the count of all events
	having       evaluator
	critical     evaluator
	keyless      bool // HAVING does not read the key
	atLeast      bool // some aggregate of the row has more distinct values than are counted
	columns      []evaluator
	summary      summary
	row          []Value
}

// Program compiles rule number i.
func (p *Plan) Program(i int) *Program {
	r, f := p.Rules[i], p.Feeds[p.FeedOf[i]]
	out := &Program{Rule: r, row: make([]Value, len(r.Keys)+len(r.Aggregates)+2)}
	c := &compiler{faults: &out.Faults, aggregates: len(r.Keys), bounds: len(r.Keys) + len(r.Aggregates)}
	out.having, out.critical = c.holding(r, r.having), c.holding(r, r.critical)
	out.keyless = r.having != nil && !r.having.any(func(n *node) bool { return n.op == opKey })
	for _, a := range r.Aggregates {
		at := -1
		if !a.all() {
			at = f.aggregate(a)
		}
		out.cells = append(out.cells, at)
		out.accumulators = append(out.accumulators, c.accumulator(a))
	}
	out.summary = r.summary()
	for _, col := range r.Columns {
		out.columns = append(out.columns, c.compile(col.node))
	}
	return out
}

// Row sets the row that the methods below are about: the group with the key in the window [start, end), its events, and the cells of the
// feed's aggregates. It reports whether key is a key of the rule.
func (p *Program) Row(key []byte, events int64, cells Cells, start, end int64) bool {
	if !parseKey(key, p.Keys, p.row) {
		return false
	}
	p.sums(events, cells, start, end)
	return true
}

// Finds is Row and Holds: it sets the row, and reports whether HAVING is TRUE for it. If not, the row is not set.
func (p *Program) Finds(key []byte, events int64, cells Cells, start, end int64) bool {
	if !p.keyless {
		return p.Row(key, events, cells, start, end) && p.Holds()
	}
	p.sums(events, cells, start, end) // of nearly all groups the key is not needed
	return p.Holds() && parseKey(key, p.Keys, p.row)
}

// sums sets what the row has beside the key.
func (p *Program) sums(events int64, cells Cells, start, end int64) {
	at := len(p.Keys)
	p.atLeast = false
	for i, c := range p.cells {
		if c < 0 {
			p.row[at+i] = IntValue(events)
		} else {
			p.row[at+i] = p.accumulators[i].result(&cells.List[c], cells.Spill)
			p.atLeast = p.atLeast || cells.List[c].distinct(cells.Spill) > MaxDistinct
		}
	}
	at += len(p.cells)
	p.row[at], p.row[at+1] = TimeValue(start, 0), TimeValue(end, 0)
}

// AtLeast reports whether some aggregate of the row has more than [MaxDistinct] distinct values, so that a count of them is a lower bound.
func (p *Program) AtLeast() bool { return p.atLeast }

// Holds reports whether HAVING is TRUE for the row.
func (p *Program) Holds() bool { return p.having == nil || p.having(p.row).IsTrue() }

// Critical reports whether the critical condition is TRUE for the row.
func (p *Program) Critical() bool { return p.critical != nil && p.critical(p.row).IsTrue() }

// Column returns a column of the row. It is valid until the next call.
func (p *Program) Column(i int) Value { return p.columns[i](p.row) }

// AppendColumns appends the columns of the row as members of a JSON object.
func (p *Program) AppendColumns(b []byte) []byte {
	for i, c := range p.Columns {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, []byte(c.Name)), ':')
		b = AppendJSON(b, c.Type, p.Column(i))
	}
	return b
}
