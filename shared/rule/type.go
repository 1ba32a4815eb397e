package rule

import (
	"fmt"
	"strings"
)

// Kind is what a value is, apart from the details of its type.
type Kind uint8

// The kinds, numbers in the order in which one converts to the next.
const (
	Null Kind = iota // the type of NULL itself
	Boolean
	TinyInt
	SmallInt
	Int
	BigInt
	Decimal
	Float
	Double
	String
	Timestamp
	Row
	// Token is the type of the built-in user: a number or text, as the event has it. By itself it is a key and can be counted; in an expression
	// it is the BIGINT that it is, or NULL.
	Token
	interval // only as an operand of time arithmetic
)

// maxPrecision is that of DECIMAL.
const maxPrecision = 38

// Type is the type of an expression or column.
type Type struct {
	Kind Kind
	// Precision and Scale of a DECIMAL. Precision is the length of a CHAR or VARCHAR, 0 if it is not bounded.
	Precision, Scale int
	Fixed            bool // CHAR
	NotNull          bool
	Fields           []Column // of a ROW
}

var kindNames = [...]string{
	Null: "NULL", Boolean: "BOOLEAN", TinyInt: "TINYINT", SmallInt: "SMALLINT", Int: "INT", BigInt: "BIGINT", Decimal: "DECIMAL", Float: "FLOAT",
	Double: "DOUBLE", String: "STRING", Timestamp: "TIMESTAMP(3)", Row: "ROW", Token: "BIGINT", interval: "INTERVAL",
}

// String is the type as Flink SQL has it.
func (t Type) String() string {
	s := kindNames[t.Kind]
	switch {
	case t.Kind == Decimal:
		s = fmt.Sprintf("DECIMAL(%d, %d)", t.Precision, t.Scale)
	case t.Kind == String && t.Fixed:
		s = fmt.Sprintf("CHAR(%d)", t.Precision)
	case t.Kind == String && t.Precision > 0:
		s = fmt.Sprintf("VARCHAR(%d)", t.Precision)
	case t.Kind == Row:
		var fields []string
		for _, f := range t.Fields {
			fields = append(fields, "`"+f.Name+"` "+f.Type.String())
		}
		s = "ROW<" + strings.Join(fields, ", ") + ">"
	}
	if t.NotNull {
		s += " NOT NULL"
	}
	return s
}

func (t Type) numeric() bool { return t.Kind >= TinyInt && t.Kind <= Double }

func (t Type) whole() bool { return t.Kind >= TinyInt && t.Kind <= BigInt }

func (t Type) floating() bool { return t.Kind == Float || t.Kind == Double }

// nullable is the type with NULL allowed.
func (t Type) nullable() Type {
	t.NotNull = false
	return t
}

// asDecimal is the DECIMAL that holds every value of an exact numeric type.
func (t Type) asDecimal() Type {
	switch t.Kind {
	case TinyInt:
		return Type{Kind: Decimal, Precision: 3, NotNull: t.NotNull}
	case SmallInt:
		return Type{Kind: Decimal, Precision: 5, NotNull: t.NotNull}
	case Int:
		return Type{Kind: Decimal, Precision: 10, NotNull: t.NotNull}
	case BigInt:
		return Type{Kind: Decimal, Precision: 19, NotNull: t.NotNull}
	}
	return t
}

// beside is the type of a whole number as an operand beside another of type o: next to a DECIMAL it has 64 bits, for SUM of an INT has them.
func (t Type) beside(o Type) Type {
	if t.whole() && o.Kind == Decimal {
		t.Kind = BigInt
	}
	return t
}

// decimalOf is DECIMAL(p, s). Past 38 digits the scale shrinks, but not below 6 digits.
func decimalOf(p, s int) Type {
	if p > maxPrecision {
		whole := p - s
		s = max(maxPrecision-whole, min(s, 6))
		p = maxPrecision
	}
	return Type{Kind: Decimal, Precision: p, Scale: s}
}

// common is the type that values of both types can take: in CASE, COALESCE, IN and comparisons.
func common(a, b Type) (Type, bool) {
	notNull := a.NotNull && b.NotNull
	t, ok := a, true
	switch {
	case a.Kind == Null:
		t = b
	case b.Kind == Null:
	case a.Kind == b.Kind && a.Kind == Decimal:
		scale := max(a.Scale, b.Scale)
		t = decimalOf(max(a.Precision-a.Scale, b.Precision-b.Scale)+scale, scale)
	case a.Kind == b.Kind && a.Kind == String:
		t = Type{Kind: String}
		if a.Precision > 0 && b.Precision > 0 {
			t.Precision, t.Fixed = max(a.Precision, b.Precision), a.Fixed && b.Fixed && a.Precision == b.Precision
		}
	case a.Kind == b.Kind:
		ok = a.Kind != Row
	case !a.numeric() || !b.numeric():
		ok = false
	case a.floating() || b.floating():
		t = Type{Kind: Double}
	case a.Kind == Decimal || b.Kind == Decimal:
		return common(a.asDecimal(), b.asDecimal())
	default:
		t = Type{Kind: max(a.Kind, b.Kind)}
	}
	t.NotNull = notNull
	return t, ok
}
