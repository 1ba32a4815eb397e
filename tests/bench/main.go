// Command bench measures spate on a real Kafka: throughput and cost compared with a bare counter in Go and with Flink SQL on the same topic,
// latency, memory under attack, recovery, and long runs. `make bench` runs it; docs/performance.md has the method and figures.
//
// The programs to compare with, the load and the expected results come from the reference folder (bench/, kafka/), which also starts the
// broker. Absolute rates on a busy machine mean little, so every throughput figure is also given as a ratio to go-count, measured in the
// same round. A run whose results differ from the expected ones is an error, however fast it was.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	shared, bin, beside, brokers, json, dir, logs, cpuProfile string
	rounds                                                    int
	events, sweepEvents                                       int
	flink                                                     bool
	transitions, database                                     string

	latencyFor         time.Duration
	maxRate            float64
	memoryFor          time.Duration
	floodEvents        int
	recoveryUsers      int
	soak, soakEvery    time.Duration
	soakRate           float64
	patience, rehearse time.Duration
}

type section struct {
	name, help string
	standard   bool // part of a run that names no section
	run        func(*bench, context.Context) error
}

func sections() []section {
	return []section{
		{"throughput", "a backlog: events/s, CPU and memory beside go-count and Flink SQL", true, (*bench).throughput},
		{"sweep", "the same for other users, hot users, partitions and windows", true, (*bench).sweep},
		{"rules", "a backlog: what rules and feeds cost, and another build beside this one (-beside)", false, (*bench).rules},
		{"latency", "from the event that passes the threshold to its alert, at three rates", true, (*bench).latency},
		{"acting", "from an event to the pager's call, and to the answer of spate decide, at 20,000 events/s", false, (*bench).acting},
		{"memory", "a flood of users with one event each: resident memory, second by second", true, (*bench).memory},
		{"recovery", "kill -9 of a detector with many users; another one joins and leaves", true, (*bench).recovery},
		{"soak", "hours at a steady rate: memory, lag, goroutines", false, (*bench).soakRun},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case interrupted:
		fmt.Fprintln(os.Stderr, "bench: interrupted")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string, stderr io.Writer) (options, []section, error) {
	o := options{shared: os.Getenv("SPATE_TEST_SHARED")}
	if o.shared == "" {
		o.shared = "../shared"
	}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.shared, "shared", o.shared, "`folder` of the reference data (SPATE_TEST_SHARED)")
	f.StringVar(&o.bin, "bin", "", "measure this `program`; default: build the one of this module")
	f.StringVar(&o.beside, "beside", "", "rules: measure this `program`, another build, in the same rounds")
	f.StringVar(&o.brokers, "brokers", "", "use this Kafka, `host:port,...`; default: start one")
	f.StringVar(&o.dir, "dir", os.TempDir(), "`folder` for the broker's data and all else that is temporary, up to 15 GB")
	f.StringVar(&o.logs, "logs", "", "keep the processes' logs in this `folder`")
	f.StringVar(&o.cpuProfile, "cpuprofile", "", "save profiles of router and detector, of their first 5 seconds, in this `folder`")
	f.StringVar(&o.json, "json", "", "write one JSON object per measured line to this `file`")
	f.IntVar(&o.rounds, "rounds", 3, "throughput, rules: rounds; figures are medians over them")
	f.IntVar(&o.events, "events", 5_000_000, "throughput, rules: events of the backlog")
	f.BoolVar(&o.flink, "flink", true, "throughput: measure Flink SQL as well (needs Java, Python and, the first time, the network)")
	f.StringVar(&o.transitions, "transitions", "closed", "throughput, sweep, rules: alert records that spate writes; the others write closed ones alone")
	f.IntVar(&o.sweepEvents, "sweep-events", 2_000_000, "sweep: events of each backlog")
	f.DurationVar(&o.latencyFor, "latency-for", time.Minute, "latency, acting: how long each rate is held")
	f.StringVar(&o.database, "database", "", "acting: the alerter's database, a `URL` of an empty one; default: a file")
	f.Float64Var(&o.maxRate, "max-rate", 0, "latency, soak: the highest `events/s` the pipeline sustains; default: measured")
	f.DurationVar(&o.memoryFor, "memory-for", 2*time.Minute, "memory: how long the live flood lasts")
	f.IntVar(&o.floodEvents, "flood-events", 5_000_000, "memory: events, and users, of the flood that is a backlog")
	f.IntVar(&o.recoveryUsers, "recovery-users", 1_000_000, "recovery: users with an open window")
	f.DurationVar(&o.soak, "soak", 30*time.Minute, "soak: how long")
	f.Float64Var(&o.soakRate, "soak-rate", 0, "soak: `events/s`; default: half of the highest rate")
	f.DurationVar(&o.soakEvery, "soak-every", 10*time.Second, "soak: time between samples")
	f.DurationVar(&o.patience, "patience", time.Minute, "give a run up after so long without a new result")
	f.DurationVar(&o.rehearse, "rehearse", 20*time.Second, "latency, soak: how long the highest rate is measured")
	all := sections()
	f.Usage = func() {
		fmt.Fprint(stderr, "Usage: go run ./tests/bench [flags] [section...]\n\nSections (all but rules, acting and soak, if none is named):\n")
		for _, s := range all {
			fmt.Fprintf(stderr, "  %-11s %s\n", s.name, s.help)
		}
		fmt.Fprint(stderr, "\nFlags:\n")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return o, nil, err
	}
	var chosen []section
	for _, s := range all {
		if f.NArg() == 0 && s.standard || slices.Contains(f.Args(), s.name) {
			chosen = append(chosen, s)
		}
	}
	for _, name := range f.Args() {
		if !slices.ContainsFunc(all, func(s section) bool { return s.name == name }) {
			return o, nil, fmt.Errorf("no section %q; flags come before sections, -h lists both", name)
		}
	}
	switch {
	case o.rounds < 1:
		return o, nil, fmt.Errorf("-rounds %d is below 1", o.rounds)
	case o.events < 100_000 || o.sweepEvents < 100_000:
		return o, nil, errors.New("-events and -sweep-events: below 100000 the start is all that is measured")
	case o.transitions != "closed" && o.transitions != "opened,closed":
		return o, nil, fmt.Errorf("-transitions %q is neither closed nor opened,closed", o.transitions)
	case runtime.GOOS != "linux":
		return o, nil, errors.New("processes are measured through /proc: this needs Linux")
	}
	return o, chosen, nil
}

func execute(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, chosen, err := parse(args, stderr)
	if err != nil {
		return err
	}
	b := &bench{options: o, progress: stderr}
	defer func() { err = errors.Join(err, b.close()) }()
	if b.report, err = newReport(stdout, o.json); err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if err := b.report.header(b.facts(ctx), "bench "+strings.Join(args, " ")); err != nil {
		return err
	}
	for _, s := range chosen {
		// What one section found wrong does not keep the others from being measured.
		if serr := s.run(b, ctx); serr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", s.name, serr))
			fmt.Fprintf(stderr, "%s: %v\n", s.name, serr)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return err
}
