package query

import (
	"flag"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
)

// go test ./services/query -run xxx -bench . -events 10000000 -benchtime 1x measures a larger log.
var events = flag.Int("events", 1_000_000, "events of a benchmark")

// broker starts one with the topics of a pipeline, of four partitions each.
func broker(t testing.TB) (*Kafka, *kgo.Client) {
	t.Helper()
	k, cl, _ := mortalBroker(t)
	return k, cl
}

// mortalBroker is one that can be ended.
func mortalBroker(t testing.TB) (*Kafka, *kgo.Client, func()) {
	t.Helper()
	names := kafka.NamesFor("activity")
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, names.Activity, names.Late, names.DLQ))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.MaxBufferedRecords(100_000))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return &Kafka{Config: kafka.Config{Brokers: cluster.ListenAddrs()}, Names: names}, cl, cluster.Close
}

// fill sends n events, so many of which happen in a second, in turn to the four partitions, and in batches.
func fill(t testing.TB, cl *kgo.Client, n, second int) {
	t.Helper()
	batch := make([]*kgo.Record, 0, max(4*second, 400))
	for i := range n {
		at := noon.Add(time.Duration(i) * time.Second / time.Duration(second))
		batch = append(batch, &kgo.Record{Topic: "activity", Partition: int32(i % 4), Timestamp: at,
			Value: fmt.Appendf(nil, `{"user_id":%d,"event_time":"%s","event_type":"view","price":%d}`, i*7919%5000, at.Format("2006-01-02 15:04:05.000"), i%100)})
		if len(batch) == cap(batch) || i == n-1 {
			if err := cl.ProduceSync(t.Context(), batch...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			batch = batch[:0]
		}
	}
}

// TestLastMinuteOfTheLog: a statement about the last minute of a long log reads a small part of it.
func TestLastMinuteOfTheLog(t *testing.T) {
	k, cl := broker(t)
	const n, second = 100_000, 10 // nearly three hours
	fill(t, cl, n, second)
	db := open(t, config(k))
	last := noon.Add(n / second * time.Second).Add(-time.Minute)
	for _, column := range []string{"event_time", "txn_timestamp", "_timestamp"} {
		got, s, err := rows(t.Context(), db, "SELECT COUNT(*) FROM activity WHERE "+column+" >= '"+last.Format("2006-01-02 15:04:05")+"'", Bounds{})
		if err != nil || got[1] != fmt.Sprint(60*second) || s.Of != n || s.Read < 60*second || s.Read*100 >= 2*s.Of {
			t.Errorf("%s: %v, read %d of %d, %v", column, got, s.Read, s.Of, err)
		}
		t.Logf("%s: read %d of %d", column, s.Read, s.Of)
	}
	// The times of these records are what their producer claims: later ones may be earlier.
	if _, s, err := rows(t.Context(), db, "SELECT COUNT(*) FROM activity WHERE _timestamp < '2026-11-30 12:00:10'", Bounds{}); err != nil || s.Read != n {
		t.Errorf("read %d, %v", s.Read, err)
	}
	adm := kadm.NewClient(cl)
	value := "LogAppendTime"
	if _, err := adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "message.timestamp.type", Value: &value}}, "activity"); err != nil {
		t.Fatal(err)
	}
	got, s, err := rows(t.Context(), db, "SELECT COUNT(*) FROM activity WHERE _timestamp < '2026-11-30 12:00:10' AND _partition >= 2", Bounds{})
	if err != nil || got[1] != "50" || s.Read*100 >= 2*s.Of {
		t.Errorf("%v, read %d, %v", got, s.Read, err)
	}
	cfg := config(k)
	cfg.From, cfg.To = noon.Add(time.Hour), noon.Add(time.Hour+time.Minute)
	got, s, err = rows(t.Context(), open(t, cfg), "SELECT COUNT(*), MIN(_timestamp), MAX(_timestamp) FROM activity", Bounds{})
	if err != nil || got[1] != "600|2026-11-30 13:00:00|2026-11-30 13:00:59.900" || s.Read*100 >= 2*s.Of {
		t.Errorf("%v, read %d, %v", got, s.Read, err)
	}
	if got, s, err = rows(t.Context(), db, "SELECT user_id FROM activity LIMIT 3", Bounds{}); err != nil || len(got) != 4 || s.Read > n/2 || s.Partial {
		t.Errorf("%v, read %d, %v", got, s.Read, err)
	}
}

// TestSideTopics: what the router says of late and invalid events are columns.
func TestSideTopics(t *testing.T) {
	k, cl := broker(t)
	header := func(pairs ...string) (out []kgo.RecordHeader) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, kgo.RecordHeader{Key: pairs[i], Value: []byte(pairs[i+1])})
		}
		return out
	}
	for _, r := range []*kgo.Record{
		{Topic: "activity.late", Partition: 1, Value: []byte(event(3, "42")), Headers: header("spate-reason", "watermark", "spate-source-topic", "activity", "spate-source-partition", "1", "spate-source-offset", "17",
			"spate-window-start", fmt.Sprint(noon.UnixMilli()), "spate-late-by-ms", "2500")},
		{Topic: "activity.dlq", Partition: 2, Value: []byte(`{"user_id":7}`), Headers: header("spate-reason", "no_time", "spate-source-partition", "2", "spate-source-offset", "5")},
		{Topic: "activity.dlq", Partition: 2, Value: nil, Headers: header("spate-reason", "unreadable", "spate-error", "corrupt")},
	} {
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	db := open(t, config(k))
	for _, c := range [][2]string{
		{"SELECT user_id, event_time, _reason, _late_by_ms, _window_start, _source_partition, _source_offset FROM late", "42|2026-11-30 12:00:03|watermark|2500|2026-11-30 12:00:00|1|17"},
		{"SELECT _reason, _source_offset, user_id, _value, _error FROM dlq WHERE _partition = 2 ORDER BY _offset", `no_time|5|<nil>|{"user_id":7}|<nil>; unreadable|<nil>|<nil>|<nil>|corrupt`},
		{"SELECT COUNT(*) FROM activity", "0"},
		{"SELECT COUNT(*) FROM dlq", "2"},
	} {
		got, _, err := rows(t.Context(), db, c[0], Bounds{})
		if err != nil || strings.Join(got[1:], "; ") != c[1] {
			t.Errorf("%s: %v %v\nwant %s", c[0], got, err, c[1])
		}
	}
	absent := *k
	absent.Names = kafka.NamesFor("nothing")
	if _, _, err := rows(t.Context(), open(t, config(&absent)), "SELECT COUNT(*) FROM activity", Bounds{}); err == nil || !strings.Contains(err.Error(), "topic nothing does not exist") {
		t.Error(err)
	}
}

