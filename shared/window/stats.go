package window

// Stats are figures for observability.
type Stats struct {
	Panes       int   // one for each key that has events in a slice of an open window
	WatermarkMS int64 // minimum over the source partitions; NoTime while one has not spoken
	Sources     int   // source partitions that batches came from
	// Stray counts events that came for a window after its close. It stays 0, unless the topic of events got more
	// partitions while it was in use, or something other than a router writes to the keyed log.
	Stray int64
	// Foreign counts events of feeds that the plan does not have: routers have other rules, or had.
	Foreign int64
	// Repeated counts events whose identity was counted before, Identities those that are remembered.
	Repeated   int64
	Identities int
	// Faults counts results that were NULL because they are impossible: a division by zero, an overflow.
	Faults int64
}

// identitiesPerPane are how many identities take the room of a pane.
const identitiesPerPane = 4

// Open is what a limit of open windows is held against: identities take room, too.
func (s Stats) Open() int64 { return int64(s.Panes + s.Identities/identitiesPerPane) }

// Stats returns the present figures.
func (t *Table) Stats() Stats {
	s := Stats{Panes: t.panes, WatermarkMS: t.watermark, Sources: len(t.watermarks), Stray: t.stray, Foreign: t.foreign, Repeated: t.repeated, Identities: t.known}
	for i := range t.rules {
		s.Faults += t.rules[i].Faults
	}
	return s
}

// Faults are the results of each rule that were NULL because they are impossible.
func (t *Table) Faults() []int64 {
	out := make([]int64, len(t.rules))
	for i := range t.rules {
		out[i] = t.rules[i].Faults
	}
	return out
}
