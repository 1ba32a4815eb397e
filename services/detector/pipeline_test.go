package detector_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/detector"
	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/ops"
	"spate/shared/window"
	"spate/shared/window/windowtest"
)

const partitions = 2

// bed is a broker with the topics of a pipeline, whose keyed log the test writes.
type bed struct {
	t      *testing.T
	broker *kfake.Cluster
	cfg    kafka.Config
	layout kafka.Layout
	cl     *kgo.Client
	adm    *kadm.Client
	sums   *window.Combiner
	offset int64 // of the events, made up
	status ops.Status
}

func newBed(t *testing.T) *bed {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	return newBedOn(t, c)
}

func newBedOn(t *testing.T, c *kfake.Cluster) *bed {
	t.Helper()
	t.Cleanup(c.Close)
	b := &bed{t: t, broker: c, cfg: kafka.Config{Brokers: c.ListenAddrs()}, layout: kafka.Layout{Names: kafka.NamesFor(kafka.DefaultTopic), Partitions: partitions}, sums: window.NewCombiner(windowtest.Stream(10*time.Second, 0, 5))}
	b.connect()
	b.topics()
	return b
}

// connect takes a new client: one that knew a topic does not know the one that has its name now.
func (b *bed) connect() {
	b.t.Helper()
	cl, err := kgo.NewClient(b.cfg.Options(kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(cl.Close)
	b.cl, b.adm = cl, kadm.NewClient(cl)
}

func (b *bed) topics() {
	b.t.Helper()
	if _, err := b.layout.Ensure(b.t.Context(), b.adm); err != nil {
		b.t.Fatal(err)
	}
}

// events adds n events of a user at a second of event time to the next batch.
func (b *bed) events(user string, second int64, n int) {
	for range n {
		windowtest.Add(b.sums, []byte(user), second*1000, 0, b.offset)
		b.offset++
	}
}

// batch writes what was added, with the watermark of the only source partition.
func (b *bed) batch(watermark int64) {
	b.t.Helper()
	home := func(user []byte) int32 { return kafka.PartitionFor(user, partitions) }
	b.sums.Flush(partitions, home, window.Header{Sources: 1, Watermarks: []window.Watermark{{WatermarkMS: watermark}}}, func(p int32, value []byte) {
		b.write(b.layout.Names.Keyed, p, "", slices.Clone(value))
	})
}

func (b *bed) write(topic string, p int32, key string, value []byte) {
	b.t.Helper()
	if err := b.cl.ProduceSync(b.t.Context(), &kgo.Record{Topic: topic, Partition: p, Key: []byte(key), Value: value}).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) start(change ...func(*detector.Config)) (*detector.Detector, func()) {
	b.t.Helper()
	cfg := detector.Config{Kafka: b.cfg, Layout: b.layout, Window: 10 * time.Second, Threshold: 5, Critical: 10, Transitions: []alert.State{alert.Opened, alert.Closed}, Drains: true, Address: "127.0.0.1:1",
		Log: slog.New(slog.NewTextHandler(b.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})), Registry: prometheus.NewRegistry(), Status: &b.status}
	for _, f := range change {
		f(&cfg)
	}
	d, err := detector.New(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					b.t.Error(err)
				}
			case <-time.After(15 * time.Second):
				b.t.Error("the detector does not end")
			}
		})
	}
	b.t.Cleanup(stop)
	return d, stop
}

// alerts waits for so many records and returns all that are there.
func (b *bed) alerts(n int) (out []alert.Record) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(b.cfg.Options(kgo.ConsumeTopics(b.layout.Names.Alerts))...)
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	for len(out) < n {
		f := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			b.t.Fatalf("%d alerts of %d", len(out), n)
		}
		f.EachRecord(func(r *kgo.Record) {
			a, err := alert.Parse(r.Value)
			if err != nil {
				b.t.Error(err)
			}
			out = append(out, a)
		})
	}
	return out
}

func (b *bed) eventually(what string, ok func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			b.t.Fatal("never: " + what)
		}
	}
}

// settled waits until everything in the keyed log is committed.
func (b *bed) settled() {
	b.t.Helper()
	b.eventually("all is committed", func() bool {
		ends, err := b.adm.ListCommittedOffsets(b.t.Context(), b.layout.Names.Keyed)
		if err != nil {
			return false
		}
		at, err := b.adm.FetchOffsets(b.t.Context(), b.layout.Names.DetectorGroup)
		if err != nil {
			return false
		}
		done := true
		ends.Each(func(e kadm.ListedOffset) {
			o, _ := at.Lookup(b.layout.Names.Keyed, e.Partition)
			p, err := window.ParsePosition(o.At, o.Metadata)
			done = done && err == nil && p.Next >= e.Offset
		})
		return done
	})
}

// brief is what of an alert a test looks at.
func brief(as []alert.Record) (out []string) {
	for _, a := range as {
		out = append(out, fmt.Sprintf("%s %s %s %d %s", a.UserID, a.WindowStart.Format("15:04:05"), a.State, a.Count, a.Severity))
	}
	slices.Sort(out)
	return out
}

