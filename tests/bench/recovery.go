package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// interruption is one measured line of recovery.
type interruption struct {
	What string `json:"what"`
	// FirstS is from the start of the new process to the first alert after it, AllS to the first of every partition.
	FirstS float64 `json:"first_alert_s,omitempty"`
	AllS   float64 `json:"all_partitions_s,omitempty"`
	// GapS is the longest time without an alert record, PartitionGapS that of a single partition of the topic alerts.
	GapS          float64 `json:"longest_gap_s"`
	PartitionGapS float64 `json:"longest_gap_of_a_partition_s"`
	Users         int64   `json:"users"`
}

// every is the time between two users who pass the threshold: the finest gap that can be seen.
const every = 10 * time.Millisecond

// recovery fills the detector's table with users whose windows stay open, and lets one user after the other pass the threshold, in all
// partitions in turn, so that alerts flow all the time. Then it kills the detector and starts it again, and lets another one come and go.
func (b *bench) recovery(ctx context.Context) error {
	const partitions = 4
	s, end, err := b.live(ctx, "recovery")
	defer end()
	if err != nil {
		return err
	}
	// Event time stands still: all events are of one window.
	at := time.Now().Add(-time.Minute).Truncate(10 * time.Second).UnixMilli()
	users := int64(b.recoveryUsers)
	b.say("%d users with an open window", users)
	if _, err := b.send(ctx, traffic{topic: s.names.Activity, until: users, pick: func(i, _ int64) (int64, int64) { return firstShopper + i, at + i%10_000 }}, nil); err != nil {
		return err
	}
	trickle, err := b.startTrickle(ctx, s.names.Activity, s.names.Alerts, partitions, at)
	if err != nil {
		return err
	}
	defer trickle.stop()
	if err := s.detector.awaitMetric(ctx, 2*time.Minute, openWindows, func(v float64) bool { return v >= float64(users) }); err != nil {
		return err
	}
	b.report.recoveryHead(fmt.Sprintf("Recovery: %d users with an open window, %d partitions, a user passes the threshold every %v", users, partitions, every))
	steady := 10 * time.Second
	row := func(what string, from, to, started time.Time) error {
		i := trickle.interruption(from, to, started)
		i.What, i.Users = what, users
		return b.report.recoveryRow(i)
	}

	from := time.Now()
	wait(ctx, steady)
	if err := row("undisturbed", from, time.Now(), time.Time{}); err != nil {
		return err
	}

	for _, end := range []struct {
		what  string
		end   func(*process)
		pause time.Duration
	}{
		{"kill -9, started again at once", (*process).kill, 0},
		// The group has given the dead one up by then: what is left is what the new one does itself.
		{"kill -9, started again after 8 s", (*process).kill, 8 * time.Second},
		{"SIGTERM, started again at once", (*process).stop, 0},
	} {
		b.say("%s", end.what)
		from = time.Now()
		end.end(s.detector)
		wait(ctx, end.pause)
		started := time.Now()
		if s.detector, err = b.spate(ctx, s.pipeline, "detect"); err != nil {
			return err
		}
		if err := trickle.flowing(ctx, started, partitions); err != nil {
			return err
		}
		wait(ctx, steady)
		if err := row(end.what, from, time.Now(), started); err != nil {
			return err
		}
	}

	b.say("a second detector joins")
	from = time.Now()
	second, err := b.spate(ctx, s.pipeline, "detect")
	if err != nil {
		return err
	}
	defer second.stop()
	if err := second.awaitMetric(ctx, time.Minute, openWindows, func(v float64) bool { return v > 0 }); err != nil {
		return err
	}
	wait(ctx, steady)
	if err := row("a second detector joins", from, time.Now(), time.Time{}); err != nil {
		return err
	}
	b.say("it leaves")
	from = time.Now()
	second.stop()
	wait(ctx, steady)
	if err := row("it leaves (SIGTERM)", from, time.Now(), time.Time{}); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return trickle.check(ctx, b)
}

// trickle is the users who pass the threshold, and the reader of their alerts.
type trickle struct {
	cl     *kgo.Client // of both
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	err    error
	sent   map[int64]struct{}
	told   map[int64]struct{}
	alerts []told
}

// told is when an alert was appended, and where.
type told struct {
	at        time.Time
	partition int32
}

