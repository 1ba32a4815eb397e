// Package horizon defines what the worker reports to the alerter in mode aws: up to which event time every alert is written, and where the last alerts are in the
// stream of alerts. The horizon is part of the state that the worker saves with its lease. An incident that is due by that event time ends when all alerts up to these
// places are stored, so its end depends on no clock, and a restart of either process loses nothing.
package horizon

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"spate/shared/aws/stream"
	"spate/shared/window"
)

// Horizon is part of the worker's state.
type Horizon struct {
	// Closed is the watermark up to which the alerts of all windows are written.
	Closed int64 `json:"closed"`
	// Over is a watermark beyond Closed up to which no window has any event, as far as is known: while all of the input is silent, event time walks on with the
	// wall clock. 0 is none: it is taken back before an alert of events that come after all is written.
	Over int64 `json:"over,omitempty"`
	// Written is the sequence number of the last alert in each shard of the stream of alerts, by the time of Closed; nil if it was not recorded yet.
	Written map[string]string `json:"written"`
}

// maxShards bounds how many shards are remembered: a stream that is split and merged for years has many, and those that were written long ago are stored.
const maxShards = 1000

// lastTime is the latest event time that every store can keep.
const lastTime = 253402300799999 // the end of the year 9999, in milliseconds

// Parse reads the horizon from a worker's state. It reports false if the state has no usable horizon: no window is closed yet, or a worker of an earlier version saved
// the state.
func Parse(state []byte) (h Horizon, ok bool, err error) {
	if len(state) == 0 {
		return Horizon{}, false, nil
	}
	if err := json.Unmarshal(state, &h); err != nil {
		return Horizon{}, false, fmt.Errorf("decode the worker's state: %w", err)
	}
	return h, h.Written != nil && h.Closed != window.NoTime, nil
}

// UpTo returns the event time up to which the alerts of all windows that end by then are written.
func (h Horizon) UpTo() time.Time {
	at := h.Closed
	if h.Over > at && h.Over != 0 {
		at = h.Over
	}
	return time.UnixMilli(min(at, lastTime) + 1).UTC()
}

// Newest returns the place of the last alert of all; empty if none was recorded.
func (h Horizon) Newest() (shard, last string) {
	for id, seq := range h.Written {
		if stream.Before(last, seq) || seq == last && id < shard {
			shard, last = id, seq
		}
	}
	return shard, last
}

// Wrote records where alerts were written.
func (h *Horizon) Wrote(places []stream.Place) {
	if h.Written == nil {
		h.Written = make(map[string]string)
	}
	for _, p := range places {
		if p.ShardID != "" && stream.Before(h.Written[p.ShardID], p.SequenceNumber) {
			h.Written[p.ShardID] = p.SequenceNumber
		}
	}
	if n := len(h.Written) - maxShards; n > 0 {
		oldest := slices.SortedFunc(maps.Keys(h.Written), func(a, b string) int {
			x, y := h.Written[a], h.Written[b]
			switch {
			case stream.Before(x, y):
				return -1
			case stream.Before(y, x):
				return 1
			}
			return strings.Compare(a, b)
		})
		for _, id := range oldest[:n] {
			delete(h.Written, id)
		}
	}
}
