package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"spate/services/explainer"
	"spate/shared/evidence"
	"spate/shared/incident"
	"spate/shared/store"
	"spate/shared/terminal"
)

// answered is an answer with what the database has besides.
type answered struct {
	*explainer.Answer
	Deliveries []deliveryStory    `json:"deliveries"`
	Of         *incident.Incident `json:"-"`

	told []string // fields of user and time, which need not be told again
}

// complete adds what the database has.
func (w *asker) complete(ctx context.Context, a *explainer.Answer, in *incident.Incident) (*answered, error) {
	full := &answered{Answer: a, Deliveries: []deliveryStory{}, Of: in}
	for _, f := range []store.DeliveryFilter{{Incident: a.Incident}, {AlertID: a.Alert}} { // messages for people, and those for programs
		if w.store == nil || f.Incident == "" && f.AlertID == "" {
			continue
		}
		list, err := deliveryStories(ctx, w.store, f)
		if err != nil {
			return nil, err
		}
		full.Deliveries = append(full.Deliveries, list...)
	}
	return full, nil
}

func (a answered) write(o *out, wide bool) {
	const dayClock = "2006-01-02 15:04:05.999"
	verdict := o.paint("NOT FLAGGED", terminal.Green)
	if a.Verdict == "flagged" {
		verdict = o.paint("FLAGGED", terminal.Red)
	}
	o.printf("%s  %s  %s  (%s)\n", verdict, keyText(a.Key, a.Key), a.Rule.Name, string(a.Reason))
	o.sentence(a.Text)
	o.printf("\n")
	if in := a.Of; in != nil {
		o.printf("incident  %s: %s, %s; this is the window with the most events\n", in.ID, counted(in.Windows, "window", "windows"), counted(in.Events, "event", "events"))
	} else if a.Incident != "" {
		o.printf("incident  %s\n", a.Incident)
	}
	if a.Alert != "" {
		o.printf("alert     %s", a.Alert)
		if a.Alerts > 1 {
			o.printf(", the most severe of %d in this period", a.Alerts)
		}
		o.printf("\n")
	}
	if a.Severity != "" {
		o.printf("severity  %s\n", severityText(o, a.Severity))
	}
	if !a.Start.IsZero() {
		o.printf("window    %s to %s UTC\n", a.Start.Format(dayClock), a.End.Format(dayClock))
	}
	if !a.Watermark.IsZero() {
		o.printf("now       event time has reached %s UTC: windows that end by then are closed\n", a.Watermark.Format(dayClock))
	}
	revision := ""
	if a.Rule.Revision > 0 {
		revision = fmt.Sprintf(", revision %d", a.Rule.Revision)
	}
	o.printf("rule      %s%s, %s, %s\n", a.Rule.Name, terminal.Safe(revision), a.Rule.Window, a.Rule.Mode)
	for _, line := range strings.Split(strings.TrimSpace(a.Rule.Statement), "\n") {
		o.printf("          %s\n", line)
	}
	n := a.Numbers
	if n.Having != nil {
		o.printf("\n")
		is := "IS"
		if a.Provisional {
			is = "IS SO FAR"
		}
		t := terminal.Table{Columns: []terminal.Column{{Head: "CONDITION", Floor: 20}, {Head: is, Right: true}, {Head: "MUST BE"}, {Head: "HOLDS"}}}
		for _, c := range n.Having {
			is, must := "", ""
			if c.Left != nil {
				is, must = string(c.Left), c.Op+" "+string(c.Right)
			}
			t.Row(c.Text, is, must, map[bool]string{true: "yes", false: "no"}[c.Holds])
		}
		o.lines(t.Lines(o.width))
	}
	if n.Where != nil {
		o.printf("\n")
		t := terminal.Table{Columns: []terminal.Column{{Head: "FILTER", Floor: 20}, {Head: "EXCLUDES", Right: true}}}
		for _, p := range n.Where {
			t.Row(p.Text, counted(p.Filtered, "event", "events"))
		}
		o.lines(t.Lines(o.width))
	}
	if !a.Start.IsZero() {
		o.printf("\n%s\n", terminal.Safe(a.tally()))
	}
	switch {
	case n.Recount == nil && a.Provisional && n.Having != nil:
		o.printf("The reference has counted the events so far; the alert is updated when its window closes.\n")
	case n.Recount == nil:
	case *n.Recount:
		o.printf("An independent recount gives the same numbers as the alert.\n")
	default:
		for _, name := range sortedKeys(n.Differs) {
			d := n.Differs[name]
			o.printf("The alert differs from the reference: %s is %s in the alert and %s in the reference.\n", name, d[0], d[1])
		}
	}
	if len(a.Events) > 0 {
		o.printf("\n")
		a.table(o, wide)
		if a.More > 0 {
			o.printf("and %s more; use --events N to list more\n", terminal.Grouped(a.More))
		}
	}
	for _, tr := range a.Transitions {
		o.printf("\n%-9s %s UTC", string(tr.State), tr.At.Format(dayClock))
	}
	if len(a.Transitions) > 0 {
		o.printf("\n")
	}
	switch {
	case len(a.Deliveries) > 0:
		o.printf("\n")
		deliveryTable(o, wide, a.Deliveries)
	case a.Alert != "":
		o.printf("notified  nobody\n")
	}
	if a.Reason == explainer.NeverSeen {
		o.printf("\nUse --at TIME or --since DURATION to ask about another period.\n")
	}
	for _, note := range a.Notes {
		o.printf("\nnote: %s\n", note)
	}
}

