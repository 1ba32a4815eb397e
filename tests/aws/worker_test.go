package aws

import (
	"context"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"spate/services/verifier"
	"spate/shared/alert"
	"spate/tests/harness"
)

// patience is how long a test waits for what has to come. The stand-ins have one thread each, which all tests share: on a machine with a load of
// 34, one call of kinesalite took more than 15 s, and to drain a stream more than a minute. Nothing is concluded from how long it took.
const patience = 5 * time.Minute

// rule of the tests: windows that close within seconds, and a lateness that some of the traffic exceeds.
var rule = verifier.Rule{Window: 4 * time.Second, Lateness: 2 * time.Second, Threshold: 5}

var ruleEnv = []string{"SPATE_WINDOW=4s", "SPATE_LATENESS=2s", "SPATE_LEASE=2s"}

// alerts reads the stream of alerts and checks that no alert has two counts.
func alerts(t *testing.T, a *harness.AWS) (closed []alert.Record, written int) {
	t.Helper()
	counts := map[string]int64{}
	a.Records(a.AlertsStream, func(_ string, r types.Record) {
		rec, err := alert.Parse(r.Data)
		if err != nil {
			t.Fatal(err)
		}
		written++
		if rec.State != alert.Closed {
			return
		}
		if n, there := counts[rec.ID]; there && n != rec.Count {
			t.Errorf("alert %s has the counts %d and %d", rec.ID, n, rec.Count)
		} else if !there {
			closed = append(closed, rec)
		}
		counts[rec.ID] = rec.Count
	})
	return closed, written
}

// check holds the stream of alerts, and the worker's own account of the events, against the reference.
func check(t *testing.T, a *harness.AWS, ref *verifier.Reference) {
	t.Helper()
	closed, written := alerts(t, a)
	want := ref.Result()
	if d := verifier.Compare(want, closed); !d.Exact() {
		t.Errorf("alerts: %+v", d)
	}
	st, _ := a.State()
	n := st.Tally
	t.Logf("%d events, %d alerts, %d records written; %d epochs, %d saves; tally %+v", ref.In, len(want), written, st.Epoch, st.Saves, n)
	if len(want) == 0 {
		t.Error("there is nothing to find: the test proves nothing")
	}
	if n.In != ref.In || n.Counted != ref.Counted || n.Late != ref.Late || n.Invalid != ref.Invalid || n.Idle != 0 || n.Lost != 0 {
		t.Errorf("accounted: %+v; reference: in %d, counted %d, late %d, invalid %d", n, ref.In, ref.Counted, ref.Late, ref.Invalid)
	}
}

// drain reads what is left and closes all windows.
func drain(t *testing.T, a *harness.AWS, env []string) {
	t.Helper()
	p := harness.Spate(t, "drain", env, "work", "--drain").Start()
	if err := p.Wait(patience); err != nil {
		t.Fatalf("spate work --drain: %v", err)
	}
}

// TestWorkerKilledWhileShardsChange kills the worker with kill -9, twenty times, while shards are split and merged under traffic of which
// some comes too late. Another worker stands by all the time.
func TestWorkerKilledWhileShardsChange(t *testing.T) {
	if testing.Short() {
		t.Skip("-short is set, and it takes a minute")
	}
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	// Silence is not looked at: what it makes late depends on the wall clock, and the reference has none.
	a := harness.OnAWS(t, 4, append(slices.Clone(ruleEnv), "SPATE_IDLE_TIMEOUT=0", "SPATE_THRESHOLD=5")...)
	const kills = 20
	load := kills * 5 * time.Second
	traffic := harness.Spate(t, "traffic", a.Env, "simulate", "--time", "shift", "--disorder", "3s", "--event-rate", "400", "--users", "3000", "--window", "4s",
		"--duration", load.String(), "--seed", fmt.Sprint(rng.IntN(1000)), "--quiet").Start()
	killAndReshard(t, a, rng, traffic, kills, func(int) {})
	if err := traffic.Wait(load + patience); err != nil {
		t.Fatal(err)
	}
	drain(t, a, a.Env)
	ref := a.Reference(rule)
	if ref.Late == 0 {
		t.Error("nothing was late: the test proves less than it should")
	}
	check(t, a, ref)
}

// killAndReshard kills workers with kill -9, while another stands by, and splits and merges shards, under traffic that must last. before is called before
// each kill. At the end of the traffic, no worker is left.
func killAndReshard(t *testing.T, a *harness.AWS, rng *rand.Rand, traffic *harness.Process, kills int, before func(kill int)) {
	t.Helper()
	workers := []*harness.Process{
		harness.Spate(t, "worker-1", named(a, "one"), "work").Start(),
		harness.Spate(t, "worker-2", named(a, "two"), "work").Start(),
	}
	epoch := int64(0)
	for i := range kills {
		// Only who works is killed: each time it is another life.
		var st harness.State
		harness.Eventually(t, patience, "a worker works", func() bool {
			var ok bool
			st, ok = a.State()
			return ok && st.Epoch > epoch
		})
		epoch = st.Epoch
		before(i)
		if i%4 == 1 {
			split(t, a, rng)
		}
		if i%4 == 3 {
			merge(t, a, rng)
		}
		select {
		case <-time.After(time.Duration(rng.Int64N(int64(2 * time.Second)))): // the moment is what is random here
		case <-traffic.Done():
			t.Fatalf("traffic ended early: %v", traffic.Err())
		}
		victim := workers[0]
		if st.Owner == "two" {
			victim = workers[1]
		}
		victim.Kill()
		victim.Start()
	}
	// The traffic goes on with the workers there are, to its end.
	<-traffic.Done()
	for _, w := range workers {
		w.Kill()
	}
}

