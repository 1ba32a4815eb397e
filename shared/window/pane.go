package window

// Range is the evidence of one source partition for a window or slice: the offsets of the first and the last event that were counted.
type Range struct {
	Partition   int32
	First, Last int64
}

// Pane is the count of one user in one window.
type Pane struct {
	StartMS, SizeMS int64
	Count           int64
	// FirstMS and LastMS are the lowest and the highest event time counted.
	FirstMS, LastMS int64

	evidence []Range
}

// EndMS is the first instant after the window.
func (p *Pane) EndMS() int64 { return p.StartMS + p.SizeMS }

// Evidence lists the ranges of the pane, ascending by source partition.
func (p *Pane) Evidence() []Range { return p.evidence }
