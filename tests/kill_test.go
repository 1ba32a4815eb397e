package tests

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"spate/services/verifier"
	"spate/shared/kafka"
	"spate/shared/store/sqlite"
	"spate/tests/harness"
)

// TestKilledServices kills every service with kill -9, ten times in all at random moments, while 5,000 events a second flow, and then
// holds everything against the log: every count exact, every alert there once, every event accounted for.
func TestKilledServices(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes a broker")
	}
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		every := 4 * time.Second
		if onKfake(t) {
			// The group must be able to notice a kill (6 s) before the next: kfake keeps a member for ever that dies while it joins.
			every = 8 * time.Second
		}
		testFaults(t, brokers, 10, every, !onKfake(t), func(p *harness.Process) string {
			p.Kill()
			p.Start()
			return "killed"
		})
	})
}

// TestZombies freezes services for longer than their sessions last: others take over, and then the frozen one wakes up and believes that
// everything is still its own.
func TestZombies(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute a broker")
	}
	harness.OnBrokersTogether(t, func(t *testing.T, brokers string) {
		testFaults(t, brokers, 3, 10*time.Second, onKfake(t), func(p *harness.Process) string {
			p.Signal(syscall.SIGSTOP)
			<-time.After(8 * time.Second) // the session times out after 6 s
			p.Signal(syscall.SIGCONT)
			return "froze"
		})
	})
}

func onKfake(t *testing.T) bool { return strings.HasSuffix(t.Name(), "kfake") }

// testFaults lets traffic flow while a fault befalls one service after another. With once, events of a user with the same product count once in a window,
// as events do that were sent twice.
func testFaults(t *testing.T, brokers string, faults int, every time.Duration, once bool, fault func(*harness.Process) string) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	names := kafka.NamesFor(harness.UniqueTopic(t))
	rule := verifier.Rule{Window: 10 * time.Second, Lateness: 5 * time.Second, Threshold: 3}
	db := filepath.Join(t.TempDir(), "alerts.db")
	env := []string{"SPATE_BROKERS=" + brokers, "SPATE_TOPIC=" + names.Activity, "SPATE_LATENESS=5s", "SPATE_IDLE_TIMEOUT=3s", "SPATE_THRESHOLD=3", "SPATE_DATABASE_URL=" + db, "SPATE_PARTITIONS=4"}
	if once {
		rule.ID = "product_id"
		env = append(env, "SPATE_DEDUPE_FIELD=product_id")
	}
	victims := []*harness.Process{
		harness.Spate(t, "router-1", env, "route", "--instance", names.Activity+"-1").Start(),
		harness.Spate(t, "router-2", env, "route", "--instance", names.Activity+"-2").Start(),
		harness.Spate(t, "detector-1", env, "detect").Start(),
		harness.Spate(t, "detector-2", env, "detect").Start(),
		harness.Spate(t, "alerter", env, "alert").Start(),
	}
	cl := harness.Connect(t, brokers)
	harness.Eventually(t, 30*time.Second, "topics are made", func() bool { return harness.TopicExists(t, cl, names.Activity) })

	load := time.Duration(faults+1)*every + 5*time.Second
	traffic := harness.Spate(t, "traffic", env, "simulate", "--time", "now", "--event-rate", "5000", "--users", "75000", "--threshold", "5", "--duration", load.String(), "--seed", fmt.Sprint(rng.IntN(1000)), "--quiet", "--json").Start()
	order := rng.Perm(faults)
	next := time.Now()
	for i := range faults {
		next = next.Add(every)
		select {
		case <-time.After(time.Until(next) + time.Duration(rng.Int64N(int64(every/5)))): // the moment is what is random here
		case <-traffic.Done():
			t.Fatalf("traffic ended early: %v", traffic.Err())
		}
		v := victims[order[i]%len(victims)]
		t.Logf("%s %s", fault(v), v.Name)
	}
	if err := traffic.Wait(load); err != nil {
		t.Fatal(err)
	}
	quiet := time.Now()

	ref := harness.Reference(t, brokers, names.Activity, rule)
	want := ref.Result()
	t.Logf("%d events, %d of them a second time, %d rows", ref.In, ref.Repeated, len(want))
	if once && ref.Repeated < ref.In/100 {
		t.Errorf("%d of %d events came a second time: nothing is shown", ref.Repeated, ref.In)
	}
	st, err := sqlite.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var last time.Time
	for _, a := range harness.CheckStored(t, st, want, time.Minute) {
		if a.ClosedAt.After(last) {
			last = a.ClosedAt
		}
	}
	t.Logf("last window closed %v after the traffic ended", last.Sub(quiet).Round(100*time.Millisecond))
	harness.CheckLog(t, brokers, names, ref)
	harness.CheckAlertTopic(t, brokers, names, len(want))
	for _, v := range victims {
		if err := v.Stop(10 * time.Second); err != nil {
			t.Errorf("%s does not end well on SIGTERM: %v", v.Name, err)
		}
	}
}
