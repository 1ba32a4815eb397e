// Package verdict makes the alert of what the engine has found. It is apart from package alert so that whoever reads alerts, the reference
// above all, does not reach the engine.
package verdict

import (
	"encoding/json"
	"time"

	"spate/shared/alert"
	"spate/shared/window"
)

// Terms are what a verdict is told under.
type Terms struct {
	Threshold int64 // the count that was exceeded
	Critical  int64 // the count above which an alert is critical
}

// Record is the alert of a verdict, without its evidence: places in the log are named by whoever reads it.
func (t Terms) Record(v window.Verdict) alert.Record {
	p := v.Pane
	state := alert.Opened
	if v.Final {
		state = alert.Closed
	}
	return alert.Record{
		ID:   alert.ID(alert.Burst, v.User, p.StartMS, p.SizeMS),
		Rule: alert.Burst, State: state, Severity: alert.SeverityOf(p.Count, t.Critical),
		UserID: json.RawMessage(v.User), Count: p.Count, Threshold: t.Threshold,
		WindowStart: at(p.StartMS), WindowEnd: at(p.EndMS()), FirstEventAt: at(p.FirstMS), LastEventAt: at(p.LastMS),
	}
}

func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
