package rule

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"spate/shared/activity"
)

// castable reports whether CAST converts between the kinds at all.
func castable(from, to Kind) bool {
	switch {
	case from == to, from == Null, to == String, from == String:
		return true
	case from == Boolean, to == Boolean:
		return from == Boolean && to >= TinyInt && to <= Double || to == Boolean && from >= TinyInt && from <= Double
	case from == Timestamp, to == Timestamp:
		return false
	}
	return true
}

// conversion returns the function that converts a value that is not NULL. What does not convert is NULL, and a fault.
func (c *compiler) conversion(from, to Type) func(Value) Value {
	switch {
	case from.Kind == Token:
		return func(v Value) Value {
			text := v.text
			if text[0] == '"' { // a number in quotes is one, as in a BIGINT of an event
				text = text[1 : len(text)-1]
			}
			n, ok := Parse(Type{Kind: BigInt}, bytes.TrimSpace(text))
			if !ok {
				return Value{}
			}
			return n
		}
	case to.Kind == String:
		return toText(from, to)
	case from.Kind == String:
		return func(v Value) Value {
			out, ok := Parse(to, bytes.TrimSpace(v.text))
			if !ok {
				return c.fault()
			}
			return out
		}
	case to.Kind == Boolean:
		return func(v Value) Value {
			if from.Kind == Boolean {
				return v
			}
			return BoolValue(sign(from, v) != 0)
		}
	case to.Kind == Timestamp:
		return func(v Value) Value { return v }
	case to.floating():
		return toDouble(from, to)
	case to.Kind == Decimal:
		return c.toDecimal(from, to)
	default:
		return c.toInt(from, to)
	}
}

func toDouble(from, to Type) func(Value) Value {
	single := func(f float64) Value {
		if to.Kind == Float {
			f = float64(float32(f))
		}
		return DoubleValue(f)
	}
	switch {
	case from.floating():
		return func(v Value) Value { return single(v.Double()) }
	case from.Kind == Decimal:
		return func(v Value) Value {
			f, _ := strconv.ParseFloat(v.decimal().text(from.Scale), 64)
			return single(f)
		}
	}
	return func(v Value) Value { return single(float64(v.n)) }
}

func (c *compiler) toDecimal(from, to Type) func(Value) Value {
	return func(v Value) Value {
		var d int128
		var ok bool
		switch {
		case from.floating():
			d, ok = parseDecimal(formatShortest(v.Double()), to.Precision, to.Scale)
		case from.Kind == Decimal:
			d, ok = v.decimal().rescale(from.Scale, to.Scale, to.Precision)
		default:
			d, ok = small(v.n).rescale(0, to.Scale, to.Precision)
		}
		if !ok {
			return Value{} // as in Flink; it is not counted as a fault
		}
		return decimalValue(d)
	}
}

// toInt cuts towards zero. Numbers out of range are a fault, apart from those of a DOUBLE, which Flink clamps.
func (c *compiler) toInt(from, to Type) func(Value) Value {
	low, high := intRange(to.Kind)
	return func(v Value) Value {
		n := v.n
		switch {
		case from.floating():
			f := v.Double()
			switch {
			case math.IsNaN(f):
				return IntValue(0)
			case f >= float64(high):
				return IntValue(high)
			case f <= float64(low):
				return IntValue(low)
			}
			return IntValue(int64(f))
		case from.Kind == Decimal:
			b := v.decimal().big()
			if b.Quo(b, powers[from.Scale]); !b.IsInt64() {
				return c.fault()
			}
			n = b.Int64()
		}
		if n < low || n > high {
			return c.fault()
		}
		return IntValue(n)
	}
}

func intRange(k Kind) (low, high int64) {
	switch k {
	case TinyInt:
		return math.MinInt8, math.MaxInt8
	case SmallInt:
		return math.MinInt16, math.MaxInt16
	case Int:
		return math.MinInt32, math.MaxInt32
	}
	return math.MinInt64, math.MaxInt64
}

