package gokaclient

import (
	"math/rand/v2"
	"testing"
)

// TestUnfinishedMessageHoldsTheCommitBack: goka with sarama commits the highest message that is done. Message 10 waits for its alert to
// be acknowledged, 11 to 20 are done: 21 is committed, the process dies, and the alert of 10 is never written.
func TestUnfinishedMessageHoldsTheCommitBack(t *testing.T) {
	tr := newTracker(10)
	for o := int64(10); o <= 20; o++ {
		tr.deliver(o)
	}
	for o := int64(11); o <= 20; o++ {
		tr.done(o)
	}
	if got := tr.committable(); got != 10 {
		t.Errorf("%d may be committed while 10 is not done", got)
	}
	tr.done(10)
	if got := tr.committable(); got != 21 {
		t.Errorf("%d may be committed, want 21", got)
	}
}

func TestTrackerAgainstAList(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		start := rng.Int64N(100)
		tr := newTracker(start)
		type message struct {
			offset int64
			done   bool
		}
		var all []message
		next := start
		for range 200 {
			switch rng.IntN(5) {
			case 0: // the end of a transaction
				next++
				tr.pass(next)
				all = append(all, message{offset: next - 1, done: true})
			case 1, 2:
				next += rng.Int64N(3) // gaps: compaction
				tr.deliver(next)
				all = append(all, message{offset: next})
				next++
			default:
				if len(all) == 0 {
					continue
				}
				i := rng.IntN(len(all))
				all[i].done = true
				tr.done(all[i].offset) // again and again, too
			}
			want := start
			for _, m := range all {
				if !m.done {
					break
				}
				want = m.offset + 1
			}
			if got := tr.committable(); got != want {
				t.Fatalf("seed %d: %d, want %d", seed, got, want)
			}
		}
	}
}
