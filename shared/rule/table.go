package rule

import (
	"fmt"
	"strings"

	"spate/shared/rule/syntax"
)

// Activity is the table that exists without CREATE TABLE: the events of the data set. Of other events, it has the user and the time.
func Activity() *Table {
	return &Table{Name: "activity", BuiltIn: true, LatenessMS: -1, Time: 9, Columns: []Column{
		{"event_time", Type{Kind: String}}, {"event_type", Type{Kind: String}}, {"product_id", Type{Kind: BigInt}}, {"category_id", Type{Kind: BigInt}},
		{"category_code", Type{Kind: String}}, {"brand", Type{Kind: String}}, {"price", Type{Kind: Double}}, {"user_id", Type{Kind: Token, NotNull: true}},
		{"user_session", Type{Kind: String}}, {"txn_timestamp", Type{Kind: Timestamp, NotNull: true}},
	}}
}

// tables resolves CREATE TABLE statements.
func (b *builder) tables(list []*syntax.Table) {
	b.sinks = map[string][]Column{}
	for _, st := range list {
		t := &Table{Name: st.Name.Text, Time: -1, LatenessMS: -1}
		before := len(*b.errs)
		c := checker{errs: b.errs, table: t, inputs: &inputs{}, clause: "CREATE TABLE"}
		ok := true
		for _, col := range st.Columns {
			if col.As != nil {
				b.fail(col.Name.Pos, "use the expression in the rule itself", "computed columns are not supported")
				ok = false
				continue
			}
			typ, valid := c.typ(col.Type)
			typ.NotNull = col.NotNull
			if t.column(col.Name.Text) >= 0 {
				b.fail(col.Name.Pos, "", "column %s is declared twice", col.Name.Text)
			}
			t.Columns = append(t.Columns, Column{col.Name.Text, typ})
			ok = ok && valid
		}
		for _, o := range st.Options {
			if o.Name == "topic" || o.Name == "stream" || o.Name == "stream.arn" {
				t.Topic = o.Value
			}
		}
		if _, twice := b.sinks[t.Name]; twice {
			b.fail(st.Name.Pos, "", "table %s is declared twice", t.Name)
		}
		b.sinks[t.Name] = t.Columns
		if st.Watermark != nil && ok {
			b.watermark(t, st.Watermark)
		}
		b.declared = append(b.declared, t)
		b.broken[t.Name] = len(*b.errs) > before
	}
}

// watermark reads WATERMARK FOR t AS t - INTERVAL '10' SECOND.
func (b *builder) watermark(t *Table, w *syntax.Watermark) {
	t.Time = t.column(w.Column.Text)
	if t.Time < 0 || t.Columns[t.Time].Type.Kind != Timestamp {
		b.fail(w.Column.Pos, "name a column of type TIMESTAMP(3)", "%s is not a time", w.Column.Text)
		t.Time = -1
		return
	}
	t.Columns[t.Time].Type.NotNull = true
	late := func(e syntax.Expr) bool {
		r, ok := e.(*syntax.Ref)
		return ok && len(r.Parts) == 1 && r.Parts[0].Text == w.Column.Text
	}
	if late(w.As) {
		t.LatenessMS = 0
		return
	}
	if e, ok := w.As.(*syntax.Binary); ok && e.Op == "-" && late(e.X) {
		if i, ok := e.Y.(*syntax.Interval); ok && i.MS >= 0 {
			t.LatenessMS = i.MS
			return
		}
	}
	b.fail(w.Pos, fmt.Sprintf("write WATERMARK FOR %s AS %s - INTERVAL '10' SECOND", w.Column.Text, w.Column.Text), "this watermark is not supported")
}

// table returns a table that a rule reads; nil if there is none, or it has errors.
func (b *builder) table(name syntax.Name) *Table {
	if b.broken[name.Text] {
		return nil
	}
	for _, t := range append(b.declared, b.options.Tables...) {
		if t.Name == name.Text {
			if t.Time < 0 {
				b.fail(name.Pos, "add WATERMARK FOR t AS t - INTERVAL '10' SECOND to its CREATE TABLE", "table %s has no event time", name.Text)
				return nil
			}
			return t
		}
	}
	fix := ""
	if n := len(b.declared); n > 0 {
		fix = b.declared[n-1].Name
	} else {
		for i, t := range b.options.Tables {
			if fix += t.Name; i < len(b.options.Tables)-1 {
				fix += " or "
			}
		}
	}
	fix = "write " + fix + ", or add a CREATE TABLE"
	for _, t := range append(b.declared, b.options.Tables...) {
		if strings.EqualFold(t.Name, name.Text) {
			fix = "write " + t.Name
		}
	}
	b.fail(name.Pos, fix, "unknown table %s", name.Text)
	return nil
}
