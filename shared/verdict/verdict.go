// Package verdict converts the engine's verdicts to alerts. It is separate from package alert so that readers of alerts, above all the
// reference, do not depend on the engine.
package verdict

import (
	"encoding/json"
	"time"

	"spate/shared/alert"
	"spate/shared/rule"
	"spate/shared/window"
)

// Teller makes alerts of the verdicts of a plan. It is safe for concurrent use.
type Teller struct{ rules []told }

// told is what the alerts of a rule have in common.
type told struct {
	name, mode string
	runbook    string
	quietMS    int64
	decision   *alert.Decision
	since      int64 // the revision that brought the rule
	threshold  int64
	plain      bool     // alerts have the form that they had before there were rules files
	keys       []string // the names of the key's columns
}

// New returns the teller of a plan.
func New(plan *rule.Plan) Teller {
	var t Teller
	for i, r := range plan.Rules {
		of := told{name: r.Name, runbook: r.Runbook, quietMS: r.Quiet.Milliseconds(), since: plan.Since[i]}
		of.threshold, of.plain = r.Threshold()
		if d := r.Decision; d.Level != "" {
			of.decision = &alert.Decision{Level: d.Level, ForMS: d.For.Milliseconds()}
		}
		if r.Mode == rule.Shadow {
			of.mode = alert.Shadow
		}
		for _, k := range r.Keys {
			of.keys = append(of.keys, k.Name)
		}
		t.rules = append(t.rules, of)
	}
	return t
}

// Rule is the name of a verdict's rule.
func (t Teller) Rule(v window.Verdict) string { return t.rules[v.Rule].name }

// Record is the alert of a verdict, without its evidence: places in the log are named by whoever reads it.
func (t Teller) Record(v window.Verdict) alert.Record {
	of := &t.rules[v.Rule]
	r := record(of.name, of.threshold, v)
	r.Mode, r.RuleRevision, r.Summary, r.Runbook, r.QuietMS, r.Decision = of.mode, of.since, v.Summary, of.runbook, of.quietMS, of.decision
	if v.Critical {
		r.Severity = alert.Critical
	}
	if of.plain {
		return r
	}
	r.SetRow(of.keys, v.Key, v.Columns)
	r.AtLeast = v.AtLeast
	return r
}

// record is what alerts of all rules have.
func record(name string, threshold int64, v window.Verdict) alert.Record {
	p := v.Pane
	return alert.Record{
		ID: alert.ID(name, v.Key, p.StartMS, p.SizeMS), Rule: name, State: stateOf(v.State), Severity: alert.Warning,
		UserID: json.RawMessage(v.Key), Count: p.Count, Threshold: threshold,
		WindowStart: at(p.StartMS), WindowEnd: at(p.EndMS()), FirstEventAt: at(p.FirstMS), LastEventAt: at(p.LastMS),
	}
}

func stateOf(s window.State) alert.State {
	switch s {
	case window.Opened:
		return alert.Opened
	case window.Raised:
		return alert.Raised
	}
	return alert.Closed
}

func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
