package alerter

import (
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spate/services/alerter/deliver"
	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/store"
)

// Config of an alerter.
type Config struct {
	Kafka  kafka.Config
	Layout kafka.Layout
	// Store belongs to the caller, who closes it after Run has returned.
	Store store.Store
	// Endpoints are notified of incidents or alerts; there may be none.
	Endpoints []deliver.Endpoint

	// Drains: a router may have ended its input (router.Config.Drain), which closes windows that lie in the future.
	Drains bool

	// Print, if not nil, is called for each record that changed something, in the order of its partition, after the record is stored. A
	// crash between the two skips the call: Print is for display, not for delivery. A slow Print holds up the pipeline.
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
	errs = append(errs, deliver.Validate(c.Endpoints))
	if c.Registry == nil {
		errs = append(errs, errors.New("registry: missing"))
	}
	return errors.Join(errs...)
}