// table prints the events: what differs from one to the next, aligned, or, with wide, all of them as they are.
func (a answered) table(o *out, wide bool) {
	place := "PARTITION:OFFSET"
	if a.Events[0].Shard != "" {
		place = "SHARD, SEQUENCE NUMBER"
	}
	t := terminal.Table{Columns: []terminal.Column{{Head: "TIME (UTC)"}, {Head: "FATE"}, {Head: place, Floor: 16}}}
	var names []string
	if wide {
		t.Columns = append(t.Columns, terminal.Column{Head: "EVENT"})
	} else {
		texts := make([][]byte, len(a.Events))
		for i, e := range a.Events {
			texts[i] = e.Value
		}
		for _, f := range evidence.Fields(texts...) {
			if !slices.Contains(a.told, f.Name) && (f.Values > 1 || f.Events < len(a.Events)) {
				names = append(names, f.Name)
				t.Columns = append(t.Columns, terminal.Column{Head: f.Name, Floor: 10})
			}
		}
	}
	for _, e := range a.Events {
		at, fate := "", string(e.Fate)
		if !e.At.IsZero() {
			at = e.At.Format("15:04:05.000")
		}
		switch {
		case e.LateByMS > 0 && (e.Fate == explainer.Late || e.Fate == explainer.Idle):
			fate += fmt.Sprintf(" %d ms", e.LateByMS)
		case e.Reason != "":
			fate += ": " + e.Reason
		}
		row := []any{at, fate, placeText(e.Place)}
		if wide {
			row = append(row, compact(e.Value))
		}
		values := evidence.Values(e.Value)
		for _, name := range names {
			row = append(row, valueText(values[name]))
		}
		t.Row(row...)
	}
	if wide {
		o.lines(t.Lines(0))
		return
	}
	o.events(&t, 3)
}

// tally says what became of the key's events.
func (a answered) tally() string {
	n := a.Numbers
	parts := []string{counted(n.Counted, "event counts", "events count") + " in the window"}
	for _, p := range []struct {
		n    int
		text string
	}{{n.Filtered, "excluded by WHERE"}, {n.Late, "late"}, {n.Idle, "late because a partition was silent"}, {n.Waiting, "not counted yet"}, {n.Repeated, "sent again"}, {n.Invalid, "invalid"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.text))
		}
	}
	return strings.Join(parts, ", ") + fmt.Sprintf(". %s read.", counted(a.Read, "record was", "records were"))
}
