package alerter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"spate/services/alerter/deliver"
	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/notify"
	"spate/shared/ops"
	"spate/shared/store"
	"spate/shared/store/sqlite"
	"spate/shared/store/storetest"
	"spate/shared/testport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 2

// bed is a broker, a database and the alerters of one test.
type bed struct {
	t       *testing.T
	cluster *kfake.Cluster
	addrs   []string // of the cluster, also while it is down
	cl      *kgo.Client
	store   store.Store
	names   kafka.Names
}

func newBed(t *testing.T, opts ...kfake.Opt) *bed {
	t.Helper()
	b := &bed{t: t, names: kafka.NamesFor(kafka.DefaultTopic)}
	var err error
	if b.cluster, err = kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.cluster.Close() })
	b.addrs = b.cluster.ListenAddrs()
	if b.cl, err = kgo.NewClient(kgo.SeedBrokers(b.addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.cl.Close)
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "alerts.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	b.store = db
	return b
}

func (b *bed) layout() kafka.Layout {
	return kafka.Layout{Names: b.names, Partitions: partitions, Replication: 1}
}

// topics makes the topics, so that the test can write before an alerter runs.
func (b *bed) topics() {
	b.t.Helper()
	if _, err := b.layout().Ensure(b.t.Context(), kadm.NewClient(b.cl)); err != nil {
		b.t.Fatal(err)
	}
}

// produce writes records to one partition; what is not an alert goes as it is.
func (b *bed) produce(partition int32, values ...any) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	var records []*kgo.Record
	for _, v := range values {
		var value []byte
		switch v := v.(type) {
		case []byte:
			value = v
		case alert.Record:
			var err error
			if value, err = v.Encode(); err != nil {
				b.t.Fatal(err)
			}
		}
		records = append(records, &kgo.Record{Topic: b.names.Alerts, Partition: partition, Value: value})
	}
	if err := b.cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// committed returns the sum of the group's offsets.
func (b *bed) committed() (sum int64) {
	if g := b.cluster.GroupInfo(b.names.AlerterGroup); g != nil {
		for _, c := range g.Commits[b.names.Alerts] {
			sum += c.Offset
		}
	}
	return sum
}

func (b *bed) count() store.Counts {
	b.t.Helper()
	c, err := b.store.Count(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// life is one run of an alerter.
type life struct {
	bed    *bed
	status *ops.Status
	reg    *prometheus.Registry
	stop   func() // ends it and waits

	mu      sync.Mutex
	printed []alert.Record
	log     strings.Builder
}

func (l *life) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(p)
}

func (l *life) logged() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.String()
}

// start runs an alerter; change may change its configuration.
func (b *bed) start(change ...func(*Config)) *life {
	b.t.Helper()
	l := &life{bed: b, status: &ops.Status{}, reg: prometheus.NewRegistry()}
	cfg := Config{
		Kafka: kafka.Config{Brokers: b.addrs}, Layout: b.layout(), Store: b.store,
		Print: func(r alert.Record) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.printed = append(l.printed, r)
		},
		Log: slog.New(ops.Calm(slog.NewTextHandler(l, nil), time.Now)), Registry: l.reg, Status: l.status,
	}
	for _, f := range change {
		f(&cfg)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg) }()
	l.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				b.t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			b.t.Fatal("Run does not return")
		}
		if b.t.Failed() {
			b.t.Logf("log:\n%s", l.logged())
		}
	})
	b.t.Cleanup(l.stop)
	return l
}

// wait polls until ok, or fails the test.
func (l *life) wait(what string, ok func() bool) {
	l.bed.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			l.bed.t.Fatalf("timed out: %s\nlog:\n%s", what, l.logged())
		}
		<-time.After(10 * time.Millisecond)
	}
}

// outcomes returns the counter of a state and an outcome.
func (l *life) outcomes(state, outcome string) int {
	return int(l.metric("spate_alerter_alerts_total", state, outcome))
}

