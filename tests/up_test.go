package tests

import (
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/services/verifier"
	"spate/shared/kafka"
	"spate/shared/store/sqlite"
	"spate/shared/testport"
	"spate/shared/testskip"
	"spate/tests/harness"
)

// TestUpLosesNothing stops and kills the all-in-one process in the middle of traffic and starts it again on the same state.
func TestUpLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	state, addr := t.TempDir(), testport.Reserve(t)
	env := []string{"SPATE_BROKERS=", "SPATE_LATENESS=2s", "SPATE_IDLE_TIMEOUT=2s"}
	names := kafka.NamesFor(kafka.DefaultTopic)
	up := harness.Spate(t, "up", env, "up", "--state", state, "--listen", addr).Start()
	cl := harness.Connect(t, addr)
	harness.Eventually(t, 20*time.Second, "topics are made", func() bool { return harness.TopicExists(t, cl, names.Activity) })
	traffic := harness.Spate(t, "traffic", []string{"SPATE_BROKERS=" + addr}, "simulate", "--time", "now", "--event-rate", "2000", "--users", "40000", "--duration", "20s", "--quiet").Start()
	pause := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-traffic.Done():
			t.Fatalf("traffic ended early: %v", traffic.Err())
		}
	}
	pause(4 * time.Second)
	if err := up.Stop(10 * time.Second); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	up.Start()
	pause(5 * time.Second)
	up.Kill()
	up.Start()
	if err := traffic.Wait(60 * time.Second); err != nil {
		t.Fatal(err)
	}
	checkUp(t, addr, state)
	up.Signal(syscall.SIGINT)
	if err := up.Wait(10 * time.Second); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
}

// upRule is what the tests of up look for.
var upRule = verifier.Rule{Window: 10 * time.Second, Lateness: 2 * time.Second, Threshold: 5}

// checkUp waits until every window is closed, holds what is stored and what is in the log against the events, and returns the number of
// alerts. The lateness is 2 s.
func checkUp(t *testing.T, addr, state string) int {
	t.Helper()
	names := kafka.NamesFor(kafka.DefaultTopic)
	var ref *verifier.Reference
	var want []verifier.Row
	st, err := sqlite.Open(t.Context(), filepath.Join(state, "spate.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	harness.Eventually(t, 40*time.Second, "all windows are closed", func() bool {
		ref = harness.ReferenceAsPromised(t, addr, names, upRule) // events that are late are known only when they are routed
		want = ref.Result()
		n, err := st.Count(t.Context())
		return err == nil && n.Opened == 0 && n.Closed == int64(len(want))
	})
	harness.CheckStored(t, st, want, time.Minute)
	harness.CheckLog(t, addr, names, ref)
	harness.CheckAlertTopic(t, addr, names, len(want))
	return len(want)
}

// TestUpOnFullDisk: when the disk of the state directory is full, nothing is taken that cannot be kept; /readyz says that events wait; and
// when there is room again, everything goes on by itself. What was acknowledged is there after a restart, too.
func TestUpOnFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; -short is set")
	}
	t.Parallel()
	disk := harness.NewDisk(t, 96<<20)
	if !disk.Small {
		testskip.Missing(t, "a small disk cannot be mounted")
	}
	state, addr := filepath.Join(disk.Dir, "state"), testport.Reserve(t)
	env := []string{"SPATE_BROKERS=", "SPATE_LATENESS=2s", "SPATE_IDLE_TIMEOUT=2s"}
	names := kafka.NamesFor(kafka.DefaultTopic)
	up := harness.Spate(t, "up", env, "up", "--state", state, "--listen", addr).Start()
	cl := harness.Connect(t, addr)
	harness.Eventually(t, 20*time.Second, "topics are made", func() bool { return harness.TopicExists(t, cl, names.Activity) })
	send := func(seed string, d time.Duration) *harness.Process {
		return harness.Spate(t, "traffic-"+seed, []string{"SPATE_BROKERS=" + addr}, "simulate", "--time", "now", "--seed", seed, "--event-rate", "2000", "--users", "40000",
			"--duration", d.String(), "--quiet").Start()
	}
	full := send("1", 30*time.Second)
	harness.Eventually(t, 20*time.Second, "events are counted", func() bool {
		_, page := up.Get("/metrics")
		return strings.Contains(page, `spate_detector_batches_total{outcome="applied"}`) && strings.Contains(page, `spate_router_events_total{fate="counted"`)
	})
	if err := disk.Fill(); err != nil {
		t.Fatal(err)
	}
	if err := full.Wait(20 * time.Second); err == nil {
		t.Error("the broker took everything, without room for it")
	}
	harness.Eventually(t, 20*time.Second, "/readyz says that events wait, or nothing waits", func() bool {
		code, page := up.Get("/readyz")
		_, figures := up.Get("/metrics")
		return code == http.StatusServiceUnavailable && strings.Contains(page, "transactions are being aborted") || strings.Contains(figures, "spate_router_lag_events 0\n")
	})
	if err := disk.Free(); err != nil {
		t.Fatal(err)
	}
	if err := send("2", 4*time.Second).Wait(30 * time.Second); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	before := checkUp(t, addr, state)
	up.Kill()
	up.Start()
	harness.Eventually(t, 20*time.Second, "the broker is back", func() bool { return harness.TopicExists(t, cl, names.Activity) })
	if after := checkUp(t, addr, state); after != before {
		t.Errorf("%d alerts before the restart, %d after it", before, after)
	}
}