// TestFollow: rows come as their windows close, while events arrive.
func TestFollow(t *testing.T) {
	k, cl := broker(t)
	cfg := config(k)
	cfg.MaxAhead, cfg.IdleTimeout, cfg.Lateness = 0, 100*time.Millisecond, time.Second
	db := open(t, cfg)
	send := func(second float64, n int) {
		for range n {
			r := &kgo.Record{Topic: "activity", Partition: 1, Timestamp: noon.Add(time.Hour), Value: []byte(event(second, "42"))}
			if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Error(err)
			}
		}
	}
	send(1, 7)
	found := make(chan string, 10)
	ctx, cancel := contextOf(t)
	done := make(chan Summary, 1)
	go func() {
		s, err := db.Run(ctx, "SELECT user_id, COUNT(*) AS n, TUMBLE_START(txn_timestamp, INTERVAL '10' SECOND) AS s FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 5",
			Bounds{Follow: true}, Output{Columns: func([]string) error { return nil }, Row: func(v []any) error { found <- fmt.Sprint(v...); return nil }})
		if err != nil {
			t.Error(err)
		}
		done <- s
	}()
	take := func(want string) {
		t.Helper()
		select {
		case got := <-found:
			if got != want {
				t.Errorf("%q, want %q", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("no row comes")
		}
	}
	send(21, 6)
	take(fmt.Sprint(int64(42), int64(7), "2026-11-30 12:00:00")) // the other partitions are silent
	send(45, 1)
	take(fmt.Sprint(int64(42), int64(6), "2026-11-30 12:00:20"))
	cancel()
	if s := <-done; !s.Partial || s.By != ByInterrupted || s.Rows != 2 || !s.Rule {
		t.Errorf("%+v", s)
	}
}

// TestFollowWithoutABroker: that the broker is gone closes no window, and ends the statement with the reason.
func TestFollowWithoutABroker(t *testing.T) {
	t.Parallel()
	for _, idle := range []time.Duration{3 * time.Second, 1500 * time.Millisecond} {
		t.Run(idle.String(), func(t *testing.T) { followWithoutABroker(t, idle) })
	}
}

func followWithoutABroker(t *testing.T, idle time.Duration) {
	t.Parallel()
	k, cl, end := mortalBroker(t)
	cfg := config(k)
	cfg.MaxAhead, cfg.IdleTimeout, cfg.Lateness = 0, idle, time.Second
	for i := range 12 { // the last ones close the window of the first
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "activity", Partition: int32(i % 4), Timestamp: noon.Add(time.Hour), Value: []byte(event(float64(i/4*10), "42"))}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	db, rows := open(t, cfg), 0
	began := time.Now()
	_, err := db.Run(t.Context(), "SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id",
		Bounds{Follow: true}, Output{Columns: func([]string) error { return nil }, Row: func([]any) error {
			if rows++; rows == 1 {
				end()
			}
			return nil
		}})
	if err == nil || !strings.Contains(err.Error(), "read topic activity: ") || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
	t.Logf("after %v: %v", time.Since(began).Round(time.Second), err)
}

// BenchmarkLastMinute asks about the last minute of a log in Kafka; the share that is read is counted.
func BenchmarkLastMinute(b *testing.B) {
	k, cl := broker(b)
	const second = 500
	fill(b, cl, *events, second)
	db := open(b, config(k))
	last := noon.Add(time.Duration(*events/second) * time.Second).Add(-time.Minute)
	for b.Loop() {
		_, s, err := rows(b.Context(), db, "SELECT user_id, COUNT(*) n FROM activity WHERE event_time >= '"+last.Format("2006-01-02 15:04:05")+"' GROUP BY 1 ORDER BY 2 DESC LIMIT 10", Bounds{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(100*float64(s.Read)/float64(s.Of), "%read")
		b.ReportMetric(float64(s.Read), "records")
	}
}

// BenchmarkGroup filters, groups and orders all events of a log in Kafka.
func BenchmarkGroup(b *testing.B) {
	k, cl := broker(b)
	fill(b, cl, *events, 500)
	db := open(b, config(k))
	before := processorTime(b)
	defer func() { b.ReportMetric((processorTime(b)-before).Seconds()/float64(b.N), "cpu-s/op") }()
	for b.Loop() {
		_, s, err := rows(b.Context(), db, "SELECT user_id, COUNT(*) n, SUM(price) FROM activity WHERE event_type = 'view' AND price > 10 GROUP BY user_id ORDER BY n DESC, user_id LIMIT 10", Bounds{})
		if err != nil || s.Read != int64(*events) {
			b.Fatal(s, err)
		}
	}
}

// processorTime is what the process has used, of all processors together: on a machine that others use as well, it says more than the clock.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
