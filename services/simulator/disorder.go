package simulator

import (
	"container/heap"
	"errors"
	"io"
	"math/rand/v2"
	"time"
)

// maxReordered bounds the rows that wait for their arrival. When it is reached, the earliest arrives before its delay is over;
// that makes the disorder smaller, never larger.
const maxReordered = 1 << 19

// disorder is a source that gives the rows of another in the order of their arrival: event time plus a random delay from 0 to
// below a bound. Rows that arrive at the same time keep their order, and a row without a time goes with the one before it.
//
// If the rows beneath are in the order of their times, no row arrives after one that is the bound or more later.
type disorder struct {
	src     Source
	rng     *rand.Rand
	boundMS int64
	max     int

	waiting arrivalHeap
	seq     uint64
	time    int64 // of the last row with a time
	err     error // of src; io.EOF is its end
}

func newDisorder(src Source, bound time.Duration, seed uint64) *disorder {
	return &disorder{
		src:     src,
		rng:     rand.New(rand.NewPCG(seed, 0x6469736f72646572)),
		boundMS: max(1, bound.Milliseconds()),
		max:     maxReordered,
	}
}

// Next implements [Source].
func (d *disorder) Next(r *Row) error {
	for d.err == nil && (len(d.waiting) == 0 || d.waiting[0].at > d.time && len(d.waiting) < d.max) {
		a := arrival{}
		if err := d.src.Next(&a.row); err != nil {
			d.err = err
			break
		}
		if a.row.HasTime {
			// A file need not be in order. What follows a row is compared with its time, so an old row must not set the
			// time back: rows with later arrivals are gone already.
			d.time = max(d.time, a.row.TimeMS)
			a.row.DelayMS = d.rng.Int64N(d.boundMS)
			a.at = a.row.TimeMS + a.row.DelayMS
		} else {
			a.at = d.time
		}
		d.seq++
		a.seq = d.seq
		heap.Push(&d.waiting, a)
	}
	if d.err != nil && !errors.Is(d.err, io.EOF) && len(d.waiting) == 0 {
		return d.err
	}
	if len(d.waiting) == 0 {
		return io.EOF
	}
	*r = heap.Pop(&d.waiting).(arrival).row
	return nil
}

// arrival is a row that waits.
type arrival struct {
	at  int64
	seq uint64
	row Row
}

// arrivalHeap orders rows by arrival, then as they came.
type arrivalHeap []arrival

func (h arrivalHeap) Len() int { return len(h) }
func (h arrivalHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].seq < h[j].seq
}
func (h arrivalHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *arrivalHeap) Push(x any)   { *h = append(*h, x.(arrival)) }
func (h *arrivalHeap) Pop() any {
	old := *h
	n := len(old) - 1
	a := old[n]
	old[n] = arrival{}
	*h = old[:n]
	return a
}
