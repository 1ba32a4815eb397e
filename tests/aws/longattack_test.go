package aws

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"spate/tests/harness"
)

// TestLongAttack: an hour of one attacker is two incidents of three messages each, though worker and alerter are killed in turn after each step of it.
func TestLongAttack(t *testing.T) {
	if testing.Short() {
		t.Skip("-short is set, and it takes a minute")
	}
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	env := harness.OnAWS(t, 1, "SPATE_LATENESS=5s", "SPATE_LEASE=2s", "SPATE_IDLE_TIMEOUT=2s")
	q := subscribe(t, env.TopicARN)
	told, calls := map[string]bool{}, 0
	receive := func() {
		for _, body := range q.receive(t) {
			var m struct{ ID string }
			if err := json.Unmarshal([]byte(body), &m); err != nil || m.ID == "" {
				t.Fatalf("%v: %s", err, body)
			}
			told[m.ID] = true
			calls++
		}
	}
	services := []*harness.Process{harness.Spate(t, "worker", env.Env, "work").Start(), harness.Spate(t, "alerter", env.Env, "alert").Start()}
	send := func(values ...string) {
		t.Helper()
		for part := range slices.Chunk(values, 500) {
			in := &kinesis.PutRecordsInput{StreamName: &env.Stream}
			for _, v := range part {
				in.Records = append(in.Records, types.PutRecordsRequestEntry{PartitionKey: aws.String("k"), Data: []byte(v)})
			}
			if out, err := env.Kinesis.PutRecords(t.Context(), in); err != nil || *out.FailedRecordCount > 0 {
				t.Fatalf("%v, %+v", err, out)
			}
		}
	}
	a := harness.NewAttack(rng, time.Now().Add(-3*time.Hour))
	kills := 0
	for at, more := 0, true; more; kills++ {
		var attacker, others []string
		attacker, others, at, more = a.Step(at, 1+rng.IntN(60), 1)
		send(attacker...)
		send(others...)
		if rng.IntN(2) == 0 {
			harness.Eventually(t, patience, "the step is stored", func() bool { _, n := a.Stored(t, env.Env); return n == a.Counted(at) })
		}
		services[kills%2].Kill()
		services[kills%2].Start()
		receive()
	}
	send(a.After())
	messages := a.Check(t, env.Env)
	harness.Eventually(t, patience, "the topic was told of everything", func() bool {
		receive()
		return len(told) >= len(messages)
	})
	for id := range told {
		if !messages[id] {
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
