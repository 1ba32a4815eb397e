package window

import (
	"slices"
	"testing"

	"spate/shared/rule"
	"spate/shared/rule/ruletest"
)

// TestEvaluate: the rows are those that Apache Flink has, and what the two halves find that run apart.
func TestEvaluate(t *testing.T) {
	logs := map[string]*ruletest.Log{}
	for _, c := range ruletest.Cases(t) {
		set, errs := rule.Compile(c.SQL, rule.Options{Name: c.Rule})
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		if set.Rules[0].Window.Kind == rule.Session {
			continue
		}
		t.Run(c.Rule+"/"+c.Input, func(t *testing.T) {
			if logs[c.Input] == nil {
				logs[c.Input] = ruletest.ReadLog(t, c.Input)
			}
			stream, err := NewStream(set.Plan(), ruletest.LatenessMS*1e6)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Evaluate(stream, 1, arrivals(logs[c.Input].Events(t, set.Inputs)))
			if err != nil {
				t.Fatal(err)
			}
			var lines []ruletest.Timed
			for _, v := range got.Verdicts {
				if v.State == Closed {
					lines = append(lines, ruletest.Timed{Start: v.Pane.StartMS, End: v.Pane.EndMS(), Line: "{" + string(v.Columns) + "}"})
				}
			}
			ruletest.Diff(t, set.Rules[0], ruletest.Sort(lines), c.Want)
			if !c.Late && got.Late > 0 {
				t.Errorf("%d late events", got.Late)
			}
		})
	}
}

// TestEvaluatePartitions: an event is late by the watermark of its own partition only.
func TestEvaluatePartitions(t *testing.T) {
	set, errs := rule.Compile(`INSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 1`, rule.Options{Name: "two", Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	stream, err := NewStream(set.Plan(), 0)
	if err != nil {
		t.Fatal(err)
	}
	events := make([]*Event, 0, 3)
	for i, ms := range []int64{1000, 20_000, 2000} {
		e := &Event{MS: ms, Partition: int32(i % 2), Offset: int64(i), Values: make([]rule.Value, len(set.Inputs))}
		for k, in := range set.Inputs {
			if in.Type.Kind == rule.Token {
				e.Values[k] = rule.TokenValue([]byte("7"))
			}
		}
		events = append(events, e)
	}
	got, err := Evaluate(stream, 2, slices.Values(events))
	if err != nil || got.Late != 0 || len(got.Verdicts) != 2 || got.Verdicts[0].State != Opened || got.Verdicts[1].State != Closed {
		t.Errorf("%+v, %v; want a window that opens and closes", got, err)
	}
	if _, err := Evaluate(stream, 1, slices.Values(events)); err == nil {
		t.Error("partition 1 of 1 is accepted")
	}
	for _, e := range events {
		e.Partition = 0
	}
	if got, err := Evaluate(stream, 1, slices.Values(events)); err != nil || got.Late != 1 || len(got.Verdicts) != 0 {
		t.Errorf("%+v, %v; want a late event and no window", got, err)
	}
}

// arrivals are the events of a log on one source partition.
func arrivals(log []ruletest.Event) func(func(*Event) bool) {
	return func(yield func(*Event) bool) {
		for i, e := range log {
			if !yield(&Event{MS: e.MS, Offset: int64(i), Values: e.Values}) {
				return
			}
		}
	}
}
