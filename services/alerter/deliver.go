package alerter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/ops"
	"spate/shared/store"
)

const (
	// gaugeEvery is how often the numbers of what is pending are brought up to date.
	gaugeEvery = 5 * time.Second
	// recordFor is how long a try is attempted to be written down. Then the message will be told again.
	recordFor = 10 * time.Second
)

// deliverer tells the endpoints what is due. What is due, and who tells it, is the store's to know.
type deliverer struct {
	cfg     Config
	log     *slog.Logger
	metrics *deliveryMetrics
	targets map[string]*target
}

// target is an endpoint with what is known of it now.
type target struct {
	Endpoint
	gate *gate
}

func newDeliverer(cfg Config, m *deliveryMetrics) *deliverer {
	d := &deliverer{cfg: cfg, log: cfg.Log, metrics: m, targets: make(map[string]*target, len(cfg.Endpoints))}
	for _, e := range cfg.Endpoints {
		d.targets[e.Name] = &target{Endpoint: e, gate: newGate(e.Endpoint, cfg.Now)}
		m.known(e.Name)
	}
	return d
}

// run delivers until ctx ends. A store that is away is waited for.
func (d *deliverer) run(ctx context.Context) error {
	queues := make([]store.Queue, 0, len(d.cfg.Endpoints))
	configs := make(map[string]store.EndpointConfig, len(d.cfg.Endpoints))
	for _, e := range d.cfg.Endpoints {
		queues = append(queues, store.Queue{Endpoint: e.Name, Workers: maxWorkers})
		configs[e.Name] = e.Config()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		none := func(error) bool { return false } // no error is one that no further try can mend
		return ops.Keep(ctx, d.log, nil, none, func(ctx context.Context) error {
			if err := d.cfg.Store.Configure(ctx, d.cfg.Now(), configs); err != nil {
				return err
			}
			return d.cfg.Store.Work(ctx, queues, d.log, d.deliver)
		})
	})
	g.Go(func() error { return d.gauge(ctx) })
	return g.Wait()
}

// deliver implements store.Do.
func (d *deliverer) deliver(ctx context.Context, webhookID, endpoint string) (time.Time, error) {
	t := d.targets[endpoint]
	m, err := d.cfg.Store.Delivery(ctx, webhookID, endpoint)
	switch {
	case errors.Is(err, store.ErrNoDelivery):
		d.log.Warn("delivery no longer exists; there is nothing to send", "webhook_id", webhookID, "endpoint", endpoint)
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, err
	case m.State != store.Pending:
		return time.Time{}, nil // settled by somebody who died before he could say so
	case m.NextAt.After(d.cfg.Now()):
		return m.NextAt, nil // likewise
	}
	if disabled, err := d.cfg.Store.DisabledAt(ctx, endpoint); err != nil {
		return time.Time{}, err
	} else if !disabled.IsZero() {
		return time.Time{}, d.cfg.Store.Disable(ctx, webhookID, endpoint)
	}
	message, err := d.message(ctx, t, m)
	began := d.cfg.Now()
	var result notify.Result
	switch {
	case errors.Is(err, notify.ErrUnsendable):
		// It takes no turn at the gate, so that a queue of these holds up no message that can be sent.
		result = notify.Result{Outcome: notify.Unsendable, Reason: err.Error()}
	case err != nil:
		return time.Time{}, err
	default:
		if again, err := t.gate.enter(ctx); err != nil || !again.IsZero() {
			return again, err
		}
		began = d.cfg.Now()
		result = t.Notifier.Notify(ctx, message)
		if ctx.Err() != nil && result.Outcome != notify.Delivered {
			t.gate.unprobe()
			return time.Time{}, fmt.Errorf("notify %s: %w", endpoint, ctx.Err())
		}
		t.gate.leave(result)
	}
	now := d.cfg.Now()
	try := store.Try{WebhookID: m.WebhookID, Endpoint: endpoint, At: began, Took: now.Sub(began), Status: result.Status, Reason: result.Reason}
	try.Outcome, try.NextAt = notify.Step(result, m.Counted, m.BegunAt, now, m.WebhookID+"@"+endpoint)
	try.NextAt = try.NextAt.Truncate(time.Millisecond)
	if err := d.record(ctx, try, result.Outcome != notify.Throttled); err != nil {
		return time.Time{}, err
	}
	d.tell(try, result)
	return try.NextAt, nil
}

