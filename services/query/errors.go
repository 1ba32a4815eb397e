package query

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"modernc.org/sqlite"

	"spate/shared/rule/syntax"
)

// Error is what is wrong with a statement.
type Error struct {
	// Pos is a byte offset in the statement; -1 if the place is not known.
	Pos int
	// Message says what is wrong, and Fix what to write instead. Fix may be empty.
	Message, Fix string

	statement string
}

// Error implements error.
func (e *Error) Error() string {
	if e.Fix == "" {
		return e.Message
	}
	return e.Message + "; " + e.Fix
}

// Format writes the error with the line of the statement, and a caret under the place.
func (e *Error) Format() string {
	if e.Pos < 0 {
		return e.Error()
	}
	return syntax.Error{Pos: syntax.Pos(e.Pos), Message: e.Message, Fix: e.Fix}.Format("sql", e.statement)
}

func at(pos int, fix, format string, args ...any) *Error {
	return &Error{Pos: pos, Message: fmt.Sprintf(format, args...), Fix: fix}
}

// errorNumber is the code that the driver puts behind its messages.
var errorNumber = regexp.MustCompile(` \(\d+\)( \([A-Z_]+\))?$`)

// message is an error of SQLite in its own words.
func message(err error) string {
	text := errorNumber.ReplaceAllString(err.Error(), "")
	for _, prefix := range []string{"SQL logic error: ", "authorization denied: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return text
}

// explain makes an error of SQLite one of the statement. offset is where SQLite found it in the rewritten text; -1 if it does not say.
func (db *DB) explain(err error, statement string, r *rewritten, tokens []token, offset int) error {
	var failed *sqlite.Error
	if !errors.As(err, &failed) {
		return err
	}
	e := &Error{Pos: -1, Message: message(err), statement: statement}
	if offset >= 0 {
		e.Pos = r.was(offset)
	}
	what, name, _ := strings.Cut(e.Message, ": ")
	switch what {
	case "no such column":
		e.Fix = db.nearColumn(name, tokens)
	case "no such table":
		e.Fix = "the tables are " + strings.Join(db.tableNames(), ", ")
		if near := syntax.Near(name, db.tableNames()); near != "" {
			e.Fix = "did you mean " + near + "?"
		}
		if missing := db.missing[strings.ToLower(name)]; missing != "" {
			e.Message, e.Fix = fmt.Sprintf("table %s is not available: %s", name, missing), ""
		}
	case "no such function":
		if near := syntax.Near(name, ourFunctions()); near != "" {
			e.Fix = "did you mean " + near + "?"
		}
	case "not authorized", "access to " + name + " is prohibited":
		e.Fix = "statements can read only these tables: " + strings.Join(db.tableNames(), ", ")
	}
	if e.Pos < 0 && name != "" {
		last := name[strings.LastIndexByte(name, '.')+1:]
		if i := slices.IndexFunc(tokens, func(t token) bool { return strings.EqualFold(t.name(), last) }); i >= 0 {
			e.Pos = tokens[i].from
		}
	}
	return e
}

// nearColumn names a column of the statement's tables that is probably meant.
func (db *DB) nearColumn(name string, tokens []token) string {
	last := name[strings.LastIndexByte(name, '.')+1:]
	var names []string
	for _, t := range db.tables {
		if !slices.ContainsFunc(tokens, func(k token) bool { return strings.EqualFold(k.name(), t.Name) }) {
			continue
		}
		for _, c := range t.Columns {
			names = append(names, c.Name)
			if head, _, dotted := strings.Cut(name, "."); dotted && strings.EqualFold(c.Name, head) && c.Type == "JSON" {
				return fmt.Sprintf("write %s ->> '%s'", head, last)
			}
		}
	}
	near := syntax.Near(last, names)
	if i := slices.IndexFunc(names, func(n string) bool {
		return len(last) > 2 && strings.HasPrefix(strings.ToLower(n), strings.ToLower(last))
	}); near == "" && i >= 0 {
		near = names[i]
	}
	if near == "" {
		return ""
	}
	return "did you mean " + near + "?"
}
