// Package postgres keeps alerts in a Postgres database (12 or newer), which several alerters may share. It adapts pgx.
//
// # Apply
//
//	one statement, which is its own transaction: one round trip for a slice
//	  next    what the slice comes to, an array a column
//	  seen    beside it, what the statement's snapshot has under the same id
//	  moved   INSERT ... ON CONFLICT DO UPDATE of what is new or goes forward, in the order of id; what is known already is not touched
//
// Whether a row moves is decided by the condition of ON CONFLICT, on the row as it is after others are done with it; a CHECK and a
// trigger hold against anybody else who writes. Two slices lock their rows in the same order, so they wait for each other and never in
// a circle. A row that did not move, although the snapshot says that it should, was moved by somebody else in between: it is read again.
//
// A transaction of several statements is needed for two things only: records of a slice that contradict each other, and a record that
// the schema refuses (too large for an index, say). The latter is found by halving, with savepoints, and rejected alone.
//
// # Errors
//
// With an error nothing is stored, save for one case that no client can exclude: the connection ends after the server committed and
// before it said so. The same slice again then changes nothing. A call that its context ends is canceled in the server and waits for its
// answer, so what it asked for does not happen later. A server that does not answer fails Apply after 30 seconds. The pool drops
// connections that broke and dials anew with the next call.
//
// How durable a commit is, is the server's setting (synchronous_commit); with "off", a crash of the server can lose what the alerter
// took for stored.
//
//	config.go    the URL and the pool
//	postgres.go  open, migrate, close
//	apply.go     writing
//	alerts.go    reading
//	errors.go    what errors mean
package postgres
