package tests

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/store"
	"spate/shared/store/sqlite"
	"spate/shared/testskip"
	"spate/shared/window"
	"spate/shared/window/windowtest"
	"spate/tests/harness"
)

// The tests of this file write what no honest producer writes, and look at what becomes of the honest traffic beside it: every event of it
// is counted once, every window of it closes, and nobody has to restart anything.

// site is a whole pipeline in a process of its own, on a broker that the test can reach, with topics of its own. Its windows are short.
type site struct {
	*harness.Process
	t       *testing.T
	brokers string
	names   kafka.Names
	state   string
	adm     *kadm.Client
	cl      *kgo.Client
	starts  int
}

const siteWindow = 2 * time.Second

// newSite makes a site; it is not started.
func newSite(t *testing.T, brokers string, env ...string) *site {
	t.Helper()
	s := &site{t: t, brokers: brokers, names: kafka.NamesFor(harness.UniqueTopic(t)), state: t.TempDir()}
	s.reconnect()
	env = append([]string{"SPATE_WINDOW=" + siteWindow.String(), "SPATE_LATENESS=2s", "SPATE_IDLE_TIMEOUT=1s", "SPATE_THRESHOLD=1"}, env...)
	s.Process = harness.Spate(t, "up", env, "up", "--brokers", brokers, "--topic", s.names.Activity, "--state", s.state)
	return s
}

// reconnect takes a new client for what the test writes and asks. One that knew a topic does not know the one that has its name now.
func (s *site) reconnect() {
	s.cl = s.connect()
	s.adm = kadm.NewClient(s.cl)
}

func (s *site) connect(opts ...kgo.Opt) *kgo.Client {
	return harness.Connect(s.t, s.brokers, append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(100 * time.Millisecond), kgo.ProducerBatchCompression(kgo.NoCompression())}, opts...)...)
}

// begin starts it and waits until it is ready.
func (s *site) begin() *site {
	s.t.Helper()
	s.Start()
	s.starts++
	// A start creates and reads topics. The Kafka that all tests share took 60 s for it once, at a load of 40.
	harness.Eventually(s.t, 2*time.Minute, "it is up", func() bool { return bytes.Count(s.Output(), []byte("spate is up:")) == s.starts })
	s.awaitReady()
	return s
}

// end stops it as an operator does.
func (s *site) end() {
	s.t.Helper()
	if err := s.Stop(20 * time.Second); err != nil {
		s.t.Fatalf("stop: %v", err)
	}
}

func (s *site) awaitReady() {
	s.t.Helper()
	harness.Eventually(s.t, 60*time.Second, "it is ready", func() bool {
		code, _ := s.Get("/readyz")
		return code == http.StatusOK && s.metric(`spate_router_partitions`) > 0
	})
}

// makeTopic makes the topic of events before the site does.
func (s *site) makeTopic(partitions int32, config map[string]string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	c := make(map[string]*string)
	for k, v := range config {
		c[k] = &v
	}
	if _, err := s.adm.CreateTopic(ctx, partitions, 1, c, s.names.Activity); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		s.t.Fatal(err)
	}
	harness.Eventually(s.t, 20*time.Second, "the topic is there", func() bool { return harness.TopicExists(s.t, s.cl, s.names.Activity) })
}

// appended is the setting that topics of events have which spate makes.
var appended = map[string]string{"message.timestamp.type": "LogAppendTime"}

// event is one of a user.
func event(user string, at time.Time) []byte {
	return fmt.Appendf(nil, `{"user_id":%q,"event_time":%d}`, user, at.UnixMilli())
}

// send writes n events of a user into each of the partitions.
func (s *site) send(user string, n int, at time.Time, partitions ...int32) {
	s.t.Helper()
	var records []*kgo.Record
	for _, p := range partitions {
		records = append(records, slices.Repeat([]*kgo.Record{{Topic: s.names.Activity, Partition: p, Value: event(user, at)}}, n)...)
	}
	s.write(records...)
}

func (s *site) write(records ...*kgo.Record) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	for i, r := range records {
		copied := *r // the client writes into it
		records[i] = &copied
	}
	if err := s.cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
}

