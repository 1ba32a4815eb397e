package explainer

import (
	"context"
	"encoding/json"
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
	Rule    string    `json:"rule"`
	What    string    `json:"what"`            // what Value is
	Limit   float64   `json:"limit,omitempty"` // what Value is compared with; 0 if it is not a number
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
	Windows []Window  `json:"windows"` // those with events, by start
	// Partial reports that only a part of the events was read, so that values are too low.
	Partial bool `json:"partial,omitempty"`
}

// WindowsOf returns the windows of a rule and key that overlap a time and have events.
func (x *Explainer) WindowsOf(ctx context.Context, q Question, r RuleKey) (*Windows, error) {
	out := &Windows{Rule: r.Name, What: "events", From: q.From, Until: q.Until, Windows: []Window{}}
	if r.Mode == rule.Off {
		return out, nil
	}
	from, until := r.around(q)
	f, err := x.Log.Between(ctx, time.UnixMilli(from).UTC(), time.UnixMilli(until).UTC(), r.about())
	if err != nil {
		return nil, err
	}
	out.Partial = f.Cut || f.Missing
	w, err := x.windows(ctx, r, f)
	if err != nil {
		return nil, err
	}
	for _, g := range w.counted {
		if !q.asked(g) || !r.begins(g.Start) {
			continue
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
	return out, nil
}
