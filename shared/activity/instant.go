package activity

import (
	"bytes"
	"math/bits"
	"strconv"
	"time"
)

// The numbers that TimeAuto takes for milliseconds: 1973-03-03 to the end of year 9999. Seconds are smaller until year 5138, and what is larger may
// count something finer.
const minAutoMS = 100_000_000_000

// Instant returns the epoch milliseconds that a JSON token stands for; of null, none.
func (f TimeFormat) Instant(token []byte) (int64, Reason) {
	text, quoted := token, token[0] == '"'
	if quoted {
		text = token[1 : len(token)-1]
		if bytes.IndexByte(text, '\\') >= 0 {
			var room [64]byte
			text, _ = appendUnquoted(room[:0], text)
		}
	}
	return f.Parse(text, quoted)
}

// Parse returns the epoch milliseconds of a time that is written so: as a text, or as a number, which a text may hold, too.
func (f TimeFormat) Parse(text []byte, quoted bool) (ms int64, reason Reason) {
	ok := false
	switch layout, named := f.layout(); {
	case named:
		if quoted {
			ms, ok = parseLayout(layout, text)
		}
	case f.numeric():
		ms, ok = parseNumber(text, f)
	default:
		if quoted {
			if ms, ok = ParseTime(text); ok || f == TimeRFC3339 {
				break
			}
		}
		if f != TimeRFC3339 {
			if ms, ok = parseNumber(text, TimeMS); ok && ms >= 0 && ms < minAutoMS {
				ok = false // seconds, perhaps
			}
		}
	}
	switch {
	case !ok:
		return 0, ReasonBadTime
	case ms < 0 || ms > maxTimeMS:
		return 0, ReasonTimeRange
	}
	return ms, ReasonNone
}

func parseLayout(layout string, text []byte) (int64, bool) {
	t, err := time.Parse(layout, string(text))
	if err != nil {
		return 0, false
	}
	return t.UnixMilli(), true
}

// parseNumber returns the milliseconds of a JSON number that counts a unit since 1970. What is finer than a millisecond is cut off (floored), so a
// fraction is, and an exponent moves the point. A number that no time is gives one that is out of range.
func parseNumber(text []byte, unit TimeFormat) (ms int64, ok bool) {
	if len(text) == 0 || skipNumber(text, 0) != len(text) {
		return 0, false
	}
	shift := unit.shift()
	if n, ok := digits(text); ok && shift == 0 {
		return n, true
	}
	negative := text[0] == '-'
	if negative {
		text = text[1:]
	}
	mantissa := text
	if i := bytes.IndexAny(text, "eE"); i >= 0 {
		mantissa = text[:i]
		e, err := strconv.Atoi(string(text[i+1:]))
		if err != nil { // the grammar has been checked: it is out of range
			if e = 1000; text[i+1] == '-' {
				e = -e
			}
		}
		shift += min(max(e, -1000), 1000)
	}
	// The digits before and behind the point, which lies behind the first whole of them.
	all := mantissa
	whole := len(mantissa)
	if i := bytes.IndexByte(mantissa, '.'); i >= 0 {
		whole = i
		all = append(append(make([]byte, 0, len(mantissa)), mantissa[:i]...), mantissa[i+1:]...)
	}
	whole += shift
	var n uint64
	rest := false
	for i, d := range all {
		if i >= whole {
			rest = rest || d != '0'
			continue
		}
		hi, lo := bits.Mul64(n, 10)
		if n = lo + uint64(d-'0'); hi != 0 || n > maxNumber {
			return pastAll(negative), true
		}
	}
	for i := len(all); i < whole && n > 0; i++ {
		if n *= 10; n > maxNumber {
			return pastAll(negative), true
		}
	}
	if ms = int64(n); negative {
		if ms = -ms; rest {
			ms--
		}
	}
	return ms, true
}

// digits returns the number of up to 18 digits, as nearly all times are.
func digits(text []byte) (n int64, ok bool) {
	if len(text) > 18 {
		return 0, false
	}
	for _, c := range text {
		if c-'0' > 9 {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// shift is how far the point moves from a unit to milliseconds.
func (f TimeFormat) shift() int {
	switch f {
	case TimeS:
		return 3
	case TimeUS:
		return -3
	case TimeNS:
		return -6
	}
	return 0
}

// maxNumber is above every time; ten times it fits 64 bits.
const maxNumber = 1_000_000_000_000_000_000

func pastAll(negative bool) int64 {
	if negative {
		return -maxNumber
	}
	return maxNumber
}

// Append appends a time as JSON, written so.
func (f TimeFormat) Append(b []byte, ms int64) []byte {
	layout, named := f.layout()
	switch {
	case named:
		return appendQuoted(b, time.UnixMilli(ms).UTC().Format(layout))
	case f == TimeS && ms%1000 == 0:
		return strconv.AppendInt(b, ms/1000, 10)
	case f == TimeS:
		return strconv.AppendFloat(b, float64(ms)/1000, 'f', 3, 64)
	case f == TimeMS:
		return strconv.AppendInt(b, ms, 10)
	case f == TimeUS:
		return strconv.AppendInt(b, ms*1000, 10)
	case f == TimeNS:
		return strconv.AppendInt(b, ms*1_000_000, 10)
	}
	return append(AppendTime(append(b, '"'), ms), '"')
}