func TestOpenedAndClosed(t *testing.T) {
	b := newBed(t)
	b.events(`5`, 3, 4)
	b.events(`"5"`, 4, 6)
	b.batch(-7_000)
	b.events(`5`, 9, 8)
	b.events(`5`, 15, 2)
	b.batch(5_000)
	b.batch(9_999)
	b.start()
	got := b.alerts(4)
	want := []string{`"5" 00:00:00 closed 6 warning`, `"5" 00:00:00 opened 6 warning`, `5 00:00:00 closed 12 critical`, `5 00:00:00 opened 12 critical`}
	if d := cmp.Diff(want, brief(got)); d != "" {
		t.Error(d)
	}
	i := slices.IndexFunc(got, func(a alert.Record) bool { return string(a.UserID) == "5" && a.State == alert.Closed })
	a := got[i]
	if a.ID != alert.ID(alert.Burst, "5", 0, 10_000) || a.Threshold != 5 || a.FirstEventAt.UnixMilli() != 3_000 || a.LastEventAt.UnixMilli() != 9_000 ||
		!cmp.Equal(a.Evidence, alert.Evidence{Topic: "activity", Partitions: map[string]alert.OffsetRange{"0": {First: 0, Last: 17}}}) {
		t.Errorf("%+v", a)
	}
}

// TestCheckpointIsNotTheTruth: whatever became of the changelog, and whenever the detector is stopped, the counts are those of the log.
func TestCheckpointIsNotTheTruth(t *testing.T) {
	user := `"u"`
	home := kafka.PartitionFor([]byte(user), partitions)
	stale := func() []byte { // a state that a zombie might write: its window is closed long since, or it counts from the future
		c := window.NewTable(windowtest.Stream(10*time.Second, 0, 5))
		s := window.NewCombiner(windowtest.Stream(10*time.Second, 0, 5))
		for range 100 {
			windowtest.Add(s, []byte(user), 1, 0, 1)
		}
		s.Flush(1, func([]byte) int32 { return 0 }, window.Header{Sources: 1}, func(_ int32, v []byte) {
			if _, err := c.Apply(1<<40, v, nil); err != nil {
				t.Fatal(err)
			}
		})
		var state []byte
		c.Checkpoint(1, func(_ string, v []byte) { state = slices.Clone(v) })
		return state
	}()
	for name, harm := range map[string]func(b *bed){
		"nothing":   func(*bed) {},
		"tombstone": func(b *bed) { b.write(b.layout.Names.Table(), home, user, nil) },
		"garbage": func(b *bed) {
			b.write(b.layout.Names.Table(), home, user, []byte("\xff\xfe nonsense"))
			b.write(b.layout.Names.Table(), home, "", []byte{})
		},
		"a state from the future": func(b *bed) { b.write(b.layout.Names.Table(), home, user, stale) },
		"a table made anew": func(b *bed) {
			if _, err := b.adm.DeleteTopics(b.t.Context(), b.layout.Names.Table()); err != nil {
				b.t.Fatal(err)
			}
			b.topics()
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.events(user, 1, 4)
			b.batch(-9_000)
			_, stop := b.start()
			b.settled()
			stop()
			harm(b)
			b.events(user, 2, 3)
			b.batch(-8_000)
			_, stop = b.start()
			b.alerts(1)
			b.settled()
			stop()
			harm(b)
			b.events(user, 3, 2)
			b.batch(30_000)
			b.start()
			if d := cmp.Diff([]string{`"u" 00:00:00 closed 9 warning`, `"u" 00:00:00 opened 7 warning`}, brief(b.alerts(2))); d != "" {
				t.Error(d)
			}
			b.settled()
			if got := b.alerts(2); len(got) != 2 {
				t.Errorf("told again: %v", brief(got))
			}
		})
	}
}

// TestForeignRecordInTheKeyedLog: it is left out, everything else counts.
func TestForeignRecordInTheKeyedLog(t *testing.T) {
	b := newBed(t)
	b.events(`1`, 1, 3)
	b.batch(-9_000)
	for p := range int32(partitions) {
		b.write(b.layout.Names.Keyed, p, "k", []byte(`{"not":"a batch"}`))
		b.write(b.layout.Names.Keyed, p, "k", nil)
	}
	b.events(`1`, 2, 3)
	b.batch(20_000)
	b.start()
	if d := cmp.Diff([]string{`1 00:00:00 closed 6 warning`, `1 00:00:00 opened 6 warning`}, brief(b.alerts(2))); d != "" {
		t.Error(d)
	}
}

