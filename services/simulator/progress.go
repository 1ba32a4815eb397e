package simulator

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
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

// progress tells the user how far a run is.
type progress struct {
	w     io.Writer // of the bar; nil means log lines
	log   *slog.Logger
	now   func() time.Time
	count *counters

	begin, last time.Time
	lastSent    int64
	rate        float64 // smoothed
	width       int     // of the bar as drawn

	quit, done chan struct{}
}

// startProgress starts the goroutine that reports; stop ends it. It returns nil if progress is off.
func startProgress(cfg *Config, count *counters) *progress {
	if cfg.Progress == nil {
		return nil
	}
	p := newProgress(cfg, count, isTerminal(cfg.Progress) && (cfg.Out != "-" || !isTerminal(os.Stdout)))
	every := logEvery
	if p.w != nil {
		every = barEvery
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
				if p.w != nil {
					p.report()
					fmt.Fprintln(p.w)
				}
				return
			}
		}
	}()
	return p
}

func newProgress(cfg *Config, count *counters, bar bool) *progress {
	p := &progress{log: cfg.Log, now: cfg.Now, count: count, quit: make(chan struct{}), done: make(chan struct{})}
	if bar {
		p.w = cfg.Progress
	}
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

func (p *progress) report() {
	now, sent := p.now(), p.count.sent.Load()
	if d := now.Sub(p.last).Seconds(); d > 0 {
		current := float64(sent-p.lastSent) / d
		if p.rate == 0 || p.w == nil {
			p.rate = current
		}
		p.rate += (current - p.rate) / 5
		p.last, p.lastSent = now, sent
	}
	percent, left, known := p.estimate(now)
	if p.w == nil {
		attrs := []any{"sent", sent, "rate", int64(p.rate)}
		if known {
			attrs = append(attrs, "percent", int64(percent), "left", left.String())
		}
		p.log.Info("sending events", attrs...)
		return
	}
	line := fmt.Sprintf("%s events  %s/s", group(sent), group(int64(p.rate)))
	if known {
		const cells = 24
		full := int(percent / 100 * cells)
		line = fmt.Sprintf("[%s%s] %3d%%  %s  %s left", strings.Repeat("=", full), strings.Repeat(" ", cells-full), int(percent), line, left)
	}
	fmt.Fprintf(p.w, "\r%-*s", p.width, line)
	p.width = len(line)
}

// estimate returns how much is done, and how long the rest takes if it goes on as it went so far.
func (p *progress) estimate(now time.Time) (percent float64, left time.Duration, ok bool) {
	done, total := p.count.done.Load(), p.count.total.Load()
	if total <= 0 || done <= 0 {
		return 0, 0, false
	}
	part := min(float64(done)/float64(total), 1)
	left = time.Duration(float64(now.Sub(p.begin)) * (1 - part) / part)
	return part * 100, left.Round(time.Second), true
}

// group writes n with commas between the thousands.
func group(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