func (l *life) metric(name string, labels ...string) float64 {
	l.bed.t.Helper()
	families, err := l.reg.Gather()
	if err != nil {
		l.bed.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if matches(m, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return 0
}

// matches compares label values, whose names Gather sorts: outcome, state.
func matches(m *dto.Metric, labels []string) bool {
	if len(labels) == 0 {
		return true
	}
	return m.GetLabel()[0].GetValue() == labels[1] && m.GetLabel()[1].GetValue() == labels[0]
}

// pair is an alert in both its states.
func pair(user string, n int) []any {
	return []any{storetest.Record(user, n, alert.Opened), storetest.Record(user, n, alert.Closed)}
}

func TestStoredOnceThoughTwiceInTheTopicAndOffsetsLost(t *testing.T) {
	b := newBed(t)
	b.topics()
	const n = 100
	for i := range n {
		b.produce(int32(i%partitions), pair("5", i)...)
	}
	for i := range n { // as a detector writes that starts over
		b.produce(int32(i%partitions), pair("5", i)...)
	}
	l := b.start()
	l.wait("all offsets committed", func() bool { return b.committed() == 4*n })
	ready, why := l.status.Get()
	if c := b.count(); c != (store.Counts{Closed: n}) || !ready {
		t.Errorf("counts %+v, ready %v (%s)", c, ready, why)
	}
	for state, want := range map[string]int{"opened": n, "closed": n} {
		if s, r := l.outcomes(state, outcomeStored), l.outcomes(state, outcomeRepeated); s != want || r != want {
			t.Errorf("%s: %d stored, %d repeated; want %d of both", state, s, r, want)
		}
	}
	l.wait("no lag", func() bool { return l.metric("spate_alerter_lag_records") == 0 })
	if l.metric("spate_alerter_store_seconds") == 0 {
		t.Error("no transaction was timed")
	}
	l.stop()
	if got := len(l.printed); got != 2*n {
		t.Errorf("%d printed, want %d", got, 2*n)
	}
	seen := map[string]int{}
	for _, r := range l.printed {
		if rank := r.State.Rank(); rank <= seen[r.ID] {
			t.Errorf("%s printed after rank %d", r.State, seen[r.ID])
		} else {
			seen[r.ID] = rank
		}
	}
	if g := b.cluster.GroupInfo(b.names.AlerterGroup); g == nil || len(g.Members) != 0 {
		t.Errorf("the alerter has not left its group: %+v", g)
	}

	if _, err := kadm.NewClient(b.cl).DeleteGroups(t.Context(), b.names.AlerterGroup); err != nil {
		t.Fatal(err)
	}
	if b.committed() != 0 {
		t.Fatal("the offsets are still there")
	}
	l = b.start()
	l.wait("all read again", func() bool { return b.committed() == 4*n })
	l.stop()
	if c := b.count(); c != (store.Counts{Closed: n}) || len(l.printed) != 0 || l.outcomes("closed", outcomeRepeated) != 2*n {
		t.Errorf("counts %+v, %d printed, %d repeated", c, len(l.printed), l.outcomes("closed", outcomeRepeated))
	}
}

func TestRestartGoesOnAtTheOffset(t *testing.T) {
	b := newBed(t)
	b.topics()
	b.produce(0, pair("5", 0)...)
	l := b.start()
	l.wait("committed", func() bool { return b.committed() == 2 })
	l.stop()
	b.produce(1, pair("5", 1)...)
	l = b.start()
	l.wait("committed", func() bool { return b.committed() == 4 })
	l.stop()
	if got := len(l.printed); got != 2 || l.outcomes("closed", outcomeRepeated) != 0 {
		t.Errorf("%d printed, %d repeated", got, l.outcomes("closed", outcomeRepeated))
	}
}

// TestDeletedUnread: records are deleted before they are read, under an alerter that runs, and before one starts.
func TestDeletedUnread(t *testing.T) {
	b := newBed(t)
	b.topics()
	adm := kadm.NewClient(b.cl)
	gone := func(to int64) {
		t.Helper()
		var o kadm.Offsets
		o.AddOffset(b.names.Alerts, 0, to, -1)
		if r, err := adm.DeleteRecords(t.Context(), o); err != nil || r.Error() != nil {
			t.Fatal(err, r.Error())
		}
	}
	b.produce(0, pair("5", 1)...)
	l := b.start()
	l.wait("both are stored", func() bool { return b.committed() == 2 })
	stuck := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.NotLeaderForPartition, Count: -1})
	b.produce(0, pair("5", 2)...)
	gone(4)
	stuck.Remove()
	l.wait("it tells of it where nothing follows", func() bool { return l.outcomes("", outcomeDeleted) == 2 })
	b.produce(0, pair("5", 3)...)
	l.wait("it goes on", func() bool { return b.committed() == 6 })
	l.stop()
	b.produce(0, append(pair("5", 4), pair("5", 5)...)...)
	gone(9)
	l = b.start()
	l.wait("it goes on behind", func() bool { return b.committed() == 10 })
	if n := l.outcomes("", outcomeDeleted); n != 3 {
		t.Errorf("%d deleted", n)
	}
	if c := b.count(); c != (store.Counts{Closed: 3}) {
		t.Errorf("%+v", c)
	}
}

