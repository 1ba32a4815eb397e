// Package table follows the decisions in the table of mode aws, where they are appended under the time of writing and never changed.
//
//	poll        every 250 ms, the items written since the newest one seen, less Overlap
//	apply       for each value and rule, the decision that was made last (since) counts, regardless of the order in which items are seen
//
// The time of writing is that of the writer's clock when it began. Overlap is the sum of how far the clocks of two writers may be apart, 5 s, and how long a write may take,
// 10 s: what was begun earlier, or by a clock that is behind, and is seen later, is still read. A time of writing that is ahead of the reader's own clock counts as that, or one
// writer whose clock is far ahead would hide what all others write. So a decision is missed only if the clock of its own writer is further behind.
package table

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"spate/shared/decision"
)

const (
	// Every is the interval between polls of the table.
	Every = 250 * time.Millisecond
	// Overlap is how far before the newest decision seen a poll begins.
	Overlap = 15 * time.Second
	// forgetEvery is how often what has long expired is forgotten.
	forgetEvery = time.Minute
)

// Table contains the decisions; it is implemented by package dynamodb.
type Table interface {
	// Decisions returns the decisions and ends that were written at or after a time, by the clocks of their writers, in this order. Items that are not decisions
	// are left out; malformed, if it is not nil, is called for each.
	Decisions(ctx context.Context, from time.Time, malformed func(error)) ([]decision.Written, error)
}

// Follower keeps a view up to date with the table.
type Follower struct {
	Table Table
	View  *decision.View
	Log   *slog.Logger
	Now   func() time.Time
	// Malformed, if not nil, is called for each item that is not a decision, when the item is first seen; the item is skipped.
	Malformed func(error)

	mu    sync.Mutex
	fresh time.Time

	reading *reading // of Run, which has read everything once; nil before
}

// Fresh returns when the view last had all decisions of the table; zero if it never had.
func (f *Follower) Fresh() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fresh
}

// Run reads what there is and then follows, until ctx ends or an error. The view keeps what it has, and the next call goes on from there: nothing is ever changed in the
// table, and to read all of it again, because it was too busy for a moment, would keep it busy. caught, unless it is nil, is called when the view has all of
// it; an error that it returns ends Run.
func (f *Follower) Run(ctx context.Context, caught func() error) error {
	r := f.reading
	if r == nil {
		r = &reading{Follower: f, seen: make(map[string]time.Time), last: make(map[string]made)}
		f.View.Begin()
	}
	if err := r.poll(ctx); err != nil {
		return err
	}
	if f.reading == nil {
		f.View.Complete()
		f.reading = r
	}
	if caught != nil {
		if err := caught(); err != nil {
			return err
		}
	}
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := r.poll(ctx); err != nil {
			return err
		}
	}
}

// reading is how far a follower has come.
type reading struct {
	*Follower
	newest    time.Time            // the latest time of writing that was seen
	from      time.Time            // where the last poll began
	seen      map[string]time.Time // sort keys since then
	last      map[string]made      // by the key of decisions, those and ends
	forgotten time.Time
}

// made is when the last decision about a key was made, and until when it is of any interest.
type made struct {
	since, until time.Time
	sort         string
}

// poll takes what is new.
func (r *reading) poll(ctx context.Context) error {
	asked := r.Now()
	var from time.Time
	if from = r.newest; !from.IsZero() {
		if from.After(asked) { // by a clock that is ahead of this one, and of others
			from = asked
		}
		from = from.Add(-Overlap)
	}
	malformed := r.Malformed
	if !from.IsZero() {
		malformed = nil // it was reported when it was first read, or the next reading reports it because it is the newest of all
	}
	list, err := r.Table.Decisions(ctx, from, malformed)
	if err != nil {
		return err
	}
	winners := make(map[string]decision.Written)
	for _, d := range list {
		if _, again := r.seen[d.Sort]; again {
			continue
		}
		r.seen[d.Sort] = d.WrittenAt
		if d.WrittenAt.After(r.newest) {
			r.newest = d.WrittenAt
		}
		key := string(d.Key())
		if was, ok := r.last[key]; ok && !later(d, was) {
			continue
		}
		r.last[key], winners[key] = made{since: d.Since, until: d.Until, sort: d.Sort}, d
	}
	for _, d := range winners {
		r.View.Take(d.Decision, d.Ended, asked)
	}
	r.from = from
	r.forget(asked)
	r.mu.Lock()
	r.fresh = asked
	r.mu.Unlock()
	return nil
}

// later reports whether a decision, or an end, was made after what is known about its key.
func later(d decision.Written, was made) bool {
	if !d.Since.Equal(was.since) {
		return d.Since.After(was.since)
	}
	return len(d.Sort) > len(was.sort) || len(d.Sort) == len(was.sort) && d.Sort > was.sort
}

// forget drops what cannot matter any more.
func (r *reading) forget(now time.Time) {
	for sort, at := range r.seen {
		if at.Before(r.from.Add(-time.Second)) {
			delete(r.seen, sort)
		}
	}
	if now.Sub(r.forgotten) < forgetEvery {
		return
	}
	r.forgotten = now
	for key, m := range r.last {
		if m.until.Add(time.Hour).Before(now) {
			delete(r.last, key)
		}
	}
}
