package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/window"
)

const (
	// every is how often figures are read, and kept how long.
	every = 2 * time.Second
	kept  = 15 * time.Minute
	// readTime bounds one reading.
	readTime = 5 * time.Second
)

// Reading is what the broker says at one moment.
type Reading struct {
	At time.Time
	// Events, Late, Invalid and Alerts are how many records the topics have ever had. Those of the alerts and the side topics include the marks of transactions.
	Events, Late, Invalid, Alerts int64
	Partitions                    []Partition // of the topic of events
	// Counted is the event time up to which windows are closed; zero is not known.
	Counted time.Time
	// Unstored is how many records of the topic of alerts are not stored yet.
	Unstored int64
	// Routed reports whether a router has ever committed.
	Routed bool
}

// Partition is one of the topic of events.
type Partition struct {
	N         int32     `json:"partition"`
	End       int64     `json:"end"`             // offset behind the newest record
	Next      int64     `json:"next"`            // offset up to which events are counted
	Watermark time.Time `json:"newest,omitzero"` // its highest event time
	Silent    bool      `json:"silent"`
	Since     time.Time `json:"silent_since,omitzero"`
}

// Lag is how many records wait.
func (p Partition) Lag() int64 { return max(p.End-p.Next, 0) }

// Lag is how many records of all partitions wait.
func (r Reading) Lag() (n int64) {
	for _, p := range r.Partitions {
		n += p.Lag()
	}
	return n
}

// Source reads figures. It is not safe for concurrent use.
type Source interface {
	Read(ctx context.Context) (Reading, error)
	Close()
}

// Kafka reads the figures of a pipeline from its broker: offsets, and what is committed with them.
type Kafka struct {
	Config kafka.Config
	Names  kafka.Names
	cl     *kgo.Client
	adm    *kadm.Client
}

// Close implements Source.
func (k *Kafka) Close() {
	if k.cl != nil {
		k.cl.Close()
	}
}

// Read implements Source.
func (k *Kafka) Read(ctx context.Context) (r Reading, err error) {
	if k.cl == nil {
		if k.cl, err = kgo.NewClient(k.Config.Options()...); err != nil {
			return r, fmt.Errorf("connect: %w", err)
		}
		k.adm = kadm.NewClient(k.cl)
	}
	r.At = time.Now().UTC()
	ends, err := k.adm.ListEndOffsets(ctx, k.Names.Activity, k.Names.Late, k.Names.DLQ, k.Names.Alerts)
	if err != nil {
		return r, fmt.Errorf("list offsets: %w", err)
	}
	for topic, to := range map[string]*int64{k.Names.Activity: &r.Events, k.Names.Late: &r.Late, k.Names.DLQ: &r.Invalid, k.Names.Alerts: &r.Alerts} {
		for _, o := range ends[topic] {
			if o.Err == nil {
				*to += o.Offset
			}
		}
	}
	if o, ok := ends.Lookup(k.Names.Activity, 0); !ok || errors.Is(o.Err, kerr.UnknownTopicOrPartition) {
		return r, fmt.Errorf("topic %s does not exist: spate up and spate route create it", k.Names.Activity)
	}
	routed, err := k.committed(ctx, k.Names.RouterGroup)
	if err != nil {
		return r, err
	}
	for _, o := range ends[k.Names.Activity] {
		if o.Err != nil {
			return r, fmt.Errorf("list offsets of %s: %w", k.Names.Activity, o.Err)
		}
		p := Partition{N: o.Partition, End: o.Offset}
		if c, ok := routed.Lookup(k.Names.Activity, o.Partition); ok {
			r.Routed, p.Next = true, c.At
			if s, err := window.ParseRouted(c.Metadata); err == nil {
				p.Silent, p.Watermark = s.Idle, moment(s.Newest)
			}
		}
		r.Partitions = append(r.Partitions, p)
	}
	slices.SortFunc(r.Partitions, func(a, b Partition) int { return int(a.N - b.N) })
	detected, err := k.committed(ctx, k.Names.DetectorGroup)
	if err != nil {
		return r, err
	}
	lowest := int64(window.EndOfTime)
	for _, o := range detected[k.Names.Keyed] {
		if p, err := window.ParsePosition(o.At, o.Metadata); err == nil && len(p.Watermarks) > 0 {
			lowest = min(lowest, p.Watermark())
		}
	}
	r.Counted = moment(lowest)
	stored, err := k.committed(ctx, k.Names.AlerterGroup)
	if err != nil {
		return r, err
	}
	for _, o := range ends[k.Names.Alerts] {
		c, _ := stored.Lookup(k.Names.Alerts, o.Partition)
		r.Unstored += max(o.Offset-max(c.At, 0), 0)
	}
	return r, nil
}

