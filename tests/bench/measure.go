package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// run is one measured line of throughput.
type run struct {
	System     string  `json:"system"`
	Load       string  `json:"load,omitempty"`
	Round      int     `json:"round"`
	Events     int64   `json:"events"`
	Seconds    float64 `json:"seconds"` // from the start of the processes to the last result
	Rate       float64 `json:"events_per_s"`
	CPU        float64 `json:"cpu_us_per_event"`
	SteadyRate float64 `json:"steady_events_per_s,omitempty"` // between 15 % and 95 % of the results
	SteadyCPU  float64 `json:"steady_cpu_us_per_event,omitempty"`
	RouterCPU  float64 `json:"router_cpu_us_per_event,omitempty"`
	DetectCPU  float64 `json:"detector_cpu_us_per_event,omitempty"`
	BrokerCPU  float64 `json:"broker_cpu_us_per_event,omitempty"`
	PeakMB     float64 `json:"peak_rss_mb"` // of all processes, added up
	RouterMB   float64 `json:"router_peak_rss_mb,omitempty"`
	DetectMB   float64 `json:"detector_peak_rss_mb,omitempty"`
	FirstS     float64 `json:"first_result_s,omitempty"`
	RateRatio  float64 `json:"rate_ratio_to_go_count,omitempty"`
	CPURatio   float64 `json:"cpu_ratio_to_go_count,omitempty"`

	Checked    bool  `json:"checked"` // the results were held against the expected ones
	Results    int64 `json:"results"`
	Missing    int64 `json:"missing"`
	Wrong      int64 `json:"wrong"` // another count than expected, or none expected
	Duplicates int64 `json:"duplicates"`
}

// check is an error if the results are not exactly the expected ones.
func (r run) check() error {
	if r.Checked && r.Missing+r.Wrong+r.Duplicates > 0 {
		return fmt.Errorf("%s, round %d: %d results missing, %d wrong, %d duplicate", r.System, r.Round, r.Missing, r.Wrong, r.Duplicates)
	}
	return nil
}

// collector reads the results of one run. While it runs, it does little else: what it uses, the measured processes lack.
type collector struct {
	cl      *kgo.Client
	load    *backlog
	values  [][]byte // not decoded yet
	got     map[pair]int64
	dup     int64
	records int64
	finals  int64
}

// collect reads a topic that was just made.
func (b *bench) collect(topic string, load *backlog) (*collector, error) {
	cl, err := kgo.NewClient(b.kafka.Options(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(50*time.Millisecond), kgo.MetadataMinAge(50*time.Millisecond))...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", topic, err)
	}
	return &collector{cl: cl, load: load, got: make(map[pair]int64, len(load.want))}, nil
}

func (c *collector) close() { c.cl.Close() }

// poll waits a moment for records and reports whether there were any.
func (c *collector) poll(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	f := c.cl.PollFetches(ctx)
	if err := f.Err(); err != nil && ctx.Err() == nil {
		return false, fmt.Errorf("read results: %w", err)
	}
	f.EachRecord(func(r *kgo.Record) { c.values = append(c.values, r.Value) })
	c.records += int64(f.NumRecords())
	return f.NumRecords() > 0, nil
}

// complete reports whether there is a final result for each that is expected.
func (c *collector) complete() (bool, error) {
	if c.records < int64(len(c.load.want)) {
		return false, nil // decoding can wait
	}
	if err := c.decode(); err != nil {
		return false, err
	}
	return len(c.got) >= len(c.load.want), nil
}

func (c *collector) decode() error {
	for _, v := range c.values {
		r, err := parseResult(v)
		if err != nil {
			return err
		}
		if r.opened || r.other {
			continue
		}
		if _, ok := c.got[r.pair]; ok {
			c.dup++
		}
		c.finals++
		c.got[r.pair] = r.count
	}
	c.values = c.values[:0]
	return nil
}

