// Package stream reads and writes Kinesis streams: a [Producer] that writes in full batches and in order, and [Reader.Read], which reads
// one shard from a place to its end and past every fault on the way. Which shards are read, how far each has come and what becomes of the
// records is their user's business.
//
// # Re-sharding
//
// A shard that is split or merged is closed: it is read to its end, and its children go on from there. A child is read only when all its
// parents have been read to their ends, from its own beginning (TRIM_HORIZON); so the records of one partition key come in their order.
// The end of a shard names its children, and they are asked for at once: whoever polls the list of shards instead, or begins a child at
// LATEST, loses what was written in between.
//
// # Places
//
// A sequence number is a decimal number of up to 129 digits, ascending within a shard and not comparable between shards. Reading goes on
// AT the last record that was read, which must be the first that comes: if it is not, records were deleted before they were read, and the
// reader says so, where AFTER_SEQUENCE_NUMBER would not notice.
package stream
