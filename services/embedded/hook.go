package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"spate/services/alerter/deliver"
	"spate/services/receiver"
	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/notify/webhook"
	"spate/shared/store"
)

// hook is an endpoint in this process: a receiver that verifies what it is told.
type hook struct {
	endpoint deliver.Endpoint
	close    func() // ends it and waits

	mu       sync.Mutex
	verified map[string]bool // webhook ids
}

func startHook(log *slog.Logger) (*hook, error) {
	secrets, err := webhook.ParseSecrets(webhook.NewSecret())
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for webhooks: %w", err)
	}
	sender, err := webhook.New(webhook.Config{URL: "http://" + ln.Addr().String() + "/", Secrets: secrets, AllowPrivate: true})
	if err != nil {
		_ = ln.Close() // nobody has connected
		return nil, err
	}
	h := &hook{endpoint: deliver.Endpoint{Endpoint: notify.Endpoint{Name: "demo"}, Notifier: sender}, verified: make(map[string]bool)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := receiver.Run(ctx, receiver.Config{Listener: ln, Secrets: secrets, On: h.called, Log: log}); err != nil {
			log.Error("receiver stopped", "error", err)
		}
	})
	h.close = sync.OnceFunc(func() {
		sender.Close()
		cancel()
		wg.Wait()
	})
	return h, nil
}

func (h *hook) called(c receiver.Call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.Verified {
		h.verified[c.WebhookID] = true
	}
}

// toldWithin is how long the last messages may take.
const toldWithin = 15 * time.Second

// told waits until every incident is over and all that is to be told is, and notes how many incidents and messages there were, and how many messages
// were verified. What is not told within a time is not waited for: it is missing.
func (s *stack) told(ctx context.Context, h *hook, res *DemoResult) error {
	ctx, cancel := context.WithTimeout(ctx, toldWithin)
	defer cancel()
	err := s.until(ctx, func() (bool, error) {
		for _, err := range s.store.Incidents(ctx, store.IncidentFilter{State: incident.StateOpen, Limit: 1}) {
			return false, err // it is open, or that is not known
		}
		known, err := s.store.Endpoints(ctx)
		if err != nil {
			return false, err
		}
		for _, e := range known {
			if e.Pending > 0 {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil && ctx.Err() == nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	for i, err := range s.store.Incidents(ctx, store.IncidentFilter{}) {
		if err != nil {
			return err
		}
		res.Incidents++
		if i.Severity == alert.Critical {
			res.Critical++
		}
	}
	for _, err := range s.store.ListDeliveries(ctx, store.DeliveryFilter{}) {
		if err != nil {
			return err
		}
		res.Messages++
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	res.Verified = len(h.verified)
	return nil
}
