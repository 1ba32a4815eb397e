package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// report prints tables for people and, if asked to, lines for programs.
type report struct {
	out  io.Writer
	file *os.File // nil if not asked for
}

func newReport(out io.Writer, path string) (*report, error) {
	r := &report{out: out}
	if path == "" {
		return r, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("-json: %w", err)
	}
	r.file = f
	return r, nil
}

func (r *report) close() error {
	if r.file == nil {
		return nil
	}
	if err := r.file.Close(); err != nil {
		return fmt.Errorf("-json: %w", err)
	}
	return nil
}

func (r *report) printf(format string, args ...any) { fmt.Fprintf(r.out, format+"\n", args...) }

// json writes one line: the section, and the members of v.
func (r *report) json(section string, v any) error {
	if r.file == nil {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("-json: %w", err)
	}
	name, err := json.Marshal(section)
	if err != nil {
		return fmt.Errorf("-json: %w", err)
	}
	// v is a struct, so b is an object with members.
	if _, err := fmt.Fprintf(r.file, "{\"section\":%s,%s\n", name, b[1:]); err != nil {
		return fmt.Errorf("-json: %w", err)
	}
	return nil
}

// facts are those of the machine and the programs.
type facts struct {
	Date    string    `json:"date"`
	Commit  string    `json:"commit"`
	CPU     string    `json:"cpu"`
	Cores   int       `json:"cores"`
	MemMB   int64     `json:"memory_mb"`
	Kernel  string    `json:"kernel"`
	Go      string    `json:"go"`
	Kafka   string    `json:"kafka"`
	Program string    `json:"program"`
	Load    [3]string `json:"load_average"`
}

func (b *bench) facts(ctx context.Context) facts {
	f := facts{Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Cores: runtime.NumCPU(), Go: runtime.Version(), Kernel: firstLine("/proc/sys/kernel/osrelease"), Program: "this module"}
	if b.bin != "" {
		f.Program = b.program
	}
	f.Commit = b.commit(ctx)
	info, _ := os.ReadFile("/proc/cpuinfo") // without it the model is not told
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			f.CPU = strings.TrimSpace(value)
			break
		}
	}
	var si syscall.Sysinfo_t
	if syscall.Sysinfo(&si) == nil {
		f.MemMB = int64(si.Totalram) * int64(si.Unit) >> 20
	}
	f.Kafka = b.kafkaVersion(ctx)
	copy(f.Load[:], strings.Fields(firstLine("/proc/loadavg")))
	return f
}

// kafkaVersion is that of the broker's jars, if it is ours, else what its requests look like.
func (b *bench) kafkaVersion(ctx context.Context) string {
	if b.brokerPID != 0 {
		pom, _ := os.ReadFile(filepath.Join(b.shared, "kafka", "pom.xml"))
		if _, rest, ok := strings.Cut(string(pom), "<kafka.version>"); ok {
			version, _, _ := strings.Cut(rest, "<")
			return version
		}
	}
	versions, err := b.adm.ApiVersions(ctx)
	if err != nil {
		return "unknown"
	}
	for _, v := range versions {
		return v.VersionGuess()
	}
	return "unknown"
}

func firstLine(path string) string {
	b, _ := os.ReadFile(path) // nothing of it is needed to measure
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func (r *report) header(f facts, command string) error {
	r.printf("%s\n", command)
	r.printf("date      %s", f.Date)
	r.printf("commit    %s, measured: %s", f.Commit, f.Program)
	r.printf("machine   %s, %d cores, %d MB, Linux %s", f.CPU, f.Cores, f.MemMB, f.Kernel)
	r.printf("versions  %s, Kafka %s", f.Go, f.Kafka)
	r.printf("load      %s (1, 5, 15 min)", strings.Join(f.Load[:], " "))
	return r.json("facts", f)
}

const throughputRow = "%-15s %5s %10s %10s %8s %8s %8s %8s %7s %7s %8s %7s %7s %7s"

func (r *report) throughputHead(title string) {
	r.printf("\n%s\n", title)
	r.printf(throughputRow, "system", "round", "events/s", "x go-count", "us/event", "x go-cnt", "steady", "broker", "RSS MB", "1st s", "results", "missing", "wrong", "double")
}

func (r *report) run(section string, m run) error {
	r.row(m, fmt.Sprint(m.Round))
	return r.json(section, m)
}

func (r *report) row(m run, round string) {
	c := cells(m)
	r.printf(throughputRow, m.System, round, number(m.Rate, 0), number(m.RateRatio, 3), number(m.CPU, 2), number(m.CPURatio, 2), number(m.SteadyCPU, 2),
		number(m.BrokerCPU, 2), number(m.PeakMB, 0), number(m.FirstS, 2), c[0], c[1], c[2], c[3])
}

// cells are how many results there were and how many were not right.
func cells(m run) [4]string {
	if !m.Checked {
		return [4]string{"-", "-", "-", "-"}
	}
	return [4]string{fmt.Sprint(m.Results), fmt.Sprint(m.Missing), fmt.Sprint(m.Wrong), fmt.Sprint(m.Duplicates)}
}

// number is a figure, or a dash where there is none.
func number(v float64, digits int) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, v)
}

