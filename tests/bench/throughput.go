package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The systems. Their names are those in tables and JSON.
const (
	goCount       = "go-count"
	spateBoth     = "spate"
	spateRouter   = "spate router"
	spateDetector = "spate detector"
	flinkSQL      = "flink sql"
)

// throughput measures all systems on one topic, in rounds: what comes first in one is not first in the next.
func (b *bench) throughput(ctx context.Context) error {
	load, err := b.referenceBacklog(ctx, b.events, 4)
	if err != nil {
		return err
	}
	defer func() { b.tidy(ctx, load.topic) }()
	type unit func() ([]run, error)
	units := []unit{
		func() ([]run, error) { return one(b.goCount(ctx, load)) },
		func() ([]run, error) { return one(b.both(ctx, load)) },
		func() ([]run, error) { return b.apart(ctx, load) },
	}
	if b.flink {
		units = append(units, func() ([]run, error) { return one(b.flinkSQL(ctx, load)) })
	}
	var all []run
	var wrong error
	b.report.throughputHead(fmt.Sprintf("Throughput: %d events, %d partitions, keyed by category, %d results", load.events, load.partitions, len(load.want)))
	for round := range b.rounds {
		var runs []run
		for i := range units {
			some, err := units[(i+round)%len(units)]()
			if err != nil {
				return err
			}
			runs = append(runs, some...)
		}
		relate(runs)
		for i := range runs {
			runs[i].Round = round + 1
			wrong = errors.Join(wrong, runs[i].check())
			if err := b.report.run("throughput", runs[i]); err != nil {
				return err
			}
		}
		all = append(all, runs...)
	}
	return errors.Join(wrong, b.report.medians(all))
}

func one(r run, err error) ([]run, error) { return []run{r}, err }

// relate fills in the ratios to the go-count among runs of the same round.
func relate(runs []run) {
	var base run
	for _, r := range runs {
		if r.System == goCount {
			base = r
		}
	}
	if base.Rate == 0 {
		return
	}
	for i := range runs {
		runs[i].RateRatio, runs[i].CPURatio = runs[i].Rate/base.Rate, runs[i].CPU/base.CPU
	}
}

// tidy deletes a topic at the end of a section. It is done even when the run is interrupted, for disks are small.
func (b *bench) tidy(ctx context.Context, topics ...string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := b.drop(ctx, topics...); err != nil {
		b.say("%v", err)
	}
}

// goCount is the reference's bare counter: it scans two fields, counts in maps and writes the results. Nothing of it survives a crash.
func (b *bench) goCount(ctx context.Context, load *backlog) (run, error) {
	r := run{System: goCount, Events: load.events}
	b.say("%s", r.System)
	out := b.name("out")
	if err := b.create(ctx, out, load.partitions, nil); err != nil {
		return r, err
	}
	defer b.tidy(ctx, out)
	c, err := b.collect(out, load)
	if err != nil {
		return r, err
	}
	defer c.close()
	p, err := b.start(ctx, "go-count", nil, b.reference, "limit", "-brokers", strings.Join(b.kafka.Brokers, ","), "-in", load.topic, "-out", out, "-by", categoryKeyed, "-mode", "count")
	if err != nil {
		return r, err
	}
	defer p.stop()
	return r, b.measure(ctx, c, &r, true, p)
}

// both measures a router and a detector, each in a process of its own.
func (b *bench) both(ctx context.Context, load *backlog, env ...string) (run, error) {
	return b.bothWith(ctx, load, "", env...)
}

// bothWith is both with a file of rules; an empty name means the built-in rule.
func (b *bench) bothWith(ctx context.Context, load *backlog, rules string, env ...string) (r run, err error) {
	r = run{System: spateBoth, Events: load.events}
	b.say("%s", r.System)
	pipe, err := b.pipeline(ctx, load.topic, load.partitions, b.settings(env)...)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.clear(context.WithoutCancel(ctx), pipe)) }()
	if rules != "" {
		if err := b.apply(ctx, pipe, rules); err != nil {
			return r, err
		}
	}
	c, err := b.collect(pipe.names.Alerts, load)
	if err != nil {
		return r, err
	}
	defer c.close()
	router, err := b.spate(ctx, pipe, "route")
	if err != nil {
		return r, err
	}
	defer router.stop()
	detector, err := b.spate(ctx, pipe, "detect")
	if err != nil {
		return r, err
	}
	defer detector.stop()
	return r, b.measure(ctx, c, &r, false, router, detector)
}