func TestPoisonIsPassedOver(t *testing.T) {
	b := newBed(t)
	b.topics()
	other := storetest.Record("5", 0, alert.Closed)
	other.Count = 777 // right in itself, but not what is stored: the first one counts
	odd := storetest.Record("6", 0, alert.Opened)
	odd.Rule = ""
	b.produce(0, []byte("{"), []byte(nil), storetest.Record("5", 0, alert.Closed), other, odd, storetest.Record("7", 0, alert.Opened))
	var mu sync.Mutex
	var told, changed int
	l := b.start(func(c *Config) {
		c.OnStored = func(r []alert.Record, ch []bool) {
			mu.Lock()
			defer mu.Unlock()
			told += len(r)
			for _, c := range ch {
				if c {
					changed++
				}
			}
		}
	})
	l.wait("committed", func() bool { return b.committed() == 6 })
	if c := b.count(); c != (store.Counts{Opened: 1, Closed: 1}) {
		t.Errorf("counts %+v", c)
	}
	for _, c := range []struct {
		state, outcome string
		want           int
	}{{"", outcomeMalformed, 3}, {"closed", outcomeConflict, 1}, {"closed", outcomeStored, 1}, {"opened", outcomeStored, 1}} {
		if got := l.outcomes(c.state, c.outcome); got != c.want {
			t.Errorf("%s %s: %d, want %d", c.state, c.outcome, got, c.want)
		}
	}
	l.stop()
	if told != 3 || changed != 2 {
		t.Errorf("OnStored: %d records, %d changes", told, changed)
	}
	for _, part := range []string{"skipping a malformed alert record\" topic=" + b.names.Alerts + " partition=0 offset=", "skipping an alert record that conflicts with the stored alert\" topic=" + b.names.Alerts + " partition=0 offset=3 id=" + other.ID, "777"} {
		if !strings.Contains(l.logged(), part) {
			t.Errorf("the log does not have %q:\n%s", part, l.logged())
		}
	}
	a, err := b.store.Alert(t.Context(), other.ID)
	if err != nil || a.Count != 9 {
		t.Errorf("the conflict has changed the alert: %+v, %v", a, err)
	}
}

