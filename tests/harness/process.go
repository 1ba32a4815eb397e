package harness

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"spate/shared/testskip"
)

// dir is where the programs of this test process are; Main removes it.
var dir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "spate-tests-") })

var program = sync.OnceValues(func() (string, error) { return Build("spate") })

// Binary builds the program once and returns its path.
func Binary() (string, error) { return program() }

// Build builds the program under a name of its own, with flags for go build.
func Build(name string, flags ...string) (string, error) {
	dir, err := dir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	cmd := exec.Command("go", append(append([]string{"build", "-o", path}, flags...), "spate")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
}

// Main is for TestMain: it runs the tests and removes what was built for them.
func Main(m *testing.M) {
	code := m.Run()
	if dir, err := dir(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// Process is a spate command in a process of its own, which can be started again after it has ended.
type Process struct {
	Name string
	// Path of the program; Binary if empty.
	Path string
	// Env is added to that of the test.
	Env []string

	t    *testing.T
	args []string
	log  *os.File
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error
}

// Spate prepares a command. It is killed at the end of the test, and the end of what it said is shown if the test failed.
func Spate(t *testing.T, name string, env []string, args ...string) *Process {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{Name: name, Env: env, t: t, args: args, log: log}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("--- %s, last lines:\n%s", name, Tail(p.Output(), 25))
		}
		log.Close()
	})
	return p
}

// Tail returns the last n lines.
func Tail(b []byte, n int) []byte {
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], []byte("\n"))
}

// Start starts the command.
func (p *Process) Start() *Process {
	p.t.Helper()
	path := p.Path
	if path == "" {
		var err error
		if path, err = Binary(); err != nil {
			p.t.Fatal(err)
		}
	}
	cmd, done := exec.Command(path, p.args...), make(chan struct{})
	cmd.Env = append(os.Environ(), p.Env...)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.cmd, p.done = cmd, done
	go func() {
		p.err = cmd.Wait()
		close(done)
	}()
	return p
}

// Signal sends a signal, if the process is there.
func (p *Process) Signal(s syscall.Signal) {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(s) // it may have ended
	}
}

// Kill ends the process as a crash does.
func (p *Process) Kill() {
	if p.cmd == nil {
		return
	}
	p.Signal(syscall.SIGKILL)
	<-p.done
	p.cmd = nil
}

// Stop asks the process to end and returns how it did.
func (p *Process) Stop(within time.Duration) error {
	p.Signal(syscall.SIGTERM)
	return p.Wait(within)
}

// Wait waits for the process to end by itself and returns how it did.
func (p *Process) Wait(within time.Duration) error {
	select {
	case <-p.done:
		p.cmd = nil
		return p.err
	case <-time.After(within):
		return fmt.Errorf("%s: still there after %v", p.Name, within)
	}
}

// Done is closed when the process has ended; Err then tells how.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err tells how the process ended.
func (p *Process) Err() error { return p.err }

// Running reports whether the process was started and has not been waited for.
func (p *Process) Running() bool { return p.cmd != nil }

// PID is the number of the process; 0 if there is none.
func (p *Process) PID() int {
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Output is everything that the process has written so far.
func (p *Process) Output() []byte {
	p.t.Helper()
	b, err := os.ReadFile(p.log.Name())
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

// ProcessorTime is what the process has used so far.
func (p *Process) ProcessorTime() time.Duration {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		testskip.Missing(p.t, "processor time is read from /proc: %v", err)
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+2:])
	var ticks int64
	for _, x := range f[11:13] {
		n, err := strconv.ParseInt(string(x), 10, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 wherever Linux runs Go
}

var address = regexp.MustCompile(`/readyz","service":"[a-z]+","address":"([^" ]+)"|http://([^" ]+)/readyz and /metrics`) // of a service, or of up

// Address is where the process's server is, as it has reported; empty if it has not yet.
func (p *Process) Address() string {
	told := address.FindAllSubmatch(p.Output(), -1)
	if told == nil {
		return ""
	}
	last := told[len(told)-1]
	return string(last[1]) + string(last[2])
}

// Get asks the process's server for operators: /metrics, /healthz, /readyz.
func (p *Process) Get(page string) (int, string) {
	at := p.Address()
	if at == "" {
		return 0, "it has not reported its address"
	}
	resp, err := http.Get("http://" + at + page)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}