// settings are those of a measured backlog: its events are years old, which spate takes as it takes all times.
func (b *bench) settings(env []string) []string {
	return append([]string{"SPATE_TRANSITIONS=" + b.transitions}, env...)
}

// apart measures the router alone, then the detector alone on the keyed log that it wrote: that the detector's results are right says
// that the router's were.
func (b *bench) apart(ctx context.Context, load *backlog, env ...string) (runs []run, err error) {
	pipe, err := b.pipeline(ctx, load.topic, load.partitions, b.settings(env)...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.clear(context.WithoutCancel(ctx), pipe)) }()
	first, err := b.routerAlone(ctx, pipe, load)
	if err != nil {
		return nil, err
	}
	second := run{System: spateDetector, Events: load.events}
	b.say("%s", second.System)
	c, err := b.collect(pipe.names.Alerts, load)
	if err != nil {
		return nil, err
	}
	defer c.close()
	detector, err := b.spate(ctx, pipe, "detect")
	if err != nil {
		return nil, err
	}
	defer detector.stop()
	if err := b.measure(ctx, c, &second, false, detector); err != nil {
		return nil, err
	}
	return []run{first, second}, nil
}

func (b *bench) routerAlone(ctx context.Context, pipe pipeline, load *backlog) (run, error) {
	r := run{System: spateRouter, Events: load.events}
	b.say("%s", r.System)
	ends, err := b.ends(ctx, load.topic)
	if err != nil {
		return r, err
	}
	broker := b.brokerCPU()
	router, err := b.spate(ctx, pipe, "route")
	if err != nil {
		return r, err
	}
	defer router.stop()
	var cpu time.Duration
	err = poll(ctx, 10*time.Minute, 20*time.Millisecond, "the router has read "+load.topic, func() (bool, error) {
		if router.ended() {
			return false, router.failure()
		}
		at, err := b.committed(ctx, pipe.names.RouterGroup, load.topic)
		cpu = router.cpu()
		return err == nil && maps.Equal(at, ends), nil
	})
	if err != nil {
		return r, err
	}
	r.finish(progress{at: time.Since(router.started), cpu: cpu}, nil)
	r.BrokerCPU = perEvent(b.brokerCPU()-broker, r.Events)
	r.memory(router)
	r.RouterCPU = r.CPU
	return r, nil
}

// committed returns the offsets that a group has committed for a topic.
func (b *bench) committed(ctx context.Context, group, topic string) (map[int32]int64, error) {
	offsets, err := b.adm.FetchOffsets(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("offsets of %s: %w", group, err)
	}
	at := make(map[int32]int64)
	for p, o := range offsets[topic] {
		at[p] = o.At
	}
	return at, nil
}

// flinkSQL is the original's statement on Flink's mini cluster, in one JVM, without checkpoints.
func (b *bench) flinkSQL(ctx context.Context, load *backlog) (run, error) {
	r := run{System: flinkSQL, Events: load.events}
	b.say("%s", r.System)
	scripts := filepath.Join(b.shared, "bench", "flink")
	if err := b.flinkSetup(ctx, scripts); err != nil {
		return r, err
	}
	out := b.name("out")
	if err := b.create(ctx, out, load.partitions, nil); err != nil {
		return r, err
	}
	defer b.tidy(ctx, out)
	c, err := b.collect(out, load)
	if err != nil {
		return r, err
	}
	defer c.close()
	p, err := b.start(ctx, "flink", []string{"FLINK_HEAP=-Xms2g -Xmx4g -Djava.io.tmpdir=" + b.tmp}, filepath.Join(scripts, "run-sql"), filepath.Join(scripts, "burst.sql"),
		"in="+load.topic, "out="+out, "brokers="+strings.Join(b.kafka.Brokers, ","), "parallelism.default="+strconv.Itoa(2), "source=", "sink=")
	if err != nil {
		return r, err
	}
	defer p.stop()
	return r, b.measure(ctx, c, &r, false, p)
}

// flinkSetup fetches Flink, the first time.
func (b *bench) flinkSetup(ctx context.Context, scripts string) error {
	if b.flinkReady {
		return nil
	}
	p, err := b.start(ctx, "flink-setup", nil, filepath.Join(scripts, "setup"))
	if err != nil {
		return err
	}
	defer p.stop()
	if err := p.wait(ctx); err != nil {
		return fmt.Errorf("flink is not there (-flink=false leaves it out): %w", err)
	}
	b.flinkReady = true
	return nil
}
