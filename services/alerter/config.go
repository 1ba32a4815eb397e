package alerter

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/notify"
	"spate/shared/ops"
	"spate/shared/store"
)

// Endpoint is somebody who is notified of alerts.
type Endpoint struct {
	notify.Endpoint
	Notifier notify.Notifier
	// Link is where a digest says to look; {since} and {until} in it become the digest's times. Empty is nowhere.
	Link string
}

// Config is how the endpoint is configured, as far as that may be shown.
func (e Endpoint) Config() store.EndpointConfig {
	c := store.EndpointConfig{Rules: e.Filter.Rules, MinSeverity: e.Filter.MinSeverity, Transitions: e.Filter.Transitions, Rate: e.Rate, DigestAbove: e.DigestAbove}
	if h, ok := e.Notifier.(interface{ Host() string }); ok {
		c.Host = h.Host()
	}
	return c
}

// Config of an alerter.
type Config struct {
	Kafka  kafka.Config
	Layout kafka.Layout
	// Store is the caller's, who closes it after Run has returned.
	Store store.Store
	// Endpoints are notified of the alerts; none is fine.
	Endpoints []Endpoint

	// Drains: a router may have ended its input (router.Config.Drain), which closes windows that lie in the future.
	Drains bool

	// Print, if not nil, is called for each record that changed something, in the order of its partition, after it is stored. A crash
	// between the two leaves it out: it is for people, not for delivery. It holds up the pipeline.
	Print func(alert.Record)
	// OnStored, if not nil, is called after every transaction with its records and whether each changed something. It must not keep or
	// change them.
	OnStored func(records []alert.Record, changed []bool)

	Log      *slog.Logger          // discards if nil
	Registry prometheus.Registerer // required
	Status   *ops.Status           // optional
	Now      func() time.Time      // wall clock; time.Now if nil
}

// Validate reports every problem at once; it does no I/O.
func (c Config) Validate() error {
	errs := []error{c.Kafka.Validate()}
	if c.Layout.Names.Alerts == "" || c.Layout.Names.AlerterGroup == "" {
		errs = append(errs, errors.New("layout: the names of the alerts topic and of the alerter's group are required"))
	}
	if c.Store == nil {
		errs = append(errs, errors.New("store: missing"))
	}
	names := make(map[string]bool, len(c.Endpoints))
	for _, e := range c.Endpoints {
		errs = append(errs, e.Validate())
		if names[e.Name] {
			errs = append(errs, fmt.Errorf("endpoint %q: name: is a duplicate", e.Name))
		}
		names[e.Name] = true
		if e.Notifier == nil {
			errs = append(errs, fmt.Errorf("endpoint %q: notifier: missing", e.Name))
		}
	}
	if c.Registry == nil {
		errs = append(errs, errors.New("registry: missing"))
	}
	return errors.Join(errs...)
}
