package worker

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/alert"
	"spate/shared/aws/emf"
)

// Counts are the events of this process whose place is in the saved state: In is the sum of the others.
type Counts struct {
	In, Counted, Late, Invalid, Repeated atomic.Int64
}

type metrics struct {
	events    *prometheus.CounterVec
	alerts    *prometheus.CounterVec
	saves     prometheus.Counter
	lost      prometheus.Counter
	active    prometheus.Gauge
	shards    prometheus.Gauge
	idle      prometheus.Gauge
	behind    prometheus.Gauge
	open      prometheus.Gauge
	openLimit prometheus.Gauge
	watermark prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_worker_events_total",
			Help: "Events by fate (counted, late, invalid, repeated) and reason; skipped are records that are sent on purpose and are not events."}, []string{"fate", "reason"}),
		alerts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_worker_alerts_total",
			Help: "Alert records written, again after a crash included, by state."}, []string{"state"}),
		saves: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_worker_saves_total",
			Help: "Times that the state was written to the table."}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_worker_lost_total",
			Help: "Places where records were deleted before they were read: alerts can be missing."}),
		active: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_active",
			Help: "1 if this worker holds the lease, 0 if it stands by."}),
		shards: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_shards",
			Help: "Shards that are read."}),
		idle: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_idle_shards",
			Help: "Shards that are silent and do not hold windows open."}),
		behind: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_behind_seconds",
			Help: "How far the slowest shard is behind, as Kinesis has it."}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_open_windows",
			Help: "Open windows, one for each user with events in it."}),
		openLimit: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_open_windows_limit",
			Help: "Open windows at which only the slowest shard is read."}),
		watermark: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_watermark_seconds",
			Help: "Windows are closed up to here, as a Unix time; 0 before the first close."}),
	}
	reg.MustRegister(m.events, m.alerts, m.saves, m.lost, m.active, m.shards, m.idle, m.behind, m.open, m.openLimit, m.watermark)
	return m
}

// reportEvery is how often metrics go to the log, for CloudWatch.
const reportEvery = time.Minute

// reports are the metrics in the log. All of it does nothing without a sink.
type reports struct {
	sink *emf.Sink
	last time.Time

	counted, late, invalid, repeated *emf.Counter
	opened, closed, lost             *emf.Counter
	behind                           *emf.Values
}

func newReports(sink *emf.Sink) *reports {
	if sink == nil {
		return nil
	}
	return &reports{
		sink: sink, last: time.Now(),
		counted: sink.Counter("events_counted"), late: sink.Counter("events_late"), invalid: sink.Counter("events_invalid"),
		repeated: sink.Counter("events_repeated"), opened: sink.Counter("alerts_opened"), closed: sink.Counter("alerts_closed"),
		lost:   sink.Counter("lost"),
		behind: sink.Values("behind", emf.Milliseconds),
	}
}

func (r *reports) events(counted, late, invalid, repeated int64) {
	if r == nil {
		return
	}
	r.counted.Add(int(counted))
	r.late.Add(int(late))
	r.invalid.Add(int(invalid))
	r.repeated.Add(int(repeated))
}

// lose counts a place where records were deleted before they were read.
func (r *reports) lose() {
	if r != nil {
		r.lost.Add(1)
	}
}

func (r *reports) alert(s alert.State) {
	switch {
	case r == nil:
	case s == alert.Opened:
		r.opened.Add(1)
	default:
		r.closed.Add(1)
	}
}

// flush writes a line if it is time; behindMS is how far the slowest shard is behind.
func (r *reports) flush(behindMS int64) error {
	if r == nil || time.Since(r.last) < reportEvery {
		return nil
	}
	r.last = time.Now()
	r.behind.Observe(float64(behindMS))
	return r.sink.Flush(r.last)
}
