package kinesis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/sync/errgroup"

	"spate/shared/aws/lease"
	"spate/shared/aws/stream"
	"spate/shared/ops"
)

const (
	// saveEvery bounds what is read again after a crash. It changes nothing when it is.
	saveEvery = time.Second
	// endTimeout is what ending in good order may take.
	endTimeout = 5 * time.Second

	retryMin = 200 * time.Millisecond
	retryMax = 10 * time.Second
)

// ConsumerConfig configures an alerter that runs as a process instead of a Lambda.
type ConsumerConfig struct {
	Handler *Handler
	Reader  *stream.Reader // of the stream of alerts
	// Lease decides which of several processes is active, and keeps its progress.
	Lease lease.Lease
	// State returns the worker's state, which determines when incidents end; nil if there is none.
	State  func(context.Context) ([]byte, error)
	Log    *slog.Logger
	Status *ops.Status // optional
}

// Consume passes the records of the stream of alerts to the handler, shard by shard, until ctx ends. A record that fails for now is retried
// forever; a record that no further try can process is logged and skipped, whereas a Lambda function would send it to the dead-letter queue.
func Consume(ctx context.Context, cfg ConsumerConfig) error {
	fatal := func(err error) bool { return errors.Is(err, lease.ErrNoTable) || errors.Is(err, stream.ErrNotFound) }
	cfg.Lease.Waiting = func(owner string) {
		cfg.Log.Info("standing by", "active", owner)
		cfg.Status.Ready() // that is its work
	}
	err := ops.Keep(ctx, cfg.Log, cfg.Status, fatal, func(ctx context.Context) error {
		cfg.Status.NotReady("waiting for the lease in table " + cfg.Lease.Table)
		held, err := cfg.Lease.Acquire(ctx)
		if err != nil {
			return err
		}
		c := &consumer{cfg: cfg, held: held}
		return c.run(ctx)
	})
	if err != nil {
		return fmt.Errorf("alerter: %w", err)
	}
	return nil
}

// consumer is one life as the holder of the lease.
type consumer struct {
	cfg   ConsumerConfig
	held  *lease.Held
	group *errgroup.Group
	ctx   context.Context

	mu     sync.Mutex
	places map[string]*place // by shard
	dirty  bool
}

// place is how far a shard has come: everything up to there is stored.
type place struct {
	stream.Position
	Waits   bool     `json:"waits,omitempty"`  // its parents are not read to their ends yet
	Closed  bool     `json:"closed,omitempty"` // it is read to its end
	Gone    bool     `json:"gone,omitempty"`   // it was not kept for long enough
	Parents []string `json:"parents,omitempty"`
}

// LeaseKey is what the lease of the alerters of a stream of alerts is for.
func LeaseKey(alerts string) string { return "alerter#" + alerts }

// StoredUpTo returns up to which sequence number a shard is stored by the state of an alerter that runs as a process. It reports false if the state does not
// say: the shard has not begun, or it is done with.
func StoredUpTo(state []byte, shard string) (last string, ok bool, err error) {
	var places map[string]place
	if err := json.Unmarshal(state, &places); err != nil {
		return "", false, fmt.Errorf("decode the alerter's state: %w", err)
	}
	p, ok := places[shard]
	return p.After, ok && !p.Closed, nil
}

func (c *consumer) run(ctx context.Context) error {
	// What is under way when ctx ends is finished, or given up by its own timeout.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	c.group, c.ctx = errgroup.WithContext(work)
	err := c.load()
	if err == nil {
		c.cfg.Log.Info("alerter started", "stream", c.cfg.Reader.Stream, "shards", len(c.places), "epoch", c.held.Epoch())
		c.cfg.Status.Ready()
		c.group.Go(func() error { return c.held.Keep(c.ctx) })
		c.group.Go(func() error { return c.resolves(c.ctx) })
		err = c.saves(ctx)
	}
	if c.ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = context.Cause(c.ctx)
	}
	cancel()
	_ = c.group.Wait() // what it says is in err already, or is that everything ends
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer stop()
	if err == nil {
		err = c.save(end)
	}
	if !errors.Is(err, lease.ErrLost) {
		c.held.Release(end)
	}
	return err
}