// flow writes a record every so often, until stop is called, which returns how many there were.
func (s *site) flow(every time.Duration, record func(i int) *kgo.Record) (stop func() int) {
	ctx, cancel := context.WithCancel(s.t.Context())
	cl, sent, done := s.connect(), 0, make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				cl.Produce(s.t.Context(), record(sent), nil)
				sent++
			}
		}
	}()
	return func() int {
		cancel()
		<-done
		if err := cl.Flush(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
		return sent
	}
}

// metric adds up the series whose names begin with the prefix.
func (s *site) metric(prefix string) (sum float64) {
	_, page := s.Get("/metrics")
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, prefix) {
			v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 64)
			if err != nil {
				s.t.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

const (
	counted    = `spate_router_events_total{fate="counted"`
	late       = `spate_router_events_total{fate="late"`
	unreadable = `spate_router_events_total{fate="invalid",reason="unreadable"}`
)

func (s *site) awaitMetric(prefix string, want float64) {
	s.t.Helper()
	var got float64
	defer func() {
		if s.t.Failed() {
			s.t.Logf("%s is %v", prefix, got)
		}
	}()
	harness.Eventually(s.t, 40*time.Second, fmt.Sprintf("%s is %v", prefix, want), func() bool { got = s.metric(prefix); return got == want })
}

// closed is what there is of a user in closed alerts.
type closed struct{ Alerts, Events int64 }

// closed reads the database: the closed alerts of each user, and how many are open.
func (s *site) closed() (users map[string]closed, open int) {
	s.t.Helper()
	st, err := sqlite.Open(s.t.Context(), filepath.Join(s.state, "spate.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer st.Close()
	users = make(map[string]closed)
	for a, err := range st.Alerts(s.t.Context(), store.Filter{}) {
		if err != nil {
			s.t.Fatal(err)
		}
		if a.State != alert.Closed {
			open++
			continue
		}
		name := strings.Trim(string(a.UserID), `"`)
		c := users[name]
		c.Alerts++
		c.Events += a.Count
		users[name] = c
	}
	return users, open
}

// awaitClosed waits until the users have exactly so many events in closed alerts.
func (s *site) awaitClosed(want map[string]int64) {
	s.t.Helper()
	var got map[string]closed
	defer func() {
		if s.t.Failed() {
			s.t.Logf("closed are %v, want %v", got, want)
		}
	}()
	harness.Eventually(s.t, 60*time.Second, "all windows are closed, with every event", func() bool {
		got, _ = s.closed()
		for user, n := range want {
			if got[user].Events != n {
				return false
			}
		}
		return true
	})
}

// sound fails the test if honest traffic was harmed, or if the log ran over.
func (s *site) sound() {
	s.t.Helper()
	if code, page := s.Get("/readyz"); code != http.StatusOK {
		s.t.Errorf("/readyz %d %s", code, page)
	}
	if n := s.metric(late); n != 0 {
		s.t.Errorf("%v events are late", n)
	}
	if n := s.metric("spate_detector_stray_events_total"); n != 0 {
		s.t.Errorf("%v events are stray", n)
	}
	s.quiet()
}

func (s *site) quiet() {
	s.t.Helper()
	if n := bytes.Count(s.Output(), []byte("\n")); n > 200 {
		s.t.Errorf("%d lines of log", n)
	}
}

// said fails the test if the log does not have a line of the level that matches.
func (s *site) said(level, pattern string) {
	s.t.Helper()
	if !s.says(`"level":"(` + level + `)".*(` + pattern + `)`) {
		s.t.Errorf("the log has no %s with %q", level, pattern)
	}
}

func (s *site) says(pattern string) bool { return regexp.MustCompile(pattern).Match(s.Output()) }

// peakMemory is the most that the process ever had in memory.
func (s *site) peakMemory() int64 {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		testskip.Missing(s.t, "memory is read from /proc: %v", err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		s.t.Fatalf("no VmHWM: %s", b)
	}
	kb, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return kb << 10
}

// place is where a batch is in the topic of events, and what follows it.
type place struct {
	Partition  int32
	From, Next int64
}

// deadLetters returns the places of the unreadable batches, as the dead-letter topic has them.
func (s *site) deadLetters() (out []place) {
	s.t.Helper()
	harness.ReadAll(s.t, s.brokers, s.names.DLQ, func(r *kgo.Record) {
		h := make(map[string]string)
		for _, x := range r.Headers {
			h[x.Key] = string(x.Value)
		}
		if h["spate-reason"] != "unreadable" {
			return
		}
		number := func(key string) int64 {
			n, err := strconv.ParseInt(h[key], 10, 64)
			if err != nil {
				s.t.Errorf("dead letter %v: %v", h, err)
			}
			return n
		}
		if h["spate-error"] == "" || h["spate-source-topic"] != s.names.Activity {
			s.t.Errorf("dead letter %v", h)
		}
		out = append(out, place{int32(number("spate-source-partition")), number("spate-source-offset"), number("spate-next-offset")})
	})
	slices.SortFunc(out, func(a, b place) int {
		return int((int64(a.Partition)<<32 + a.From) - (int64(b.Partition)<<32 + b.From))
	})
	return out
}

// bombs are batches that every broker takes and that are too much for a reader: each would take 128 MiB, or has 1.1 million records.
var bombs = map[string]harness.Batch{
	"zstd":    {Codec: kgo.CodecZstd, Records: 1, Size: 128 << 20},
	"gzip":    {Codec: kgo.CodecGzip, Records: 1, Size: 128 << 20},
	"records": {Codec: kgo.CodecZstd, Records: 1_100_000},
}

// lies are batches that Kafka looks through and refuses. kfake takes those that are not refused on it; what is on Kafka's disk, and damaged
// there, is TestDamagedSegments'.
var lies = map[string]harness.Batch{
	"damaged":       {Codec: kgo.CodecZstd, Records: 3, Damaged: true},
	"damaged gzip":  {Codec: kgo.CodecGzip, Records: 3, Damaged: true},
	"fewer records": {Records: 3, Size: 10, Claims: 5},
	"no records":    {Claims: 2_000_000_000},
	"checksum":      {Records: 1, Size: 10, BadCRC: true},
	"codec":         {Codec: 7, Records: 1, Size: 10},
}

// TestUnreadableBatches: batches that cannot be read are left out, wherever they are, and each is told of once. In the topic of events they are:
// the first thing in a partition that was never read, ten in a row, in the middle of a transaction, and the last thing in a partition.
func TestUnreadableBatches(t *testing.T) {
	t.Parallel()
	wire := make(map[string][]byte)
	for name, b := range bombs {
		wire[name] = b.Encode(t)
	}
	for name, b := range lies {
		wire[name] = b.Encode(t)
	}
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		s := newSite(t, brokers)
		s.makeTopic(4, appended)
		var want []place
		send := func(topic string, p int32, name string) {
			t.Helper()
			from, err := harness.SendBatch(t, s.cl, topic, p, bytes.Clone(wire[name]))
			b, bomb := bombs[name]
			switch {
			case err != nil && bomb:
				t.Fatal(err)
			case err != nil:
				t.Logf("%s: %v", name, err)
			case topic == s.names.Activity:
				want = append(want, place{p, from, from + int64(max(b.Records, lies[name].Records, lies[name].Claims))})
			}
		}
		send(s.names.Activity, 0, "zstd")
		s.begin()
		s.awaitMetric(unreadable, 1)

		now := time.Now()
		s.send("zero", 20, now, 0)
		s.send("one", 20, now, 1)
		for range 10 {
			send(s.names.Activity, 1, "zstd")
		}
		send(s.names.Activity, 1, "gzip")
		send(s.names.Activity, 1, "records")
		s.send("one again", 20, time.Now(), 1)

		txn := begunTransaction(s)
		txn.write("transaction", 10, 2, time.Now())
		send(s.names.Activity, 2, "gzip")
		txn.write("transaction", 10, 2, time.Now())
		txn.end(kgo.TryCommit)

		s.send("three", 20, time.Now(), 3)
		for _, name := range slices.Sorted(maps.Keys(lies)) {
			send(s.names.Activity, 3, name)
		}
		send(s.names.Activity, 3, "records")
		s.awaitMetric(unreadable, float64(len(want)))

		// The topics in between.
		for topic, unread := range map[string]string{s.names.Keyed: `spate_detector_batches_total{outcome="unreadable"}`, s.names.Alerts: `spate_alerter_alerts_total{outcome="unreadable"`} {
			for _, name := range []string{"zstd", "zstd", "gzip", "records"} {
				send(topic, 0, name)
			}
			s.awaitMetric(unread, 4)
		}
		now = time.Now()
		s.send("after", 20, now, 0, 1, 2, 3)
		users := map[string]int64{"zero": 20, "one": 20, "one again": 20, "transaction": 20, "three": 20, "after": 80}
		s.awaitClosed(users)
		s.awaitMetric(counted, 180)
		s.sound()
		const bound = 1 << 30
		if peak := s.peakMemory(); peak > bound {
			t.Errorf("%d MiB at most, bound %d", peak>>20, bound>>20)
		} else {
			t.Logf("%d MiB at most", peak>>20)
		}
		slices.SortFunc(want, func(a, b place) int {
			return int((int64(a.Partition)<<32 + a.From) - (int64(b.Partition)<<32 + b.From))
		})
		if got := s.deadLetters(); !slices.Equal(got, want) {
			t.Errorf("dead letters %v, want %v", got, want)
		}

		// What was left out is behind the offsets: nothing tells of it again.
		s.end()
		s.begin()
		s.send("restart", 20, time.Now(), 0, 1, 2, 3)
		users["restart"] = 80
		s.awaitClosed(users)
		for _, m := range []string{unreadable, `spate_detector_batches_total{outcome="unreadable"}`, `spate_alerter_alerts_total{outcome="unreadable"`} {
			if n := s.metric(m); n != 0 {
				t.Errorf("%s is %v after a restart", m, n)
			}
		}
		if got := s.deadLetters(); !slices.Equal(got, want) {
			t.Errorf("dead letters %v after a restart, want %v", got, want)
		}
		s.sound()
	})
}

// TestDamagedSegments changes bytes on the disk of a Kafka that runs: it hands them out as they are. kfake looks through what it reads, and is
// tested with the broker of up (services/embedded/broker).
func TestDamagedSegments(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short is set")
	}
	t.Parallel()
	broker := harness.OwnKafka(t)
	broker.Up()
	s := newSite(t, broker.Addr)
	s.begin()
	s.send("before", 20, time.Now(), 0, 1, 2, 3)
	s.awaitMetric(counted, 80)
	s.end()
	const secret = "damage me"
	bad := slices.Repeat([]*kgo.Record{{Topic: s.names.Activity, Value: event(secret, time.Now())}}, 3)
	damage := []func(batch []byte){
		func(b []byte) { b[len(b)-3]++ },
		func(b []byte) { b[22] |= 7; harness.Sealed(b) },
		func(b []byte) { b[22] |= 4; harness.Sealed(b) },
		func(b []byte) { b[61] = 0x7f; harness.Sealed(b) },
	}
	// The last one changes the length of the first record. It is the end of its partition: a client says nothing of such a batch, and is seen to
	// stand still before it. In the middle of a fetch it goes on behind it; a broker lets nobody write such a thing.
	last := int32(len(damage) - 1)
	var want []place
	for p, change := range damage {
		s.send("around", 10, time.Now(), int32(p))
		for i := range bad {
			bad[i].Partition = int32(p)
		}
		s.write(slices.Clone(bad)...)
		path := filepath.Join(broker.Dir, "log", fmt.Sprintf("%s-%d", s.names.Activity, p), "00000000000000000000.log")
		want = append(want, damageBatch(t, path, secret, int32(p), change))
		if int32(p) < last {
			s.send("around", 10, time.Now(), int32(p))
		}
	}
	s.begin()
	s.awaitMetric(unreadable, float64(len(damage)))
	s.send("after", 20, time.Now(), 0, 1, 2, 3)
	s.awaitClosed(map[string]int64{"before": 80, "around": 70, "after": 80})
	s.sound()
	if got := s.deadLetters(); !slices.Equal(got, want) {
		t.Errorf("dead letters %v, want %v", got, want)
	}
}

