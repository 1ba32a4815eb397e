package explainer

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"spate/shared/alert"
	"spate/shared/rule"
)

// Reason is why a key was flagged or not. The list is closed.
type Reason string

// The reasons.
const (
	Holds    Reason = "condition_holds" // flagged: HAVING holds
	Silenced Reason = "silenced"        // flagged, but a silence kept people from being notified
	Shadow   Reason = "shadow"          // flagged, but the rule is in shadow mode: nobody is notified

	NeverSeen  Reason = "never_seen"        // the log has no event of the key
	NotInForce Reason = "rule_not_in_force" // the rule did not apply to these windows
	Off        Reason = "rule_off"          // the rule's mode is off
	IsInvalid  Reason = "invalid"           // what the log has of the key are not events
	IsWaiting  Reason = "not_routed"        // events are in the log, and not counted yet
	StillOpen  Reason = "still_open"        // the window is not closed, and the condition does not hold yet
	IsLate     Reason = "late"              // with its late events, the condition would hold
	IsIdle     Reason = "closed_as_idle"    // the same, and the window was closed because a partition was silent
	Exempt     Reason = "exempt"            // a part of WHERE that is only about the key lets none of its events pass
	IsFiltered Reason = "filtered"          // without WHERE, the condition would hold
	Split      Reason = "split"             // in a window that began at another time, the condition would hold
	Below      Reason = "below_condition"   // the condition does not hold
	NotStored  Reason = "not_stored"        // the condition holds, and no alert is stored
)

// Reasons are all of them.
var Reasons = []Reason{Holds, Silenced, Shadow, NeverSeen, NotInForce, Off, IsInvalid, IsWaiting, StillOpen, IsLate, IsIdle, Exempt, IsFiltered, Split, Below, NotStored}

// Answer says what became of a key under a rule.
type Answer struct {
	Verdict string          `json:"verdict"` // flagged or not_flagged
	Reason  Reason          `json:"reason"`
	Text    string          `json:"text"` // the reason as a sentence
	Rule    RuleOf          `json:"rule"`
	Key     json.RawMessage `json:"key"`
	// From and Until are the time that was asked about, Start and End the window that the answer is about.
	From  *time.Time `json:"from,omitempty"`
	Until *time.Time `json:"until,omitempty"`
	Start time.Time  `json:"window_start,omitzero"`
	End   time.Time  `json:"window_end,omitzero"`
	// Alert is the alert, if there is one, and Alerts how many there are in the time that was asked about.
	Alert    string         `json:"alert,omitempty"`
	Alerts   int            `json:"alerts,omitempty"`
	Incident string         `json:"incident,omitempty"`
	Severity alert.Severity `json:"severity,omitempty"`
	Silence  string         `json:"silence,omitempty"`
	// Provisional reports that the alert is not closed: its window can get more events.
	Provisional bool `json:"provisional,omitempty"`

	Numbers Numbers `json:"numbers"`
	Events  []Event `json:"events"`
	More    int     `json:"events_more"` // that are not in Events

	Transitions []Transition `json:"transitions"`
	Notes       []string     `json:"notes,omitempty"`
	// Watermark is up to which event time windows are closed now.
	Watermark time.Time `json:"watermark,omitzero"`
	// Read is how many records of the log were read.
	Read int64 `json:"records_read"`

	group   *Group
	other   string       // where the condition would hold
	applies string       // when the windows begin that the rule applies to
	mine    map[int]bool // the key's events
	// others are invalid events that are of another key.
	others map[int]bool
	// missed are the events that were late for the window, lateBy by how much at most, and reasons why others are invalid.
	missed  int
	lateBy  int64
	reasons []string
}

// RuleOf is the rule of an answer.
type RuleOf struct {
	Name      string `json:"name"`
	Revision  int64  `json:"revision,omitempty"`
	Mode      string `json:"mode"`
	Window    string `json:"window"`
	Statement string `json:"statement"`
	Runbook   string `json:"runbook,omitempty"`
}

// Numbers are what the reference has counted.
type Numbers struct {
	Counted  int                  `json:"counted"`  // events that are in the window and pass WHERE
	Filtered int                  `json:"filtered"` // events in the window that WHERE does not let pass
	Late     int                  `json:"late"`     // events of the key that were late, in the time that was looked at
	Idle     int                  `json:"idle"`
	Invalid  int                  `json:"invalid"`
	Waiting  int                  `json:"waiting"`
	Repeated int                  `json:"repeated"`
	Where    []Part               `json:"where,omitempty"`
	Having   []Comparison         `json:"having,omitempty"`
	Critical bool                 `json:"critical"`
	Columns  json.RawMessage      `json:"columns,omitempty"`
	Recount  *bool                `json:"recount_agrees,omitempty"` // with the alert
	Differs  map[string][2]string `json:"recount_differs,omitempty"`
}

