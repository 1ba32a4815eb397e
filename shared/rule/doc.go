// Package rule turns a rules file into what the engine evaluates: it resolves names, determines types, and compiles expressions, keys and aggregates.
// It is pure: it reads no clock, does no I/O and starts no goroutines.
//
// A rule is a Flink SQL statement (package syntax), and its words mean what Apache Flink 2.2 means by them: types, NULL, rounding and order
// are Flink's, as testdata/golden/rules records them. The differences are deliberate and listed in docs/rules.md; the main one is that no row
// stops a rule: what fails a Flink job at run time (division by zero, an impossible cast, an overflow) is NULL here, and counted.
//
// From text to verdict:
//
//	script ── syntax.Parse ──► statements ── Compile ──► Rule: where, key, aggregates over an event's columns;
//	                                                          having, critical, columns over a window's row
//
// A compiled [Expr] owns scratch memory and must not be used by two goroutines at a time: each evaluator of rules compiles its own.
package rule
