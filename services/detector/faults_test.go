package detector_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"spate/services/detector"
	"spate/shared/activity"
	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/window"
	"spate/shared/window/windowtest"
	"spate/tests/harness"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// faulty is a bed whose broker a test can make fail.
func faulty(t *testing.T) (*bed, *kfake.Cluster) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	b := &bed{t: t, cfg: kafka.Config{Brokers: c.ListenAddrs()}, layout: kafka.Layout{Names: kafka.NamesFor(kafka.DefaultTopic), Partitions: partitions}, sums: window.NewCombiner(windowtest.Stream(10*time.Second, 0, 5))}
	b.connect()
	b.topics()
	return b, c
}

// burst is a window of a user.
type burst struct {
	user   string
	second int64
}

// traffic writes batches in which users come and go, and knows what the closed alerts must say.
type traffic struct {
	b    *bed
	now  int64 // second of event time
	want map[burst]int64
}

func (tr *traffic) batch() {
	for k := range int64(5) {
		user := fmt.Sprint(tr.now*k%11 + 1)
		tr.b.events(user, tr.now, int(1+k%3))
		tr.want[burst{user, tr.now / 10 * 10}] += 1 + k%3
	}
	tr.b.batch(tr.now*1000 - 10_000)
	tr.now++
}

// check ends time, and compares the alerts with what must be told. told is how often each was, if not once.
func (tr *traffic) check(again bool) {
	b := tr.b
	b.t.Helper()
	b.batch(window.EndOfTime)
	want := maps.Clone(tr.want)
	maps.DeleteFunc(want, func(_ burst, n int64) bool { return n <= 5 })
	got, opened := map[burst]int64{}, map[string]alert.Record{}
	b.settled()
	for _, a := range b.alerts(2 * len(want)) {
		k := burst{string(a.UserID), a.WindowStart.Unix()}
		if a.State == alert.Opened {
			if was, twice := opened[a.ID]; twice {
				if d := cmp.Diff(was, a); d != "" || !again {
					b.t.Errorf("opened twice: %s", d)
				}
			}
			opened[a.ID] = a
			continue
		}
		if n, twice := got[k]; twice && (n != a.Count || !again) {
			b.t.Errorf("%v closed twice, with %d and %d", k, n, a.Count)
		}
		got[k] = a.Count
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(burst{})); d != "" {
		b.t.Errorf("closed (-want +got): %s", d)
	}
	if len(opened) != len(want) {
		b.t.Errorf("%d opened, %d closed", len(opened), len(want))
	}
}

// TestRequestsFail: whatever request of a detector fails, and how, the alerts are those of the log.
func TestRequestsFail(t *testing.T) {
	for _, c := range []struct {
		key    kmsg.Key
		errors []*kerr.Error
	}{
		{kmsg.OffsetCommit, []*kerr.Error{kerr.UnknownServerError, kerr.IllegalGeneration, kerr.RequestTimedOut, kerr.OffsetMetadataTooLarge}},
		{kmsg.Produce, []*kerr.Error{kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.UnknownServerError, kerr.MessageTooLarge}},
		{kmsg.Heartbeat, []*kerr.Error{kerr.UnknownMemberID, kerr.RebalanceInProgress}},
		{kmsg.Fetch, []*kerr.Error{kerr.UnknownServerError}},
	} {
		for _, e := range c.errors {
			t.Run(fmt.Sprintf("%s %s", c.key.Name(), e.Message), func(t *testing.T) {
				b, cluster := faulty(t)
				tr := &traffic{b: b, want: map[burst]int64{}}
				b.start()
				tr.batch()
				b.settled()
				fault := kfake.Fault{Keys: []kmsg.Key{c.key}, TopLevel: c.key == kmsg.Heartbeat, Err: e, Count: 2}
				if c.key == kmsg.Produce {
					fault.Topic = b.layout.Names.Alerts // the test's own batches are left alone
				}
				f := cluster.Fault(fault)
				defer f.Remove()
				b.eventually("the requests fail", func() bool { tr.batch(); return f.Hits() >= 2 })
				for range 30 {
					tr.batch()
				}
				tr.check(true)
			})
		}
	}
}