// Transition is a change of an alert.
type Transition struct {
	State alert.State `json:"state"`
	At    time.Time   `json:"at"`
}

func newAnswer(r Rule, f *Facts) *Answer {
	a := &Answer{
		Verdict: "not_flagged", Rule: RuleOf{Name: r.Name, Revision: r.Revision, Mode: string(r.Mode), Window: r.Window.String(), Statement: statement(r), Runbook: r.Runbook},
		Events: []Event{}, Transitions: []Transition{}, Watermark: f.Watermark, Read: f.Read, Notes: slices.Clone(f.Notes),
	}
	if f.Cut {
		a.Notes = append(a.Notes, fmt.Sprintf("only the first %d possible events for the key are taken into account, so the numbers are too low, and the reason may be wrong; ask about a shorter period", len(f.Events)))
	}
	return a
}

// statement is the rule's text. That of the rule without a file has an interval of any length.
func statement(r Rule) string {
	if r.BuiltIn {
		return strings.Replace(r.Text, "SECOND(10)", "SECOND", 1)
	}
	return r.Text
}

// tally counts what became of the key's events. Of a record that is not an event, it is not known whose it is: it contains the key's text.
func (a *Answer) tally(f *Facts, w evaluated) {
	a.mine, a.others = make(map[int]bool), w.others
	for _, g := range w.all {
		for _, list := range [][]int{g.Counted, g.Filtered} {
			for _, i := range list {
				a.mine[i] = true
			}
		}
	}
	for i, e := range f.Events {
		switch {
		case a.others[i]:
		case e.Fate == Invalid:
			a.Numbers.Invalid++
		case e.Fate == Repeated:
			a.mine[i] = true
			a.Numbers.Repeated++
		case !a.mine[i]:
		case e.Fate == Late:
			a.Numbers.Late++
		case e.Fate == Idle:
			a.Numbers.Idle++
		case e.Fate == Waiting:
			a.Numbers.Waiting++
		}
	}
}

// flagged takes over an alert.
func (a *Answer) flagged(s *Stored) {
	a.Verdict, a.Reason, a.Alert, a.Incident, a.Silence, a.Severity = "flagged", Holds, s.ID, s.Incident, s.Silenced, s.Severity
	a.Provisional = s.State != alert.Closed
	switch {
	case s.Mode == alert.Shadow:
		a.Reason = Shadow
	case s.Silenced != "":
		a.Reason = Silenced
	}
	if a.Key = s.Key; a.Key == nil {
		a.Key, _ = alert.Join([]byte("{}"), map[string]json.RawMessage{"user_id": s.UserID})
	}
	a.Start, a.End, a.Alerts = s.WindowStart, s.WindowEnd, max(a.Alerts, 1)
	if a.Rule.Revision == 0 {
		a.Rule.Revision = s.RuleRevision
	}
	a.Transitions = append(a.Transitions, Transition{alert.Opened, s.OpenedAt})
	if s.State == alert.Closed {
		a.Transitions = append(a.Transitions, Transition{alert.Closed, s.ClosedAt})
	}
}

// numbers takes over what the reference has counted.
func (a *Answer) numbers(g Group) {
	a.group = &g
	a.Start, a.End = time.UnixMilli(g.Start).UTC(), time.UnixMilli(g.End).UTC()
	n := &a.Numbers
	n.Counted, n.Filtered, n.Where, n.Having, n.Critical, n.Columns = len(g.Counted), len(g.Filtered), g.Where, g.Having, g.Critical && g.Holds, g.Columns
}

// events lists those of a window, and those that were late for it.
func (a *Answer) events(f *Facts, g Group, most int) {
	a.missed, a.lateBy, a.reasons = 0, 0, nil
	in := make(map[int]Fate, len(g.Counted)+len(g.Filtered))
	for _, i := range g.Counted {
		in[i] = f.Events[i].Fate
		if in[i] == Late || in[i] == Idle { // for another rule
			in[i] = Counted
		}
	}
	for _, i := range g.Filtered {
		in[i] = Filtered
	}
	for i, e := range f.Events {
		fate, ok := in[i]
		ms := e.At.UnixMilli()
		if a.others[i] || !ok && e.Fate != Invalid && (!a.mine[i] || e.Fate == Counted || ms < g.Start || ms >= g.End) {
			continue
		}
		if ok {
			e.Fate = fate
		}
		switch {
		case e.Fate == Late, e.Fate == Idle:
			a.missed, a.lateBy = a.missed+1, max(a.lateBy, e.LateByMS)
		case e.Fate == Invalid && !slices.Contains(a.reasons, e.Reason):
			a.reasons = append(a.reasons, e.Reason)
		}
		if len(a.Events) >= most {
			a.More++
			continue
		}
		a.Events = append(a.Events, e.written())
	}
}

