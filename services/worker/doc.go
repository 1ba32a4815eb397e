// Package worker is router and detector in one for Kinesis: it reads all shards of the stream of events, judges each event once, counts
// per user and window with the engine of shared/window, and writes the alerts to a second stream.
//
// # One worker
//
// The stream is keyed by whatever its producers like, the count is per user, and Kinesis has neither transactions nor a way to hand a
// partition over. So one worker reads all shards; the others stand by. Who works is decided by a lease in DynamoDB (shared/aws/lease),
// and the item of that lease holds the whole state: some 150 bytes a shard, written twice for each close of windows. Counts are not in it.
// They are counted again from the stream, from the oldest window that is still open, which is some 20 to 30 seconds of it.
//
// # The cut
//
// What the worker tells must not depend on when it crashed. A count depends on which events were in time, and that depends, for a shard
// that fell silent or one that came late, on when windows were closed: on the wall clock. So the decision is written down before it has
// any effect:
//
//  1. The watermark passes the end of a window. The worker writes to its item: pending = that watermark, and for each shard the last
//     record that was read (the cut).
//  2. It writes the alerts of the windows that end at or before pending to stream 2.
//  3. closed = pending, and for each shard the place from which the windows that are still open have to be read again (resume).
//
// After a crash, each shard is read from resume up to the cut and no further, the windows up to pending are closed, and only then the
// worker goes on. The events that are read again are judged as they were: windows that are open now were open then, so whether one of
// their events was late depends on its shard's event times alone, and of those the highest before resume is part of the state.
//
// What is told again is the same as before, under the same id; whoever reads stream 2 keeps each alert once.
//
// # Shards that are split and merged
//
// A child is read when its parents are read to their ends, from its beginning, and takes over the event time of the parent that is
// furthest behind: it is that shard's continuation. A parent holds windows open until its children have taken over.
//
// # Silence
//
// A shard that is read to its end and has had no event for the idle timeout does not hold windows open; when all are silent, the
// watermark walks on with the wall clock (window.Idleness). An event that comes after its window was closed for that reason is late. Only
// what was looked at a moment ago is silent: a shard that is paused or cannot be read, or all of them while stream 2 takes nothing, hold on.
//
// It leaves to others: what becomes of the alerts (services/alerter), and traffic beyond one process (docs/aws.md).
package worker
