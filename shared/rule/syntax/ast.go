package syntax

// Script is a rules file.
type Script struct {
	Source  string
	Inserts []*Insert
	Tables  []*Table
	Created []string // the names of tables that the script creates, also of those whose statement has errors
}

// Insert is INSERT INTO target SELECT …: a rule.
type Insert struct {
	Pos        Pos
	Directives []Directive
	Params     []Param
	Target     Name
	Columns    []Name // of the target, if they are given
	Select     *Select
	// Text is the statement as written, without its directives and with parameters in place.
	Text string
}

// Table is CREATE TABLE.
type Table struct {
	Pos       Pos
	Name      Name
	Columns   []Column
	Watermark *Watermark
	Options   []Option // WITH ('name' = 'value')
}

// Column is a column of a table.
type Column struct {
	Name    Name
	Type    Type
	NotNull bool
	// As is the expression of a computed column; nil for others.
	As Expr
}

// Watermark is WATERMARK FOR column AS expression.
type Watermark struct {
	Pos    Pos
	Column Name
	As     Expr
}

// Option is 'name' = 'value'.
type Option struct {
	Name, Value string
	Pos         Pos // of the value
}

// Type is a type as written: DECIMAL(10, 2), ROW<a STRING>.
type Type struct {
	Pos    Pos
	Name   string // upper case; words joined by a space
	Args   []int
	Fields []Column // of a ROW
}

// Select is a query with one source.
type Select struct {
	Pos   Pos
	Items []Item
	From  Source
	Where Expr // nil without WHERE
	Group []Expr
	// HasGroup reports whether there is a GROUP BY.
	HasGroup bool
	Having   Expr // nil without HAVING
}

// Item is a column of a SELECT list.
type Item struct {
	Expr  Expr
	Alias Name // Text is "" without AS
	Star  bool // SELECT *
}

// Source is what follows FROM: a table, a window over a table, or a query in parentheses.
type Source struct {
	Pos    Pos
	Table  Name
	Window *Window
	Query  *Select
	Alias  Name
}

// Window is a window table function.
type Window struct {
	Pos       Pos
	Function  string // TUMBLE, HOP, CUMULATE or SESSION
	Table     Name
	Partition []Name // PARTITION BY
	Time      Name   // DESCRIPTOR
	Intervals []*Interval
}

// Name is a name as written, without backticks.
type Name struct {
	Text   string
	Pos    Pos
	Quoted bool
}

// Expr is an expression.
type Expr interface{ at() Pos }

// At is where an expression begins.
func At(e Expr) Pos { return e.at() }

type (
	// Ref is a column, or a member of one: a.b.c.
	Ref struct {
		Parts []Name
	}
	// Literal is a constant.
	Literal struct {
		Pos  Pos
		Kind LiteralKind
		Text string // the digits, the string, TRUE or FALSE
	}
	// Interval is INTERVAL '10' SECOND.
	Interval struct {
		Pos Pos
		// MS is its length in milliseconds. Text is how it is written, in one spelling: whoever repeats an interval must repeat its text.
		MS   int64
		Text string
	}
	// Unary is an operator with one operand: -, +, NOT.
	Unary struct {
		Pos Pos
		Op  string
		X   Expr
	}
	// Binary is an operator with two operands: arithmetic, ||, comparison, AND, OR, IS DISTINCT FROM, IS NOT DISTINCT FROM.
	Binary struct {
		Pos  Pos // of the operator
		Op   string
		X, Y Expr
	}
	// Is is x IS [NOT] NULL, TRUE, FALSE or UNKNOWN.
	Is struct {
		X    Expr
		Not  bool
		What string
	}
	// Between is x [NOT] BETWEEN [SYMMETRIC] low AND high.
	Between struct {
		X, Low, High   Expr
		Not, Symmetric bool
	}
	// In is x [NOT] IN (list), or IN (SELECT …).
	In struct {
		X     Expr
		Not   bool
		List  []Expr
		Query *Select
	}
	// Like is x [NOT] LIKE pattern [ESCAPE escape], or SIMILAR TO.
	Like struct {
		X, Pattern Expr
		Escape     Expr // nil without ESCAPE
		Not        bool
		Similar    bool
	}
	// Case is CASE. Operand is nil unless it is CASE x WHEN …
	Case struct {
		Pos     Pos
		Operand Expr
		Whens   []When
		Else    Expr // nil without ELSE
	}
	// Cast is CAST(x AS type) or TRY_CAST.
	Cast struct {
		Pos Pos
		X   Expr
		To  Type
		Try bool
	}
	// Call is a function: aggregates, group windows and TUMBLE_START included.
	Call struct {
		Pos      Pos
		Name     string // upper case
		Args     []Expr
		Star     bool // COUNT(*)
		Distinct bool
		Filter   Expr // FILTER (WHERE …)
		// Word is what stands between the arguments of functions with words in them: the unit of EXTRACT, the side of TRIM.
		Word string
	}
)

// When is a branch of CASE.
type When struct{ If, Then Expr }

// LiteralKind is the kind of a constant.
type LiteralKind uint8

// The kinds of constants.
const (
	Null LiteralKind = iota
	Boolean
	Numeric
	Text
	Timestamp // TIMESTAMP '2024-01-01 00:00:00'
)

func (e *Ref) at() Pos      { return e.Parts[0].Pos }
func (e *Literal) at() Pos  { return e.Pos }
func (e *Interval) at() Pos { return e.Pos }
func (e *Unary) at() Pos    { return e.Pos }
func (e *Binary) at() Pos   { return e.X.at() }
func (e *Is) at() Pos       { return e.X.at() }
func (e *Between) at() Pos  { return e.X.at() }
func (e *In) at() Pos       { return e.X.at() }
func (e *Like) at() Pos     { return e.X.at() }
func (e *Case) at() Pos     { return e.Pos }
func (e *Cast) at() Pos     { return e.Pos }
func (e *Call) at() Pos     { return e.Pos }
