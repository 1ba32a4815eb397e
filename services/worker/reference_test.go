package worker

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"spate/shared/aws/stream"
)

// expect counts the stream of events in the plain way: every shard by itself, a child as the continuation of the parent that is furthest
// behind. It knows nothing of silence, and of the time of arrival.
func (r *rig) expect(cfg Config) (counted, tally) {
	r.t.Helper()
	newest := map[string]int64{} // event time by shard
	counts, ids, all := counted{}, map[string]bool{}, tally{}
	size, lateness := cfg.Window.Milliseconds(), cfg.Lateness.Milliseconds()
	begun := map[string]bool{}
	r.read(r.events, func(s stream.Shard, rec types.Record) {
		if !begun[s.ID] {
			begun[s.ID] = true
			for i, p := range s.Parents {
				if n := newest[p]; i == 0 || n < newest[s.ID] {
					newest[s.ID] = n
				}
			}
		}
		events, err := stream.Deaggregate(rec.Data, nil)
		if err != nil {
			all.In++
			all.Invalid++
		}
		for _, data := range events {
			all.In++
			var e struct {
				User json.Number `json:"user_id"`
				Time time.Time   `json:"txn_timestamp"`
				ID   string      `json:"event_id"`
			}
			if err := json.Unmarshal(data, &e); err != nil || e.User == "" || e.Time.IsZero() {
				all.Invalid++
				continue
			}
			at := e.Time.UnixMilli()
			start := at / size * size
			late := newest[s.ID]-lateness >= start+size-1
			newest[s.ID] = max(newest[s.ID], at)
			id := fmt.Sprint(start, e.ID)
			switch {
			case late:
				all.Late++
			case cfg.Events.ID != "" && e.ID != "" && ids[id]:
				all.Repeated++
			default:
				ids[id] = true
				all.Counted++
				counts[countKey(e.User.String(), start)]++
			}
		}
	})
	maps.DeleteFunc(counts, func(_ string, n int64) bool { return n <= cfg.Threshold })
	return counts, all
}

// check holds the alerts and the worker's own account against those of the plain way.
func (r *rig) check(cfg Config) {
	r.t.Helper()
	want, all := r.expect(cfg)
	got := r.closed()
	compare(r.t, got, want)
	st, _ := r.state()
	if st.Tally != all {
		r.t.Errorf("accounted %+v, want %+v", st.Tally, all)
	}
	if st.Pending != st.Closed {
		r.t.Errorf("a close is under way: %d, %d", st.Pending, st.Closed)
	}
	last := map[string]string{}
	r.read(r.alerts, func(s stream.Shard, rec types.Record) { last[s.ID] = *rec.SequenceNumber })
	if !maps.Equal(st.Written, last) {
		r.t.Errorf("the last alerts are at %v, but the state says %v", last, st.Written)
	}
	if len(want) == 0 {
		r.t.Error("there is nothing to find: the test proves nothing")
	}
}

func compare(t *testing.T, got, want counted) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	var diff []string
	for k, n := range want {
		if got[k] != n {
			diff = append(diff, fmt.Sprintf("%s: %d, want %d", k, got[k], n))
		}
	}
	for k, n := range got {
		if want[k] == 0 {
			diff = append(diff, fmt.Sprintf("%s: %d, want none", k, n))
		}
	}
	slices.Sort(diff)
	t.Errorf("%d alerts, want %d:\n%s", len(got), len(want), strings.Join(diff, "\n"))
}
