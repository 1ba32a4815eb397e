// Package alerter stores the alerts of the topic, each once, and notifies the endpoints of what changed.
//
// # A batch
//
//	poll        up to 1000 records; the group cannot rebalance from here on
//	parse       a record that is not an alert is counted, logged with its position and skipped
//	store       all of it in one transaction, again and again until it succeeds
//	commit      the offsets, synchronously
//	print       what changed
//	allow the group to rebalance
//
// Storing comes before committing the offset: after a crash in between, the batch is read again, and the store detects that it already has
// it. So the topic is delivered at least once but takes effect once; no other state is needed, and offsets that are lost, reset or moved
// back do no harm. A failing store visibly stops the alerter and loses nothing: alerts wait in the topic.
//
// A record that conflicts with the stored alert, or that spate cannot have written, is skipped as well: a poison record does not stop the
// others. It is counted (outcome conflict, malformed) and logged as an error with its position, at most once per second for each cause.
//
// The group waits for a batch for up to rebalanceTimeout. If the store is unavailable for longer, the broker assigns the partitions to
// another alerter; this one's commit is then rejected, and both have stored the same.
//
// # A delivery
//
// A delivery is created in the transaction that stores the alert. It is made by whichever alerter the store assigns it to:
//
//	look      at the delivery's row: it may be settled or not yet due
//	check     a message that cannot be sent is given up and recorded, without passing the gate
//	gate      wait for the endpoint's rate, for the time it asked for, or until it works again
//	try       once
//	record    the outcome, and when the next try is due
//
// A crash between the last two steps repeats the try, under the same id.
package alerter