// TestSecondUp: the state and the port belong to one.
func TestSecondUp(t *testing.T) {
	t.Parallel()
	state, addr := t.TempDir(), testport.Reserve(t)
	env := []string{"SPATE_BROKERS="}
	harness.Spate(t, "first", env, "up", "--state", state, "--listen", addr).Start()
	cl := harness.Connect(t, addr)
	harness.Eventually(t, 20*time.Second, "topics are made", func() bool { return harness.TopicExists(t, cl, "activity") })
	for name, c := range map[string]struct{ state, listen, says string }{
		"state": {state, testport.Reserve(t), "in use by process"},
		"port":  {t.TempDir(), addr, "is using the port"},
	} {
		t.Run(name, func(t *testing.T) {
			second := harness.Spate(t, "second-"+name, env, "up", "--state", c.state, "--listen", c.listen).Start()
			if err := second.Wait(10 * time.Second); err == nil {
				t.Fatal("it runs")
			}
			if out := second.Output(); !strings.Contains(string(out), c.says) {
				t.Errorf("it does not say %q: %s", c.says, out)
			}
		})
	}
}

// TestUpSaysWhoseBrokers: in a shell whose SPATE_BROKERS names brokers that are away, spate up says that it waits for these, and why it has none of its own.
func TestUpSaysWhoseBrokers(t *testing.T) {
	t.Parallel()
	dead := testport.Reserve(t) // nobody listens there
	up := harness.Spate(t, "up", []string{"SPATE_BROKERS=" + dead, "SPATE_STATE=" + t.TempDir()}, "up", "--http", "127.0.0.1:0").Start()
	for _, want := range []string{"using the brokers at " + dead + " (SPATE_BROKERS, --brokers); without this setting, spate up starts its own broker", "connection refused"} {
		harness.Eventually(t, 30*time.Second, "it says "+want, func() bool { return strings.Contains(string(up.Output()), want) })
	}
	own := harness.Spate(t, "up with its own", []string{"SPATE_STATE=" + t.TempDir()}, "up", "--http", "127.0.0.1:0", "--listen", testport.Reserve(t)).Start()
	harness.Eventually(t, 30*time.Second, "it is up", func() bool { return strings.Contains(string(own.Output()), "spate is up") })
	if strings.Contains(string(own.Output()), "using the brokers") {
		t.Errorf("its own broker is taken for somebody else's: %s", own.Output())
	}
}

// TestRunsThatEndGiveUp: what somebody waits for does not wait for ever for a broker that is away.
func TestRunsThatEndGiveUp(t *testing.T) {
	t.Parallel()
	dead := testport.Reserve(t)
	p := harness.Spate(t, "replay", nil, "replay", "--brokers", dead, "../testdata/golden/late.csv.gz").Start()
	err := p.Wait(time.Minute)
	if want := "gave up after 30s: broker is not responding"; err == nil || !strings.Contains(string(p.Output()), want) {
		t.Errorf("%v; it does not say %q: %s", err, want, p.Output())
	}
}

// TestQuietInputClosesWindows: when the input stops, every open window closes within size + lateness + idle timeout.
func TestQuietInputClosesWindows(t *testing.T) {
	t.Parallel()
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		names := kafka.NamesFor(harness.UniqueTopic(t))
		db := filepath.Join(t.TempDir(), "alerts.db")
		env := []string{"SPATE_BROKERS=" + brokers, "SPATE_TOPIC=" + names.Activity, "SPATE_WINDOW=4s", "SPATE_LATENESS=3s", "SPATE_IDLE_TIMEOUT=2s", "SPATE_DATABASE_URL=" + db}
		const bound = 9 * time.Second
		for _, service := range []string{"route", "detect", "alert"} {
			p := harness.Spate(t, service, env, service).Start()
			harness.Eventually(t, time.Minute, service+" is ready", func() bool { code, _ := p.Get("/readyz"); return code == http.StatusOK })
		}
		cl := harness.Connect(t, brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
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
		want := harness.Reference(t, brokers, names.Activity, rule).Result()
		st, err := sqlite.Open(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		alerts := harness.CheckStored(t, st, want, time.Minute)
		t.Logf("%d windows, closed and stored %v after the last event, bound %v", len(want), time.Since(last).Round(10*time.Millisecond), bound)
		for _, a := range alerts {
			if late := a.ClosedAt.Sub(last); late > bound+2*time.Second {
				t.Errorf("closed %v after the last event, bound %v", late, bound)
			}
		}
	})
}
