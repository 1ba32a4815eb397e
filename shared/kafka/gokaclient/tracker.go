package gokaclient

import (
	"slices"
	"sync"

	"spate/shared/fault"
)

// tracker knows which of the delivered messages of a partition are done. It is safe for concurrent use.
type tracker struct {
	mu    sync.Mutex
	queue []pending // delivered and above the contiguous prefix, ascending
	next  int64     // everything delivered below is done
}

type pending struct {
	offset int64
	done   bool
}

// newTracker begins at the offset that is read first.
func newTracker(next int64) *tracker { return &tracker{next: next} }

// deliver must be called in ascending order. Offsets that are never delivered (compacted records) are not a gap.
func (t *tracker) deliver(offset int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = append(t.queue, pending{offset: offset})
}

// pass tells that the log was read up to next without a message: what is there is the end of a transaction, or cannot be read, or was deleted.
// Whoever waits for the end of the log to be done would wait for ever if such an end did not count.
func (t *tracker) pass(next int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 {
		t.next = max(t.next, next)
	} else if t.queue[len(t.queue)-1].offset < next-1 {
		t.queue = append(t.queue, pending{offset: next - 1, done: true})
	}
}

// done tells that the message at offset is finished, whatever came of messages before it.
func (t *tracker) done(offset int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := slices.BinarySearchFunc(t.queue, offset, func(p pending, o int64) int {
		switch {
		case p.offset < o:
			return -1
		case p.offset > o:
			return 1
		}
		return 0
	})
	if !ok {
		return
	}
	t.queue[i].done = true
	n := 0
	for n < len(t.queue) && t.queue[n].done {
		t.next = t.queue[n].offset + 1
		n++
	}
	t.queue = t.queue[n:]
	if fault.CommitMax {
		t.next = max(t.next, offset+1)
	}
}

// committable is the offset below which everything delivered is done.
func (t *tracker) committable() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next
}
