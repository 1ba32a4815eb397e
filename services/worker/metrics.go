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
	faults    *prometheus.CounterVec
	rules     prometheus.Gauge
	saves     prometheus.Counter
	lost      prometheus.Counter
	rulesLate prometheus.Counter
	tooLarge  prometheus.Counter
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
			Help: "Events by fate (counted, late, invalid, repeated) and reason; skipped records are valid records that are not events."}, []string{"fate", "reason"}),
		alerts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_worker_alerts_total",
			Help: "Alert records written, by rule and state, including repetitions after a crash."}, []string{"rule", "state"}),
		faults: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_worker_rule_faults_total",
			Help: "Results that are NULL because they are impossible (a division by zero, an overflow, a cast), by rule."}, []string{"rule"}),
		rules: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_rules_revision",
			Help: "Newest revision of the rules that this process knows; 0 if rules were never applied."}),
		saves: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_worker_saves_total",
			Help: "Writes of the state to the table."}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_worker_lost_total",
			Help: "Gaps where records were deleted before they were read: alerts can be missing."}),
		rulesLate: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_worker_late_revisions_total",
			Help: "Revisions of the rules that became readable too late for their boundary. Any value except 0 means that counts right after it can be too low."}),
		tooLarge: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_worker_large_alerts_total",
			Help: "Alert records that are not written because they are larger than a record of Kinesis can be (1 MiB); the log has their rules and ids."}),
		active: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_active",
			Help: "1 if this worker holds the lease, 0 if it is a standby."}),
		shards: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_shards",
			Help: "Shards being read."}),
		idle: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_idle_shards",
			Help: "Shards that are silent and do not hold windows open."}),
		behind: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_behind_seconds",
			Help: "How far the slowest shard is behind, as reported by Kinesis."}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_open_windows",
			Help: "Open windows, one for each user with events in it."}),
		openLimit: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_open_windows_limit",
			Help: "Limit of open windows, above which only the slowest shard is read."}),
		watermark: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_watermark_seconds",
			Help: "Time up to which windows are closed, as a Unix time; 0 before the first close."}),
	}
	reg.MustRegister(m.events, m.alerts, m.faults, m.rules, m.saves, m.lost, m.rulesLate, m.tooLarge, m.active, m.shards, m.idle, m.behind, m.open, m.openLimit, m.watermark)
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
