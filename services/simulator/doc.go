// Package simulator is the first stage of spate: it sends click events to the topic or the stream that the pipeline watches, or to a file.
//
// The events come from a [Source]: a CSV file of the data set ([CSV]), on a disk or in S3, or seeded traffic with labelled attackers
// ([Generator]).
// Each row then passes, in this order:
//
//	source ─► disorder ─► pace ─► time mode ─► ground truth ─► sink
//	          arrival     wall    what the     what was        Kafka topic,
//	          order       clock   event says   really sent     Kinesis stream
//	                                                           or file
//
// Everything up to the pace is a function of the configuration alone: the same seed gives the same rows in the same order, on
// every platform (the generator computes with integers only). The wall clock decides when a row is sent, and, in the time modes
// now and shift, which time it carries; the ground truth is therefore counted after that, over the rows as they were sent.
//
// # Shoppers and attackers
//
// A shopper has one session at a time and leaves at least 1.05 * window/threshold (2.1 s) between two events, so it never has
// more than threshold events in any stretch of one window's length, wherever the windows begin. Attackers have user ids from
// 900000000. [Kind] lists them; two of them never break the rule, and tell a counter of tumbling windows from a wrong one.
//
// Generated times keep that promise as long as the spacing of the events does: in time mode original always, in shift at speed
// 1 or 0, in now at speed 1 on a broker that keeps up. Otherwise the rows are still labelled right, but shoppers may break the
// rule too.
//
// # Written twice
//
// A Kafka topic gets every row once. Kinesis may write the records of a call that had to be repeated twice, so rows that go there carry
// an event_id: "<run>-<row>", the run 10 random characters, the row its number from 0.
//
// The package leaves to others: creating the topic or the stream, reading what it wrote, and judging it.
package simulator
