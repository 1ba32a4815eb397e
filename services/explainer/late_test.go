package explainer

import (
	"testing"
	"time"

	"spate/shared/rule"
)

// TestClosedFor: of rules whose windows begin at the same time, it is found out which one an event was late for.
func TestClosedFor(t *testing.T) {
	of := func(kind rule.WindowKind, size, step int64) *rule.Rule {
		return &rule.Rule{Window: rule.Window{Kind: kind, Size: size, Step: step}}
	}
	short, long, steps := of(rule.Tumble, 10_000, 0), of(rule.Tumble, 60_000, 0), of(rule.Cumulate, 60_000, 10_000)
	for _, c := range []struct {
		name       string
		rules      []*rule.Rule
		at, missed int64
		by, want   int64
	}{
		{"of one rule", []*rule.Rule{long}, 3_000, 0, 5, 60_004},
		{"of the short one", []*rule.Rule{short, long}, 3_000, 0, 5_001, 15_000},
		{"of the short one, which comes last", []*rule.Rule{long, short}, 3_000, 0, 5_001, 15_000},
		{"of the short one, although the long one was missed, too", []*rule.Rule{short, long}, 3_000, 0, 70_001, 80_000},
		{"of the long one", []*rule.Rule{long, short}, 33_000, 0, 1, 60_000},
		{"CUMULATE", []*rule.Rule{steps}, 33_000, 0, 1, 60_000},
	} {
		for _, r := range c.rules {
			got := Rule{Rule: r, Others: c.rules}.closedFor(Event{At: time.UnixMilli(c.at), missed: c.missed, LateByMS: c.by})
			if got != c.want {
				t.Errorf("%s: %d, want %d", c.name, got, c.want)
			}
		}
	}
}