// moment is a time of the engine's, or zero if it is none.
func moment(ms int64) time.Time {
	if ms <= window.NoTime || ms >= window.EndOfTime {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func (k *Kafka) committed(ctx context.Context, group string) (kadm.OffsetResponses, error) {
	list, err := k.adm.FetchOffsets(ctx, group)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetch offsets of group %s: %w", group, kafka.Explain(err, kafka.Right{Operation: "Describe", Resource: "group", Name: group}))
	}
	return list, nil
}

// Sample is a reading together with the one before. A rate is NaN if there is none before.
type Sample struct {
	Reading
	Rate      float64 // events a second
	AlertRate float64 // records of alerts in the last minute: each alert has one when it opens and one when it closes
	Delay     float64 // seconds by which the time up to which windows are closed is behind; NaN if not known
}

// Meter turns readings into samples. It is not safe for concurrent use.
type Meter struct {
	Source Source
	before *Sample
	past   []Reading // of the last minute
}

// Read returns a sample.
func (m *Meter) Read(ctx context.Context) (Sample, error) {
	r, err := m.Source.Read(ctx)
	if err != nil {
		return Sample{}, err
	}
	n := Sample{Reading: r, Rate: math.NaN(), AlertRate: math.NaN(), Delay: math.NaN()}
	if before := m.before; before != nil {
		if took := r.At.Sub(before.At).Seconds(); took > 0 && took < 30 && r.Events >= before.Events && r.Alerts >= before.Alerts {
			n.Rate = float64(r.Events-before.Events) / took
			m.past = append(m.past, before.Reading)
			for len(m.past) > 1 && r.At.Sub(m.past[1].At) >= time.Minute {
				m.past = m.past[1:]
			}
			n.AlertRate = float64(r.Alerts - m.past[0].Alerts)
		} else {
			m.past = nil
		}
		for i := range n.Partitions {
			p := &n.Partitions[i]
			if i < len(before.Partitions) && p.Silent {
				if p.Since = before.Partitions[i].Since; p.Since.IsZero() {
					p.Since = r.At
				}
			}
		}
	}
	if !r.Counted.IsZero() {
		n.Delay = max(r.At.Sub(r.Counted).Seconds(), 0)
	}
	m.before = &n
	return n, nil
}

// sampler keeps the figures of the last 15 minutes.
type sampler struct {
	meter *Meter // nil: there is none
	log   *slog.Logger

	mu      sync.Mutex
	samples []Sample
	err     error // of the last reading
	since   time.Time
}

// run reads figures until ctx ends, and calls changed after each reading.
func (s *sampler) run(ctx context.Context, changed func()) {
	if s.meter == nil {
		return
	}
	defer s.meter.Source.Close()
	for {
		try, cancel := context.WithTimeout(ctx, readTime)
		r, err := s.meter.Read(try)
		cancel()
		if ctx.Err() != nil {
			return
		}
		s.take(r, err)
		changed()
		if !ops.Pause(ctx, every) {
			return
		}
	}
}

func (s *sampler) take(n Sample, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.err == nil {
			s.since = time.Now().UTC()
			s.log.Warn("the console cannot read figures from the broker", "error", err)
		}
		s.err = err
		return
	}
	s.err = nil
	s.samples = append(s.samples, n)
	old := 0
	for old < len(s.samples) && s.samples[old].At.Before(n.At.Add(-kept)) {
		old++
	}
	s.samples = slices.Delete(s.samples, 0, old)
}

// now returns the samples, and what is wrong with reading them.
func (s *sampler) now() ([]Sample, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.err
	if err != nil {
		err = fmt.Errorf("the broker has not answered since %s UTC, so the figures are old: %w", s.since.Format("15:04:05"), err)
	}
	return slices.Clone(s.samples), err
}

// quiet is how long a partition must have been silent to be worth a line.
const quiet = 10 * time.Second

// Troubles says in words what is wrong with a pipeline, of which these are samples.
func Troubles(samples []Sample) (list []string) {
	if len(samples) == 0 {
		return nil
	}
	now := samples[len(samples)-1]
	if !now.Routed && now.Events > 0 {
		return []string{"No router has counted anything yet: is spate route running?"}
	}
	// Standing still for some readings, with something to read.
	const still = 5
	if len(samples) > still {
		before := samples[len(samples)-1-still]
		for i, p := range now.Partitions {
			if i < len(before.Partitions) && p.Lag() > 0 && p.Next == before.Partitions[i].Next {
				list = append(list, fmt.Sprintf("Partition %d has not moved for %s, and %s wait in it: is spate route running?", p.N, span(now.At.Sub(before.At)), count(p.Lag(), "event", "events")))
			}
		}
		if now.Unstored > 0 && now.Unstored >= before.Unstored && before.Unstored > 0 && now.Alerts-now.Unstored == before.Alerts-before.Unstored {
			list = append(list, fmt.Sprintf("%s of alerts are not stored, and none was in the last %s: is spate alert running?", count(now.Unstored, "record", "records"), span(now.At.Sub(before.At))))
		}
	}
	var silent []string
	var since time.Time
	for _, p := range now.Partitions {
		if p.Silent && p.End > 0 && !p.Since.IsZero() && now.At.Sub(p.Since) > quiet {
			silent = append(silent, fmt.Sprint(p.N))
			if since.IsZero() || p.Since.Before(since) {
				since = p.Since
			}
		}
	}
	switch {
	case len(silent) == 0:
	case len(silent) == len(now.Partitions):
		list = append(list, fmt.Sprintf("No events arrive, for at least %s. Windows close all the same, because every partition is silent.", span(now.At.Sub(since))))
	case len(silent) == 1:
		list = append(list, fmt.Sprintf("Partition %s has been silent for at least %s; it holds no windows open.", silent[0], span(now.At.Sub(since))))
	default:
		list = append(list, fmt.Sprintf("Partitions %s have been silent, one for at least %s; they hold no windows open.", strings.Join(silent, ", "), span(now.At.Sub(since))))
	}
	if d := now.Delay; d > 120 && now.Rate > 0 && now.Lag() == 0 && !math.IsNaN(d) {
		list = append(list, fmt.Sprintf("Events arrive, but their times are %s ago: a replay of the past, or a producer that is behind.", span(time.Duration(d)*time.Second)))
	}
	return list
}
