package verifier

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
	"modernc.org/sqlite"
)

// engine is SQLite with the functions that the translation of a rule needs. They are in no other database of the process.
var engine = func() *sqlite.Driver {
	d := &sqlite.Driver{}
	for name, f := range functions {
		d.MustRegisterFunction(name, &sqlite.FunctionImpl{NArgs: -1, Deterministic: true, Scalar: func(_ *sqlite.FunctionContext, args []driver.Value) (v driver.Value, err error) {
			defer func() {
				if r := recover(); r != nil { // an argument of another type, which the translator does not look for
					err = fmt.Errorf("%s: %v", name, r)
				}
			}()
			for _, a := range args[:min(len(args), f.strict)] {
				if a == nil {
					return nil, nil
				}
			}
			return f.call(args)
		}})
	}
	for name, result := range totals {
		d.MustRegisterFunction(name, &sqlite.FunctionImpl{NArgs: 1, Deterministic: true, MakeAggregate: func(sqlite.FunctionContext) (sqlite.AggregateFunction, error) {
			return &total{result: result, bits: strings.HasSuffix(name, "_bits")}, nil
		}})
	}
	return d
}()

// connector opens a database file.
type connector struct{ file string }

func (c connector) Connect(context.Context) (driver.Conn, error) { return engine.Open(c.file) }

func (c connector) Driver() driver.Driver { return engine }

// function is NULL if one of its first arguments is.
type function struct {
	strict int
	call   func(args []driver.Value) (driver.Value, error)
}

// value is a function that cannot fail.
func value(strict int, f func(args []driver.Value) driver.Value) function {
	return function{strict, func(args []driver.Value) (driver.Value, error) { return f(args), nil }}
}

var functions = map[string]function{
	"f_like":    {2, like},
	"f_similar": {2, similar},
	"f_regexp": value(2, func(a []driver.Value) driver.Value {
		return a[1] != "" && regexp.MustCompile(a[1].(string)).MatchString(a[0].(string))
	}),
	"f_upper": value(1, func(a []driver.Value) driver.Value { return cases.Upper(language.Und).String(a[0].(string)) }),
	"f_lower": value(1, func(a []driver.Value) driver.Value { return cases.Lower(language.Und).String(a[0].(string)) }),
	"f_substring": value(3, func(a []driver.Value) driver.Value {
		text := []rune(a[0].(string))
		n := int64(len(text))
		from, length := a[1].(int64), n
		if len(a) > 2 {
			if length = a[2].(int64); length < 0 {
				return nil
			}
		}
		switch {
		case from > 0:
			from--
		case from < 0:
			if from += n; from < 0 { // it begins before the text
				return ""
			}
		}
		if from >= n {
			return ""
		}
		return string(text[from:min(n, from+min(length, n))])
	}),
	"f_negate": value(1, func(a []driver.Value) driver.Value { return -a[0].(float64) }),
	"f_divide": {2, func(a []driver.Value) (driver.Value, error) {
		f := a[0].(float64) / a[1].(float64)
		if math.IsNaN(f) {
			return nil, errors.New("0 / 0 is NaN, which SQLite does not support")
		}
		return f, nil
	}},
	"f_bits": value(1, func(a []driver.Value) driver.Value { return int64(math.Float64bits(a[0].(float64))) }),
	"f_key":  value(1, func(a []driver.Value) driver.Value { return a[0] }),
	"f_fit": value(1, func(a []driver.Value) driver.Value {
		n, ok := a[0].(int64) // SQLite makes a REAL of what is too large
		if bits := a[1].(int64); !ok || bits < 64 && (n < -1<<(bits-1) || n >= 1<<(bits-1)) {
			return nil
		}
		return n
	}),
	"f_time": value(1, func(a []driver.Value) driver.Value { return timeText(time.UnixMilli(a[0].(int64))) }),
	"f_shift": value(2, func(a []driver.Value) driver.Value {
		t, err := time.Parse(timeLayout, a[0].(string))
		if err != nil {
			return nil
		}
		return timeText(t.Add(time.Duration(a[1].(int64)) * time.Millisecond))
	}),
	"f_order": value(2, func(a []driver.Value) driver.Value { return int64(exactly(a[0]).Cmp(exactly(a[1]))) }),
	"f_double": value(1, func(a []driver.Value) driver.Value {
		f, _ := strconv.ParseFloat(a[0].(string), 64)
		return f
	}),
	"f_decimal": value(1, func(a []driver.Value) driver.Value {
		r := exactly(a[0])
		if r == nil {
			return nil
		}
		return decimal(r, int(a[1].(int64)), int(a[2].(int64)))
	}),
	"f_arithmetic": value(3, func(a []driver.Value) driver.Value {
		return decimalArithmetic(a[0].(string), exactly(a[1]), exactly(a[2]), int(a[3].(int64)), int(a[4].(int64)))
	}),
	"f_round": value(2, round),
	"f_int":   value(1, toInt),
	"f_text":  value(1, toText),
	"f_parse": value(1, func(a []driver.Value) driver.Value {
		n := func(i int) int { return int(a[i].(int64)) }
		return parseField(typ{kind: kind(n(1)), bits: n(2), precision: n(3), scale: n(4)}, a[0].(string))
	}),
}

