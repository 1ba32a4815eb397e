// Package fault contains deliberate bugs that the chaos run (tests/chaos) must be able to detect. A checker that never fails proves nothing;
// with one of these bugs switched on, it must fail.
//
// They exist only in builds with the tag faults, and are switched on by name, one at a time, with the environment variable SPATE_FAULT.
// Without the tag they are constants with the value false, so the compiler removes them and the code they guard.
package fault
