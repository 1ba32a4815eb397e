package activity

import (
	"strconv"
	"strings"
	"time"
)

// Moment reads a time as a person writes it: one that [ParseTime] reads, a date, which is its beginning in UTC, or an age such as 10m or 7d, which is before now.
func Moment(text string, now time.Time) (t time.Time, ok bool) {
	if ms, ok := ParseTime([]byte(text)); ok {
		return time.UnixMilli(ms).UTC(), true
	}
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return t, true
	}
	age := text
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			age = strconv.FormatUint(24*n, 10) + "h"
		}
	}
	d, err := time.ParseDuration(age)
	if err != nil || d < 0 {
		return time.Time{}, false
	}
	return now.Add(-d).UTC(), true
}
