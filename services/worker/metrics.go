package worker

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spate/shared/alert"
	"spate/shared/aws/emf"
	"spate/shared/window"
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
			Help: "Records by fate (counted, late, invalid, repeated, skipped) and reason; skipped records are valid but are not events."}, []string{"fate", "reason"}),
		alerts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_worker_alerts_total",
			Help: "Alert records written, by rule and state, including those written again after a crash."}, []string{"rule", "state"}),
		faults: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "spate_worker_rule_faults_total",
			Help: "Results that are NULL because they cannot be computed (a division by zero, an overflow, an invalid cast), by rule."}, []string{"rule"}),
		rules: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_rules_revision",
			Help: "Newest revision of the rules that this process knows; 0 if no rules have been applied."}),
		saves: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_worker_saves_total",
			Help: "Writes of the state to the table."}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_worker_lost_total",
			Help: "Gaps in the stream where records were deleted before they were read. Any value other than 0 means that alerts may be missing."}),
		rulesLate: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_worker_late_revisions_total",
			Help: "Rule revisions that became readable so late that events may have been judged without them. Any value other than 0 means that counts right after the boundary of such a revision may be too low."}),
		tooLarge: prometheus.NewCounter(prometheus.CounterOpts{Name: "spate_worker_large_alerts_total",
			Help: "Alert records that were not written because they exceed the maximum size of a Kinesis record (1 MiB); the worker's log lists their rules and IDs."}),
		active: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_active",
			Help: "1 if this worker holds the lease, 0 if it is a standby."}),
		shards: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_shards",
			Help: "Shards being read."}),
		idle: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_idle_shards",
			Help: "Shards that are silent and do not hold windows open."}),
		behind: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_behind_seconds",
			Help: "How far the slowest shard is behind, as reported by Kinesis."}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_open_windows",
			Help: "Open windows; a window with events by two users counts as two."}),
		openLimit: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_open_windows_limit",
			Help: "Number of open windows above which only the slowest shard is read."}),
		watermark: prometheus.NewGauge(prometheus.GaugeOpts{Name: "spate_worker_watermark_seconds",
			Help: "Time up to which windows have been closed, as a Unix time; 0 before the first window closes."}),
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

// told counts the events whose place is saved.
func (s *session) told() {
	c := &s.counted
	add := func(fate, reason string, n int64) {
		if n > 0 {
			s.metrics.events.WithLabelValues(fate, reason).Add(float64(n))
		}
	}
	add("counted", "", c.counted)
	add("repeated", "", c.repeated)
	var late, invalid int64
	for f, n := range c.late {
		add("late", window.Fate(f).String(), n)
		late += n
	}
	for reason, n := range c.invalid {
		add("invalid", string(reason), n)
		invalid += n
	}
	for reason, n := range c.skipped {
		add("skipped", string(reason), n)
	}
	if k := s.cfg.Counts; k != nil {
		k.Counted.Add(c.counted)
		k.Repeated.Add(c.repeated)
		k.Late.Add(late)
		k.Invalid.Add(invalid)
		k.In.Add(c.counted + c.repeated + late + invalid)
	}
	s.reports.events(c.counted, late, invalid, c.repeated)
	s.counted = counts{}
}

func (s *session) gauges() {
	var idle, live, behind int64
	for _, sh := range s.byID {
		if !sh.live() {
			continue
		}
		live++
		if sh.src.Idle {
			idle++
		}
		behind = max(behind, sh.behind)
	}
	s.faults(s.metrics.faults)
	stats := s.table.Stats()
	s.metrics.shards.Set(float64(live))
	s.metrics.idle.Set(float64(idle))
	s.metrics.behind.Set(float64(behind) / 1000)
	s.metrics.open.Set(float64(stats.Panes))
	s.metrics.openLimit.Set(float64(s.cfg.MaxOpenWindows))
	if s.st.Closed != window.NoTime {
		s.metrics.watermark.Set(float64(s.st.Closed) / 1000)
	}
	if int64(stats.Panes) >= s.cfg.MaxOpenWindows {
		s.cfg.Status.NotReady(strconv.Itoa(stats.Panes) + " windows are open, so only the slowest shard is read: raise SPATE_MAX_OPEN_WINDOWS (--max-open-windows)")
	} else {
		s.cfg.Status.Ready()
	}
	if err := s.reports.flush(behind); err != nil {
		s.cfg.Log.Warn("cannot write metrics to the log", "error", err)
	}
}
