package verifier

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var rule = Rule{Window: 10 * time.Second, Lateness: 10 * time.Second, Threshold: 2}

func TestLate(t *testing.T) {
	type event struct {
		partition int32
		ms        int64
		late      bool
	}
	for name, events := range map[string][]event{
		"nothing is late before the first event": {{0, 0, false}},
		// The window [0, 10000) is over when the watermark reaches 9999.
		"one millisecond before the end": {{0, 19_998, false}, {0, 0, false}},
		"at the end":                     {{0, 19_999, false}, {0, 0, true}, {0, 9_999, true}, {0, 10_000, false}},
		"older than the watermark, but its window is open":   {{0, 25_000, false}, {0, 10_000, false}},
		"the event that advances is judged before":           {{0, 0, false}, {0, 1_000_000, false}},
		"the newest counts, not the last":                    {{0, 19_999, false}, {0, 10_000, false}, {0, 0, true}},
		"each partition has its own":                         {{0, 100_000, false}, {1, 0, false}, {0, 0, true}, {1, 0, false}},
		"a late event advances nothing, another window does": {{0, 19_999, false}, {0, 5, true}, {0, 29_999, false}, {0, 19_999, true}},
	} {
		r := NewReference(rule)
		var late int64
		for i, e := range events {
			if got := r.Add(e.partition, "1", e.ms, Unbounded); got != e.late {
				t.Errorf("%s: event %d: late %v", name, i, got)
			}
			if e.late {
				late++
			}
		}
		r.AddInvalid()
		if n := int64(len(events)); r.In != n+1 || r.Late != late || r.Counted != n-late || r.Invalid != 1 {
			t.Errorf("%s: in %d, counted %d, late %d, invalid %d", name, r.In, r.Counted, r.Late, r.Invalid)
		}
	}
}

func TestResult(t *testing.T) {
	r := NewReference(rule)
	add := func(user string, ms int64, n int) {
		for range n {
			r.Add(0, user, ms, Unbounded)
		}
	}
	add("10", 0, 3)
	add("9", 9_999, 2) // not above the threshold
	add("9", 10_000, 4)
	add(`"10"`, 0, 3)
	add("10", 5_000, 1)
	add("10", 10_000, 3)
	want := []Row{{`"10"`, 0, 3}, {"10", 0, 4}, {"9", 10_000, 4}, {"10", 10_000, 3}}
	if diff := cmp.Diff(want, r.Result()); diff != "" {
		t.Error(diff)
	}
}

func TestUserOrder(t *testing.T) {
	want := []string{`"1"`, `"a"`, "-10", "-9", "0", "1", "1.0", "1.5", "1e1", "11", "9007199254740992", "9007199254740993", "1e300"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, compareUsers)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
