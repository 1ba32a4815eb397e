package window

import (
	"errors"
	"fmt"
	"math"
	"time"

	"spate/shared/rule"
)

const (
	// NoTime stands for "no event time seen yet" and for a watermark that has not begun. It is below every time.
	NoTime = math.MinInt64
	// EndOfTime is the watermark of a source that will never have another event. It closes every window.
	EndOfTime = math.MaxInt64
	// MaxLateness is the longest lateness, in milliseconds (a week).
	MaxLateness = 7 * 24 * 3600 * 1000
)

// Stream is what both halves must agree on: the rules, and how far the watermark stays behind.
type Stream struct {
	Plan       *rule.Plan
	LatenessMS int64
}

// NewStream makes a stream; it reports what is wrong with the lateness.
func NewStream(plan *rule.Plan, lateness time.Duration) (Stream, error) {
	s := Stream{Plan: plan, LatenessMS: lateness.Milliseconds()}
	if err := CheckLateness(lateness); err != nil {
		return s, err
	}
	for _, f := range plan.Feeds {
		if f.GapMS > 0 {
			return s, errors.New("SESSION windows are not evaluated yet")
		}
	}
	return s, nil
}

// CheckLateness reports what is wrong with a lateness.
func CheckLateness(d time.Duration) error {
	if d < 0 || d > MaxLateness*time.Millisecond || d%time.Millisecond != 0 {
		return fmt.Errorf("lateness: %v is not a whole number of milliseconds between 0s and %v", d, MaxLateness*time.Millisecond)
	}
	return nil
}

// Span is the longest time between an event and the end of a window that it is in, in milliseconds.
func (s Stream) Span() (ms int64) {
	for _, r := range s.Plan.Rules {
		ms = max(ms, r.Window.Size)
	}
	return ms
}

// LastEnd is the end of the last window of any rule that has the instant in it.
func (s Stream) LastEnd(ms int64) int64 {
	last := int64(NoTime)
	for _, f := range s.Plan.Feeds {
		last = max(last, f.LastEnd(ms))
	}
	return last
}

// Crosses reports whether raising a watermark from one value to another closes any window, that is, passes an end of one.
func (s Stream) Crosses(from, to int64) bool {
	if to <= from {
		return false
	}
	if from == NoTime || to == EndOfTime {
		return true
	}
	for _, f := range s.Plan.Feeds {
		if f.Slice(to+1) > f.Slice(from+1) {
			return true
		}
	}
	return false
}