// TestClosedBeforeItsTime: a closed alert of a window that has not ended is a forged one, and would take the place of the true one.
func TestClosedBeforeItsTime(t *testing.T) {
	b := newBed(t)
	b.topics()
	forged := storetest.Record(`"bot"`, 3, alert.Closed)
	by := time.Now().Add(time.Hour).Truncate(time.Minute).UTC().Sub(forged.WindowStart)
	for _, at := range []*time.Time{&forged.WindowStart, &forged.WindowEnd, &forged.FirstEventAt, &forged.LastEventAt} {
		*at = at.Add(by)
	}
	forged.ID = alert.ID(forged.Rule, string(forged.UserID), forged.WindowStart.UnixMilli(), forged.WindowEnd.Sub(forged.WindowStart).Milliseconds())
	b.produce(0, forged, storetest.Record(`"honest"`, 3, alert.Closed))
	l := b.start(func(*Config) {})
	l.wait("committed", func() bool { return b.committed() == 2 })
	l.stop()
	if got := l.outcomes("", outcomeMalformed); got != 1 || b.count() != (store.Counts{Closed: 1}) {
		t.Errorf("%d malformed, %+v stored", got, b.count())
	}
}

// TestForgedRecordsTakeNoPlace: what others write to the topic under ids that are none, or that are another alert's, is neither stored
// nor told, and the alert whose id was taken comes all the same. A thousand of them are a line a second.
func TestForgedRecordsTakeNoPlace(t *testing.T) {
	b := newBed(t)
	b.topics()
	const n = 1000
	bot := storetest.Record(`"bot"`, 3, alert.Closed)
	var forged []any
	for i := range n {
		r := storetest.Record(`"innocent"`, 3, alert.Closed)
		if r.ID = bot.ID; i%2 == 0 {
			r.ID = fmt.Sprintf("po ison%d", i)
		}
		forged = append(forged, r)
	}
	var h receiver
	began := time.Now()
	b.produce(0, forged...)
	b.produce(0, bot)
	l := b.start(func(c *Config) { c.Endpoints = []deliver.Endpoint{h.endpoint()} })
	l.wait("committed", func() bool { return b.committed() == n+1 })
	l.wait("a message", func() bool { return len(h.got()) > 0 })
	l.stop()
	lines := strings.Count(l.logged(), "skipping a malformed alert record")
	if most := 1 + int(time.Since(began)/time.Second); lines < 1 || lines > most {
		t.Errorf("%d lines in the log, want 1 to %d", lines, most)
	}
	if got := l.outcomes("", outcomeMalformed); got != n || b.count() != (store.Counts{Closed: 1}) {
		t.Errorf("%d malformed, %+v stored", got, b.count())
	}
	if calls := h.got(); len(calls) != 1 || calls[0].ID != notify.IDOf(bot) {
		t.Errorf("calls %+v", calls)
	}
	a, err := b.store.Alert(t.Context(), bot.ID)
	if err != nil || string(a.UserID) != `"bot"` {
		t.Errorf("%+v, %v", a, err)
	}
}

// faulty fails as often as it is told to, before or after the transaction.
type faulty struct {
	store.Store
	mu    sync.Mutex
	fails int // left; negative is for ever
	calls int
	seen  func() // at each call
}

var errFault = errors.New("injected fault")

func (f *faulty) Apply(ctx context.Context, now time.Time, records []alert.Record, to ...notify.Endpoint) (store.Applied, error) {
	f.mu.Lock()
	f.calls++
	fail, late := f.fails != 0, f.calls%2 == 0
	if f.fails > 0 {
		f.fails--
	}
	f.mu.Unlock()
	f.seen()
	if fail && !late {
		return store.Applied{}, errFault
	}
	got, err := f.Store.Apply(ctx, now, records, to...)
	if err == nil && fail { // stored, but the answer is lost
		return store.Applied{}, errFault
	}
	return got, err
}

