package alerter

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/alert"
	"spate/shared/incident"
	"spate/shared/store"
)

// The outcomes of a record.
const (
	outcomeStored     = "stored"     // made an alert, or moved it forward
	outcomeRepeated   = "repeated"   // known already
	outcomeConflict   = "conflict"   // contradicts what is stored
	outcomeMalformed  = "malformed"  // no alert, or one that cannot be stored
	outcomeUnreadable = "unreadable" // a batch that cannot be decompressed, or is damaged
	outcomeDeleted    = "deleted"    // gone from the topic before it was read
)

type metrics struct {
	alerts      *prometheus.CounterVec
	incidents   *prometheus.CounterVec
	decisions   prometheus.Counter
	store       prometheus.Histogram
	storeErrors prometheus.Counter
	lag         prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		alerts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_alerter_alerts_total",
			Help: "Alert records by state (empty if unknown) and outcome: stored, repeated, conflict, malformed, deleted (before they were read), or unreadable (counts batches, not records)."}, []string{"state", "outcome"}),
		incidents: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_alerter_incidents_total",
			Help: "Incidents by transition (opened, escalated, resolved) and severity at that time."}, []string{"transition", "severity"}),
		decisions: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_alerter_decisions_total",
			Help: "Decisions made or extended because of alerts."}),
		store: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "spate_alerter_store_seconds",
			Help: "Duration of a transaction that stored a batch.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		storeErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_alerter_store_errors_total",
			Help: "Transactions that failed and were retried."}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_alerter_lag_records",
			Help: "Records that have not been stored yet, in the owned partitions of the alerts topic."}),
	}
	reg.MustRegister(m.alerts, m.incidents, m.decisions, m.store, m.storeErrors, m.lag)
	// What must be zero is there from the start, so that an alerting rule sees it rise.
	m.alerts.WithLabelValues("", outcomeMalformed)
	m.alerts.WithLabelValues("", outcomeUnreadable)
	m.alerts.WithLabelValues("", outcomeDeleted)
	for _, t := range []incident.Transition{incident.Opened, incident.Escalated, incident.Resolved} {
		m.incidents.WithLabelValues(string(t), string(alert.Critical))
		if t != incident.Escalated {
			m.incidents.WithLabelValues(string(t), string(alert.Warning))
		}
	}
	for _, s := range alert.States() {
		m.alerts.WithLabelValues(string(s), outcomeStored)
		m.alerts.WithLabelValues(string(s), outcomeConflict)
	}
	return m
}

// outcomeOf returns why the store refused a record.
func outcomeOf(err error) string {
	if errors.Is(err, store.ErrConflict) {
		return outcomeConflict
	}
	return outcomeMalformed
}
