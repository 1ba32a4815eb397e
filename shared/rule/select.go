package rule

import (
	"fmt"
	"slices"
	"strings"

	"spate/shared/rule/syntax"
)

// reservedColumns are members of the alert record that a column cannot be named after, in whatever case.
var reservedColumns = []string{
	"id", "rule", "state", "severity", "key", "values", "rule_revision", "mode", "summary", "runbook", "quiet_ms", "decision", "user", "threshold", "event_count", "first_event_at", "last_event_at", "evidence", "at_least",
	"window_start", "window_end",
}

// columns checks the SELECT list, and reports whether it has no errors.
func (b *builder) columns(r *Rule, q *syntax.Select, c checker, in *syntax.Insert) bool {
	before := len(*b.errs)
	c.clause = "SELECT"
	used := map[string]int{}
	for i, item := range q.Items {
		if item.Star {
			b.fail(q.Pos, "name the columns", "SELECT * is not possible with GROUP BY")
			continue
		}
		n := c.token(item.Expr)
		if n == nil {
			continue
		}
		if n.typ.Kind == Null {
			b.fail(n.at, "write CAST(NULL AS STRING)", "the column has no type")
			continue
		}
		name := item.Alias.Text
		if ref, ok := item.Expr.(*syntax.Ref); ok && name == "" {
			name = ref.Parts[len(ref.Parts)-1].Text
		}
		if name == "" {
			name = fmt.Sprintf("EXPR$%d", i)
		}
		if k := used[name]; k > 0 { // as Flink names them
			used[name]++
			name = fmt.Sprintf("%s%d", name, k-1)
		}
		used[name]++
		r.Columns = append(r.Columns, OutputColumn{Name: name, Type: n.typ, node: n})
		if n.op == opKey {
			r.Keys[n.index].Name = name
		}
	}
	if len(*b.errs) > before {
		return false
	}
	b.target(r, in)
	for i, col := range r.Columns {
		start := col.node.op == opBound && col.node.index == boundStart && col.Name == "window_start"
		end := col.node.op == opBound && col.node.index == boundEnd && col.Name == "window_end"
		if ReservedColumn(col.Name) && !start && !end {
			b.fail(syntax.At(q.Items[min(i, len(q.Items)-1)].Expr), otherAlias(syntax.Print(q.Items[min(i, len(q.Items)-1)].Expr)), "every alert already has a field named %s", col.Name)
		}
	}
	return len(*b.errs) == before
}

// otherAlias is the fix for a column whose name every alert has. A nested column can have the names of its path.
func otherAlias(expr string) string {
	if name := strings.ReplaceAll(expr, ".", "_"); name != expr && strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789_") == "" {
		return fmt.Sprintf("write %s AS %s", expr, name)
	}
	return "choose another alias"
}

// target gives the columns the names of the table that the rule writes to, if the script declares it.
func (b *builder) target(r *Rule, in *syntax.Insert) {
	sink, ok := b.sinks[in.Target.Text]
	if !ok || b.broken[in.Target.Text] {
		return
	}
	if len(in.Columns) > 0 {
		var named []Column
		for _, n := range in.Columns {
			i := slices.IndexFunc(sink, func(c Column) bool { return c.Name == n.Text })
			if i < 0 {
				b.fail(n.Pos, "", "table %s has no column %s", in.Target.Text, n.Text)
				return
			}
			named = append(named, sink[i])
		}
		sink = named
	}
	if len(sink) != len(r.Columns) {
		b.fail(in.Target.Pos, "", "table %s has %d columns, but the rule selects %d", in.Target.Text, len(sink), len(r.Columns))
		return
	}
	for i := range r.Columns {
		r.Columns[i].Name = sink[i].Name
		if n := r.Columns[i].node; n.op == opKey {
			r.Keys[n.index].Name = sink[i].Name
		}
	}
}