// TestMembersComeAndGo: partitions change their owner while batches come. Nothing is told with different content, and nothing is missing.
func TestMembersComeAndGo(t *testing.T) {
	b, _ := faulty(t)
	tr := &traffic{b: b, want: map[burst]int64{}}
	stops := map[string]func(){}
	start := func(name string) {
		_, stop := b.start(func(c *detector.Config) { c.Address = name + ":1" })
		stops[name] = stop
	}
	start("a")
	for _, step := range []string{"+b", "-a", "+a", "-b"} {
		for range 15 {
			tr.batch()
		}
		b.settled()
		if name := step[1:]; step[0] == '+' {
			start(name)
		} else {
			stops[name]()
		}
	}
	tr.check(true)
}

// TestLagIsOfItsOwnPartitions: a partition that another detector has taken over has no lag here, for it would stand for good.
func TestLagIsOfItsOwnPartitions(t *testing.T) {
	b := newBed(t)
	regs := []*prometheus.Registry{prometheus.NewRegistry(), prometheus.NewRegistry()}
	lags := func() (n [2]int) {
		for i, reg := range regs {
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				if f.GetName() == "spate_detector_lag_batches" {
					n[i] = len(f.GetMetric())
				}
			}
		}
		return n
	}
	b.start(func(c *detector.Config) { c.Registry = regs[0] })
	b.eventually("the first has both", func() bool { return lags() == [2]int{2, 0} })
	b.start(func(c *detector.Config) { c.Registry, c.Status = regs[1], &ops.Status{} })
	b.eventually("each has one", func() bool { return lags() == [2]int{1, 1} })
}

// TestStoppedInOrderTellsNothingTwice: a detector that is asked to end commits what it told, and the next one is silent about it.
func TestStoppedInOrderTellsNothingTwice(t *testing.T) {
	b, _ := faulty(t)
	tr := &traffic{b: b, want: map[burst]int64{}}
	for range 4 {
		_, stop := b.start()
		for range 12 {
			tr.batch()
		}
		b.settled()
		stop()
	}
	b.start()
	tr.check(false)
}

// TestPositionNeverGoesBack: what is committed moves forward, in offset, in what is told, and in time, also over restarts.
func TestPositionNeverGoesBack(t *testing.T) {
	b, cluster := faulty(t)
	var mu sync.Mutex
	last := map[int32]window.Position{}
	commits := 0
	cluster.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		for _, topic := range r.(*kmsg.OffsetCommitRequest).Topics {
			for _, p := range topic.Partitions {
				if p.Metadata == nil {
					t.Errorf("partition %d: a commit without its state", p.Partition)
					continue
				}
				pos, err := window.ParsePosition(p.Offset, *p.Metadata)
				was := last[p.Partition]
				if err != nil || pos.Replay < was.Replay || pos.Next < was.Next || len(was.Watermarks) > 0 && pos.Watermark() < was.Watermark() || pos.Replay > pos.Next {
					t.Errorf("partition %d: from %+v to %+v, %v", p.Partition, was, pos, err)
				}
				last[p.Partition] = pos
				commits++
			}
		}
		return nil, nil, false
	})
	tr := &traffic{b: b, want: map[burst]int64{}}
	for range 3 {
		_, stop := b.start()
		for range 25 {
			tr.batch()
		}
		b.settled()
		stop()
	}
	mu.Lock()
	defer mu.Unlock()
	for p := range int32(partitions) {
		pos := last[p]
		// Windows of the last 20 s are open: what is read again begins with them, and with none before.
		if pos.Next-pos.Replay > 22 || pos.Next < 75 {
			t.Errorf("partition %d: %+v", p, pos)
		}
	}
	if commits < 6 {
		t.Errorf("%d commits", commits)
	}
}

