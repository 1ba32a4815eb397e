package detector

import (
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/window"
)

// Counts are the alerts that this process wrote, re-emissions after a crash included.
type Counts struct {
	Opened, Closed atomic.Int64
	// Batches applied, and the watermark of the partition that is furthest behind.
	Batches atomic.Int64
	// Repeated are events that were counted before, by their ids.
	Repeated atomic.Int64
}

type metrics struct {
	alerts  *prometheus.CounterVec
	batches *prometheus.CounterVec
	lag     *prometheus.GaugeVec
	lost    prometheus.Counter
	limit   prometheus.Gauge
	rules   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		alerts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_detector_alerts_total",
			Help: "Alert records written, by rule and state; after a crash, some are written again. The state refused counts records that were not written because the keyed log contains data that no router wrote."}, []string{"rule", "state"}),
		batches: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_detector_batches_total",
			Help: "Records read from the keyed log, by outcome (applied; corrupt: not written by a router; old: written by a version of spate that this one cannot read; unreadable: damaged or cannot be decompressed)."}, []string{"outcome"}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "spate_detector_lag_batches",
			Help: "Records in the keyed log not yet read, by partition."}, []string{"partition"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_detector_lost_batches_total",
			Help: "Records in the keyed log that were deleted before they were read, or that an older version of spate wrote and this one cannot read. Any value other than 0 means that alerts may be missing."}),
		limit: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_detector_open_windows_limit",
			Help: "Number of open windows, across all partitions, at which this process pauses reading."}),
		rules: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_detector_rules_revision",
			Help: "Newest revision of the rules that this process knows; 0 if no rules have been applied."}),
	}
	reg.MustRegister(m.alerts, m.batches, m.lag, m.lost, m.limit, m.rules)
	return m
}

// tables exposes the figures of the tables as they are when asked for.
type tables struct {
	partitions *atomic.Pointer[keyedPartitions]
	rules      *atomic.Pointer[rules]
}

var (
	descWindows   = prometheus.NewDesc("spate_detector_open_windows", "Open windows by partition; a window with events by two users counts as two.", []string{"partition"}, nil)
	descWatermark = prometheus.NewDesc("spate_detector_watermark_seconds", "Watermark, as a Unix time, by partition; absent until all source partitions have reported one.", []string{"partition"}, nil)
	descRepeated  = prometheus.NewDesc("spate_detector_repeated_events_total", "Events whose ID was already counted for the user in the window, by partition.", []string{"partition"}, nil)
	descIDs       = prometheus.NewDesc("spate_detector_ids", "Event IDs kept in memory, by partition; four IDs take as much memory as one open window.", []string{"partition"}, nil)
	descForeign   = prometheus.NewDesc("spate_detector_foreign_events_total", "Events for rules that this detector does not have, by partition. Any value other than 0 means that routers have different settings, or had them when they wrote these events.", []string{"partition"}, nil)
	descFaults    = prometheus.NewDesc("spate_detector_rule_faults_total", "Results that are NULL because they cannot be computed (a division by zero, an overflow, an invalid cast), by rule.", []string{"rule"}, nil)
	descStray     = prometheus.NewDesc("spate_detector_stray_events_total", "Events that arrived for a window after it closed, by partition. Any value other than 0 means that partitions were added to the events topic while it was in use.", []string{"partition"}, nil)
)

// Describe is part of prometheus.Collector.
func (t tables) Describe(ch chan<- *prometheus.Desc) {
	ch <- descWindows
	ch <- descWatermark
	ch <- descForeign
	ch <- descStray
	ch <- descRepeated
	ch <- descIDs
	ch <- descFaults
}

// Collect is part of prometheus.Collector.
func (t tables) Collect(ch chan<- prometheus.Metric) {
	s := t.partitions.Load()
	if s == nil {
		return
	}
	for _, kp := range s.all() {
		kp.mu.Lock()
		st := kp.table.Stats()
		kp.mu.Unlock()
		p := strconv.Itoa(int(kp.partition))
		ch <- prometheus.MustNewConstMetric(descWindows, prometheus.GaugeValue, float64(st.Panes), p)
		ch <- prometheus.MustNewConstMetric(descForeign, prometheus.CounterValue, float64(st.Foreign), p)
		ch <- prometheus.MustNewConstMetric(descStray, prometheus.CounterValue, float64(st.Stray), p)
		ch <- prometheus.MustNewConstMetric(descRepeated, prometheus.CounterValue, float64(st.Repeated), p)
		ch <- prometheus.MustNewConstMetric(descIDs, prometheus.GaugeValue, float64(st.Identities), p)
		if st.WatermarkMS != window.NoTime && st.WatermarkMS != window.EndOfTime {
			ch <- prometheus.MustNewConstMetric(descWatermark, prometheus.GaugeValue, float64(st.WatermarkMS)/1000, p)
		}
	}
	for rule, n := range t.faults(false) {
		ch <- prometheus.MustNewConstMetric(descFaults, prometheus.CounterValue, float64(n), rule)
	}
}

// faults are what each rule, or each rule in force, could not compute in the partitions that are here. Those of former revisions count for the rule of
// their name.
func (t tables) faults(inForce bool) map[string]int64 {
	out := map[string]int64{}
	s := t.partitions.Load()
	if s == nil {
		return out
	}
	plan := t.rules.Load().now().plan
	for _, kp := range s.all() {
		kp.mu.Lock()
		for i, n := range kp.table.Faults() {
			if i < len(plan.Rules) && !(inForce && plan.Rules[i].Window.Until > 0) { // a session that begins can have other rules already
				out[plan.Rules[i].Name] += n
			}
		}
		kp.mu.Unlock()
	}
	return out
}
