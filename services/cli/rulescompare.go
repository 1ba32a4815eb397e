package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"spate/shared/revision"
	"spate/shared/rule"
	"spate/shared/terminal"
)

// changedRule is a rule in two versions of a pipeline's rules.
type changedRule struct {
	Name    string        `json:"name"`
	Change  string        `json:"change"` // added, changed, removed or unchanged
	Mode    rule.Mode     `json:"mode"`
	Window  string        `json:"window"`
	Key     []string      `json:"key"`
	Changes []rule.Change `json:"changes,omitempty"`
	// Feed is known of rules that are, or would be, in force, and what becomes of it: it begins, continues or ends.
	Feed       string `json:"feed,omitempty"`
	FeedChange string `json:"feed_change,omitempty"`
}

const (
	added     = "added"
	changed   = "changed"
	removed   = "removed"
	unchanged = "unchanged"
)

// compareRules compares two versions of a pipeline's rules by their names: those of the second in their order, then those that it does not have.
func compareRules(from, to []*rule.Rule) []changedRule {
	out := []changedRule{}
	add := func(r *rule.Rule, change string) {
		c := changedRule{Name: r.Name, Change: change, Mode: r.Mode, Window: r.Window.String(), Key: []string{}}
		for _, k := range r.Keys {
			c.Key = append(c.Key, k.Name)
		}
		out = append(out, c)
	}
	named := func(list []*rule.Rule, name string) *rule.Rule {
		if i := slices.IndexFunc(list, func(r *rule.Rule) bool { return r.Name == name }); i >= 0 {
			return list[i]
		}
		return nil
	}
	for _, r := range to {
		switch old := named(from, r.Name); {
		case old == nil:
			add(r, added)
		case rule.Same(old, r):
			add(r, unchanged)
		default:
			add(r, changed)
			out[len(out)-1].Changes = rule.Changes(old, r)
		}
	}
	for _, r := range from {
		if named(to, r.Name) == nil {
			add(r, removed)
		}
	}
	return out
}

// tally counts rules by how they changed.
func tally(list []changedRule) map[string]int {
	n := map[string]int{}
	for _, r := range list {
		n[r.Change]++
	}
	return n
}

// tallyText says how many rules changed, and how.
func tallyText(list []changedRule) string {
	n := tally(list)
	var parts []string
	for _, change := range []string{added, changed, removed, unchanged} {
		if n[change] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[change], change))
		}
	}
	return strings.Join(parts, ", ")
}

// same reports whether nothing changed.
func same(list []changedRule) bool { return tally(list)[unchanged] == len(list) }

// changeColors are those of changes.
var changeColors = map[string]string{added: terminal.Green, changed: terminal.Yellow, removed: terminal.Red}

// compared prints how rules changed, for people.
func (o *out) compared(list []changedRule) {
	width := 0
	for _, r := range list {
		width = max(width, len(r.Name))
	}
	for _, r := range list {
		change := terminal.Safe(fmt.Sprintf("%-9s", r.Change))
		if color := changeColors[r.Change]; color != "" {
			change = o.paint(string(change), color)
		}
		key := strings.Join(r.Key, ", ")
		if key == "" {
			key = "nothing"
		}
		o.printf("  %s  %-*s  %s, %s, by %s", change, width, r.Name, r.Mode, r.Window, key)
		if r.Feed != "" {
			o.printf("; feed %s %s", r.Feed, r.FeedChange)
		}
		o.printf("\n")
		for _, c := range r.Changes {
			o.printf("             %s\n", changeText(c, "\n               "))
		}
	}
}

// changeText says how a part of a rule changed; between separates long values.
func changeText(c rule.Change, between string) terminal.Safe {
	switch {
	case c.Part == "statement":
		return "the statement, or the types of its columns"
	case len(c.From)+len(c.To) < 60:
		return terminal.Sprintf("%s: %s -> %s", c.Part, orNone(c.From), orNone(c.To))
	}
	return terminal.Sprintf("%s%sfrom %s%sto   %s", c.Part, terminal.Safe(between), orNone(c.From), terminal.Safe(between), orNone(c.To))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// changedFeeds is how many feeds begin to be counted, end, and continue.
type changedFeeds struct {
	Begin    int `json:"begin"`
	End      int `json:"end"`
	Continue int `json:"continue"`
}

// compareFeeds compares the feeds of the rules in force, and adds them to the rules that have them.
func compareFeeds(from, to *revision.Log, list []changedRule) (c changedFeeds) {
	before, after := feedsInForce(from), feedsInForce(to)
	was, is := map[uint64]bool{}, map[uint64]bool{}
	for _, id := range before {
		was[id] = true
	}
	for _, id := range after {
		is[id] = true
	}
	for id := range is {
		if was[id] {
			c.Continue++
		} else {
			c.Begin++
		}
	}
	c.End = len(was) - c.Continue
	for i := range list {
		r := &list[i]
		id, ok := after[r.Name]
		if r.Change == removed {
			id, ok = before[r.Name]
		}
		if !ok {
			continue // its mode is off
		}
		switch r.Feed, r.FeedChange = feedText(id), "continues"; {
		case !is[id]:
			r.FeedChange = "ends"
		case !was[id]:
			r.FeedChange = "begins"
		}
	}
	return c
}

func (c changedFeeds) String() string {
	return fmt.Sprintf("%s, %s, %s", counted(c.Begin, "feed begins", "feeds begin"), counted(c.End, "ends", "end"), counted(c.Continue, "continues", "continue"))
}

// feedsInForce are the ids of the feeds of the rules in force, by the rules' names.
func feedsInForce(l *revision.Log) map[string]uint64 {
	out := map[string]uint64{}
	for _, r := range l.InForce() {
		out[r.Name] = feedOf(l.Plan(), r)
	}
	return out
}

// feedOf is the id of the feed of a rule in a plan.
func feedOf(p *rule.Plan, r *rule.Rule) uint64 { return p.Feeds[p.FeedOf[slices.Index(p.Rules, r)]].ID }

// feedText is the name of a feed for people: they compare it with others.
func feedText(id uint64) string { return fmt.Sprintf("%08x", id>>32) }

// sortedKeys are the keys of a map, in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
