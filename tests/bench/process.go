package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// process is one that is measured. It ends with its context; stop ends it and waits.
type process struct {
	name    string
	cmd     *exec.Cmd
	log     string // path
	started time.Time
	peak    atomic.Int64 // highest resident memory, bytes
	done    chan struct{}
	watched chan struct{} // closed when nobody samples any more
	err     error         // how it ended; valid when done is closed
}

// grace is how long a process may take to end when asked to.
const grace = 15 * time.Second

func (b *bench) start(ctx context.Context, name string, env []string, path string, args ...string) (*process, error) {
	log, err := os.CreateTemp(b.logDir(), name+"-*.log")
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	cmd.Dir = b.tmp
	cmd.Env = append(clean(os.Environ()), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches it through us, not on its own
	p := &process{name: name, cmd: cmd, log: log.Name(), done: make(chan struct{}), watched: make(chan struct{}), started: time.Now()}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	go p.watch()
	b.started = append(b.started, p)
	return p, nil
}

// clean leaves out what would change how spate works.
func clean(env []string) (out []string) {
	for _, kv := range env {
		if !strings.HasPrefix(kv, "SPATE_") {
			out = append(out, kv)
		}
	}
	return out
}

// spate starts one of spate's services.
func (b *bench) spate(ctx context.Context, pipe pipeline, service string, args ...string) (*process, error) {
	if b.cpuProfile != "" {
		pipe = pipe.with("SPATE_PPROF=true")
	}
	p, err := b.start(ctx, service, pipe.with("SPATE_BROKERS="+strings.Join(b.kafka.Brokers, ","), "SPATE_TOPIC="+pipe.names.Activity, "SPATE_HTTP=127.0.0.1:0").env,
		b.program, append([]string{service}, args...)...)
	if err == nil && b.cpuProfile != "" && service != "alert" {
		go b.profile(ctx, p, len(b.started))
	}
	return p, err
}

// profile saves where the process spends its time, from its start on. It costs a little of what is measured.
func (b *bench) profile(ctx context.Context, p *process, number int) {
	const seconds = 5
	err := poll(ctx, grace, 20*time.Millisecond, p.name+" tells its address", func() (bool, error) { return p.address() != "" || p.ended(), nil })
	var profile []byte
	if err == nil {
		profile, err = p.get(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds), (seconds+5)*time.Second)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(b.cpuProfile, fmt.Sprintf("%s-%d.pprof", p.name, number)), profile, 0o644)
	}
	if err != nil && ctx.Err() == nil {
		b.say("no profile: %v", err)
	}
}

// wait waits until the process has ended by itself.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if p.err != nil {
		return p.failure()
	}
	return nil
}

// watch keeps the peak of the memory. The kernel's own peak at the end will not do: a child's begins with its parent's.
func (p *process) watch() {
	defer close(p.watched)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, peak, err := p.memory(); err == nil && peak > p.peak.Load() {
			p.peak.Store(peak)
		}
		select {
		case <-p.done:
			return
		case <-tick.C:
		}
	}
}

// stop asks the process to end, and kills it if it does not.
func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(grace):
		p.kill()
	}
	<-p.watched
}

// kill ends the process as a crash does.
func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL) // it may have ended
	<-p.done
}

// ended reports whether the process is over.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// failure describes an end that was not asked for.
func (p *process) failure() error {
	err := p.err
	if err == nil {
		err = errors.New("exit status 0")
	}
	said, _ := os.ReadFile(p.log) // the end itself is what counts
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	return fmt.Errorf("%s ended: %w; it said last:\n%s", p.name, err, strings.Join(lines[max(0, len(lines)-15):], "\n"))
}

// cpu is the processor time, user and system, that the process has used so far.
func (p *process) cpu() time.Duration {
	if p.ended() {
		return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	}
	d, err := cpuOf(p.cmd.Process.Pid)
	if err != nil && p.waitShort() {
		return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	}
	return d
}

// waitShort waits for a process that has just ended to be known as such.
func (p *process) waitShort() bool {
	select {
	case <-p.done:
		return true
	case <-time.After(time.Second):
		return false
	}
}

func cpuOf(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("processor time: %w", err)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+2:])
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("processor time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil // USER_HZ is 100 wherever Linux runs Go
}

// memory returns the resident memory now and at its highest, bytes.
func (p *process) memory() (now, peak int64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, fmt.Errorf("memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "VmRSS:":
			now = kib << 10
		case "VmHWM:":
			peak = kib << 10
		}
	}
	if now == 0 {
		return 0, 0, errors.New("memory: the process has none")
	}
	return now, peak, nil
}

var address = regexp.MustCompile(`"address":"([^"]+)"`)

// address is that of the process's server for operators; "" if it has not told it yet.
func (p *process) address() string {
	said, err := os.ReadFile(p.log)
	if err != nil {
		return ""
	}
	told := address.FindSubmatch(said)
	if told == nil {
		return ""
	}
	return string(told[1])
}

// get returns a page of that server.
func (p *process) get(ctx context.Context, page string, within time.Duration) ([]byte, error) {
	addr := p.address()
	if addr == "" {
		return nil, fmt.Errorf("%s%s: it has not reported its address", p.name, page)
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+page, nil)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", p.name, page, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", p.name, page, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", p.name, page, err)
	}
	return body, nil
}

// metrics returns the metrics of the process: the sum of each family's samples.
func (p *process) metrics(ctx context.Context) (map[string]float64, error) {
	page, err := p.get(ctx, "/metrics", 5*time.Second)
	if err != nil {
		return nil, err
	}
	sums := make(map[string]float64)
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSpace(line)
		space := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || space < 0 {
			continue
		}
		v, err := strconv.ParseFloat(line[space+1:], 64)
		if err != nil {
			continue
		}
		name, _, _ := strings.Cut(line[:space], "{")
		sums[name] += v
	}
	return sums, nil
}

// awaitMetric waits until a figure of a process is as wanted.
func (p *process) awaitMetric(ctx context.Context, within time.Duration, name string, ok func(float64) bool) error {
	return poll(ctx, within, 100*time.Millisecond, p.name+": "+name, func() (bool, error) {
		if p.ended() {
			return false, p.failure()
		}
		m, err := p.metrics(ctx)
		v, told := m[name]
		return err == nil && told && ok(v), nil
	})
}

// ready waits until services do their work.
func ready(ctx context.Context, processes ...*process) error {
	for _, p := range processes {
		if err := p.awaitMetric(ctx, time.Minute, "spate_ready", func(v float64) bool { return v == 1 }); err != nil {
			return err
		}
	}
	return nil
}

// file returns a path for a file of this run.
func (b *bench) file(name string) string { return filepath.Join(b.tmp, name) }

// logDir is where processes write what they say.
func (b *bench) logDir() string {
	if b.logs != "" {
		return b.logs
	}
	return b.tmp
}