// listed lists the events of a window that is none of the rule's.
func (a *Answer) listed(f *Facts, g Group, most int) {
	for _, i := range g.Counted {
		if len(a.Events) >= most {
			a.More++
			continue
		}
		a.Events = append(a.Events, f.Events[i].written())
	}
}

// recount compares an alert with what the reference has counted.
func (a *Answer) recount(s *Stored, found bool) {
	if !found {
		return
	}
	differs := map[string][2]string{}
	if n := int64(a.Numbers.Counted); s.State == alert.Closed && n != s.Count || n < s.Count {
		differs["events"] = [2]string{fmt.Sprint(s.Count), fmt.Sprint(n)}
	}
	if s.State == alert.Closed && s.Columns != nil && !s.AtLeast {
		var want, got map[string]json.RawMessage
		if json.Unmarshal(s.Columns, &want) == nil && json.Unmarshal(a.Numbers.Columns, &got) == nil {
			for name, v := range want {
				if g, ok := got[name]; ok && string(g) != string(v) {
					differs[name] = [2]string{string(v), string(g)}
				}
			}
		}
	}
	agrees := len(differs) == 0
	if agrees && a.Provisional { // the alert has the numbers at which it opened
		return
	}
	a.Numbers.Recount = &agrees
	if !agrees {
		a.Numbers.Differs = differs
	}
}

// applies says which windows the rule is in force for.
func (r Rule) applies() string {
	var parts []string
	if from := r.Window.From; from != 0 {
		parts = append(parts, "at "+time.UnixMilli(from).UTC().Format(instant)+" or later")
	}
	if until := r.Window.Until; until != 0 {
		parts = append(parts, "before "+time.UnixMilli(until).UTC().Format(instant))
	}
	return strings.Join(parts, " and ")
}

// judge finds the reason for the missing alert.
func (x *Explainer) judge(ctx context.Context, a *Answer, q Question, r RuleKey, f *Facts, w evaluated, best *Group, wide *Facts) error {
	open := func(g *Group) bool { return a.open(time.UnixMilli(g.End)) }
	switch {
	case best == nil && a.Numbers.Invalid > 0:
		a.Reason = IsInvalid
		a.events(f, Group{}, x.Most)
	case best == nil:
		a.Reason = NeverSeen
	case !r.begins(best.Start):
		a.Reason, a.applies = NotInForce, r.applies()
		a.Numbers.Having, a.Numbers.Where = nil, nil // the rule was not evaluated
	case best.Holds && a.Numbers.Waiting > 0 && open(best):
		a.Reason = IsWaiting
	case best.Holds && open(best):
		a.Reason = StillOpen // such a condition is known to hold at the window's end only
		if early, _ := r.Early(); early && x.Alerts == nil {
			a.Notes = append(a.Notes, "the rule opens alerts early, so there is probably an alert already; only the database shows whether there is one")
		} else if x.Alerts != nil && len(w.counted) > 0 {
			a.Notes = append(a.Notes, "the condition holds so far; if it can still become false (as a condition with = 0 can), the alert opens when the window closes")
		}
	case best.Holds && slices.ContainsFunc(w.counted, func(g Group) bool { return g.Start == best.Start && g.End == best.End && g.Holds }):
		a.Verdict, a.Reason = "flagged", Holds
		if x.Alerts != nil {
			a.Verdict, a.Reason = "not_flagged", NotStored
			if r.Window.Kind != rule.Tumble {
				a.Notes = append(a.Notes, "an event that arrived after some, but not all, of its windows had closed is not in the late topic, so it is treated as counted in all of them; without such events, the condition might not hold")
			}
		}
	default:
		if late := closest(w.all, func(g Group) bool { return q.asked(g) && r.begins(g.Start) && g.Holds }); late != nil && w.late {
			a.Reason = IsLate
			if a.Numbers.Idle > 0 && a.Numbers.Late == 0 {
				a.Reason = IsIdle
			}
			if best = find(w.counted, late.Start, late.End); best == nil {
				best = &Group{Start: late.Start, End: late.End}
			}
			a.numbers(*best)
			a.Events, a.More = []Event{}, 0
			a.events(f, *best, x.Most)
			return nil
		}
		if part := exempts(r.Rule, best); part {
			a.Reason = Exempt
			return nil
		}
		if g := closest(w.counted, func(g Group) bool { return q.asked(g) && r.begins(g.Start) && g.Unfiltered && !g.Holds }); g != nil && len(g.Filtered) > 0 {
			a.Reason = IsFiltered
			a.numbers(*g)
			a.Events, a.More = []Event{}, 0
			a.events(f, *g, x.Most)
			return nil
		}
		split, err := x.split(ctx, a, r, best, wide)
		switch {
		case err != nil:
			return err
		case split:
			a.Reason = Split
		case open(best):
			a.Reason = StillOpen
		default:
			a.Reason = Below
		}
	}
	return nil
}

