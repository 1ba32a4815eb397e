package explainer

import (
	"context"
	"encoding/json"
	"iter"
	"strings"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/rule"
)

// TestProvisionalWaiting: the numbers of an alert whose window is open include events that the router has not judged, and the text says so.
func TestProvisionalWaiting(t *testing.T) {
	at := time.Unix(1000, 0).UTC()
	a := &Answer{Reason: Holds, Provisional: true, Start: at, End: at.Add(10 * time.Second), Watermark: at, Numbers: Numbers{Counted: 14, Waiting: 5}, group: &Group{}}
	if text := a.done().Text; !strings.Contains(text, " This includes 5 events that are in the log but not counted yet: the router is behind or is not running. The window closes when ") {
		t.Error(text)
	}
	a.Numbers.Waiting = 0
	if text := a.done().Text; strings.Contains(text, "includes") {
		t.Error(text)
	}
}

// alertsOnly is a log that explains alerts only, as in mode aws.
type alertsOnly struct{ logOf }

func (alertsOnly) Between(context.Context, time.Time, time.Time, about) (*Facts, error) {
	return nil, ErrAlertsOnly
}

// TestProvisionalOfEvidence: where the log cannot be read on from the evidence of an alert that is not closed, the answer says that its numbers are older.
func TestProvisionalOfEvidence(t *testing.T) {
	set, err := rule.Burst(10*time.Second, 5, 10)
	if err != nil {
		t.Fatal(err)
	}
	reference := func(context.Context, Rule, iter.Seq[Input]) ([]Group, error) {
		return []Group{{End: 10_000, Keys: []json.RawMessage{json.RawMessage(`7`)}}}, nil
	}
	x := Explainer{Log: alertsOnly{}, Reference: reference}
	for state, want := range map[alert.State]int{alert.Opened: 1, alert.Raised: 1, alert.Closed: 0} {
		s := Stored{Record: alert.Record{UserID: json.RawMessage(`7`), State: state, WindowStart: time.UnixMilli(0), WindowEnd: time.UnixMilli(10_000)}}
		a, err := x.OfAlert(t.Context(), s, Rule{Rule: set.Rules[0], BuiltIn: true})
		if err != nil || len(a.Notes) != want {
			t.Errorf("%s: %q, %v", state, a.Notes, err)
		}
	}
}
