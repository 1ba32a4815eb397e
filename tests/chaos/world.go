package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/verifier"
	"spate/shared/kafka"
	"spate/shared/store"
	"spate/shared/store/sqlite"
	"spate/tests/harness"
)

// The rule of the run: small enough for dozens of windows to close while it lasts.
const (
	idleTimeout = 3 * time.Second
	disorder    = 6 * time.Second // beyond the lateness: some events are late
	partitions  = 4
)

var rule = verifier.Rule{Window: 5 * time.Second, Lateness: 3 * time.Second, Threshold: 3}

// world is a pipeline with everything that it needs, and what can befall it.
type world struct {
	t     *testing.T
	setup setup

	proxy    *proxy
	broker   harness.Broker
	disk     *harness.Disk
	database string
	names    kafka.Names
	client   *kgo.Client
	store    *sqlite.Store // opened after the faults
	load     *harness.Process
	hushed   atomic.Bool // nothing is sent

	victims map[string]*victim

	mu    sync.Mutex
	wrong []string
	stuck bool // something is not read, and nothing moves
}

// setup is one run.
type setup struct {
	Broker string // kfake or kafka
	Seed   uint64
	Load   time.Duration
	Rate   int // events a second
	Mix    mix
	// Program is the binary; empty is the one that is released. Fault is the bug that is switched on in it.
	Program, Fault string
	// Patience is how long nothing may happen after the load before the run is judged as it is.
	Patience time.Duration
}

// victim is one at a time in the hands of one action.
type victim struct {
	sync.Mutex
	process *harness.Process // nil: broker or disk
	up      bool             // it must not end by itself
	said    int              // bytes, before its present life
}

// newWorld starts everything but the load.
func newWorld(t *testing.T, s setup) *world {
	t.Helper()
	w := &world{t: t, setup: s, names: kafka.NamesFor(kafka.DefaultTopic), victims: map[string]*victim{theBroker: {}, theDisk: {}}}
	var err error
	if w.proxy, err = newProxy(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.proxy.Close)
	if s.Broker == "kafka" {
		w.broker = harness.OwnKafka(t, "advertised.listeners=PLAINTEXT://"+w.proxy.Addr)
	} else {
		w.broker = harness.OwnKfake(t, kfake.ListenFn(func(network, address string) (net.Listener, error) {
			ln, err := net.Listen(network, address)
			return advertised{ln, w.proxy.ln.Addr()}, err
		}))
	}
	w.proxy.Forward(w.broker.Addr)
	w.broker.Up()
	t.Cleanup(w.broker.Down)
	w.disk = harness.NewDisk(t, 64<<20+int64(s.Load.Minutes()*16)<<20)
	w.database = filepath.Join(w.disk.Dir, "alerts.db")

	// The proxy takes connections also when the broker is down, which is not a reason to give up.
	w.client = harness.Connect(t, w.proxy.Addr, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.AlwaysRetryEOF())
	harness.MakeTopics(t, w.client, kafka.Layout{Names: w.names, Partitions: partitions})
	w.apply()

	env := []string{
		"SPATE_BROKERS=" + w.proxy.Addr, "SPATE_PARTITIONS=" + strconv.Itoa(partitions), "SPATE_DATABASE_URL=" + w.database, "SPATE_FAULT=" + s.Fault,
		"SPATE_WINDOW=" + rule.Window.String(), "SPATE_LATENESS=" + rule.Lateness.String(), "SPATE_THRESHOLD=" + strconv.FormatInt(rule.Threshold, 10),
		"SPATE_IDLE_TIMEOUT=" + idleTimeout.String(),
	}
	for _, service := range services {
		for i, name := range service.members() {
			arguments := slices.Clone(service.Arguments)
			if service.Name == "router" { // its next life must have the name of the one before
				arguments = append(arguments, "--instance", name)
			}
			v := &victim{process: harness.Spate(t, name, env, arguments...)}
			v.process.Path = s.Program
			if w.victims[name] = v; i < service.Up {
				w.start(v)
			}
		}
	}
	w.load = harness.Spate(t, "load", env, "simulate", "--time", "shift", "--disorder", disorder.String(), "--threshold", "5", "--event-rate", strconv.Itoa(s.Rate),
		"--users", "100000", "--duration", s.Load.String(), "--seed", strconv.FormatUint(s.Seed, 10), "--quiet")
	w.load.Path = s.Program
	w.victims[theLoad] = &victim{process: w.load}
	return w
}