func find(list []Group, start, end int64) *Group {
	for i := range list {
		if list[i].Start == start && list[i].End == end {
			return &list[i]
		}
	}
	return nil
}

// exempts reports whether a part of WHERE that names only columns of the key lets no event of it pass.
func exempts(r Rule, g *Group) bool {
	return len(g.Counted) == 0 && slices.ContainsFunc(g.Where, func(p Part) bool {
		return p.Filtered == int64(len(g.Filtered)) && len(p.Columns) > 0 && !slices.ContainsFunc(p.Columns, func(c string) bool {
			return !slices.ContainsFunc(r.Keys, func(k rule.Key) bool { return k.Name == c })
		})
	})
}

// maxMoves is how many other beginnings of a window are tried, and maxRows how many events the windows of all of them have together, those in several windows several times.
const maxMoves, maxRows = 40, 4_000_000

// split reports whether the condition would hold in a window that began at one of the events.
func (x *Explainer) split(ctx context.Context, a *Answer, r RuleKey, best *Group, wide *Facts) (bool, error) {
	if r.Window.Kind == rule.Cumulate || len(best.Counted) == 0 {
		return false, nil
	}
	size, step := r.Window.Size, max(r.Window.Step, 1)
	if r.Window.Step == 0 {
		step = size
	}
	f := wide.between(time.UnixMilli(best.Start-size), time.UnixMilli(best.End+size))
	if _, err := x.windows(ctx, r, f); err != nil { // it finds what was sent again
		return false, err
	}
	tried := map[int64]bool{0: true}
	moves := min(maxMoves, int(maxRows/(1+int64(len(f.Events))*max(size/step, 1))))
	for _, e := range f.Events {
		ms := e.At.UnixMilli()
		if e.Fate != Counted || ms < best.Start-size || ms >= best.End {
			continue
		}
		move := -mod(ms-r.Window.Offset, step)
		if tried[move] || len(tried) > moves {
			continue
		}
		tried[move] = true
		list, err := x.evaluate(ctx, r, f, move, true)
		if err != nil {
			return false, err
		}
		for _, g := range list {
			start := time.UnixMilli(g.Start - move).UTC()
			if end := time.UnixMilli(g.End - move).UTC(); g.Holds && start.Before(time.UnixMilli(best.End)) && end.After(time.UnixMilli(best.Start)) {
				a.other = fmt.Sprintf("From %s to %s, the condition would hold: %s", start.Format(instant), end.Format(instant), comparisons(g.Having))
				a.Events, a.More = []Event{}, 0
				a.listed(f, g, x.Most)
				return true, nil
			}
		}
	}
	return false, nil
}

const instant = "2006-01-02 15:04:05.000"

