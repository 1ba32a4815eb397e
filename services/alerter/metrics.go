package alerter

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/alert"
	"spate/shared/notify"
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
	store       prometheus.Histogram
	storeErrors prometheus.Counter
	lag         prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		alerts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_alerter_alerts_total",
			Help: "Alert records by state (empty if unknown) and outcome (stored, repeated, conflict, malformed, deleted before being read; unreadable counts batches)."}, []string{"state", "outcome"}),
		store: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "spate_alerter_store_seconds",
			Help: "Duration of a transaction that stored a batch.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		storeErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_alerter_store_errors_total",
			Help: "Transactions that failed and were retried."}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_alerter_lag_records",
			Help: "Records of the owned partitions of the alerts topic that are not stored yet."}),
	}
	reg.MustRegister(m.alerts, m.store, m.storeErrors, m.lag)
	// What must be zero is there from the start, so that an alerting rule sees it rise.
	m.alerts.WithLabelValues("", outcomeMalformed)
	m.alerts.WithLabelValues("", outcomeUnreadable)
	m.alerts.WithLabelValues("", outcomeDeleted)
	for _, s := range alert.States() {
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

type deliveryMetrics struct {
	tries      *prometheus.CounterVec
	took       *prometheus.HistogramVec
	pending    *prometheus.GaugeVec
	disabled   *prometheus.GaugeVec
	open       *prometheus.GaugeVec
	unrecorded prometheus.Counter
}

func newDeliveryMetrics(reg prometheus.Registerer) *deliveryMetrics {
	endpoint := []string{"endpoint"}
	m := &deliveryMetrics{
		tries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_alerter_deliveries_total",
			Help: "Delivery tries, by outcome (delivered, failed, throttled, gone, exhausted, unsendable)."}, []string{"endpoint", "outcome"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "spate_alerter_delivery_seconds",
			Help: "Duration of a try.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}, endpoint),
		pending: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "spate_alerter_deliveries_pending",
			Help: "Messages not yet delivered to the endpoint, in the whole database."}, endpoint),
		disabled: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "spate_alerter_endpoint_disabled",
			Help: "1 if the endpoint is disabled and is not notified."}, endpoint),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "spate_alerter_breaker_open",
			Help: "1 if the endpoint is failing and is only probed occasionally."}, endpoint),
		unrecorded: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_alerter_delivery_record_errors_total",
			Help: "Failed attempts to record a try in the database."}),
	}
	reg.MustRegister(m.tries, m.took, m.pending, m.disabled, m.open, m.unrecorded)
	return m
}

// known makes the series of an endpoint be there from the start.
func (m *deliveryMetrics) known(endpoint string) {
	for _, o := range []notify.Outcome{notify.Delivered, notify.Failed, notify.Throttled, notify.Gone, notify.Exhausted, notify.Unsendable} {
		m.tries.WithLabelValues(endpoint, string(o))
	}
	m.state(store.EndpointState{Name: endpoint})
	m.breaker(endpoint, false)
}

func (m *deliveryMetrics) state(e store.EndpointState) {
	m.pending.WithLabelValues(e.Name).Set(float64(e.Pending))
	m.disabled.WithLabelValues(e.Name).Set(truth(!e.DisabledAt.IsZero()))
}

func (m *deliveryMetrics) breaker(endpoint string, open bool) {
	m.open.WithLabelValues(endpoint).Set(truth(open))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