// damageBatch changes the batch that has a text in it, where it is, and tells its place.
func damageBatch(t *testing.T, path, text string, partition int32, change func(batch []byte)) place {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(log); {
		batch := log[at : at+12+int(binary.BigEndian.Uint32(log[at+8:]))]
		if bytes.Contains(batch, []byte(text)) {
			from := int64(binary.BigEndian.Uint64(batch))
			next := from + int64(binary.BigEndian.Uint32(batch[23:])) + 1
			change(batch)
			if _, err := f.WriteAt(batch, int64(at)); err != nil {
				t.Fatal(err)
			}
			return place{partition, from, next}
		}
		at += len(batch)
	}
	t.Fatalf("%s has no batch with %q", path, text)
	return place{}
}

// TestMalformedOnlyPartition: a partition that gets records all the time, none of which is an event, does not hold windows open.
func TestMalformedOnlyPartition(t *testing.T) {
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		s := newSite(t, brokers)
		s.begin()
		stop := s.flow(20*time.Millisecond, func(int) *kgo.Record {
			return &kgo.Record{Topic: s.names.Activity, Partition: 1, Value: []byte("no event")}
		})
		harness.Eventually(t, 30*time.Second, "they come", func() bool { return s.metric(`spate_router_events_total{fate="invalid"`) > 50 })
		s.send("honest", 20, time.Now(), 0, 2, 3)
		s.awaitClosed(map[string]int64{"honest": 60})
		s.send("more", 20, time.Now(), 0, 2, 3)
		s.awaitClosed(map[string]int64{"honest": 60, "more": 60})
		s.awaitMetric(`spate_router_events_total{fate="invalid"`, float64(stop()))
		s.sound()
	})
}

