// Package window is the pure engine of spate: tumbling windows of event time, counted per user, with verdicts that are a function
// of the log. It does no I/O, reads no clock and starts no goroutine; time is an argument.
//
// The aggregation has two halves, as Flink's LocalWindowAggregate and GlobalWindowAggregate:
//
//   - The local half runs where the events are read. A [Source] is what is known of one source partition; it judges each event
//     (counted or late) and carries the partition's watermark. A [Combiner] adds the counted events up to one pane per (user,
//     window) and writes them, with the watermarks, as batches: one record of the keyed log each.
//   - The global half is a [Table] per partition of the keyed log. It applies batches in the order of the log, opens a window's
//     alert when its count passes the threshold and closes it when the minimum of the watermarks of all source partitions has
//     passed its end.
//
// # Rules
//
// All times are milliseconds since 1970-01-01T00:00:00Z. They are the rules of a TUMBLE group window of Flink SQL with a watermark
// strategy of "time - lateness", watermark after every row.
//
//  1. The window of an event at ts is [s, s+size) with s = floor(ts / size) * size.
//  2. The watermark of a source partition is its highest event time so far, in offset order, minus the lateness. Unlike Flink's
//     DataStream API there is no extra millisecond, and the event that advances the watermark is judged before it does. An event time
//     counts for no more than the time at which the log took its record: a clock that is ahead makes nobody else's events late.
//  3. An event is late if its window's end - 1 <= the watermark of its own source partition. An event older than the watermark
//     whose window is still open is counted.
//  4. A window opens an alert when its count exceeds the threshold. Counts only grow: it is never taken back.
//  5. A window closes when the minimum watermark of all source partitions is >= its end - 1; its count is then final.
//  6. A source partition that falls silent does not hold windows open: its owner promises a watermark for it ([Idleness]), and
//     from then on judges its events against the promise as well. The promise is written to the log with everything else, so a
//     replay of the log repeats it.
//
// Rules 3, 5 and 6 together make the close final: a pane of a window whose end every source has passed cannot follow in the log.
package window
