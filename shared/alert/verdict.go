package alert

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"spate/shared/window"
)

// Terms are what a verdict is told under.
type Terms struct {
	Threshold int64 // the count that was exceeded
	Critical  int64 // the count above which an alert is critical
}

// Record is the alert of a verdict, without its evidence: places in the log are named by whoever reads it.
func (t Terms) Record(v window.Verdict) Record {
	p := v.Pane
	state := Opened
	if v.Final {
		state = Closed
	}
	return Record{
		ID:   ID(Burst, v.User, p.StartMS, p.SizeMS),
		Rule: Burst, State: state, Severity: SeverityOf(p.Count, t.Critical),
		UserID: json.RawMessage(v.User), Count: p.Count, Threshold: t.Threshold,
		WindowStart: at(p.StartMS), WindowEnd: at(p.EndMS()), FirstEventAt: at(p.FirstMS), LastEventAt: at(p.LastMS),
	}
}

func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// CheckTransitions tells what is wrong with a choice of states to write.
func CheckTransitions(states []State) error {
	if len(states) == 0 {
		return errors.New("transitions: none given; use opened,closed or closed")
	}
	var errs []error
	if !slices.Contains(states, Closed) {
		errs = append(errs, errors.New("transitions: closed is missing, without which no alert has its exact count; use opened,closed or closed"))
	}
	for _, s := range states {
		if s.Rank() == 0 {
			errs = append(errs, fmt.Errorf("transitions: %q is neither opened nor closed", s))
		}
	}
	return errors.Join(errs...)
}
