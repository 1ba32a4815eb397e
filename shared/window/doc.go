// Package window is spate's pure engine: it evaluates rules over events in windows of event time, and its verdicts are a function of the
// log. It does no I/O, reads no clock and starts no goroutines; the time is passed as an argument.
//
// Package rule defines what a rule is: its condition, key and aggregates. The engine works on a [Stream]: the plan of a set of
// rules. Its unit is the pane: the events of one key in one slice of a feed. Rules with the same WHERE, key and slice share a feed. A window
// consists of slices: one for TUMBLE, several for HOP and CUMULATE, which share them with the windows that overlap:
//
//	slices    |    |    |    |    |    |    |    |
//	HOP       [--------------)                       size 3 slices, step 1
//	               [--------------)
//	CUMULATE  [----)                                 up to 4 slices, step 1
//	          [---------)
//	          [--------------)
//	          [-------------------)
//
// The aggregation has two halves, like Flink's LocalWindowAggregate and GlobalWindowAggregate:
//
//   - The local half runs where the events are read. A [Source] holds what is known about one source partition: it knows the watermark by
//     which an event is judged. A [Combiner] adds up the events to panes, and writes the panes, with the watermarks, as batches, each of which is
//     one record of the keyed log.
//   - The global half is a [Table] per partition of the keyed log. It applies batches in log order, opens an alert when the condition of a
//     rule becomes TRUE for good, and closes it when the minimum watermark of all source partitions has passed the window's end.
//
// # Rules
//
// All times are milliseconds since 1970-01-01T00:00:00Z. The rules are those of Flink SQL's windows with the watermark "time - lateness",
// emitted after every row.
//
//  1. Windows are aligned to the epoch: those of TUMBLE and HOP begin at multiples of their step, rounded towards minus infinity.
//  2. The watermark of a source partition is its highest event time so far, in offset order, minus the lateness. Unlike in
//     Flink's DataStream API, a watermark does not lag by an extra millisecond, and an event is judged before it advances the watermark. For this, an
//     event time is capped at the time at which the log appended its record, so a clock that is ahead makes nobody else's events late.
//  3. An event counts in each of its windows whose end - 1 > the watermark of its own source partition. It is late for a rule if it counts in
//     none of them. Events that came too late for different windows are in different panes, so the answer does not depend on how partitions interleave.
//  4. A rule whose condition, once TRUE, stays TRUE (rule.Rule.Early) opens an alert at once. It is never withdrawn. Alerts of
//     other rules only close.
//  5. A window closes when the minimum watermark of all source partitions is >= its end - 1; its row is then final.
//  6. A source partition that falls silent does not hold windows open: its owner promises a watermark for it ([Idleness])
//     and from then on also judges its events against the promise. The promise is written to the log with everything else, so a
//     replay of the log repeats it.
//
// Together, rules 3, 5 and 6 make a close final: once every source has passed a window's end, no pane of it can follow in the log.
//
// # Rules that change
//
// A revision of the rules has a boundary in event time: a window belongs to the revision that is in force when it begins (rule.History). Combiner
// and table take a newer plan while they are in use ([Combiner.Extend], [Table.Extend]): the rules and feeds that they know continue. Each batch says
// which revision its events were judged by. A table must know it before it applies the batch.
//
// # The progress of a table
//
// A table has three offsets in its partition of the keyed log. A [Position] commits Replay and Next:
//
//	keyed log   ... b  b  b  b  b  b  b  b  b  b     b: batch
//	                   |        |           |
//	                 Replay    Next      applied     Replay <= Next <= applied
//
//	applied   the table has added up these batches
//	Next      the alerts of everything before it are acknowledged by the broker
//	Replay    the first batch with a pane of a window that is open at Next
//
// The next owner reads from Replay. Below Next, it only adds up, because those alerts are already written; from Next on, it writes alerts. What the
// former owner wrote between Next and applied is thus written again, with the same id and content: the panes are the same, because Replay precedes the first pane of
// each window, and the decisions are the same, because the watermarks at Next are part of the position.
package window
