package chaos

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPlan: the seed decides what happens, everything happens to everyone sooner or later, and nobody is in two faults at once.
func TestPlan(t *testing.T) {
	const load = time.Minute
	m := everything(time.Second)
	kinds, victims := map[kind]int{}, map[string]int{}
	for seed := range uint64(50) {
		plan := newPlan(seed, load, m)
		if !slices.Equal(plan, newPlan(seed, load, m)) {
			t.Fatalf("seed %d has two plans", seed)
		}
		if slices.Equal(plan, newPlan(seed+1, load, m)) {
			t.Errorf("seeds %d and %d have one plan", seed, seed+1)
		}
		until := map[string]time.Duration{}
		last := warmUp
		for _, a := range plan {
			if a.At < last || a.At >= load {
				t.Errorf("seed %d: %v is not within the load, or not in order", seed, a)
			}
			if a.At <= until[a.Victim] {
				t.Errorf("seed %d: %v while another fault lasts", seed, a)
			}
			if a.Kind == freeze && a.For <= 6*time.Second {
				t.Errorf("seed %d: %v is no longer than a session", seed, a)
			}
			last, until[a.Victim] = a.At, a.At+a.For
			kinds[a.Kind]++
			victims[a.Victim]++
		}
	}
	for k := range m.Kinds {
		if kinds[k] == 0 {
			t.Errorf("in 50 plans there is no %s", k)
		}
	}
	for _, name := range []string{theBroker, theLoad, theDisk} {
		if victims[name] == 0 {
			t.Errorf("in 50 plans nothing befalls the %s", name)
		}
	}
	for _, s := range services {
		for _, name := range s.members() {
			if victims[name] == 0 {
				t.Errorf("in 50 plans nothing befalls %s", name)
			}
		}
	}
	t.Log(kinds, victims)
}

// TestPlanRests: after a fault that a group has to notice by itself, its service has no other for a while, and after a crash of the broker no service
// has one. The broker is up for a while between two crashes.
func TestPlanRests(t *testing.T) {
	m := everything(8 * time.Second)
	for seed := range uint64(50) {
		until := map[string]time.Duration{} // by service, and of the broker
		for _, a := range newPlan(seed, time.Minute, m) {
			victim, _, _ := strings.Cut(a.Victim, "-")
			if a.Kind != crash && !vanishes(a.Kind) {
				continue
			}
			if a.At < until[victim] {
				t.Errorf("seed %d: %v comes too early", seed, a)
			}
			until[victim] = a.At + a.For + m.Rest
			if a.Kind == crash {
				until[victim] = a.At + a.For + brokerRest
				for _, s := range services {
					until[s.Name] = max(until[s.Name], a.At+a.For+m.Rest)
				}
			}
		}
	}
}