// comparisons says what HAVING compares: "COUNT(*) > 5 (it is 7)".
func comparisons(list []Comparison) string {
	out := make([]string, 0, len(list))
	for _, c := range list {
		text := c.Text
		if c.Left != nil {
			text += " (it is " + string(c.Left) + ")"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// done writes the sentence.
func (a *Answer) done() *Answer {
	window := fmt.Sprintf("the window from %s to %s UTC", a.Start.Format(instant), a.End.Format(instant))
	short := comparisons(slices.DeleteFunc(slices.Clone(a.Numbers.Having), func(c Comparison) bool { return c.Holds }))
	so := comparisons(a.Numbers.Having)
	switch {
	case so != "":
	case a.Numbers.Counted > 0:
		so = "the rule has no HAVING, and an event passes WHERE"
	case a.Numbers.Filtered > 0:
		so = "no event passes WHERE"
	default:
		so = "no event counts"
	}
	switch a.Reason {
	case Holds, Shadow, Silenced:
		a.Text = fmt.Sprintf("In %s, the condition holds: %s.", window, so)
		switch {
		case a.group == nil:
			a.Text = fmt.Sprintf("In %s, the condition held.", window)
		case a.Provisional && a.open(a.End):
			a.Text = fmt.Sprintf("In %s, which is still open, the condition holds so far: %s.%s%s", window, so, a.waits(), a.closes())
		case a.Provisional:
			a.Text += " The alert is not closed yet: the detector or the alerter is behind or is not running."
		}
		switch a.Reason {
		case Shadow:
			a.Text += " The rule is in shadow mode, so no one is notified."
		case Silenced:
			a.Text += " The incident is silenced (" + a.Silence + "), so no one was notified."
		}
	case NeverSeen:
		a.Text = "The log has no event for this key in this period. Check that the key is spelled as in the events, or ask about another period."
		if a.From != nil {
			a.Text = strings.Replace(a.Text, "in this period.", fmt.Sprintf("from %s to %s UTC.", a.From.Format(instant), a.Until.Format(instant)), 1)
		}
	case NotInForce:
		a.Text = fmt.Sprintf("The rule was not in force for %s. It applies to windows that begin %s.", window, a.applies)
	case Off:
		a.Text = "The rule is off."
	case IsInvalid:
		a.Text = fmt.Sprintf("The log has no valid event for this key, but it has %s (%s).", number(a.Numbers.Invalid, "invalid record that mentions it", "invalid records that mention it"), strings.Join(a.reasons, ", "))
	case IsWaiting:
		a.Text = fmt.Sprintf("In %s, the condition holds with %d events that are in the log but not counted yet: the router is behind or is not running.", window, a.Numbers.Waiting)
	case StillOpen:
		holds := ""
		if a.group != nil && a.group.Holds {
			holds = ", and the condition holds so far"
		}
		a.Text = fmt.Sprintf("%s is still open%s: %s.%s", strings.ToUpper(window[:1])+window[1:], holds, so, a.closes())
	case IsLate:
		a.Text = fmt.Sprintf("In %s, the condition would hold with %s late by up to %d ms. Without these events: %s.", window, number(a.missed, "event that was", "events that were"), a.lateBy, so)
	case IsIdle:
		a.Text = fmt.Sprintf("In %s, the condition would hold with %s after the window had closed because their partition was silent. Without these events: %s.", window, number(a.missed, "event that arrived", "events that arrived"), so)
	case Exempt:
		a.Text = fmt.Sprintf("The rule exempts this key: WHERE excludes all its events (%s).", filters(a.Numbers.Where))
	case IsFiltered:
		a.Text = fmt.Sprintf("In %s, WHERE excludes %d of %d events (%s). With these events, the condition would hold.", window, a.Numbers.Filtered, a.Numbers.Filtered+a.Numbers.Counted, filters(a.Numbers.Where))
	case Split:
		a.Text = fmt.Sprintf("The events are split between windows. In %s, which comes closest, the condition does not hold: %s. %s. No window of the rule begins then.", window, short, a.other)
	case Below:
		a.Text = fmt.Sprintf("In %s, which comes closest, the condition does not hold: %s.", window, short)
		switch {
		case a.Numbers.Counted == 0 && a.Numbers.Filtered == 0:
			a.Text = fmt.Sprintf("In %s, no event counts: %d arrived late, but would not have been enough.", window, a.missed)
		case a.Numbers.Counted == 0:
			a.Text = fmt.Sprintf("In %s, WHERE excludes all %d events (%s).", window, a.Numbers.Filtered, filters(a.Numbers.Where))
		}
	case NotStored:
		a.Text = fmt.Sprintf("In %s, the condition holds (%s), but the database has no alert for it: the detector or the alerter may be behind, or this may be a different database.", window, so)
	}
	return a
}

// open reports whether a window that ends then is open, as far as is known.
func (a *Answer) open(end time.Time) bool {
	return a.Watermark.IsZero() || a.Watermark.UnixMilli() < end.UnixMilli()-1
}

// waits says what is in the numbers, but is not counted yet.
func (a *Answer) waits() string {
	if a.Numbers.Waiting == 0 {
		return ""
	}
	return fmt.Sprintf(" This includes %s in the log but not counted yet: the router is behind or is not running.", number(a.Numbers.Waiting, "event that is", "events that are"))
}

// closes says when the window closes.
func (a *Answer) closes() string {
	if a.Watermark.IsZero() {
		return ""
	}
	return fmt.Sprintf(" The window closes when event time, now at %s, reaches the end of the window.", a.Watermark.Format(instant))
}

func number(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// filters says how many events each part of WHERE excludes.
func filters(list []Part) string {
	var out []string
	for _, p := range list {
		if p.Filtered > 0 {
			out = append(out, number(int(p.Filtered), "does not satisfy ", "do not satisfy ")+p.Text)
		}
	}
	return strings.Join(out, ", ")
}
