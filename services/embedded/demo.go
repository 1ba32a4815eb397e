package embedded

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/alerter/deliver"
	"spate/services/simulator"
	"spate/services/verifier"
	"spate/shared/alert"
)

// DemoConfig of a demonstration.
type DemoConfig struct {
	Rule
	Duration  time.Duration
	EventRate float64
	Seed      uint64
	// Begin is told where the pipeline is, Print of each alert transition as it is stored.
	Begin func(Info)
	Print func(alert.Record)
	// Beside is as in Config. Linger, if set, is called with the result while everything still runs.
	Beside func(context.Context, Info) error
	Linger func(context.Context, DemoResult)
	// Progress is where the traffic's progress goes; may be nil.
	Progress io.Writer
	Log      *slog.Logger
}

// DemoResult holds the alerts against the truth about the attackers and against the reference answer.
type DemoResult struct {
	EventsIn  int64              `json:"events_in"`
	Counted   int64              `json:"counted"`
	Late      int64              `json:"late"`
	Invalid   int64              `json:"invalid"`
	Alerts    int                `json:"alerts"`
	Missing   int                `json:"missing"`
	Wrong     int                `json:"wrong"`
	Extra     int                `json:"extra"`
	Incidents int                `json:"incidents"` // runs of alerts of one user
	Critical  int                `json:"incidents_critical"`
	Messages  int                `json:"messages"` // notifications of the incidents
	Verified  int                `json:"verified"` // that a receiver got, signature and all
	Recall    map[string]float64 `json:"recall"`
	Precision float64            `json:"precision"`
	Within    []string           `json:"within"` // kinds of attackers that break the rule in no window, and so are rightly in no alert
	Latency   Latency            `json:"alert_latency_ms"`
	ElapsedS  float64            `json:"elapsed_s"`

	Examples []string `json:"examples,omitempty"`

	// With a rules file: how the alerts of each rule differ from the reference, and the kinds of innocents that an alert is about. Wrong, Precision, Within
	// and Latency are of the rule without one.
	Rules   []verifier.RuleDiff `json:"rules,omitempty"`
	Flagged []string            `json:"flagged,omitempty"`
}

// Latency is the time from the append of the event that broke the rule to the append of the alert, both by the broker's clock.
type Latency struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// Exact reports whether the alerts are those of the reference, and every message was delivered.
func (r DemoResult) Exact() bool {
	return !slices.ContainsFunc(r.Rules, func(d verifier.RuleDiff) bool { return d.Refused != "" }) && r.Missing == 0 && r.Wrong == 0 && r.Extra == 0 && r.Messages == r.Verified
}

// Demo runs the pipeline on a temporary state with seeded traffic in real time, and judges what it finds.
func Demo(ctx context.Context, cfg DemoConfig) (DemoResult, error) {
	began := time.Now()
	dir, err := os.MkdirTemp("", "spate-demo-")
	if err != nil {
		return DemoResult{}, fmt.Errorf("demo: %w", err)
	}
	defer os.RemoveAll(dir)
	h, err := startHook(cfg.Log)
	if err != nil {
		return DemoResult{}, fmt.Errorf("demo: %w", err)
	}
	defer h.close()
	s, err := start(ctx, Config{
		Rule: cfg.Rule, State: dir, Listen: "127.0.0.1:0", HTTP: "127.0.0.1:0", Topic: "activity", Drains: true, Endpoints: []deliver.Endpoint{h.endpoint}, Print: cfg.Print, Beside: cfg.Beside, Log: cfg.Log,
	})
	if err != nil {
		return DemoResult{}, fmt.Errorf("demo: %w", err)
	}
	defer s.stop()
	if err := s.ready(ctx); err != nil {
		return DemoResult{}, fmt.Errorf("demo: %w", err)
	}
	cfg.Begin(s.info())

	sim := simulator.Default()
	sim.Kafka, sim.Log, sim.Progress = s.kafka, cfg.Log, cfg.Progress
	sim.Seed, sim.EventRate, sim.Duration = cfg.Seed, cfg.EventRate, cfg.Duration
	sim.Users = max(sim.Users, int(15*cfg.EventRate))
	sim.Window, sim.Threshold = cfg.Window, int(cfg.Threshold)
	if cfg.Rules != nil {
		sim.Attackers, sim.Innocents = []string{"all", "library"}, []string{"all"}
	}
	sim.Start = time.Now()
	sent, err := simulator.Run(ctx, sim)
	if err == nil && sent.Interrupted {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = s.drained(ctx)
	}
	if err != nil {
		return DemoResult{}, fmt.Errorf("demo: %w", err)
	}
	res, err := s.judge(ctx, cfg, sent.Truth, began)
	if err == nil {
		err = s.told(ctx, h, &res)
	}
	if err != nil {
		return DemoResult{}, fmt.Errorf("demo: %w", err)
	}
	if cfg.Linger != nil {
		cfg.Linger(ctx, res)
	}
	return res, nil
}

// ready waits until every service is.
func (s *stack) ready(ctx context.Context) error {
	return s.until(ctx, func() (bool, error) {
		ok, _ := s.server.Ready()
		return ok, nil
	})
}

