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
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		alerts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_detector_alerts_total",
			Help: "Alert records written by state; after a crash some are written again. Refused: those that cannot be, for the keyed log holds what no router has written."}, []string{"state"}),
		batches: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_detector_batches_total",
			Help: "Records of the keyed log by outcome (applied; corrupt: no router can have written it; unreadable: cannot be decompressed or is damaged)."}, []string{"outcome"}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "spate_detector_lag_batches",
			Help: "Records between where the keyed log is read and its end, by partition."}, []string{"partition"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_detector_lost_batches_total",
			Help: "Records of the keyed log that were deleted before they were read. Anything but 0 means that alerts can be missing."}),
		limit: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_detector_open_windows_limit",
			Help: "Open windows of all partitions at which this process stops reading."}),
	}
	reg.MustRegister(m.alerts, m.batches, m.lag, m.lost, m.limit)
	return m
}

// tables exposes the figures of the tables as they are when asked for.
type tables struct {
	shards *atomic.Pointer[shards]
}

var (
	descWindows   = prometheus.NewDesc("spate_detector_open_windows", "Open windows, one for each user with events in it, by partition.", []string{"partition"}, nil)
	descWatermark = prometheus.NewDesc("spate_detector_watermark_seconds", "Watermark, as a Unix time, by partition; absent until all source partitions have spoken.", []string{"partition"}, nil)
	descRepeated  = prometheus.NewDesc("spate_detector_repeated_events_total", "Events whose id was counted before for the user in the window, by partition.", []string{"partition"}, nil)
	descIDs       = prometheus.NewDesc("spate_detector_ids", "Ids of events that are remembered, by partition; four of them take the room of an open window.", []string{"partition"}, nil)
	descStray     = prometheus.NewDesc("spate_detector_stray_events_total", "Events that came for a window after its close, by partition. Anything but 0 means that the topic of events got more partitions while in use.", []string{"partition"}, nil)
)

// Describe is part of prometheus.Collector.
func (t tables) Describe(ch chan<- *prometheus.Desc) {
	ch <- descWindows
	ch <- descWatermark
	ch <- descStray
	ch <- descRepeated
	ch <- descIDs
}

// Collect is part of prometheus.Collector.
func (t tables) Collect(ch chan<- prometheus.Metric) {
	s := t.shards.Load()
	if s == nil {
		return
	}
	for _, sh := range s.all() {
		sh.mu.Lock()
		st := sh.table.Stats()
		sh.mu.Unlock()
		p := strconv.Itoa(int(sh.partition))
		ch <- prometheus.MustNewConstMetric(descWindows, prometheus.GaugeValue, float64(st.Windows), p)
		ch <- prometheus.MustNewConstMetric(descStray, prometheus.CounterValue, float64(st.Stray), p)
		ch <- prometheus.MustNewConstMetric(descRepeated, prometheus.CounterValue, float64(st.Repeated), p)
		ch <- prometheus.MustNewConstMetric(descIDs, prometheus.GaugeValue, float64(st.Identities), p)
		if st.WatermarkMS != window.NoTime && st.WatermarkMS != window.EndOfTime {
			ch <- prometheus.MustNewConstMetric(descWatermark, prometheus.GaugeValue, float64(st.WatermarkMS)/1000, p)
		}
	}
}