// advertised is a listener that says it is at another address, which is what kfake tells its clients.
type advertised struct {
	net.Listener
	addr net.Addr
}

func (a advertised) Addr() net.Addr { return a.addr }

// violate notes what must not be.
func (w *world) violate(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

// run lets the load flow while the plan happens.
func (w *world) run(plan []action) {
	w.load.Start()
	began := time.Now()
	var under, sending sync.WaitGroup
	ctx, cancel := context.WithCancel(w.t.Context())
	sending.Go(func() { w.sendMalformed(ctx) })
	for _, a := range plan {
		<-time.After(time.Until(began.Add(a.At)))
		under.Go(func() {
			v := w.victims[a.Victim]
			v.Lock()
			defer v.Unlock()
			w.do(v, a)
		})
	}
	// What was held up while the broker was away comes after the time of the load, and after the broker has come back.
	under.Wait()
	err := w.load.Wait(max(0, time.Until(began.Add(w.setup.Load))) + time.Minute)
	cancel()
	sending.Wait()
	if err != nil {
		w.t.Fatalf("the load did not end well: %v", err)
	}
}

// judge waits for what is under way and holds everything against the reference. All must be well again.
func (w *world) judge() {
	var err error
	if w.store, err = sqlite.Open(w.t.Context(), w.database); err != nil {
		w.t.Fatal(err)
	}
	defer w.store.Close()
	healed := time.Now()
	w.settle("all events are read", func(p progress) bool { return p.routers == 0 && !p.open })
	ref := w.reference()
	others := w.otherRules()
	want := int64(len(ref.Result()))
	for _, r := range others.Rules {
		want += int64(len(r.Rows))
	}
	w.settle(fmt.Sprintf("%d alerts are closed and stored", want), func(p progress) bool {
		return p.alerters == 0 && p.stored.Opened == 0 && p.stored.Closed >= want
	})
	w.t.Logf("all was done %v after the last fault", time.Since(healed).Round(100*time.Millisecond))
	w.check(ref, others)
}

// endWithin bounds how long a process may take to end when it is asked to, whatever else is away at that moment.
const endWithin = 30 * time.Second

func (w *world) do(v *victim, a action) {
	done := func(format string, args ...any) {
		w.t.Helper()
		w.t.Logf("%v: "+format, append([]any{a}, args...)...)
	}
	switch a.Kind {
	case crash:
		w.broker.Down()
		<-time.After(a.For)
		w.broker.Up()
		done("is back")
		return
	case full:
		if err := w.disk.Fill(); err != nil {
			w.t.Error(err)
		}
		<-time.After(a.For)
		if err := w.disk.Free(); err != nil {
			w.t.Error(err)
		}
		done("is free again")
		return
	case join:
		w.start(v)
		<-time.After(a.For)
		w.stop(v)
		done("joined and left")
		return
	}
	w.alive(v)
	switch a.Kind {
	case kill, lose:
		v.process.Kill()
		<-time.After(a.For)
		w.start(v)
		done("is started again")
	case restart, leave:
		w.stop(v)
		<-time.After(a.For)
		w.start(v)
		done("is started again")
	case hush:
		w.hushed.Store(true)
		v.process.Signal(syscall.SIGSTOP)
		<-time.After(a.For)
		v.process.Signal(syscall.SIGCONT)
		w.hushed.Store(false)
		done("goes on")
	case freeze:
		v.process.Signal(syscall.SIGSTOP)
		<-time.After(a.For)
		v.process.Signal(syscall.SIGCONT)
		done("goes on")
	case cut:
		n, err := w.proxy.Cut(v.process.PID())
		done("%d connections, %v", n, err)
	case stall, mute:
		n, release, err := w.proxy.Hold(v.process.PID(), a.Kind == mute)
		<-time.After(a.For)
		if a.Kind == mute {
			v.process.Kill()
		}
		release()
		if a.Kind == mute {
			w.start(v)
		}
		done("%d connections, %v", n, err)
	}
}

func (w *world) start(v *victim) {
	v.said = len(v.process.Output())
	v.process.Start()
	v.up = true
}

func (w *world) stop(v *victim) {
	// Before that it may not listen for signals yet, and ends as any process does.
	harness.Eventually(w.t, endWithin, v.process.Name+" serves", func() bool {
		return bytes.Contains(v.process.Output()[v.said:], []byte("serving /metrics"))
	})
	v.up = false
	if err := v.process.Stop(endWithin); err != nil {
		w.violate("%s does not end well on SIGTERM: %v", v.process.Name, err)
		v.process.Kill()
	}
}

// alive finds out whether a process has ended that nobody ended.
func (w *world) alive(v *victim) {
	if !v.up {
		return
	}
	select {
	case <-v.process.Done():
		w.violate("%s ended by itself: %v", v.process.Name, v.process.Err())
		w.start(v)
	default:
	}
}

// malformed are records that are not events.
var malformed = []string{"", "no event", "[1]", `{"user_id":7,"event_time":"2019-`, `{"event_time":"2019-11-01T00:00:00Z"}`, `{"user_id":{},"event_time":1572566400000}`, `{"user_id":7}`}

// sendMalformed mixes records that are not events into the load, until ctx ends.
func (w *world) sendMalformed(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		<-tick.C
		if w.hushed.Load() {
			continue
		}
		r := &kgo.Record{Topic: w.names.Activity, Partition: int32(i % partitions), Value: []byte(malformed[i%len(malformed)])}
		w.client.Produce(context.WithoutCancel(ctx), r, func(_ *kgo.Record, err error) {
			if err != nil {
				w.t.Errorf("send a malformed record: %v", err)
			}
		})
	}
	if err := w.client.Flush(context.WithoutCancel(ctx)); err != nil {
		w.t.Errorf("send malformed records: %v", err)
	}
}

