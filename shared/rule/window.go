package rule

import (
	"fmt"
	"slices"

	"spate/shared/rule/syntax"
)

// WindowKind is how windows are laid out.
type WindowKind string

// The kinds of windows.
const (
	Tumble   WindowKind = "TUMBLE"
	Hop      WindowKind = "HOP"
	Cumulate WindowKind = "CUMULATE"
	Session  WindowKind = "SESSION"
)

// MaxWindowMS is the longest window, and the longest gap of a session: after a restart, open windows are counted again from the log.
const MaxWindowMS = 3_600_000

// maxSteps bounds the windows that one event is in.
const maxSteps = 3600

// Window is the layout of a rule's windows, in milliseconds. The windows of Hop begin at multiples of Step, those of Cumulate at multiples of
// Size and end at each Step. For Session, Step is the gap. Offset moves all of them.
type Window struct {
	Kind               WindowKind
	Size, Step, Offset int64
	// From and Until bound the windows by their starts, for a rule that is in force for some time only ([History]); 0 means no bound.
	From, Until int64
}

// begins reports whether a window that begins at a time is one of the rule's.
func (w Window) begins(start int64) bool {
	return (w.From == 0 || start >= w.From) && (w.Until == 0 || start < w.Until)
}

// First returns the start of the first window that begins at a time or later. Sessions begin with an event.
func (w Window) First(at int64) (start int64, ok bool) {
	every := w.Step
	switch w.Kind {
	case Session:
		return 0, false
	case Tumble, Cumulate:
		every = w.Size
	}
	if every <= 0 {
		return 0, false
	}
	behind := (at - w.Offset) % every
	if behind < 0 {
		behind += every
	}
	if behind == 0 {
		return at, true
	}
	return at + every - behind, true
}

func (w Window) String() string {
	switch w.Kind {
	case Tumble:
		return fmt.Sprintf("TUMBLE %s", duration(w.Size))
	case Session:
		return fmt.Sprintf("SESSION %s", duration(w.Step))
	}
	return fmt.Sprintf("%s %s, %s", w.Kind, duration(w.Step), duration(w.Size))
}

func duration(ms int64) string {
	for _, u := range []struct {
		ms   int64
		name string
	}{{3_600_000, "h"}, {60_000, "min"}, {1000, "s"}} {
		if ms%u.ms == 0 {
			return fmt.Sprintf("%d %s", ms/u.ms, u.name)
		}
	}
	return fmt.Sprintf("%d ms", ms)
}

// function reads a window table function.
func (b *builder) function(t *Table, w *syntax.Window) Window {
	if w.Time.Text != t.Columns[t.Time].Name {
		b.fail(w.Time.Pos, "write DESCRIPTOR("+t.Columns[t.Time].Name+")", "%s is not the event time of %s", w.Time.Text, t.Name)
	}
	need := map[string]int{"HOP": 2, "CUMULATE": 2}[w.Function]
	if need == 0 {
		need = 1
	}
	if len(w.Intervals) < need {
		b.fail(w.Pos, "", "%s has too few intervals; it needs at least %d", w.Function, need)
		return Window{Kind: Tumble, Size: 1, Step: 1}
	}
	ms := func(i int) int64 { return w.Intervals[i].MS }
	out := Window{Kind: WindowKind(w.Function), Size: ms(need - 1), Step: ms(0)}
	if out.Kind == Session {
		out.Size = 0
	}
	if len(w.Intervals) > need {
		if out.Offset = ms(need); out.Offset <= -out.Size || out.Offset >= out.Size {
			b.fail(w.Intervals[need].Pos, "", "the offset must be shorter than the window")
		}
	}
	b.window(w.Pos, out, true)
	return out
}

