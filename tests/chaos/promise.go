package chaos

import "time"

// promises holds what became of a source partition's events against what the log says of its silence. A router may promise a watermark
// for a partition that it has read to its end and that has had no event for the idle timeout; an event that comes too late for
// the promise has the reason "idle", and its headers give the promise: its window's last millisecond plus what it is late by.
//
// Two things follow, for a promise P that made the event x late:
//
//   - Kept: every event after x is late if P has reached the last millisecond of its window.
//   - Founded: let c be the last event before x that was counted although P has reached the last millisecond of its window, which proves
//     that P was not made before c was judged. So it was made between two events of c ... x. Nothing that was not read was in the
//     partition then, so the first of the two had been appended, and the second had not. Between them lie at least the idle timeout: the
//     router heard of the first after it was appended, waited, and looked before the second was.
//
// Order and append times in the log decide it. What is not an event breaks no silence.
type promises struct {
	sizeMS  int64
	timeout time.Duration

	events  int           // so far
	last    time.Time     // when the last one was appended
	silence int           // the event that ended the last silence; before the first event of all there was one
	counted map[int64]int // by window: the last event that was counted in it
	highest int64         // of the promises that made an event late
}

func newPromises(size, timeout time.Duration) *promises {
	return &promises{sizeMS: size.Milliseconds(), timeout: timeout, counted: map[int64]int{}}
}

// next takes the append time of the next event. What became of it follows.
func (p *promises) next(at time.Time) {
	p.events++
	if p.events == 1 || at.Sub(p.last) >= p.timeout {
		p.silence = p.events
	}
	p.last = at
}

// count reports whether the event may be counted, for all that was promised.
func (p *promises) count(windowMS int64) (kept bool) {
	p.counted[windowMS] = p.events
	return windowMS+p.sizeMS-1 > p.highest
}

// late reports whether the promise that made the event late was made in silence.
func (p *promises) late(windowMS, byMS int64) (founded bool) {
	promise := windowMS + p.sizeMS - 1 + byMS
	p.highest = max(p.highest, promise)
	for start, event := range p.counted {
		if start+p.sizeMS-1 <= promise && event >= p.silence {
			return false
		}
	}
	return true
}