// exactly is a number as it is written: that of a DOUBLE with the fewest digits that read back as the same.
func exactly(v driver.Value) *big.Rat {
	switch v := v.(type) {
	case int64:
		return new(big.Rat).SetInt64(v)
	case float64:
		return rational(strconv.FormatFloat(v, 'g', -1, 64))
	case bool:
		return new(big.Rat).SetInt64(map[bool]int64{true: 1}[v])
	}
	return rational(v.(string))
}

// like is LIKE as a regular expression. Without ESCAPE, a backslash is one if the pattern is not a literal or contains a _.
func like(a []driver.Value) (driver.Value, error) {
	pattern, escape := a[1].(string), ""
	switch {
	case pattern == "": // as in Flink
		return true, nil
	case a[2] != nil:
		escape = a[2].(string)
	case a[3].(int64) == 0 || strings.Contains(pattern, "_"):
		escape = `\`
	}
	var b strings.Builder
	b.WriteString(`^(?s:`)
	for rest := pattern; rest != ""; {
		c := firstRune(rest)
		rest = rest[len(c):]
		switch {
		case c == escape:
			c = firstRune(rest)
			if c != "%" && c != "_" && c != escape {
				if a[3].(int64) == 0 {
					return nil, nil
				}
				return nil, fmt.Errorf("the escape in %q must precede %%, _ or itself", pattern)
			}
			rest = rest[len(c):]
			b.WriteString(regexp.QuoteMeta(c))
		case c == "%":
			b.WriteString(".*")
		case c == "_":
			b.WriteString(".")
		default:
			b.WriteString(regexp.QuoteMeta(c))
		}
	}
	b.WriteString(")$")
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, err
	}
	return re.MatchString(a[0].(string)), nil
}

// similar is SIMILAR TO: a regular expression with % and _ for .* and ., which must match all of the text.
func similar(a []driver.Value) (driver.Value, error) {
	escape, class := "", false
	if a[2] != nil {
		escape = a[2].(string)
	}
	var b strings.Builder
	for rest := a[1].(string); rest != ""; {
		c := firstRune(rest)
		rest = rest[len(c):]
		switch {
		case c == escape:
			c = firstRune(rest)
			rest = rest[len(c):]
			c = regexp.QuoteMeta(c)
		case class:
			class = c != "]"
		case c == "%":
			c = ".*"
		case c == "_":
			c = "."
		case strings.Contains(`.^$\`, c):
			c = regexp.QuoteMeta(c)
		default:
			class = c == "["
		}
		b.WriteString(c)
	}
	re, err := regexp.Compile("^(?s:" + b.String() + ")$")
	if err != nil {
		return nil, err
	}
	return re.MatchString(a[0].(string)), nil
}

// round is FLOOR, CEIL and ROUND of (name, number, digits, p, s). The precision of a DOUBLE is 0.
func round(a []driver.Value) driver.Value {
	n, p, s := int(a[2].(int64)), int(a[3].(int64)), int(a[4].(int64))
	if f, ok := a[1].(float64); ok {
		switch {
		case a[0] == "FLOOR":
			return math.Floor(f)
		case a[0] == "CEIL":
			return math.Ceil(f)
		case math.IsInf(f, 0):
			return f
		}
	}
	unit := new(big.Rat).SetInt(ten(max(n, -n)))
	if n > 0 {
		unit.Inv(unit)
	}
	r := exactly(a[1])
	r.Quo(r, unit)
	var whole *big.Int
	switch a[0] {
	case "FLOOR":
		whole = floor(r)
	case "CEIL":
		whole = floor(r.Neg(r))
		whole.Neg(whole)
	default:
		whole = roundHalfUp(r)
	}
	r.Mul(r.SetInt(whole), unit)
	switch a[1].(type) {
	case float64:
		f, _ := r.Float64()
		return f
	case int64:
		if !r.Num().IsInt64() {
			return nil
		}
		return r.Num().Int64()
	}
	return decimal(r, p, s)
}

func floor(r *big.Rat) *big.Int { return new(big.Int).Div(r.Num(), r.Denom()) }

// toInt cuts a number to a whole one. Those of a DOUBLE out of range become the nearest, as in Flink; others are NULL.
func toInt(a []driver.Value) driver.Value {
	bits := a[1].(int64)
	low, high := int64(-1)<<(bits-1), int64(1)<<(bits-1)-1
	r := new(big.Rat)
	switch v := a[0].(type) {
	case float64:
		switch {
		case v <= float64(low):
			return low
		case v >= float64(high):
			return high
		}
		return int64(v)
	default:
		r = exactly(v)
	}
	n := new(big.Int).Quo(r.Num(), r.Denom())
	if !n.IsInt64() || n.Int64() < low || n.Int64() > high {
		return nil
	}
	return n.Int64()
}

// toText writes a value as CAST does.
func toText(a []driver.Value) driver.Value {
	switch kind(a[1].(int64)) {
	case kBool:
		if a[0] == int64(0) || a[0] == false {
			return "FALSE"
		}
		return "TRUE"
	case kInt:
		return strconv.FormatInt(a[0].(int64), 10)
	case kDouble:
		return javaText(a[0].(float64))
	case kTime:
		return a[0].(string)[:len("2006-01-02 15:04:05.000")]
	}
	return a[0]
}

// javaText writes a number as Java does: 100.0, 1.0E10.
func javaText(f float64) string {
	if math.IsInf(f, 0) {
		return strings.Replace(strconv.FormatFloat(f, 'f', -1, 64)[:1]+"Infinity", "+", "", 1)
	}
	if m := math.Abs(f); m == 0 || m >= 1e-3 && m < 1e7 {
		s := strconv.FormatFloat(f, 'f', -1, 64)
		if !strings.Contains(s, ".") {
			s += ".0"
		}
		return s
	}
	m, e, _ := strings.Cut(strconv.FormatFloat(f, 'E', -1, 64), "E")
	if !strings.Contains(m, ".") {
		m += ".0"
	}
	n, _ := strconv.Atoi(e)
	return fmt.Sprintf("%sE%d", m, n)
}

const timeLayout = "2006-01-02 15:04:05.000000000"

func timeText(t time.Time) string { return t.UTC().Format(timeLayout) }

// canonicalTime reads a time in UTC and writes it as it is compared.
func canonicalTime(s string) (string, bool) {
	s = strings.TrimSuffix(strings.TrimSuffix(s, "Z"), " UTC")
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return timeText(t), true
		}
	}
	return "", false
}

var (
	booleans  = map[string]bool{"true": true, "t": true, "yes": true, "y": true, "1": true, "false": false, "f": false, "no": false, "n": false, "0": false}
	wholeText = regexp.MustCompile(`^[-+]?\d+(\.\d+)?$`)
	realText  = regexp.MustCompile(`^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$`)
)

// parseField converts text to a value of a type; to NULL if it is none.
func parseField(t typ, s string) driver.Value {
	if t.kind != kString {
		s = strings.TrimSpace(s)
	}
	switch t.kind {
	case kBool:
		if b, ok := booleans[strings.ToLower(s)]; ok {
			return b
		}
		return nil
	case kInt:
		if !wholeText.MatchString(s) {
			return nil
		}
		whole, _, _ := strings.Cut(s, ".") // 12.7 is 12
		n, err := strconv.ParseInt(whole, 10, t.bits)
		if err != nil {
			return nil
		}
		return n
	case kDouble:
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || !realText.MatchString(s) { // NaN, an infinity, or too large
			return nil
		}
		return f
	case kDecimal:
		r := rational(s)
		if r == nil {
			return nil
		}
		return decimal(r, t.precision, t.scale)
	case kTime:
		if at, ok := canonicalTime(s); ok {
			return at
		}
		return nil
	}
	return s
}

// total is SUM and AVG, and MIN and MAX of DECIMAL. It keeps exact sums, which do not depend on the order of the values.
type total struct {
	result   func(*total) driver.Value
	bits     bool // DOUBLEs come as their bits
	n        int64
	sum      big.Int   // of whole numbers, and of the digits of DECIMALs
	real     big.Float // of DOUBLEs
	infinite float64
	scale    int
	min, max driver.Value
}

var totals = map[string]func(*total) driver.Value{
	"f_sum_int":     (*total).whole,
	"f_avg_int":     (*total).wholeMean,
	"f_sum_double":  (*total).double,
	"f_avg_double":  (*total).doubleMean,
	"f_sum_bits":    (*total).double,
	"f_avg_bits":    (*total).doubleMean,
	"f_sum_decimal": func(t *total) driver.Value { return decimal(t.exact(), maxDigits, t.scale) },
	"f_avg_decimal": func(t *total) driver.Value {
		if decimal(t.exact(), maxDigits, t.scale) == nil {
			return nil // SUM has too many digits
		}
		return decimal(new(big.Rat).Quo(t.exact(), new(big.Rat).SetInt64(t.n)), maxDigits, max(6, t.scale))
	},
	"f_min_decimal": func(t *total) driver.Value { return t.min },
	"f_max_decimal": func(t *total) driver.Value { return t.max },
}

// Step implements [sqlite.AggregateFunction].
func (t *total) Step(_ *sqlite.FunctionContext, args []driver.Value) error {
	arg := args[0]
	if n, ok := arg.(int64); ok && t.bits {
		arg = math.Float64frombits(uint64(n))
	}
	switch v := arg.(type) {
	case nil:
		return nil
	case int64:
		t.sum.Add(&t.sum, big.NewInt(v))
	case float64:
		if math.IsInf(v, 0) {
			t.infinite += v
			break
		}
		if t.n == 0 {
			t.real.SetPrec(2200) // more than there is between the smallest and the largest
		}
		t.real.Add(&t.real, new(big.Float).SetFloat64(v))
	case string:
		n, _ := new(big.Int).SetString(strings.Replace(v, ".", "", 1), 10)
		t.sum.Add(&t.sum, n)
		t.scale = scaleOf(v)
		if t.n == 0 || exactly(v).Cmp(exactly(t.min)) < 0 {
			t.min = v
		}
		if t.n == 0 || exactly(v).Cmp(exactly(t.max)) > 0 {
			t.max = v
		}
	}
	t.n++
	return nil
}

// WindowValue implements [sqlite.AggregateFunction]: it is the result.
func (t *total) WindowValue(*sqlite.FunctionContext) (driver.Value, error) {
	if t.n == 0 {
		return nil, nil
	}
	if math.IsNaN(t.infinite) {
		return nil, errors.New("the sum of two infinities is NaN, which SQLite does not support")
	}
	return t.result(t), nil
}

// WindowInverse implements [sqlite.AggregateFunction]. SQLite's own windows are not used.
func (t *total) WindowInverse(*sqlite.FunctionContext, []driver.Value) error {
	return fmt.Errorf("a row cannot be removed from a sum")
}

// Final implements [sqlite.AggregateFunction].
func (t *total) Final(*sqlite.FunctionContext) {}

func (t *total) whole() driver.Value {
	if !t.sum.IsInt64() {
		return nil
	}
	return t.sum.Int64()
}

func (t *total) wholeMean() driver.Value {
	if !t.sum.IsInt64() {
		return nil
	}
	return t.sum.Int64() / t.n
}

func (t *total) double() driver.Value {
	if t.infinite != 0 {
		return t.infinite
	}
	f, _ := t.real.Float64()
	return f
}

func (t *total) doubleMean() driver.Value { return t.double().(float64) / float64(t.n) }

func (t *total) exact() *big.Rat { return new(big.Rat).SetFrac(&t.sum, ten(t.scale)) }