// functionKeys returns the keys of a query over a window table function, without the columns of the window.
func (b *builder) functionKeys(q *syntax.Select, c checker) (keys []syntax.Expr) {
	var bounds [3]bool
	for _, e := range q.Group {
		if ref, ok := e.(*syntax.Ref); ok {
			if i, ok := windowColumns[ref.Parts[len(ref.Parts)-1].Text]; ok {
				bounds[i] = true
				continue
			}
		}
		keys = append(keys, e)
	}
	if !bounds[boundStart] || !bounds[boundEnd] {
		at := q.Pos
		if len(q.Group) > 0 {
			at = syntax.At(q.Group[0])
		}
		b.fail(at, "add them: GROUP BY window_start, window_end, …", "GROUP BY must have window_start and window_end")
	}
	if w := q.From.Window; w.Function == "SESSION" {
		var names []string
		for _, k := range keys {
			if ref, ok := k.(*syntax.Ref); ok {
				names = append(names, ref.Parts[len(ref.Parts)-1].Text)
			} else {
				names = append(names, "")
			}
		}
		var by []string
		for _, n := range w.Partition {
			by = append(by, n.Text)
		}
		slices.Sort(names)
		slices.Sort(by)
		if !slices.Equal(names, by) {
			b.fail(w.Pos, "write PARTITION BY with the GROUP BY columns", "the PARTITION BY and GROUP BY columns differ")
		}
	} else if len(w.Partition) > 0 {
		b.fail(w.Partition[0].Pos, "leave PARTITION BY out, and add the columns to GROUP BY", "%s does not take PARTITION BY", w.Function)
	}
	return keys
}

// groupWindow takes the window out of GROUP BY and returns the keys.
func (b *builder) groupWindow(r *Rule, q *syntax.Select, g *group) (keys []syntax.Expr) {
	for _, e := range q.Group {
		w, ok := e.(*syntax.Call)
		if !ok || groupWindows[w.Name] == 0 {
			keys = append(keys, e)
			continue
		}
		if g.window != nil {
			b.fail(w.Pos, "write two rules", "GROUP BY has two windows")
			continue
		}
		g.window = w
		r.Window = b.callWindow(r.Table, w)
	}
	if g.window == nil {
		at := q.Pos
		if len(q.Group) > 0 {
			at = syntax.At(q.Group[0])
		}
		b.fail(at, fmt.Sprintf("add TUMBLE(%s, INTERVAL '10' SECOND) to GROUP BY", r.Table.Columns[r.Table.Time].Name), "the rule has no window")
	}
	return keys
}

// callWindow reads TUMBLE(t, INTERVAL …) in GROUP BY.
func (b *builder) callWindow(t *Table, w *syntax.Call) Window {
	n := groupWindows[w.Name]
	out := Window{Kind: WindowKind(w.Name), Size: 1, Step: 1}
	if len(w.Args) != n+1 {
		b.fail(w.Pos, "", "%s needs the time and intervals; the number of intervals must be %d", w.Name, n)
		return out
	}
	ref, ok := w.Args[0].(*syntax.Ref)
	if !ok || ref.Parts[len(ref.Parts)-1].Text != t.Columns[t.Time].Name {
		b.fail(syntax.At(w.Args[0]), "write "+t.Columns[t.Time].Name, "the first argument of %s must be the event time of %s", w.Name, t.Name)
		return out
	}
	var ms []int64
	for _, a := range w.Args[1:] {
		i, ok := a.(*syntax.Interval)
		if !ok {
			b.fail(syntax.At(a), "write INTERVAL '10' SECOND", "expected an interval")
			return out
		}
		ms = append(ms, i.MS)
	}
	out.Step, out.Size = ms[0], ms[len(ms)-1]
	if out.Kind == Session {
		out.Size = 0
	}
	b.window(w.Pos, out, false)
	return out
}

// window checks the layout of windows.
func (b *builder) window(at syntax.Pos, w Window, function bool) {
	longest := max(w.Size, w.Step)
	switch {
	case w.Step < 1 || w.Kind != Session && w.Size < 1:
		b.fail(at, "", "a window must be longer than 0")
	case longest > MaxWindowMS:
		b.fail(at, "use a window of at most 1 h; a longer one needs Flink itself", "a window can be at most 1 h long, but this one is %s", duration(longest))
	case function && w.Kind != Session && w.Size%w.Step != 0:
		b.fail(at, "", "the size must be a multiple of the step, but %s is not a multiple of %s", duration(w.Size), duration(w.Step))
	case w.Kind != Session && w.Size/w.Step > maxSteps:
		b.fail(at, "use a longer step", "an event would be in %d windows; at most %d are allowed", w.Size/w.Step, maxSteps)
	case w.Kind != Session && w.Size/w.Slice() > maxSteps:
		b.fail(at, "choose a step that divides the size", "the windows would consist of %d slices of %s; at most %d are allowed", w.Size/w.Slice(), duration(w.Slice()), maxSteps)
	}
}
