package kinesis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"spate/shared/notify"
	"spate/shared/store"
	"spate/shared/store/dynamodb"
)

const (
	// concurrency is how many users of a batch are worked on at once.
	concurrency = 16
	// recordTime bounds the work on one record, so that a call that hangs does not hold up the stream.
	recordTime = 10 * time.Second
	// margin is what is left of the time for a batch when the last work on it must have ended; a tenth of it, if that is less.
	margin = 2 * time.Second
)

// Record is a record of the stream of alerts.
type Record struct {
	Data           []byte
	ShardID        string
	SequenceNumber string
	ArrivedAt      time.Time // in the stream
}

// ErrNotTried means that a record comes after one that failed for now, or that time ran short.
var ErrNotTried = errors.New("not tried")

// Result is the result of a batch.
type Result struct {
	// Errs has an element for each record, in order: nil, or why the record is not done. ErrMalformed, store.ErrConflict, store.ErrInvalid
	// and notify.ErrUnsendable are permanent; other errors are temporary.
	Errs []error
}

// First returns the first record that is not done. The batch must be delivered again from there; records after it that are done already
// change nothing then.
func (r Result) First() (index int, failed bool) {
	for i, err := range r.Errs {
		if err != nil {
			return i, true
		}
	}
	return 0, false
}

// Failed returns the indexes of the records that are not done, in order.
func (r Result) Failed() []int {
	var out []int
	for i, err := range r.Errs {
		if err != nil {
			out = append(out, i)
		}
	}
	return out
}

// Permanent reports whether no further try can help with an error of a Result.
func Permanent(err error) bool {
	return errors.Is(err, ErrMalformed) || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrInvalid) || errors.Is(err, notify.ErrUnsendable)
}

// Handler processes batches of records. It is safe for concurrent use.
type Handler struct {
	cfg     Config
	metrics *metrics
}

// New returns a handler.
func New(cfg Config) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Handler{cfg: cfg, metrics: newMetrics(cfg.Metrics, cfg.Namespace, cfg.AlertsMetric)}, nil
}

// Handle processes a batch in the order of the stream. If ctx has a deadline, Handle ends a little before it.
func (h *Handler) Handle(ctx context.Context, records []Record) Result {
	b := &batch{handler: h, outer: ctx, records: records, items: make([]dynamodb.Item, len(records)), errs: make([]error, len(records))}
	b.stop.Store(int64(len(records)))
	work, cancel := withMargin(ctx)
	defer cancel()
	b.run(work)
	h.account(b)
	return Result{Errs: b.errs}
}

// withMargin ends before ctx does: what has failed must be told in time, or the whole batch counts as failed.
func withMargin(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	left := time.Until(deadline)
	return context.WithDeadline(ctx, deadline.Add(-min(margin, left/10)))
}

// batch is the work on one batch.
type batch struct {
	handler *Handler
	outer   context.Context
	records []Record
	items   []dynamodb.Item
	errs    []error // each written by one goroutine

	// stop is the first record that failed for now: nothing is begun from there on.
	stop atomic.Int64
}

func (b *batch) run(ctx context.Context) {
	chains := b.chains()
	next := make(chan []int)
	var wg sync.WaitGroup
	for range min(concurrency, len(chains)) {
		wg.Go(func() {
			for chain := range next {
				for _, i := range chain {
					b.errs[i] = b.try(ctx, i)
				}
			}
		})
	}
	for _, chain := range chains {
		next <- chain
	}
	close(next)
	wg.Wait()
}

// chains parses the records and returns those of each user, in their order; the user who comes first is first.
func (b *batch) chains() [][]int {
	var chains [][]int
	of := make(map[string]int)
	for i, r := range b.records {
		if b.items[i], b.errs[i] = b.handler.cfg.parse(r); b.errs[i] != nil {
			continue
		}
		b.items[i].DecidedAt = r.ArrivedAt
		user := b.items[i].Partition
		at, ok := of[user]
		if !ok {
			at = len(chains)
			of[user] = at
			chains = append(chains, nil)
		}
		chains[at] = append(chains[at], i)
	}
	return chains
}

// try works on a record, unless an earlier one failed for now.
func (b *batch) try(ctx context.Context, i int) error {
	if int64(i) > b.stop.Load() {
		return ErrNotTried
	}
	if err := ctx.Err(); err != nil {
		b.stopAt(i)
		return fmt.Errorf("%w: %w", ErrNotTried, err)
	}
	tctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	err := b.handler.work(tctx, b.outer, b.items[i])
	if err != nil && !Permanent(err) {
		b.stopAt(i)
	}
	return err
}

// stopAt lowers stop to i.
func (b *batch) stopAt(i int) {
	for {
		now := b.stop.Load()
		if now <= int64(i) || b.stop.CompareAndSwap(now, int64(i)) {
			return
		}
	}
}

// to returns those to notify.
func (h *Handler) to() []notify.Endpoint {
	to := slices.Clip(h.cfg.Endpoints)
	if h.cfg.Publisher != nil {
		to = append(to, notify.Endpoint{Name: dynamodb.Endpoint, Filter: notify.Filter{MinSeverity: h.cfg.MinSeverity}})
	}
	return to
}

