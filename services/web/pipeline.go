package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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

// Reading is what a pipeline says of itself at one moment. A figure that cannot be known is nil, or zero.
type Reading struct {
	At time.Time
	// Of is when the counts were so: At, or, in mode aws, when the worker saved them. Zero: they are not known.
	Of time.Time
	// Events, Late, Invalid and Alerts are how many records there have ever been. In mode kafka, those of the alerts and the side topics include the marks of transactions.
	Events, Late, Invalid, Alerts int64
	Partitions                    []Partition // of the topic or stream of events
	Part                          string      // what one is called
	// Counted is the event time up to which windows are closed.
	Counted time.Time
	// Unstored are the records of alerts that are not stored yet, in words; empty if all are. Stored changes whenever one is.
	Unstored, Stored string
	// Begun reports whether anything was counted, or there was nothing to count. Counter is the command that does it.
	Begun   bool
	Counter string
	Holder  *Holder // mode aws
}

// Partition is one of the topic of events, or a shard of the stream.
type Partition struct {
	Name    string    `json:"partition"`                // its number, or its id
	Records *int64    `json:"records,omitempty"`        // that it has ever had
	Lag     *int64    `json:"lag,omitempty"`            // records that are not counted yet
	Behind  *float64  `json:"behind_seconds,omitempty"` // how far reading lags behind the newest record
	Next    string    `json:"next,omitempty"`           // offset up to which events are counted, or the sequence number of the last one that is
	Newest  time.Time `json:"newest,omitzero"`          // its highest event time
	Silent  bool      `json:"silent"`
	Since   time.Time `json:"silent_since,omitzero"`
}

// Waits reports whether there is something to count.
func (p Partition) Waits() bool {
	return p.Lag != nil && *p.Lag > 0 || p.Behind != nil && *p.Behind >= 1
}

// Holder is the process that counts, while others stand by.
type Holder struct {
	Name     string
	Beat     string        // changes while it is alive
	Lease    time.Duration // within which it does
	Released bool          // it has ended
}

// Lag is how many records of all partitions wait; nil is not known.
func (r Reading) Lag() (n *int64) {
	for _, p := range r.Partitions {
		if p.Lag != nil {
			sum := *p.Lag
			if n != nil {
				sum += *n
			}
			n = &sum
		}
	}
	return n
}

