// Package kinesis brings alerts from a Kinesis stream into a DynamoDB table, each once, and tells an SNS topic of them. It is the alerter
// of mode aws: [Lambda] makes a function for an event source mapping of it, and a long-running consumer of the stream calls [Handler.Handle].
//
// # A record
//
//	parse       a record that is not an alert is reported, not tried again
//	store       one conditional write, which also makes the alert pending if somebody is to be notified
//	publish     if the alert is pending, whoever made it so
//	note        that it is sent
//
// A crash before the last step repeats the message; a crash before the first one repeats nothing. Records may come again, and in any
// order: the table sees that it has them.
//
// # A batch
//
// Records of one user are worked off in their order, those of different users at once. A record that no further try can help with, because
// it is malformed or contradicts what is stored, is reported as failed, and the others are worked off all the same: whoever delivers the
// batch brings it, and only it, to the dead letter queue. When the table or the topic does not answer, or time runs short, nothing is
// begun after that record, and all that is left is reported as failed: it will be delivered again.
//
// # Rows of others
//
// The stream may be written by the original's Flink job instead of spate: rows with user_id and num_actions_per_watermark. With the bounds
// of the window in them, they are the alerts that spate would have found, under the same identity. Without, an alert's identity is the
// place of its row in the stream.
package kinesis
