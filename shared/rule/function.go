package rule

import (
	"bytes"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// function is a function that is NULL if one of its arguments is.
type function struct {
	usage       string
	least, most int // arguments
	// check decides the type of the result and converts the arguments. word is the unit or side between them.
	check func(args []*node, word string) (t Type, out []*node, problem string)
	// make returns the function. It may keep memory of its own; a NULL of the result counts as a fault if fault is called.
	make   func(n *node, fault func() Value) func(args []Value) Value
	regexp bool // the second argument is a regular expression
}

var functions map[string]function

func init() { // functions refers to itself through fold
	functions = map[string]function{
		"LOWER":            {usage: "LOWER(text)", least: 1, most: 1, check: textOf, make: textMapper(lower)},
		"UPPER":            {usage: "UPPER(text)", least: 1, most: 1, check: textOf, make: textMapper(upper)},
		"CHAR_LENGTH":      {usage: "CHAR_LENGTH(text)", least: 1, most: 1, check: intOf, make: charLength},
		"CHARACTER_LENGTH": {usage: "CHARACTER_LENGTH(text)", least: 1, most: 1, check: intOf, make: charLength},
		"SUBSTRING":        {usage: "SUBSTRING(text, start, length)", least: 2, most: 3, check: substringOf, make: substring},
		"TRIM":             {usage: "TRIM(text)", least: 1, most: 2, check: textOf, make: trim},
		"LTRIM":            {usage: "LTRIM(text)", least: 1, most: 1, check: textOf, make: trim},
		"RTRIM":            {usage: "RTRIM(text)", least: 1, most: 1, check: textOf, make: trim},
		"CONCAT":           {usage: "CONCAT(text, text, …)", least: 1, most: 100, check: textOf, make: concat},
		"REPLACE":          {usage: "REPLACE(text, from, to)", least: 3, most: 3, check: textOf, make: replace},
		"POSITION":         {usage: "POSITION(part IN text)", least: 2, most: 2, check: intOf, make: position},
		"REGEXP":           {usage: "REGEXP(text, pattern)", least: 2, most: 2, check: boolOf, make: regexpFind, regexp: true},
		"ABS":              {usage: "ABS(number)", least: 1, most: 1, check: sameNumber, make: abs},
		"FLOOR":            {usage: "FLOOR(number)", least: 1, most: 1, check: wholeNumber, make: rounding},
		"CEIL":             {usage: "CEIL(number)", least: 1, most: 1, check: wholeNumber, make: rounding},
		"CEILING":          {usage: "CEILING(number)", least: 1, most: 1, check: wholeNumber, make: rounding},
		"ROUND":            {usage: "ROUND(number, digits)", least: 1, most: 2, check: roundOf, make: round},
		"MOD":              {usage: "MOD(a, b)", least: 2, most: 2}, // an operator
		"GREATEST":         {usage: "GREATEST(a, b, …)", least: 1, most: 100, check: extremeOf, make: extreme},
		"LEAST":            {usage: "LEAST(a, b, …)", least: 1, most: 100, check: extremeOf, make: extreme},
		"POWER":            {usage: "POWER(a, b)", least: 2, most: 2, check: doubleOf, make: mathOf(func(a []float64) float64 { return math.Pow(a[0], a[1]) })},
		"SQRT":             {usage: "SQRT(a)", least: 1, most: 1, check: doubleOf, make: mathOf(func(a []float64) float64 { return math.Sqrt(a[0]) })},
		"LN":               {usage: "LN(a)", least: 1, most: 1, check: doubleOf, make: mathOf(func(a []float64) float64 { return math.Log(a[0]) })},
		"EXP":              {usage: "EXP(a)", least: 1, most: 1, check: doubleOf, make: mathOf(func(a []float64) float64 { return math.Exp(a[0]) })},
		"EXTRACT":          {usage: "EXTRACT(HOUR FROM time)", least: 1, most: 1, check: extractOf, make: extract},
	}
}

func strict(args []*node) bool {
	return !slices.ContainsFunc(args, func(a *node) bool { return !a.typ.NotNull })
}

// texts reports the problem of arguments that are not all text.
func texts(args []*node) string {
	for _, a := range args {
		if a.typ.Kind != String && a.typ.Kind != Null {
			return "an argument is " + a.typ.nullable().String() + ", but must be text; write CAST(x AS STRING)"
		}
	}
	return ""
}

func textOf(args []*node, _ string) (Type, []*node, string) {
	return Type{Kind: String, NotNull: strict(args)}, args, texts(args)
}

func intOf(args []*node, _ string) (Type, []*node, string) {
	return Type{Kind: Int, NotNull: strict(args)}, args, texts(args)
}

func boolOf(args []*node, _ string) (Type, []*node, string) {
	return Type{Kind: Boolean, NotNull: strict(args)}, args, texts(args)
}

func substringOf(args []*node, _ string) (Type, []*node, string) {
	for i, a := range args[1:] {
		if !a.typ.whole() {
			return Type{}, nil, "start and length must be whole numbers"
		}
		args[i+1] = castTo(a, Type{Kind: BigInt})
	}
	return Type{Kind: String, NotNull: strict(args)}, args, texts(args[:1])
}

func numbers(args []*node) string {
	for _, a := range args {
		if !a.typ.numeric() {
			return "an argument is " + a.typ.nullable().String() + ", but must be a number"
		}
	}
	return ""
}

func sameNumber(args []*node, _ string) (Type, []*node, string) {
	return args[0].typ, args, numbers(args)
}

func wholeNumber(args []*node, _ string) (Type, []*node, string) {
	t := args[0].typ
	if t.Kind == Decimal {
		t.Precision, t.Scale = max(1, min(maxPrecision, t.Precision-t.Scale+1)), 0
	}
	return t, args, numbers(args)
}

func roundOf(args []*node, _ string) (Type, []*node, string) {
	if problem := numbers(args); problem != "" {
		return Type{}, nil, problem
	}
	t := args[0].typ
	digits := int64(0)
	if len(args) == 2 {
		if args[1].op != opConst || !args[1].typ.whole() || args[1].value.IsNull() {
			return Type{}, nil, "the number of digits must be a constant whole number"
		}
		digits = args[1].value.n
	}
	if t.Kind == Decimal {
		scale := int(max(0, min(digits, int64(t.Scale))))
		whole := t.Precision - t.Scale
		if scale < t.Scale {
			whole++
		}
		t.Precision, t.Scale = max(1, min(maxPrecision, whole+scale)), scale
	}
	t.NotNull = args[0].typ.NotNull
	return t, args, ""
}

func extremeOf(args []*node, _ string) (Type, []*node, string) {
	t := args[0].typ
	for _, a := range args[1:] {
		both, ok := common(t, a.typ)
		if !ok {
			return Type{}, nil, "the arguments are " + t.nullable().String() + " and " + a.typ.nullable().String()
		}
		t = both
	}
	for i := range args {
		args[i] = castTo(args[i], t)
	}
	return t, args, ""
}

func doubleOf(args []*node, _ string) (Type, []*node, string) {
	if problem := numbers(args); problem != "" {
		return Type{}, nil, problem
	}
	t := Type{Kind: Double, NotNull: strict(args)}
	for i := range args {
		args[i] = castTo(args[i], t)
	}
	return t, args, ""
}

// extractUnits are what EXTRACT takes from a time.
var extractUnits = map[string]func(time.Time) int{
	"YEAR": time.Time.Year, "MONTH": func(t time.Time) int { return int(t.Month()) }, "DAY": time.Time.Day, "HOUR": time.Time.Hour, "MINUTE": time.Time.Minute,
	"SECOND": time.Time.Second, "DOW": func(t time.Time) int { return int(t.Weekday()) + 1 }, "DOY": time.Time.YearDay,
}

func extractOf(args []*node, word string) (Type, []*node, string) {
	if _, ok := extractUnits[word]; !ok {
		return Type{}, nil, word + " cannot be extracted: use YEAR, MONTH, DAY, DOW, DOY, HOUR, MINUTE or SECOND"
	}
	if args[0].typ.Kind != Timestamp {
		return Type{}, nil, "EXTRACT needs a time, but this is " + args[0].typ.nullable().String()
	}
	return Type{Kind: BigInt, NotNull: strict(args)}, args, ""
}

func extract(n *node, _ func() Value) func([]Value) Value {
	get := extractUnits[strings.TrimPrefix(n.name, "EXTRACT ")]
	return func(args []Value) Value { return IntValue(int64(get(time.UnixMilli(args[0].n).UTC()))) }
}

// textMapper is a function from text to text that appends to memory which the next call uses again.
func textMapper(f func(to, text []byte) []byte) func(*node, func() Value) func([]Value) Value {
	return func(*node, func() Value) func([]Value) Value {
		var b []byte
		return func(args []Value) Value {
			b = f(b[:0], args[0].text)
			return StringValue(b)
		}
	}
}

// Text beyond ASCII is left to the full mappings of Unicode, as Java has them: ß has the upper case SS.
var (
	fullUpper = cases.Upper(language.Und)
	fullLower = cases.Lower(language.Und)
)

func upper(b, text []byte) []byte {
	for _, c := range text {
		if c >= utf8.RuneSelf {
			return append(b[:0], fullUpper.Bytes(text)...)
		}
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

func lower(b, text []byte) []byte {
	for _, c := range text {
		if c >= utf8.RuneSelf {
			return append(b[:0], fullLower.Bytes(text)...)
		}
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

func charLength(*node, func() Value) func([]Value) Value {
	return func(args []Value) Value { return IntValue(int64(utf8.RuneCount(args[0].text))) }
}

// substring counts characters from 1. Start 0 is 1, a negative one counts from the end.
func substring(*node, func() Value) func([]Value) Value {
	return func(args []Value) Value {
		text := args[0].text
		start := args[1].n
		n := int64(utf8.RuneCount(text))
		switch {
		case start < 0:
			if start += n; start < 0 {
				return StringValue(nil)
			}
		case start > 0:
			start--
		}
		end := n
		if len(args) == 3 {
			if args[2].n < 0 {
				return Value{}
			}
			end = min(n, start+min(args[2].n, n+n))
		}
		if start = max(start, 0); start >= end {
			return StringValue(nil)
		}
		from := offsetOf(text, start)
		return StringValue(text[from : from+offsetOf(text[from:], end-start)])
	}
}

// offsetOf is where the n-th character begins.
func offsetOf(text []byte, n int64) int {
	at := 0
	for ; n > 0; n-- {
		_, size := utf8.DecodeRune(text[at:])
		at += size
	}
	return at
}

func trim(n *node, _ func() Value) func([]Value) Value {
	left, right := !strings.HasSuffix(n.name, "TRAILING") && n.name != "RTRIM", !strings.HasSuffix(n.name, "LEADING") && n.name != "LTRIM"
	return func(args []Value) Value {
		text, set := args[0].text, " "
		if len(args) == 2 {
			set = string(args[1].text)
		}
		if left {
			text = bytes.TrimLeft(text, set)
		}
		if right {
			text = bytes.TrimRight(text, set)
		}
		return StringValue(text)
	}
}

func concat(*node, func() Value) func([]Value) Value {
	var b []byte
	return func(args []Value) Value {
		b = b[:0]
		for _, a := range args {
			b = append(b, a.text...)
		}
		return StringValue(b)
	}
}

func replace(*node, func() Value) func([]Value) Value {
	return func(args []Value) Value {
		if len(args[1].text) == 0 {
			return args[0]
		}
		return StringValue(bytes.ReplaceAll(args[0].text, args[1].text, args[2].text))
	}
}

func position(*node, func() Value) func([]Value) Value {
	return func(args []Value) Value {
		at := bytes.Index(args[1].text, args[0].text)
		if at < 0 {
			return IntValue(0)
		}
		return IntValue(int64(utf8.RuneCount(args[1].text[:at])) + 1)
	}
}

func regexpFind(n *node, _ func() Value) func([]Value) Value {
	if n.like.never {
		return func([]Value) Value { return BoolValue(false) }
	}
	return func(args []Value) Value { return BoolValue(n.like.regexp.Match(args[0].text)) }
}

func abs(n *node, fault func() Value) func([]Value) Value {
	negate := negation(n.typ, fault)
	return func(args []Value) Value {
		if sign(n.typ, args[0]) < 0 {
			return negate(args[0])
		}
		if n.typ.floating() {
			return DoubleValue(math.Abs(args[0].Double()))
		}
		return args[0]
	}
}

func sign(t Type, v Value) int {
	switch {
	case t.floating():
		return compareDouble(v.Double(), 0)
	case t.Kind == Decimal:
		return v.decimal().cmp(int128{})
	}
	return compare(BigInt, v, IntValue(0))
}

// negation returns the function that negates a number of a type.
func negation(t Type, fault func() Value) func(Value) Value {
	switch {
	case t.floating():
		return func(v Value) Value { return DoubleValue(-v.Double()) }
	case t.Kind == Decimal:
		return func(v Value) Value { return decimalValue(v.decimal().neg()) }
	}
	return func(v Value) Value {
		if v.n == math.MinInt64 || !inRange(t.Kind, -v.n) {
			return fault()
		}
		return IntValue(-v.n)
	}
}

// rounding is FLOOR and CEIL.
func rounding(n *node, fault func() Value) func([]Value) Value {
	up := n.name != "FLOOR"
	from := n.args[0].typ
	return func(args []Value) Value {
		v := args[0]
		switch {
		case from.floating() && up:
			return DoubleValue(math.Ceil(v.Double()))
		case from.floating():
			return DoubleValue(math.Floor(v.Double()))
		case from.Kind != Decimal || from.Scale == 0:
			return v
		}
		b := v.decimal().big()
		if up {
			b.Neg(b)
		}
		b.Div(b, powers[from.Scale]) // Euclidean: down for a positive divisor
		if up {
			b.Neg(b)
		}
		d, ok := fromBig(b, n.typ.Precision)
		if !ok {
			return fault()
		}
		return decimalValue(d)
	}
}

func round(n *node, fault func() Value) func([]Value) Value {
	digits := 0
	if len(n.args) == 2 {
		digits = int(max(-40, min(n.args[1].value.n, 40)))
	}
	from := n.args[0].typ
	return func(args []Value) Value {
		v := args[0]
		if from.floating() {
			return DoubleValue(roundDouble(v.Double(), digits))
		}
		d := v.decimal()
		if from.Kind != Decimal {
			d = small(v.n)
		}
		if digits < from.Scale {
			b := roundQuo(d.big(), powers[min(from.Scale-digits, len(powers)-1)])
			b.Mul(b, powers[max(0, -digits)])
			var ok bool
			if d, ok = fromBig(b, maxPrecision); !ok {
				return fault()
			}
		}
		if from.Kind == Decimal {
			return decimalValue(d)
		}
		if i, ok := d.fits64(); ok && inRange(from.Kind, i) {
			return IntValue(i)
		}
		return fault()
	}
}

// roundDouble rounds half away from zero on the shortest decimal form.
func roundDouble(f float64, digits int) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return f
	}
	r, ok := new(big.Rat).SetString(formatShortest(f))
	if !ok {
		return f
	}
	scale := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(digits, -digits))), nil))
	if digits < 0 {
		scale.Inv(scale)
	}
	r.Mul(r, scale)
	r.SetInt(roundQuo(r.Num(), r.Denom()))
	out, _ := r.Quo(r, scale).Float64()
	return out
}

func mathOf(f func([]float64) float64) func(*node, func() Value) func([]Value) Value {
	return func(*node, func() Value) func([]Value) Value {
		var in [2]float64
		return func(args []Value) Value {
			for i, a := range args {
				in[i] = a.Double()
			}
			return DoubleValue(f(in[:len(args)]))
		}
	}
}

func extreme(n *node, _ func() Value) func([]Value) Value {
	want := 1
	if n.name == "LEAST" {
		want = -1
	}
	return func(args []Value) Value {
		best := args[0]
		for _, a := range args[1:] {
			if compare(n.typ.Kind, a, best)*want > 0 {
				best = a
			}
		}
		return best
	}
}
