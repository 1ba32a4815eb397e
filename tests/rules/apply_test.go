package rules

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"spate/shared/revision"
	"spate/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// The rules of the three revisions: some stay, one changes its threshold and one its window, some come and go; feeds are shared, and are not.
const (
	stays = `-- rule: burst
INSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 8;
-- rule: products
INSERT INTO alerts SELECT user_id, COUNT(DISTINCT product_id) AS products FROM activity GROUP BY HOP(txn_timestamp, INTERVAL '5' SECOND, INTERVAL '20' SECOND), user_id HAVING COUNT(DISTINCT product_id) > 12;
`
	goes = `-- rule: carts
INSERT INTO alerts SELECT brand, COUNT(*) AS n FROM activity WHERE event_type = 'cart' GROUP BY TUMBLE(txn_timestamp, INTERVAL '5' SECOND), brand HAVING COUNT(*) > 3;
`
	comes = `-- rule: session
INSERT INTO alerts SELECT user_session, COUNT(*) AS n, MIN(price) AS low, MAX(price) AS high FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '7' SECOND), user_session HAVING COUNT(*) > 6;
-- rule: spender
INSERT INTO alerts SELECT user_id, COUNT(*) AS n, SUM(product_id) AS total FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > 9;
`
)

func changes(more int, size int) string {
	return fmt.Sprintf(`-- rule: brands
INSERT INTO alerts SELECT brand, COUNT(*) AS n FROM TABLE(CUMULATE(TABLE activity, DESCRIPTOR(txn_timestamp), INTERVAL '2' SECOND, INTERVAL '%d' SECOND)) WHERE event_type = 'view' GROUP BY brand, window_start, window_end HAVING COUNT(*) > %d;
`, size, more)
}

// TestApplyUnderLoad: rules change twice while events flow, and around each boundary routers and detectors are killed with SIGKILL or frozen. The
// alerts are those that SQLite finds in the log: in each window by the revision in force at its start. Rules that did not change lose no window and
// split none.
func TestApplyUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes; -short is set")
	}
	seeds, first := number(t, "SPATE_TEST_SEEDS", 1), number(t, "SPATE_TEST_SEED", 1)
	for seed := first; seed < first+seeds; seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			harness.OnBrokersTogether(t, func(t *testing.T, brokers string) { applyUnderLoad(t, brokers, uint64(seed)) })
		})
	}
}

func applyUnderLoad(t *testing.T, brokers string, seed uint64) {
	rate := number(t, "SPATE_TEST_RATE", 1000)
	w := newWorld(t, brokers, 4, 3*time.Second)
	w.apply(stays + goes + changes(rate/60, 6))
	var victims []*harness.Process
	for i := range 2 {
		router := harness.Spate(t, fmt.Sprintf("router-%d", i+1), w.env, "route", "--instance", fmt.Sprintf("%s-%d", w.names.Activity, i+1))
		detector := harness.Spate(t, fmt.Sprintf("detector-%d", i+1), w.env, "detect")
		victims = append(victims, router.Start(), detector.Start())
	}
	harness.Spate(t, "alerter", w.env, "alert").Start()
	load := harness.Spate(t, "load", w.env, "simulate", "--time", "shift", "--disorder", "4s", "--threshold", "5", "--event-rate", strconv.Itoa(rate), "--users", strconv.Itoa(12*rate),
		"--duration", (revision.Margin + 35*time.Second).String(), "--seed", strconv.FormatUint(seed, 10), "--quiet").Start()
	<-time.After(5 * time.Second) // the first windows are open
	second := w.apply(stays + changes(rate/50, 6) + comes)
	<-time.After(8 * time.Second)
	third := w.apply(stays + goes + changes(rate/50, 8) + comes)

	r := rand.New(rand.NewPCG(seed, 7))
	var faults sync.WaitGroup
	for _, e := range []revision.Entry{second, third} {
		order := r.Perm(len(victims))
		for _, v := range order[:2] {
			at, freeze, d := time.UnixMilli(e.BoundaryMS).Add(time.Duration(r.IntN(5000)-4000)*time.Millisecond), r.IntN(2) == 0, time.Duration(1000+r.IntN(7000))*time.Millisecond
			faults.Go(func() { hurt(t, victims[v], at, freeze, d) })
		}
		faults.Wait()
	}
	if err := load.Wait(revision.Margin + time.Minute); err != nil {
		t.Fatal(err)
	}
	w.compare()
}

// hurt kills a process and starts it again, or freezes it, for some time.
func hurt(t *testing.T, p *harness.Process, at time.Time, freeze bool, d time.Duration) {
	<-time.After(time.Until(at))
	if freeze {
		p.Signal(syscall.SIGSTOP)
		<-time.After(d)
		p.Signal(syscall.SIGCONT)
		t.Logf("%s %s was frozen for %v", time.Now().UTC().Format("15:04:05.000"), p.Name, d)
		return
	}
	p.Kill()
	<-time.After(d)
	p.Start()
	t.Logf("%s %s is back, killed %v before", time.Now().UTC().Format("15:04:05.000"), p.Name, d)
}
