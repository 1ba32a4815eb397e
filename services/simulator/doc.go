// Package simulator is the first stage of spate: it sends click events to the topic or stream that the pipeline reads, or to a file.
//
// The events come from a [Source]: a CSV file of the data set ([CSV]), on disk or in S3, or seeded traffic with labeled attackers
// ([Generator]). Each row then passes, in this order:
//
//	source ─► disorder ─► pace ─► time mode ─► ground truth ─► sink
//	          arrival     wall    what the     what was        Kafka topic,
//	          order       clock   event says   really sent     Kinesis stream
//	                                                           or file
//
// Everything up to the pace is a function of the configuration alone: the same seed gives the same rows in the same order, on
// every platform (the generator computes with integers only). The wall clock decides when a row is sent, and, in the time modes
// now and shift, which time it carries; the ground truth is therefore counted afterwards, from the rows as they were sent.
//
// # Shoppers and attackers
//
// A shopper has one session at a time and leaves at least 1.05 * window/threshold (2.1 s) between two events, so it never has
// more than threshold events in any stretch of one window's length, wherever the windows begin. Attackers have user ids from
// 900000000. [Kind] lists them. Two of them never break the rule: they expose a counter that gets tumbling windows wrong.
//
// The spacing between events must be preserved for this: it always is in time mode original, at speed 1 or 0 in shift, and at speed 1 in
// now if the broker keeps up. Otherwise, the rows are still labeled correctly, but shoppers may break the rule, too.
//
// [LibraryKinds] are attackers that only other rules find, those in rules/. Some of their events have types that the data set lacks (login,
// login_failed and payment_failed) or members that no other event has (ip, user_agent and coupon). [Innocents] are shoppers with user ids
// from 800000000 who do nothing wrong, but whom a rule that only counts would flag: orders whose lines have the same time, emptied carts,
// events that are sent twice, colleagues behind one address. Both appear only if the configuration asks for them; otherwise, they do
// not affect what a seed gives.
//
// The ground truth records the kind, the key, and the first and last event of each attack, so that any rule can be compared with it
// ([Truth]).
//
// # Written twice
//
// A Kafka topic gets every row once. If a call to Kinesis has to be repeated, its records may be written twice, so rows sent there have an
// event_id, "<run>-<row>": 10 random characters for the run, and the row's number, from 0.
//
// Creating the topic or stream, and reading and judging the events, are left to other packages.
package simulator
