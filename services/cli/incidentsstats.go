package cli

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/store"
	"spate/shared/terminal"
)

type incidentsStatsCommand struct {
	incidentFlags
	Rule  string `placeholder:"RULE" help:"Count only incidents from this rule. Without a rules file, the only rule is burst."`
	Since string `placeholder:"TIME" help:"Count only incidents whose last window ends after this time: a timestamp (2026-11-24T09:30:00Z), a date (2026-11-24, from midnight UTC), or an age (1h, 7d)."`
	Until string `placeholder:"TIME" help:"Count only incidents whose first window starts before this time, in the same form as --since."`
	JSON  bool   `name:"json" help:"Print one JSON line per rule."`
}

// Help is shown below the usage.
func (incidentsStatsCommand) Help() string {
	return `PRECISION is the share of attacks among the incidents that are marked attack or benign: attack / (attack + benign). Incidents that are unmarked or marked unsure
do not count. To mark an incident, run spate incidents mark. A rule in shadow mode has its own line, so you can judge a new rule before it sends notifications.`
}

// ruleStats counts the incidents of a rule, live or in shadow.
type ruleStats struct {
	Rule      string   `json:"rule"`
	Mode      string   `json:"mode,omitempty"`
	Incidents int      `json:"incidents"`
	Open      int      `json:"open"`
	Critical  int      `json:"critical"`
	Silenced  int      `json:"silenced"`
	Attack    int      `json:"attack"`
	Benign    int      `json:"benign"`
	Unsure    int      `json:"unsure"`
	Precision *float64 `json:"precision"` // null: no incident is marked attack or benign
}

func (s *ruleStats) add(i incident.Incident) {
	s.Incidents++
	if i.State == incident.StateOpen {
		s.Open++
	}
	if i.Severity == alert.Critical {
		s.Critical++
	}
	if i.Silenced != "" {
		s.Silenced++
	}
	if i.Marked == nil {
		return
	}
	switch i.Mark {
	case incident.Attack:
		s.Attack++
	case incident.Benign:
		s.Benign++
	case incident.Unsure:
		s.Unsure++
	}
	if n := s.Attack + s.Benign; n > 0 {
		p := math.Round(float64(s.Attack)/float64(n)*1000) / 1000
		s.Precision = &p
	}
}

// Run is the command.
func (c *incidentsStatsCommand) Run(e *env) (err error) {
	f := store.IncidentFilter{Rule: c.Rule}
	var errs []error
	f.Since, f.Until, err = between(c.Since, c.Until, time.Now())
	errs = append(errs, err, f.Validate())
	if err := usage(errors.Join(errs...)); err != nil {
		return err
	}
	st, err := c.incidents(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	type key struct{ rule, mode string }
	of := make(map[key]*ruleStats)
	for i, err := range st.Incidents(e.ctx, f) {
		if err != nil {
			return err
		}
		k := key{i.Rule, i.Mode}
		if of[k] == nil {
			of[k] = &ruleStats{Rule: i.Rule, Mode: i.Mode}
		}
		of[k].add(i)
	}
	list := slices.SortedFunc(maps.Values(of), func(a, b *ruleStats) int { return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Mode, b.Mode)) })
	o := newOut(e.stdout)
	if c.JSON {
		for _, s := range list {
			if err := o.json(s); err != nil {
				return o.end(err)
			}
		}
		return o.end(nil)
	}
	if len(list) == 0 {
		terminal.Fprintf(e.stderr, "no incidents\n")
		return nil
	}
	o.lines(statsTable(list).Lines(o.width))
	return o.end(nil)
}

func statsTable(list []*ruleStats) *terminal.Table {
	t := &terminal.Table{Columns: []terminal.Column{{Head: "RULE", Floor: 8}}}
	for _, head := range []string{"INCIDENTS", "OPEN", "CRITICAL", "SILENCED", "ATTACK", "BENIGN", "UNSURE", "PRECISION"} {
		t.Columns = append(t.Columns, terminal.Column{Head: head, Right: true})
	}
	for _, s := range list {
		rule, precision := s.Rule, "-"
		if s.Mode == alert.Shadow {
			rule += " (shadow)"
		}
		if s.Precision != nil {
			precision = fmt.Sprintf("%.1f %%", *s.Precision*100)
		}
		t.Row(rule, s.Incidents, s.Open, s.Critical, s.Silenced, s.Attack, s.Benign, s.Unsure, precision)
	}
	return t
}
