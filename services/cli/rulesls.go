package cli

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"spate/services/detector"
	"spate/shared/kafka"
	"spate/shared/rule"
	"spate/shared/terminal"
)

type rulesLsCommand struct {
	Wide bool `short:"w" help:"Do not truncate lines to fit the terminal."`
	JSON bool `name:"json" help:"Print one JSON object per rule: name, mode, window, key, since (the revision that last changed it), from (null: from the beginning), until (null: no end is known; otherwise the rule is in force for windows that begin before then), feed, opens_early, reason, faults (null: no detector was queried)."`
	rulesLogFlags
	askFlags
}

// Help is shown below the usage.
func (rulesLsCommand) Help() string {
	return `Lists the rules in the newest revision, except those whose mode is off, and the rules in earlier revisions that are still in force. For a rule that takes
effect or ends later, IN FORCE shows the time: its first window begins then or later, or its last window begins before then. SINCE is the revision that last changed a rule.
Events are counted only once for all rules with the same FEED. FAULTS counts the results that were NULL because they could not be computed (a division by zero, an overflow)
since the running detectors took over their partitions; the column appears only if there were faults.

  spate rules ls
  spate rules ls --json | jq -r 'select(.mode == "shadow") | .name'`
}

// listedRule is a rule in force.
type listedRule struct {
	Name       string     `json:"name"`
	Mode       rule.Mode  `json:"mode"`
	Window     string     `json:"window"`
	Key        []string   `json:"key"`
	Since      int64      `json:"since"` // 0: the rule from the settings
	From       *time.Time `json:"from"`  // null: the beginning
	Until      *time.Time `json:"until"` // null: no end is known
	Feed       string     `json:"feed"`
	OpensEarly bool       `json:"opens_early"`
	Reason     string     `json:"reason"`
	Faults     *int64     `json:"faults"` // null: not known
}

// lastEnd is when the last window of a rule that a later revision ends is over, in milliseconds; 0 if no end is known.
func lastEnd(r *rule.Rule) int64 {
	after, ok := r.Window.First(r.Window.Until)
	switch {
	case !ok || r.Window.Until == 0:
		return 0
	case r.Window.Kind == rule.Hop:
		return after - r.Window.Step + r.Window.Size
	}
	return after
}

// ending are the rules that a later revision ends, but that still have windows to count, or will have.
func (l *rulesLog) ending(now time.Time) (rules []*rule.Rule) {
	for _, r := range l.Plan().Rules {
		if lastEnd(r) > now.UnixMilli() && r.Window.Until > r.Window.From {
			rules = append(rules, r)
		}
	}
	return rules
}

// bounds says when a rule begins and ends, as far as it is to do so after now.
func (r listedRule) bounds(now time.Time) string {
	var out []string
	if r.From != nil && r.From.After(now) {
		out = append(out, "begins "+clockText(*r.From, now))
	}
	if r.Until != nil {
		out = append(out, "ends "+clockText(*r.Until, now))
	}
	return strings.Join(out, ", ")
}

// faults asks the detectors for the faults of each rule; nil if there is none to ask.
func (c *rulesLsCommand) faults(e *env) map[string]int64 {
	if e.mode == "aws" {
		return nil
	}
	cfg, err := c.config(e.logger(slog.LevelError))
	if err != nil {
		return nil
	}
	faults, silent, err := detector.AskFaults(e.ctx, cfg, kafka.NamesFor(c.Topic), c.asker())
	switch {
	case err != nil:
		return nil // none is running, or who lists the rules may not see them
	case silent > 0:
		terminal.Fprintf(e.stderr, "spate: %s not responded, so faults are not shown\n", terminal.Safe(counted(silent, "detector has", "detectors have")))
		return nil
	}
	return faults
}

func (c *rulesLsCommand) Run(e *env) error {
	l, err := c.open(e)
	if err != nil {
		return err
	}
	defer l.Close()
	l.noteIgnored(e)
	if u := l.Unreadable(); u != nil {
		return u
	}
	newest, ok := l.Newest()
	if !ok {
		terminal.Fprintln(e.stderr, l.none())
		return nil
	}
	o := newOut(e.stdout)
	if c.Wide {
		o.width = 0
	}
	t := terminal.Table{Columns: []terminal.Column{{Head: "NAME"}, {Head: "MODE"}, {Head: "WINDOW"}, {Head: "KEY", Floor: 8}, {Head: "SINCE", Right: true}, {Head: "FEED"}, {Head: "OPENS EARLY", Floor: 12}}}
	plan, faults, now := l.Plan(), c.faults(e), time.Now()
	rules := slices.Concat(l.InForce(), l.ending(now))
	bounded := slices.ContainsFunc(rules, func(r *rule.Rule) bool { return r.Window.From > now.UnixMilli() || r.Window.Until > 0 })
	if bounded {
		t.Columns = slices.Insert(t.Columns, 2, terminal.Column{Head: "IN FORCE (UTC)"})
	}
	faulty := slices.ContainsFunc(l.InForce(), func(r *rule.Rule) bool { return faults[r.Name] > 0 })
	if faulty {
		t.Columns = append(t.Columns, terminal.Column{Head: "FAULTS", Right: true})
	}
	for _, r := range rules {
		early, reason := r.Early()
		listed := listedRule{Name: r.Name, Mode: r.Mode, Window: r.Window.String(), Key: []string{}, Since: plan.Since[slices.Index(plan.Rules, r)], Feed: feedText(feedOf(plan, r)), OpensEarly: early, Reason: reason}
		if n := faults[r.Name]; faults != nil && r.Window.Until == 0 {
			listed.Faults = &n
		}
		for _, k := range r.Keys {
			listed.Key = append(listed.Key, k.Name)
		}
		if r.Window.From > 0 {
			from := time.UnixMilli(r.Window.From).UTC()
			listed.From = &from
		}
		if r.Window.Until > 0 {
			until := time.UnixMilli(r.Window.Until).UTC()
			listed.Until = &until
		}
		if c.JSON {
			if err := o.json(listed); err != nil {
				return o.end(err)
			}
			continue
		}
		opens := "no: " + reason
		if early {
			opens = "yes"
		}
		cells := []any{listed.Name, string(listed.Mode), listed.Window, strings.Join(listed.Key, ", "), listed.Since, listed.Feed, opens}
		if bounded {
			cells = slices.Insert(cells, 2, any(listed.bounds(now)))
		}
		if faulty {
			n := any("")
			if listed.Faults != nil {
				n = o.paint(fmt.Sprint(*listed.Faults), terminal.Red)
			}
			cells = append(cells, n)
		}
		t.Row(cells...)
	}
	if c.JSON {
		return o.end(nil)
	}
	if len(t.Rows) > 0 {
		o.lines(t.Lines(o.width))
	}
	if err := o.end(nil); err != nil {
		return err
	}
	terminal.Fprintf(e.stderr, "revision %d, in force %s\n", newest.Revision, terminal.Safe(inForce(newest, now)))
	return nil
}
