package alerter

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/alert"
	"spate/shared/store"
)

// The outcomes of a record.
const (
	outcomeStored    = "stored"    // made an alert, or moved it forward
	outcomeRepeated  = "repeated"  // known already
	outcomeConflict  = "conflict"  // contradicts what is stored
	outcomeMalformed = "malformed" // no alert, or one that cannot be stored
)

type metrics struct {
	alerts      *prometheus.CounterVec
	store       prometheus.Histogram
	storeErrors prometheus.Counter
	lag         prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		alerts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_alerter_alerts_total",
			Help: "Alert records by state (empty if unknown) and outcome (stored, repeated, conflict, malformed)."}, []string{"state", "outcome"}),
		store: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "spate_alerter_store_seconds",
			Help: "Duration of a transaction that stored a batch.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		storeErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_alerter_store_errors_total",
			Help: "Transactions that failed and were tried again."}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_alerter_lag_records",
			Help: "Records in the owned partitions of the topic of alerts that are not stored yet."}),
	}
	reg.MustRegister(m.alerts, m.store, m.storeErrors, m.lag)
	// What must be zero is there from the start, so that an alerting rule sees it rise.
	m.alerts.WithLabelValues("", outcomeMalformed)
	for _, s := range []alert.State{alert.Opened, alert.Closed} {
		m.alerts.WithLabelValues(string(s), outcomeStored)
		m.alerts.WithLabelValues(string(s), outcomeConflict)
	}
	return m
}

// outcomeOf tells why the store refused a record.
func outcomeOf(err error) string {
	if errors.Is(err, store.ErrConflict) {
		return outcomeConflict
	}
	return outcomeMalformed
}
