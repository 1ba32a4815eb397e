package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
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

// TestKilledServices kills every service with kill -9, ten times in all at random moments, while 20,000 events a second flow, and then
// holds everything against the log: every count exact, every alert there once, every event accounted for.
func TestKilledServices(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes a broker")
	}
	onBrokersTogether(t, func(t *testing.T, brokers string) {
		every := 4 * time.Second
		if strings.HasSuffix(t.Name(), "kfake") {
			// The group must be able to notice a kill (6 s) before the next: kfake keeps a member for ever that dies while it joins.
			every = 8 * time.Second
		}
		testFaults(t, brokers, 10, every, func(p *process) string {
			p.kill()
			p.start()
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
	onBrokersTogether(t, func(t *testing.T, brokers string) {
		testFaults(t, brokers, 3, 10*time.Second, func(p *process) string {
			p.signal(syscall.SIGSTOP)
			<-time.After(8 * time.Second) // the session times out after 6 s
			p.signal(syscall.SIGCONT)
			return "froze"
		})
	})
}

// testFaults lets traffic flow while a fault befalls one service after another.
func testFaults(t *testing.T, brokers string, faults int, every time.Duration, fault func(*process) string) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	names := kafka.NamesFor(uniqueTopic(t))
	rule := verifier.Rule{Window: 10 * time.Second, Lateness: 5 * time.Second, Threshold: 3}
	db := filepath.Join(t.TempDir(), "alerts.db")
	env := []string{"SPATE_BROKERS=" + brokers, "SPATE_TOPIC=" + names.Activity, "SPATE_LATENESS=5s", "SPATE_IDLE_TIMEOUT=3s", "SPATE_THRESHOLD=3", "SPATE_DATABASE_URL=" + db, "SPATE_PARTITIONS=4"}
	victims := []*process{
		spate(t, "router-1", env, "route", "--instance", names.Activity+"-1").start(),
		spate(t, "router-2", env, "route", "--instance", names.Activity+"-2").start(),
		spate(t, "detector-1", env, "detect").start(),
		spate(t, "detector-2", env, "detect").start(),
		spate(t, "alerter", env, "alert").start(),
	}
	cl := connect(t, brokers)
	eventually(t, 30*time.Second, "topics are made", func() bool { return topicExists(t, cl, names.Activity) })

	load := time.Duration(faults+1)*every + 5*time.Second
	traffic := spate(t, "traffic", env, "simulate", "--time", "now", "--event-rate", "20000", "--users", "300000", "--threshold", "5", "--duration", load.String(), "--seed", fmt.Sprint(rng.IntN(1000)), "--quiet", "--json").start()
	order := rng.Perm(faults)
	next := time.Now()
	for i := range faults {
		next = next.Add(every)
		select {
		case <-time.After(time.Until(next) + time.Duration(rng.Int64N(int64(every/5)))): // the moment is what is random here
		case <-traffic.done:
			t.Fatalf("traffic ended early: %v", traffic.err)
		}
		v := victims[order[i]%len(victims)]
		t.Logf("%s %s", fault(v), v.name)
	}
	if err := traffic.wait(load); err != nil {
		t.Fatal(err)
	}
	quiet := time.Now()

	ref := reference(t, brokers, names.Activity, rule)
	want := ref.Result()
	t.Logf("%d events, %d rows", ref.In, len(want))
	st, err := sqlite.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	eventually(t, 60*time.Second, "all windows are closed and stored", func() bool {
		n, err := st.Count(t.Context())
		return err == nil && n.Opened == 0 && n.Closed >= int64(len(want))
	})
	var got []alert.Record
	var last time.Time
	for a, err := range st.Alerts(t.Context(), store.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a.Record)
		if a.ClosedAt.After(last) {
			last = a.ClosedAt
		}
	}
	t.Logf("last window closed %v after the traffic ended", last.Sub(quiet).Round(100*time.Millisecond))
	if d := verifier.Compare(want, got); !d.Exact() || len(got) != len(want) {
		t.Errorf("stored alerts: %d of %d, %+v", len(got), len(want), d)
	}
	checkLog(t, brokers, names, ref)
	checkAlertTopic(t, brokers, names, len(want))
	for _, v := range victims {
		if err := v.stop(10 * time.Second); err != nil {
			t.Errorf("%s does not end well on SIGTERM: %v", v.name, err)
		}
	}
}

// checkLog holds the keyed log and the side topics against the topic of events.
func checkLog(t *testing.T, brokers string, names kafka.Names, ref *verifier.Reference) {
	t.Helper()
	var counted int64
	counts := keyedCounts(t, brokers, names.Keyed)
	for _, n := range counts {
		counted += n
	}
	late := readAll(t, brokers, names.Late, func(*kgo.Record) {})
	invalid := readAll(t, brokers, names.DLQ, func(*kgo.Record) {})
	t.Logf("%d in = %d counted + %d late + %d invalid", ref.In, counted, late, invalid)
	if counted != ref.Counted || late != ref.Late || invalid != ref.Invalid || counted+late+invalid != ref.In {
		t.Errorf("accounts: in %d, counted %d (want %d), late %d (want %d), invalid %d (want %d)", ref.In, counted, ref.Counted, late, ref.Late, invalid, ref.Invalid)
	}
	wrong := 0
	for _, row := range ref.Above(0) {
		if counts[userWindow{row.User, row.WindowStart}] != row.Count {
			wrong++
		}
		delete(counts, userWindow{row.User, row.WindowStart})
	}
	if wrong > 0 || len(counts) > 0 {
		t.Errorf("%d windows have another count in the keyed log, %d are in it alone", wrong, len(counts))
	}
}

// checkAlertTopic: whatever was written twice was written with the same content.
func checkAlertTopic(t *testing.T, brokers string, names kafka.Names, want int) {
	t.Helper()
	type key struct {
		id    string
		state alert.State
	}
	content := map[key]string{}
	var conflicts, repeats int
	readAll(t, brokers, names.Alerts, func(r *kgo.Record) {
		var a alert.Record
		if err := json.Unmarshal(r.Value, &a); err != nil {
			t.Fatal(err)
		}
		k := key{a.ID, a.State}
		was, ok := content[k]
		switch {
		case !ok:
			content[k] = string(r.Value)
		case was != string(r.Value):
			conflicts++
			if conflicts == 1 {
				t.Errorf("told twice, differently:\n%s\n%s", was, r.Value)
			}
		default:
			repeats++
		}
	})
	t.Logf("%d alert records, %d of them told again", len(content)+repeats, repeats)
	if conflicts > 0 || len(content) != 2*want {
		t.Errorf("%d conflicts; %d different records, want %d", conflicts, len(content), 2*want)
	}
}

func topicExists(t *testing.T, cl *kgo.Client, topic string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	found, err := adminOf(cl).ListTopics(ctx, topic)
	return err == nil && found[topic].Err == nil && len(found[topic].Partitions) > 0
}
