package rule

import (
	"fmt"
	"slices"
	"strings"

	"spate/shared/rule/syntax"
)

// windowColumns are the columns that a window table function adds.
var windowColumns = map[string]int{"window_start": boundStart, "window_end": boundEnd, "window_time": boundLast}

func (c *checker) ref(e *syntax.Ref) *node {
	parts := e.Parts
	if len(parts) > 1 && parts[0].Text == c.alias && c.table.column(parts[0].Text) < 0 {
		parts = parts[1:]
	}
	first := parts[0]
	if b, ok := windowColumns[first.Text]; ok && c.windows && len(parts) == 1 {
		return indexed(opBound, b, Type{Kind: Timestamp, NotNull: true}, first.Pos)
	}
	i := c.table.column(first.Text)
	if i < 0 {
		return c.unknownColumn(first)
	}
	col := c.table.Columns[i]
	path := []string{col.Name}
	for _, p := range parts[1:] {
		at := slices.IndexFunc(col.Type.Fields, func(f Column) bool { return f.Name == p.Text })
		if at < 0 {
			return c.fail(p.Pos, c.suggest(p.Text, col.Type.Fields), "%s has no field %s", strings.Join(path, "."), p.Text)
		}
		notNull := col.Type.NotNull
		col = col.Type.Fields[at]
		col.Type.NotNull = col.Type.NotNull && notNull
		path = append(path, p.Text)
	}
	if col.Type.Kind == Row {
		return c.fail(syntax.At(e), "name one of its fields, as in "+strings.Join(path, ".")+"."+col.Type.Fields[0].Name, "%s is a ROW", strings.Join(path, "."))
	}
	if c.group != nil {
		return c.fail(syntax.At(e), fmt.Sprintf("add %s to GROUP BY, or aggregate it, as in MAX(%s)", strings.Join(path, "."), strings.Join(path, ".")), "%s is not in GROUP BY", strings.Join(path, "."))
	}
	in := Input{Path: path, Type: col.Type, Time: i == c.table.Time && len(path) == 1}
	return input(c.inputs.of(in), in, syntax.At(e))
}

func (c *checker) unknownColumn(name syntax.Name) *node {
	fix := c.suggest(name.Text, c.table.Columns)
	if strings.HasPrefix(fix, "the columns") && c.clause != "SELECT" && c.clause != "CREATE TABLE" && !strings.ContainsRune(name.Text, '\'') {
		fix = "for text, write '" + name.Text + "' in single quotes; " + fix
	}
	bound, isBound := windowColumns[name.Text]
	switch {
	case c.group != nil && slices.Contains(c.group.aliases, name.Text):
		fix = "repeat the expression: an alias cannot be used in " + c.clause
	case c.clause == "GROUP BY" && fix == "":
		fix = "repeat the expression: an alias cannot be used in GROUP BY"
	case isBound && c.group != nil && c.group.window != nil:
		w := c.group.window
		fix = fmt.Sprintf("write %s_%s(%s)", w.Name, [...]string{boundStart: "START", boundEnd: "END", boundLast: "ROWTIME"}[bound], windowText(w))
		if c.clause == "SELECT" {
			fix += " AS " + name.Text
		}
	case isBound && (c.clause == "WHERE" || c.clause == "GROUP BY"):
		fix = "only FROM TABLE(TUMBLE(…)) has " + name.Text
	}
	return c.fail(name.Pos, fix, "unknown column %s", name.Text)
}

// suggest names the column that was probably meant, or all there are.
func (c *checker) suggest(name string, columns []Column) string {
	var names []string
	for _, col := range columns {
		if strings.EqualFold(col.Name, name) || strings.EqualFold(strings.ReplaceAll(col.Name, "_", ""), strings.ReplaceAll(name, "_", "")) {
			return fmt.Sprintf("write %s", col.Name)
		}
		names = append(names, col.Name)
	}
	if near := syntax.Near(name, names); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	if len(names) > 20 {
		names = append(names[:20], "…")
	}
	return "the columns are " + strings.Join(names, ", ")
}
