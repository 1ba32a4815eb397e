package window

import (
	"fmt"
	"iter"
)

// Result is what a log of events comes to.
type Result struct {
	// Verdicts are in the order in which the table found them.
	Verdicts []Verdict
	// Late counts events that missed all their windows of some rule, Faults results that are NULL because they are impossible.
	Late, Faults int64
}

// evaluatedPanes is how many panes wait before they are handed to the table, which bounds what a long log needs.
const evaluatedPanes = 1 << 12

// Evaluate runs a log through both halves of the engine in one go, as if no other event will ever follow: all windows are closed in the end. The
// events are in the order of their arrival; those of each of the source partitions, [0, partitions), are judged by the partition's own watermark.
// An event's values are not kept beyond the next one.
func Evaluate(s Stream, partitions int, events iter.Seq[*Event]) (Result, error) {
	return evaluate(s, partitions, events, func(c *Combiner) bool { return c.Panes() >= evaluatedPanes })
}

// evaluate is [Evaluate] with batches that end where a function says so, which is asked after each event.
func evaluate(s Stream, partitions int, events iter.Seq[*Event], full func(*Combiner) bool) (Result, error) {
	var r Result
	sources := make([]Source, partitions)
	for p := range sources {
		sources[p] = NewSource()
	}
	c, t := NewCombiner(s), NewTable(s)
	offset := int64(0)
	flush := func() (err error) {
		h := Header{Sources: int32(partitions)}
		for p, src := range sources {
			if w := src.Watermark(s.LatenessMS); w != NoTime {
				h.Watermarks = append(h.Watermarks, Watermark{int32(p), w})
			}
		}
		c.Flush(1, func([]byte) int32 { return 0 }, h, func(_ int32, batch []byte) {
			if err == nil {
				r.Verdicts, err = t.Apply(offset, batch, r.Verdicts)
			}
			offset++
		})
		t.Committed(t.Position(offset))
		return err
	}
	for e := range events {
		if e.Partition < 0 || int(e.Partition) >= partitions {
			return r, fmt.Errorf("evaluate: partition %d is out of range; the number of partitions is %d", e.Partition, partitions)
		}
		fate, _ := c.Add(e, sources[e.Partition].Judge(s.LatenessMS, e.MS, Unbounded))
		if fate.Late() {
			r.Late++
		}
		if full(c) {
			if err := flush(); err != nil {
				return r, err
			}
		}
	}
	for p := range sources {
		sources[p].Floor = EndOfTime
	}
	if err := flush(); err != nil {
		return r, err
	}
	r.Faults = c.Faults() + t.Stats().Faults
	return r, nil
}
