package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"spate/shared/store"
	"spate/shared/terminal"
)

// alertsRulesFlags say where the rules are, whose names are asked for if nothing is listed.
type alertsRulesFlags struct {
	brokerFlags
	rulesTableFlags
	Topic string `env:"SPATE_TOPIC" default:"activity" help:"Events topic; if no alert matches --rule or --key, the names of the rules are looked up beside it."`
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
	short := *e
	var cancel context.CancelFunc
	short.ctx, cancel = context.WithTimeout(e.ctx, namesWait)
	defer cancel()
	until := initialFlags{Window: 10 * time.Second, Threshold: 5} // only the rule's name matters, and its key
	l, err := rulesLogFlags{f.brokerFlags, until, f.rulesTableFlags, f.Topic}.open(&short)
	if err != nil {
		return err
	}
	defer l.Close()
	rules := slices.Clone(l.initial.Rules)
	for _, entry := range l.Entries() {
		rules = append(rules, entry.Set.Rules...)
	}
	for _, r := range rules {
		var columns []string
		for _, c := range r.Keys {
			columns = append(columns, c.Name)
		}
		k.add(r.Name, columns)
	}
	if u := l.Unreadable(); u != nil {
		return u
	}
	return nil
}

// unknown tells a rule or a column that nothing has from one that has no alerts. Without an answer of the log of the rules, that is not certain, and no
// error.
func (c *alertsLsCommand) unknown(e *env, st alertReader) error {
	var k ruleNames
	n := 0
	for a, err := range st.Alerts(e.ctx, store.Filter{Newest: true, Limit: namedAlerts}) {
		if err != nil {
			return err
		}
		columns := []string{"user_id"}
		if a.Key != nil {
			columns = keyNames(a.Key)
		}
		k.add(a.Rule, columns)
		n++
	}
	if c.Rule != "" { // it may have older ones
		for a, err := range st.Alerts(e.ctx, store.Filter{Rule: c.Rule, Limit: 1}) {
			if err != nil {
				return err
			}
			k.add(a.Rule, nil)
		}
	}
	rerr := k.fromRules(e, c.alertsRulesFlags)
	if e.ctx.Err() != nil {
		return e.ctx.Err()
	}
	var errs []error
	if c.Rule != "" && !slices.Contains(k.rules, c.Rule) {
		errs = append(errs, fmt.Errorf("rule: there are no alerts from a rule named %s%s", terminal.Text(c.Rule), didYouMean(c.Rule, k.rules)))
	}
	values, _ := keyValues(c.Key) // they were checked
	for _, name := range sortedKeys(values) {
		if !slices.Contains(k.columns, name) {
			errs = append(errs, fmt.Errorf("key: no alert has a key with the column %s%s", terminal.Text(name), didYouMean(name, k.columns)))
		}
	}
	if rerr == nil && n < namedAlerts {
		return usage(errors.Join(errs...))
	}
	for _, err := range errs {
		terminal.Fprintln(e.stderr, "spate:", err)
	}
	return nil
}
