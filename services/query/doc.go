// Package query answers SQL about a time range of the log, or about files: events, late events, dead letters, alerts and incidents are virtual tables of SQLite, read
// as the statement asks for them.
//
//	statement ── check, rewrite ──► SQLite ── BestIndex, Filter ──► scan: which part of which topic ──► [Log]
//	              │                     ▲                                                                │
//	              │                     └──────── rows, only the columns that are used ◄──── decode ◄────┘
//	              └── groups by a window ──► the engine (package window) over the same log
//
// # What is read
//
// A scan reads every partition from an offset to an offset. Conditions on _partition, _offset and _timestamp narrow that range, as does a lower bound of the event time: an
// event whose time is further ahead of its append time than the pipeline accepts is invalid, so no event from T on was appended before T minus that. An upper bound of the event time
// narrows nothing, because late events can come at any time. SQLite evaluates all conditions again: pruning decides what is read, never what is found.
//
// # Bounds
//
// A scan that reaches a bound, or is interrupted, ends early, and SQLite finishes the statement over what was read: the result is partial, and [Summary] says so and why.
// Rows wait between reading and SQLite in a queue of a few batches; sorts and groups spill to temporary files.
//
// # Safety
//
// Statements come from people and from browsers: the authorizer of the connection lets them read the tables here, and nothing else. The database is in memory and has no data.
package query
