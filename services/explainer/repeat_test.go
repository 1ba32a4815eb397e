package explainer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/evidence"
	"spate/shared/rule"
)

// logOf is a log of the events of one key.
type logOf []Event

func (l logOf) Of(context.Context, alert.Evidence, time.Time, time.Time, about) (*Facts, error) {
	return &Facts{Events: l}, nil
}

func (l logOf) Between(context.Context, time.Time, time.Time, about) (*Facts, error) {
	return nil, fmt.Errorf("an alert says where its events are")
}

// TestRepeated: of several events with an id, the first in the log counts that WHERE lets pass. The others are listed, and in the window only.
func TestRepeated(t *testing.T) {
	// The fake reference has one window, of a key and 10 s, and events that say no do not pass.
	reference := func(_ context.Context, _ Rule, events iter.Seq[Input]) ([]Group, error) {
		g, i := Group{End: 10_000, Keys: []json.RawMessage{json.RawMessage(`7`)}}, 0
		for in := range events {
			if bytes.Contains(in.Text, []byte("no")) {
				g.Filtered = append(g.Filtered, i)
			} else {
				g.Counted = append(g.Counted, i)
			}
			i++
		}
		return []Group{g}, nil
	}
	for _, c := range []struct {
		name   string
		step   time.Duration // of HOP; 0 is TUMBLE
		events []string      // time in ms, offset, id, text
		want   string        // offset and fate of those that are listed
	}{
		{"other ids", 0, []string{"1 0 a yes", "2 1 b yes"}, "0 counted, 1 counted"},
		{"no id", 0, []string{"1 0 - yes", "2 1 - yes"}, "0 counted, 1 counted"},
		{"sent twice", 0, []string{"1 0 a yes", "1 1 a yes"}, "0 counted, 1 repeated"},
		{"in the same window", 0, []string{"1 0 a yes", "6000 1 a yes"}, "0 counted, 1 repeated"},
		{"in the same step", 5 * time.Second, []string{"1 0 a yes", "4000 1 a yes"}, "0 counted, 1 repeated"},
		{"in another step", 5 * time.Second, []string{"1 0 a yes", "6000 1 a yes"}, "0 counted, 1 counted"},
		{"in the same step, which does not divide the size", 7 * time.Second, []string{"1 0 a yes", "1500 1 a yes"}, "0 counted, 1 counted"},
		{"with an earlier time", 0, []string{"1 1 a yes", "2 0 a yes"}, "1 repeated, 0 counted"},
		{"WHERE does not let the first pass", 0, []string{"1 0 a no", "1 1 a yes", "1 2 a yes"}, "0 filtered, 1 counted, 2 repeated"},
	} {
		var log logOf
		for _, text := range c.events {
			var ms, offset int64
			var id, fields string
			if _, err := fmt.Sscan(text, &ms, &offset, &id, &fields); err != nil {
				t.Fatal(err)
			}
			partition := int32(0)
			e := Event{Place: evidence.Place{Partition: &partition, Offset: &offset}, At: time.UnixMilli(ms), Fate: Counted, fields: []byte(fields), user: []byte(`7`), id: strings.Trim(id, "-")}
			log = append(log, e)
		}
		set, err := rule.Burst(10*time.Second, 5, 10)
		if err != nil {
			t.Fatal(err)
		}
		set.Rules[0].Window.Step = c.step.Milliseconds()
		x := Explainer{Log: log, Reference: reference, Most: 9}
		s := Stored{Record: alert.Record{UserID: json.RawMessage(`7`), State: alert.Closed, Count: int64(strings.Count(c.want, "counted")), WindowStart: time.UnixMilli(0), WindowEnd: time.UnixMilli(10_000)}}
		a, err := x.OfAlert(t.Context(), s, Rule{Rule: set.Rules[0], BuiltIn: true})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range a.Events {
			got = append(got, fmt.Sprint(*e.Offset, " ", e.Fate))
		}
		if strings.Join(got, ", ") != c.want || a.Numbers.Recount == nil || !*a.Numbers.Recount || a.Numbers.Repeated != strings.Count(c.want, "repeated") {
			t.Errorf("%s: %v, want %s; %+v", c.name, got, c.want, a.Numbers)
		}
	}
}
