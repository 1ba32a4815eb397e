package web

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"spate/services/explainer"
	"spate/services/query"
)

// Size of a chart, in units of its SVG.
const (
	chartWidth  = 640
	chartHeight = 120
)

// line draws values that were measured at the times of samples, the newest at the right edge. The line has a gap where the value is not known (NaN).
func line(label, unit string, samples []Sample, of func(Sample) float64) template.HTML {
	if !slices.ContainsFunc(samples, func(s Sample) bool { return !math.IsNaN(of(s)) }) {
		return ""
	}
	last := samples[len(samples)-1].At
	first := last.Add(-kept)
	top := 1.0
	for _, s := range samples {
		if v := of(s); !math.IsNaN(v) {
			top = max(top, v)
		}
	}
	top = nice(top)
	x := func(t time.Time) float64 { return chartWidth * float64(t.Sub(first)) / float64(kept) }
	y := func(v float64) float64 { return chartHeight - (chartHeight-6)*min(v/top, 1) }
	var path, area strings.Builder
	open, began := false, 0.0
	end := func(at float64) {
		if open {
			fmt.Fprintf(&area, "L%.1f %d L%.1f %d Z ", at, chartHeight, began, chartHeight)
		}
		open = false
	}
	at, now := 0.0, math.NaN()
	for _, s := range samples {
		v := of(s)
		now = v
		if math.IsNaN(v) {
			end(at)
			continue
		}
		at = x(s.At)
		move := "L"
		if !open {
			move, open, began = "M", true, at
		}
		fmt.Fprintf(&path, "%s%.1f %.1f ", move, at, y(v))
		fmt.Fprintf(&area, "%s%.1f %.1f ", move, at, y(v))
	}
	end(at)
	said := "not known"
	if !math.IsNaN(now) {
		said = figure(now) + " " + unit
	}
	return template.HTML(fmt.Sprintf(`<svg class="chart" viewBox="0 0 %d %d" role="img" aria-label="%s in the last 15 minutes: now %s, at most %s %s" preserveAspectRatio="none">`+
		`<line class="grid" x1="0" x2="%d" y1="6" y2="6"/><line class="grid" x1="0" x2="%d" y1="%d" y2="%d"/><path class="area" d="%s"/><path class="stroke" d="%s"/></svg>`+
		`<div class="scale"><span>%s</span><span>max. %s</span><span>%s</span></div>`,
		chartWidth, chartHeight, esc(label), esc(said), esc(figure(top)), esc(unit), chartWidth, chartWidth, chartHeight, chartHeight, area.String(), path.String(),
		first.Format("15:04"), esc(figure(top)), last.Format("15:04")))
}

// bars draws the windows of a key: a bar for each, the rule's limit as a line, and the windows from mark to until in another shade. The parts are those of one rule, by
// revision; each has its limit.
func bars(mark, until time.Time, parts ...*explainer.Windows) template.HTML {
	s, top := *parts[0], 1.0
	s.Windows = nil
	for _, p := range parts {
		s.From, s.Until, s.Windows = earlier(s.From, p.From), later(s.Until, p.Until), append(s.Windows, p.Windows...)
		top = max(top, p.Limit, most(p.Windows))
	}
	if len(s.Windows) == 0 || !s.Until.After(s.From) {
		return ""
	}
	top *= 1.05
	span := float64(s.Until.Sub(s.From))
	x := func(t time.Time) float64 { return chartWidth * float64(t.Sub(s.From)) / span }
	y := func(v float64) float64 { return chartHeight - chartHeight*v/top }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="chart bars" viewBox="0 0 %d %d" role="img" aria-label="%s per window: %d windows with events, at most %s" preserveAspectRatio="none">`,
		chartWidth, chartHeight, esc(s.What), len(s.Windows), esc(figure(most(s.Windows))))
	if mark.Before(until) {
		from, to := max(x(mark), 0), min(x(until), chartWidth)
		if to > from {
			fmt.Fprintf(&b, `<rect class="span" x="%.2f" y="0" width="%.2f" height="%d"/>`, from, to-from, chartHeight)
		}
	}
	for _, w := range s.Windows {
		class := "below"
		switch {
		case w.Critical:
			class = "critical"
		case w.Holds:
			class = "holds"
		}
		from, wide := x(w.Start), x(w.End)-x(w.Start)
		fmt.Fprintf(&b, `<rect class="%s" x="%.2f" y="%.1f" width="%.2f" height="%.1f"><title>%s to %s UTC: %s</title></rect>`,
			class, from+wide*0.06, y(w.Value), max(wide*0.88, 1), chartHeight-y(w.Value), w.Start.Format(clock), w.End.Format("15:04:05"), esc(figure(w.Value)))
	}
	limit := ""
	for _, p := range parts {
		if p.Limit <= 0 || len(p.Windows) == 0 {
			continue
		}
		from, to := 0.0, float64(chartWidth)
		if len(parts) > 1 {
			from, to = x(p.Windows[0].Start), x(p.Windows[len(p.Windows)-1].End)
		}
		fmt.Fprintf(&b, `<line class="limit" x1="%.2f" x2="%.2f" y1="%.1f" y2="%.1f"/>`, from, to, y(p.Limit), y(p.Limit))
		if limit == "" {
			limit = "dashed: the limit, "
		} else {
			limit += ", "
		}
		limit += figure(p.Limit)
		if len(parts) > 1 && p.Revision > 0 {
			limit += fmt.Sprintf(" (revision %d)", p.Revision)
		}
	}
	layout := clock
	if s.From.YearDay() == s.Until.YearDay() {
		layout = "15:04:05"
	}
	fmt.Fprintf(&b, `</svg><div class="scale"><span>%s</span><span>%s</span><span>%s</span></div>`, s.From.Format(layout), esc(limit), s.Until.Format(layout))
	return template.HTML(b.String())
}

// slots draws how many windows of a result began when.
func slots(list []query.Slot) template.HTML {
	step := list[1].Start.Sub(list[0].Start)
	w := explainer.Windows{What: "Windows in the result", From: list[0].Start, Until: list[len(list)-1].Start.Add(step)}
	for _, s := range list {
		w.Windows = append(w.Windows, explainer.Window{Start: s.Start, End: s.Start.Add(step), Value: float64(s.Windows), Holds: true})
	}
	return bars(time.Time{}, time.Time{}, &w)
}

// share draws a number as a part of the greatest one.
func share(n, of int64) template.HTML {
	return template.HTML(fmt.Sprintf(`<svg class="share" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect width="%.2f" height="10"/></svg>`, 100*float64(n)/float64(max(of, 1))))
}

const clock = "2006-01-02 15:04:05"

func most(list []explainer.Window) (top float64) {
	for _, w := range list {
		top = max(top, w.Value)
	}
	return top
}

// nice rounds up to a number that reads well on an axis.
func nice(v float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 1.5, 2, 3, 4, 5, 6, 8, 10} {
		if v <= m*p {
			return m * p
		}
	}
	return 10 * p
}

// figure writes a number for people: 12,034 and 0.25.
func figure(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return grouped(int64(v))
	}
	if math.Abs(v) >= 100 {
		return grouped(int64(math.Round(v)))
	}
	return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
}

// limit writes a number with all its digits.
func limit(v float64) string {
	if v == math.Trunc(v) {
		return figure(v)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

func esc(text string) string { return template.HTMLEscapeString(text) }
