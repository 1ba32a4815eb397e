package evidence

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/format"
)

// maxGuesses bounds the pairs of fields that are tried.
const maxGuesses = 1000

// guess returns the fields of user and time by which the log has the events that an alert counted, or nil. The alert has the user, the window, the
// number of events, and the times of the first and the last. Only fields that match all of these are returned: an event that merely mentions the user
// is not the user's.
func guess(ctx context.Context, a alert.Record, cfg format.Config, from source) *activity.Fields {
	events, err := format.New(cfg)
	if err != nil {
		return nil
	}
	start, end := a.WindowStart.UnixMilli(), a.WindowEnd.UnixMilli()
	type pair struct {
		user, time string
		format     activity.TimeFormat
	}
	type span struct{ n, first, last int64 }
	fits := make(map[pair]span)
	err = from(ctx, &Found{}, func(_ context.Context, _ Place, value []byte, _ []kgo.RecordHeader) error {
		var users []string
		var times []pair
		var at []int64
		members(events.Text(value), nil, func(path []string, value json.RawMessage) {
			if activity.Absent(value) || value[0] == 't' || value[0] == 'f' {
				return
			}
			if user, reason := activity.CanonicalUser(value); reason == activity.ReasonNone && bytes.Equal(user, a.UserID) {
				users = append(users, activity.PathText(path))
			}
			for _, f := range []activity.TimeFormat{activity.TimeAuto, activity.TimeS, activity.TimeMS, activity.TimeUS, activity.TimeNS} {
				if ms, reason := f.Instant(value); reason == activity.ReasonNone && ms >= start && ms < end {
					times, at = append(times, pair{time: activity.PathText(path), format: f}), append(at, ms)
					break
				}
			}
		})
		for _, u := range users {
			for i, p := range times {
				p.user = u
				f, known := fits[p]
				switch {
				case !known && len(fits) == maxGuesses:
					continue
				case !known:
					f = span{first: at[i], last: at[i]}
				}
				fits[p] = span{f.n + 1, min(f.first, at[i]), max(f.last, at[i])}
			}
		}
		return nil
	})
	if err != nil {
		return nil
	}
	fewest := func(p, q pair) int {
		return cmp.Or(cmp.Compare(fits[p].n, fits[q].n), cmp.Compare(p.user, q.user), cmp.Compare(p.time, q.time), cmp.Compare(p.format, q.format))
	}
	for _, p := range slices.SortedFunc(maps.Keys(fits), fewest) {
		f := fits[p]
		if f.first != a.FirstEventAt.UnixMilli() || f.n < a.Count || a.State == alert.Closed && (f.n > a.Count || f.last != a.LastEventAt.UnixMilli()) {
			continue
		}
		if fields := (activity.Fields{User: []string{p.user}, Time: []string{p.time}, TimeFormat: p.format}); fields.Validate() == nil {
			return &fields
		}
	}
	return nil
}