// named is the environment of a process with a name.
func named(a *harness.AWS, name string) []string {
	return slices.Concat(a.Env, []string{"SPATE_INSTANCE=" + name})
}

// open returns the shards that are not closed, by their hash keys.
func open(t *testing.T, a *harness.AWS) []types.Shard {
	t.Helper()
	out, err := a.Kinesis.ListShards(context.Background(), &kinesis.ListShardsInput{StreamName: aws.String(a.Stream)})
	if err != nil {
		t.Fatal(err)
	}
	shards := slices.DeleteFunc(out.Shards, func(s types.Shard) bool { return s.SequenceNumberRange.EndingSequenceNumber != nil })
	slices.SortFunc(shards, func(x, y types.Shard) int {
		return number(*x.HashKeyRange.StartingHashKey).Cmp(number(*y.HashKeyRange.StartingHashKey))
	})
	return shards
}

func number(s string) *big.Int {
	n, _ := new(big.Int).SetString(s, 10)
	return n
}

func split(t *testing.T, a *harness.AWS, rng *rand.Rand) {
	t.Helper()
	shards := open(t, a)
	s := shards[rng.IntN(len(shards))]
	from, to := number(*s.HashKeyRange.StartingHashKey), number(*s.HashKeyRange.EndingHashKey)
	middle := from.Add(from, to).Rsh(from, 1)
	if _, err := a.Kinesis.SplitShard(context.Background(), &kinesis.SplitShardInput{StreamName: aws.String(a.Stream), ShardToSplit: s.ShardId, NewStartingHashKey: aws.String(middle.String())}); err != nil {
		t.Fatal(err)
	}
}

func merge(t *testing.T, a *harness.AWS, rng *rand.Rand) {
	t.Helper()
	shards := open(t, a)
	i := rng.IntN(len(shards) - 1)
	if _, err := a.Kinesis.MergeShards(context.Background(), &kinesis.MergeShardsInput{StreamName: aws.String(a.Stream), ShardToMerge: shards[i].ShardId, AdjacentShardToMerge: shards[i+1].ShardId}); err != nil {
		t.Fatal(err)
	}
}

// TestWorkersTakeOver starts two workers at once: one works. The other takes over when it is killed, and when it is frozen; and the one that
// was frozen writes nothing more when it goes on.
func TestWorkersTakeOver(t *testing.T) {
	if testing.Short() {
		t.Skip("-short is set, and it takes half a minute")
	}
	t.Parallel()
	a := harness.OnAWS(t, 2, append(slices.Clone(ruleEnv), "SPATE_IDLE_TIMEOUT=0")...)
	lease := 4 * time.Second
	workers := map[string]*harness.Process{}
	for _, name := range []string{"one", "two"} {
		workers[name] = harness.Spate(t, name, slices.Concat(named(a, name), []string{"SPATE_LEASE=" + lease.String()}), "work").Start()
	}
	owner := func() string { st, _ := a.State(); return st.Owner }
	other := func(name string) string {
		if name == "one" {
			return "two"
		}
		return "one"
	}
	harness.Eventually(t, patience, "one of them works", func() bool { return owner() != "" })
	first := owner()
	harness.Eventually(t, patience, "the other stands by", func() bool {
		return strings.Contains(string(workers[other(first)].Output()), `"standing by"`)
	})
	traffic := harness.Spate(t, "traffic", a.Env, "simulate", "--time", "shift", "--event-rate", "300", "--users", "2000", "--window", "4s", "--duration", "25s", "--quiet").Start()

	killed := time.Now()
	workers[first].Kill()
	harness.Eventually(t, patience, "the other takes over", func() bool { return owner() == other(first) })
	t.Logf("took over %v after the kill, the lease is %v", time.Since(killed).Round(10*time.Millisecond), lease)
	workers[first].Start()

	// Frozen for longer than its lease, in the middle of its work.
	frozen := other(first)
	harness.Eventually(t, patience, "it has written alerts", func() bool { _, n := alerts(t, a); return n > 0 })
	workers[frozen].Signal(syscall.SIGSTOP)
	harness.Eventually(t, patience, "the first takes over again", func() bool { return owner() == first })
	st, _ := a.State()
	workers[frozen].Signal(syscall.SIGCONT)
	harness.Eventually(t, patience, "the frozen one finds that it may not write any more", func() bool {
		return strings.Contains(string(workers[frozen].Output()), "lease lost")
	})
	if err := traffic.Wait(patience); err != nil {
		t.Fatal(err)
	}
	if now, _ := a.State(); now.Epoch != st.Epoch || now.Owner != first {
		t.Errorf("epoch %d of %s, then %d of %s: the frozen one has written", st.Epoch, st.Owner, now.Epoch, now.Owner)
	}
	for _, w := range workers {
		if err := w.Stop(20 * time.Second); err != nil {
			t.Errorf("%s does not end well on SIGTERM: %v", w.Name, err)
		}
	}
	drain(t, a, a.Env)
	check(t, a, a.Reference(rule))
}
