package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"time"

	"spate/services/explainer"
	"spate/services/verifier"
	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/rule"
	"spate/shared/terminal"
)

// ruleOf finds the rule of an alert in the log of the rules.
func (w *asker) ruleOf(a alert.Record) (explainer.Rule, error) {
	if a.Key == nil {
		size := a.WindowEnd.Sub(a.WindowStart)
		set, err := rule.Burst(size, a.Threshold, 2*a.Threshold)
		if err != nil {
			return explainer.Rule{}, err
		}
		text, params := rule.BurstFile(size, a.Threshold, w.initial.critical())
		return explainer.Rule{Rule: set.Rules[0], Source: text, Set: params, BuiltIn: true}, nil
	}
	entry, err := w.entry(a.RuleRevision)
	if err != nil {
		return explainer.Rule{}, fmt.Errorf("the rule %s of alert %s is unknown: %w", terminal.Text(a.Rule), a.ID, err)
	}
	for _, r := range entry.Set.Rules {
		if r.Name == a.Rule {
			return explainer.Rule{Rule: r, Revision: entry.Revision, Source: entry.Text, Set: entry.Record.Set, Others: entry.Set.Rules}, nil
		}
	}
	return explainer.Rule{}, fmt.Errorf("revision %d has no rule %s", entry.Revision, terminal.Text(a.Rule))
}

// rules are those with a key. Of one that was revised, it is the revision that is in force for the windows of the question.
func (w *asker) rules(values map[string]*string, only string, q explainer.Question) (list []explainer.RuleKey, err error) {
	names := sortedKeys(values)
	plan := w.Plan()
	var wrong error
	add := func(r explainer.Rule) {
		tokens, err := r.KeyTokens(values)
		if err != nil {
			wrong = fmt.Errorf("%s: %w", r.Name, err)
			return
		}
		for _, t := range tokens {
			key := []json.RawMessage{json.RawMessage(t)}
			if len(r.Keys) != 1 && json.Unmarshal([]byte(t), &key) != nil {
				continue
			}
			list = append(list, explainer.RuleKey{Rule: r, Key: key})
		}
	}
	now := time.Now()
	overlaps := func(r *rule.Rule) bool {
		if from := time.UnixMilli(r.Window.From); from.After(now) && q.From.Before(from) { // events can be ahead, but nobody asks about a rule that is yet to begin
			return false
		}
		return (r.Window.From == 0 || q.Until.UnixMilli()+r.Window.Size > r.Window.From) && (r.Window.Until == 0 || q.From.UnixMilli()-r.Window.Size < r.Window.Until)
	}
	for pass := range 2 { // first those that are in force then, then the newest of the others
		for i, r := range slices.Backward(plan.Rules) {
			known := pass == 1 && slices.ContainsFunc(list, func(k explainer.RuleKey) bool { return k.Name == r.Name })
			if !r.HasKey(names) || only != "" && r.Name != only || known || pass == 0 && !overlaps(r) || pass == 1 && len(list) > 0 && only == "" {
				continue
			}
			out := explainer.Rule{Rule: r, Revision: plan.Since[i], Others: plan.Rules}
			if out.Revision == 0 {
				src := w.initial.source()
				out.Source, out.Set, out.BuiltIn = src.Text, src.Set, true
			} else {
				entry, err := w.entry(out.Revision)
				if err != nil {
					return nil, err
				}
				out.Source, out.Set = entry.Text, entry.Record.Set
			}
			add(out)
		}
	}
	// Those that people are notified of come first.
	slices.SortStableFunc(list, func(a, b explainer.RuleKey) int {
		switch live := a.Mode == rule.Live; {
		case live == (b.Mode == rule.Live):
			return 0
		case live:
			return -1
		}
		return 1
	})
	if entry, ok := w.Newest(); ok { // a rule that is off is not in the plan
		for _, r := range entry.Set.Rules {
			if r.Mode == rule.Off && r.HasKey(names) && r.Name == only && len(list) == 0 {
				add(explainer.Rule{Rule: r, Revision: entry.Revision, Source: entry.Text, Set: entry.Record.Set})
			}
		}
	}
	switch {
	case len(list) == 0 && wrong != nil:
		return nil, usage(wrong)
	case len(list) == 0:
		return nil, usage(noSuchKey(w.InForce(), names, only))
	}
	return list, nil
}

// reference implements explainer.Reference with package verifier. The user of the built-in table is whatever the router took for it.
func reference(ctx context.Context, r explainer.Rule, events iter.Seq[explainer.Input]) ([]explainer.Group, error) {
	var user []byte // if it is selected, all events have the same
	groups, err := verifier.Explain(ctx, r.Source, r.Name, verifier.RulesOptions{Name: r.Name, Set: r.Set}, func(yield func(verifier.Event, error) bool) {
		partition := int32(0)
		for in := range events {
			user = in.User
			// Each has a partition of its own, so that none makes another late.
			if !yield(verifier.Event{Partition: partition, MS: in.MS, Appended: verifier.Unbounded, Promised: in.Closed, User: string(in.User), Column: verifier.JSONColumn(in.Text)}, nil) {
				return
			}
			partition++
		}
	})
	if err != nil {
		return nil, err
	}
	out := make([]explainer.Group, len(groups))
	for i, g := range groups {
		o := explainer.Group{Start: g.Start, End: g.End, Keys: g.Keys, Holds: g.Holds, Critical: g.Critical, Unfiltered: g.Unfiltered}
		for _, p := range g.Where {
			o.Where = append(o.Where, explainer.Part(p))
		}
		for _, c := range g.Having {
			o.Having = append(o.Having, explainer.Comparison(c))
		}
		for _, n := range g.Counted {
			o.Counted = append(o.Counted, int(n-1))
		}
		for _, n := range g.Filtered {
			o.Filtered = append(o.Filtered, int(n-1))
		}
		columns := []byte{'{'}
		for i, c := range g.Columns {
			if i > 0 {
				columns = append(columns, ',')
			}
			value := c.Value
			if i < len(r.Columns) && r.Columns[i].Type.Kind == rule.Token {
				value = user
			}
			columns = append(append(append(columns, activity.AppendString(nil, []byte(c.Name))...), ':'), value...)
		}
		if o.Columns = append(columns, '}'); g.Columns == nil {
			o.Columns = nil
		}
		out[i] = o
	}
	return out, nil
}
