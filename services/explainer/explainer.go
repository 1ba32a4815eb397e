package explainer

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"spate/shared/alert"
	"spate/shared/rule"
)

// Group is a window and key of a rule as the reference evaluates it.
type Group struct {
	Start, End        int64 // epoch milliseconds
	Keys              []json.RawMessage
	Where             []Part
	Having            []Comparison
	Holds, Critical   bool
	Unfiltered        bool // HAVING would hold without WHERE
	Columns           json.RawMessage
	Counted, Filtered []int // indexes of events
}

// Part is a part of WHERE that AND joins with others.
type Part struct {
	Text     string   `json:"text"`
	Columns  []string `json:"-"`
	Filtered int64    `json:"filtered"` // events for which it is not TRUE
}

// Comparison is a comparison in HAVING, and what it compares.
type Comparison struct {
	Text  string          `json:"text"`
	Left  json.RawMessage `json:"left,omitempty"`
	Op    string          `json:"op,omitempty"`
	Right json.RawMessage `json:"right,omitempty"`
	Holds bool            `json:"holds"`
}

// Input is an event for the reference. Windows that end at Closed or before, and one millisecond later, are closed for it; 0 closes none.
type Input struct {
	MS, Closed int64
	Text       []byte
	User       []byte
}

// Reference evaluates a rule of a file without the engine, and returns every window and key with an event.
type Reference func(ctx context.Context, r Rule, events iter.Seq[Input]) ([]Group, error)

// Rule is a rule in a revision.
type Rule struct {
	*rule.Rule
	Revision int64
	// Source and Set are the rules file and the values of its parameters. BuiltIn says that it is the rule of a pipeline without a rules file, whose key is the user
	// as the events have it.
	Source  string
	Set     map[string]string
	BuiltIn bool
	Others  []*rule.Rule // in force at the same time, this one included
}

// Log is where the events are.
type Log interface {
	// Of returns the events of a window that an alert names as its evidence.
	Of(ctx context.Context, ev alert.Evidence, from, until time.Time, a about) (*Facts, error)
	// Between returns the events of a time.
	Between(ctx context.Context, from, until time.Time, a about) (*Facts, error)
}

// Explainer explains verdicts.
type Explainer struct {
	Log       Log
	Reference Reference
	// Alerts returns the stored alerts of a rule and key whose incidents overlap a time. It is nil without a database.
	Alerts func(ctx context.Context, rule string, key json.RawMessage, from, until time.Time) ([]Stored, error)
	// Most is how many events an answer lists.
	Most int
}

// Stored is what a database has of an alert.
type Stored struct {
	alert.Record
	Incident string
	OpenedAt time.Time
	ClosedAt time.Time
	Silenced string // the silence that its incident began under
}

// RuleKey is a rule and the values of its key, in the order of its columns.
type RuleKey struct {
	Rule
	Key []json.RawMessage
}

// OfAlert explains an alert: its events are read from the evidence, and evaluated again. The evidence of an alert whose window was not closed ends where it opened, so the
// log is read on from there, if the log can be.
func (x *Explainer) OfAlert(ctx context.Context, s Stored, of Rule) (*Answer, error) {
	r := RuleKey{of, keyValues(of, s.Record)}
	f, err := (*Facts)(nil), ErrAlertsOnly
	if s.State != alert.Closed {
		f, err = x.Log.Between(ctx, s.WindowStart, s.WindowEnd, r.about())
	}
	if errors.Is(err, ErrAlertsOnly) {
		f, err = x.Log.Of(ctx, s.Evidence, s.WindowStart, s.WindowEnd, r.about())
		if err == nil && s.State != alert.Closed {
			f.Notes = append(f.Notes, "the numbers are from when the alert opened or became critical, so they exclude later events")
		}
	}
	if err != nil {
		return nil, err
	}
	w, err := x.windows(ctx, r, f)
	if err != nil {
		return nil, err
	}
	a := newAnswer(of, f)
	a.tally(f, w)
	a.flagged(&s)
	g := find(w.counted, s.WindowStart.UnixMilli(), s.WindowEnd.UnixMilli())
	if g == nil {
		a.Notes = append(a.Notes, "the log has no event for this key in this window between the positions in the alert's evidence")
	} else {
		a.numbers(*g)
		a.events(f, *g, x.Most)
	}
	a.recount(&s, g != nil && !f.Cut && !f.Missing)
	return a.done(), nil
}