// progress is how far the pipeline is.
type progress struct {
	routers, detectors, alerters int64 // what they have not read
	open                         bool  // a transaction has written to the side topics and has not ended there: committing is not done at once
	stored                       store.Counts
	ends                         string // of the topics between
}

func (p progress) String() string {
	return fmt.Sprintf("lag of routers %d, of detectors %d, of alerters %d; stored %+v; ends %s", p.routers, p.detectors, p.alerters, p.stored, p.ends)
}

// settle waits until done, or until nothing has moved for too long, which must not be.
func (w *world) settle(what string, done func(progress) bool) {
	var was progress
	moved := time.Now()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		now, err := w.progress()
		switch {
		case err == nil && done(now):
			return
		case err == nil && now != was:
			was, moved = now, time.Now()
		case time.Since(moved) > w.setup.Patience:
			w.stuck = w.stuck || err != nil || was.routers > 0 || was.detectors > 0 || was.alerters > 0 || was.open
			w.logTransactions()
			w.violate("nothing has moved for %v, and it does not hold that %s: %v (%v)", w.setup.Patience, what, was, err)
			return
		}
	}
}

func (w *world) progress() (p progress, err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
	defer cancel()
	adm := kadm.NewClient(w.client)
	lags, err := adm.Lag(ctx, w.names.RouterGroup, w.names.AlerterGroup)
	if err == nil {
		err = lags.Error()
	}
	if err != nil {
		return p, fmt.Errorf("lag: %w", err)
	}
	p.routers, p.alerters = lags[w.names.RouterGroup].Lag.Total(), lags[w.names.AlerterGroup].Lag.Total()
	topics := []string{w.names.Keyed, w.names.Alerts, w.names.Late, w.names.DLQ}
	ends, err := adm.ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return p, fmt.Errorf("end offsets: %w", err)
	}
	stable, err := adm.ListCommittedOffsets(ctx, topics...)
	if err == nil {
		err = stable.Error()
	}
	if err != nil {
		return p, fmt.Errorf("last stable offsets: %w", err)
	}
	told, err := adm.FetchOffsets(ctx, w.names.DetectorGroup)
	if err != nil {
		return p, fmt.Errorf("offsets of the detectors: %w", err)
	}
	var said []string
	for _, o := range ends.Offsets().Sorted() {
		if o.Topic == w.names.Keyed && o.At > 0 {
			var next int64
			if c, ok := told.Lookup(o.Topic, o.Partition); ok {
				if next, err = harness.ParsePosition(c); err != nil {
					return p, fmt.Errorf("position of partition %d: %w", o.Partition, err)
				}
			}
			p.detectors += max(0, o.At-1-next) // the last record is the end of a transaction
		}
		said = append(said, fmt.Sprintf("%s/%d %d", o.Topic, o.Partition, o.At))
		if s, ok := stable.Lookup(o.Topic, o.Partition); o.Topic == w.names.Late || o.Topic == w.names.DLQ {
			p.open = p.open || !ok || s.Offset < o.At
		}
	}
	p.ends = strings.Join(said, ", ")
	if p.stored, err = w.store.Count(ctx); err != nil {
		return p, fmt.Errorf("count what is stored: %w", err)
	}
	return p, nil
}