type userWindow struct {
	user  string
	start int64
}

func (s *stack) judge(ctx context.Context, cfg DemoConfig, truth []simulator.Truth, began time.Time) (DemoResult, error) {
	alerts, err := s.closed(ctx)
	if err != nil {
		return DemoResult{}, err
	}
	done := s.result()
	res := DemoResult{EventsIn: done.EventsIn, Counted: done.Counted, Late: done.Late, Invalid: done.Invalid, Alerts: len(alerts), Recall: make(map[string]float64), Precision: 1}

	if cfg.Rules != nil {
		err := s.judgeRules(ctx, cfg, truth, alerts, &res)
		res.ElapsedS = elapsed(began)
		return res, err
	}
	broke, appended, err := s.reference(ctx, cfg)
	if err != nil {
		return DemoResult{}, err
	}
	diff := verifier.Compare(broke.Result(), alerts)
	res.Missing, res.Wrong, res.Extra, res.Examples = diff.Missing, diff.Wrong, diff.Extra, diff.Examples

	found := make(map[userWindow]bool, len(alerts))
	for _, a := range alerts {
		found[userWindow{string(a.UserID), a.WindowStart.UnixMilli()}] = true
	}
	hits, attacks := make(map[string]int), make(map[string]int)
	guilty := 0
	within := make(map[string]bool)
	for _, t := range truth {
		if !t.BreaksRule {
			if _, known := within[string(t.Kind)]; !known {
				within[string(t.Kind)] = true
			}
			continue
		}
		within[string(t.Kind)] = false
		attacks[string(t.Kind)]++
		if found[userWindow{t.UserID, t.WindowStartMS}] {
			hits[string(t.Kind)]++
			guilty++
		}
	}
	for kind, is := range within {
		if is {
			res.Within = append(res.Within, kind)
		}
	}
	slices.Sort(res.Within)
	for kind, n := range attacks {
		res.Recall[kind] = float64(hits[kind]) / float64(n)
	}
	if len(alerts) > 0 {
		res.Precision = float64(guilty) / float64(len(alerts))
	}
	if res.Latency, err = s.latency(ctx, appended, int(cfg.Threshold)); err != nil {
		return DemoResult{}, err
	}
	res.ElapsedS = elapsed(began)
	return res, nil
}

// elapsed is the time since then in seconds.
func elapsed(since time.Time) float64 { return math.Round(time.Since(since).Seconds()*1000) / 1000 }

// reference reads the topic of events again and counts it in the plain way; it also notes when each event was appended.
func (s *stack) reference(ctx context.Context, cfg DemoConfig) (*verifier.Reference, map[userWindow][]int64, error) {
	ref := verifier.NewReference(verifier.Rule{Window: cfg.Window, Lateness: cfg.Lateness, Threshold: cfg.Threshold})
	appended := make(map[userWindow][]int64)
	err := s.readAll(ctx, s.layout.Names.Activity, func(r *kgo.Record) error {
		counted := ref.Counted
		ref.AddJSON(r.Partition, r.Value, r.Timestamp)
		if ref.Counted > counted {
			user, start := ref.Last()
			w := userWindow{user, start}
			appended[w] = append(appended[w], r.Timestamp.UnixMilli())
		}
		return nil
	})
	return ref, appended, err
}

func (s *stack) latency(ctx context.Context, appended map[userWindow][]int64, threshold int) (Latency, error) {
	var ms []float64
	seen := make(map[userWindow]bool)
	err := s.readAll(ctx, s.layout.Names.Alerts, func(r *kgo.Record) error {
		a, err := alert.Parse(r.Value)
		if err != nil {
			return err
		}
		w := userWindow{string(a.UserID), a.WindowStart.UnixMilli()}
		if a.State != alert.Opened || seen[w] || len(appended[w]) <= threshold {
			return nil
		}
		seen[w] = true
		times := appended[w]
		slices.Sort(times)
		ms = append(ms, float64(r.Timestamp.UnixMilli()-times[threshold]))
		return nil
	})
	if err != nil || len(ms) == 0 {
		return Latency{}, err
	}
	slices.SortFunc(ms, cmp.Compare[float64])
	at := func(q float64) float64 { return ms[min(len(ms)-1, int(math.Ceil(q*float64(len(ms))))-1)] }
	return Latency{P50: at(0.50), P99: at(0.99)}, nil
}

// readAll reads a topic from its beginning to its present end.
func (s *stack) readAll(ctx context.Context, topic string, each func(*kgo.Record) error) error {
	cl, err := kgo.NewClient(s.kafka.Options(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err != nil {
		return fmt.Errorf("list offsets of %s: %w", topic, err)
	}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	for left > 0 {
		f := cl.PollFetches(ctx)
		if err := f.Err(); err != nil {
			return fmt.Errorf("read %s: %w", topic, err)
		}
		for it := f.RecordIter(); !it.Done(); {
			r := it.Next()
			left--
			if err := each(r); err != nil {
				return err
			}
		}
	}
	return nil
}