// TestUnreadableBatchUnderTraffic: other partitions are never quiet, and what cannot be read is left out all the same.
func TestUnreadableBatchUnderTraffic(t *testing.T) {
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		s := newSite(t, brokers)
		s.begin()
		stop := s.flow(5*time.Millisecond, func(i int) *kgo.Record {
			return &kgo.Record{Topic: s.names.Activity, Partition: int32(1 + i%3), Value: event(strconv.Itoa(i), time.Now())}
		})
		harness.Eventually(t, 30*time.Second, "traffic is counted", func() bool { return s.metric(`spate_router_events_total{fate="counted"`) > 100 })
		bomb := harness.Batch{Codec: kgo.CodecZstd, Records: 1, Size: 100 << 20}.Encode(t)
		for range 2 {
			if _, err := harness.SendBatch(t, s.cl, s.names.Activity, 0, bomb); err != nil {
				t.Fatal(err)
			}
		}
		s.send("honest", 20, time.Now(), 0)
		s.awaitClosed(map[string]int64{"honest": 20})
		s.awaitMetric(`spate_router_events_total{fate="invalid",reason="unreadable"`, 2)
		stop()
		s.sound()
	})
}

// TestClockAhead: events of a clock that is 35 s ahead, in every partition, make no event of others late.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		s := newSite(t, brokers)
		s.begin()
		const rounds = 4
		for i := range rounds {
			now := time.Now()
			s.send("fast", 2, now.Add(35*time.Second), 0, 1, 2, 3)
			s.send("honest", 20, now, 0, 1, 2, 3)
			s.awaitMetric(counted, float64((i+1)*88)) // the next round is judged by what this one left behind
			s.send("fast", 2, time.Now().Add(2*time.Minute), int32(i))
			s.awaitMetric(`spate_router_events_total{fate="invalid",reason="time_ahead"}`, float64((i+1)*2))
		}
		s.awaitClosed(map[string]int64{"honest": rounds * 80})
		s.sound()
	})
}

