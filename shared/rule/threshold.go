package rule

// Threshold returns what the count of events exceeds in an alert of [Burst], or of a rule of a file that says the same under the same name: their
// alerts have the form that alerts had before there were rules files. ok is false for any other rule.
func (r *Rule) Threshold() (threshold int64, ok bool) {
	if r.Name != "burst" || r.where != nil || r.having == nil || r.Window.Kind != Tumble || r.Window.Offset != 0 ||
		len(r.Keys) != 1 || r.Keys[0].Name != "user_id" || r.Keys[0].Type.Kind != Token ||
		len(r.Columns) != 2 || r.Columns[0].Name != "user_id" || r.Columns[0].node.op != opKey ||
		r.Columns[1].Name != "num_actions_per_watermark" || !r.countsAll(r.Columns[1].node) {
		return 0, false
	}
	h := r.having
	if h.op != opCompare || h.name != ">" || !r.countsAll(h.args[0]) || h.args[1].op != opConst {
		return 0, false
	}
	n := h.args[1].value.Int()
	return n, n > 0
}

// countsAll reports whether a node is COUNT(*).
func (r *Rule) countsAll(n *node) bool { return n.op == opAggregate && r.Aggregates[n.index].all() }
