package rule

import (
	"bytes"
	"cmp"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// Value is a value of some type, or NULL. The zero value is NULL. A Value does not know its type: whoever has it does.
//
// Text belongs to whoever made the value: that of a column is part of the event, that of a function is scratch memory of the expression
// and valid until it is evaluated again.
type Value struct {
	set bool
	// n is the number: a boolean as 0 or 1, a whole number, the bits of a floating-point number, milliseconds since 1970 of a time, the low half of
	// a decimal. hi is the high half of a decimal, or nanoseconds within the millisecond of a time. A whole number of an event may have its digits as text.
	n, hi int64
	text  []byte
}

// IsNull reports whether the value is NULL.
func (v Value) IsNull() bool { return !v.set }

// Int is the number of a whole number, boolean (0 or 1) or time (milliseconds since 1970).
func (v Value) Int() int64 { return v.n }

// Double is the number of a floating-point number.
func (v Value) Double() float64 { return math.Float64frombits(uint64(v.n)) }

// Bytes is the text of a string.
func (v Value) Bytes() []byte { return v.text }

// IsTrue reports whether a boolean is TRUE: neither FALSE nor NULL.
func (v Value) IsTrue() bool { return v.set && v.n != 0 }

func (v Value) decimal() int128 { return int128{v.hi, uint64(v.n)} }

// BoolValue is a BOOLEAN.
func BoolValue(b bool) Value {
	if b {
		return Value{set: true, n: 1}
	}
	return Value{set: true}
}

// IntValue is a whole number.
func IntValue(n int64) Value { return Value{set: true, n: n} }

// DoubleValue is a DOUBLE.
func DoubleValue(f float64) Value { return Value{set: true, n: int64(math.Float64bits(f))} }

// StringValue is a STRING. It keeps text.
func StringValue(text []byte) Value { return Value{set: true, text: text} }

// TokenValue is the built-in user: a JSON number or string. It keeps token.
func TokenValue(token []byte) Value { return Value{set: true, text: token} }

// TimeValue is a TIMESTAMP: milliseconds since 1970, and nanoseconds within the millisecond.
func TimeValue(ms, ns int64) Value { return Value{set: true, n: ms, hi: ns} }

func decimalValue(d int128) Value { return Value{set: true, n: int64(d.lo), hi: d.hi} }

// compare orders two values of a kind, neither of which is NULL. Strings are ordered by their bytes, and NaN is not ordered: see compareDouble.
func compare(k Kind, a, b Value) int {
	switch k {
	case Decimal:
		return a.decimal().cmp(b.decimal())
	case Float, Double:
		return compareDouble(a.Double(), b.Double())
	case String:
		return bytes.Compare(a.text, b.text)
	case Timestamp:
		return cmp.Or(cmp.Compare(a.n, b.n), cmp.Compare(a.hi, b.hi))
	default:
		return cmp.Compare(a.n, b.n)
	}
}

// compareDouble orders floating-point numbers for MIN and MAX: NaN is above all.
func compareDouble(a, b float64) int {
	switch {
	case a < b || math.IsNaN(b) && !math.IsNaN(a):
		return -1
	case a > b || math.IsNaN(a) && !math.IsNaN(b):
		return 1
	}
	return 0
}

// AppendJSON appends a value of type t as JSON: decimals as strings with all their digits, times as text without a zone, NaN and
// infinities as strings.
func AppendJSON(b []byte, t Type, v Value) []byte {
	if v.IsNull() {
		return append(b, "null"...)
	}
	switch t.Kind {
	case Boolean:
		return strconv.AppendBool(b, v.n != 0)
	case Decimal:
		return append(append(append(b, '"'), v.decimal().text(t.Scale)...), '"')
	case Float, Double:
		return appendDouble(b, v.Double())
	case String:
		return appendString(b, v.text)
	case Timestamp:
		return append(appendTime(append(b, '"'), v), '"')
	case Token:
		return append(b, v.text...)
	default:
		if v.text != nil {
			return append(b, v.text...)
		}
		return strconv.AppendInt(b, v.n, 10)
	}
}

func appendDouble(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(b, `"-Infinity"`...)
	}
	from := len(b)
	format := byte('f')
	if m := math.Abs(f); m != 0 && (m < 1e-6 || m >= 1e21) {
		format = 'e'
	}
	b = strconv.AppendFloat(b, f, format, -1, 64)
	if !bytes.ContainsAny(b[from:], ".e") {
		b = append(b, ".0"...) // so that it is read back as a DOUBLE
	}
	return b
}

// appendTime appends a time with three, six or nine digits behind the second.
func appendTime(b []byte, v Value) []byte {
	layout := "2006-01-02T15:04:05.000"
	switch {
	case v.hi%1000 != 0:
		layout += "000000"
	case v.hi != 0:
		layout += "000"
	}
	return time.UnixMilli(v.n).Add(time.Duration(v.hi)).UTC().AppendFormat(b, layout)
}

const hexDigits = "0123456789abcdef"

// appendString appends a JSON string, which leaves all characters but quotes, backslashes and control characters as they are.
func appendString(b, text []byte) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(text[i:])
			if r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
			b = append(append(b, text[from:i]...), `\ufffd`...)
			i++
			from = i
			continue
		}
		b = append(b, text[from:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	return append(append(b, text[from:]...), '"')
}

// JSON is a value of type t as JSON.
func (v Value) JSON(t Type) json.RawMessage { return AppendJSON(nil, t, v) }
