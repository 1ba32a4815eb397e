package simulator

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"spate/shared/terminal"
)

const (
	barEvery = 200 * time.Millisecond
	logEvery = 5 * time.Second
)

// measured is a source that knows how far it is, in a unit of its own; total 0 is not known.
type measured interface {
	progress() (done, total int64)
}

// measure copies how far the source is to where the progress reads it.
type measure struct {
	src   measured
	bound int64 // on events; 0 is none
	n     int64
	count *counters
}

func newMeasure(cfg *Config, src Source, count *counters) *measure {
	m := &measure{bound: int64(cfg.Events), count: count}
	m.src, _ = src.(measured)
	return m
}

func (m *measure) add() {
	if m.n++; m.n&255 != 1 {
		return
	}
	switch {
	case m.bound > 0:
		m.count.done.Store(m.n)
		m.count.total.Store(m.bound)
	case m.src != nil:
		done, total := m.src.progress()
		m.count.done.Store(done)
		m.count.total.Store(total)
	}
}

// progress shows the user how far a run is.
type progress struct {
	live  *terminal.Live // of the bar; nil means log lines
	log   *slog.Logger
	now   func() time.Time
	count *counters

	begin, last time.Time
	lastSent    int64
	rate        float64 // smoothed

	quit, done chan struct{}
}

// startProgress starts the goroutine that reports; stop ends it. It returns nil if progress is off.
func startProgress(cfg *Config, count *counters) *progress {
	if cfg.Progress == nil {
		return nil
	}
	p := newProgress(cfg, count)
	every := logEvery
	if screen, ok := cfg.Progress.(*terminal.Screen); ok && (cfg.Out != "-" || !terminal.Is(cfg.Stdout)) {
		p.live, every = screen.Live(), barEvery
	}
	go func() {
		defer close(p.done)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				p.report()
			case <-p.quit:
				if p.live != nil {
					_ = p.live.Close() // who sees no terminal needs no progress
				}
				return
			}
		}
	}()
	return p
}

func newProgress(cfg *Config, count *counters) *progress {
	p := &progress{log: cfg.Log, now: cfg.Now, count: count, quit: make(chan struct{}), done: make(chan struct{})}
	p.begin = p.now()
	p.last = p.begin
	return p
}

func (p *progress) stop() {
	if p == nil {
		return
	}
	close(p.quit)
	<-p.done
}

// report shows how far the run is.
func (p *progress) report() {
	if p.live != nil {
		_ = p.live.Set([]terminal.Safe{p.line()}) // likewise
		return
	}
	sent, rate := p.measure()
	attrs := []any{"sent", sent, "rate", rate}
	if percent, left, known := p.estimate(); known {
		attrs = append(attrs, "percent", int64(percent), "left", left.String())
	}
	p.log.Info("sending events", attrs...)
}

// measure returns how many events were sent, and how many in a second of late.
func (p *progress) measure() (sent, rate int64) {
	now := p.now()
	sent = p.count.sent.Load()
	if d := now.Sub(p.last).Seconds(); d > 0 {
		current := float64(sent-p.lastSent) / d
		if p.rate == 0 || p.live == nil {
			p.rate = current
		}
		p.rate += (current - p.rate) / 5
		p.last, p.lastSent = now, sent
	}
	return sent, int64(p.rate)
}

// line is the bar.
func (p *progress) line() terminal.Safe {
	sent, rate := p.measure()
	line := fmt.Sprintf("%s events  %s/s", terminal.Grouped(sent), terminal.Grouped(rate))
	if percent, left, known := p.estimate(); known {
		const cells = 24
		full := int(percent / 100 * cells)
		line = fmt.Sprintf("[%s%s] %3d%%  %s  %s left", strings.Repeat("=", full), strings.Repeat(" ", cells-full), int(percent), line, left)
	}
	return terminal.Sprintf("%s", line)
}

// estimate returns how much was done at the last measurement, and how long the rest takes if it goes on as it went so far. It returns false while events remain of
// a source that is read to its end: a small file is read at once, and its events may take half an hour.
func (p *progress) estimate() (percent float64, left time.Duration, ok bool) {
	done, total := p.count.done.Load(), p.count.total.Load()
	if total <= 0 || done <= 0 || done >= total {
		return 0, 0, false
	}
	part := float64(done) / float64(total)
	left = time.Duration(float64(p.last.Sub(p.begin)) * (1 - part) / part)
	return part * 100, left.Round(time.Second), true
}
