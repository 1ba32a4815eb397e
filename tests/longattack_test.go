package tests

import (
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/kafka"
	"spate/shared/notify/webhook"
	"spate/shared/store/postgres/postgrestest"
	"spate/tests/harness"
)

// TestLongAttack: an hour of one attacker is two incidents of three messages each, whatever is killed in between: each service in turn, after each step of the attack.
func TestLongAttack(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes; -short is set")
	}
	for name, database := range map[string]func(testing.TB) string{
		"sqlite":   func(t testing.TB) string { return filepath.Join(t.TempDir(), "alerts.db") },
		"postgres": postgrestest.URL,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testLongAttack(t, database(t))
		})
	}
}

func testLongAttack(t *testing.T, database string) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	broker := harness.OwnKfake(t)
	broker.Up()
	secret := webhook.NewSecret()
	hook := newReceiver(t, secret)
	env := []string{"SPATE_BROKERS=" + broker.Addr, "SPATE_DATABASE_URL=" + database, "SPATE_PARTITIONS=2", "SPATE_LATENESS=5s", "SPATE_IDLE_TIMEOUT=2s",
		"SPATE_ENDPOINTS=" + endpoints(t, "http://"+hook.addr+"/", secret, "people")}
	services := []*harness.Process{
		harness.Spate(t, "router", env, "route", "--instance", "router-1").Start(),
		harness.Spate(t, "detector", env, "detect").Start(),
		harness.Spate(t, "alerter", env, "alert").Start(),
	}
	ready := func(p *harness.Process) {
		t.Helper()
		harness.Eventually(t, time.Minute, p.Name+" is ready", func() bool { code, _ := p.Get("/readyz"); return code == 200 })
	}
	for _, p := range services {
		ready(p)
	}
	cl := harness.Connect(t, broker.Addr, kgo.DefaultProduceTopic(kafka.NamesFor(kafka.DefaultTopic).Activity), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	send := func(values ...string) {
		t.Helper()
		var records []*kgo.Record
		for i, v := range values {
			records = append(records, &kgo.Record{Partition: int32(i % 2), Value: []byte(v)})
		}
		if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}

	// Of the last hours, in steps of one to sixty windows. Others go on all the time, in both partitions, so event time does.
	a := harness.NewAttack(rng, time.Now().Add(-3*time.Hour))
	kills := 0
	for at, more := 0, true; more; kills++ {
		var attacker, others []string
		attacker, others, at, more = a.Step(at, 1+rng.IntN(60), 2)
		send(attacker...)
		send(others...)
		// In the middle of it, or when it is stored.
		if rng.IntN(2) == 0 {
			harness.Eventually(t, time.Minute, "the step is stored", func() bool { _, n := a.Stored(t, env); return n == a.Counted(at) })
		}
		victim := services[kills%len(services)]
		victim.Kill()
		victim.Start()
		ready(victim) // kfake keeps a member for ever that dies while it joins
	}
	send(a.After(), a.After())
	messages := a.Check(t, env)
	harness.Eventually(t, time.Minute, "all messages are told", func() bool { return len(hook.got()) >= len(messages) })
	calls := 0
	for id, n := range hook.got() {
		if calls += n; !messages[id] {
			t.Errorf("%s was told, which is not one of the six messages", id)
		}
	}
	t.Logf("%d kills, %d calls for %d messages", kills, calls, len(messages))
	for _, p := range services {
		if err := p.Stop(20 * time.Second); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}
