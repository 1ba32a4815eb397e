package query

import (
	"database/sql/driver"
	"fmt"
	"math"
	"strings"
	"time"

	"spate/shared/activity"
)

// Times are text in UTC: 2026-11-30 12:00:00, with .250 behind it only if the milliseconds are not 0. So they compare with each other and with what people write, and
// SQLite's own functions read and return them.

// appendTime appends a time as the tables have it. ns are nanoseconds within the millisecond.
func appendTime(b []byte, ms, ns int64) []byte {
	t := time.UnixMilli(ms).UTC()
	if year := t.Year(); year < 0 || year > 9999 {
		return t.AppendFormat(b, "2006-01-02 15:04:05")
	}
	from := len(b)
	b = activity.AppendTime(b, ms) // 2006-01-02T15:04:05.000Z
	b[from+10] = ' '
	b = b[:len(b)-1]
	switch {
	case ns%1000 != 0:
		return fmt.Appendf(b, "%06d", ns)
	case ns != 0:
		return fmt.Appendf(b, "%03d", ns/1000)
	case ms%1000 == 0:
		return b[:len(b)-4]
	}
	return b
}

func timeText(ms int64) string { return string(appendTime(nil, ms, 0)) }

// layouts are the ways to write a time that compare with the tables' times as text.
var layouts = []string{"2006-01-02 15:04:05.999999999", "2006-01-02 15:04", "2006-01-02"}

// plainTime reads a time that is written as the tables have it, or a beginning of that.
func plainTime(text string) (ms int64, ok bool) {
	for _, layout := range layouts {
		t, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		// An hour of one digit is a time, but as text it compares as none.
		if as := t.Format(layout); strings.HasPrefix(as, text) || strings.HasPrefix(text, as) {
			return t.UnixMilli(), true
		}
	}
	return 0, false
}

// anyTime reads a time as events have it.
func anyTime(text string) (ms int64, ok bool) {
	if ms, ok := activity.ParseTime([]byte(text)); ok {
		return ms, true
	}
	return plainTime(text)
}

// instant is an argument that is a time: text, or milliseconds since 1970. known is false for NULL.
func instant(function string, v driver.Value) (ms int64, known bool, err error) {
	switch v := v.(type) {
	case nil:
		return 0, false, nil
	case int64:
		return v, true, nil
	case string:
		if ms, ok := anyTime(v); ok {
			return ms, true, nil
		}
		return 0, false, fmt.Errorf("%s: %.60q is not a time; use a time such as 2026-11-30 12:00:00", function, v)
	}
	return 0, false, fmt.Errorf("%s: a time must be text or milliseconds since 1970", function)
}

// span is an argument that is a duration in milliseconds.
func span(function string, v driver.Value) (int64, error) {
	ms, ok := v.(int64)
	if !ok {
		return 0, fmt.Errorf("%s: write the duration as an interval, such as INTERVAL '10' SECOND, or in milliseconds", function)
	}
	return ms, nil
}

// tumble is TUMBLE_START(time, size [, offset]), and with end TUMBLE_END.
func tumble(function string, end bool, args []driver.Value) (driver.Value, error) {
	ms, known, err := instant(function, args[0])
	if err != nil || !known {
		return nil, err
	}
	size, err := span(function, args[1])
	if err != nil {
		return nil, err
	}
	offset := int64(0)
	if len(args) > 2 {
		if offset, err = span(function, args[2]); err != nil {
			return nil, err
		}
	}
	if size <= 0 || size > maxSpanMS || offset <= -maxSpanMS || offset >= maxSpanMS {
		return nil, fmt.Errorf("%s: a window of %d ms is not between 1 ms and %d days", function, size, maxSpanMS/86_400_000)
	}
	start := floor(ms-offset, size) + offset
	if end {
		start += size
	}
	return timeText(start), nil
}

// maxSpanMS bounds windows, so that sums of times do not overflow.
const maxSpanMS = 10_000 * 86_400_000

func floor(n, size int64) int64 {
	r := n % size
	if r < 0 {
		r += size
	}
	return n - r
}

// timeAdd is TIME_ADD(time, ms), which "+ INTERVAL" becomes.
func timeAdd(args []driver.Value) (driver.Value, error) {
	ms, known, err := instant("time_add", args[0])
	if err != nil || !known || args[1] == nil {
		return nil, err
	}
	d, err := span("time_add", args[1])
	if err != nil {
		return nil, err
	}
	if d > 0 && ms > math.MaxInt64-d || d < 0 && ms < math.MinInt64-d {
		return nil, nil
	}
	return timeText(ms + d), nil
}
