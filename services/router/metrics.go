package router

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/activity"
	"spate/shared/window"
)

// Counts are the events of this process's committed transactions: In = Counted + Late + Invalid.
type Counts struct {
	In, Counted, Late, Invalid atomic.Int64
	// Identified are those of Counted that have an id.
	Identified atomic.Int64
}

type metrics struct {
	events       *prometheus.CounterVec
	transactions *prometheus.CounterVec
	panes        prometheus.Counter
	lag          prometheus.Gauge
	watermark    prometheus.Gauge
	owned        prometheus.Gauge
	idle         prometheus.Gauge
	waiting      prometheus.Gauge
	held         prometheus.Gauge
	heldFor      prometheus.Gauge
	lost         prometheus.Counter
	rules        prometheus.Gauge
	rulesLate    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_router_events_total",
			Help: "Records in committed transactions by fate (counted, late, invalid, skipped) and reason; skipped records are valid but are not events."}, []string{"fate", "reason"}),
		transactions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_router_transactions_total",
			Help: "Transactions by outcome (committed, aborted, failed)."}, []string{"outcome"}),
		panes: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_router_panes_total",
			Help: "Sums per user and window written to the keyed log."}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_router_lag_events",
			Help: "Records not yet read from the owned source partitions, including records in open transactions."}),
		watermark: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_router_watermark_seconds",
			Help: "Lowest watermark among the owned source partitions, as a Unix time; 0 before the first event."}),
		owned: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_router_partitions",
			Help: "Owned source partitions."}),
		idle: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_router_idle_partitions",
			Help: "Owned source partitions that are silent and do not hold windows open."}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_router_waiting_partitions",
			Help: "Owned source partitions that are far ahead in event time and are waiting for others that have a backlog."}),
		held: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_router_held_partitions",
			Help: "Owned source partitions that an open transaction holds back."}),
		heldFor: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_router_held_seconds",
			Help: "Longest time that an open transaction has held back an owned source partition."}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_router_lost_events_total",
			Help: "Records in the events topic that were deleted before they were read. Any value other than 0 means that counts may be too low."}),
		rules: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_router_rules_revision",
			Help: "Newest revision of the rules that this process knows; 0 if no rules have been applied."}),
		rulesLate: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_router_late_revisions_total",
			Help: "Rule revisions that became readable so late that events may have been judged without them. Any value other than 0 means that counts right after the boundary of such a revision may be too low."}),
	}
	reg.MustRegister(m.events, m.transactions, m.panes, m.lag, m.watermark, m.owned, m.idle, m.waiting, m.held, m.heldFor, m.lost, m.rules, m.rulesLate)
	return m
}

// tally is what one transaction did, counted when it is committed.
type tally struct {
	counted int64
	ids     int64    // of those counted
	late    [3]int64 // by window.Fate
	invalid map[activity.Reason]int64
	skipped map[activity.Reason]int64 // of what was sent on purpose and is not an event
	panes   int64
	lost    int64 // deleted before they were read

	asideBytes int // of what is set aside in the transaction
}

func (t *tally) reset() {
	t.counted, t.ids, t.late, t.panes, t.lost, t.asideBytes = 0, 0, [3]int64{}, 0, 0, 0
	clear(t.invalid)
	clear(t.skipped)
}

func (m *metrics) committed(t *tally, c *Counts) {
	late := t.late[window.LateWatermark] + t.late[window.LateIdle]
	var invalid int64
	m.transactions.WithLabelValues("committed").Inc()
	m.events.WithLabelValues("counted", "").Add(float64(t.counted))
	for _, f := range []window.Fate{window.LateWatermark, window.LateIdle} {
		if n := t.late[f]; n > 0 {
			m.events.WithLabelValues("late", f.String()).Add(float64(n))
		}
	}
	for r, n := range t.invalid {
		m.events.WithLabelValues("invalid", string(r)).Add(float64(n))
		invalid += n
	}
	for r, n := range t.skipped {
		m.events.WithLabelValues("skipped", string(r)).Add(float64(n))
	}
	m.panes.Add(float64(t.panes))
	m.lost.Add(float64(t.lost))
	if c != nil {
		c.In.Add(t.counted + late + invalid)
		c.Counted.Add(t.counted)
		c.Identified.Add(t.ids)
		c.Late.Add(late)
		c.Invalid.Add(invalid)
	}
}
