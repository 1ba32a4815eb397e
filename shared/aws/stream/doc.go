// Package stream reads and writes Kinesis streams: a [Producer] that writes in full batches and in order, and [Reader.Read], which reads
// one shard from a position to its end and recovers from all faults on the way. Choosing shards, tracking progress and processing the
// records are left to the caller.
//
// # Re-sharding
//
// A shard that is split or merged is closed: it is read to its end, and its children continue from there. A child is read from its
// beginning (TRIM_HORIZON), but only after all its parents have been read to their ends, so the records of one partition key arrive in order.
// The end of a shard names its children, which are requested at once: a reader that polls the list of shards instead, or begins a child
// at LATEST, loses what was written in between.
//
// # Positions
//
// A sequence number is a decimal number of up to 129 digits, ascending within a shard and not comparable between shards. Reading resumes
// AT the last record that was read, which must be the first one returned. If it is not, records were deleted before they were read, and the reader
// reports it; with AFTER_SEQUENCE_NUMBER, this would go unnoticed.
package stream
