// Package router is the local half of the aggregation: it reads events, regardless of their record keys, judges each event exactly once,
// adds up the counted ones per user and window, and writes the sums, keyed by user, for the detector.
//
// # The transaction
//
// All output for a run of events is written in one Kafka transaction:
//
//	begin
//	  poll until 50 ms have passed (up to 1 s in a backlog, where combining pays most)
//	  each event: counted -> combiner; late -> topic.late; invalid -> topic.dlq
//	  silent partitions: promise a watermark
//	  one or more batches per partition of topic.keyed, the last with the watermarks of all owned source partitions
//	  offsets of the source partitions, each with its state (window.Routed) as metadata
//	commit
//
// Readers of the outputs are read-committed. So the keyed log has every counted event once, in the order of its source partition,
// and the state that judged it is restored with the offset it belongs to: a killed router leaves neither gaps nor duplicates.
//
// If a rebalance or a fault comes first, the transaction is aborted, the state reverts to the last commit, and the same events are read and
// judged again. A process that was stopped for so long that another one took over its partitions is fenced by the broker: its commit
// fails, and it starts a new session.
//
// # What was already counted
//
// The keyed log decides this, not the group's offsets (recall.go): a failing broker can keep one and lose the other, and people reset groups.
//
// # Silence
//
// Whether a partition is silent depends on the wall clock, so it is decided here, once, and recorded: the promised watermark is in the
// watermarks of the batch and in the metadata of the offset. Which watermark can be promised depends on all source partitions; those of other
// routers are read from their committed metadata. A partition counts as silent only if everything that its log held a moment ago, including
// what an open transaction still hides, has been read:
//
//	log        e e e x x . . . . x . x . . x      e: event, x: other record
//	                 |             |       |
//	              heard          look 1  look 2   at look 2, everything up to look 1 has been read;
//	                 |<-- silent ->|              if that is the idle timeout, the partition is silent
//
// # What is skipped
//
// A batch that nobody can read is a gap (gap.go). Moving the client past it marks everything before it as read, so a gap, with its
// dead letter, is always the beginning of a transaction.
package router
