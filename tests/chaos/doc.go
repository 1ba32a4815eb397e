// Package chaos injects random, seeded faults into a whole pipeline under load, and then compares its results with the reference. To run it,
// see docs/testing.md.
//
//	plan.go     what happens when, as a function of the seed
//	world.go    the processes, the broker, the load, and how an action is carried out
//	proxy.go    all connections to the broker, which can be cut and stalled
//	check.go    the invariants
package chaos
