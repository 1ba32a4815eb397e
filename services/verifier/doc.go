// Package verifier is the independent reference: it computes the alerts that a log must produce, so that they can be compared with the
// alerts that the pipeline stored. It shares no code with the engine, neither for windows nor for times or JSON
// fields, so a mistake would have to be made twice to go unnoticed.
//
// From the rest of the program, it uses only the record that it compares (package alert) and the partitioning of keys (package
// kafka), which is Kafka's own.
//
// The one rule of a pipeline without a rules file has its own, plain reference ([Reference]). The rules of a file are evaluated by SQLite
// ([Rules]): it has the text of a rule in common with the engine, and neither its parser nor its types, functions or sums.
//
//	script ── statements ──► tokens ── translate ──► SELECT … in SQLite's words, with types ──┐
//	events ── load ──► a table: columns, time, highest time of the partition before ──────────┴──► rows
//
// The plain reference keeps every (user, window) in memory, judges a partition's events in the order in which it gets them, and has no notion of
// idle partitions: an event that is late only because its partition was silent (reason "idle") is counted here, unless it is added with AddIdleJSON.
package verifier
