// Package alerter stores the alerts of the topic, each once, and notifies the endpoints of changes.
//
// # A batch
//
//	poll        up to 1000 records; the group cannot rebalance from here on
//	parse       a record that is not an alert is counted, logged with its position and skipped
//	store       the whole batch in one transaction, retried until it succeeds
//	commit      the offsets, synchronously
//	print       what changed
//	allow the group to rebalance
//
// Storing comes before committing the offset: after a crash in between, the batch is read again, and the store detects the records that it
// already has. So the topic is delivered at least once but takes effect once; no other state is needed, and offsets that are lost, reset or
// moved back do no harm. A failing store visibly stops the alerter and loses nothing: alerts wait in the topic.
//
// A record that conflicts with the stored alert, or that spate cannot have written, is skipped as well: a poison record does not stop the
// others. It is counted (outcome conflict, malformed) and logged as an error with its position, at most once per second for each cause.
//
// The group waits for a batch for up to rebalanceTimeout. If the store is unavailable for longer, the broker assigns the partitions to
// another alerter; this one's commit is then rejected, and both have stored the same records.
//
// # An incident's end
//
// Incidents are opened and changed in the transaction of their alerts. They end by event time, which the alerter reads from the positions that
// detectors commit:
//
//	watermark   the lowest of all detectors' positions: every alert of the windows up to there is in the topic
//	ends        the end offsets of the alerts topic, looked up after that
//	stored      as soon as the group has committed these offsets, every such alert is stored
//	resolve     the incidents that are due at the watermark, in one transaction with their messages
//
// None of this state has to survive a restart. While all of the input is silent, the watermark advances with the wall clock.
//
// Package deliver makes the deliveries that the transaction creates.
package alerter