// load begins where the last holder was, or at the beginning of the stream.
func (c *consumer) load() error {
	c.places = make(map[string]*place)
	if b := c.held.State(); b != nil {
		if err := json.Unmarshal(b, &c.places); err != nil {
			return fmt.Errorf("decode state: %w", err)
		}
	} else {
		shards, err := c.cfg.Reader.Shards(c.ctx)
		if err != nil {
			return err
		}
		for _, s := range stream.Kept(shards) {
			c.places[s.ID] = &place{Waits: len(s.Parents) > 0, Parents: s.Parents}
		}
		c.dirty = true
	}
	closed := false
	for id, p := range c.places {
		if !p.Waits && !p.Closed {
			c.start(id, p.Position)
		}
		closed = closed || p.Closed
	}
	if closed { // its children may not have begun when the last holder ended
		return c.follow(c.ctx)
	}
	return nil
}

// saves writes down how far the shards have come, now and then, until ctx ends.
func (c *consumer) saves(ctx context.Context) error {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		case <-tick.C:
		}
		if err := c.save(c.ctx); err != nil {
			return err
		}
		if err := c.follow(c.ctx); err != nil {
			return err
		}
	}
}

func (c *consumer) save(ctx context.Context) error {
	c.mu.Lock()
	if !c.dirty {
		c.mu.Unlock()
		return nil
	}
	b, err := json.Marshal(c.places)
	c.dirty = false
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	return c.held.Save(ctx, b)
}

func (c *consumer) start(id string, from stream.Position) {
	c.group.Go(func() error { return c.cfg.Reader.Read(c.ctx, id, from, c.store) })
}

// store brings what was read of a shard into the table, as often as it takes.
func (c *consumer) store(ctx context.Context, f stream.Fetch) error {
	if f.Lost {
		c.cfg.Log.Error("alert records were deleted before they were read", "stream", c.cfg.Reader.Stream, "shard", f.Shard)
	}
	records := make([]Record, len(f.Records))
	for i, r := range f.Records {
		records[i] = Record{Data: r.Data, ShardID: f.Shard, SequenceNumber: aws.ToString(r.SequenceNumber), ArrivedAt: aws.ToTime(r.ApproximateArrivalTimestamp)}
	}
	last := ""
	if n := len(records); n > 0 {
		last = records[n-1].SequenceNumber
	}
	for wait := retryMin; len(records) > 0; wait = min(2*wait, retryMax) {
		if err := c.held.Valid(); err != nil {
			return err
		}
		res := c.cfg.Handler.Handle(ctx, records)
		rest := records[:0]
		var cause error
		for i, err := range res.Errs {
			if err != nil && !Permanent(err) { // the handler has logged those that are
				cause = err
				rest = append(rest, records[i])
			}
		}
		if records = rest; len(records) == 0 {
			c.cfg.Status.Ready()
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.cfg.Status.NotReady(cause.Error())
		c.cfg.Log.Warn("cannot store or publish alerts, retrying", "alerts", len(records), "error", cause, "wait", wait.String())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
	c.mu.Lock()
	p := c.places[f.Shard]
	if last != "" {
		p.Position, c.dirty = stream.Position{After: last}, true
	}
	if f.Closed {
		p.Closed, p.Gone, c.dirty = true, f.Gone, true
	}
	c.mu.Unlock()
	if f.Closed {
		return c.follow(ctx)
	}
	return nil
}

// follow starts the shards whose parents are all read to their ends, and forgets those that are closed and whose children have begun.
func (c *consumer) follow(ctx context.Context) error {
	c.mu.Lock()
	closed := false
	for _, p := range c.places {
		closed = closed || p.Closed
	}
	c.mu.Unlock()
	if !closed {
		return nil
	}
	listed, err := c.cfg.Reader.Shards(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	children := make(map[string]int)
	for id, p := range maps.Clone(c.places) {
		if !p.Closed {
			continue
		}
		for _, s := range stream.Successors(listed, id, p.Gone) {
			children[id]++
			c.begin(s)
		}
	}
	for id, p := range c.places {
		if !p.Closed || children[id] == 0 {
			continue
		}
		waits := false
		for _, q := range c.places {
			waits = waits || q.Waits && slices.Contains(q.Parents, id)
		}
		if !waits {
			delete(c.places, id)
			c.dirty = true
		}
	}
	return nil
}

// begin starts a shard if all its parents are read to their ends. Parents that are not known were done with long ago.
func (c *consumer) begin(s stream.Shard) {
	p := c.places[s.ID]
	if p == nil {
		p = &place{Waits: true, Parents: s.Parents}
		c.places[s.ID], c.dirty = p, true
	}
	for _, parent := range s.Parents {
		if q := c.places[parent]; q != nil && !q.Closed {
			return
		}
	}
	if p.Waits {
		p.Waits, c.dirty = false, true
		c.start(s.ID, p.Position)
	}
}