func (f *faulty) called() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func TestFailingStoreLosesNothing(t *testing.T) {
	b := newBed(t)
	b.topics()
	const n = 50
	for i := range n {
		b.produce(int32(i%partitions), pair("5", i)...)
	}
	var early, notReady int
	var l *life
	started := make(chan struct{})
	f := &faulty{Store: b.store, fails: 4}
	f.seen = func() { // calls do not overlap
		<-started
		if f.calls <= 5 && b.committed() > 0 {
			early++
		}
		if ready, why := l.status.Get(); !ready && strings.Contains(why, errFault.Error()) {
			notReady++
		}
	}
	l = b.start(func(c *Config) { c.Store = f })
	close(started)
	l.wait("committed", func() bool { return b.committed() == 2*n })
	l.wait("ready", func() bool { ready, _ := l.status.Get(); return ready })
	l.stop()
	if early > 0 {
		t.Errorf("offsets were committed before the store had the alerts, %d times", early)
	}
	if notReady != 4 {
		t.Errorf("not ready for %d of 4 tries after a fault", notReady)
	}
	if c := b.count(); c != (store.Counts{Closed: n}) {
		t.Errorf("counts %+v", c)
	}
	if got := l.metric("spate_alerter_store_errors_total"); got != 4 {
		t.Errorf("%v errors counted, want 4", got)
	}
}

func TestStopWhileTheStoreFails(t *testing.T) {
	b := newBed(t)
	b.topics()
	b.produce(0, pair("5", 0)...)
	f := &faulty{Store: b.store, fails: -1, seen: func() {}}
	l := b.start(func(c *Config) { c.Store = f })
	l.wait("tried", func() bool { return f.called() >= 3 })
	l.stop() // within its deadline
	if b.committed() != 0 {
		t.Errorf("offset %d committed", b.committed())
	}
}

// hanging never answers, as a database behind a broken network.
type hanging struct {
	store.Store
	once    sync.Once
	entered chan struct{}
}

func (h *hanging) Apply(ctx context.Context, _ time.Time, _ []alert.Record, _ ...notify.Endpoint) (store.Applied, error) {
	h.once.Do(func() { close(h.entered) })
	<-ctx.Done()
	return store.Applied{}, ctx.Err()
}

func TestStopWhileTheStoreHangs(t *testing.T) {
	b := newBed(t)
	b.topics()
	b.produce(0, pair("5", 0)...)
	h := &hanging{Store: b.store, entered: make(chan struct{})}
	l := b.start(func(c *Config) { c.Store = h })
	<-h.entered
	l.stop() // within its deadline
	if b.committed() != 0 {
		t.Errorf("offset %d committed", b.committed())
	}
}

// A batch that is being stored when the stop comes is finished: stored, committed, printed.
func TestStopFinishesTheBatch(t *testing.T) {
	b := newBed(t)
	b.topics()
	b.produce(0, pair("5", 0)...)
	entered, release := make(chan struct{}), make(chan struct{})
	f := &faulty{Store: b.store, seen: func() { close(entered); <-release }}
	ctx, cancel := context.WithCancel(t.Context())
	l := &life{bed: b}
	done := make(chan error, 1)
	var printed int
	go func() {
		done <- Run(ctx, Config{Kafka: kafka.Config{Brokers: b.addrs}, Layout: b.layout(), Store: f,
			Registry: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(l, nil)), Print: func(alert.Record) { printed++ }})
	}()
	<-entered
	cancel()
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if b.committed() != 2 || printed != 2 || b.count() != (store.Counts{Closed: 1}) {
		t.Errorf("committed %d, printed %d, %+v\n%s", b.committed(), printed, b.count(), l.logged())
	}
}

