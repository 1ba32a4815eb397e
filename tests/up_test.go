package tests

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/verifier"
	"spate/shared/alert"
	"spate/shared/kafka"
	"spate/shared/store"
	"spate/shared/store/sqlite"
)

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// TestUpLosesNothing stops and kills the all-in-one process in the middle of traffic and starts it again on the same state.
func TestUpLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	state, addr := t.TempDir(), freePort(t)
	env := []string{"SPATE_BROKERS=", "SPATE_LATENESS=2s", "SPATE_IDLE_TIMEOUT=2s"}
	names := kafka.NamesFor(kafka.DefaultTopic)
	up := spate(t, "up", env, "up", "--state", state, "--listen", addr).start()
	cl := connect(t, addr)
	eventually(t, 20*time.Second, "topics are made", func() bool { return topicExists(t, cl, names.Activity) })
	traffic := spate(t, "traffic", []string{"SPATE_BROKERS=" + addr}, "simulate", "--time", "now", "--event-rate", "2000", "--users", "40000", "--duration", "20s", "--quiet").start()
	pause := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-traffic.done:
			t.Fatalf("traffic ended early: %v", traffic.err)
		}
	}
	pause(4 * time.Second)
	if err := up.stop(10 * time.Second); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	up.start()
	pause(5 * time.Second)
	up.kill()
	up.start()
	if err := traffic.wait(60 * time.Second); err != nil {
		t.Fatal(err)
	}
	rule := verifier.Rule{Window: 10 * time.Second, Lateness: 2 * time.Second, Threshold: 5}
	ref := reference(t, addr, names.Activity, rule)
	want := ref.Result()
	st, err := sqlite.Open(t.Context(), filepath.Join(state, "spate.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	eventually(t, 40*time.Second, "all windows are closed", func() bool {
		n, err := st.Count(t.Context())
		return err == nil && n.Opened == 0 && n.Closed == int64(len(want))
	})
	var got []alert.Record
	for a, err := range st.Alerts(t.Context(), store.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a.Record)
	}
	if d := verifier.Compare(want, got); !d.Exact() || len(want) == 0 {
		t.Errorf("%+v", d)
	}
	checkLog(t, addr, names, ref)
	checkAlertTopic(t, addr, names, len(want))
	up.signal(syscall.SIGINT)
	if err := up.wait(10 * time.Second); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
}

// TestSecondUp: the state and the port belong to one.
func TestSecondUp(t *testing.T) {
	state, addr := t.TempDir(), freePort(t)
	env := []string{"SPATE_BROKERS="}
	spate(t, "first", env, "up", "--state", state, "--listen", addr).start()
	cl := connect(t, addr)
	eventually(t, 20*time.Second, "topics are made", func() bool { return topicExists(t, cl, "activity") })
	for name, c := range map[string]struct{ state, listen, says string }{
		"state": {state, freePort(t), "in use by process"},
		"port":  {t.TempDir(), addr, "has the port"},
	} {
		t.Run(name, func(t *testing.T) {
			second := spate(t, "second-"+name, env, "up", "--state", c.state, "--listen", c.listen).start()
			if err := second.wait(10 * time.Second); err == nil {
				t.Fatal("it runs")
			}
			b, err := os.ReadFile(second.log.Name())
			if err != nil || !strings.Contains(string(b), c.says) {
				t.Errorf("%v: %s", err, b)
			}
		})
	}
}

// TestQuietInputClosesWindows: when the input stops, every open window closes within size + lateness + idle timeout.
func TestQuietInputClosesWindows(t *testing.T) {
	onBrokersTogether(t, func(t *testing.T, brokers string) {
		names := kafka.NamesFor(uniqueTopic(t))
		db := filepath.Join(t.TempDir(), "alerts.db")
		env := []string{"SPATE_BROKERS=" + brokers, "SPATE_TOPIC=" + names.Activity, "SPATE_WINDOW=4s", "SPATE_LATENESS=3s", "SPATE_IDLE_TIMEOUT=2s", "SPATE_DATABASE_URL=" + db}
		const bound = 9 * time.Second
		spate(t, "router", env, "route").start()
		spate(t, "detector", env, "detect").start()
		spate(t, "alerter", env, "alert").start()
		cl := connect(t, brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		eventually(t, 30*time.Second, "topics are made", func() bool { return topicExists(t, cl, names.Activity) })
		// Two of four partitions have events, long ago in event time; one of them lags behind.
		for i := range 50 {
			ts := time.Date(2020, 1, 1, 0, 0, i%8, 0, time.UTC).Format(time.RFC3339)
			r := &kgo.Record{Topic: names.Activity, Partition: int32(i % 2), Value: []byte(`{"user_id":"u` + string('a'+rune(i%3)) + `","event_time":"` + ts + `"}`)}
			if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		last := time.Now()
		rule := verifier.Rule{Window: 4 * time.Second, Lateness: 3 * time.Second, Threshold: 5}
		want := reference(t, brokers, names.Activity, rule).Result()
		st, err := sqlite.Open(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		eventually(t, 60*time.Second, "all windows are closed", func() bool {
			n, err := st.Count(t.Context())
			return err == nil && n.Opened == 0 && n.Closed == int64(len(want))
		})
		t.Logf("%d windows, closed and stored %v after the last event, bound %v", len(want), time.Since(last).Round(10*time.Millisecond), bound)
		var got []alert.Record
		for a, err := range st.Alerts(t.Context(), store.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, a.Record)
			if late := a.ClosedAt.Sub(last); late > bound+2*time.Second {
				t.Errorf("closed %v after the last event, bound %v", late, bound)
			}
		}
		if d := verifier.Compare(want, got); !d.Exact() || len(want) == 0 {
			t.Errorf("%+v", d)
		}
	})
}
