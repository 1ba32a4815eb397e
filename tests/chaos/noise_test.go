package chaos

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/verifier"
	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/store/sqlite"
	"spate/shared/testport"
	"spate/tests/harness"
)

const (
	// noiseRate is how much noise there is a second: a tenth of the traffic.
	noiseRate = 50
	// noiseMemory is what the whole pipeline in one process may take of it, KiB. Decompressing takes the most.
	noiseMemory = 1500 << 10
	// noiseLines are those of the log that a second may have: one of each cause.
	noiseLines = 30
)

// TestNoise sends what nobody should into every topic that spate reads, and into its broker's port, while traffic flows: random bytes as
// records, as batches in every codec, as frames; batches that claim what they do not have; damaged copies of what spate itself wrote. All
// alerts of the traffic are exact, memory and log are bounded, and spate is ready.
func TestNoise(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute; -short is set")
	}
	load := *noise
	for _, name := range []string{"kfake", "kafka"} {
		if *broker != "both" && *broker != name {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := *seed
			if s == 0 {
				s = uint64(time.Now().UnixNano())
			}
			t.Logf("seed %d", s)
			makeNoise(t, name, s, load)
		})
	}
}

func makeNoise(t *testing.T, on string, seed uint64, load time.Duration) {
	state, addr, names := t.TempDir(), testport.Reserve(t), kafka.NamesFor(kafka.DefaultTopic)
	args := []string{"up", "--state", state, "--listen", addr}
	if on == "kafka" {
		b := harness.OwnKafka(t)
		b.Up()
		addr = b.Addr
		args = []string{"up", "--state", state, "--brokers", addr}
	}
	up := harness.Spate(t, "up", []string{"SPATE_BROKERS=", "SPATE_LATENESS=3s", "SPATE_IDLE_TIMEOUT=3s"}, args...).Start()
	cl := harness.Connect(t, addr, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	harness.Eventually(t, time.Minute, "spate is ready", func() bool {
		return harness.TopicExists(t, cl, names.Alerts) && ready(up)
	})
	traffic := harness.Spate(t, "traffic", []string{"SPATE_BROKERS=" + addr}, "simulate", "--time", "now", "--event-rate", strconv.Itoa(10*noiseRate), "--users", "20000",
		"--duration", load.String(), "--seed", strconv.FormatUint(seed, 10), "--quiet").Start()

	n := &noisemaker{t: t, rng: rand.New(rand.NewPCG(seed, 7)), cl: cl, addr: addr, names: names, embedded: on == "kfake"}
	began := time.Now()
	var notReady, most int64
	tick := time.NewTicker(time.Second / noiseRate)
	defer tick.Stop()
	for sent := 0; traffic.Running() && time.Since(began) < load+time.Minute; sent++ {
		select {
		case <-traffic.Done():
		case <-tick.C:
			n.one()
			if sent%noiseRate == 0 {
				if !ready(up) {
					notReady++
				}
				most = max(most, residentKiB(t, up.PID()))
			}
			continue
		}
		break
	}
	if err := traffic.Wait(time.Minute); err != nil {
		t.Fatalf("the traffic did not end well: %v", err)
	}
	took := time.Since(began)

	want := harness.Reference(t, addr, names.Activity, verifier.Rule{Window: 10 * time.Second, Lateness: 3 * time.Second, Threshold: 5}).Result()
	st, err := sqlite.Open(t.Context(), filepath.Join(state, "spate.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	harness.CheckStored(t, st, want, 2*time.Minute)
	harness.Eventually(t, time.Minute, "spate is ready", func() bool { return ready(up) })
	lines := bytes.Count(up.Output(), []byte(`"level":`))
	t.Logf("%v: %d alerts exact; %d pieces of noise (%v); not ready in %d of its seconds; %d KiB at most; %d lines in the log", took.Round(time.Second), len(want), n.sent, n.kinds, notReady, most, lines)
	if most > noiseMemory {
		t.Errorf("%d KiB of memory", most)
	}
	if lines > noiseLines*int(took.Seconds()+60) {
		t.Errorf("%d lines in the log", lines)
	}
	if err := up.Stop(30 * time.Second); err != nil {
		t.Errorf("it does not end well: %v", err)
	}
}

func ready(p *harness.Process) bool {
	code, _ := p.Get("/readyz")
	return code == http.StatusOK
}

// residentKiB is the memory that a process has now.
func residentKiB(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0 // there is no /proc
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// noisemaker makes noise, each time another.
type noisemaker struct {
	t        *testing.T
	rng      *rand.Rand
	cl       *kgo.Client
	addr     string
	names    kafka.Names
	embedded bool

	heard [][]byte // batches and alerts that spate wrote
	sent  int
	kinds [6]int
}

func (n *noisemaker) one() {
	topic := []string{n.names.Activity, n.names.Keyed, n.names.Alerts}[n.rng.IntN(3)]
	kind := n.rng.IntN(len(n.kinds))
	n.sent++
	n.kinds[kind]++
	switch kind {
	case 0: // a record of anything
		n.record(topic, n.bytes(n.rng.IntN(2000)))
	case 1: // a batch that is not what it claims to be, or is too large
		b := harness.Batch{Codec: kgo.CompressionCodecType(n.rng.IntN(5)), Records: 1 + n.rng.IntN(20), Size: n.rng.IntN(1000), Damaged: n.rng.IntN(2) == 0, BadCRC: n.rng.IntN(4) == 0}
		if n.rng.IntN(3) == 0 {
			b.Claims = 1 + n.rng.IntN(1<<20)
		}
		if n.rng.IntN(20) == 0 {
			b.Codec, b.Records, b.Size = kgo.CodecZstd, 1, 100<<20
		}
		_, _ = harness.SendBatch(n.t, n.cl, topic, int32(n.rng.IntN(4)), b.Encode(n.t)) // most are refused
	case 2: // a damaged copy of what spate wrote
		if len(n.heard) < 20 {
			n.listen()
		}
		if len(n.heard) > 0 {
			b := bytes.Clone(n.heard[n.rng.IntN(len(n.heard))])
			for range 1 + n.rng.IntN(4) {
				b[n.rng.IntN(len(b))] ^= byte(1 + n.rng.IntN(255))
			}
			if _, err := alert.Parse(b); err != nil { // what is well formed is a lie, not noise
				n.record(topic, b[:len(b)-n.rng.IntN(2)])
			}
		}
	case 3: // text that is nearly an event
		n.record(topic, []byte([]string{`{"user_id":`, `[]`, `{"event_time":1}`, `{"user_id":1,"event_time":"tomorrow"}`, "\xff\xfe{", `{"user_id":7,"event_time":99999999999999999999}`}[n.rng.IntN(6)]))
	case 4: // a frame of anything, for the broker
		n.frame(n.bytes(n.rng.IntN(4000)))
	case 5: // a frame that begins as a request does
		f := append([]byte{0, 0, byte(n.rng.IntN(4)), byte(n.rng.IntN(256)), 0, byte(n.rng.IntN(70)), 0, byte(n.rng.IntN(18))}, n.bytes(n.rng.IntN(1024))...)
		n.frame(f)
	}
}

func (n *noisemaker) bytes(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(n.rng.Uint32())
	}
	return b
}

func (n *noisemaker) record(topic string, value []byte) {
	r := &kgo.Record{Topic: topic, Partition: int32(n.rng.IntN(4)), Value: value}
	n.cl.Produce(context.Background(), r, nil) // what becomes of it is not our business
}

// frame writes to the broker's port, and goes.
func (n *noisemaker) frame(b []byte) {
	if !n.embedded {
		return // a real Kafka looks after itself
	}
	conn, err := net.DialTimeout("tcp", n.addr, 5*time.Second)
	if err != nil {
		n.t.Errorf("the broker's port: %v", err)
		return
	}
	_, _ = conn.Write(b) // it may be refused in the middle
	_ = conn.Close()
}

// listen takes down some of what spate has written so far.
func (n *noisemaker) listen() {
	for _, topic := range []string{n.names.Keyed, n.names.Alerts} {
		harness.ReadAll(n.t, n.addr, topic, func(r *kgo.Record) {
			if len(r.Value) > 20 && len(n.heard) < 500 {
				n.heard = append(n.heard, bytes.Clone(r.Value))
			}
		})
	}
}
