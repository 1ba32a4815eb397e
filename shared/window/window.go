package window

import (
	"errors"
	"fmt"
	"math"
	"time"
)

const (
	// NoTime stands for "no event time seen yet" and for a watermark that has not begun. It is below every time.
	NoTime = math.MinInt64
	// EndOfTime is the watermark of a source that will never have another event. It closes every window.
	EndOfTime = math.MaxInt64
	// MaxSize is the longest window, in milliseconds (a week).
	MaxSize = 7 * 24 * 3600 * 1000
)

// Rule is what the local half needs to judge an event. Milliseconds.
type Rule struct {
	SizeMS     int64
	LatenessMS int64
}

// NewRule makes a rule of durations; it reports every problem at once.
func NewRule(size, lateness time.Duration) (Rule, error) {
	r := Rule{SizeMS: size.Milliseconds(), LatenessMS: lateness.Milliseconds()}
	return r, r.Validate(size, lateness)
}

// Validate reports every problem of the durations a rule is made of.
func (Rule) Validate(size, lateness time.Duration) error {
	var errs []error
	if size < time.Millisecond || size > MaxSize*time.Millisecond || size%time.Millisecond != 0 {
		errs = append(errs, fmt.Errorf("window: %v is not a whole number of milliseconds between 1ms and %v", size, MaxSize*time.Millisecond))
	}
	if lateness < 0 || lateness > MaxSize*time.Millisecond || lateness%time.Millisecond != 0 {
		errs = append(errs, fmt.Errorf("lateness: %v is not a whole number of milliseconds between 0s and %v", lateness, MaxSize*time.Millisecond))
	}
	return errors.Join(errs...)
}

// Start returns the start of the tumbling window of the given size that ts falls into; it rounds towards minus infinity.
func Start(ts, size int64) int64 {
	m := ts % size
	if m < 0 {
		m += size
	}
	return ts - m
}
