package cli

import (
	"slices"
	"strings"
	"time"

	"spate/shared/rule"
	"spate/shared/terminal"
)

type rulesLsCommand struct {
	Wide bool `short:"w" help:"Do not truncate lines to fit the terminal."`
	JSON bool `name:"json" help:"Print one JSON object per rule: name, mode, window, key, since (the revision that it has been the same since), from (null: from the beginning), feed, opens_early, reason."`
	rulesLogFlags
}

// Help is shown below the usage.
func (rulesLsCommand) Help() string {
	return `Lists the rules of the newest revision that are evaluated. SINCE is the revision that a rule has not changed since. Rules with the same FEED are counted
together.

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
	plan := l.Plan()
	for _, r := range l.InForce() {
		early, reason := r.Early()
		listed := listedRule{Name: r.Name, Mode: r.Mode, Window: r.Window.String(), Key: []string{}, Since: plan.Since[slices.Index(plan.Rules, r)], Feed: feedText(feedOf(plan, r)), OpensEarly: early, Reason: reason}
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
		t.Row(listed.Name, string(listed.Mode), listed.Window, strings.Join(listed.Key, ", "), listed.Since, listed.Feed, opens)
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