// TestAsk: whoever asks finds the owner of a user through the group, by the user as a person writes it.
func TestAsk(t *testing.T) {
	b, _ := faulty(t)
	defer http.DefaultClient.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	serve := func(name string) func() {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		d, stop := b.start(func(c *detector.Config) { c.Address, c.Registry = ln.Addr().String(), prometheus.NewRegistry() })
		mux := http.NewServeMux()
		for pattern, h := range d.Handlers() {
			mux.Handle(pattern, h)
		}
		srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
		done := make(chan error, 1)
		go func() { done <- srv.Serve(ln) }()
		t.Cleanup(func() {
			srv.Close()
			if err := <-done; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		})
		return stop
	}
	users := map[string]int{`7`: 1, `"7"`: 2, `"a/b"`: 3, `".."`: 4, `"ü %2F?#"`: 5, `"q\"\\"`: 6, `"8"`: 7, `-1.5e3`: 8}
	for _, u := range slices.Sorted(maps.Keys(users)) {
		b.events(u, 1, users[u])
	}
	b.batch(-9_000)
	serve("one")
	b.settled()
	ask := func() {
		t.Helper()
		for id, want := range map[string][]int{
			"7": {1, 2}, "a/b": {3}, "..": {4}, "ü %2F?#": {5}, `q"\`: {6}, "8": {0, 7}, "-1.5e3": {8, 0}, "nobody": {0}, "": {0}, "123": {0, 0},
		} {
			got, err := detector.Ask(ctx, b.cfg, b.layout.Names, ops.Asker{}, activity.UserToken(id)...)
			if err != nil {
				t.Errorf("%q: %v", id, err)
				continue
			}
			var counts []int
			for _, u := range got {
				n := 0
				for _, w := range u.Windows {
					n += int(w.Count)
				}
				counts = append(counts, n)
			}
			if d := cmp.Diff(want, counts); d != "" {
				t.Errorf("%q: (-want +got): %s", id, d)
			}
		}
	}
	ask()
	// Two detectors: each answers for what it owns, whoever asks need not know.
	stop := serve("two")
	b.eventually("they share", func() bool {
		g, err := b.adm.DescribeGroups(ctx, b.layout.Names.DetectorGroup)
		if err != nil {
			return false
		}
		n := 0
		for _, m := range g[b.layout.Names.DetectorGroup].Members {
			if as, ok := m.Assigned.AsConsumer(); ok && len(as.Topics) == 1 && len(as.Topics[0].Partitions) == 1 {
				n++
			}
		}
		return n == 2
	})
	ask()
	stop()
	ask() // it waits for the rebalance

	if _, err := detector.Ask(ctx, b.cfg, kafka.NamesFor("elsewhere"), ops.Asker{}, "7"); err == nil || errors.Is(err, detector.ErrNotOwner) {
		t.Errorf("of a pipeline that is not there: %v", err)
	}
}

// TestWellFormedLies: sums that no router can have written, and of which no alert can be made, do not stop the others.
func TestWellFormedLies(t *testing.T) {
	b, _ := faulty(t)
	d, _ := b.start()
	_ = d
	lie := func(user string, start int64, ranges int32) {
		c := window.NewCombiner(windowtest.Stream(10*time.Second, 0, 5))
		for range 7 {
			for p := range ranges {
				windowtest.Add(c, []byte(user), start+1, p, 1)
			}
		}
		c.Flush(1, func([]byte) int32 { return 0 }, window.Header{Sources: 1}, func(_ int32, v []byte) {
			for p := range int32(partitions) {
				b.write(b.layout.Names.Keyed, p, "", slices.Clone(v))
			}
		})
	}
	lie("}{", 0, 1)
	lie("7", 1_000_000_000_000_000_000, 1) // not a year that can be written
	lie("7", -70_000_000_000_000, 1)
	lie(`"wide"`, 0, 60) // of source partitions that there are not
	b.events("7", 3, 8)
	b.batch(9_999)
	got := b.alerts(2)
	if d := cmp.Diff([]string{"7 00:00:00 closed 8 warning", "7 00:00:00 opened 8 warning"}, brief(got)); d != "" {
		t.Error(d)
	}
}

// TestForeignOffsets: what another program committed under the group's name is not taken for a position. From there, windows would be counted
// from their middle; so the keyed log is read from its start.
func TestForeignOffsets(t *testing.T) {
	b, _ := faulty(t)
	cl, err := kgo.NewClient(b.cfg.Options(kgo.ConsumerGroup(b.layout.Names.DetectorGroup), kgo.ConsumeTopics(b.layout.Names.Keyed), kgo.DisableAutoCommit())...)
	if err != nil {
		t.Fatal(err)
	}
	b.events("7", 3, 4)
	b.batch(0)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cl.PollFetches(ctx)
	err = cl.CommitUncommittedOffsets(kgo.PreCommitFnContext(ctx, func(r *kmsg.OffsetCommitRequest) error {
		for i := range r.Topics {
			for j := range r.Topics[i].Partitions {
				r.Topics[i].Partitions[j].Metadata = kmsg.StringPtr("somebody was here")
			}
		}
		return nil
	}))
	cl.Close()
	if err != nil {
		t.Fatal(err)
	}
	b.start()
	b.events("7", 4, 4)
	b.batch(9_999)
	if got := b.alerts(2); got[1].State != alert.Closed || got[1].Count != 8 {
		t.Errorf("%q", brief(got))
	}
}

// TestAsManyWindowsAsMayBe: at the limit the detector stops reading and says so; what waits in the log is not lost.
func TestAsManyWindowsAsMayBe(t *testing.T) {
	b, _ := faulty(t)
	small := func(n *detector.Counts) func(*detector.Config) {
		return func(c *detector.Config) { c.MaxOpenWindows, c.Counts = 40, n }
	}
	crowd := func(window int64, events int, mark int64) {
		for i := range 30 {
			b.events(fmt.Sprint(window*100+int64(i)), window*10, events)
		}
		b.batch(mark)
	}
	// Windows that close make room: 30 at a time are open, sixty in the meantime.
	var first detector.Counts
	_, stop := b.start(small(&first))
	for w := range int64(10) {
		crowd(w, 1, w*10_000-1)
	}
	b.settled()
	// Nothing closes any more.
	for range 3 {
		crowd(10, 3, 99_999)
		crowd(11, 3, 99_999)
	}
	b.eventually("the detector says that it is full", func() bool {
		ready, why := b.status.Get()
		return !ready && strings.Contains(why, "SPATE_MAX_OPEN_WINDOWS")
	})
	for i := range int64(20) {
		crowd(12+i, 1, 99_999)
		b.events("7000000", 100, 6)
		b.batch(99_999)
	}
	stop()
	read := first.Batches.Load()
	if all := int64(partitions * (10 + 6 + 40)); read >= all {
		t.Errorf("%d batches of %d were read by a detector that was full", read, all)
	}
	b.start()
	b.batch(window.EndOfTime)
	if got := b.alerts(2 * (60 + 1)); len(got) != 122 {
		t.Errorf("%d alerts", len(got))
	}
}

// TestKeyedLogDeletedUnread: what a detector that runs has not read yet is deleted under it. It goes on behind, and tells how much is gone.
func TestKeyedLogDeletedUnread(t *testing.T) {
	b := newBed(t)
	reg := prometheus.NewRegistry()
	b.start(func(c *detector.Config) { c.Registry = reg })
	b.events(`5`, 3, 6)
	b.batch(2000)
	b.alerts(1)
	stuck := b.broker.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.NotLeaderForPartition, Count: -1})
	for range 3 {
		b.events(`5`, 4, 6)
		b.batch(2000)
	}
	var gone float64
	o := make(kadm.Offsets)
	ends, err := b.adm.ListEndOffsets(t.Context(), b.layout.Names.Keyed)
	if err != nil {
		t.Fatal(err)
	}
	ends.Each(func(e kadm.ListedOffset) {
		o.AddOffset(e.Topic, e.Partition, e.Offset, -1)
		gone += float64(e.Offset - 1)
	})
	if r, err := b.adm.DeleteRecords(t.Context(), o); err != nil || r.Error() != nil {
		t.Fatal(err, r.Error())
	}
	stuck.Remove()
	b.eventually("it tells of it where nothing follows", func() bool { return harness.Gathered(t, reg, "spate_detector_lost_batches_total") == gone })
	b.events(`7`, 5, 6)
	b.batch(60_000)
	if got := brief(b.alerts(4)); !slices.Contains(got, "7 00:00:00 closed 6 warning") || !slices.Contains(got, "5 00:00:00 closed 6 warning") {
		t.Errorf("%q", got)
	}
	if n := harness.Gathered(t, reg, "spate_detector_lost_batches_total"); n != gone {
		t.Errorf("%v lost, want %v", n, gone)
	}
}

// TestAbortWithoutAMark: a broker that was killed has aborted the transaction that was open, and the keyed log ends with it. A detector is at the
// end of the log then, although no client says so.
func TestAbortWithoutAMark(t *testing.T) {
	dir, killed := t.TempDir(), t.TempDir()
	cluster := func(dir string) *kfake.Cluster {
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir), kfake.SyncWrites())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	before := newBedOn(t, cluster(dir))
	cl, err := kgo.NewClient(before.cfg.Options(kgo.TransactionalID("router"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: before.layout.Names.Keyed, Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil { // as a kill -9 leaves it
		t.Fatal(err)
	}
	b := newBedOn(t, cluster(killed))
	reg := prometheus.NewRegistry()
	b.start(func(c *detector.Config) { c.Registry = reg })
	b.eventually("it is behind", func() bool { return harness.Gathered(t, reg, "spate_detector_lag_batches") == 1 })
	b.eventually("it is at the end", func() bool {
		ready, _ := b.status.Get()
		return ready && harness.Gathered(t, reg, "spate_detector_lag_batches") == 0
	})
}
