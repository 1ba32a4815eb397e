// Package alerter brings the alerts of the topic into the store, each once, and tells the endpoints what changed.
//
// # A batch
//
//	poll        up to 1000 records; the group cannot rebalance from here on
//	parse       a record that is not an alert is counted, logged with its place and skipped
//	store       all of it in one transaction, again and again until it succeeds
//	commit      the offsets, synchronously
//	print       what changed
//	allow the group to rebalance
//
// The store comes before the offset: a crash in between reads the batch again, and the store sees that it has it already. So the topic
// is delivered at least once and its effect is there once; nothing else needs to be remembered, and offsets that are lost, reset or
// set back do no harm. A failing store stops the alerter, visibly, and loses nothing: alerts wait in the topic.
//
// A record that contradicts what is stored, or that spate cannot have written, is passed over as well: a poison record does not stop the
// others. It is counted (outcome conflict, malformed) and logged as an error with its place, a line a second for each cause at most.
//
// The group waits for a batch up to rebalanceTimeout. If the store is away for longer, the broker gives the partitions to another
// alerter; this one's commit is then refused, and both have stored the same.
//
// # A delivery
//
// What there is to tell comes to be in the transaction that stores the alert. It is told by whichever alerter the store gives it to:
//
//	look      at the delivery's row: it may be settled, or not due yet
//	check     a message that cannot be sent is given up: it is recorded, and takes no turn
//	gate      wait for the endpoint's rate, for the time it asked for, or to find out whether it is back
//	try       once
//	record    what came of it, and when the next try is due
//
// A crash between the last two repeats the try, under the same id.
package alerter
