package rule

import (
	"strconv"
	"strings"

	"spate/shared/rule/syntax"
)

func (c *checker) literal(e *syntax.Literal) *node {
	switch e.Kind {
	case syntax.Null:
		return constant(Value{}, Type{Kind: Null}, e.Pos)
	case syntax.Boolean:
		return constant(BoolValue(e.Text == "TRUE"), Type{Kind: Boolean}, e.Pos)
	case syntax.Text:
		return constant(StringValue([]byte(e.Text)), Type{Kind: String, Fixed: true, Precision: len([]rune(e.Text))}, e.Pos)
	case syntax.Timestamp:
		v, ok := parseTime([]byte(e.Text))
		if !ok {
			return c.fail(e.Pos, "write TIMESTAMP '2024-01-01 00:00:00'", "%q is not a time", e.Text)
		}
		return constant(v, Type{Kind: Timestamp}, e.Pos)
	}
	if strings.ContainsAny(e.Text, "eE") {
		f, err := strconv.ParseFloat(e.Text, 64)
		if err != nil {
			return c.fail(e.Pos, "", "%s is too large for a DOUBLE", e.Text)
		}
		return constant(DoubleValue(f), Type{Kind: Double}, e.Pos)
	}
	if !strings.Contains(e.Text, ".") {
		if n, err := strconv.ParseInt(e.Text, 10, 64); err == nil {
			if n == int64(int32(n)) {
				return constant(IntValue(n), Type{Kind: Int}, e.Pos)
			}
			return constant(IntValue(n), Type{Kind: BigInt}, e.Pos)
		}
	}
	whole, fraction, _ := strings.Cut(strings.TrimPrefix(e.Text, "-"), ".")
	t := Type{Kind: Decimal, Precision: len(whole) + len(fraction), Scale: len(fraction)}
	if t.Precision > maxPrecision {
		return c.fail(e.Pos, "add an exponent to make it a DOUBLE, such as 1.5e0 instead of 1.5", "%s has more than %d digits", e.Text, maxPrecision)
	}
	d, _ := parseDecimal(e.Text, t.Precision, t.Scale)
	return constant(decimalValue(d), t, e.Pos)
}
