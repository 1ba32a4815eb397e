package kinesis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"spate/shared/aws/horizon"
	"spate/shared/aws/stream"
	"spate/shared/store/dynamodb"
)

const (
	// resolveEvery is how often an alerter that runs as a process looks for incidents to end.
	resolveEvery = 2 * time.Second
	// resolveTime bounds how long one look may take.
	resolveTime = 30 * time.Second
	// resolveAtOnce is how many incidents one look ends.
	resolveAtOnce = 2000
)

// Resolver ends incidents by event time: the worker's state says up to which event time every alert is written, and incidents that are due by then
// end as soon as all alerts up to that time are stored. No clock is involved, so nothing is lost when a process restarts.
type Resolver struct {
	Handler *Handler
	// State returns the worker's state; nil if there is none.
	State func(ctx context.Context) ([]byte, error)
	// Stored reports whether the alerts of a shard up to a sequence number are stored.
	Stored func(ctx context.Context, shard, last string) (bool, error)

	mu   sync.Mutex
	done time.Time // up to where all was ended and told by the last look
}

// Look ends the incidents that are due, and publishes the messages about their ends. It returns how many incidents it ended.
func (r *Resolver) Look(ctx context.Context) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	state, err := r.State(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the worker's state: %w", err)
	}
	h, ok, err := horizon.Parse(state)
	upTo := h.UpTo()
	if err != nil || !ok || upTo.Equal(r.done) { // it can be earlier: while the input is silent, time walks on, and goes back if there is something after all
		return 0, err
	}
	for shard, last := range h.Written {
		if stored, err := r.Stored(ctx, shard, last); err != nil || !stored {
			return 0, err
		}
	}
	return r.end(ctx, upTo)
}

// end ends the incidents that are due at an event time. A failure does not hold up the others; it is retried at the next look.
func (r *Resolver) end(ctx context.Context, upTo time.Time) (int, error) {
	h := r.Handler
	var failed []error
	by := dynamodb.Ending{Now: h.cfg.Now(), UpTo: upTo, Limit: resolveAtOnce, To: h.to(), Failed: func(err error) { failed = append(failed, err) }}
	if h.cfg.Publisher != nil { // otherwise what was to be told when there was a topic waits for one
		by.Publish = func(ctx context.Context, list []dynamodb.Notice) error { return h.publish(ctx, ctx, list) }
	}
	ended, err := h.cfg.Table.Resolve(ctx, by)
	if err = errors.Join(append(failed, err)...); err == nil && len(ended) < resolveAtOnce {
		r.done = upTo
	}
	return len(ended), err
}

// stored reports whether the consumer has stored the alerts of a shard up to a sequence number. One that was read to its end and forgotten is stored, and so is
// what the stream does not keep any more.
func (c *consumer) stored(ctx context.Context, shard, last string) (bool, error) {
	known := func() (stored, known bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		p := c.places[shard]
		if p == nil {
			return false, false
		}
		return p.Closed || p.After != "" && !stream.Before(p.After, last), true
	}
	if stored, ok := known(); ok {
		return stored, nil
	}
	listed, err := c.cfg.Reader.Shards(ctx)
	if err != nil {
		return false, err
	}
	if stored, ok := known(); ok { // it may have begun meanwhile
		return stored, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !descends(listed, shard, func(id string) bool { return c.places[id] != nil }), nil
}

// descends reports whether a shard is listed and an ancestor of it is one of some: then it has not begun. A shard is forgotten only after its children have begun.
func descends(listed []stream.Shard, shard string, of func(string) bool) bool {
	parents := make(map[string][]string, len(listed))
	for _, s := range listed {
		parents[s.ID] = s.Parents
	}
	if _, ok := parents[shard]; !ok {
		return false
	}
	seen := map[string]bool{}
	var search func(string) bool
	search = func(id string) bool {
		if seen[id] {
			return false
		}
		seen[id] = true
		for _, p := range parents[id] {
			if of(p) || search(p) {
				return true
			}
		}
		return false
	}
	return search(shard)
}

// resolves looks for incidents to end until ctx ends.
func (c *consumer) resolves(ctx context.Context) error {
	r := &Resolver{Handler: c.cfg.Handler, State: c.cfg.State, Stored: c.stored}
	tick := time.NewTicker(resolveEvery)
	defer tick.Stop()
	var warned time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if c.held.Valid() != nil {
			continue // the current holder of the lease does it
		}
		if _, err := r.Look(ctx); err != nil && ctx.Err() == nil && time.Since(warned) > time.Minute {
			warned = time.Now()
			c.cfg.Log.Warn("cannot resolve the incidents that have ended; they stay open until a retry succeeds", "error", err)
		}
	}
}

// Notes record how far the shards of the stream of alerts are stored: a Lambda function writes them to the table after each batch.
type Notes struct {
	Table  *dynamodb.Table
	Reader *stream.Reader // of the stream of alerts

	mu    sync.Mutex
	known map[string]string // by shard, a bound from below
}

// Note records that the alerts of a shard up to a sequence number are stored.
func (n *Notes) Note(ctx context.Context, shard, last string) error {
	if err := n.Table.NoteStored(ctx, n.Reader.Stream, shard, last); err != nil {
		return err
	}
	n.learn(shard, last)
	return nil
}

func (n *Notes) learn(shard, last string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil {
		n.known = make(map[string]string)
	}
	if stream.Before(n.known[shard], last) {
		n.known[shard] = last
	}
}

func (n *Notes) knows(shard, last string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := n.known[shard]
	return at != "" && !stream.Before(at, last)
}

// Stored implements Resolver.Stored. Records that the stream no longer keeps count as stored.
func (n *Notes) Stored(ctx context.Context, shard, last string) (bool, error) {
	if n.knows(shard, last) {
		return true, nil
	}
	at, err := n.Table.Stored(ctx, n.Reader.Stream, shard)
	if err != nil {
		return false, err
	}
	if n.learn(shard, at); n.knows(shard, last) {
		return true, nil
	}
	listed, err := n.Reader.Shards(ctx)
	if err != nil {
		return false, err
	}
	for _, s := range listed {
		if s.ID == shard {
			return false, nil
		}
	}
	return true, nil
}
