package cli

import (
	"fmt"
	"slices"

	"spate/services/alerter/deliver"
	"spate/shared/rule"
	"spate/shared/terminal"
)

// strangeRules says which rules the endpoints name that are not in force: nothing is told of them until they are applied.
func strangeRules(configured []deliver.Endpoint, inForce []*rule.Rule) (lines []string) {
	var names []string
	for _, r := range inForce {
		names = append(names, r.Name)
	}
	for _, ep := range configured {
		for _, name := range ep.Filter.Rules {
			if !slices.Contains(names, name) {
				lines = append(lines, fmt.Sprintf("endpoint %s: rules: no rule in force is named %s%s", ep.Name, terminal.Text(name), didYouMean(name, names)))
			}
		}
	}
	return lines
}

// strangeRules is strangeRules for the rules in force; nothing if they cannot be read.
func (f alertsRulesFlags) strangeRules(e *env, configured []deliver.Endpoint) []string {
	if !slices.ContainsFunc(configured, func(ep deliver.Endpoint) bool { return len(ep.Filter.Rules) > 0 }) {
		return nil
	}
	l, err := f.openShortly(e)
	if err != nil {
		return nil
	}
	defer l.Close()
	if l.Unreadable() != nil {
		return nil
	}
	return strangeRules(configured, l.inForce())
}

// warnRules says it on standard error.
func (f alertsRulesFlags) warnRules(e *env, configured []deliver.Endpoint) {
	for _, line := range f.strangeRules(e, configured) {
		terminal.Fprintln(e.stderr, "spate: warning:", terminal.Safe(line))
	}
}
