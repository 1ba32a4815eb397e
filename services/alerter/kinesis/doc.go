// Package kinesis stores alerts from a Kinesis stream and their incidents in a DynamoDB table, each once, and publishes messages about incidents to an SNS topic. It is the alerter of
// mode aws: [Function] runs it as a Lambda function behind an event source mapping and a schedule, and [Consume] as a process that reads the stream.
//
// # A record
//
//	parse       a record that is not an alert is reported, not tried again
//	store       one transaction: the alert, its incident, and the messages to publish
//	publish     the pending messages about the incident, regardless of which process put them there
//	record      that they are published
//
// A crash before the last step repeats the messages; a crash before the first step repeats nothing. Records may arrive more than once and
// in any order: the table detects those that it has.
//
// Endpoints (webhooks, PagerDuty, Slack and others) may be notified beside the topic. The transaction stores the messages to them as deliveries, and package deliver makes these,
// independent of records and batches: an endpoint that does not answer holds up nothing.
//
// # A batch
//
// Records of one user are processed in order, those of different users concurrently. A record that no retry can help, because it is
// malformed or contradicts the stored alert, is reported as failed, and the others are still processed: the source of the batch then
// moves only that record to the dead-letter queue. If the table or the topic does not answer, or if time runs short, no
// further record is started, and all remaining records are reported as failed, so that they are delivered again.
//
// # Ends
//
// An incident ends when event time has passed its last window plus quiet plus one window length. The worker's state says up to which event time all alerts are written, and where
// the last of them is in each shard (shared/aws/horizon). A process knows from its positions how far each shard is stored; a Lambda function records it in the table
// after each batch, and looks for incidents to end when a schedule calls it.
//
//	worker     … alerts written up to a time, the last at S in shard A, T in shard B ─── saved
//	alerter    A stored up to S, B up to T ─── incidents due by that time end
//
// # Rows from other writers
//
// The stream may also be written by the Flink job of the AWS walkthrough: rows with user_id and num_actions_per_watermark. If they contain
// the bounds of the window, they become the alerts that spate would have raised, with the same identity. Otherwise, an alert's identity is
// the position of its row in the stream, it is not part of an incident, and a message about the alert itself is published.
package kinesis
