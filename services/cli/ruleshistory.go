package cli

import (
	"fmt"
	"slices"
	"time"

	"spate/shared/terminal"
)

type rulesHistoryCommand struct {
	Wide bool `short:"w" help:"Do not truncate lines to fit the terminal."`
	JSON bool `name:"json" help:"Print one JSON object per record of the log, newest first: state (applied, ignored or unreadable), revision, at, boundary (null: from the beginning), replaced_by (if another revision is in force from an earlier time), author, message, program, rules, added, changed, removed, unchanged, reason."`
	rulesLogFlags
}

// Help is shown below the usage.
func (rulesHistoryCommand) Help() string {
	return `Lists the revisions of the rules, newest first. FROM is the time from which a revision is in force: it applies to windows that begin then or later. The list also contains
records that have no effect, with the reason: for example, one of two revisions that were applied at the same time, or a revision that only a newer version of spate
can evaluate.

  spate rules history
  spate rules diff 3 4          what revision 4 changed
  spate rules show 3            the file of revision 3`
}

// pastRevision is a record of the log of the rules.
type pastRevision struct {
	State    string     `json:"state"`
	Revision int64      `json:"revision,omitempty"`
	At       *time.Time `json:"at,omitempty"`          // of one that cannot be read, it is not known
	Boundary *time.Time `json:"boundary"`              // null: the beginning, or none
	Replaced int64      `json:"replaced_by,omitempty"` // the revision that is in force from an earlier time on, so that this one never is
	Author   string     `json:"author,omitempty"`
	Message  string     `json:"message,omitempty"`
	Program  string     `json:"program,omitempty"`
	Rules    []string   `json:"rules,omitempty"`
	*changeCounts
	Reason string `json:"reason,omitempty"` // why it has no effect, or cannot be read

	changes string
}

type changeCounts struct {
	Added     int `json:"added"`
	Changed   int `json:"changed"`
	Removed   int `json:"removed"`
	Unchanged int `json:"unchanged"`
}

// past returns the records of the log, newest first.
func (l *rulesLog) past() (out []pastRevision) {
	instant := func(ms int64) *time.Time {
		t := time.UnixMilli(ms).UTC()
		return &t
	}
	for i, entry := range l.Entries() {
		list := compareRules(l.rulesBefore(i), entry.Set.Rules)
		n := tally(list)
		p := pastRevision{
			State: "applied", Revision: entry.Revision, At: instant(entry.AtMS), Boundary: boundaryOf(entry), Replaced: entry.ReplacedBy, Author: entry.Author, Message: entry.Message, Program: entry.Program,
			changeCounts: &changeCounts{n[added], n[changed], n[removed], n[unchanged]}, changes: tallyText(list),
		}
		for _, r := range entry.Set.Rules {
			p.Rules = append(p.Rules, r.Name)
		}
		out = append(out, p)
	}
	for _, i := range l.Ignored() {
		out = append(out, pastRevision{State: "ignored", At: instant(i.AtMS), Reason: i.Why})
	}
	slices.SortStableFunc(out, func(a, b pastRevision) int { return a.At.Compare(*b.At) })
	if u := l.Unreadable(); u != nil {
		out = append(out, pastRevision{State: "unreadable", Revision: u.Revision, Reason: u.Err.Error()})
	}
	slices.Reverse(out)
	return out
}

func (c *rulesHistoryCommand) Run(e *env) error {
	l, err := c.open(e)
	if err != nil {
		return err
	}
	defer l.Close()
	past := l.past()
	if len(past) == 0 {
		terminal.Fprintln(e.stderr, l.none())
		return nil
	}
	o := newOut(e.stdout)
	if c.JSON {
		for _, p := range past {
			if err := o.json(p); err != nil {
				return o.end(err)
			}
		}
		return o.end(nil)
	}
	if c.Wide {
		o.width = 0
	}
	now := time.Now()
	t := terminal.Table{Columns: []terminal.Column{{Head: "REVISION", Right: true}, {Head: "APPLIED (UTC)"}, {Head: "FROM (UTC)"}, {Head: "AUTHOR", Floor: 8}, {Head: "CHANGES", Floor: 12}, {Head: "MESSAGE", Floor: 12}}}
	for _, p := range past {
		at, number := "", any(p.Revision)
		if p.At != nil {
			at = clockText(p.At.Truncate(time.Second), now)
		}
		switch p.State {
		case "ignored":
			t.Row("-", at, "no effect", "", "", p.Reason)
		case "unreadable":
			t.Row(number, at, o.paint("unreadable", terminal.Red), "", "", p.Reason)
		default:
			from := "the beginning"
			switch {
			case p.Replaced > 0:
				from = fmt.Sprintf("never: see %d", p.Replaced)
			case p.Boundary != nil:
				from = clockText(*p.Boundary, now)
			}
			t.Row(number, at, from, p.Author, p.changes, p.Message)
		}
	}
	o.lines(t.Lines(o.width))
	return o.end(nil)
}