// medians sums the rounds up: medians, also of the ratios, each of which is of one round.
func (r *report) medians(all []run) error {
	r.printf("\nMedians of the rounds [lowest..highest ratio of CPU to go-count]")
	var systems []string
	of := make(map[string][]run)
	for _, m := range all {
		if of[m.System] == nil {
			systems = append(systems, m.System)
		}
		of[m.System] = append(of[m.System], m)
	}
	slices.SortStableFunc(systems, func(a, b string) int { return rank(a) - rank(b) })
	for _, s := range systems {
		runs := of[s]
		m := medianRun(runs)
		r.row(m, fmt.Sprintf("n=%d", len(runs)))
		lowest, highest := m.CPURatio, m.CPURatio
		for _, one := range runs {
			lowest, highest = min(lowest, one.CPURatio), max(highest, one.CPURatio)
		}
		split := ""
		if s == spateBoth {
			split = fmt.Sprintf("; router %.2f us %.0f MB, detector %.2f us %.0f MB", m.RouterCPU, m.RouterMB, m.DetectCPU, m.DetectMB)
		}
		r.printf("%15s [%.2f..%.2f]%s", "", lowest, highest, split)
		if err := r.json("throughput-median", m); err != nil {
			return err
		}
	}
	return nil
}

const sweepRow = "%-40s %-9s %10s %10s %8s %8s %8s %7s %8s %7s %7s %7s"

func (r *report) sweepHead(title string) {
	r.printf("\n%s\n", title)
	r.printf(sweepRow, "load", "system", "events/s", "x go-count", "us/event", "x go-cnt", "RSS MB", "1st s", "results", "missing", "wrong", "double")
}

func (r *report) sweepRow(m run) error {
	c := cells(m)
	r.printf(sweepRow, m.Load, m.System, number(m.Rate, 0), number(m.RateRatio, 3), number(m.CPU, 2), number(m.CPURatio, 2), number(m.PeakMB, 0), number(m.FirstS, 2), c[0], c[1], c[2], c[3])
	return r.json("sweep", m)
}

const latencyFormat = "%10s %10s %8s %8s %8s %8s %8s %8s %8s %9s %9s %8s %8s"

func (r *report) latencyHead(highest float64) {
	r.printf("\nLatency: from the append of the event that passes the threshold to the append of its alert, ms. The pipeline sustains %.0f events/s here\n", highest)
	r.printf(latencyFormat, "asked ev/s", "sent ev/s", "p50", "p90", "p99", "max", "alerts", "missing", "lag", "router us", "detect us", "rtr MB", "det MB")
}

func (r *report) latencyRow(d delay) error {
	r.printf(latencyFormat, number(d.Rate, 0), number(d.Sent, 0), number(d.P50, 0), number(d.P90, 0), number(d.P99, 0), number(d.Max, 0), fmt.Sprint(d.Alerts), fmt.Sprint(d.Missing),
		fmt.Sprint(d.LagEvents), number(d.RouterCPU, 2), number(d.DetectCPU, 2), number(d.RouterMB, 0), number(d.DetectMB, 0))
	return r.json("latency", d)
}

