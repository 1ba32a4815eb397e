package deliver

import (
	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/notify"
	"spate/shared/store"
)

type metrics struct {
	tries      *prometheus.CounterVec
	took       *prometheus.HistogramVec
	pending    *prometheus.GaugeVec
	disabled   *prometheus.GaugeVec
	open       *prometheus.GaugeVec
	unrecorded prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	endpoint := []string{"endpoint"}
	m := &metrics{
		tries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_alerter_deliveries_total",
			Help: "Delivery attempts by outcome (delivered, failed, throttled, gone, exhausted, unsendable)."}, []string{"endpoint", "outcome"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "spate_alerter_delivery_seconds",
			Help: "Duration of a delivery attempt.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}, endpoint),
		pending: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "spate_alerter_deliveries_pending",
			Help: "Messages in the entire database that have not yet been delivered to the endpoint."}, endpoint),
		disabled: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "spate_alerter_endpoint_disabled",
			Help: "1 if the endpoint is disabled, so it is not notified."}, endpoint),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "spate_alerter_breaker_open",
			Help: "1 if the endpoint is failing and is only probed occasionally."}, endpoint),
		unrecorded: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_alerter_delivery_record_errors_total",
			Help: "Failures to record a delivery attempt in the database."}),
	}
	reg.MustRegister(m.tries, m.took, m.pending, m.disabled, m.open, m.unrecorded)
	return m
}

// known makes the series of an endpoint be there from the start.
func (m *metrics) known(endpoint string) {
	for _, o := range []notify.Outcome{notify.Delivered, notify.Failed, notify.Throttled, notify.Gone, notify.Exhausted, notify.Unsendable} {
		m.tries.WithLabelValues(endpoint, string(o))
	}
	m.state(store.EndpointState{Name: endpoint})
	m.breaker(endpoint, false)
}

func (m *metrics) state(e store.EndpointState) {
	m.pending.WithLabelValues(e.Name).Set(float64(e.Pending))
	m.disabled.WithLabelValues(e.Name).Set(truth(!e.DisabledAt.IsZero()))
}

func (m *metrics) breaker(endpoint string, open bool) {
	m.open.WithLabelValues(endpoint).Set(truth(open))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