func (b *bench) startTrickle(ctx context.Context, events, alerts string, partitions int32, atMS int64) (*trickle, error) {
	cl, err := kgo.NewClient(b.kafka.Options(kgo.DefaultProduceTopic(events), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
		kgo.ConsumeTopics(alerts), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond))...)
	if err != nil {
		return nil, fmt.Errorf("trickle: %w", err)
	}
	t := &trickle{cl: cl, sent: make(map[int64]struct{}), told: make(map[int64]struct{})}
	ctx, t.cancel = context.WithCancel(ctx)
	t.done.Go(func() { t.write(ctx, partitions, atMS) })
	t.done.Go(func() { t.read(ctx) })
	return t, nil
}

func (t *trickle) stop() {
	t.cancel()
	t.done.Wait()
	t.cl.Close()
}

func (t *trickle) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = errors.Join(t.err, err)
}

func (t *trickle) write(ctx context.Context, partitions int32, atMS int64) {
	user, w := usersOf(partitions), newBody()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := int32(0); ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		u := user()
		for i := range int32(threshold + 1) {
			_, value := w.event(u, atMS+9000)
			// All source partitions have events all the time, so none falls silent.
			t.cl.Produce(ctx, &kgo.Record{Partition: (n + i) % partitions, Value: value}, func(_ *kgo.Record, err error) {
				if err != nil && ctx.Err() == nil {
					t.fail(fmt.Errorf("trickle: %w", err))
				}
			})
		}
		t.mu.Lock()
		t.sent[u] = struct{}{}
		t.mu.Unlock()
	}
}

func (t *trickle) read(ctx context.Context) {
	for ctx.Err() == nil {
		f := t.cl.PollFetches(ctx)
		if err := f.Err(); err != nil && ctx.Err() == nil {
			t.fail(fmt.Errorf("trickle: %w", err))
		}
		t.mu.Lock()
		f.EachRecord(func(r *kgo.Record) {
			a, err := parseResult(r.Value)
			if err != nil {
				t.err = errors.Join(t.err, err)
				return
			}
			// What is told again after a crash is not progress.
			if _, again := t.told[a.user]; !again {
				t.told[a.user] = struct{}{}
				t.alerts = append(t.alerts, told{r.Timestamp, r.Partition})
			}
		})
		t.mu.Unlock()
	}
}

// flowing waits until alerts come in all partitions, from a time on.
func (t *trickle) flowing(ctx context.Context, from time.Time, partitions int) error {
	return poll(ctx, 2*time.Minute, 20*time.Millisecond, "alerts in all partitions", func() (bool, error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		seen := make(map[int32]bool)
		for _, a := range t.alerts {
			if !a.at.Before(from) {
				seen[a.partition] = true
			}
		}
		return len(seen) == partitions, t.err
	})
}

// interruption looks at the alerts between two times. started is when a new process was; zero if there is none.
func (t *trickle) interruption(from, to, started time.Time) (i interruption) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last, lastOf := time.Time{}, make(map[int32]time.Time)
	gap := func(since, at time.Time, longest *float64) {
		if !since.IsZero() && at.After(from) {
			*longest = max(*longest, at.Sub(since).Seconds())
		}
	}
	first := make(map[int32]bool)
	for _, a := range t.alerts {
		if a.at.After(to) {
			continue
		}
		// Partitions are read one beside the other, so times go back a little.
		if a.at.After(last) {
			gap(last, a.at, &i.GapS)
			last = a.at
		}
		gap(lastOf[a.partition], a.at, &i.PartitionGapS)
		lastOf[a.partition] = a.at
		if !started.IsZero() && !a.at.Before(started) {
			s := a.at.Sub(started).Seconds()
			if len(first) == 0 || s < i.FirstS {
				i.FirstS = s
			}
			if !first[a.partition] {
				first[a.partition] = true
				i.AllS = max(i.AllS, s)
			}
		}
	}
	return i
}

// check waits for the alert of every user who passed the threshold.
func (t *trickle) check(ctx context.Context, b *bench) error {
	missing := 0
	// The writer goes on: what was sent by now is what is waited for.
	t.mu.Lock()
	var users []int64
	for u := range t.sent {
		users = append(users, u)
	}
	t.mu.Unlock()
	err := poll(ctx, b.patience, 200*time.Millisecond, "an alert for every user", func() (bool, error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		missing = 0
		for _, u := range users {
			if _, ok := t.told[u]; !ok {
				missing++
			}
		}
		return missing == 0, t.err
	})
	b.say("%d users passed the threshold, %d without an alert", len(users), missing)
	return err
}