// memory prints the curve; the lines for programs have every second of it.
func (r *report) memory(title string, moments []moment) error {
	r.printf("\n%s\n", title)
	const format = "%6s %10s %10s %10s %12s  %s"
	r.printf(format, "s", "events", "router MB", "detect MB", "open windows", "both")
	peak := moment{}
	for _, m := range moments {
		peak.RouterMB, peak.DetectorMB, peak.Windows = max(peak.RouterMB, m.RouterMB), max(peak.DetectorMB, m.DetectorMB), max(peak.Windows, m.Windows)
	}
	every := max(1, len(moments)/24)
	for i, m := range moments {
		if i%every == 0 || i == len(moments)-1 {
			bar := strings.Repeat("#", int(40*(m.RouterMB+m.DetectorMB)/max(1, peak.RouterMB+peak.DetectorMB)))
			r.printf(format, number(m.Second, 0), fmt.Sprint(m.Events), number(m.RouterMB, 0), number(m.DetectorMB, 0), number(m.Windows, 0), bar)
		}
		if err := r.json("memory", m); err != nil {
			return err
		}
	}
	r.printf(format, "peak", "", number(peak.RouterMB, 0), number(peak.DetectorMB, 0), number(peak.Windows, 0), "")
	return nil
}

const recoveryFormat = "%-34s %14s %18s %14s %20s"

func (r *report) recoveryHead(title string) {
	r.printf("\n%s\n", title)
	r.printf(recoveryFormat, "what", "first alert s", "all partitions s", "longest gap s", "of one partition s")
}

func (r *report) recoveryRow(i interruption) error {
	r.printf(recoveryFormat, i.What, number(i.FirstS, 2), number(i.AllS, 2), number(i.GapS, 2), number(i.PartitionGapS, 2))
	return r.json("recovery", i)
}

// soak prints of every figure how it began, ended and was at most, and where it was going.
func (r *report) soak(title string, ps []*process, samples []sample) error {
	r.printf("\n%s\n", title)
	const format = "%-8s %-12s %10s %10s %10s %16s %22s"
	r.printf(format, "service", "figure", "first", "last", "max", "slope per hour", "of the second half")
	for _, p := range ps {
		for _, figure := range []struct {
			name string
			of   func(sample) float64
		}{
			{"rss MB", func(s sample) float64 { return s.RSSMB }},
			{"heap MB", func(s sample) float64 { return s.HeapMB }},
			{"lag", func(s sample) float64 { return s.Lag }},
			{"goroutines", func(s sample) float64 { return s.Goroutines }},
			{"sent/s", func(s sample) float64 { return s.Rate }},
		} {
			var x, y []float64
			for _, s := range samples {
				if s.Service == p.name {
					x, y = append(x, s.Second/3600), append(y, figure.of(s))
				}
			}
			if len(x) == 0 || figure.name == "sent/s" && p != ps[0] {
				continue
			}
			half := len(x) / 2
			r.printf(format, p.name, figure.name, fmt.Sprintf("%.1f", y[0]), fmt.Sprintf("%.1f", y[len(y)-1]), fmt.Sprintf("%.1f", slices.Max(y)),
				fmt.Sprintf("%+.1f", slope(x, y)), fmt.Sprintf("%+.1f", slope(x[half:], y[half:])))
		}
	}
	return nil
}

func rank(system string) int {
	return slices.Index([]string{goCount, spateBoth, spateRouter, spateDetector, flinkSQL}, system)
}

func medianRun(runs []run) run {
	m := runs[0]
	m.Round = 0
	for _, of := range []func(*run) *float64{
		func(r *run) *float64 { return &r.Seconds }, func(r *run) *float64 { return &r.Rate }, func(r *run) *float64 { return &r.CPU },
		func(r *run) *float64 { return &r.SteadyRate }, func(r *run) *float64 { return &r.SteadyCPU }, func(r *run) *float64 { return &r.RouterCPU },
		func(r *run) *float64 { return &r.DetectCPU }, func(r *run) *float64 { return &r.BrokerCPU }, func(r *run) *float64 { return &r.PeakMB },
		func(r *run) *float64 { return &r.RouterMB }, func(r *run) *float64 { return &r.DetectMB }, func(r *run) *float64 { return &r.FirstS },
		func(r *run) *float64 { return &r.RateRatio }, func(r *run) *float64 { return &r.CPURatio },
	} {
		var values []float64
		for i := range runs {
			values = append(values, *of(&runs[i]))
		}
		*of(&m) = median(values)
	}
	for _, r := range runs { // the worst of results
		m.Missing, m.Wrong, m.Duplicates = max(m.Missing, r.Missing), max(m.Wrong, r.Wrong), max(m.Duplicates, r.Duplicates)
	}
	return m
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