// TestLiesInKeyedLog: batches that no router wrote, in the encoding of routers, change no alert, not even after a restart.
func TestLiesInKeyedLog(t *testing.T) {
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		s := newSite(t, brokers)
		s.begin()
		s.send("before", 20, time.Now(), 0, 1, 2, 3)
		s.awaitMetric(counted, 80)

		all := func(watermark int64) (m []window.Watermark) {
			for p := range int32(4) {
				m = append(m, window.Watermark{Partition: p, WatermarkMS: watermark})
			}
			return m
		}
		topic, err := s.incarnation()
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		honest := s.batch("liar", now, window.Header{Sources: 4, Topic: topic, Watermarks: all(now.Add(-time.Minute).UnixMilli())})
		lies := [][]byte{
			s.batch("liar", now, window.Header{Sources: 5, Topic: topic}),
			s.batch("liar", now, window.Header{Sources: 900, Topic: topic}),
			s.batch("liar", now, window.Header{Sources: 900}), // of a topic without an id
			s.batch("liar", now, window.Header{Sources: 3000, Topic: topic}),
			s.batch("liar", now, window.Header{Topic: topic}),
			s.batch("liar", now, window.Header{Sources: 4, Topic: topic, Watermarks: all(window.EndOfTime)}),
			s.batch("liar", now, window.Header{Sources: 4, Topic: topic, Watermarks: all(now.Add(time.Hour).UnixMilli())}),
			s.batch("liar", now, window.Header{Sources: 4, Topic: topic + 1, Watermarks: all(now.Add(time.Hour).UnixMilli())}),
			honest[:len(honest)/2],
			honest[:len(honest)-1],
			append(bytes.Clone(honest), 7),
			[]byte("garbage"),
			{},
		}
		var records []*kgo.Record
		for p := range int32(4) {
			for _, lie := range lies {
				records = append(records, &kgo.Record{Topic: s.names.Keyed, Partition: p, Value: lie})
			}
			// Routers of a topic that is gone have written such a thing, perhaps: it is taken, and holds nothing open.
			records = append(records, &kgo.Record{Topic: s.names.Keyed, Partition: p, Value: s.batch("", now, window.Header{Sources: 900, Topic: topic + 1})})
		}
		s.write(records...)
		const corrupt = `spate_detector_batches_total{outcome="corrupt"}`
		s.awaitMetric(corrupt, float64(4*len(lies)))
		s.send("after", 20, time.Now(), 0, 1, 2, 3)
		users := map[string]int64{"before": 80, "after": 80}
		s.awaitClosed(users)
		s.sound()
		s.end()
		s.begin()
		s.send("restart", 20, time.Now(), 0, 1, 2, 3)
		users["restart"] = 80
		s.awaitClosed(users)
		s.sound()
		got, _ := s.closed()
		if len(got) != len(users) {
			t.Errorf("closed are %v", got)
		}
	})
}

