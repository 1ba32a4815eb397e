package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"spate/shared/fault"
	"spate/shared/window"
)

// lookForSilence marks owned partitions idle that are read to their end and have had no event for the idle timeout, takes that back from
// those that hold something unread, and renews what is known of other routers' partitions if a promise depends on it.
func (s *session) lookForSilence(ctx context.Context) error {
	if s.cfg.IdleTimeout <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	parts, owned := s.sources.snapshot()
	now := s.cfg.Now().UnixMilli()
	var quiet []int32
	for _, p := range parts {
		if src := owned[p]; src.now.Idle || now-src.heard >= s.cfg.IdleTimeout.Milliseconds() || fault.HastyPromise {
			quiet = append(quiet, p)
		}
	}
	if len(quiet) == 0 {
		return nil
	}
	atEnd, err := s.readToEnd(ctx, quiet, owned)
	if err != nil {
		// What cannot be seen may hold something: nothing more is promised until it can.
		for _, p := range quiet {
			owned[p].now.Idle = false
		}
		return err
	}
	idle := false
	for _, p := range quiet {
		src := owned[p]
		src.now.Idle = slices.Contains(atEnd, p)
		idle = idle || src.now.Idle
	}
	if idle && len(parts) < int(s.sources.total) {
		foreign, err := s.fetchForeign(ctx, owned)
		if err != nil {
			return err
		}
		s.foreign = foreign
	}
	s.promise(parts, owned)
	return nil
}

// readToEnd returns those of the partitions that hold nothing that was not read. It learns positions that are not known yet.
func (s *session) readToEnd(ctx context.Context, parts []int32, owned map[int32]*source) ([]int32, error) {
	topic := s.cfg.Layout.Names.Activity
	ends, err := s.adm.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("list end offsets: %w", err)
	}
	starts, err := s.adm.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("list start offsets: %w", err)
	}
	var out []int32
	for _, p := range parts {
		end, ok := ends.Lookup(topic, p)
		start, ok2 := starts.Lookup(topic, p)
		if !ok || !ok2 || end.Err != nil || start.Err != nil {
			return nil, fmt.Errorf("offsets of partition %d are not known", p)
		}
		src := owned[p]
		if src.position < start.Offset { // nothing was read yet, or retention has passed by what was
			src.position = start.Offset
		}
		if src.position >= end.Offset {
			out = append(out, p)
		}
	}
	return out, nil
}

// fetchForeign reads the states of partitions that other routers own out of the offsets they committed. They are never ahead of the
// truth, and watermarks only grow, so a promise made of them is safe.
func (s *session) fetchForeign(ctx context.Context, owned map[int32]*source) (map[int32]window.Peer, error) {
	names := s.cfg.Layout.Names
	offsets, err := s.adm.FetchOffsets(ctx, names.RouterGroup)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetch states of other routers: %w", err)
	}
	out := make(map[int32]window.Peer)
	offsets.Each(func(o kadm.OffsetResponse) {
		if o.Topic != names.Activity || owned[o.Partition] != nil || o.Err != nil {
			return
		}
		src, perr := window.ParseSource(o.Metadata)
		if perr != nil {
			err = fmt.Errorf("state of partition %d: %w", o.Partition, perr)
			return
		}
		out[o.Partition] = window.Peer{Source: src, Known: true}
	})
	return out, err
}

// promise raises the floor of owned idle partitions.
func (s *session) promise(parts []int32, owned map[int32]*source) {
	idle := false
	for _, p := range parts {
		idle = idle || owned[p].now.Idle
	}
	if !idle || s.cfg.IdleTimeout <= 0 {
		return
	}
	peers := make([]window.Peer, s.sources.total)
	for p := range peers {
		if src := owned[int32(p)]; src != nil {
			peers[p] = window.Peer{Source: src.now, Known: true}
		} else {
			peers[p] = s.foreign[int32(p)]
		}
		peers[p].Idle = peers[p].Idle || fault.HastyPromise
	}
	w := s.idleness.Promise(s.cfg.Now().UnixMilli(), peers)
	if w == window.NoTime {
		return
	}
	for _, p := range parts {
		if src := owned[p]; src.now.Idle {
			src.now.Floor = max(src.now.Floor, w)
		}
	}
}

// promised tells whether there is a promise that is worth a transaction of its own: one that closes windows, or makes a partition
// known as idle to the other routers.
func (s *session) promised() bool {
	parts, owned := s.sources.snapshot()
	for _, p := range parts {
		was, now := owned[p].committed, owned[p].now
		if was.Idle != now.Idle || s.rule.Crosses(was.Watermark(s.rule.LatenessMS), now.Watermark(s.rule.LatenessMS)) {
			return true
		}
	}
	return false
}

// drained tells whether the input has ended and everything of it is read.
func (s *session) drained(ctx context.Context) bool {
	select {
	case <-s.cfg.Drain:
	default:
		return false
	}
	parts, owned := s.sources.snapshot()
	if len(parts) < int(s.sources.total) {
		return false
	}
	atEnd, err := s.readToEnd(ctx, parts, owned)
	if err != nil {
		if ctx.Err() == nil {
			s.cfg.Log.Warn("cannot tell whether the input is read to its end", "error", err)
		}
		return false
	}
	return len(atEnd) == len(parts)
}

// finish promises the end of time for all partitions, which closes every window.
func (s *session) finish(ctx context.Context) (bool, error) {
	parts, owned := s.sources.snapshot()
	for _, p := range parts {
		owned[p].now.Floor, owned[p].now.Idle = window.EndOfTime, true
	}
	return s.transact(ctx, nil)
}
