package chaos

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
	"time"

	"spate/tests/harness"
)

// faulty returns the program that has the bugs of shared/fault.
func faulty(t *testing.T) string {
	t.Helper()
	path, err := harness.Build("spate-faults", "-tags", "faults")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestReleaseHasNoFaults: what is built without the tag knows nothing of them.
func TestReleaseHasNoFaults(t *testing.T) {
	released, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{released: false, faulty(t): true} {
		program, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(program, []byte("SPATE_FAULT")); got != want {
			t.Errorf("%s has SPATE_FAULT in it: %v", path, got)
		}
		cmd := exec.Command(path, "--help")
		cmd.Env = append(os.Environ(), "SPATE_FAULT=no-such-fault")
		if err := cmd.Run(); (err != nil) != want {
			t.Errorf("%s with an unknown fault: %v", path, err)
		}
	}
}

// TestCheckerCatches switches known bugs on, one at a time, and requires that the invariants fail in one of a few runs: in how many depends on how busy the machine is. The faults of
// these runs are those that bring the bug to light, and everything is as in TestChaos otherwise.
func TestCheckerCatches(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute; -short is set")
	}
	program := faulty(t)
	for _, bug := range []struct {
		name string
		mix  mix
	}{
		// An alert waits for the broker while messages after it are done, and then its detector dies.
		{"commit-max", mix{Kinds: map[kind]int{mute: 1}, Services: []string{"detector"}, Gap: 2 * time.Second}},
		// Events come all the time.
		{"hasty-promise", mix{Kinds: map[kind]int{cut: 1}, Services: []string{"router"}, Gap: 4 * time.Second}},
		// Whoever takes over reads windows in their middle.
		{"no-clamp", mix{Kinds: map[kind]int{kill: 1, restart: 1}, Services: []string{"detector"}, Gap: 2 * time.Second}},
		// Whoever gets a partition back reads what its table knows already.
		{"no-dedupe", mix{Kinds: map[kind]int{join: 1, restart: 1}, Services: []string{"detector"}, Gap: 2 * time.Second}},
		// Transactions are aborted when the group changes and when a router dies.
		{"read-uncommitted", mix{Kinds: map[kind]int{kill: 1, restart: 1, join: 1}, Services: []string{"router"}, Gap: time.Second}},
		// The first events after a takeover are judged by nothing.
		{"watermark-lost", mix{Kinds: map[kind]int{restart: 2, join: 1}, Services: []string{"router"}, Gap: time.Second}},
	} {
		t.Run(bug.name, func(t *testing.T) {
			t.Parallel()
			bug.mix.Rest = 4 * time.Second
			for seed := range uint64(6) {
				w := play(t, setup{Broker: "kfake", Seed: seed + 1, Load: 12 * time.Second, Rate: 2000, Mix: bug.mix, Program: program, Fault: bug.name, Patience: 6 * time.Second})
				if len(w.wrong) > 0 && !w.stuck { // what is stuck is not wrong yet
					t.Logf("caught with seed %d: %q", seed+1, w.wrong)
					return
				}
			}
			t.Error("not caught")
		})
	}
}