// batch returns a batch as a router encodes it, with ten events of a user in it, unless there is none.
func (s *site) batch(user string, at time.Time, h window.Header) (out []byte) {
	c := window.NewCombiner(windowtest.Stream(siteWindow, 0, 5))
	for i := 0; i < 10 && user != ""; i++ {
		windowtest.Add(c, []byte(strconv.Quote(user)), at.UnixMilli(), 0, int64(i))
	}
	c.Flush(1, func([]byte) int32 { return 0 }, h, func(_ int32, value []byte) { out = bytes.Clone(value) })
	return out
}

// incarnation is what batches call the topic of events.
func (s *site) incarnation() (uint64, error) {
	found, err := s.adm.ListTopics(s.t.Context(), s.names.Activity)
	if err != nil {
		return 0, err
	}
	id := found[s.names.Activity].ID
	return binary.BigEndian.Uint64(id[:8]) ^ binary.BigEndian.Uint64(id[8:]), nil
}

// TestClaimedTimeOfFuture: in a topic whose records have the times that producers claim, one of the year 2100 in every partition is invalid, and
// harms nobody.
func TestClaimedTimeOfFuture(t *testing.T) {
	t.Parallel()
	future := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	test := func(t *testing.T, brokers string) {
		s := newSite(t, brokers)
		s.makeTopic(2, map[string]string{"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": strconv.FormatInt(1<<60, 10)})
		s.begin()
		s.said("WARN", "producer timestamps.*message.timestamp.type=LogAppendTime")
		for p := range int32(2) {
			s.write(&kgo.Record{Topic: s.names.Activity, Partition: p, Value: event("future", future), Timestamp: future})
			// An honest time of the event, in a record that claims another.
			s.write(&kgo.Record{Topic: s.names.Activity, Partition: p, Value: event("claims", time.Now()), Timestamp: future})
		}
		s.awaitMetric(`spate_router_events_total{fate="invalid",reason="time_ahead"}`, 2)
		s.awaitMetric(counted, 2)
		s.send("honest", 20, time.Now(), 0, 1)
		s.awaitClosed(map[string]int64{"honest": 40})
		s.sound()
		s.end()
		s.begin()
		s.send("restart", 20, time.Now(), 0, 1)
		s.awaitClosed(map[string]int64{"honest": 40, "restart": 40})
		s.sound()
	}
	t.Run("kfake", func(t *testing.T) {
		t.Parallel()
		c, err := kfake.NewCluster(kfake.NumBrokers(1)) // one that stamps nothing
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		test(t, strings.Join(c.ListenAddrs(), ","))
	})
	t.Run("kafka", func(t *testing.T) {
		t.Parallel()
		brokers := os.Getenv("SPATE_TEST_BROKERS")
		if brokers == "" {
			testskip.Missing(t, "SPATE_TEST_BROKERS does not name a Kafka")
		}
		test(t, brokers)
	})
}
