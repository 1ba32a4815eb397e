package worker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"spate/shared/aws/horizon"
)

// Report is what a state says of how far its worker has come, for people.
type Report struct {
	horizon.Horizon
	// Saved is when that was so, by the worker's clock; zero for a worker of an earlier version, which says less.
	Saved time.Time
	// In is how many events were judged, Late and Invalid how many of them are not counted for these reasons, and Alerts how many records of alerts were written.
	In, Late, Invalid, Alerts int64
	Shards                    []ShardReport // those that are read, by their ids
}

// ShardReport is how far a shard was read.
type ShardReport struct {
	ID    string
	After string // sequence number of the last record that was read
	// Known is false if it was not read since the worker began; then nothing of the following is known.
	Known  bool
	Newest int64         // the highest event time
	Behind time.Duration // how far reading was behind the newest record
	Silent time.Time     // since when it holds no windows open; zero: it does
}

// ReadReport reads a state.
func ReadReport(b []byte) (Report, error) {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return Report{}, fmt.Errorf("decode %w: %w", errState, err)
	}
	t := s.Tally
	r := Report{Horizon: s.Horizon, In: t.In, Late: t.Late + t.Idle, Invalid: t.Invalid, Alerts: s.Alerts}
	if s.SavedMS > 0 {
		r.Saved = time.UnixMilli(s.SavedMS).UTC()
	}
	for id, p := range s.Shards {
		if p.Waits || p.Ended {
			continue // a parent is read in its place, or its children are
		}
		sh := ShardReport{ID: id, After: p.After, Known: p.Seen != nil}
		if p.Cut != "" {
			sh.After = p.Cut
		}
		if p.Seen != nil {
			sh.Newest, sh.Behind = p.Seen.Newest, time.Duration(p.Seen.BehindMS)*time.Millisecond
			if p.Seen.SilentSince > 0 {
				sh.Silent = time.UnixMilli(p.Seen.SilentSince).UTC()
			}
		}
		r.Shards = append(r.Shards, sh)
	}
	slices.SortFunc(r.Shards, func(a, b ShardReport) int { return strings.Compare(a.ID, b.ID) })
	return r, nil
}
