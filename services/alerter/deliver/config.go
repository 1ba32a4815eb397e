package deliver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/incident"
	"spate/shared/notify"
	"spate/shared/store"
)

// Endpoint is a receiver of notifications.
type Endpoint struct {
	notify.Endpoint
	Notifier notify.Notifier
	// Format is the name of the endpoint's format, for display.
	Format string
	// Shows: the receiver shows the current state of an incident. A message is not sent after a later one about the same incident.
	Shows bool
	// Link is the URL for details in a digest; {since} and {until} in it become the digest's times. Empty: there is none.
	Link string
}

// Config returns the part of the endpoint's configuration that may be shown.
func (e Endpoint) Config() store.EndpointConfig {
	c := store.EndpointConfig{Format: e.Format, Rules: e.Filter.Rules, MinSeverity: e.Filter.MinSeverity, Transitions: e.Filter.Transitions, Rate: e.Rate, DigestAbove: e.DigestAbove}
	if h, ok := e.Notifier.(interface{ Host() string }); ok {
		c.Host = h.Host()
	}
	return c
}

// Told returns what a store needs to know of endpoints.
func Told(endpoints []Endpoint) []notify.Endpoint {
	out := make([]notify.Endpoint, 0, len(endpoints))
	for _, e := range endpoints {
		out = append(out, e.Endpoint)
	}
	return out
}

// Validate reports every problem of endpoints at once.
func Validate(endpoints []Endpoint) error {
	var errs []error
	names := make(map[string]bool, len(endpoints))
	for _, e := range endpoints {
		errs = append(errs, e.Validate())
		if names[e.Name] {
			errs = append(errs, fmt.Errorf("endpoint %q: name: already used by another endpoint", e.Name))
		}
		names[e.Name] = true
		if e.Notifier == nil {
			errs = append(errs, fmt.Errorf("endpoint %q: notifier: missing", e.Name))
		}
	}
	return errors.Join(errs...)
}

// Store is the part of a store that deliveries need.
type Store interface {
	store.Deliveries

	// Incidents is that of store.Incidents. It is called for those that are open, and for one by its whole id.
	Incidents(ctx context.Context, f store.IncidentFilter) iter.Seq2[incident.Incident, error]
}

// Config says who delivers what to whom. All fields are required.
type Config struct {
	Store     Store
	Endpoints []Endpoint // at least one
	Log       *slog.Logger
	Registry  prometheus.Registerer
	Now       func() time.Time // wall clock
}