// TestOldBatchesInTheKeyedLog: those of a version that is not read anymore are named as such, with their number, and count as lost; everything else counts.
func TestOldBatchesInTheKeyedLog(t *testing.T) {
	b := newBed(t)
	b.events(`1`, 1, 3)
	b.batch(-9_000)
	for p := range int32(partitions) {
		for version := range byte(2) {
			b.write(b.layout.Names.Keyed, p, "", []byte{version + 1, 1, 0, 0, 0})
		}
	}
	b.events(`1`, 2, 3)
	b.batch(20_000)
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	_, stop := b.start(func(c *detector.Config) {
		c.Log, c.Registry = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})), registry
	})
	if d := cmp.Diff([]string{`1 00:00:00 closed 6 warning`, `1 00:00:00 opened 6 warning`}, brief(b.alerts(2))); d != "" {
		t.Error(d)
	}
	b.settled()
	stop()
	if text := log.String(); !strings.Contains(text, "an older version of spate wrote") || !strings.Contains(text, "batches=4") || !strings.Contains(text, "delete the log together with both consumer groups") || strings.Contains(text, "corrupt") {
		t.Error(text)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "spate_detector_lost_batches_total" && f.GetMetric()[0].GetCounter().GetValue() != 4 {
			t.Error(f)
		}
	}
}

func TestClosedAlone(t *testing.T) {
	b := newBed(t)
	b.events(`1`, 1, 7)
	b.batch(20_000)
	b.start(func(c *detector.Config) { c.Transitions = []alert.State{alert.Closed} })
	b.alerts(1)
	b.settled()
	if d := cmp.Diff([]string{`1 00:00:00 closed 7 warning`}, brief(b.alerts(1))); d != "" {
		t.Error(d)
	}
}

// TestKeyedLogMadeAnew: offsets that were committed for a log that is gone must not keep the alerts of the new one from being told.
func TestKeyedLogMadeAnew(t *testing.T) {
	b := newBed(t)
	for range 20 {
		b.batch(-9_000)
	}
	_, stop := b.start()
	b.settled()
	stop()
	if _, err := b.adm.DeleteTopics(t.Context(), b.layout.Names.Keyed); err != nil {
		t.Fatal(err)
	}
	b.connect()
	b.topics()
	b.events(`1`, 1, 6)
	b.batch(20_000)
	b.start()
	if d := cmp.Diff([]string{`1 00:00:00 closed 6 warning`, `1 00:00:00 opened 6 warning`}, brief(b.alerts(2))); d != "" {
		t.Error(d)
	}
}

func TestLookup(t *testing.T) {
	b := newBed(t)
	b.events(`7`, 1, 6)
	b.events(`7`, 12, 1)
	b.batch(-9_000)
	d, stop := b.start()
	serve := func(d *detector.Detector) (mux *http.ServeMux) {
		mux = http.NewServeMux()
		for pattern, h := range d.Handlers() {
			mux.Handle(pattern, h)
		}
		return mux
	}
	mux := serve(d)
	get := func(token string) (int, detector.Key) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/keys/"+token, nil))
		var u detector.Key
		_ = json.Unmarshal(w.Body.Bytes(), &u) // what is not an answer has no windows
		return w.Code, u
	}
	var u detector.Key
	b.eventually("the user is known", func() bool {
		var code int
		code, u = get("7")
		return code == http.StatusOK && len(u.Windows) == 2
	})
	if u.Windows[0].Count != 6 || u.Windows[0].AlertID != alert.ID(alert.Burst, "7", 0, 10_000) || u.Windows[1].Count != 1 || u.Windows[1].AlertID != "" || u.Watermark == nil || u.Watermark.UnixMilli() != -9_000 {
		t.Errorf("%+v", u)
	}
	if code, u := get("8"); code != http.StatusOK || len(u.Windows) != 0 {
		t.Errorf("%d %+v", code, u)
	}
	stop()
	if code, _ := get("7"); code != http.StatusMisdirectedRequest {
		t.Errorf("%d from a detector that has ended", code)
	}
	// The next one answers as soon as it has read the log, though no router writes: the log ends with the marker of a transaction.
	b.aborted(kafka.PartitionFor([]byte("7"), partitions))
	d, _ = b.start()
	mux = serve(d)
	b.eventually("the user is known to the next detector", func() bool {
		code, u := get("7")
		return code == http.StatusOK && len(u.Windows) == 2
	})
}

// aborted writes to a partition of the keyed log and takes it back, as a router that was killed does.
func (b *bed) aborted(p int32) {
	b.t.Helper()
	cl, err := kgo.NewClient(b.cfg.Options(kgo.TransactionalID("killed"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	err = cl.BeginTransaction()
	if err == nil {
		err = cl.ProduceSync(b.t.Context(), &kgo.Record{Topic: b.layout.Names.Keyed, Partition: p, Value: []byte("x")}).FirstErr()
	}
	if err == nil {
		err = cl.EndTransaction(b.t.Context(), kgo.TryAbort)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func TestValidateTellsAll(t *testing.T) {
	err := detector.Config{Threshold: 0, Critical: -1, Transitions: []alert.State{"half"}}.Validate()
	for _, s := range []string{"brokers", "threshold", "critical", `"half"`, "closed is missing"} {
		if err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("%s is not named: %v", s, err)
		}
	}
}
