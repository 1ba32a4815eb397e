package chaos

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"spate/tests/harness"
)

var (
	duration = flag.Duration("duration", time.Minute, "how long each run has load")
	seed     = flag.Uint64("seed", 0, "seed of the first run; 0 is a new one")
	seeds    = flag.Int("seeds", 1, "runs, with seeds that follow each other")
	broker   = flag.String("broker", "both", "kfake, kafka or both, which run side by side")
	fault    = flag.String("fault", "", "bug of shared/fault that is switched on")
	noise    = flag.Duration("noise", 20*time.Second, "how long TestNoise has traffic")
)

func TestMain(m *testing.M) { harness.Main(m) }

// TestChaos lets random faults befall several of each service under load, and then holds everything against the reference.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes; -short is set")
	}
	first := *seed
	if first == 0 {
		first = uint64(time.Now().Unix())
	}
	brokers := []string{*broker}
	if *broker == "both" {
		brokers = []string{"kfake", "kafka"}
	}
	var program string
	if *fault != "" {
		program = faulty(t)
	}
	for _, b := range brokers {
		t.Run(b, func(t *testing.T) {
			t.Parallel()
			for i := range *seeds {
				t.Run(fmt.Sprint("seed=", first+uint64(i)), func(t *testing.T) {
					s := setup{Broker: b, Seed: first + uint64(i), Load: *duration, Rate: 5000, Mix: everything(restOn(b)), Program: program, Fault: *fault, Patience: time.Minute}
					w := play(t, s)
					for _, v := range w.wrong {
						t.Error(v)
					}
					if t.Failed() {
						w.keep()
						t.Logf("again: make chaos BROKER=%s SEED=%d DURATION=%v", b, s.Seed, s.Load)
					}
				})
			}
		})
	}
}

// restOn is how long a service needs between two faults that its group has to notice: kfake keeps a member for ever that dies while it
// joins (harness.Broker, KeepsDead).
func restOn(broker string) time.Duration {
	if broker == "kfake" {
		return 8 * time.Second
	}
	return time.Second
}

// play makes a run; what was wrong is in the world that it returns.
func play(t *testing.T, s setup) *world {
	t.Helper()
	plan := newPlan(s.Seed, s.Load, s.Mix)
	var text strings.Builder
	for _, a := range plan {
		fmt.Fprintf(&text, "\n  %v", a)
	}
	t.Logf("broker %s, seed %d, %v of load, plan:%s", s.Broker, s.Seed, s.Load, text.String())
	w := newWorld(t, s)
	w.run(plan)
	w.judge()
	w.end()
	return w
}
