package window

import "slices"

// State is what a verdict says of its window.
type State uint8

const (
	// Opened: the rule's condition has become TRUE, and will stay so. The row is what was known then.
	Opened State = iota
	// Raised: the rule's critical condition has become TRUE after the window was opened.
	Raised
	// Closed: the window has ended, and its row is exact.
	Closed
)

// Verdict is what a [Table] finds: a window of a key for which a rule's condition is TRUE.
type Verdict struct {
	Rule     int // its number in the plan
	Key      string
	State    State
	Pane     Pane
	Critical bool
	// Columns are the rule's columns, as the members of a JSON object.
	Columns []byte
	// Summary is the rule's summary of the row; empty if it has none.
	Summary string
	// AtLeast reports whether some column is a lower bound: it counts more distinct values than are kept.
	AtLeast bool
}

// verdict is what the rule's row says, which has been set.
func (t *Table) verdict(w *openWindow, key []byte, state State, critical bool) Verdict {
	m := &t.merged
	v := Verdict{Rule: w.rule, Key: string(key), State: state, Critical: critical, Columns: t.rules[w.rule].AppendColumns(nil), Summary: string(t.rules[w.rule].AppendSummary(nil))}
	v.Pane = w.pane(m.panes)
	v.AtLeast = t.rules[w.rule].AtLeast()
	return v
}

// pane is what is known of a key's window for those who ask.
func (w *openWindow) pane(panes []mergedPane) Pane {
	out := panes[0].c.pane(panes[0].c.at(panes[0].i))
	for _, p := range panes[1:] {
		more := p.c.pane(p.c.at(p.i))
		out.Count += more.Count
		out.FirstMS, out.LastMS = min(out.FirstMS, more.FirstMS), max(out.LastMS, more.LastMS)
		for _, r := range more.evidence {
			at := slices.IndexFunc(out.evidence, func(o Range) bool { return o.Partition == r.Partition })
			if at < 0 {
				out.evidence = append(out.evidence, r)
				continue
			}
			o := &out.evidence[at]
			o.First, o.Last = min(o.First, r.First), max(o.Last, r.Last)
		}
	}
	slices.SortFunc(out.evidence, func(a, b Range) int { return int(a.Partition) - int(b.Partition) })
	out.StartMS, out.SizeMS = w.startMS, w.endMS-w.startMS
	return out
}
