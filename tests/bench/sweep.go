package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/verifier"
)

// shape is one load of the sweep: the reference's, with one thing changed.
type shape struct {
	name       string
	partitions int
	window     time.Duration
	gen        []string // flags of the reference's generator
}

func shapes() []shape {
	users := func(n int) []string { return []string{"-users", strconv.Itoa(n)} }
	// One attacker at a time who sends this share of all events; each window of arrival has another one.
	hot := func(share string) []string { return append(users(100_000), "-bots", "1", "-botshare", share) }
	const size = 10 * time.Second
	return []shape{
		{"users 100k, hot 0, 4 partitions, 10 s", 4, size, users(100_000)},
		{"window 60 s", 4, time.Minute, users(100_000)},
		{"users 1k", 4, size, users(1_000)},
		{"users 1M", 4, size, users(1_000_000)},
		{"hot user 50 %", 4, size, hot("0.5")},
		{"hot user 95 %", 4, size, hot("0.95")},
		{"1 partition", 1, size, users(100_000)},
		{"16 partitions", 16, size, users(100_000)},
	}
}

// sweep measures one load after the other, each with go-count beside it. go-count knows windows of 10 s alone: with others it counts
// those, and its results are not held against anything.
func (b *bench) sweep(ctx context.Context) error {
	b.report.sweepHead(fmt.Sprintf("Sweep: %d events each; what is not named is as in the first", b.sweepEvents))
	var wrong error
	var load *backlog
	defer func() {
		if load != nil {
			b.tidy(ctx, load.topic)
		}
	}()
	var last []string
	for _, s := range shapes() {
		// The next one may be another look at the same topic.
		if load == nil || load.partitions != s.partitions || !equal(last, s.gen) {
			if load != nil {
				b.tidy(ctx, load.topic)
			}
			var err error
			if load, err = b.referenceBacklog(ctx, b.sweepEvents, s.partitions, s.gen...); err != nil {
				return err
			}
			last = s.gen
		}
		base, err := b.goCount(ctx, load)
		if err != nil {
			return err
		}
		measured := *load
		if s.window != load.window {
			base.Checked = false
			if measured, err = b.recount(ctx, load, s.window); err != nil {
				return err
			}
		}
		r, err := b.both(ctx, &measured, "SPATE_WINDOW="+s.window.String())
		if err != nil {
			return err
		}
		runs := []run{base, r}
		relate(runs)
		for i := range runs {
			runs[i].Load, runs[i].Round = s.name, 1
			wrong = errors.Join(wrong, runs[i].check())
			if err := b.report.sweepRow(runs[i]); err != nil {
				return err
			}
		}
	}
	return wrong
}

func equal(a, b []string) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// recount counts a backlog in windows of another size, by the project's own reference.
func (b *bench) recount(ctx context.Context, load *backlog, size time.Duration) (backlog, error) {
	b.say("counting the expected results for windows of %v", size)
	ref := verifier.NewReference(verifier.Rule{Window: size, Lateness: 10 * time.Second, Threshold: 5})
	err := b.each(ctx, load.topic, func(r *kgo.Record) error {
		ref.AddJSON(r.Partition, r.Value, r.Timestamp)
		return nil
	})
	other := *load
	other.window, other.want = size, make(map[pair]int64)
	for _, row := range ref.Result() {
		user, perr := strconv.ParseInt(row.User, 10, 64)
		if perr != nil {
			return other, fmt.Errorf("expected results: user: %w", perr)
		}
		other.want[pair{user, row.WindowStart}] = row.Count
	}
	return other, err
}
