package verifier

// typ is the type of an expression. SQLite's values have types, its expressions have none: what Flink decides by type, the translation has to.
type typ struct {
	kind             kind
	bits             int // of a whole number
	precision, scale int // of a DECIMAL; precision is the length of a CHAR or VARCHAR, 0 if it is not bounded
	fixed            bool
}

type kind uint8

// The kinds, numbers in the order in which one converts to the next. SQLite has booleans and whole numbers as INTEGER, DOUBLE as REAL, and
// the others as TEXT: a time as 2024-01-01 00:00:00.000000000, a DECIMAL with all its digits.
const (
	kNull kind = iota
	kBool
	kInt
	kDecimal
	kDouble
	kString
	kTime
	kUser // a user as its JSON token
	kRow
	kInterval
)

func (t typ) numeric() bool { return t.kind == kInt || t.kind == kDecimal || t.kind == kDouble }

// common is the type that values of both types can take.
func common(a, b typ) typ {
	switch {
	case a.kind == kNull:
		return b
	case b.kind == kNull:
		return a
	case a.kind == kInt && b.kind == kInt:
		return typ{kind: kInt, bits: max(a.bits, b.bits)}
	case a.numeric() && b.numeric() && (a.kind == kDouble || b.kind == kDouble):
		return typ{kind: kDouble}
	case a.numeric() && b.numeric():
		a, b = a.exact(), b.exact()
		s := max(a.scale, b.scale)
		return bounded(max(a.precision-a.scale, b.precision-b.scale)+s, s)
	case a.kind == kString && b.kind == kString:
		return typ{kind: kString}
	case a.kind != b.kind:
		refuse("values of different types are mixed")
	}
	return a
}

// exact is the DECIMAL for a whole number.
func (t typ) exact() typ {
	if t.kind == kInt {
		return typ{kind: kDecimal, precision: map[int]int{8: 3, 16: 5, 32: 10, 64: 19}[t.bits]}
	}
	return t
}

// bounded is DECIMAL(p, s). Past 38 digits the scale shrinks, not below 6.
func bounded(p, s int) typ {
	if p > maxDigits {
		s = max(maxDigits-(p-s), min(s, 6))
		p = maxDigits
	}
	return typ{kind: kDecimal, precision: p, scale: s}
}
