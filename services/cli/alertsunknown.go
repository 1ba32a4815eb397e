package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"spate/shared/rule"
	"spate/shared/store"
	"spate/shared/terminal"
)

// alertsRulesFlags say where the rules are, whose names are asked for if nothing is listed.
type alertsRulesFlags struct {
	brokerFlags
	rulesTableFlags
	Topic string `env:"SPATE_TOPIC" default:"activity" help:"Events topic. If nothing matches --rule or --key, spate looks up the rules of the pipeline that reads this topic."`
}

const (
	// namedAlerts is how many alerts, the newest ones, are searched for names.
	namedAlerts = 10_000
	// namesWait is how long the log of the rules may take to answer.
	namesWait = 3 * time.Second
)

// ruleNames are names of rules, and of columns of keys.
type ruleNames struct{ rules, columns []string }

func (k *ruleNames) add(rule string, columns []string) {
	for _, c := range columns {
		if !slices.Contains(k.columns, c) {
			k.columns = append(k.columns, c)
		}
	}
	if !slices.Contains(k.rules, rule) {
		k.rules = append(k.rules, rule)
	}
}

// fromRules adds those of all rules that the pipeline has had.
func (k *ruleNames) fromRules(e *env, f alertsRulesFlags) error {
	l, err := f.openShortly(e)
	if err != nil {
		return err
	}
	defer l.Close()
	rules := slices.Clone(l.initial.Rules)
	for _, entry := range l.Entries() {
		rules = append(rules, entry.Set.Rules...)
	}
	for _, r := range rules {
		k.add(r.Name, ruleColumns(r))
	}
	if u := l.Unreadable(); u != nil {
		return u
	}
	return nil
}

// ruleColumns are the names of the columns of a rule's key.
func ruleColumns(r *rule.Rule) (names []string) {
	for _, c := range r.Keys {
		names = append(names, c.Name)
	}
	return names
}

// inForce are the rules in force, those that a later revision ends included; without a revision, the one of the settings.
func (l *rulesLog) inForce() []*rule.Rule {
	if _, ok := l.Newest(); !ok {
		return l.initial.Rules
	}
	return slices.Concat(l.InForce(), l.ending(time.Now()))
}

// openShortly opens the log of the rules for a command that can do without it.
func (f alertsRulesFlags) openShortly(e *env) (*rulesLog, error) {
	short := *e
	var cancel context.CancelFunc
	short.ctx, cancel = context.WithTimeout(e.ctx, namesWait)
	defer cancel()
	until := initialFlags{Window: 10 * time.Second, Threshold: 5} // only the rule's name matters, and its key
	return rulesLogFlags{f.brokerFlags, until, f.rulesTableFlags, f.Topic}.open(&short)
}

// unknown tells a rule or a column that nothing has from one that has no alerts, or no incidents: thing says which. Without an answer of the log of the
// rules, that is not certain, and no error.
func (f alertsRulesFlags) unknown(e *env, st alertReader, thing, rule string, keys []string) (said bool, err error) {
	if rule == "" && len(keys) == 0 {
		return false, nil
	}
	var k ruleNames
	n := 0
	for a, err := range st.Alerts(e.ctx, store.Filter{Newest: true, Limit: namedAlerts}) {
		if err != nil {
			return false, err
		}
		columns := []string{"user_id"}
		if a.Key != nil {
			columns = keyNames(a.Key)
		}
		k.add(a.Rule, columns)
		n++
	}
	if rule != "" { // it may have older ones
		for a, err := range st.Alerts(e.ctx, store.Filter{Rule: rule, Limit: 1}) {
			if err != nil {
				return false, err
			}
			k.add(a.Rule, nil)
		}
	}
	rerr := k.fromRules(e, f)
	if e.ctx.Err() != nil {
		return false, e.ctx.Err()
	}
	var errs []error
	if rule != "" && !slices.Contains(k.rules, rule) {
		errs = append(errs, fmt.Errorf("rule: there are no %ss from a rule named %s%s", thing, terminal.Text(rule), didYouMean(rule, k.rules)))
	}
	values, _ := keyValues(keys) // they were checked
	for _, name := range sortedKeys(values) {
		if !slices.Contains(k.columns, name) {
			errs = append(errs, fmt.Errorf("key: no %s has a key with the column %s%s", thing, terminal.Text(name), didYouMean(name, k.columns)))
		}
	}
	if rerr == nil && n < namedAlerts {
		return len(errs) > 0, usage(errors.Join(errs...))
	}
	for _, err := range errs {
		terminal.Fprintln(e.stderr, "spate:", err)
	}
	return len(errs) > 0, nil
}
