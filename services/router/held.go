package router

import (
	"context"
	"fmt"
	"strings"
	"time"

	"spate/shared/kafka"
)

const (
	// tellHeldAfter is how long a transaction may hold a partition back before it is reported. Most end sooner.
	tellHeldAfter = 5 * time.Second
	// describeEvery is how often the broker is asked whose transactions they are.
	describeEvery = 5 * time.Second
)

// reportHeld reports partitions that an open transaction holds back: as a note, or as a reason for not being ready once they no longer hold
// windows open, because their events will then be late.
func (s *session) reportHeld(ctx context.Context) {
	parts, owned := s.sources.snapshot()
	var held []int32
	var longest time.Duration
	now := s.cfg.Now()
	for _, p := range parts {
		if src := owned[p]; src.held >= 0 {
			held = append(held, p)
			longest = max(longest, now.Sub(src.heldSince))
		}
	}
	s.metrics.held.Set(float64(len(held)))
	s.metrics.heldFor.Set(longest.Seconds())
	if longest < tellHeldAfter {
		s.cfg.Status.Note("transaction", "")
		s.cfg.Status.Hold("transaction", "")
		s.holders = nil
		return
	}
	if time.Since(s.described) >= describeEvery {
		s.described = time.Now()
		s.holders = s.whoHolds(ctx, held)
	}
	var text []string
	over := false
	for _, p := range held {
		src := owned[p]
		since := now.Sub(src.heldSince)
		over = over || s.cfg.OpenTransactionTimeout > 0 && since >= s.cfg.OpenTransactionTimeout
		who := s.holders[p]
		if who == "" {
			who = "an unknown producer"
		}
		text = append(text, fmt.Sprintf("partition %d of %s has been held back at offset %d (%d before its end) for %v by an open transaction of %s",
			p, s.cfg.Layout.Names.Activity, src.held, src.lag(), since.Round(time.Second), who))
	}
	all := strings.Join(text, "; ")
	if !over {
		s.cfg.Status.Note("transaction", all)
		return
	}
	s.cfg.Status.Hold("transaction", all+"; the transaction no longer holds windows open (SPATE_OPEN_TRANSACTION_TIMEOUT), and its events may be late; to abort it, use kafka-transactions.sh abort")
	if time.Since(s.warned) >= time.Minute {
		s.warned = time.Now()
		s.cfg.Log.Error("an open transaction has held partitions back for longer than SPATE_OPEN_TRANSACTION_TIMEOUT, so its events may be late; to abort it, use kafka-transactions.sh abort", "topic", s.cfg.Layout.Names.Activity, "partitions", held, "held_by", all)
	}
}

// whoHolds asks the broker which producers have open transactions in the partitions. Producers are missing from the answer if the principal may not describe them.
func (s *session) whoHolds(ctx context.Context, parts []int32) map[int32]string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	who, err := kafka.Holders(ctx, s.adm, s.cfg.Layout.Names.Activity, parts)
	if err != nil {
		s.cfg.Log.Debug("cannot describe producers", "error", err)
	}
	return who
}

// reportStalled reports partitions in which reading does not advance although there is something to read.
func (s *session) reportStalled(parts []int32, owned map[int32]*source) {
	var text []string
	for _, p := range parts {
		// While transactions are aborted, no partition advances, and why they are says more.
		if src := owned[p]; s.trouble == nil && src.stands >= kafka.StalledAfter {
			text = append(text, kafka.Stalled(s.cfg.Layout.Names.Activity, p, src.position, src.bounds, src.stands, src.why))
		}
	}
	s.cfg.Status.Hold("standing", strings.Join(text, "; "))
}