// message returns what a delivery tells. An error that wraps notify.ErrUnsendable is the message's.
func (d *deliverer) message(ctx context.Context, t *target, m store.Delivery) (notify.Message, error) {
	if m.Data == nil {
		var err error
		if m, err = d.cfg.Store.Seal(ctx, m.WebhookID, m.Endpoint, func(held iter.Seq2[alert.Record, error]) (json.RawMessage, error) { return t.digest(m, held) }); err != nil {
			return notify.Message{}, err
		}
	}
	message := notify.Message{ID: m.WebhookID, Type: m.Type, At: m.CreatedAt, Data: m.Data}
	return message, t.Notifier.Check(message)
}

// record writes a try down. A process that ends does not forget one that was made.
func (d *deliverer) record(ctx context.Context, try store.Try, counts bool) error {
	ctx, cancel := outlive(ctx, grace)
	defer cancel()
	ctx, stop := context.WithTimeout(ctx, recordFor)
	defer stop()
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		_, err := d.cfg.Store.Record(ctx, try, counts)
		if err == nil || errors.Is(err, store.ErrNoDelivery) {
			return nil
		}
		d.metrics.unrecorded.Inc()
		if !pause(ctx, wait) {
			return fmt.Errorf("a try was not recorded, so the message will be sent again: %w", err)
		}
	}
}

// tell lets people know of a try.
func (d *deliverer) tell(t store.Try, r notify.Result) {
	if r.Outcome == notify.Unsendable {
		d.metrics.tries.WithLabelValues(t.Endpoint, string(r.Outcome)).Inc()
		d.log.Error("giving up on a message that cannot be sent; this is not the endpoint's fault", "webhook_id", t.WebhookID, "endpoint", t.Endpoint, "reason", t.Reason)
		return
	}
	d.metrics.tries.WithLabelValues(t.Endpoint, string(t.Outcome)).Inc()
	d.metrics.took.WithLabelValues(t.Endpoint).Observe(t.Took.Seconds())
	log := d.log.With("webhook_id", t.WebhookID, "endpoint", t.Endpoint, "status", t.Status)
	switch t.Outcome {
	case notify.Delivered:
		log.Debug("delivered")
	case notify.Gone:
		log.Error("the endpoint responded that it wants no more messages (410 Gone) and is now disabled; see spate endpoints")
	case notify.Exhausted:
		log.Error("not delivered after the last try; to resend, use spate deliveries recover", "reason", t.Reason)
	default:
		log.Warn("not delivered, retrying", "reason", t.Reason, "next_at", t.NextAt)
	}
}

// digest makes the data of a digest of records.
func (t *target) digest(m store.Delivery, held iter.Seq2[alert.Record, error]) (json.RawMessage, error) {
	d := notify.NewDigester(m.CreatedAt, m.BegunAt)
	for r, err := range held {
		if err != nil {
			return nil, err
		}
		d.Add(r)
	}
	return d.Data(func(d notify.Digest) string {
		return strings.NewReplacer("{since}", d.Since.Format(time.RFC3339), "{until}", d.Until.Format(time.RFC3339)).Replace(t.Link)
	})
}

// gauge keeps the numbers of what is pending up to date.
func (d *deliverer) gauge(ctx context.Context) error {
	warned := make(map[string]bool)
	for {
		known, err := d.cfg.Store.Endpoints(ctx)
		if err != nil && ctx.Err() == nil {
			d.log.Debug("cannot read endpoints", "error", err)
		}
		for _, e := range known {
			if t := d.targets[e.Name]; t != nil {
				d.metrics.state(e)
			} else if e.Pending > 0 && !warned[e.Name] {
				warned[e.Name] = true
				d.log.Warn("an endpoint has pending deliveries but is not configured here; they are kept", "endpoint", e.Name, "pending", e.Pending)
			}
		}
		for name, t := range d.targets {
			d.metrics.breaker(name, t.gate.open())
		}
		if !pause(ctx, gaugeEvery) {
			return nil
		}
	}
}
