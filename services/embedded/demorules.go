package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/simulator"
	"spate/services/verifier"
	"spate/shared/alert"
)

// judgeRules holds the alerts of a rules file against what SQLite finds in the log, and against the truth about attackers and innocents.
func (s *stack) judgeRules(ctx context.Context, cfg DemoConfig, truth []simulator.Truth, alerts []alert.Record, res *DemoResult) error {
	fields := verifier.Rule{User: cfg.Events.Fields.User, Time: cfg.Events.Fields.Time}
	enough := errors.New("nobody wants more")
	o := verifier.RulesOptions{Name: cfg.Rules.Name, Set: cfg.Rules.Set, Lateness: s.cfg.Lateness, MaxAhead: s.cfg.MaxAhead}
	report, err := verifier.Rules(ctx, cfg.Rules.Text, o, func(yield func(verifier.Event, error) bool) {
		err := s.readAll(ctx, s.layout.Names.Activity, func(r *kgo.Record) error {
			if !yield(fields.Event(r.Partition, r.Value, r.Timestamp), nil) {
				return enough
			}
			return nil
		})
		if err != nil && !errors.Is(err, enough) {
			yield(verifier.Event{}, err)
		}
	})
	if err != nil {
		return err
	}
	res.Rules = verifier.CompareRules(report, alerts)
	for _, d := range res.Rules {
		res.Missing, res.Extra = res.Missing+d.Missing, res.Extra+d.Extra
	}
	found, all := map[string]int{}, map[string]int{}
	for _, t := range truth {
		kind := string(t.Kind)
		about := slices.ContainsFunc(alerts, func(a alert.Record) bool { return a.Mode != alert.Shadow && isAbout(a, t) }) // nobody is notified of others
		switch {
		case t.Innocent:
			if about && !slices.Contains(res.Flagged, kind) {
				res.Flagged = append(res.Flagged, kind)
			}
		default:
			if all[kind]++; about {
				found[kind]++
			}
		}
	}
	slices.Sort(res.Flagged)
	for kind, n := range all {
		res.Recall[kind] = float64(found[kind]) / float64(n)
	}
	return nil
}

// isAbout reports whether an alert is about an attack: it has the columns of its key, and a window with one of its events.
func isAbout(a alert.Record, t simulator.Truth) bool {
	if a.WindowStart.UnixMilli() > t.ToMS || a.WindowEnd.UnixMilli() <= t.FromMS {
		return false
	}
	key := map[string]json.RawMessage{}
	if a.Key == nil {
		key["user_id"] = a.UserID
	} else if json.Unmarshal(a.Key, &key) != nil {
		return false
	}
	for name, want := range t.Key {
		if strings.Trim(string(key[name]), `"`) != want {
			return false
		}
	}
	return len(t.Key) > 0
}
