// Package router is the local half of the aggregation: it reads events, whatever their producers keyed them by, judges each once and
// for good, adds the counted ones up per user and window, and writes the sums, keyed by user, for the detector.
//
// # The transaction
//
// Everything that a stretch of events causes is one Kafka transaction:
//
//	begin
//	  poll until 50 ms have passed (up to 1 s under a backlog, where combining pays most)
//	  each event: counted -> combiner; late -> topic.late; no event -> topic.dlq
//	  silent partitions: promise a watermark
//	  one or more batches per partition of topic.keyed, the last with the watermarks of all source partitions owned
//	  offsets of the source partitions, each with its state (window.Routed) as metadata
//	commit
//
// Readers of the outputs are read-committed. So the keyed log has every counted event once, in the order of its source partition,
// and the state that judged it is restored with the offset it belongs to: a killed router leaves neither hole nor double.
//
// If a rebalance or a fault comes first, the transaction is aborted, the state falls back to what was committed, and the same events
// are read and judged again. A process that was stopped for so long that another one took its partitions is fenced by the broker:
// its commit fails, and it starts over with a new session.
//
// # What is counted already
//
// The keyed log tells, not the group's offsets (recall.go): a broker that fails can keep the one and lose the other, and people reset groups.
//
// # Silence
//
// Whether a partition is silent is a matter of wall clock, so it is decided here, once, and written down: the promised watermark is in
// the marks of the batch and in the metadata of the offset. Which watermark can be promised depends on all source partitions; those
// of other routers are read from the metadata that they committed. A partition counts as silent only if what its log held a moment ago is
// read, with what an open transaction still hides:
//
//	log        e e e x x . . . . x . x . . x      e: event, x: record that is none
//	                 |             |       |
//	              heard          look 1  look 2   at look 2 everything up to look 1 is read;
//	                 |<-- silent ->|              if that is the idle timeout, the partition is silent
//
// # What is left out
//
// A batch that nobody can read is a gap (gap.go). Sending the client past it makes everything before it count as read, so a gap is always
// the beginning of a transaction, with its dead letter.
package router
