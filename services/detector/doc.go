// Package detector is the global half of the aggregation: a goka processor whose group table holds the open windows of every user. It
// reads the router's batches in log order, and writes an alert record when a window exceeds the threshold and another when it closes.
//
// # What goka does, and what this package does
//
// goka owns the consumer group, the assignment, one goroutine per partition and the completion of a message when its alerts are
// acknowledged. Its transports are those of shared/kafka/gokaclient.
//
// The storage of the group table is the window engine itself: a window.Table per partition ([storage]). A batch holds the sums of many
// users, so the callback applies it to the table instead of reading and writing one value through goka; every [checkpointEvery],
// the table's changes go to the changelog, as the latest state per user, for others to read.
//
// # After a crash
//
// The keyed log is the truth. The committed offset of a partition is the first batch of any window that is still open; its metadata
// has the offset up to which all alerts are acknowledged, and the watermarks there. So the next owner
//
//  1. reads from the committed offset, and writes no alerts below the offset up to which all are acknowledged;
//  2. from there on, judges as if nothing had happened: the same alerts, with the same content, under the same ids.
//
// A process that regains a partition still has its table and skips what it has already applied.
package detector
