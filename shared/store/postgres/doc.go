// Package postgres stores alerts in a Postgres database (12 or newer), which several alerters may share. It adapts pgx.
//
// # Apply
//
//	one statement, which is its own transaction: one round trip for a slice
//	  next    the net result of the slice, one array per column
//	  seen    next to it, what the statement's snapshot has under the same id
//	  moved   INSERT ... ON CONFLICT DO UPDATE of what is new or moves forward, in id order; what is already known is not touched
//
// The condition of ON CONFLICT decides whether a row moves, based on the row after concurrent writers are done with it;
// a CHECK and a trigger guard against any other writer. Two slices lock their rows in the same order, so they cannot deadlock.
// A row that did not move although the snapshot says that it should was moved by another writer in between; it is read again.
//
// Only two cases need a transaction of several statements: records of a slice that contradict each other, and a record that the schema
// refuses (too large for an index, for example). The latter is found by bisection, with savepoints, and only it is rejected.
//
// # Errors
//
// After an error, nothing is stored, except in one case that no client can rule out: the connection ends after the server committed
// but before it confirmed. Applying the same slice again then changes nothing. A call whose context ends is canceled in the server and
// waits for the answer, so its effect cannot occur later. A server that does not answer fails Apply after 30 seconds. The pool drops
// broken connections and reconnects at the next call.
//
// The server's setting synchronous_commit determines how durable a commit is; with "off", a server crash can lose what the alerter
// considers stored.
//
//	config.go    the URL and the pool
//	postgres.go  open, migrate, close
//	apply.go     writing
//	alerts.go    reading
//	errors.go    what errors mean
package postgres