func TestTwoAlertersShareTheTopic(t *testing.T) {
	b := newBed(t)
	b.topics()
	const n = 60
	first := b.start()
	b.produce(0, pair("5", 0)...)
	first.wait("first alert", func() bool { return b.committed() == 2 })
	second := b.start()
	for i := 1; i < n; i++ { // while the group rebalances
		b.produce(int32(i%partitions), pair("5", i)...)
	}
	if _, err := b.cluster.WaitGroupStable(t.Context(), b.names.AlerterGroup, 2); err != nil {
		t.Fatal(err)
	}
	second.wait("second is ready", func() bool { ready, _ := second.status.Get(); return ready })
	first.stop()
	b.produce(0, pair("6", 0)...)
	b.produce(1, pair("6", 1)...)
	second.wait("committed", func() bool { return b.committed() == 2*(n+2) })
	second.stop()
	if got := len(first.printed) + len(second.printed); got != 2*(n+2) || b.count() != (store.Counts{Closed: n + 2}) {
		t.Errorf("%d printed, %+v", got, b.count())
	}
}

func TestBrokerAwayAtStartAndAgainLater(t *testing.T) {
	dir := t.TempDir()
	port, release, err := testport.Hold()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	b := newBed(t, kfake.Ports(port), kfake.DataDir(dir), kfake.SyncWrites())
	b.topics()
	b.produce(0, pair("5", 0)...)
	up := func() {
		t.Helper()
		var err error
		if b.cluster, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(dir), kfake.SyncWrites()); err != nil {
			t.Fatal(err)
		}
	}
	b.cluster.Close()
	l := b.start()
	l.wait("a word about the broker", func() bool { return strings.Contains(l.logged(), "broker is not responding") })
	if ready, _ := l.status.Get(); ready {
		t.Error("ready without a broker")
	}
	up()
	l.wait("first alert", func() bool { return b.committed() == 2 })
	b.cluster.Close()
	l.wait("not ready", func() bool { ready, _ := l.status.Get(); return !ready })
	up()
	b.produce(1, pair("5", 1)...)
	l.wait("second alert", func() bool { return b.committed() == 4 })
	l.wait("ready", func() bool { ready, _ := l.status.Get(); return ready })

	b.cluster.Close()
	l.stop() // within its deadline
}

// The commit may fail, as when the group has moved on; the next one includes it.
func TestFailedCommit(t *testing.T) {
	b := newBed(t)
	b.topics()
	var mu sync.Mutex
	refused := 0
	b.cluster.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
		mu.Lock()
		defer mu.Unlock()
		b.cluster.KeepControl()
		if refused >= 1 {
			return nil, nil, false
		}
		refused++
		in := req.(*kmsg.OffsetCommitRequest)
		resp := in.ResponseKind().(*kmsg.OffsetCommitResponse)
		for _, topic := range in.Topics {
			rt := kmsg.NewOffsetCommitResponseTopic()
			rt.Topic, rt.TopicID = topic.Topic, topic.TopicID
			for _, p := range topic.Partitions {
				rp := kmsg.NewOffsetCommitResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, 12 // OFFSET_METADATA_TOO_LARGE: not retriable
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	b.produce(0, pair("5", 0)...)
	l := b.start()
	l.wait("a refused commit", func() bool { return strings.Contains(l.logged(), "offsets not committed") })
	b.produce(1, pair("5", 1)...)
	l.wait("both batches", func() bool { return b.committed() == 4 })
	l.stop()
	if len(l.printed) != 4 || b.count() != (store.Counts{Closed: 2}) {
		t.Errorf("%d printed, %+v", len(l.printed), b.count())
	}
}

func TestConfig(t *testing.T) {
	err := Run(t.Context(), Config{})
	for _, part := range []string{"brokers", "layout", "store", "registry"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not name %s", err, part)
		}
	}
}

func TestLayoutThatDoesNotFitIsAnError(t *testing.T) {
	b := newBed(t)
	b.topics()
	layout := b.layout()
	layout.Partitions = partitions + 1
	err := Run(t.Context(), Config{Kafka: kafka.Config{Brokers: b.addrs}, Layout: layout, Store: b.store, Registry: prometheus.NewRegistry()})
	if !errors.Is(err, kafka.ErrLayout) {
		t.Errorf("Run: %v", err)
	}
}
