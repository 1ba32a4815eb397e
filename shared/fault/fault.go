// Package fault has the bugs that the chaos run (tests/chaos) must be able to see. A checker that never failed proves nothing: with one
// of these switched on, it has to.
//
// They are built with the tag faults only, and then switched on by name, one at a time, by the environment variable SPATE_FAULT. Without
// the tag they are constants, false, and the compiler leaves them out with what they guard.
package fault