// work brings one record to its end. ctx bounds it; outer is what remains when that has ended.
func (h *Handler) work(ctx, outer context.Context, it dynamodb.Item) error {
	out, err := h.cfg.Table.Apply(ctx, h.cfg.Now(), it, h.to()...)
	switch {
	case errors.Is(err, store.ErrConflict):
		h.metrics.conflicts.Add(1)
		return err
	case errors.Is(err, store.ErrInvalid):
		h.metrics.malformed.Add(1)
		return err
	case err != nil:
		h.metrics.storeErrors.Add(1)
		return err
	case out.Made:
		h.metrics.made.Add(1)
	case out.Moved:
		h.metrics.moved.Add(1)
	default:
		h.metrics.repeated.Add(1)
	}
	if h.cfg.Print != nil && (out.Made || out.Moved) {
		h.cfg.Print(out.Item.Record)
	}
	if h.cfg.Publisher == nil {
		return nil
	}
	if out.Item.Notification == dynamodb.Pending {
		if err := h.publishAlert(ctx, outer, out.Item); err != nil {
			return err
		}
	}
	return h.publish(ctx, outer, out.Untold)
}

// publishAlert publishes an alert that is not part of an incident, as it is stored, which may be ahead of the record.
func (h *Handler) publishAlert(ctx, outer context.Context, it dynamodb.Item) error {
	if err := h.cfg.Publisher.Publish(ctx, it.Record); err != nil {
		h.metrics.notifyFailures.Add(1)
		return err
	}
	h.metrics.notified.Add(1)
	nctx, cancel := h.lastMoment(ctx, outer)
	defer cancel()
	if err := h.cfg.Table.Sent(nctx, h.cfg.Now(), it); err != nil {
		h.metrics.storeErrors.Add(1)
		return err
	}
	return nil
}

// publish publishes messages about an incident, in order, and records which are published. A message that can never be published is recorded, too, so that it is not
// retried forever; the error says so.
func (h *Handler) publish(ctx, outer context.Context, list []dynamodb.Notice) error {
	var done []dynamodb.Notice
	var failed error
	for _, n := range list {
		if err := h.cfg.Publisher.Tell(ctx, n.Message); err != nil {
			h.metrics.notifyFailures.Add(1)
			failed = err
			if !errors.Is(err, notify.ErrUnsendable) {
				break
			}
		} else {
			h.metrics.notified.Add(1)
		}
		done = append(done, n)
	}
	if len(done) == 0 {
		return failed
	}
	// The messages are out. That this is noted matters more than the end of the time: without it, they are sent again.
	nctx, cancel := h.lastMoment(ctx, outer)
	defer cancel()
	if err := h.cfg.Table.Told(nctx, h.cfg.Now(), done...); err != nil {
		h.metrics.storeErrors.Add(1)
		return err
	}
	return failed
}

// lastMoment outlives ctx by the margin, but not the deadline of outer.
func (h *Handler) lastMoment(ctx, outer context.Context) (context.Context, context.CancelFunc) {
	end := time.Now().Add(recordTime)
	if deadline, ok := ctx.Deadline(); ok {
		end = deadline.Add(margin)
	}
	if deadline, ok := outer.Deadline(); ok && deadline.Before(end) {
		end = deadline
	}
	return context.WithDeadline(context.WithoutCancel(ctx), end)
}

// account counts the batch and logs what failed.
func (h *Handler) account(b *batch) {
	m := h.metrics
	m.records.Add(len(b.records))
	var left int
	for i, err := range b.errs {
		r := b.records[i]
		log := h.cfg.Log.With("shard", r.ShardID, "sequence_number", r.SequenceNumber)
		switch {
		case err == nil:
		case errors.Is(err, ErrNotTried):
			left++
		case errors.Is(err, ErrMalformed):
			m.malformed.Add(1)
			log.Error("skipping a malformed alert record", "error", err)
		case errors.Is(err, store.ErrConflict):
			log.Error("skipping an alert record that conflicts with the stored alert", "id", b.items[i].ID, "state", b.items[i].State, "error", err)
		case errors.Is(err, notify.ErrUnsendable):
			log.Error("alert is stored but cannot be published; skipping it", "id", b.items[i].ID, "state", b.items[i].State, "error", err)
		case Permanent(err):
			log.Error("skipping an alert record that cannot be stored", "id", b.items[i].ID, "state", b.items[i].State, "error", err)
		default:
			log.Warn("record not processed; it will be delivered again", "id", b.items[i].ID, "error", err)
		}
	}
	if left > 0 {
		m.notTried.Add(left)
		h.cfg.Log.Warn("batch not fully processed; the rest will be delivered again", "records", len(b.records), "left", left)
	}
	now := h.cfg.Now()
	if n := len(b.records); n > 0 {
		m.age.Observe(float64(now.Sub(b.records[n-1].ArrivedAt).Milliseconds()))
	}
	if err := m.sink.Flush(now); err != nil {
		h.cfg.Log.Warn("cannot write metrics", "error", err)
	}
}
