// Package chaos lets faults befall a whole pipeline under load, at random and from a seed, and then holds what came out against the
// reference. docs/testing.md says how to run it.
//
//	plan.go     what happens when: a function of the seed
//	world.go    the processes, the broker, the load, and how an action is carried out
//	proxy.go    all connections to the broker, which can be cut and held up
//	check.go    the invariants
package chaos
