package format

import (
	"context"
	"slices"

	"spate/shared/activity"
)

// change is where the fields of a change of a row lie, in a value that has the paths of all.
type change struct {
	after, before *layout // of the row after the change, and before it
	row           int     // whether there is a row after the change
	op, seen      int     // the kind of change, and when Debezium saw it
	own           int     // how many times the row itself may have; those behind are the change's
}

// newChanges returns the layout of changes as they are, and of those that have their schema beside them, below the member payload. They share paths, so
// one look at a value finds either.
func newChanges(f fields) (all *layout, plain, wrapped change) {
	all = &layout{}
	plain, wrapped = newChange(all, nil, f), newChange(all, []string{"payload"}, f)
	return all.done(), plain, wrapped
}

func newChange(all *layout, below []string, f fields) change {
	in := func(names ...string) []string { return slices.Concat(below, names) }
	at := func(to *[]source, format activity.TimeFormat, path []string) { all.at(to, format, path) }
	side := func(name string) *layout {
		l := &layout{}
		l.add(f, func(to *[]source, format activity.TimeFormat, path []string) {
			at(to, format, in(slices.Concat([]string{name}, path)...))
		})
		at(&l.times, activity.TimeMS, in("source", "ts_ms"))
		at(&l.times, activity.TimeMS, in("ts_ms"))
		return l
	}
	c := change{after: side("after"), before: side("before"), own: len(f.times)}
	var marks []source
	at(&marks, "", in("after"))
	at(&marks, "", in("op"))
	at(&marks, "", in("ts_ms"))
	c.row, c.op, c.seen = marks[0].path, marks[1].path, marks[2].path
	return c
}

// change reads a change of a row. The fields are those of the row after the change, or else before it. The time may be that of the change, in the
// database or when Debezium saw it.
func (r *Reader) change(ctx context.Context, data []byte) (activity.Mark, activity.Reason, error) {
	if len(data) == 0 {
		return activity.Mark{}, activity.ReasonTombstone, nil
	}
	if data[0] == magic {
		if reason, err := r.decode(ctx, r.changes, data); reason != activity.ReasonNone || err != nil {
			return activity.Mark{}, reason, err
		}
	} else if reason := r.find(r.changes, data); reason != activity.ReasonNone {
		return activity.Mark{}, reason, nil
	}
	c := &r.plainChange
	if !c.is(r.values) && r.wrappedChange.is(r.values) {
		c = &r.wrappedChange
	}
	mark, reason := c.judge(r)
	return mark, reason, nil
}

// is reports whether what was found is of Debezium.
func (c *change) is(values []value) bool {
	return !activity.Absent(values[c.op].token) || !activity.Absent(values[c.seen].token)
}

// judge says what a change of a row is.
func (c *change) judge(r *Reader) (activity.Mark, activity.Reason) {
	op := r.values[c.op].token
	l := c.after
	if activity.Absent(r.values[c.row].token) {
		l = c.before
	}
	r.columns.from = l
	mark, reason := l.choose(r.values, nil, &r.buf)
	switch {
	case activity.Absent(op) && c.is(r.values), string(op) == `"t"`, string(op) == `"m"`:
		return activity.Mark{}, activity.ReasonNoChange
	case string(op) == `"r"` && reason == activity.ReasonNone && !slices.ContainsFunc(l.times[:c.own], func(s source) bool { return !activity.Absent(r.values[s.path].token) }):
		return activity.Mark{}, activity.ReasonSnapshot // its time is only that of its change
	}
	return mark, reason
}