// Behind is how far reading of the slowest partition is behind, in seconds; nil is not known.
func (r Reading) Behind() (most *float64) {
	for _, p := range r.Partitions {
		if p.Behind != nil && (most == nil || *p.Behind > *most) {
			most = p.Behind
		}
	}
	return most
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
	r.At, r.Part, r.Counter = time.Now().UTC(), "partition", "spate route"
	r.Of = r.At
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
		return r, fmt.Errorf("topic %s does not exist; to create it, start spate up or spate route", k.Names.Activity)
	}
	routed, err := k.committed(ctx, k.Names.RouterGroup)
	if err != nil {
		return r, err
	}
	r.Begun = r.Events == 0
	for _, n := range slices.Sorted(maps.Keys(ends[k.Names.Activity])) {
		o := ends[k.Names.Activity][n]
		if o.Err != nil {
			return r, fmt.Errorf("list offsets of %s: %w", k.Names.Activity, o.Err)
		}
		p, next := Partition{Name: fmt.Sprint(n), Records: &o.Offset}, int64(0)
		if c, ok := routed.Lookup(k.Names.Activity, n); ok {
			r.Begun, next = true, c.At
			if s, err := window.ParseRouted(c.Metadata); err == nil {
				p.Silent, p.Newest = s.Idle, moment(s.Newest)
			}
		}
		lag := max(o.Offset-next, 0)
		p.Lag, p.Next = &lag, fmt.Sprint(next)
		r.Partitions = append(r.Partitions, p)
	}
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
	unstored := int64(0)
	for _, o := range ends[k.Names.Alerts] {
		c, _ := stored.Lookup(k.Names.Alerts, o.Partition)
		unstored += max(o.Offset-max(c.At, 0), 0)
	}
	if unstored > 0 {
		r.Unstored, r.Stored = count(unstored, "alert record", "alert records"), fmt.Sprint(r.Alerts-unstored)
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

// fresh bounds how old a figure may be, and how long a pause between two of which one is made.
const fresh = 30 * time.Second

// Meter turns readings into samples. It is not safe for concurrent use.
type Meter struct {
	Source Source
	before *Sample   // the first one with other counts than those that come next
	past   []Reading // of the last minute
}

// Read returns a sample.
func (m *Meter) Read(ctx context.Context) (Sample, error) {
	r, err := m.Source.Read(ctx)
	if err != nil {
		return Sample{}, err
	}
	n := Sample{Reading: r, Rate: math.NaN(), AlertRate: math.NaN(), Delay: math.NaN()}
	if !r.Counted.IsZero() {
		n.Delay = max(r.At.Sub(r.Counted).Seconds(), 0)
	}
	before := m.before
	if before != nil {
		silentSince(n.Partitions, before.Partitions, r.At)
	}
	switch {
	case r.Of.IsZero():
	case before == nil:
		m.before = &n
	case r.Of.Equal(before.Of): // nothing new is known
		if r.At.Sub(before.At) < fresh {
			n.Rate, n.AlertRate = before.Rate, before.AlertRate
			break
		}
		for i := range n.Partitions {
			n.Partitions[i].Behind = nil
		}
	default:
		if took := r.Of.Sub(before.Of); took > 0 && took < fresh && r.Events >= before.Events && r.Alerts >= before.Alerts {
			n.Rate = float64(r.Events-before.Events) / took.Seconds()
			m.past = append(m.past, before.Reading)
			for len(m.past) > 1 && r.Of.Sub(m.past[1].Of) >= time.Minute {
				m.past = m.past[1:]
			}
			n.AlertRate = float64(r.Alerts - m.past[0].Alerts)
		} else {
			m.past = nil
		}
		m.before = &n
	}
	return n, nil
}

// silentSince notes since when partitions are silent, if they do not say: as far as was seen.
func silentSince(now, before []Partition, at time.Time) {
	for i := range now {
		if p := &now[i]; p.Silent && p.Since.IsZero() {
			if b := named(before, p.Name); b != nil {
				p.Since = b.Since
			}
			if p.Since.IsZero() {
				p.Since = at
			}
		}
	}
}

// named finds a partition.
func named(list []Partition, name string) *Partition {
	if i := slices.IndexFunc(list, func(p Partition) bool { return p.Name == name }); i >= 0 {
		return &list[i]
	}
	return nil
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
			s.log.Warn("the console cannot read the pipeline's metrics", "error", err)
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
		err = fmt.Errorf("no figures since %s UTC: %w", s.since.Format("15:04:05"), err)
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
	if !now.Begun {
		return []string{fmt.Sprintf("Nothing has been counted yet: is %s running?", now.Counter)}
	}
	gone := gone(samples)
	if gone != "" {
		list = append(list, fmt.Sprintf("%s, and no other has taken over: is %s running?", gone, now.Counter))
	} else if d := unchanged(samples, func(s Sample) bool { return s.Of.Equal(now.Of) }); d > fresh && now.Holder != nil && !now.Of.IsZero() {
		list = append(list, fmt.Sprintf("The worker %s has saved nothing for %s: its log shows what it is waiting for.", now.Holder.Name, span(d)))
	}
	// Standing still for some readings, with something to read.
	const still = 5
	if len(samples) > still {
		before := samples[len(samples)-1-still]
		took := span(now.At.Sub(before.At))
		for _, p := range now.Partitions {
			if b := named(before.Partitions, p.Name); gone == "" && b != nil && p.Waits() && p.Next == b.Next {
				list = append(list, fmt.Sprintf("%s %s has not advanced for %s, and %s: is %s running?", capital(now.Part), p.Name, took, p.waiting(), now.Counter))
			}
		}
		if now.Unstored != "" && before.Unstored != "" && now.Stored == before.Stored {
			list = append(list, fmt.Sprintf("No alert was stored in the last %s, with %s waiting: is spate alert running?", took, now.Unstored))
		}
	}
	if gone == "" {
		list = append(list, silence(now)...)
	}
	if d := now.Delay; d > 120 && now.Rate > 0 && !slices.ContainsFunc(now.Partitions, Partition.Waits) {
		list = append(list, fmt.Sprintf("Events are arriving, but their event times are %s in the past: this is a replay, or a producer is behind.", span(time.Duration(d)*time.Second)))
	}
	return list
}

// gone says that who counts does so no more; empty: it does, or that is not known.
func gone(samples []Sample) string {
	now := samples[len(samples)-1]
	h := now.Holder
	if h == nil {
		return ""
	}
	if h.Released {
		return fmt.Sprintf("The worker %s has stopped", h.Name)
	}
	if d := unchanged(samples, func(s Sample) bool { return s.Holder != nil && s.Holder.Beat == h.Beat }); d > h.Lease {
		return fmt.Sprintf("The worker %s has not renewed its lease for %s", h.Name, span(d))
	}
	return ""
}

// unchanged returns for how long samples have been like the newest one.
func unchanged(samples []Sample, like func(Sample) bool) time.Duration {
	now := samples[len(samples)-1].At
	since := now
	for _, s := range slices.Backward(samples) {
		if !like(s) {
			break
		}
		since = s.At
	}
	return now.Sub(since)
}

// waiting says what is to be counted of a partition.
func (p Partition) waiting() string {
	if p.Lag != nil {
		return count(*p.Lag, "event is waiting", "events are waiting") + " in it"
	}
	return "it is " + span(time.Duration(*p.Behind*float64(time.Second))) + " behind"
}

// silence says which partitions have no events.
func silence(now Sample) []string {
	var silent []string
	var since time.Time
	for _, p := range now.Partitions {
		if p.Silent && !p.Newest.IsZero() && !p.Since.IsZero() && now.At.Sub(p.Since) > quiet {
			silent = append(silent, p.Name)
			if since.IsZero() || p.Since.Before(since) {
				since = p.Since
			}
		}
	}
	lasts, part := span(now.At.Sub(since)), capital(now.Part)
	switch {
	case len(silent) == 0:
		return nil
	case len(silent) == len(now.Partitions):
		return []string{fmt.Sprintf("No events have arrived for at least %s. Because every %s is silent, windows now close by the wall clock.", lasts, now.Part)}
	case len(silent) == 1:
		return []string{fmt.Sprintf("%s %s has been silent for at least %s; it does not hold windows open.", part, silent[0], lasts)}
	}
	return []string{fmt.Sprintf("%ss %s have been silent, one for at least %s; they do not hold windows open.", part, strings.Join(silent, ", "), lasts)}
}
