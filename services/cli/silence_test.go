package cli

import (
	"context"
	"iter"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spate/shared/incident"
	"spate/shared/store"
)

// askedLister counts how often it is asked for a list.
type askedLister struct {
	incidents []incident.Incident
	asked     int
}

func (l *askedLister) Incidents(_ context.Context, f store.IncidentFilter) iter.Seq2[incident.Incident, error] {
	l.asked++
	return func(yield func(incident.Incident, error) bool) {
		for _, i := range l.incidents {
			if (f.Silenced == "" || f.Silenced == i.Silenced) && !yield(i, nil) {
				return
			}
		}
	}
}

// TestKeptBy: in mode aws, where each list reads the whole table, it is read once for all silences.
func TestKeptBy(t *testing.T) {
	silences := []incident.Silence{{ID: "a"}, {ID: "b"}, {ID: "c"}}
	for once, asked := range map[bool]int{true: 1, false: 3} {
		l := &askedLister{incidents: []incident.Incident{{ID: "1", Silenced: "a"}, {ID: "2"}, {ID: "3", Silenced: "b"}, {ID: "4", Silenced: "a"}}}
		got, err := keptBy(t.Context(), l, silences, once)
		if err != nil {
			t.Fatal(err)
		}
		delete(got, "")
		if diff := cmp.Diff(map[string]int{"a": 2, "b": 1}, got); diff != "" || l.asked != asked {
			t.Errorf("once %v: asked %d times: %s", once, l.asked, diff)
		}
		if _, err := keptBy(t.Context(), l, nil, once); err != nil || l.asked != asked {
			t.Errorf("without silences: %v", err)
		}
	}
}
