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
	JSON bool `name:"json" help:"Print one JSON object per rule: name, mode, window, key, since (the revision that it has been the same since), from (null: from the beginning), feed, opens_early, reason, faults (null: no detector was asked)."`
	rulesLogFlags
	askFlags
}

// Help is shown below the usage.
func (rulesLsCommand) Help() string {
	return `Lists the rules of the newest revision that are evaluated. SINCE is the revision that a rule has not changed since. Rules with the same FEED are counted
together. FAULTS is how often a result was NULL because it is impossible (a division by zero, an overflow), since the running detectors took their partitions
over; it is shown if there were any.

  spate rules ls
  spate rules ls --json | jq -r 'select(.mode == "shadow") | .name'`
}

// listedRule is a rule in force.
type listedRule struct {
	Name       string     `json:"name"`
	Mode       rule.Mode  `json:"mode"`
	Window     string     `json:"window"`
	Key        []string   `json:"key"`
	Since      int64      `json:"since"` // 0: the rule of the settings
	From       *time.Time `json:"from"`  // null: the beginning
	Feed       string     `json:"feed"`
	OpensEarly bool       `json:"opens_early"`
	Reason     string     `json:"reason"`
	Faults     *int64     `json:"faults"` // null: no detector was asked
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
		terminal.Fprintf(e.stderr, "spate: %s not answered, so faults are not shown\n", terminal.Safe(counted(silent, "detector has", "detectors have")))
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
	plan, faults := l.Plan(), c.faults(e)
	faulty := slices.ContainsFunc(l.InForce(), func(r *rule.Rule) bool { return faults[r.Name] > 0 })
	if faulty {
		t.Columns = append(t.Columns, terminal.Column{Head: "FAULTS", Right: true})
	}
	for _, r := range l.InForce() {
		early, reason := r.Early()
		listed := listedRule{Name: r.Name, Mode: r.Mode, Window: r.Window.String(), Key: []string{}, Since: plan.Since[slices.Index(plan.Rules, r)], Feed: feedText(feedOf(plan, r)), OpensEarly: early, Reason: reason}
		if n := faults[r.Name]; faults != nil {
			listed.Faults = &n
		}
		for _, k := range r.Keys {
			listed.Key = append(listed.Key, k.Name)
		}
		if r.Window.From > 0 {
			from := time.UnixMilli(r.Window.From).UTC()
			listed.From = &from
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
		if faulty {
			cells = append(cells, o.paint(fmt.Sprint(faults[r.Name]), terminal.Red))
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
	terminal.Fprintf(e.stderr, "revision %d, in force %s\n", newest.Revision, terminal.Safe(inForce(newest, time.Now())))
	return nil
}