// logTransactions tells what holds readers back.
func (w *world) logTransactions() {
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	adm := kadm.NewClient(w.client)
	transactions, err := adm.DescribeTransactions(ctx)
	if err != nil {
		w.t.Logf("transactions: %v", err)
	}
	for _, x := range transactions.Sorted() {
		w.t.Logf("transaction %s: %s, producer %d epoch %d, since %v, open in %v", x.TxnID, x.State, x.ProducerID, x.ProducerEpoch, time.UnixMilli(x.StartTimestamp).UTC(), x.Topics)
	}
	topics, err := adm.DescribeProducers(ctx, kadm.TopicsSet{w.names.Keyed: nil, w.names.Late: nil, w.names.DLQ: nil, "__consumer_offsets": nil})
	if err != nil {
		w.t.Logf("producers: %v", err)
	}
	for _, topic := range topics {
		for _, p := range topic.Partitions {
			for _, x := range p.ActiveProducers {
				if x.CurrentTxnStartOffset >= 0 {
					w.t.Logf("%s/%d is open from %d: producer %d epoch %d", x.Topic, x.Partition, x.CurrentTxnStartOffset, x.ProducerID, x.ProducerEpoch)
				}
			}
		}
	}
}

// keep keeps what the processes and the broker said.
func (w *world) keep() {
	dir, err := os.MkdirTemp("", fmt.Sprintf("spate-chaos-%s-%d-", w.setup.Broker, w.setup.Seed))
	if err != nil {
		w.t.Error(err)
		return
	}
	for _, v := range w.victims {
		if v.process != nil {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, v.process.Name+".log"), v.process.Output(), 0o600))
		}
	}
	logs, _ := filepath.Glob(filepath.Join(w.broker.Dir, "broker.log*")) // the pattern is well formed
	for _, log := range logs {
		said, rerr := os.ReadFile(log)
		err = errors.Join(err, rerr, os.WriteFile(filepath.Join(dir, filepath.Base(log)), said, 0o600))
	}
	w.t.Logf("all logs are kept in %s (%v)", dir, err)
}

// end ends everything as an operator does.
func (w *world) end() {
	var all sync.WaitGroup
	for _, v := range w.victims {
		if v.process == nil || !v.up {
			continue
		}
		w.alive(v)
		all.Go(func() { w.stop(v) })
	}
	all.Wait()
}
