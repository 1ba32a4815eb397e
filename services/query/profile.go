package query

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"spate/shared/rule"
)

// Profile shows what a rule finds as a whole: when, and how much with other limits.
type Profile struct {
	// Slots are counts of the windows in the result by when they began: equal spans of time, the oldest first, also those without any.
	Slots []Slot
	// Sweep is nil if HAVING demands no number to be exceeded, or if there are too many different values or keys, which Full reports.
	Sweep *Sweep
	Full  bool
}

// Slot is a span of time. Spans follow each other.
type Slot struct {
	Start   time.Time
	Windows int64
}

// Sweep is what a rule finds with other limits.
type Sweep struct {
	What   string // what is compared with the limit, such as COUNT(*)
	Op     string // > or >=
	Limit  float64
	Limits []Limit // ascending; the rule's own is one of them
}

// Limit is what is found with a limit.
type Limit struct {
	Value         float64
	Windows, Keys int64
}

const (
	maxSlots = 60
	// maxProfiled bounds each of what a profile is made from: times, values and keys.
	maxProfiled = 200_000
)

// profiler collects what a profile is made from.
type profiler struct {
	sweep  *rule.Sweep // nil: there is none
	step   int64       // milliseconds between the starts of windows
	starts map[int64]int64
	values map[float64]int64
	keys   map[string]float64 // the highest value
	full   bool
}

func newProfiler(r *rule.Rule) *profiler {
	p := &profiler{step: r.Window.Size, starts: map[int64]int64{}, values: map[float64]int64{}, keys: map[string]float64{}}
	if r.Window.Kind == rule.Hop {
		p.step = r.Window.Step
	}
	if s, ok := r.Sweep(); ok {
		p.sweep = &s
	}
	return p
}

// found counts a window of the result.
func (p *profiler) found(start int64) {
	if len(p.starts) < maxProfiled {
		p.starts[start]++
	}
}

// swept counts a window of a key, whether or not it is in the result.
func (p *profiler) swept(key string, value any) {
	v := math.NaN()
	switch x := value.(type) {
	case int64:
		v = float64(x)
	case float64:
		v = x
	case string: // a decimal
		if f, err := strconv.ParseFloat(x, 64); err == nil {
			v = f
		}
	}
	if math.IsNaN(v) {
		return
	}
	p.full = p.full || len(p.values) == maxProfiled || len(p.keys) == maxProfiled
	if p.full {
		return
	}
	p.values[v]++
	if old, ok := p.keys[key]; !ok || v > old {
		p.keys[key] = v
	}
}

// profile is that of what was counted.
func (p *profiler) profile() Profile {
	out := Profile{Slots: p.slots(), Full: p.full}
	if p.sweep == nil || p.full {
		return out
	}
	s := &Sweep{What: p.sweep.What, Op: p.sweep.Op, Limit: p.sweep.Limit}
	over := func(v, limit float64) bool { return v > limit || v == limit && s.Op == ">=" }
	for _, by := range []float64{0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100, 1000} {
		l := Limit{Value: s.Limit * by}
		if by != 1 {
			l.Value = p.round(l.Value)
		}
		if l.Value < s.Limit/2 { // what is below was not counted
			l.Value = s.Limit / 2
			if p.sweep.Whole {
				l.Value = math.Floor(l.Value)
			}
		}
		if n := len(s.Limits); n > 0 && s.Limits[n-1].Value >= l.Value {
			continue
		}
		for v, n := range p.values {
			if over(v, l.Value) {
				l.Windows += n
			}
		}
		for _, v := range p.keys {
			if over(v, l.Value) {
				l.Keys++
			}
		}
		if s.Limits = append(s.Limits, l); l.Windows == 0 && by >= 1 {
			break
		}
	}
	out.Sweep = s
	return out
}

// round makes a limit one that a person would write: whole if the rule's is, otherwise of three digits. A DECIMAL is compared as it is written, so 0.3 is 0.3.
func (p *profiler) round(v float64) float64 {
	if p.sweep.Whole {
		return math.Floor(v)
	}
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64)
	return v
}

func (p *profiler) slots() (out []Slot) {
	if len(p.starts) == 0 {
		return nil
	}
	starts := slices.SortedFunc(maps.Keys(p.starts), cmp.Compare)
	first, last := starts[0], starts[len(starts)-1]
	step := max(p.step, 1)
	step *= (last-first)/step/maxSlots + 1
	for at := first; at <= last; at += step {
		out = append(out, Slot{Start: time.UnixMilli(at).UTC()})
	}
	for start, n := range p.starts {
		out[(start-first)/step].Windows += n
	}
	return out
}
