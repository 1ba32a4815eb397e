package router

import (
	"maps"
	"slices"
	"time"

	"spate/shared/window"
)

// maxLead is how far a source partition may be ahead of the slowest in event time, beyond a window and its lateness, while there is a
// backlog.
const maxLead = time.Minute

// align keeps the owned source partitions together in event time while there is a backlog. All windows between the slowest and the fastest
// are open, with everyone who has an event in them: partitions that are read at their own pace, one with a week behind it and the next with
// a day, would fill the detectors' memory.
//
// Only a partition that has events waiting holds others back, for it will come forward by being read. One that is read to its end does not,
// whatever its clock says.
func (s *session) align() {
	parts, owned := s.sources.snapshot()
	ahead := leaders(parts, owned, s.maxLeadMS)
	if maps.Equal(ahead, s.waiting) {
		return
	}
	topic := s.cfg.Layout.Names.Activity
	cl := s.txn.Client()
	cl.ResumeFetchPartitions(map[string][]int32{topic: slices.Collect(maps.Keys(s.waiting))})
	cl.PauseFetchPartitions(map[string][]int32{topic: slices.Collect(maps.Keys(ahead))})
	s.waiting = ahead
	s.metrics.waiting.Set(float64(len(ahead)))
}

// leaders are the partitions that are ahead of the slowest one with a backlog by more than maxLead.
func leaders(parts []int32, owned map[int32]*source, maxLead int64) map[int32]bool {
	slowest := int64(window.EndOfTime)
	for _, p := range parts {
		if src := owned[p]; src.waiting() > 0 && src.now.MaxTS != window.NoTime {
			slowest = min(slowest, src.now.MaxTS)
		}
	}
	out := make(map[int32]bool)
	for _, p := range parts {
		if ts := owned[p].now.MaxTS; ts != window.NoTime && ts-maxLead > slowest {
			out[p] = true
		}
	}
	return out
}
