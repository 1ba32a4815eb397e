package explainer

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"spate/shared/rule"
)

// Window is a window of a rule and key, as the reference evaluates it.
type Window struct {
	Start  time.Time `json:"start"`
	End    time.Time `json:"end"`
	Events int       `json:"events"` // that count in it
	// Value is what the first comparison of HAVING with a number compares; without one, Events.
	Value    float64 `json:"value"`
	Holds    bool    `json:"holds"`
	Critical bool    `json:"critical"`
}

// Windows are those of a rule and key in a time.
type Windows struct {
	Rule     string    `json:"rule"`
	Revision int64     `json:"revision,omitempty"` // of the rule; 0: it comes from the settings
	What     string    `json:"what"`               // what Value is
	Limit    float64   `json:"limit,omitempty"`    // what Value is compared with; 0 if it is not a number
	From     time.Time `json:"from"`
	Until    time.Time `json:"until"`
	Windows  []Window  `json:"windows"` // those with events, by start
	// Types are the types of the events in these windows, whether or not WHERE lets them pass, the most frequent first.
	Types []TypeCount `json:"types"`
	// OtherTypes is how many events have types that are not listed.
	OtherTypes int `json:"other_types,omitempty"`
	// Partial reports that only a part of the events was read, so that values are too low.
	Partial bool `json:"partial,omitempty"`
}

// TypeCount is how many events have a type.
type TypeCount struct {
	Type   string `json:"type"` // empty if an event has none
	Events int    `json:"events"`
}

// maxTypes bounds the types that are listed, and maxType the bytes of one.
const maxTypes, maxType = 12, 200

// typeFields are the fields in which the type of an event is looked for.
var typeFields = []string{"event_type", "type", "action"}

func typeOf(e Event) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(e.text, &fields) != nil {
		return ""
	}
	for _, name := range typeFields {
		text := string(fields[name])
		switch {
		case text == "" || text == "null" || text[0] == '{' || text[0] == '[':
			continue
		case text[0] == '"':
			text = ""                               // its quotes
			_ = json.Unmarshal(fields[name], &text) // it is valid
		}
		if text = strings.TrimSpace(text); text != "" {
			return strings.ToValidUTF8(text[:min(len(text), maxType)], "")
		}
	}
	return ""
}

// typesOf counts events, which are given by their numbers, by their types. others is how many have types that are not listed.
func typesOf(f *Facts, events map[int]bool) (list []TypeCount, others int) {
	counts := make(map[string]int)
	for i := range events {
		counts[typeOf(f.Events[i])]++
	}
	list = []TypeCount{}
	for text, n := range counts {
		list = append(list, TypeCount{text, n})
	}
	slices.SortFunc(list, func(a, b TypeCount) int { return cmp.Or(cmp.Compare(b.Events, a.Events), cmp.Compare(a.Type, b.Type)) })
	for _, t := range list[min(len(list), maxTypes):] {
		others += t.Events
	}
	return list[:min(len(list), maxTypes)], others
}

// WindowsOf returns the windows of rules and keys that overlap a time and have events. The log is read once for all of them.
func (x *Explainer) WindowsOf(ctx context.Context, q Question, rules ...RuleKey) (list []*Windows, err error) {
	rules = slices.DeleteFunc(slices.Clone(rules), func(r RuleKey) bool { return r.Mode == rule.Off })
	if len(rules) == 0 {
		return nil, nil
	}
	from, until, about := part(q, rules)
	f, err := x.Log.Between(ctx, from, until, about)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		w, err := x.windowsOf(ctx, q, r, f)
		if err != nil {
			return nil, err
		}
		list = append(list, w)
	}
	return list, nil
}

func (x *Explainer) windowsOf(ctx context.Context, q Question, r RuleKey, f *Facts) (*Windows, error) {
	out := &Windows{Rule: r.Name, Revision: r.Revision, What: "events", From: q.From, Until: q.Until, Windows: []Window{}, Types: []TypeCount{}, Partial: f.Cut || f.Missing}
	w, err := x.windows(ctx, r, f)
	if err != nil {
		return nil, err
	}
	events := make(map[int]bool) // a window may share them with others
	for _, g := range w.counted {
		if !q.asked(g) || !r.begins(g.Start) {
			continue
		}
		for _, i := range slices.Concat(g.Counted, g.Filtered) {
			events[i] = true
		}
		b := Window{Start: time.UnixMilli(g.Start).UTC(), End: time.UnixMilli(g.End).UTC(), Events: len(g.Counted), Value: float64(len(g.Counted)), Holds: g.Holds, Critical: g.Critical && g.Holds}
		for _, c := range g.Having {
			var left, right float64
			if json.Unmarshal(c.Left, &left) == nil && json.Unmarshal(c.Right, &right) == nil {
				b.Value, out.Limit, out.What = left, right, c.Text
				break
			}
		}
		out.Windows = append(out.Windows, b)
	}
	out.Types, out.OtherTypes = typesOf(f, events)
	return out, nil
}
