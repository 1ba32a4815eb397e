package tests

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/verifier"
	"spate/shared/kafka"
	"spate/shared/window"
)

// binary builds the program once and returns its path.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "spate-tests-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "spate")
	cmd := exec.Command("go", "build", "-o", path, "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// missing skips a test for the lack of something, or fails it where everything must be there.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("REQUIRE_INTEGRATION") == "1" {
		t.Fatalf("REQUIRE_INTEGRATION=1, and "+format, args...)
	}
	t.Skipf(format, args...)
}

// sharedFile is a file of the reference data.
func sharedFile(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("SPATE_TEST_SHARED")
	if dir == "" {
		dir = "../../shared"
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		missing(t, "%s is not there; set SPATE_TEST_SHARED to the folder of the reference data", path)
	}
	return path
}

// onBrokers runs a test on an in-process broker, and on the real one that SPATE_TEST_BROKERS names, one after the other.
func onBrokers(t *testing.T, test func(t *testing.T, brokers string)) { onEach(t, false, test) }

// onBrokersTogether is onBrokers for tests that mostly wait: it runs both at once.
func onBrokersTogether(t *testing.T, test func(t *testing.T, brokers string)) { onEach(t, true, test) }

func onEach(t *testing.T, together bool, test func(t *testing.T, brokers string)) {
	t.Run("kfake", func(t *testing.T) {
		if together {
			t.Parallel()
		}
		c, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		test(t, strings.Join(c.ListenAddrs(), ","))
	})
	t.Run("kafka", func(t *testing.T) {
		if together {
			t.Parallel()
		}
		brokers := os.Getenv("SPATE_TEST_BROKERS")
		if brokers == "" {
			missing(t, "SPATE_TEST_BROKERS does not name a Kafka")
		}
		test(t, brokers)
	})
}

// process is a spate command in a process of its own.
type process struct {
	t    *testing.T
	name string
	args []string
	env  []string
	log  *os.File
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error
}

// spate prepares a command; start it with start.
func spate(t *testing.T, name string, env []string, args ...string) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: name, args: args, env: env, log: log}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("--- %s, last lines:\n%s", name, tail(b, 25))
		}
		log.Close()
	})
	return p
}

func tail(b []byte, n int) []byte {
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], []byte("\n"))
}

func (p *process) start() *process {
	p.t.Helper()
	path, err := binary()
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(path, p.args...)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	p.done = done
	go func(cmd *exec.Cmd) {
		p.err = cmd.Wait()
		close(done)
	}(p.cmd)
	return p
}

func (p *process) signal(s syscall.Signal) {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(s) // it may have ended
	}
}

// kill ends the process as a crash does.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	p.signal(syscall.SIGKILL)
	<-p.done
	p.cmd = nil
}

// stop asks the process to end and returns how it did.
func (p *process) stop(within time.Duration) error {
	p.signal(syscall.SIGTERM)
	return p.wait(within)
}

func (p *process) wait(within time.Duration) error {
	select {
	case <-p.done:
		p.cmd = nil
		return p.err
	case <-time.After(within):
		return fmt.Errorf("%s: still there after %v", p.name, within)
	}
}

// eventually polls until ok, or fails the test.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		<-tick.C
	}
}

// uniqueTopic is a topic of events for one test; everything else of the pipeline follows from its name.
func uniqueTopic(t *testing.T) string {
	return fmt.Sprintf("test-%d-%s", time.Now().UnixNano(), strings.NewReplacer("/", "-", "#", "-").Replace(strings.ToLower(t.Name())))
}

func connect(t *testing.T, brokers string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kafka.Config{Brokers: kafka.ParseBrokers(brokers)}.Options(opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// readAll reads the committed records of a topic from its beginning to its present end.
func readAll(t *testing.T, brokers, topic string, each func(*kgo.Record)) (n int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // millions of events, on a machine that may be busy
	defer cancel()
	cl := connect(t, brokers, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	for len(left) > 0 {
		f := cl.PollFetches(ctx)
		if err := f.Err(); err != nil {
			t.Fatalf("read %s: %v, partitions left %v", topic, err, left)
		}
		for it := f.RecordIter(); !it.Done(); {
			r := it.Next()
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if !r.Attrs.IsControl() {
				n++
				each(r)
			}
		}
	}
	return n
}

type userWindow struct {
	user  string
	start int64
}

// keyedCounts adds up what the keyed log says, window by window: the table with a threshold of 0 tells every window's count.
func keyedCounts(t *testing.T, brokers, topic string) map[userWindow]int64 {
	t.Helper()
	tables := map[int32]*window.Table{}
	counts := map[userWindow]int64{}
	take := func(vs []window.Verdict, err error) {
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vs {
			if v.Final {
				counts[userWindow{v.User, v.Pane.StartMS}] += v.Pane.Count
			}
		}
	}
	readAll(t, brokers, topic, func(r *kgo.Record) {
		if tables[r.Partition] == nil {
			tables[r.Partition] = window.NewTable(0)
		}
		take(tables[r.Partition].Apply(r.Offset, r.Value, nil))
	})
	for _, table := range tables {
		if st := table.Stats(); st.Stray != 0 {
			t.Errorf("%d stray events", st.Stray)
		}
		table.Each(func(user string, p window.Pane) { counts[userWindow{user, p.StartMS}] = p.Count })
	}
	return counts
}

// reference counts the topic of events in the plain way.
func reference(t *testing.T, brokers, topic string, rule verifier.Rule) *verifier.Reference {
	t.Helper()
	ref := verifier.NewReference(rule)
	readAll(t, brokers, topic, func(r *kgo.Record) { ref.AddJSON(r.Partition, r.Value) })
	return ref
}

func adminOf(cl *kgo.Client) *kadm.Client { return kadm.NewClient(cl) }

// parsePosition returns the offset below which a detector has told everything.
func parsePosition(o kadm.OffsetResponse) (int64, error) {
	p, err := window.ParsePosition(o.At, o.Metadata)
	return p.Next, err
}