// toText writes a value as text, cut or padded to the length of the type.
func toText(from, to Type) func(Value) Value {
	var b []byte
	return func(v Value) Value {
		switch from.Kind {
		case String:
			b = append(b[:0], v.text...)
		case Boolean:
			b = append(b[:0], strings.ToUpper(strconv.FormatBool(v.n != 0))...)
		case Timestamp:
			b = time.UnixMilli(v.n).UTC().AppendFormat(b[:0], "2006-01-02 15:04:05.000")
		case Decimal:
			b = append(b[:0], v.decimal().text(from.Scale)...)
		case Float, Double:
			b = append(b[:0], formatJava(v.Double())...)
		default:
			b = strconv.AppendInt(b[:0], v.n, 10)
		}
		if n := to.Precision; n > 0 {
			length := utf8.RuneCount(b)
			if length > n {
				b = b[:offsetOf(b, int64(n))]
			}
			if to.Fixed && length < n {
				b = append(b, strings.Repeat(" ", n-length)...)
			}
		}
		return StringValue(b)
	}
}

// formatShortest writes a number with the fewest digits that read back as the same.
func formatShortest(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// formatJava writes a number as Java does: 1.0E10, 100.0.
func formatJava(f float64) string {
	switch m := math.Abs(f); {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 0):
		return strings.TrimPrefix(map[bool]string{true: "-", false: ""}[f < 0]+"Infinity", "+")
	case m != 0 && (m < 1e-3 || m >= 1e7):
		mantissa, exp, _ := strings.Cut(strconv.FormatFloat(f, 'E', -1, 64), "E")
		if !strings.Contains(mantissa, ".") {
			mantissa += ".0"
		}
		n, _ := strconv.Atoi(exp)
		return mantissa + "E" + strconv.Itoa(n)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// Parse reads a value of type t from text, as Flink reads a field of CSV, and reports whether it is one. Unlike Flink it takes neither NaN nor an infinity for a
// DOUBLE or FLOAT, nor a number that is too large for one: a single event with the price NaN would be the maximum and the sum of all, and hide the others.
func Parse(t Type, text []byte) (Value, bool) {
	switch t.Kind {
	case String:
		return StringValue(text), true
	case Boolean:
		switch strings.ToLower(string(text)) {
		case "true", "t", "yes", "y", "1":
			return BoolValue(true), true
		case "false", "f", "no", "n", "0":
			return BoolValue(false), true
		}
		return Value{}, false
	case Float, Double:
		f, err := strconv.ParseFloat(string(text), 64)
		if t.Kind == Float {
			f = float64(float32(f))
		}
		if err != nil || slices.ContainsFunc(text, notDecimal) || math.IsNaN(f) || math.IsInf(f, 0) {
			return Value{}, false
		}
		return DoubleValue(f), true
	case Decimal:
		d, ok := parseDecimal(string(text), t.Precision, t.Scale)
		return decimalValue(d), ok
	case Timestamp:
		return parseTime(text)
	case Token:
		return TokenValue(activity.AppendValue(nil, string(text))), len(text) > 0
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil { // 12.7 is 12
		mantissa, exp, ok := splitNumber(string(text))
		whole, fraction, _ := strings.Cut(mantissa, ".")
		if !ok || exp != 0 || fraction == "" {
			return Value{}, false
		}
		if n, err = strconv.ParseInt(whole, 10, 64); err != nil {
			return Value{}, false
		}
	}
	if !inRange(t.Kind, n) {
		return Value{}, false
	}
	return IntValue(n), true
}

// parseTime reads a time without a zone, or with Z or UTC, which is taken for UTC: 2024-01-01 00:00:00.123456789, T in place of the space,
// with the time of day left out from behind.
func parseTime(text []byte) (Value, bool) {
	s := strings.TrimSuffix(strings.TrimSuffix(string(text), "Z"), " UTC")
	layout := "2006-01-02 15:04:05"
	if len(s) > 10 && s[10] == 'T' {
		layout = "2006-01-02T15:04:05"
	}
	for _, l := range []string{layout, layout[:16], layout[:10]} {
		if t, err := time.Parse(l, s); err == nil {
			ms := t.UnixMilli()
			return TimeValue(ms, int64(t.Nanosecond()%1e6)), true
		}
	}
	return Value{}, false
}

// notDecimal reports whether Go's syntax of numbers has a byte that JSON's has not.
func notDecimal(c byte) bool { return c == 'x' || c == 'X' || c == 'p' || c == 'P' || c == '_' }
