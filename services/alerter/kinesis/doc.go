// Package kinesis stores alerts from a Kinesis stream in a DynamoDB table, each once, and publishes them to an SNS topic. It is the alerter of
// mode aws: [Lambda] turns it into a function for an event source mapping, and a long-running stream consumer calls [Handler.Handle].
//
// # A record
//
//	parse       a record that is not an alert is reported, not tried again
//	store       one conditional write, which also marks the alert as pending if somebody is to be notified
//	publish     if the alert is pending, regardless of which process marked it
//	note        that it is sent
//
// A crash before the last step repeats the message; a crash before the first one repeats nothing. Records may come again and in any
// order: the table detects the ones it has.
//
// # A batch
//
// Records of one user are processed in order, those of different users concurrently. A record that no retry can help, because it is
// malformed or contradicts what is stored, is reported as failed, and the others are still processed: the source of the batch then
// moves only that record to the dead-letter queue. When the table or the topic does not answer, or time runs short, no record after
// that is started, and all remaining ones are reported as failed, so that they are delivered again.
//
// # Rows from other writers
//
// The stream may also be written by the Flink job of the AWS walkthrough: rows with user_id and num_actions_per_watermark. If they contain
// the bounds of the window, they become the alerts that spate would have raised, with the same identity. Otherwise, an alert's identity is
// the position of its row in the stream.
package kinesis