// Question asks about a time.
type Question struct{ From, Until time.Time }

// asked reports whether a window overlaps the time.
func (q Question) asked(g Group) bool {
	return g.Start < q.Until.UnixMilli() && g.End > q.From.UnixMilli()
}

// OfKey explains what each of the rules made of a key in the windows that overlap a time. If there are several, the answer is about an alert, or the window that comes
// closest to one. The rules have the same columns as their key.
func (x *Explainer) OfKey(ctx context.Context, q Question, rules ...RuleKey) (list []*Answer, err error) {
	var notes []string
	var rest []RuleKey // without an alert
	for _, r := range rules {
		a, err := x.ofAlerts(ctx, q, r)
		if cerr := ctx.Err(); cerr != nil {
			return nil, cerr
		}
		switch {
		case err != nil:
			notes = append(notes, fmt.Sprintf("the answer uses only the log: %v", err))
			x.Alerts = nil
		case a != nil:
			list = append(list, a)
			continue
		}
		rest = append(rest, r)
	}
	// 42 can be a number and a text: if one of them has an alert, the other is not meant.
	rest = slices.DeleteFunc(rest, func(r RuleKey) bool {
		return slices.ContainsFunc(list, func(a *Answer) bool { return a.Rule.Name == r.Name })
	})
	if len(rest) == 0 {
		return list, nil
	}
	from, until, about := part(q, rest)
	var size time.Duration
	for _, r := range rest {
		size = max(size, time.Duration(r.Window.Size)*time.Millisecond)
	}
	// With the windows that overlap those: in one of them, the events may not be split.
	wide, err := x.Log.Between(ctx, from.Add(-size), until.Add(size), about)
	if err != nil {
		return nil, err
	}
	wide.Notes = append(wide.Notes, notes...)
	f := wide.between(from, until)
	for _, r := range rest {
		a, err := x.ofKey(ctx, q, r, f, wide)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

// part is what of the log is read to answer for all of some rules at once.
func part(q Question, rules []RuleKey) (from, until time.Time, a about) {
	first, last := rules[0].around(q)
	a = rules[0].about()
	for _, r := range rules[1:] {
		lo, hi := r.around(q)
		first, last = min(first, lo), max(last, hi)
		other := r.about() // the same column can have another type or be an expression
		a.texts = slices.DeleteFunc(a.texts, func(t []byte) bool {
			return !slices.ContainsFunc(other.texts, func(o []byte) bool { return bytes.Equal(t, o) })
		})
	}
	return time.UnixMilli(first).UTC(), time.UnixMilli(last).UTC(), a
}

// ofAlerts explains the most severe alert that is stored of a key in a time; nil if there is none.
func (x *Explainer) ofAlerts(ctx context.Context, q Question, r RuleKey) (*Answer, error) {
	if x.Alerts == nil || r.Mode == rule.Off {
		return nil, nil
	}
	list, err := x.Alerts(ctx, r.Name, r.object(), q.From, q.Until)
	if err != nil {
		return nil, err
	}
	var worst *Stored
	n := 0
	for i, s := range list {
		start := s.WindowStart.UnixMilli()
		if !q.asked(Group{Start: start, End: s.WindowEnd.UnixMilli()}) || !r.begins(start) { // those of another revision are explained by its rule
			continue
		}
		if n++; worst == nil || severer(&list[i], worst) {
			worst = &list[i]
		}
	}
	if worst == nil {
		return nil, nil
	}
	a, err := x.OfAlert(ctx, *worst, r.Rule)
	if err != nil {
		return nil, err
	}
	a.Alerts, a.From, a.Until = n, &q.From, &q.Until
	return a, nil
}

func (x *Explainer) ofKey(ctx context.Context, q Question, r RuleKey, f, wide *Facts) (*Answer, error) {
	a := newAnswer(r.Rule, f)
	a.Key, a.From, a.Until = r.object(), &q.From, &q.Until
	if r.Mode == rule.Off {
		a.Reason = Off
		return a.done(), nil
	}
	w, err := x.windows(ctx, r, f)
	if err != nil {
		return nil, err
	}
	a.tally(f, w)
	inForce := func(g Group) bool { return q.asked(g) && r.begins(g.Start) }
	best := cmp.Or(closest(w.counted, inForce), closest(w.all, inForce), closest(w.counted, q.asked), closest(w.all, q.asked))
	if best != nil {
		if find(w.counted, best.Start, best.End) == nil { // it has events that were late only
			best = &Group{Start: best.Start, End: best.End, Keys: best.Keys}
		}
		a.numbers(*best)
		a.events(f, *best, x.Most)
	}
	if err := x.judge(ctx, a, q, r, f, w, best, wide); err != nil {
		return nil, err
	}
	return a.done(), nil
}

// around returns when the first window begins that overlaps the time, and when the last one ends, in milliseconds.
func (r Rule) around(q Question) (from, until int64) {
	size, step := r.Window.Size, r.Window.Step
	if step == 0 || r.Window.Kind == rule.Cumulate {
		step = size
	}
	floor := func(ms int64) int64 { return ms - mod(ms-r.Window.Offset, step) }
	return floor(q.From.UnixMilli()-size) + step, floor(q.Until.UnixMilli()-1) + size
}

// begins reports whether the rule is in force for a window that begins then.
func (r Rule) begins(start int64) bool {
	return (r.Window.From == 0 || start >= r.Window.From) && (r.Window.Until == 0 || start < r.Window.Until)
}

// severer reports whether an alert is critical and the other is not, or else has more events.
func severer(a, b *Stored) bool {
	if critical := a.Severity == alert.Critical; critical != (b.Severity == alert.Critical) {
		return critical
	}
	return a.Count > b.Count
}

// maxReference is in how many windows all events together may be: SQLite takes some ten seconds for each million.
const maxReference = 10_000_000

// evaluated are the windows of a key: as they were counted, and as they would be if no event had been late.
type evaluated struct {
	counted, all []Group
	late         bool // they differ
	// others are events with a time too far ahead that are of another key.
	others map[int]bool
}

// windows has the rule evaluated over the events, and returns the groups of the key.
func (x *Explainer) windows(ctx context.Context, r RuleKey, f *Facts) (w evaluated, err error) {
	if step := cmp.Or(r.Window.Step, r.Window.Size); step > 0 && int64(len(f.Events))*(r.Window.Size/step) > maxReference {
		return w, fmt.Errorf("rule %s: each of %d events is in %d windows, which is more than the reference can evaluate; ask about another rule", r.Name, len(f.Events), r.Window.Size/step)
	}
	for i := range f.Events {
		e := &f.Events[i]
		if e.Fate == Repeated { // for another rule
			e.Fate = Counted
		}
		w.late = w.late || e.Fate == Late || e.Fate == Idle
	}
	if w.others, err = x.others(ctx, r, f); err != nil {
		return w, err
	}
	if w.counted, err = x.evaluate(ctx, r, f, 0, true); err == nil && r.repeat(f, w.counted) {
		w.counted, err = x.evaluate(ctx, r, f, 0, true)
	}
	if err != nil || !w.late {
		w.all = w.counted
		return w, err
	}
	w.all, err = x.evaluate(ctx, r, f, 0, false)
	return w, err
}

// repeat finds the events that would count if none before them had the same id: of the key, in the same slice, and with WHERE letting both pass. It reports whether there are any.
func (r RuleKey) repeat(f *Facts, list []Group) (found bool) {
	var counted []int
	for _, g := range list {
		for _, i := range g.Counted {
			if f.Events[i].id != "" && f.Events[i].Fate == Counted {
				counted = append(counted, i)
			}
		}
	}
	slices.SortFunc(counted, func(a, b int) int { return f.Events[a].Place.Compare(f.Events[b].Place) })
	seen := make(map[string]bool)
	for _, i := range slices.Compact(counted) { // an event is in several windows
		e := &f.Events[i]
		ms := e.At.UnixMilli()
		once := fmt.Sprintf("%s\x00%d", e.id, ms-mod(ms-r.Window.Offset, r.Window.Slice()))
		if seen[once] {
			e.Fate, found = Repeated, true
		}
		seen[once] = true
	}
	return found
}

// others finds the events that are invalid only because their time is too far ahead, and of another key.
func (x *Explainer) others(ctx context.Context, r RuleKey, f *Facts) (map[int]bool, error) {
	others := make(map[int]bool)
	ahead := &Facts{}
	var index []int
	for i, e := range f.Events {
		if e.Fate == Invalid && !e.At.IsZero() {
			others[i] = true
			e.Fate = Counted
			ahead.Events, index = append(ahead.Events, e), append(index, i)
		}
	}
	if len(index) == 0 {
		return nil, nil
	}
	list, err := x.evaluate(ctx, r, ahead, 0, true)
	for _, g := range list {
		for _, i := range slices.Concat(g.Counted, g.Filtered) {
			delete(others, index[i])
		}
	}
	return others, err
}

// evaluate evaluates the rule, with all times moved. With lateness, windows that were closed for an event do not have it.
func (x *Explainer) evaluate(ctx context.Context, r RuleKey, f *Facts, move int64, lateness bool) ([]Group, error) {
	var index []int
	list, err := x.Reference(ctx, r.Rule, func(yield func(Input) bool) {
		index = index[:0]
		for i, e := range f.Events {
			in := Input{MS: e.At.UnixMilli() + move, Text: e.fields, User: e.user}
			switch e.Fate {
			case Invalid, Repeated:
				continue
			}
			if !r.isUser(e.user) {
				continue
			}
			switch e.Fate {
			case Late, Idle:
				if lateness {
					in.Closed = r.closedFor(e)
				}
			}
			if index = append(index, i); !yield(in) {
				return
			}
		}
	})
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(g Group) bool { return !r.sameKey(g.Keys) })
	for i := range list {
		for _, l := range []*[]int{&list[i].Counted, &list[i].Filtered} {
			for j, n := range *l {
				(*l)[j] = index[n]
			}
		}
	}
	return list, nil
}

// lastWindow returns the last window that an instant is in.
func (r Rule) lastWindow(ms int64) (start, end int64) {
	step := cmp.Or(r.Window.Step, r.Window.Size)
	if r.Window.Kind == rule.Cumulate {
		step = r.Window.Size
	}
	start = ms - mod(ms-r.Window.Offset, step)
	return start, start + r.Window.Size
}

// closedFor returns the watermark by which an event was late: it missed the last window of the first rule for which it was late, which began then. If several rules have such
// a window, it is one before which no other rule comes for which it would have been late, and the least of these.
func (r Rule) closedFor(e Event) int64 {
	ms := e.At.UnixMilli()
	var ends []int64 // of the rules before
	least, likely := int64(-1), int64(-1)
	for _, o := range r.Others {
		if o.Window.Kind == rule.Session || o.Window.Size <= 0 {
			continue
		}
		other := Rule{Rule: o}
		start, end := other.lastWindow(ms)
		if !other.begins(start) {
			continue
		}
		closed := end - 1 + e.LateByMS
		if start == e.missed {
			if likely < 0 || closed < likely { // WHERE may keep it from the rules before
				likely = closed
			}
			if (least < 0 || closed < least) && !slices.ContainsFunc(ends, func(before int64) bool { return before-1 <= closed }) {
				least = closed
			}
		}
		ends = append(ends, end)
	}
	_, end := r.lastWindow(ms)
	switch {
	case least >= 0:
		return least
	case likely >= 0:
		return likely
	}
	return end - 1 + e.LateByMS
}

func mod(a, b int64) int64 { return ((a % b) + b) % b }

// closest returns the window that is nearest to an alert.
func closest(list []Group, asked func(Group) bool) (best *Group) {
	for i := range list {
		if g := &list[i]; asked(*g) && (best == nil || score(g) > score(best)) {
			best = g
		}
	}
	return best
}

// score says how near a window is to an alert: 1 is one.
func score(g *Group) float64 {
	if g.Holds {
		return 2 + float64(len(g.Counted))
	}
	if len(g.Having) == 0 {
		return -1 / float64(2+len(g.Filtered)) // no event passes WHERE; the more there are, the nearer
	}
	worst := 1.0
	for _, c := range g.Having {
		var left, right float64
		if c.Holds || json.Unmarshal(c.Left, &left) != nil || json.Unmarshal(c.Right, &right) != nil || right <= 0 {
			continue
		}
		if strings.HasPrefix(c.Op, ">") {
			worst = min(worst, left/(right+1))
		}
	}
	return worst
}

// keyValues are the values of an alert's key.
func keyValues(r Rule, a alert.Record) (list []json.RawMessage) {
	if a.Key == nil || len(r.Keys) == 1 {
		return []json.RawMessage{a.UserID}
	}
	_ = json.Unmarshal(a.UserID, &list) // it is an array
	return list
}

// object is the key with the names of its columns.
func (r RuleKey) object() json.RawMessage {
	b := []byte{'{'}
	for i, k := range r.Keys {
		if i > 0 {
			b = append(b, ',')
		}
		name, _ := json.Marshal(k.Name)
		b = append(append(append(b, name...), ':'), r.Key[i]...)
	}
	return append(b, '}')
}

// userKey reports whether a column of the key is the user as the events have it: the reference knows it as a whole number only.
func (r RuleKey) userKey(i int) bool {
	return r.BuiltIn || r.Keys[i].IsColumn() && r.Keys[i].Type.Kind == rule.Token
}

// isUser reports whether an event of a user can be the key's.
func (r RuleKey) isUser(user []byte) bool {
	for i, v := range r.Key {
		if r.userKey(i) && string(v) != string(user) {
			return false
		}
	}
	return true
}

// sameKey reports whether a group is the key's, if its users are.
func (r RuleKey) sameKey(keys []json.RawMessage) bool {
	if len(keys) != len(r.Key) {
		return false
	}
	for i, v := range r.Key {
		if !r.userKey(i) && string(v) != string(keys[i]) {
			return false
		}
	}
	return true
}

// about says which records may be about a key. What a column makes of a value can be written in many ways, so only whole numbers and texts are looked for.
func (r RuleKey) about() about {
	var a about
	for i, v := range r.Key {
		text := string(v)
		typ := r.Keys[i].Type
		var s string
		switch quoted := text != "null" && json.Unmarshal(v, &s) == nil; {
		case !r.BuiltIn && !r.Keys[i].IsColumn():
			continue
		case quoted && (typ.Kind == rule.Token || typ.Kind == rule.String && typ.Precision == 0):
			text = s
		case quoted || strings.Trim(text, "-0123456789") != "":
			continue
		case typ.Kind != rule.Token: // in a text, it can have a sign and zeros in front
			text = strings.TrimPrefix(text, "-")
		}
		if text != "" && !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == '"' || c == '\\' || c == '[' || c == '{' || c > '~' }) {
			a.texts = append(a.texts, []byte(text))
		}
	}
	return a
}
