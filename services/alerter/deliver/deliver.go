package deliver

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

	"spate/shared/notify"
	"spate/shared/ops"
	"spate/shared/store"
)

const (
	// gaugeEvery is how often the numbers of what is pending are brought up to date.
	gaugeEvery = 5 * time.Second
	// recordFor is how long a try is attempted to be written down. Then the message will be told again.
	recordFor = 10 * time.Second
	// orderWait is how long a message waits, again and again, for an earlier one about the same incident that is due, too; orderPatience bounds that. A try takes
	// less; what takes longer was under way in a process that died, and comes again much later.
	orderWait     = 500 * time.Millisecond
	orderPatience = 15 * time.Second

	// grace is what a try that was made gets to be written down when ctx ends.
	grace = 2 * time.Second

	retryMin = 100 * time.Millisecond
	retryMax = 10 * time.Second
)

// Run delivers what is due until ctx ends. A store that is away is waited for.
func Run(ctx context.Context, cfg Config) error {
	return newDeliverer(cfg, newMetrics(cfg.Registry)).run(ctx)
}

// deliverer makes the deliveries that are due. The store decides which are due, and which alerter makes them.
type deliverer struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	targets map[string]*target
}

// target is an endpoint with what is known of it now.
type target struct {
	Endpoint
	gate *gate
}

func newDeliverer(cfg Config, m *metrics) *deliverer {
	d := &deliverer{cfg: cfg, log: cfg.Log, metrics: m, targets: make(map[string]*target, len(cfg.Endpoints))}
	for _, e := range cfg.Endpoints {
		d.targets[e.Name] = &target{Endpoint: e, gate: newGate(e.Endpoint, cfg.Now)}
		m.known(e.Name)
	}
	return d
}

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
	g.Go(func() error { return d.renew(ctx) })
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
		return time.Time{}, nil // settled by an alerter that died before it could say so
	case m.NextAt.After(d.cfg.Now()):
		return m.NextAt, nil // likewise
	}
	if disabled, err := d.cfg.Store.DisabledAt(ctx, endpoint); err != nil {
		return time.Time{}, err
	} else if !disabled.IsZero() {
		return time.Time{}, d.cfg.Store.Disable(ctx, webhookID, endpoint)
	}
	if m.Incident != "" {
		if overtaken, again, err := d.order(ctx, m); err != nil || !again.IsZero() {
			return again, err
		} else if overtaken != "" && t.Shows {
			now := d.cfg.Now()
			return time.Time{}, d.record(ctx, store.Try{WebhookID: m.WebhookID, Endpoint: endpoint, At: now, Outcome: notify.Delivered, Reason: "not sent: the later message " + overtaken + " was delivered"}, false)
		}
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
	try := store.Try{WebhookID: m.WebhookID, Endpoint: endpoint, At: began, Took: now.Sub(began), Status: result.Status, Reason: result.Reason, Ref: result.Ref}
	try.Outcome, try.NextAt = notify.Step(result, m.Counted, m.BegunAt, now, m.WebhookID+"@"+endpoint)
	try.NextAt = try.NextAt.Truncate(time.Millisecond)
	if err := d.record(ctx, try, result.Outcome != notify.Throttled); err != nil {
		return time.Time{}, err
	}
	d.tell(try, result)
	return try.NextAt, nil
}

// order returns which later message about the same incident the endpoint has already, or when to look again, because an earlier one is under way.
func (d *deliverer) order(ctx context.Context, m store.Delivery) (overtaken string, again time.Time, err error) {
	now := d.cfg.Now()
	for o, err := range d.cfg.Store.ListDeliveries(ctx, store.DeliveryFilter{Incident: m.Incident, Endpoint: m.Endpoint}) {
		if err != nil {
			return "", time.Time{}, err
		}
		later := notify.Rank(o.Type) - notify.Rank(m.Type)
		switch {
		case later > 0 && o.State == store.Delivered:
			overtaken = o.WebhookID
		case later < 0 && o.State == store.Pending && !o.NextAt.After(now) && now.Sub(m.BegunAt) < orderPatience:
			again = now.Add(orderWait)
		}
	}
	if overtaken != "" {
		again = time.Time{}
	}
	return overtaken, again, nil
}

// message returns the message of a delivery. An error that wraps notify.ErrUnsendable means that the message is at fault.
func (d *deliverer) message(ctx context.Context, t *target, m store.Delivery) (notify.Message, error) {
	if m.Data == nil {
		var err error
		if m, err = d.cfg.Store.Seal(ctx, m.WebhookID, m.Endpoint, func(held iter.Seq2[notify.Held, error]) (json.RawMessage, error) { return t.digest(m, held) }); err != nil {
			return notify.Message{}, err
		}
	}
	message := notify.Message{ID: m.WebhookID, Type: m.Type, At: m.CreatedAt, Data: m.Data, Ref: m.Ref}
	return message, t.Notifier.Check(message)
}

// record writes a try down. A process that ends does not forget one that was made.
func (d *deliverer) record(ctx context.Context, try store.Try, counts bool) error {
	ctx, cancel := ops.Outlive(ctx, grace)
	defer cancel()
	ctx, stop := context.WithTimeout(ctx, recordFor)
	defer stop()
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		_, err := d.cfg.Store.Record(ctx, try, counts)
		if err == nil || errors.Is(err, store.ErrNoDelivery) {
			return nil
		}
		d.metrics.unrecorded.Inc()
		if !ops.Pause(ctx, wait) {
			return fmt.Errorf("an attempt was not recorded, so the message will be sent again: %w", err)
		}
	}
}

// tell lets people know of a try.
func (d *deliverer) tell(t store.Try, r notify.Result) {
	if r.Outcome == notify.Unsendable {
		d.metrics.tries.WithLabelValues(t.Endpoint, string(r.Outcome)).Inc()
		d.log.Error("giving up on a message that cannot be sent; the endpoint is not the cause", "webhook_id", t.WebhookID, "endpoint", t.Endpoint, "reason", t.Reason)
		return
	}
	d.metrics.tries.WithLabelValues(t.Endpoint, string(t.Outcome)).Inc()
	d.metrics.took.WithLabelValues(t.Endpoint).Observe(t.Took.Seconds())
	log := d.log.With("webhook_id", t.WebhookID, "endpoint", t.Endpoint, "status", t.Status)
	switch t.Outcome {
	case notify.Delivered:
		log.Debug("delivered")
	case notify.Gone:
		log.Error("the endpoint accepts no more messages (410 Gone) and is now disabled; see spate endpoints")
	case notify.Exhausted:
		log.Error("not delivered after the last attempt; to resend, use spate deliveries recover", "reason", t.Reason)
	default:
		log.Warn("not delivered, retrying", "reason", t.Reason, "next_at", t.NextAt)
	}
}

// digest makes the data of a digest of records.
func (t *target) digest(m store.Delivery, held iter.Seq2[notify.Held, error]) (json.RawMessage, error) {
	d := notify.NewDigester(m.CreatedAt, m.BegunAt)
	for h, err := range held {
		if err != nil {
			return nil, err
		}
		d.Add(h)
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
				d.log.Warn("an endpoint has pending deliveries but is not configured here; the deliveries are kept", "endpoint", e.Name, "pending", e.Pending)
			}
		}
		for name, t := range d.targets {
			d.metrics.breaker(name, t.gate.open())
		}
		if !ops.Pause(ctx, gaugeEvery) {
			return nil
		}
	}
}
