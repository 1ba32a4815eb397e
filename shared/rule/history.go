package rule

import (
	"fmt"
	"slices"
	"strings"
)

// History is the rules of a pipeline over time: revisions, one after the other, each of which is in force from a boundary on. A window belongs
// to the revision that is in force when it begins:
//
//	revision 1   [--------)[--------)[--------)            windows of a rule that revision 2 changes
//	revision 2                                 [--------)[--------)
//	both         [------------------)[------------------)[-----      a rule that it leaves alone
//	             ------------------------------|-------------------► event time
//	                                        boundary
//
// A rule that a revision leaves alone goes on as if nothing had happened: it keeps its windows and its feed. One that is changed ends at the
// boundary, and its successor begins there. A revision whose boundary is before that of others takes their place: it follows what is in force at its
// boundary, and they never are. So a boundary that is in the far future by mistake does not block later changes. Its zero value has no rules.
type History struct {
	plan   *Plan
	inputs []Input
	live   []int    // the numbers of the rules that are in force from the last boundary on
	texts  []string // the identities of all rules: there are many when rules were revised often
	fromMS int64
}

// Inputs are those of all revisions so far; rules of the next one must be compiled with them ([Options.Inputs]).
func (h *History) Inputs() []Input { return h.inputs }

// Plan is that of all revisions so far.
func (h *History) Plan() *Plan { return h.plan }

// InForce are the rules that are in force from the last boundary on.
func (h *History) InForce() []*Rule {
	out := make([]*Rule, 0, len(h.live))
	for _, i := range h.live {
		out = append(out, h.plan.Rules[i])
	}
	return out
}

// Add makes a revision follow, for the windows that begin at fromMS or later; 0, for the first one, is the beginning of time. Nothing must have been
// counted for windows that begin at the boundary or later. The set must be compiled with [History.Inputs].
func (h *History) Add(revision int64, s *Set, fromMS int64) {
	p, old := &Plan{Origin: revision}, h.plan
	before := h.live
	if old != nil {
		p.Origin = old.Origin
		fromMS = max(fromMS, 1) // 0 means no bound
		p.Rules, p.FeedOf, p.Since = slices.Clone(old.Rules), slices.Clone(old.FeedOf), slices.Clone(old.Since)
		for _, f := range old.Feeds {
			c := *f
			p.Feeds = append(p.Feeds, &c)
		}
		if fromMS < h.fromMS {
			before = p.revoke(fromMS)
		}
	}
	h.fromMS = fromMS
	begun := len(p.Feeds)
	h.live, h.texts = nil, slices.Clip(h.texts) // copies of the history do not see what follows
	for _, r := range s.Rules {
		if r.Mode == Off {
			continue
		}
		text := r.identity()
		if k := slices.IndexFunc(before, func(i int) bool { return h.texts[i] == text }); k >= 0 {
			h.live = append(h.live, before[k])
			p.until(before[k], 0)
			continue
		}
		c := *r
		c.Window.From = h.fromMS
		h.live, h.texts = append(h.live, len(p.Rules)), append(h.texts, text)
		p.Rules, p.FeedOf, p.Since = append(p.Rules, &c), append(p.FeedOf, p.feedFor(&c, begun)), append(p.Since, revision)
	}
	for _, i := range before {
		if !slices.Contains(h.live, i) {
			p.until(i, h.fromMS)
		}
	}
	for _, f := range p.Feeds {
		f.rules = nil
	}
	for k, r := range p.Rules {
		p.Feeds[p.FeedOf[k]].join(r)
	}
	for _, f := range p.Feeds[begun:] {
		f.ID = f.id()
	}
	p.Revision, p.Inputs = revision, s.Inputs
	h.plan, h.inputs = p, s.Inputs
}

// StartOver makes the newest revision the origin of the plan: rules that were judged by are no longer in it, so numbers of rules and feeds mean others.
func (h *History) StartOver() {
	p := *h.plan
	p.Origin = p.Revision
	h.plan = &p
}

// revoke ends the rules that begin after a time before they begin, and returns those that are in force at that time.
func (p *Plan) revoke(atMS int64) (inForce []int) {
	for i, r := range p.Rules {
		switch {
		case r.Window.From > atMS:
			p.until(i, r.Window.From)
		case r.Window.Until == 0 || r.Window.Until > atMS:
			inForce = append(inForce, i)
		}
	}
	return inForce
}

// until makes a time the end of a rule; 0 for none.
func (p *Plan) until(i int, ms int64) {
	if p.Rules[i].Window.Until != ms {
		c := *p.Rules[i]
		c.Window.Until = ms
		p.Rules[i] = &c
	}
}

// feedFor is the number of the feed that a new rule joins. What a feed counts never changes: of those that there were before, the rule joins one
// only if it has all that the rule needs. Those from begun on are new.
func (p *Plan) feedFor(r *Rule, begun int) int {
	key := r.FeedKey()
	at := slices.IndexFunc(p.Feeds, func(f *Feed) bool { return f.key == key && f.has(r) })
	if at < 0 {
		if at = slices.IndexFunc(p.Feeds[begun:], func(f *Feed) bool { return f.key == key }); at >= 0 {
			at += begun
		}
	}
	if at < 0 {
		f := &Feed{where: r.where, keys: r.Keys, key: key}
		f.SliceMS, f.OffsetMS, f.GapMS = r.Window.slice()
		at = len(p.Feeds)
		p.Feeds = append(p.Feeds, f)
	}
	p.Feeds[at].join(r)
	return at
}

// identity is a text that two rules of different revisions share only if they are the same rule, which gives the same alerts.
func (r *Rule) identity() string {
	var b strings.Builder
	w := r.Window
	fmt.Fprintf(&b, "%q %s %q %q %s | %s %d %d %d", r.Name, r.Mode, r.Summary, r.Runbook, r.FeedKey(), w.Kind, w.Size, w.Step, w.Offset)
	if r.Quiet != 0 {
		fmt.Fprintf(&b, " quiet %s", r.Quiet)
	}
	if d := r.Decision.String(); d != "" {
		fmt.Fprintf(&b, " decision %s", d)
	}
	for _, k := range r.Keys {
		fmt.Fprintf(&b, " %q", k.Name)
	}
	for _, a := range r.Aggregates {
		fmt.Fprintf(&b, " %q", a.key)
	}
	for _, n := range []*node{r.having, r.critical} {
		if b.WriteString(" |"); n != nil {
			fmt.Fprintf(&b, "%q", n.key)
		}
	}
	for _, c := range r.Columns {
		fmt.Fprintf(&b, " %q %v %q", c.Name, c.Type, c.node.key)
	}
	return b.String()
}