func (c *collector) judge(r *run) {
	r.Checked, r.Results, r.Duplicates = true, c.finals, c.dup
	for p, n := range c.load.want {
		switch got, ok := c.got[p]; {
		case !ok:
			r.Missing++
		case got != n:
			r.Wrong++
		}
	}
	for p := range c.got {
		if _, ok := c.load.want[p]; !ok {
			r.Wrong++
		}
	}
}

// progress is a moment of a run.
type progress struct {
	at      time.Duration
	results int64
	cpu     time.Duration
}

// measure watches processes, that were just started, until they have written all results of the load, and fills in a run.
// ends tells that the processes end by themselves when they are done.
func (b *bench) measure(ctx context.Context, c *collector, r *run, ends bool, ps ...*process) error {
	var moments []progress
	broker := b.brokerCPU()
	began, last := ps[0].started, time.Now()
	cpu := func() (sum time.Duration) {
		for _, p := range ps {
			sum += p.cpu()
		}
		return sum
	}
	for {
		some, err := c.poll(ctx)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if some {
			last = time.Now()
			moments = append(moments, progress{last.Sub(began), c.records, cpu()})
			if done, err := c.complete(); err != nil {
				return err
			} else if done {
				break
			}
		}
		for _, p := range ps {
			if p.ended() && (!ends || p.err != nil) {
				return p.failure()
			}
		}
		if time.Since(last) > b.patience || ends && ps[0].ended() && time.Since(last) > 2*time.Second {
			b.say("%s: given up at %d of %d results", r.System, c.records, len(c.load.want))
			break
		}
	}
	if len(moments) == 0 {
		return fmt.Errorf("%s: no result within %v", r.System, b.patience)
	}
	end := moments[len(moments)-1]
	if ends { // flushing and closing is part of it
		select {
		case <-ps[0].done:
			end.at, end.cpu = max(end.at, time.Since(began)), cpu()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	r.BrokerCPU = perEvent(b.brokerCPU()-broker, r.Events)
	r.finish(end, moments)
	for _, p := range ps {
		r.memory(p)
		switch p.name {
		case "route":
			r.RouterCPU = perEvent(p.cpu(), r.Events)
		case "detect":
			r.DetectCPU = perEvent(p.cpu(), r.Events)
		}
	}
	// Whatever comes too much would come now.
	for settled := time.Now(); time.Since(settled) < time.Second; {
		if _, err := c.poll(ctx); err != nil {
			return err
		}
	}
	if err := c.decode(); err != nil {
		return err
	}
	c.judge(r)
	return nil
}

func (r *run) finish(end progress, moments []progress) {
	r.Seconds, r.Rate, r.CPU = end.at.Seconds(), float64(r.Events)/end.at.Seconds(), perEvent(end.cpu, r.Events)
	if len(moments) == 0 {
		return
	}
	r.FirstS = moments[0].at.Seconds()
	// Results follow the event time that all partitions have reached, and so the events that were read.
	var from, to progress
	for _, m := range moments {
		switch share := float64(m.results) / float64(end.results); {
		case share < 0.15:
		case from.at == 0:
			from = m
		case share <= 0.95:
			to = m
		}
	}
	if events := float64(to.results-from.results) / float64(end.results) * float64(r.Events); to.at > from.at && events > 0 {
		r.SteadyRate = events / (to.at - from.at).Seconds()
		r.SteadyCPU = float64((to.cpu - from.cpu).Microseconds()) / events
	}
}

func (r *run) memory(p *process) {
	mb := float64(p.peak.Load()) / (1 << 20)
	r.PeakMB += mb
	switch p.name {
	case "route":
		r.RouterMB = mb
	case "detect":
		r.DetectMB = mb
	}
}

func perEvent(cpu time.Duration, events int64) float64 {
	return float64(cpu.Microseconds()) / float64(events)
}

// brokerCPU is 0 for a broker that we have not started.
func (b *bench) brokerCPU() time.Duration {
	if b.brokerPID == 0 {
		return 0
	}
	d, err := cpuOf(b.brokerPID)
	if err != nil {
		return 0
	}
	return d
}
